//! Several cores on one TAP device, each with a stack, against kernel clients.

use std::net::TcpListener;
use std::thread;

use catnip_os::Cores;
use catnip_os::libos::net::TcpStream;

use crate::kernel_clients::{
    CONNECTIONS, HANDED_OVER, THROUGH, a_core_that_stops_polling_keeps_no_flow_of_another_waiting,
    a_packet_wakes_its_own_core_alone, each_serves_its_connections_through_its_own_queue, on_cores,
    one_library_os_serves_all_queues, run, run_with,
};
use crate::link::{self, Family};
use crate::{namespace, root};

const ROUND_TRIPS: usize = 100;
const FLOWS: usize = 8;
const RECEIVED: &str = "catnip.device.rx_frames";

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

/// The kernel remembers for three seconds which queue sent on a flow last, and puts what comes back into that one.
#[test]
fn without_a_program_a_flow_comes_to_its_core_from_that_cores_first_answer_on() {
    let clients = || {
        for (family, _) in
            Family::BOTH.into_iter().flat_map(|family| (0..FLOWS).map(move |flow| (family, flow)))
        {
            let stream = link::connect(family.catnip(7));
            let datagrams = link::datagrams(family.kernel(0), family.catnip(7));
            for round in 0..ROUND_TRIPS {
                assert_eq!(link::exchange(&stream, &[round as u8; 64]), [round as u8; 64]);
                datagrams.send(&[round as u8]).unwrap();
                assert_eq!(datagrams.recv(&mut [0; 2]).unwrap(), 1);
            }
        }
    };
    namespace::enter("-Urn", move || {
        let (_, counted) = run_with(&on_cores(&link::config()), &[HANDED_OVER, RECEIVED], clients);
        let [handed_over, received] = [0, 1].map(|count| counted.iter().map(|core| core[count]).sum::<u64>());
        let flows = FLOWS as u64 * Family::BOTH.len() as u64;
        assert!(received > 2 * flows * ROUND_TRIPS as u64, "{counted:?}");
        // Of datagrams the first, of a stream the SYN and its last acknowledgment: the kernel has sent that by the time it
        // remembers whom the SYN-ACK came from. Half of them are at their core by chance.
        assert!(handed_over <= (1 + 2) * flows, "{counted:?}");
    });
}

#[test]
fn without_a_program_connections_that_cores_open_come_to_them_but_for_the_first_answer() {
    namespace::enter("-Urn", || {
        let config = on_cores(&link::config());
        // The kernel's end is there once the device is.
        let seats = Cores::open(&config).unwrap().into_seats();
        let listeners = Family::BOTH.map(|family| TcpListener::bind(family.kernel(0)).unwrap());
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        for listener in listeners {
            thread::spawn(move || echo_each(&listener));
        }
        let cores = seats.into_iter().map(|seat| {
            thread::spawn(move || {
                let libos = seat.open().unwrap();
                link::run(&libos, async {
                    for address in addresses.iter().flat_map(|address| [address; FLOWS]) {
                        let stream = TcpStream::connect(&libos, *address).await.unwrap();
                        for round in 0..ROUND_TRIPS {
                            stream.push(vec![round as u8]).await.unwrap();
                            assert_eq!(stream.pop().await.unwrap().to_vec(), [round as u8]);
                        }
                    }
                });
                (link::metric(&libos, HANDED_OVER), link::metric(&libos, RECEIVED))
            })
        });
        for counted in cores.collect::<Vec<_>>().into_iter().map(|core| core.join().unwrap()) {
            let (handed_over, received) = counted;
            let flows = 2 * FLOWS as u64;
            assert!(received > flows * ROUND_TRIPS as u64, "{counted:?}");
            // The kernel has answered the SYN by the time it remembers who sent it.
            assert!(handed_over <= flows, "{counted:?}");
        }
    });
}

/// A kernel server that sends back what each connection brings.
fn echo_each(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
    }
}

#[test]
fn a_packet_wakes_its_own_core_and_lets_the_other_sleep() {
    root::enter(|| a_packet_wakes_its_own_core_alone(&link::config()));
}
