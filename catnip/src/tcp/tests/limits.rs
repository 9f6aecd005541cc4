//! Limits on what peers can make the stack send and keep.

use super::script::{MSS, Script};
use super::seg::seg;

/// Connections from so many ports of the peer, from 1 on.
fn connections(t: &mut Script, count: u16) {
    let options = t.stack.default_tcp_options().clone();
    let listener = t.listen_with(usize::from(count), &options);
    for port in 1..=count {
        t.inject(seg().seq(0).syn().mss(MSS).with_peer_port(port));
        t.expect(seg().syn().seq(0).ack(1).with_peer_port(port));
        t.inject(seg().ack(1).with_peer_port(port));
        assert!(t.stack.tcp_accept(listener).is_some());
    }
}

#[test]
fn challenges_of_all_connections_have_a_budget_that_varies() {
    let mut t = Script::configured(|config| config.tcp.challenge_acks_per_second = 20);
    connections(&mut t, 60);
    let mut answered = Vec::new();
    for _ in 0..10 {
        for port in 1..=60 {
            t.inject(seg().seq(1).syn().with_peer_port(port));
        }
        answered.push(t.take_sent().len());
        t.pass(1_000);
    }
    assert!(answered.iter().all(|count| (10..=30).contains(count)), "{answered:?}");
    answered.dedup();
    assert!(answered.len() > 5, "a budget that can be guessed: {answered:?}");
    assert!(t.counters().skipped_challenges > 300);
}

#[test]
fn resets_have_a_budget() {
    let mut t = Script::configured(|config| config.tcp.resets_per_second = 20);
    for port in 1..=1_000 {
        t.inject(seg().ack(1).with_peer_port(port));
    }
    let resets = t.take_sent().len();
    assert!((10..=30).contains(&resets), "{resets}");
    assert_eq!(t.counters().skipped_resets as usize, 1_000 - resets);
    t.pass(1_000);
    t.inject(seg().ack(1));
    t.expect(seg().rst().seq(1));
}

#[test]
fn out_of_order_data_of_all_connections_together_is_bounded() {
    let mut t = Script::configured(|config| config.tcp.max_out_of_order_bytes = 64 << 10);
    let options = t.stack.default_tcp_options().clone();
    let listener = t.listen_with(10, &options);
    let mut ids = Vec::new();
    for port in 1..=10 {
        t.inject(seg().seq(0).syn().mss(MSS).with_peer_port(port));
        t.expect(seg().syn().seq(0).ack(1).with_peer_port(port));
        t.inject(seg().ack(1).with_peer_port(port));
        ids.push(t.stack.tcp_accept(listener).unwrap().0);
    }
    for port in 1..=10 {
        for turn in 0..20 {
            t.inject(seg().seq(1_001 + turn * 1_000).ack(1).data(1_000).with_peer_port(port));
        }
    }
    let held = |t: &Script| ids.iter().map(|&id| t.info(id).out_of_order_bytes).sum::<usize>();
    let at_limit = held(&t);
    assert!((20_000..=66_000).contains(&at_limit), "{at_limit}");
    assert!(t.counters().out_of_order_drops > 100);
    // What fills a gap is taken all the same, and what then goes to the program makes room.
    t.inject(seg().ack(1).data(1_000).with_peer_port(1));
    assert_eq!(t.read(ids[0]), 21_000);
    assert!(held(&t) < at_limit);
    for port in 1..=10 {
        t.inject(seg().rst().with_peer_port(port));
    }
    t.inject(seg().rst().seq(21_001).with_peer_port(1));
    let _ = t.take_sent();
    // All of it was given back: one connection may hold as much again.
    t.inject(seg().seq(0).syn().mss(MSS).with_peer_port(99));
    t.expect(seg().syn().seq(0).ack(1).with_peer_port(99));
    t.inject(seg().ack(1).with_peer_port(99));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    for turn in 0..20 {
        t.inject(seg().seq(1_001 + turn * 1_000).ack(1).data(1_000).with_peer_port(99));
    }
    assert_eq!(t.info(id).out_of_order_bytes, 20_000);
}

#[test]
fn a_segment_in_two_buffers_fills_a_gap_whole_though_no_more_may_wait() {
    let mut t = Script::configured(|config| config.tcp.max_out_of_order_bytes = 1);
    let id = t.open();
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(1));
    // IP and TCP headers, and 460 bytes of data.
    t.inject_scattered(seg().seq(1).ack(1).data(1_000), 500);
    t.expect(seg().seq(1).ack(2_001));
    assert_eq!(t.read(id), 2_000);
}

#[test]
fn data_that_the_device_had_no_room_for_is_let_go_of_with_its_connection() {
    let mut t = Script::configured(|config| config.transmit_queue_frames = 1);
    let id = t.open();
    for _ in 0..4 {
        t.queue(id, 700).unwrap();
    }
    // One segment finds room, and the next, gathered of two pieces, does not.
    t.stack.poll(t.now);
    t.stack.tcp_abort(t.now, id);
    t.expect(seg().seq(1).ack(1).data(1_000));
    let _ = t.take_sent();
    assert_eq!(t.live_buffers(), 0);
}
