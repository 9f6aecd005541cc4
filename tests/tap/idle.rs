//! Waiting costs next to no processor time, and ends when a frame arrives.

use std::fs;
use std::net::UdpSocket as KernelSocket;
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::{Domain, Error, LibOs, SocketKind};

use crate::link::{self, Family, PATIENCE};
use crate::{datagrams, idleness, namespace};

const PORT: u16 = 5006;
const WAIT: Duration = Duration::from_secs(1);
/// What the kernel counts processor time in.
const TICK: Duration = Duration::from_millis(10);

/// Processor time that this thread has used, user and system.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name, which may contain anything, ends with the last parenthesis; times are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u32 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u32>().unwrap()).sum();
    ticks * TICK
}

fn open(idle: &str) -> LibOs {
    link::open(&link::config().set("libos.idle", idle))
}

/// Waits for what does not come; returns the processor time that this takes.
fn wait_in_vain(libos: &LibOs) -> Duration {
    let listener = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    libos.bind(listener, Family::V4.catnip(PORT)).unwrap();
    libos.listen(listener, 1).unwrap();
    let token = libos.accept(listener).unwrap();
    // What the kernel says when a link comes up passes first.
    let _ = libos.wait(token, Some(WAIT / 4));
    let before = processor_time();
    assert_eq!(libos.wait(token, Some(WAIT)).map(drop), Err(Error::TimedOut));
    processor_time() - before
}

#[test]
fn a_wait_that_sleeps_takes_next_to_no_processor_time() {
    namespace::enter("-Urn", || {
        for idle in ["sleep", "adaptive"] {
            let libos = open(idle);
            let used = wait_in_vain(&libos);
            assert!(used <= WAIT / 20, "{idle} used {used:?} of {WAIT:?}");
            assert!(link::metric(&libos, "libos.sleeps") > 0);
        }
    });
}

#[test]
fn idle_connections_cost_next_to_nothing_and_a_packet_one_wake_up() {
    namespace::enter("-Urn", || {
        for idle in ["adaptive", "sleep"] {
            idleness::costs_next_to_nothing_and_a_packet_costs_one_wake_up(
                &open(idle),
                &format!("TAP, {idle}"),
            );
        }
    });
}

#[test]
fn a_wait_that_spins_never_sleeps() {
    namespace::enter("-Urn", || {
        let libos = open("spin");
        wait_in_vain(&libos);
        assert_eq!(link::metric(&libos, "libos.sleeps"), 0);
        assert!(link::metric(&libos, "libos.polls") > 1000);
    });
}

#[test]
fn a_frame_wakes_a_wait_that_sleeps() {
    namespace::enter("-Urn", || {
        for idle in ["sleep", "adaptive"] {
            let libos = open(idle);
            let address = Family::V4.catnip(PORT);
            let socket = libos.socket(Domain::Ipv4, SocketKind::Datagram).unwrap();
            libos.bind(socket, address).unwrap();
            for _ in 0..3 {
                let token = libos.pop(socket).unwrap();
                let sender = thread::spawn(move || {
                    thread::sleep(WAIT / 5);
                    let socket = KernelSocket::bind(Family::V4.kernel(0)).unwrap();
                    let sent_at = Instant::now();
                    socket.send_to(b"wake up", address).unwrap();
                    sent_at
                });
                libos.wait(token, Some(PATIENCE)).unwrap();
                let woken_at = Instant::now();
                let sent_at = sender.join().unwrap();
                let late = woken_at.saturating_duration_since(sent_at);
                // The neighbour's address is asked for in between.
                assert!(late < WAIT, "{idle} woke {late:?} late");
            }
        }
    });
}

#[test]
fn sleeping_tasks_answer_a_thousand_datagrams_in_turn() {
    namespace::enter("-Urn", || {
        datagrams::are_answered_in_turn_from_sleep(&open("sleep"), PORT, 1000);
    });
}
