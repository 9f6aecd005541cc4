//! The choice of the congestion-control algorithm, and what each makes of a connection: `TCP_CONGESTION`.

use libos::{CongestionName, Error, SocketOption, SocketOptionName};

use super::script::Script;
use super::seg::seg;
use crate::events::ConnectionId;
use crate::tcp::congestion::Algorithm;

fn named(name: &str) -> SocketOption {
    SocketOption::Congestion(CongestionName::new(name).unwrap())
}

fn chosen(t: &mut Script, id: ConnectionId) -> Result<SocketOption, Error> {
    t.stack.tcp_option(id, SocketOptionName::Congestion)
}

/// A connection of that algorithm with the initial window of ten segments in flight and more waiting.
fn in_flight(algorithm: Algorithm) -> (Script, ConnectionId) {
    let mut t = Script::configured(|config| config.tcp.options.congestion = algorithm);
    let id = t.open();
    t.write(id, 100_000);
    assert_eq!(t.take_sent().len(), 10);
    (t, id)
}

#[test]
fn a_listener_hands_its_algorithm_to_what_it_accepts() {
    for name in Algorithm::NAMES {
        let mut t = Script::new();
        let listener = t.listen();
        t.stack.tcp_set_listener_option(listener, named(name)).unwrap();
        assert_eq!(t.stack.tcp_listener_option(listener, SocketOptionName::Congestion), Ok(named(name)));
        let id = t.open_on(listener, seg().mss(1_000));
        assert_eq!(chosen(&mut t, id), Ok(named(name)));
    }
}

#[test]
fn a_connection_that_stands_may_change_its_algorithm_and_starts_over() {
    let (mut t, id) = in_flight(Algorithm::Cubic);
    t.inject(seg().ack(2_001));
    assert_eq!(t.info(id).cwnd_bytes, 12_000);
    assert_eq!(t.stack.tcp_set_option(id, named("vegas")), Err(Error::InvalidArgument));
    assert_eq!((chosen(&mut t, id), t.info(id).cwnd_bytes), (Ok(named("cubic")), 12_000));
    // The name that it has already changes nothing.
    t.stack.tcp_set_option(id, named("cubic")).unwrap();
    assert_eq!(t.info(id).cwnd_bytes, 12_000);
    t.stack.tcp_set_option(id, named("reno")).unwrap();
    assert_eq!((chosen(&mut t, id), t.info(id).cwnd_bytes), (Ok(named("reno")), 10_000));
}

#[test]
fn a_timeout_leaves_each_algorithm_its_own_threshold() {
    for (algorithm, ssthresh_bytes) in [(Algorithm::Cubic, 7_000), (Algorithm::NewReno, 5_000)] {
        let (mut t, id) = in_flight(algorithm);
        t.pass(200);
        assert_eq!((t.info(id).ssthresh_bytes, t.info(id).cwnd_bytes), (ssthresh_bytes, 1_000));
    }
}

/// A connection of BBR that has measured a round trip of 20 ms: its initial window is acknowledged.
fn paced() -> (Script, ConnectionId) {
    let (mut t, id) = in_flight(Algorithm::Bbr);
    t.write(id, 400_000);
    t.pass(20);
    t.inject(seg().ack(2_001));
    (t, id)
}

#[test]
fn bbr_sends_in_bursts_that_its_rate_spaces() {
    let (mut t, id) = paced();
    let mut sent = t.take_sent();
    for at in (4..=10).step_by(2) {
        t.inject(seg().ack(at * 1_000 + 1));
        sent.extend(t.take_sent());
    }
    t.pass(15);
    sent.extend(t.take_sent());
    // Twice as much as the initial window may be in flight now, at 2.77 times the initial window in 20 ms.
    assert!((18..=20).contains(&sent.len()), "{}", sent.len());
    let mut bursts: Vec<(libos::Instant, usize)> = Vec::new();
    for segment in &sent {
        match bursts.last_mut() {
            Some((at, count)) if *at == segment.at => *count += 1,
            Some(_) | None => bursts.push((segment.at, 1)),
        }
    }
    assert!(bursts.iter().skip(1).all(|&(_, count)| count <= 2), "{bursts:?}");
    for pair in bursts.windows(2).skip(1) {
        let apart_us = (pair[1].0 - pair[0].0).as_micros();
        assert!((1_200..=1_600).contains(&apart_us), "{bursts:?}");
    }
    assert_eq!(t.info(id).cwnd_bytes, 20_000);
}

#[test]
fn an_unpaced_connection_sends_its_window_at_once() {
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno, Algorithm::Dctcp] {
        let (mut t, _) = in_flight(algorithm);
        t.pass(20);
        t.inject(seg().ack(2_001));
        assert_eq!(t.take_sent().len(), 4);
    }
}

#[test]
fn a_paced_connection_stops_its_timer_when_it_ends() {
    let (mut t, id) = paced();
    let _ = t.take_sent();
    t.inject(seg().rst().seq(1));
    assert_eq!(t.stack.next_deadline(), None);
    t.close(id);
    t.pass(1_000);
    t.expect_nothing();
}

#[test]
fn bbr_keeps_its_window_through_a_loss_and_repairs_it() {
    let mut t = Script::configured(|config| config.tcp.options.congestion = Algorithm::Bbr);
    let id = t.open_with(seg().mss(1_000).sack_permitted());
    t.write(id, 100_000);
    assert_eq!(t.take_sent().len(), 10);
    t.pass(20);
    let before = t.info(id).cwnd_bytes;
    // The first segment is missing, the others arrived.
    t.inject(seg().ack(1).sack(&[(1_001, 10_001)]));
    t.pass(10);
    let sent = t.take_sent();
    assert!(sent.iter().any(|sent| t.relative_seq(sent) == 1), "the lost segment goes again");
    assert!(t.info(id).in_recovery);
    assert!(t.info(id).cwnd_bytes >= before);
}
