//! The public stack under a harness of the shape that conformance suites have: POSIX's calls without waiting, bare IP
//! packets, a virtual clock of microseconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod machine;

use std::net::SocketAddr;
use std::time::Duration;

use catnip::events::Readiness;
use libos::{Error, Shutdown, SocketOption, SocketOptionName};

use machine::{Fd, Lab, Read};

const CLIENT: usize = 0;
const SERVER: usize = 1;

fn server_address() -> SocketAddr {
    "10.0.0.2:80".parse().unwrap()
}

/// A listener with the options of `set`.
fn listen(lab: &mut Lab, set: &[SocketOption]) -> Fd {
    let machine = &mut lab.machines[SERVER];
    let listener = machine.socket();
    set.iter().for_each(|&option| machine.setsockopt(listener, option).unwrap());
    machine.bind(listener, server_address()).unwrap();
    machine.listen(listener, 8).unwrap();
    listener
}

/// A connection: the client's and the server's descriptor.
fn connected() -> (Lab, Fd, Fd) {
    connected_with(&[])
}

fn connected_with(set: &[SocketOption]) -> (Lab, Fd, Fd) {
    let mut lab = Lab::new();
    let listener = listen(&mut lab, set);
    let client = lab.machines[CLIENT].socket();
    set.iter().for_each(|&option| lab.machines[CLIENT].setsockopt(client, option).unwrap());
    assert_eq!(lab.machines[CLIENT].connect(client, server_address()), Err(Error::WouldBlock));
    lab.pass_us(1_000);
    let (server, _) = lab.machines[SERVER].accept(listener).unwrap();
    (lab, client, server)
}

#[test]
fn connecting_goes_on_by_itself_and_readiness_tells_when_it_is_done() {
    let mut lab = Lab::new();
    let listener = listen(&mut lab, &[]);
    assert_eq!(lab.machines[SERVER].accept(listener), Err(Error::WouldBlock));
    let client = lab.machines[CLIENT].socket();
    assert_eq!(lab.machines[CLIENT].connect(client, server_address()), Err(Error::WouldBlock));
    assert_eq!(lab.machines[CLIENT].poll(client), Ok(Readiness::EMPTY));
    lab.pass_us(199);
    assert_eq!(lab.machines[CLIENT].poll(client), Ok(Readiness::EMPTY), "a round trip takes 200 us");
    lab.pass_us(1);
    assert_eq!(lab.machines[CLIENT].poll(client), Ok(Readiness::CONNECTED | Readiness::WRITABLE));
    assert_eq!(lab.machines[CLIENT].pending_error(client), None);
    lab.pass_us(100);
    assert_eq!(lab.machines[SERVER].poll(listener), Ok(Readiness::ACCEPTABLE));
    assert!(lab.machines[SERVER].accept(listener).is_ok());
    assert_eq!(lab.machines[SERVER].poll(listener), Ok(Readiness::EMPTY));
}

#[test]
fn a_connection_that_is_refused_leaves_its_error_once() {
    let mut lab = Lab::new();
    let client = lab.machines[CLIENT].socket();
    assert_eq!(lab.machines[CLIENT].connect(client, server_address()), Err(Error::WouldBlock));
    lab.pass_us(200);
    let ready = lab.machines[CLIENT].poll(client).unwrap();
    assert!(ready.contains(Readiness::READABLE | Readiness::WRITABLE | Readiness::CLOSED));
    assert_eq!(lab.machines[CLIENT].pending_error(client), Some(Error::ConnectionRefused));
    assert_eq!(lab.machines[CLIENT].pending_error(client), None);
}

#[test]
fn a_peek_leaves_what_it_shows() {
    let (mut lab, client, server) = connected();
    let machine = &mut lab.machines[SERVER];
    assert_eq!(machine.recv(server, 10, Read::Peek), Err(Error::WouldBlock));
    assert_eq!(lab.machines[CLIENT].send(client, b"first "), Ok(6));
    lab.pass_us(1_000);
    assert_eq!(lab.machines[CLIENT].send(client, b"second"), Ok(6));
    lab.pass_us(100_000);
    let machine = &mut lab.machines[SERVER];
    for (most_bytes, seen) in [(3, &b"fir"[..]), (9, b"first sec"), (99, b"first second")] {
        assert_eq!(machine.recv(server, most_bytes, Read::Peek), Ok(seen.to_vec()));
    }
    assert_eq!(machine.queues(server).unwrap().0, 12);
    assert_eq!(machine.recv(server, 8, Read::Take), Ok(b"first se".to_vec()));
    assert_eq!(machine.recv(server, 99, Read::Peek), Ok(b"cond".to_vec()));
    assert_eq!(machine.recv(server, 99, Read::Take), Ok(b"cond".to_vec()));
    assert_eq!(machine.recv(server, 99, Read::Take), Err(Error::WouldBlock));
}

#[test]
fn queues_tell_what_is_unread_unacknowledged_and_unsent() {
    let (mut lab, client, server) = connected_with(&[SocketOption::ReceiveBuffer(4_000)]);
    assert_eq!(lab.machines[CLIENT].send(client, &[7; 10_000]), Ok(10_000));
    lab.pass_us(50);
    let (_, unacknowledged, unsent) = lab.machines[CLIENT].queues(client).unwrap();
    assert!(unacknowledged == 10_000 && (6_000..9_000).contains(&unsent), "{unsent} of {unacknowledged}");
    lab.pass_us(500_000);
    let unread = lab.machines[SERVER].queues(server).unwrap().0;
    assert!((3_000..=4_000).contains(&unread), "{unread}");
    assert_eq!(lab.machines[CLIENT].queues(client), Ok((0, 10_000 - unread, 10_000 - unread)));
    let mut read = 0;
    while read < 10_000 {
        if let Ok(bytes) = lab.machines[SERVER].recv(server, 4_000, Read::Take) {
            read += bytes.len();
        }
        lab.pass_us(50_000);
    }
    assert_eq!(lab.machines[CLIENT].queues(client), Ok((0, 0, 0)));
}

#[test]
fn a_full_send_buffer_is_not_ready_until_there_is_room() {
    let (mut lab, client, server) =
        connected_with(&[SocketOption::SendBuffer(5_000), SocketOption::ReceiveBuffer(2_000)]);
    assert_eq!(lab.machines[CLIENT].send(client, &[7; 9_000]), Ok(5_000));
    assert_eq!(lab.machines[CLIENT].send(client, &[7; 1]), Err(Error::WouldBlock));
    assert_eq!(lab.machines[CLIENT].poll(client), Ok(Readiness::CONNECTED));
    lab.pass_us(100_000);
    assert_eq!(lab.machines[CLIENT].poll(client), Ok(Readiness::CONNECTED | Readiness::WRITABLE));
    assert!(matches!(lab.machines[CLIENT].send(client, &[7; 9_000]), Ok(1_000..=2_000)));
    assert!(lab.machines[SERVER].poll(server).unwrap().contains(Readiness::READABLE));
}

#[test]
fn lingering_for_no_time_resets() {
    let (mut lab, client, server) = connected();
    let linger = SocketOption::Linger(Some(Duration::ZERO));
    lab.machines[CLIENT].setsockopt(client, linger).unwrap();
    assert_eq!(lab.machines[CLIENT].getsockopt(client, SocketOptionName::Linger), Ok(linger));
    lab.machines[CLIENT].close(client).unwrap();
    lab.pass_us(1_000);
    assert_eq!(lab.machines[SERVER].recv(server, 1, Read::Take), Err(Error::ConnectionReset));
    assert_eq!(lab.machines[SERVER].send(server, b"x"), Err(Error::ConnectionReset));
    assert_eq!(lab.machines[SERVER].pending_error(server), Some(Error::ConnectionReset));
}

/// Sizes of the packets with data that the client sends for ten writes of 100 bytes.
fn packets_for_ten_writes(options: &[SocketOption]) -> Vec<usize> {
    let (mut lab, client, _) = connected();
    options.iter().for_each(|&option| lab.machines[CLIENT].setsockopt(client, option).unwrap());
    lab.sent_bytes[CLIENT].clear();
    for _ in 0..10 {
        assert_eq!(lab.machines[CLIENT].send(client, &[7; 100]), Ok(100));
        lab.pass_us(10);
    }
    lab.pass_us(190_000);
    let headers = 52;
    lab.sent_bytes[CLIENT].iter().map(|bytes| bytes - headers).filter(|&bytes| bytes > 0).collect()
}

#[test]
fn small_writes_are_gathered_unless_the_program_says_otherwise() {
    assert_eq!(packets_for_ten_writes(&[SocketOption::NoDelay(true)]), [100; 10]);
    assert_eq!(packets_for_ten_writes(&[]), [100, 900], "Nagle's algorithm waits for an acknowledgment");
    assert_eq!(packets_for_ten_writes(&[SocketOption::Cork(true)]), [0; 0], "a cork waits for 200 ms");
}

#[test]
fn a_cork_that_is_taken_back_lets_everything_go() {
    let (mut lab, client, server) = connected();
    lab.machines[CLIENT].setsockopt(client, SocketOption::Cork(true)).unwrap();
    assert_eq!(lab.machines[CLIENT].send(client, &[7; 100]), Ok(100));
    lab.pass_us(1_000);
    assert_eq!(lab.machines[SERVER].queues(server).unwrap().0, 0);
    lab.machines[CLIENT].setsockopt(client, SocketOption::Cork(false)).unwrap();
    lab.pass_us(1_000);
    assert_eq!(lab.machines[SERVER].queues(server).unwrap().0, 100);
}

#[test]
fn no_segment_is_larger_than_the_program_allows() {
    let (mut lab, client, server) = connected_with(&[SocketOption::MaxSegmentSize(600)]);
    assert_eq!(lab.machines[SERVER].send(server, &[7; 6_000]), Ok(6_000));
    lab.pass_us(100_000);
    assert_eq!(lab.machines[CLIENT].queues(client).unwrap().0, 6_000);
    assert_eq!(lab.sent_bytes[SERVER].iter().max(), Some(&(600 + 40)));
}

#[test]
fn what_nobody_acknowledges_ends_with_the_user_timeout() {
    let (mut lab, client, _) = connected();
    let limit = SocketOption::UserTimeout(Some(Duration::from_millis(1_500)));
    lab.machines[CLIENT].setsockopt(client, limit).unwrap();
    lab.cut = true;
    assert_eq!(lab.machines[CLIENT].send(client, b"lost"), Ok(4));
    lab.pass_us(1_499_000);
    assert_eq!(lab.machines[CLIENT].recv(client, 1, Read::Take), Err(Error::WouldBlock));
    lab.pass_us(2_000);
    assert_eq!(lab.machines[CLIENT].recv(client, 1, Read::Take), Err(Error::TimedOut));
}

#[test]
fn each_direction_ends_by_itself() {
    let (mut lab, client, server) = connected();
    assert_eq!(lab.machines[CLIENT].send(client, b"bye"), Ok(3));
    lab.machines[CLIENT].shutdown(client, Shutdown::Write).unwrap();
    assert_eq!(lab.machines[CLIENT].send(client, b"more"), Err(Error::Closed));
    lab.pass_us(1_000);
    assert_eq!(lab.machines[SERVER].recv(server, 9, Read::Take), Ok(b"bye".to_vec()));
    assert_eq!(lab.machines[SERVER].recv(server, 9, Read::Peek), Ok(Vec::new()), "the end");
    assert_eq!(lab.machines[SERVER].recv(server, 9, Read::Take), Ok(Vec::new()));
    // The other direction goes on, until that side does not want to read any more.
    assert_eq!(lab.machines[SERVER].send(server, b"still here"), Ok(10));
    lab.pass_us(1_000);
    assert_eq!(lab.machines[CLIENT].recv(client, 99, Read::Take), Ok(b"still here".to_vec()));
    lab.machines[CLIENT].shutdown(client, Shutdown::Read).unwrap();
    assert_eq!(lab.machines[SERVER].send(server, b"unread"), Ok(6));
    lab.pass_us(50_000);
    assert_eq!(lab.machines[CLIENT].recv(client, 99, Read::Take), Ok(Vec::new()));
    assert_eq!(lab.machines[SERVER].queues(server).unwrap().1, 0, "taken and thrown away");
    lab.machines[SERVER].shutdown(server, Shutdown::Both).unwrap();
    lab.pass_us(1_000);
    for (machine, fd) in [(CLIENT, client), (SERVER, server)] {
        assert_eq!(lab.machines[machine].send(fd, b"x"), Err(Error::Closed));
        lab.machines[machine].close(fd).unwrap();
        assert_eq!(lab.machines[machine].close(fd), Err(Error::BadDescriptor));
    }
}
