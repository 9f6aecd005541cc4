//! Several cores on one end of a veth pair, each with a queue of the device and a stack.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use catnip_os::libos::Config;

use crate::kernel_clients::{
    CORES, HANDED_OVER, a_core_that_stops_polling_keeps_no_flow_of_another_waiting,
    a_packet_wakes_its_own_core_alone, each_serves_its_connections_through_its_own_queue, on_cores,
    one_library_os_serves_all_queues, ports_of, run, while_a_core_stays_away,
};
use crate::link::{self, Family};
use crate::{namespace, pair, root};

/// What came in the core's own queue.
const RECEIVED: &str = "catnip.device.rx_frames";

fn packet() -> Config {
    pair::config("packet")
}

/// XDP sockets, on a pair with a queue for each core.
fn xdp(mode: &str) -> Config {
    pair::make_with_queues(1500, CORES);
    pair::compute_checksums();
    pair::config("xdp").set("xdp.mode", mode)
}

#[test]
fn two_cores_with_a_packet_socket_each_serve_many_kernel_clients_each_on_one_core() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        for ring_kib in [8192, 0] {
            let config = packet().set("packet.ring_kib", ring_kib);
            each_serves_its_connections_through_its_own_queue(&config);
        }
    });
}

#[test]
fn the_kernel_puts_each_flow_into_its_cores_packet_socket() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        for ring_kib in [8192, 0] {
            let (_, counted) = run(&on_cores(&packet().set("packet.ring_kib", ring_kib)), &[HANDED_OVER]);
            assert_eq!(counted, [[0], [0]]);
        }
    });
}

#[test]
fn a_core_with_a_packet_socket_that_stops_polling_harms_no_other() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        a_core_that_stops_polling_keeps_no_flow_of_another_waiting(&packet());
    });
}

#[test]
fn a_core_with_a_packet_ring_that_stops_polling_harms_no_other() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        a_core_that_stops_polling_keeps_no_flow_of_another_waiting(&packet().set("packet.ring_kib", 8192));
    });
}

#[test]
fn a_packet_wakes_its_own_core_and_lets_the_other_sleep() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        a_packet_wakes_its_own_core_alone(&packet());
    });
}

#[test]
fn one_library_os_serves_several_packet_sockets() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        one_library_os_serves_all_queues(&packet().set("packet.queues", 3));
    });
}

#[test]
fn two_cores_with_an_xdp_queue_each_serve_many_kernel_clients_each_on_one_core() {
    root::enter(|| each_serves_its_connections_through_its_own_queue(&xdp("native")));
}

#[test]
fn two_cores_serve_in_generic_mode_too() {
    root::enter(|| each_serves_its_connections_through_its_own_queue(&xdp("generic")));
}

#[test]
fn one_library_os_serves_several_xdp_queues() {
    root::enter(|| one_library_os_serves_all_queues(&xdp("auto").set("xdp.queues", 2)));
}

/// The device's hash is another one, so about half of the frames come into the other core's queue.
#[test]
fn both_queues_bring_frames_and_each_core_gets_its_own() {
    root::enter(|| {
        let (_, counted) = run(&on_cores(&xdp("native")), &[RECEIVED, HANDED_OVER]);
        for core in counted {
            let [received, handed_over] = core[..] else { panic!("two counts: {core:?}") };
            assert!(received > 100, "{received} frames came into a queue");
            assert!(handed_over > 0 && handed_over < received, "{handed_over} of {received}");
        }
    });
}

/// veth has a hash of its own, so that of the connections of core 0 about half come into the queue of core 1 and wait there.
/// The others go on as if nothing were.
#[test]
fn a_core_with_an_xdp_queue_that_stops_polling_keeps_what_is_in_its_queue_and_nothing_else() {
    const CONNECTIONS: usize = 40;
    let before = || {
        let ports = ports_of(Family::V4, 0).into_iter().take(CONNECTIONS);
        let connect = |port| link::connect_from(Family::V4.kernel(port), Family::V4.catnip(7)).unwrap();
        let streams: Vec<_> = ports.map(connect).collect();
        streams.iter().for_each(|stream| assert_eq!(link::exchange(stream, b"before"), b"before"));
        streams
    };
    let during = |streams: Vec<TcpStream>| {
        let served = |stream: &TcpStream| {
            let mut answer = [0; 6];
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut stream = stream;
            stream.write_all(b"during").unwrap();
            stream.read_exact(&mut answer).is_ok_and(|()| answer == *b"during")
        };
        let served = streams.iter().filter(|stream| served(stream)).count();
        assert!(served >= CONNECTIONS / 5, "{served} of {CONNECTIONS} connections were served");
    };
    root::enter(|| while_a_core_stays_away(&xdp("native"), before, during));
}

#[test]
fn cores_without_a_queue_of_an_xdp_device_are_refused() {
    root::enter(|| {
        let config = on_cores(&xdp("auto").set("xdp.queues", 1));
        let refused = catnip_os::Cores::open(&config).map(drop).unwrap_err().to_string();
        assert!(
            refused.ends_with("xdp.queues = 1: allowed is one for each core with this device: 2"),
            "{refused}"
        );
    });
}
