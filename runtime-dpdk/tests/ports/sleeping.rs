//! Receive interrupts: a descriptor that becomes readable with the next frame.

use std::net::UdpSocket;
use std::os::fd::RawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use libos::{FrameBatch, Runtime};
use runtime_dpdk::DpdkConfig;

use crate::end::{End, config, pattern, push};
use crate::namespace;

pub fn run(line: &str) {
    let mut words = line.split(' ');
    assert!(Command::new(words.next().unwrap()).args(words).status().unwrap().success(), "{line}");
}

/// True when the descriptor becomes readable within so many milliseconds.
pub fn readable(fd: RawFd, timeout_ms: i32) -> bool {
    let mut polled = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor to look at.
    unsafe { libc::poll(&raw mut polled, 1, timeout_ms) == 1 }
}

/// Frames that have arrived, once there is one: this driver looks only after a signal, which may come a little later.
fn arrived(end: &mut End) -> usize {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let frames = end.receive_all().len();
        if frames > 0 || Instant::now() > deadline {
            return frames;
        }
    }
}

#[test]
fn a_tap_port_wakes_a_sleeper_for_each_frame_and_not_without_one() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_tap0,iface=dtap0"));
        run("sysctl -q net.ipv6.conf.dtap0.disable_ipv6=1");
        run("ip address add 10.8.0.1/24 dev dtap0");
        run("ip link set dtap0 up");
        run("ip neighbour add 10.8.0.2 lladdr 02:00:00:00:00:09 dev dtap0");
        let socket = UdpSocket::bind("10.8.0.1:0").unwrap();
        while !end.receive_all().is_empty() {}
        for _ in 0..3 {
            let fd = end.dpdk.wake_fd().unwrap();
            assert!(!readable(fd, 50), "nothing has come");
            socket.send_to(b"wake", "10.8.0.2:9").unwrap();
            assert!(readable(fd, 5000));
            assert_eq!(arrived(&mut end), 1);
        }
        // Arrives while nobody sleeps.
        socket.send_to(b"early", "10.8.0.2:9").unwrap();
        assert!(readable(end.dpdk.wake_fd().unwrap(), 5000));
        assert_eq!(arrived(&mut end), 1);
    });
}

#[test]
fn a_port_without_interrupts_has_to_be_polled() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_ring0"));
        assert!(end.receive().is_empty());
        assert_eq!(end.dpdk.wake_fd(), None);
    });
}

/// One peer after the other comes and goes; in between nobody is there.
#[test]
fn a_vhost_port_wakes_a_sleeper_when_a_peer_comes_sends_and_leaves() {
    namespace::enter("-Urn", || {
        let socket = std::env::temp_dir().join(format!("catnip-sleeping-{}", std::process::id()));
        let settings = |device: &str| DpdkConfig {
            memory_mib: 512,
            link_wait: Duration::ZERO,
            ..config(&device.replace("SOCKET", socket.to_str().unwrap()))
        };
        let mut back = End::open(&settings("net_vhost0,iface=SOCKET,queues=1"));
        for round in 0..3 {
            let alone = asleep(&mut back);
            let mut front = End::open(&settings("virtio_user0,path=SOCKET,queues=1"));
            assert!(readable(alone, 5000), "round {round}: somebody came");
            let idle = asleep(&mut back);
            let mut batch = FrameBatch::new();
            push(&mut batch, [front.buffer(&pattern(100, round))]);
            front.transmit(&mut batch);
            assert!(readable(idle, 5000), "round {round}: a frame came");
            assert_eq!(arrived(&mut back), 1);
            let idle = asleep(&mut back);
            drop(front);
            assert!(readable(idle, 5000), "round {round}: the peer left");
        }
    });
}

/// Lets a thread that would sleep on the port do so: what wakes it.
fn asleep(end: &mut End) -> RawFd {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        assert!(end.receive().is_empty() && Instant::now() < deadline);
        let fd = end.dpdk.wake_fd().unwrap();
        if !readable(fd, 50) {
            return fd;
        }
    }
}
