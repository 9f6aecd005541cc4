//! A library OS that sleeps on a port's receive interrupts.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use catnip_os::libos::Config;
use catnip_os::libos::net::UdpSocket;

use crate::echo::{PATIENCE, PORT, metric};
use crate::namespace;
use crate::processes::{Link, open, run_ends};

const KNOCKS: usize = 10;
const KNOCK_EVERY: Duration = Duration::from_millis(150);
/// Of a core.
const GOAL_PERCENT: u32 = 1;
const ENOUGH: &[u8] = b"enough";

/// Processor time that this thread has used.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_virtio_user_port_sleeps_and_a_packet_costs_one_wake_up() {
    namespace::enter("-Urn", || {
        let link =
            Link { server: "net_vhost0,iface=SOCKET,queues=1", client: "virtio_user0,path=SOCKET,queues=1" };
        run_ends(
            &link,
            |config, own, sleeper| knock(&config, own, sleeper),
            |config, own, _| sleep_between_knocks(&config, own),
        );
    });
}

/// Sends a datagram now and then until the other end has had enough.
fn knock(config: &Config, own: IpAddr, sleeper: IpAddr) {
    let libos = open(config);
    let socket = UdpSocket::bind(&libos, SocketAddr::new(own, PORT)).unwrap();
    let knocking = async {
        loop {
            socket.send_to(b"knock", SocketAddr::new(sleeper, PORT)).await.unwrap();
            if let Ok(answer) = libos.timeout(KNOCK_EVERY, socket.pop()).await {
                return assert_eq!(answer.unwrap().0.to_vec(), ENOUGH);
            }
        }
    };
    libos.block_on(libos.timeout(PATIENCE, knocking)).unwrap().unwrap();
}

fn sleep_between_knocks(config: &Config, own: IpAddr) {
    let libos = open(&config.clone().set("libos.idle", "adaptive"));
    let socket = UdpSocket::bind(&libos, SocketAddr::new(own, PORT)).unwrap();
    let counting = async {
        // Neighbours have been found by then.
        socket.pop().await.unwrap();
        let (before, started) = (processor_time(), libos.now());
        let mut wakeups = Vec::new();
        let mut knocker = None;
        for _ in 0..KNOCKS {
            let before = metric(&libos, "libos.sleeps");
            knocker = socket.pop().await.unwrap().1;
            wakeups.push(metric(&libos, "libos.sleeps") - before);
        }
        let (used, passed) = (processor_time() - before, libos.now().saturating_duration_since(started));
        println!("{used:?} of {passed:?}; wake-ups for each packet: {wakeups:?}");
        for _ in 0..3 {
            socket.send_to(ENOUGH, knocker.unwrap()).await.unwrap();
            libos.sleep(KNOCK_EVERY / 3).await;
        }
        assert!(used < passed * GOAL_PERCENT / 100, "{used:?} of {passed:?}");
        // A timer may fall between.
        assert!(wakeups.iter().filter(|count| **count == 1).count() >= KNOCKS - 2, "{wakeups:?}");
    };
    libos.block_on(libos.timeout(PATIENCE, counting)).unwrap().unwrap();
}
