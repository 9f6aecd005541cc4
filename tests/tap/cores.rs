//! Several cores on one TAP device, each with a stack, against kernel clients.

use crate::kernel_clients::{
    CONNECTIONS, HANDED_OVER, THROUGH, a_core_that_stops_polling_keeps_no_flow_of_another_waiting,
    a_packet_wakes_its_own_core_alone, each_serves_its_connections_through_its_own_queue, on_cores,
    one_library_os_serves_all_queues, run,
};
use crate::{link, namespace, root};

/// A program of ours picks the queues.
const STEERED: &str = "catnip.device.steered";

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

/// Root may give the device a program that knows which flow is whose.
#[test]
fn a_core_that_stops_polling_harms_no_other() {
    root::enter(|| a_core_that_stops_polling_keeps_no_flow_of_another_waiting(&link::config()));
}

#[test]
fn flows_come_to_their_core_by_themselves_where_the_kernel_takes_a_program() {
    root::enter(|| {
        let (_, counted) = run(&on_cores(&link::config()), &[STEERED, HANDED_OVER]);
        assert_eq!(counted, [[1, 0], [1, 0]]);
    });
}

/// Of a user namespace even root may not, unless the system lets everybody (`kernel.unprivileged_bpf_disabled`).
#[test]
fn where_the_kernel_takes_no_program_cores_hand_over_what_is_not_theirs() {
    namespace::enter("-Urn", || {
        let (_, counted) = run(&on_cores(&link::config()), &[STEERED, HANDED_OVER]);
        let takes_programs = counted[0][0] == 1;
        assert_eq!(counted.iter().any(|core| core[1] > 0), !takes_programs, "{counted:?}");
    });
}

#[test]
fn a_packet_wakes_its_own_core_and_lets_the_other_sleep() {
    root::enter(|| a_packet_wakes_its_own_core_alone(&link::config()));
}
