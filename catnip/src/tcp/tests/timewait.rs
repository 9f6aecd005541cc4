//! TIME-WAIT: what it answers, what ends it, and what may take its place (RFC 1122, section 4.2.2.13;
//! RFC 1337; RFC 6191).

use libos::Shutdown;

use super::script::{MSS, Script};
use super::seg::{Seg, seg};
use crate::events::{ConnectionId, ListenerId};
use crate::tcp::State;

/// A connection in TIME-WAIT after the peer sent `received` bytes.
fn in_time_wait(syn: Seg) -> (Script, ListenerId, ConnectionId) {
    let mut t = Script::new();
    let listener = t.listen();
    let stamps = syn.timestamp;
    let id = t.open_on(listener, syn);
    t.stack.tcp_shutdown(id, Shutdown::Write).unwrap();
    t.turn();
    let mut fin = seg().fin().ack(2);
    if let Some((value, _)) = stamps {
        fin = fin.ts(value, 1);
    }
    t.inject(fin);
    let _ = t.take_sent();
    assert_eq!(t.state(id), State::TimeWait);
    (t, listener, id)
}

#[test]
fn it_lasts_a_minute() {
    let (mut t, _, id) = in_time_wait(seg().mss(MSS));
    t.close(id);
    t.pass(59_999);
    assert_eq!(t.stack.tcp_connections(), 1);
    t.pass(1);
    assert_eq!(t.stack.tcp_connections(), 0);
    t.expect_nothing();
}

#[test]
fn a_fin_that_comes_again_is_acknowledged_and_the_minute_begins_again() {
    let (mut t, _, id) = in_time_wait(seg().mss(MSS));
    t.close(id);
    t.pass(50_000);
    t.inject(seg().fin().ack(2));
    t.expect(seg().seq(2).ack(2));
    t.pass(59_999);
    assert_eq!(t.stack.tcp_connections(), 1);
    t.pass(1);
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn a_reset_does_not_end_it() {
    let (mut t, _, id) = in_time_wait(seg().mss(MSS));
    for reset in [seg().rst().seq(2), seg().rst().seq(2).ack(2), seg().rst().seq(1)] {
        t.inject(reset);
    }
    t.expect_nothing();
    assert_eq!(t.state(id), State::TimeWait);
}

#[test]
fn a_syn_beyond_the_old_numbers_takes_its_place() {
    for orphan in [true, false] {
        let (mut t, listener, id) = in_time_wait(seg().mss(MSS));
        if orphan {
            t.close(id);
        }
        t.peer_isn = t.peer_isn.wrapping_add(3);
        let new = t.open_on(listener, seg().mss(MSS));
        t.inject(seg().ack(1).data(100));
        assert_eq!(t.read(new), 100);
        assert_eq!(t.stack.tcp_connections(), if orphan { 1 } else { 2 });
    }
}

#[test]
fn an_old_syn_is_only_answered() {
    let (mut t, _, id) = in_time_wait(seg().mss(MSS));
    t.inject(seg().syn().seq(0).mss(MSS));
    t.expect(seg().seq(2).ack(2));
    assert_eq!(t.state(id), State::TimeWait);
}

#[test]
fn a_newer_timestamp_lets_a_syn_in_whatever_its_number() {
    for (value, opens) in [(501, true), (0x8000_0000 + 499, true), (499, false)] {
        let (mut t, listener, _) = in_time_wait(seg().mss(MSS).ts(500, 0));
        t.peer_isn = t.peer_isn.wrapping_sub(1_000_000);
        t.inject(seg().syn().seq(0).mss(MSS).ts(value, 0));
        if opens {
            t.expect(seg().syn().seq(0).ack(1));
            t.inject(seg().ack(1).ts(value, 0));
        }
        assert_eq!(t.stack.tcp_accept(listener).is_some(), opens, "{value}");
    }
}

#[test]
fn the_new_connection_begins_beyond_the_numbers_that_the_old_one_used() {
    let mut t = Script::new();
    let listener = t.listen();
    let id = t.open_on(listener, seg().mss(MSS));
    // Much faster than a byte every 4 microseconds.
    t.write(id, 500_000);
    let mut next = 1;
    while next < 500_001 {
        let _ = t.take_sent();
        next += 2_000;
        t.inject(seg().ack(next.min(500_001)));
    }
    t.stack.tcp_shutdown(id, Shutdown::Write).unwrap();
    t.turn();
    t.inject(seg().fin().ack(500_002));
    let _ = t.take_sent();
    assert_eq!(t.state(id), State::TimeWait);
    let used = t.info(id).snd_max;
    t.peer_isn = t.peer_isn.wrapping_add(1_000);
    t.inject(seg().syn().seq(0).mss(MSS));
    t.expect(seg().syn().seq(0).ack(1));
    assert!(t.iss().wrapping_sub(used) as i32 > 0, "{} after {used}", t.iss());
}

#[test]
fn a_syn_that_nobody_listens_for_or_has_room_for_leaves_it_alone() {
    let (mut t, listener, id) = in_time_wait(seg().mss(MSS));
    t.stack.tcp_close_listener(t.now, listener);
    let next = t.peer_isn.wrapping_add(2);
    t.peer_isn = t.peer_isn.wrapping_add(1_000);
    t.inject(seg().syn().seq(0).mss(MSS));
    t.expect(seg().seq(2).raw_ack(next));
    assert_eq!(t.state(id), State::TimeWait);
    // One place, and it is taken.
    let options = t.stack.default_tcp_options().clone();
    t.listen_with(1, &options);
    t.inject(seg().syn().seq(0).mss(MSS).with_peer_port(7));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(7));
    t.inject(seg().syn().seq(0).mss(MSS));
    t.expect_nothing();
    assert_eq!((t.state(id), t.counters().listen_overflows), (State::TimeWait, 1));
}
