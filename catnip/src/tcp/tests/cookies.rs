//! SYN cookies: what a full backlog answers, and what the answers open.

use super::script::{MSS, Script, remote};
use super::seg::{Seg, seg};
use crate::events::ListenerId;
use crate::tcp::State;

fn syn(port: u16) -> Seg {
    seg().seq(0).syn().mss(MSS).with_peer_port(port)
}

fn ack(port: u16) -> Seg {
    seg().ack(1).with_peer_port(port)
}

/// A listener with a backlog of two, both of whose places have long been taken by handshakes that never end.
fn flooded() -> (Script, ListenerId) {
    let mut t = Script::new();
    let options = t.stack.default_tcp_options().clone();
    let listener = t.listen_with(2, &options);
    for port in 1..=2 {
        t.inject(syn(port));
        t.expect(seg().syn().seq(0).ack(1).with_peer_port(port));
    }
    t.inject(syn(99));
    t.expect_nothing();
    t.pass(200);
    (t, listener)
}

#[test]
fn a_burst_beyond_the_backlog_waits_for_a_place_instead() {
    let mut t = Script::new();
    let options = t.stack.default_tcp_options().clone();
    let listener = t.listen_with(2, &options);
    for round in 0..5 {
        for port in 1..=10 {
            t.inject(syn(10 * round + port));
        }
        assert_eq!(t.take_sent().len(), 2, "round {round}");
        t.pass(100);
        let _ = t.take_sent();
        for port in 1..=2 {
            t.inject(ack(10 * round + port));
            assert!(t.stack.tcp_accept(listener).is_some());
        }
        t.pass(900);
    }
    assert_eq!(t.counters().syn_cookies_sent, 0);
}

#[test]
fn a_full_backlog_answers_with_a_cookie_that_keeps_nothing_and_opens_the_connection() {
    let (mut t, listener) = flooded();
    t.inject(syn(3).mss(1_460));
    t.expect(seg().syn().seq(0).ack(1).mss(1_460).with_peer_port(3));
    assert_eq!((t.stack.tcp_connections(), t.counters().syn_cookies_sent), (2, 1));
    t.inject(ack(3));
    t.expect_nothing();
    assert_eq!((t.stack.tcp_connections(), t.counters().syn_cookies_received), (3, 1));
    let (id, peer) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!((peer, t.state(id)), (remote(3), State::Established));
    t.write(id, 3_000);
    t.expect(seg().seq(1).ack(1).data(1_460).with_peer_port(3));
    t.inject(ack(3).data(100));
    assert_eq!(t.read(id), 100);
}

#[test]
fn data_on_the_segment_that_carries_the_cookie_is_taken() {
    let (mut t, listener) = flooded();
    t.inject(syn(3));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(3));
    t.inject(ack(3).data(700));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!(t.read(id), 700);
}

#[test]
fn scale_and_timestamps_survive_a_cookie() {
    for (scale, window_bytes) in [(Some(7), 30_000 << 7), (Some(0), 30_000), (None, 30_000)] {
        let (mut t, listener) = flooded();
        let syn = syn(3).ts(500, 0);
        t.inject(if let Some(scale) = scale { syn.wscale(scale) } else { syn });
        let answer = t.expect(seg().syn().seq(0).ack(1).with_peer_port(3)).segment;
        let stamp = answer.options.timestamp.unwrap();
        assert_eq!(stamp.echo, 500);
        assert_eq!(answer.options.window_scale.is_some(), scale.is_some());
        t.inject(ack(3).ts(501, stamp.value));
        let (id, _) = t.stack.tcp_accept(listener).unwrap();
        assert_eq!(t.info(id).snd_wnd_bytes, window_bytes, "{scale:?}");
        t.write(id, 10);
        let sent = t.expect(seg().seq(1).ack(1).data(10).with_peer_port(3)).segment;
        let later = sent.options.timestamp.unwrap();
        assert!(later.value.wrapping_sub(stamp.value) < 1_000 && later.echo == 501, "{later:?}");
    }
}

#[test]
fn without_timestamps_a_cookie_gives_up_scaling() {
    let (mut t, listener) = flooded();
    t.inject(syn(3).wscale(7));
    let answer = t.expect(seg().syn().seq(0).ack(1).with_peer_port(3)).segment;
    assert_eq!(answer.options.window_scale, None);
    t.inject(ack(3));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!(t.info(id).snd_wnd_bytes, 30_000);
}

#[test]
fn a_forged_or_old_cookie_is_reset() {
    let (mut t, listener) = flooded();
    t.inject(syn(3));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(3));
    t.inject(seg().ack(2).with_peer_port(3));
    t.expect(seg().rst().seq(2).with_peer_port(3));
    t.inject(seg().seq(5).ack(1).with_peer_port(3));
    t.expect(seg().rst().seq(1).with_peer_port(3));
    assert_eq!(t.counters().syn_cookies_failed, 2);
    t.pass(129_000);
    let _ = t.take_sent();
    t.inject(ack(3));
    t.expect(seg().rst().seq(1).with_peer_port(3));
    assert!(t.stack.tcp_accept(listener).is_none());
}

#[test]
fn connections_that_the_program_does_not_accept_stop_cookies() {
    let (mut t, listener) = flooded();
    for port in 3..=5 {
        t.inject(syn(port));
        t.expect(seg().syn().seq(0).ack(1).with_peer_port(port));
    }
    t.inject(ack(3));
    t.inject(ack(4));
    let overflows = t.counters().listen_overflows;
    // Two stand and wait: the third's acknowledgment is not taken, and comes again with its data.
    t.inject(ack(5));
    t.inject(syn(6));
    t.expect_nothing();
    assert_eq!(t.counters().listen_overflows, overflows + 2);
    assert!(t.stack.tcp_accept(listener).is_some());
    t.inject(ack(5).data(10));
    assert!(t.stack.tcp_accept(listener).is_some());
    let (id, peer) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!((peer, t.read(id)), (remote(5), 10));
}

#[test]
fn an_answer_with_a_cookie_is_sent_once() {
    let (mut t, _) = flooded();
    t.inject(syn(1).seq(0));
    let _ = t.take_sent();
    t.inject(syn(3));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(3));
    t.pass(10_000);
    assert!(t.take_sent().iter().all(|sent| sent.segment.destination_port != 3));
}
