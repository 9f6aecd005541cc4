//! Keepalive (RFC 9293, section 3.8.4): off by default, and only for connections with nothing under way.

use libos::{Error, Shutdown, SocketOption};

use super::script::Script;
use super::seg::seg;
use crate::events::ConnectionId;
use crate::tcp::{Keepalive, State};

/// A connection that is probed after 60 s, three times, every 10 s.
fn probed() -> (Script, ConnectionId) {
    let mut t = Script::configured(|config| {
        config.tcp.options.keepalive = Keepalive { idle_ms: 60_000, interval_ms: 10_000, probes: 3 };
    });
    let id = t.open();
    t.stack.tcp_set_option(id, SocketOption::KeepAlive(true)).unwrap();
    (t, id)
}

#[test]
fn an_idle_connection_is_not_probed_unless_asked_for() {
    let mut t = Script::new();
    t.open();
    t.pass(10 * 24 * 3_600_000);
    t.expect_nothing();
}

#[test]
fn a_probe_repeats_a_number_the_peer_has_seen_and_an_answer_ends_probing() {
    let (mut t, id) = probed();
    for _ in 0..5 {
        t.pass(59_999);
        t.expect_nothing();
        t.pass(1);
        t.expect(seg().seq(0).ack(1));
        t.inject(seg().ack(1));
    }
    assert_eq!(t.state(id), State::Established);
}

#[test]
fn a_peer_that_answers_no_probe_is_given_up() {
    let (mut t, id) = probed();
    t.pass(60_000);
    t.expect(seg().seq(0).ack(1));
    for _ in 0..2 {
        t.pass(10_000);
        t.expect(seg().seq(0).ack(1));
    }
    t.pass(9_999);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().rst().seq(1).ack(1));
    assert_eq!(t.stack.tcp_error(id), Some(Error::TimedOut));
}

#[test]
fn what_is_received_puts_the_probe_off_and_turning_it_off_ends_it() {
    let (mut t, id) = probed();
    t.pass(50_000);
    t.inject(seg().ack(1).data(10));
    t.pass(59_999);
    t.expect(seg().seq(1).ack(11));
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().seq(0).ack(11));
    t.inject(seg().seq(11).ack(1));
    t.stack.tcp_set_option(id, SocketOption::KeepAlive(false)).unwrap();
    t.pass(3_600_000);
    t.expect_nothing();
}

#[test]
fn a_half_closed_connection_is_probed_too() {
    let (mut t, id) = probed();
    t.stack.tcp_shutdown(id, Shutdown::Write).unwrap();
    t.expect(seg().fin().seq(1).ack(1));
    t.inject(seg().ack(2));
    t.pass(60_000);
    t.expect(seg().seq(1).ack(1));
    t.pass(60_000);
    assert_eq!(t.stack.tcp_error(id), Some(Error::TimedOut));
}

#[test]
fn a_peers_probe_is_answered() {
    let mut t = Script::new();
    t.open();
    // With and without a byte of garbage.
    for probe in [seg().seq(0).ack(1), seg().seq(0).ack(1).bytes(&[0])] {
        t.pass(1_000);
        t.inject(probe);
        t.expect(seg().seq(1).ack(1));
    }
}
