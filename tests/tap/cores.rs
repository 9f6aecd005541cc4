//! Several cores on one TAP device, each with a stack, against kernel clients.

use crate::kernel_clients::{
    CONNECTIONS, THROUGH, each_serves_its_connections_through_its_own_queue, on_cores,
    one_library_os_serves_all_queues, run,
};
use crate::{link, namespace};

#[test]
fn two_cores_with_a_queue_each_serve_many_kernel_clients_each_on_one_core() {
    namespace::enter("-Urn", || each_serves_its_connections_through_its_own_queue(&link::config()));
}

#[test]
fn two_cores_share_a_device_of_one_queue() {
    namespace::enter("-Urn", || {
        let (served, counted) = run(&on_cores(&link::config().set("tap.queues", 1)), &[THROUGH]);
        assert_eq!(served.len(), 2 * CONNECTIONS);
        assert_eq!((counted[0][0], counted[1][0] > 100), (0, true), "{counted:?}");
    });
}

#[test]
fn one_library_os_serves_all_queues_of_a_device() {
    namespace::enter("-Urn", || one_library_os_serves_all_queues(&link::config().set("tap.queues", 3)));
}
