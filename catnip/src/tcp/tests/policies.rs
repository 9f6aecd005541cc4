//! What a program can ask of a connection: cork, quick acknowledgments, the user timeout, lingering, sharing ports.

use std::time::Duration;

use libos::{Error, Shutdown, SocketOption, SocketOptionName};

use super::script::{MSS, Script, fix_receive_buffer, local, remote};
use super::seg::{LOCAL_PORT, PEER_PORT, seg};
use crate::events::ConnectionId;
use crate::tcp::{Reuse, State, TcpOptions};

fn set(t: &mut Script, id: ConnectionId, option: SocketOption) {
    t.stack.tcp_set_option(id, option).unwrap();
}

#[test]
fn a_cork_holds_back_what_fills_no_segment_until_it_is_taken_back() {
    let mut t = Script::new();
    let id = t.open();
    set(&mut t, id, SocketOption::Cork(true));
    t.write(id, 300);
    t.expect_nothing();
    t.write(id, 900);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().ack(1_001));
    t.expect_nothing();
    set(&mut t, id, SocketOption::Cork(false));
    t.expect(seg().seq(1_001).ack(1).data(200));
}

#[test]
fn a_cork_holds_nothing_back_for_longer_than_a_fifth_of_a_second() {
    let mut t = Script::new();
    let id = t.open();
    set(&mut t, id, SocketOption::Cork(true));
    for round in 0..3 {
        t.write(id, 300);
        t.pass(199);
        t.expect_nothing();
        t.pass(1);
        t.expect(seg().seq(1 + round * 300).ack(1).data(300));
        t.inject(seg().ack(301 + round * 300));
    }
    assert_eq!(t.counters().retransmission_timeouts, 0);
}

#[test]
fn the_end_of_the_stream_pulls_the_cork() {
    let mut t = Script::new();
    let id = t.open();
    set(&mut t, id, SocketOption::Cork(true));
    t.write(id, 300);
    t.stack.tcp_shutdown(id, Shutdown::Write).unwrap();
    t.expect(seg().seq(1).ack(1).fin().data(300));
}

#[test]
fn a_cork_is_stronger_than_no_delay() {
    let mut t = Script::new();
    let id = t.open();
    set(&mut t, id, SocketOption::NoDelay(true));
    set(&mut t, id, SocketOption::Cork(true));
    t.write(id, 300);
    t.expect_nothing();
}

#[test]
fn quick_acknowledgments_do_not_wait() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().ack(1).data(100));
    t.expect_nothing();
    set(&mut t, id, SocketOption::QuickAck(true));
    t.expect(seg().seq(1).ack(101));
    t.inject(seg().seq(101).ack(1).data(100));
    t.expect(seg().seq(1).ack(201));
    set(&mut t, id, SocketOption::QuickAck(false));
    t.inject(seg().seq(201).ack(1).data(100));
    t.expect_nothing();
}

#[test]
fn a_peer_that_only_sends_waits_for_a_delayed_acknowledgment_once() {
    let mut t = Script::new();
    let id = t.open();
    let start = t.now;
    // The peer sends the next piece when the last one is acknowledged, as under Nagle's algorithm.
    let mut at = 1;
    while at < 100_001 {
        t.inject(seg().seq(at).ack(1).data(500));
        at += 500;
        t.read(id);
        if t.take_sent().is_empty() {
            t.pass(40);
            t.expect(seg().seq(1).ack(at));
        }
    }
    assert_eq!((t.now - start).as_millis(), 40, "all in all");
    // Once data goes the other way, acknowledgments wait for it to ride on again.
    t.write(id, 10);
    t.expect(seg().seq(1).ack(at).data(10));
    t.inject(seg().seq(at).ack(11).data(500));
    t.expect_nothing();
}

#[test]
fn data_that_nobody_acknowledges_is_given_up_after_the_user_timeout() {
    for (limit_ms, lives_ms, dead_ms) in [(1_000, 999, 1), (90_000, 89_990, 10), (300, 299, 1)] {
        let mut t = Script::new();
        let id = t.open();
        set(&mut t, id, SocketOption::UserTimeout(Some(Duration::from_millis(limit_ms))));
        t.pass(5_000);
        t.write(id, 100);
        t.pass(lives_ms);
        assert_eq!(t.state(id), State::Established, "{limit_ms}");
        t.pass(dead_ms);
        assert_eq!(t.stack.tcp_error(id), Some(Error::TimedOut), "{limit_ms}");
    }
}

#[test]
fn progress_starts_the_user_timeout_anew() {
    let mut t = Script::new();
    let id = t.open();
    set(&mut t, id, SocketOption::UserTimeout(Some(Duration::from_millis(1_000))));
    t.write(id, 2_000);
    for round in 0..5 {
        t.pass(900);
        t.inject(seg().ack(101 + round * 100));
    }
    assert_eq!(t.state(id), State::Established);
    t.pass(5_000);
    assert_eq!(t.stack.tcp_error(id), Some(Error::TimedOut));
}

#[test]
fn a_window_that_stays_closed_ends_with_the_user_timeout_though_probes_are_answered() {
    let mut t = Script::new();
    let id = t.open();
    set(&mut t, id, SocketOption::UserTimeout(Some(Duration::from_secs(5))));
    t.inject(seg().ack(1).win(0));
    t.write(id, 100);
    for _ in 0..49 {
        t.pass(100);
        if !t.take_sent().is_empty() {
            t.inject(seg().ack(1).win(0));
        }
        assert_eq!(t.state(id), State::Established);
    }
    t.pass(2_000);
    assert_eq!(t.stack.tcp_error(id), Some(Error::TimedOut));
}

#[test]
fn a_long_user_timeout_outlasts_the_number_of_retransmissions() {
    let mut t = Script::configured(|config| config.tcp.max_retransmissions = 2);
    let id = t.open();
    set(&mut t, id, SocketOption::UserTimeout(Some(Duration::from_secs(60))));
    t.write(id, 100);
    t.pass(59_000);
    assert_eq!(t.state(id), State::Established);
    t.pass(1_001);
    assert_eq!(t.stack.tcp_error(id), Some(Error::TimedOut));
}

#[test]
fn closing_with_a_linger_time_resets_when_it_is_over() {
    let mut t = Script::new();
    let id = t.open();
    set(&mut t, id, SocketOption::Linger(Some(Duration::from_millis(150))));
    assert_eq!(
        t.stack.tcp_option(id, SocketOptionName::Linger),
        Ok(SocketOption::Linger(Some(Duration::from_millis(150))))
    );
    t.write(id, 100);
    t.expect(seg().seq(1).ack(1).data(100));
    t.stack.tcp_close(t.now, id);
    t.expect(seg().seq(101).ack(1).fin());
    t.pass(149);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().rst().seq(102).ack(1));
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn what_gets_through_within_the_linger_time_is_not_reset() {
    let mut t = Script::new();
    let id = t.open();
    set(&mut t, id, SocketOption::Linger(Some(Duration::from_millis(150))));
    t.write(id, 100);
    t.expect(seg().seq(1).ack(1).data(100));
    t.stack.tcp_close(t.now, id);
    t.expect(seg().seq(101).ack(1).fin());
    t.inject(seg().ack(102));
    t.pass(10_000);
    t.expect_nothing();
    t.inject(seg().ack(102).fin());
    t.expect(seg().seq(102).ack(2));
}

#[test]
fn several_listeners_share_a_port_and_each_peer_keeps_its_own() {
    let mut t = Script::new();
    let shared = Reuse { port: true, ..Reuse::default() };
    let options = TcpOptions { reuse: shared, ..TcpOptions::default() };
    let mut listen = || {
        let binding = t.stack.tcp_bind_shared(local(LOCAL_PORT), shared).unwrap();
        t.stack.tcp_listen(binding, 200, &options).unwrap()
    };
    let listeners = [listen(), listen(), listen()];
    assert_eq!(t.stack.tcp_bind(local(LOCAL_PORT)), Err(Error::AddressInUse));
    for port in 1..=150 {
        t.inject(seg().seq(0).syn().mss(MSS).with_peer_port(port));
        t.expect(seg().syn().seq(0).ack(1).with_peer_port(port));
        t.inject(seg().ack(1).with_peer_port(port));
    }
    let accepted = listeners.map(|listener| {
        std::iter::from_fn(|| t.stack.tcp_accept(listener)).map(|(_, peer)| peer.port()).collect::<Vec<_>>()
    });
    assert!(accepted.iter().all(|ports| (30..=70).contains(&ports.len())), "{accepted:?}");
    let mut all: Vec<_> = accepted.iter().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=150).collect::<Vec<_>>());
}

#[test]
fn a_port_whose_connection_waits_out_its_time_is_bound_again_by_those_who_agree() {
    for (reuse, result) in [(true, Ok(())), (false, Err(Error::AddressInUse))] {
        let mut t = Script::new();
        let reuse = Reuse { address: reuse, port: false };
        let mut binding = Some(t.stack.tcp_bind_shared(local(LOCAL_PORT), reuse).unwrap());
        let options = TcpOptions::default();
        let id = t.stack.tcp_connect(t.now, &mut binding, remote(PEER_PORT), &options).unwrap();
        assert_eq!(binding, None);
        t.expect(seg().syn().seq(0));
        t.inject(seg().syn().seq(0).ack(1).mss(MSS));
        t.expect(seg().seq(1).ack(1));
        t.stack.tcp_close(t.now, id);
        t.expect(seg().seq(1).ack(1).fin());
        t.inject(seg().ack(2).fin());
        t.expect(seg().seq(2).ack(2));
        assert_eq!(t.stack.tcp_bind_shared(local(LOCAL_PORT), reuse).map(|_| ()), result);
    }
}

#[test]
fn buffers_may_be_made_smaller_than_what_they_hold() {
    let mut t = Script::configured(|config| fix_receive_buffer(config, 20_000));
    let id = t.open();
    t.write(id, 40_000);
    let _ = t.take_sent();
    t.inject(seg().ack(1).data(1_000));
    t.inject(seg().seq(5_001).ack(1).data(1_000));
    set(&mut t, id, SocketOption::SendBuffer(1_000));
    set(&mut t, id, SocketOption::ReceiveBuffer(1_000));
    assert_eq!(t.try_write(id, 10), Ok(0));
    // What was offered may still come, and nothing new is offered until it was read.
    for at in (1_001..19_001).step_by(1_000) {
        t.inject(seg().seq(at).ack(1).data(1_000));
    }
    assert_eq!(t.read(id), 19_000);
    t.pass(40);
    let last = t.take_sent().pop().unwrap().segment;
    assert!(u32::from(last.window) <= 1_000, "{last:?}");
    let mut at = 1;
    while t.info(id).send_queue_bytes > 0 {
        at = (at + 10_000).min(40_001);
        t.inject(seg().seq(19_001).ack(at));
        let _ = t.take_sent();
    }
    set(&mut t, id, SocketOption::SendBuffer(1_000));
    assert_eq!(t.try_write(id, 5_000), Ok(1_000));
}

#[test]
fn tiny_writes_under_nagles_algorithm_leave_in_full_segments() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 4);
    t.expect(seg().seq(1).ack(1).data(4));
    (0..500).for_each(|_| t.write(id, 4));
    // Full segments go; the ragged end waits.
    t.expect(seg().seq(5).ack(1).data(1_000));
    t.expect(seg().seq(1_005).ack(1).data(1_000));
    t.expect_nothing();
}
