//! Listeners: the backlog, what happens when it is full, and when the listener goes.

use libos::Error;

use super::script::{MSS, Script, remote};
use super::seg::{Seg, seg};
use crate::events::{ListenerId, Readiness};

fn syn(port: u16) -> Seg {
    seg().seq(0).syn().mss(MSS).with_peer_port(port)
}

fn listening(backlog: usize) -> (Script, ListenerId) {
    listening_on(Script::new(), backlog)
}

fn listening_on(mut t: Script, backlog: usize) -> (Script, ListenerId) {
    let options = t.stack.default_tcp_options().clone();
    let listener = t.listen_with(backlog, &options);
    (t, listener)
}

fn establish(t: &mut Script, port: u16) {
    t.inject(syn(port));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(port));
    t.inject(seg().ack(1).with_peer_port(port));
}

#[test]
fn a_syn_beyond_the_backlog_is_dropped_and_gets_in_later() {
    let without_cookies = Script::configured(|config| config.tcp.syn_cookies = false);
    let (mut t, listener) = listening_on(without_cookies, 2);
    establish(&mut t, 1);
    t.inject(syn(2));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(2));
    t.inject(syn(3));
    t.expect_nothing();
    assert_eq!(t.counters().listen_overflows, 1);
    assert!(t.stack.tcp_accept(listener).is_some());
    t.inject(syn(3));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(3));
    // Those that were let in stand, whoever comes first.
    t.inject(seg().ack(1).with_peer_port(3));
    t.inject(seg().ack(1).with_peer_port(2));
    let accepted: Vec<_> =
        std::iter::from_fn(|| t.stack.tcp_accept(listener)).map(|(_, peer)| peer).collect();
    assert_eq!(accepted, [remote(3), remote(2)]);
}

#[test]
fn connections_are_accepted_in_the_order_in_which_they_stood() {
    let (mut t, listener) = listening(8);
    (1..=5).for_each(|port| establish(&mut t, port));
    let event = t.stack.next_event().unwrap();
    assert!(event.readiness.contains(Readiness::ACCEPTABLE));
    assert_eq!(t.stack.next_event(), None, "nobody is told of connections that are not accepted");
    let accepted: Vec<_> =
        std::iter::from_fn(|| t.stack.tcp_accept(listener)).map(|(_, peer)| peer).collect();
    assert_eq!(accepted, (1..=5).map(remote).collect::<Vec<_>>());
}

#[test]
fn data_that_comes_before_the_accept_is_there_after_it() {
    let (mut t, listener) = listening(8);
    establish(&mut t, 1);
    t.inject(seg().ack(1).data(500).with_peer_port(1));
    t.inject(seg().seq(501).fin().ack(1).with_peer_port(1));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!((t.read(id), t.read_outcome(id)), (500, Ok(Some(0))));
}

#[test]
fn a_connection_that_is_reset_while_it_waits_is_passed_over() {
    let (mut t, listener) = listening(3);
    (1..=3).for_each(|port| establish(&mut t, port));
    t.inject(seg().rst().with_peer_port(1));
    t.inject(seg().rst().with_peer_port(3));
    assert_eq!(t.stack.tcp_connections(), 1);
    assert_eq!(t.stack.tcp_accept(listener).map(|(_, peer)| peer), Some(remote(2)));
    assert_eq!(t.stack.tcp_accept(listener), None);
    (4..=6).for_each(|port| establish(&mut t, port));
}

#[test]
fn a_connection_that_is_given_back_is_accepted_first() {
    let (mut t, listener) = listening(3);
    (1..=2).for_each(|port| establish(&mut t, port));
    let (first, peer) = t.stack.tcp_accept(listener).unwrap();
    t.stack.tcp_unaccept(listener, first);
    assert_eq!(t.stack.tcp_accept(listener), Some((first, peer)));
    // One that is given back and then reset leaves nothing.
    t.stack.tcp_unaccept(listener, first);
    t.inject(seg().rst().with_peer_port(1));
    assert_eq!(t.stack.tcp_connections(), 1);
    assert_eq!(t.stack.tcp_accept(listener).map(|(_, peer)| peer), Some(remote(2)));
}

#[test]
fn closing_the_listener_resets_what_was_not_accepted_and_keeps_what_was() {
    let (mut t, listener) = listening(8);
    (1..=2).for_each(|port| establish(&mut t, port));
    t.inject(syn(3));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(3));
    let (accepted, _) = t.stack.tcp_accept(listener).unwrap();
    t.stack.tcp_close_listener(t.now, listener);
    let mut reset: Vec<_> = t.take_sent().iter().map(|sent| sent.segment.destination_port).collect();
    reset.sort_unstable();
    assert_eq!(reset, [2, 3]);
    assert_eq!(t.stack.tcp_connections(), 1);
    t.inject(seg().ack(1).data(10).with_peer_port(1));
    assert_eq!(t.read(accepted), 10);
    t.inject(syn(4));
    t.expect(seg().rst().raw_seq(0).ack(1).with_peer_port(4));
}

/// What the listener remembers is passed over a thousand times before, and the close finds what is its own all the same.
#[test]
fn a_listener_that_has_served_thousands_closes_what_waits_alone() {
    let (mut t, listener) = listening(8);
    for port in 1..=3_000 {
        establish(&mut t, port);
        t.stack.tcp_accept(listener).unwrap();
    }
    (3_001..=3_004).for_each(|port| establish(&mut t, port));
    t.stack.tcp_close_listener(t.now, listener);
    let mut reset: Vec<_> = t.take_sent().iter().map(|sent| sent.segment.destination_port).collect();
    reset.sort_unstable();
    assert_eq!(reset, [3_001, 3_002, 3_003, 3_004]);
    assert_eq!(t.stack.tcp_connections(), 3_000);
}

#[test]
fn a_full_connection_table_refuses_and_harms_nobody() {
    let mut t = Script::configured(|config| config.tcp.max_connections = 2);
    let listener = t.listen();
    (1..=2).for_each(|port| establish(&mut t, port));
    t.inject(syn(3));
    t.expect_nothing();
    assert_eq!(t.counters().table_overflows, 1);
    let options = t.stack.default_tcp_options().clone();
    let refused = t.stack.tcp_connect(t.now, &mut None, remote(9), &options);
    assert_eq!(refused, Err(Error::TooManyConnections));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    t.inject(seg().ack(1).data(10).with_peer_port(1));
    assert_eq!(t.read(id), 10);
    t.stack.tcp_abort(t.now, id);
    let _ = t.take_sent();
    t.inject(syn(3));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(3));
}
