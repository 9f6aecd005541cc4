//! When something is sent though nothing arrives, to the millisecond.

use std::time::Duration;

use libos::{Error, SocketOption};

use crate::host::{Host, PORT, Peer, START_US, Shown};
use crate::wire::{ACK, FAMILIES, FIN, PSH, RST, SYN, Tcp};

/// What was sent, with the milliseconds since `start_us`.
fn timed(host: &mut Host, peer: &Peer, start_us: u64) -> Vec<(u64, Shown)> {
    let millis = |at_us: u64| (at_us - start_us + 500) / 1_000;
    host.packets().iter().map(|packet| (millis(packet.at_us), peer.shown(&packet.tcp()))).collect()
}

/// `shown` at each of these times.
fn all_at(times_ms: &[u64], shown: Shown) -> Vec<(u64, Shown)> {
    times_ms.iter().map(|time_ms| (*time_ms, shown)).collect()
}

#[test]
fn a_syn_goes_again_after_twice_the_time_each_and_the_open_ends_after_three_minutes() {
    for family in FAMILIES {
        let mut host = Host::new("");
        let id = host.connect(family, PORT, &[]);
        host.pass_ms(180_000);
        assert_eq!(host.state(id), "SYN-SENT", "{family:?}: section 3.8.3, R2");
        host.pass_ms(180_000);
        let packets = host.packets();
        let times: Vec<u64> = packets.iter().map(|packet| (packet.at_us - START_US) / 1_000).collect();
        assert_eq!(times, [0, 1_000, 3_000, 7_000, 15_000, 31_000, 63_000, 127_000], "{family:?}");
        let first = packets[0].tcp();
        assert!(packets.iter().all(|packet| (packet.tcp().seq, packet.tcp().flags) == (first.seq, SYN)));
        assert_eq!([host.error(id), host.error(id)], [Some(Error::TimedOut), None], "{family:?}");
    }
}

#[test]
fn data_goes_again_after_twice_the_time_each_but_two_minutes_at_most() {
    for family in FAMILIES {
        let (mut host, peer, id) = Peer::opened(family, "tcp.path_mtu_search = false", &[], &[]);
        let start_us = host.now_us;
        host.send(id, b"lost").unwrap();
        host.pass_ms(3_000_000);
        let mut times = vec![0];
        times.extend((0..10).map(|backoff| ((2 << backoff) - 1) * 200));
        times.extend((1..=5).map(|further| 204_600 + further * 120_000));
        assert_eq!(timed(&mut host, &peer, start_us), all_at(&times, (ACK | PSH, 1, 1, 4)), "{family:?}");
        assert_eq!(host.error(id), Some(Error::TimedOut), "{family:?}");
    }
}

#[test]
fn a_closed_window_is_asked_about_ever_more_rarely() {
    for family in FAMILIES {
        let (mut host, peer, id) = Peer::opened(family, "", &[], &[]);
        let closed = Tcp { window: 0, ..peer.segment(ACK, 1, 1, b"") };
        peer.ask_with(&mut host, &closed);
        let start_us = host.now_us;
        host.send(id, b"data").unwrap();
        for backoff in 1..12 {
            let time_ms = ((1_u64 << backoff) - 1) * 200;
            // Section 3.8.6.1; the timeout's bound is that of the probes too.
            let time_ms = time_ms.min(204_600 + 120_000 * (backoff.max(10) - 10));
            host.pass_us(start_us + time_ms * 1_000 - host.now_us);
            let sent = timed(&mut host, &peer, start_us);
            assert_eq!(sent, [(time_ms, (ACK, 1, 1, 1))], "{family:?}, probe {backoff}");
            assert_eq!(peer.ask_with(&mut host, &closed).len(), 0, "{family:?}, probe {backoff}");
        }
        assert_eq!(host.state(id), "ESTABLISHED", "for ever while it is answered");
    }
}

#[test]
fn a_silent_peer_is_probed_with_nothing_and_given_up() {
    for family in FAMILIES {
        let set = [SocketOption::KeepAlive(true)];
        let (mut host, peer, id) = Peer::opened(family, "", &[], &set);
        let start_us = host.now_us;
        host.pass_ms(9 * 3_600_000);
        let times: Vec<u64> = (0..9).map(|probe| 7_200_000 + probe * 75_000).collect();
        let mut wanted = all_at(&times, (ACK, 0, 1, 0));
        wanted.push((7_200_000 + 9 * 75_000, (RST | ACK, 1, 1, 0)));
        assert_eq!(timed(&mut host, &peer, start_us), wanted, "{family:?}");
        assert_eq!(host.error(id), Some(Error::TimedOut), "{family:?}");
    }
}

#[test]
fn times_of_the_program_end_a_connection_when_they_are_over() {
    let seconds = Duration::from_secs;
    for family in FAMILIES {
        let set = [SocketOption::UserTimeout(Some(seconds(5)))];
        let (mut host, _, id) = Peer::opened(family, "", &[], &set);
        host.send(id, b"lost").unwrap();
        host.pass_ms(4_999);
        assert_eq!(host.state(id), "ESTABLISHED", "{family:?}");
        host.pass_ms(2);
        assert_eq!(host.error(id), Some(Error::TimedOut), "{family:?}");

        let set = [SocketOption::Linger(Some(seconds(2)))];
        let (mut host, peer, id) = Peer::opened(family, "", &[], &set);
        host.send(id, b"lost").unwrap();
        let start_us = host.now_us;
        host.close(id);
        host.pass_ms(10_000);
        let reset = timed(&mut host, &peer, start_us).pop();
        assert_eq!(reset, Some((2_000, (RST | ACK, 6, 1, 0))), "{family:?}: behind the data and the FIN");
        assert_eq!(host.stack.tcp_connections(), 0, "{family:?}");
    }
}

#[test]
fn a_connection_whose_peer_never_closes_goes_after_a_minute() {
    for family in FAMILIES {
        let (mut host, peer, id) = Peer::opened(family, "", &[], &[]);
        let start_us = host.now_us;
        host.close(id);
        host.pass_ms(2_000);
        let wanted = all_at(&[0, 200, 600, 1_400], (FIN | ACK, 1, 1, 0));
        assert_eq!(timed(&mut host, &peer, start_us), wanted, "{family:?}");
        assert_eq!(peer.tell(&mut host, ACK, 1, 2, b""), []);
        host.pass_ms(59_999);
        assert_eq!(host.stack.tcp_connections(), 1, "{family:?}: FIN-WAIT-2");
        host.pass_ms(2);
        assert_eq!(host.stack.tcp_connections(), 0, "{family:?}");
    }
}
