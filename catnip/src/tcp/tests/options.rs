//! Options: segment size, window scale and timestamps (RFC 9293, section 3.7.1; RFC 7323).

use super::script::{MSS, Script, fix_receive_buffer};
use super::seg::{Seg, seg};
use crate::events::ConnectionId;
use crate::tcp::State;

/// The sizes of the first two segments when the program writes much.
fn segment_sizes(t: &mut Script, id: ConnectionId) -> Vec<usize> {
    t.write(id, 20_000);
    t.take_sent().iter().take(2).map(|sent| sent.payload.len()).collect()
}

#[test]
fn segments_are_as_large_as_the_peer_the_path_and_the_program_allow() {
    for (syn, sizes) in [
        (seg(), [536, 536]),
        (seg().mss(1_000), [1_000, 1_000]),
        (seg().mss(9_000), [1_460, 1_460]),
        (seg().mss(u16::MAX), [1_460, 1_460]),
        // Every segment carries timestamps, which take 12 bytes (RFC 6691).
        (seg().mss(1_000).ts(1, 0), [988, 988]),
        (seg().mss(9_000).ts(1, 0), [1_448, 1_448]),
        // So small that it would only burn the path.
        (seg().mss(1), [36, 36]),
        (seg().mss(0), [36, 36]),
    ] {
        let mut t = Script::new();
        let id = t.open_with(syn.clone());
        assert_eq!(segment_sizes(&mut t, id), sizes, "{syn:?}");
    }
}

#[test]
fn the_programs_segment_size_counts_both_ways() {
    let mut t = Script::configured(|config| config.tcp.options.max_segment_bytes = Some(700));
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS));
    t.expect(seg().syn().seq(0).ack(1).mss(700));
    t.inject(seg().ack(1));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!(segment_sizes(&mut t, id), [700, 700]);
}

#[test]
fn on_a_link_with_a_tiny_mtu_segments_fit_it() {
    let mut t = Script::configured(|config| config.device.mtu = 68);
    let id = t.open_with(seg().mss(MSS).ts(1, 0));
    assert_eq!(segment_sizes(&mut t, id), [16, 16]);
}

#[test]
fn unknown_and_malformed_options_cost_nothing_but_themselves() {
    let odd: [(&str, &[u8]); 7] = [
        ("unknown kind", &[2, 4, 3, 232, 254, 6, 1, 2, 3, 4, 1, 1]),
        ("padding", &[1, 1, 1, 1, 2, 4, 3, 232, 0, 0, 0, 0]),
        ("length 0 behind the MSS", &[2, 4, 3, 232, 99, 0, 0, 0]),
        ("length 1 behind the MSS", &[2, 4, 3, 232, 99, 1, 0, 0]),
        ("length beyond the header", &[2, 4, 3, 232, 8, 10, 0, 0]),
        ("a window scale of a wrong length", &[2, 4, 3, 232, 3, 4, 7, 7]),
        ("SACK permitted", &[2, 4, 3, 232, 4, 2, 1, 1]),
    ];
    for (name, options) in odd {
        let mut t = Script::new();
        let id = t.open_with(seg().options(options));
        assert_eq!(segment_sizes(&mut t, id), [1_000, 1_000], "{name}");
        // And on a segment with data.
        t.inject(seg().ack(1).options(options).data(100));
        assert_eq!(t.read(id), 100, "{name}");
    }
}

// ---- Window scale.

#[test]
fn the_windows_of_syns_are_never_scaled_and_all_others_are() {
    let mut t = Script::configured(|config| fix_receive_buffer(config, 1 << 20));
    let listener = t.listen();
    t.window = 1_000;
    t.inject(seg().seq(0).syn().mss(MSS).wscale(7));
    // A buffer of 1 MiB needs a shift of 5.
    t.expect(seg().syn().seq(0).ack(1).wscale(5).win(u16::MAX));
    t.inject(seg().ack(1).win(10));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!(t.info(id).snd_wnd_bytes, 1_280);
    t.write(id, 1_000);
    let sent = t.expect(seg().seq(1).ack(1).data(1_000));
    assert_eq!(u32::from(sent.segment.window) << 5, 1 << 20);
}

#[test]
fn the_window_of_a_syn_counts_unscaled_until_the_next_segment() {
    let mut t = Script::configured(|config| fix_receive_buffer(config, 1 << 20));
    let id = t.connect();
    t.expect(seg().syn().seq(0).wscale(5));
    t.inject(seg().syn().seq(0).ack(1).mss(MSS).wscale(10).win(2_000));
    t.expect(seg().seq(1).ack(1));
    assert_eq!(t.info(id).snd_wnd_bytes, 2_000);
    t.inject(seg().ack(1).win(2_000));
    assert_eq!(t.info(id).snd_wnd_bytes, 2_000 << 10);
}

#[test]
fn without_the_peers_scale_nobody_scales() {
    let mut t = Script::new();
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS));
    let sent = t.expect(seg().syn().seq(0).ack(1).win(u16::MAX));
    assert_eq!(sent.segment.options.window_scale, None);
    t.inject(seg().ack(1).win(u16::MAX));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!((t.info(id).snd_wnd_bytes, t.info(id).rcv_wnd_bytes), (65_535, 65_535));
}

#[test]
fn a_shift_beyond_fourteen_counts_as_fourteen() {
    for shift in [14, 15, 32, 255] {
        let mut t = Script::new();
        let id = t.open_with(seg().mss(MSS).wscale(shift));
        t.inject(seg().ack(1).win(u16::MAX));
        assert_eq!(t.info(id).snd_wnd_bytes, 0xffff << 14, "{shift}");
    }
}

// ---- Timestamps.

fn stamped() -> (Script, ConnectionId) {
    let mut t = Script::new();
    let id = t.open_with(seg().mss(MSS).ts(500, 0));
    (t, id)
}

fn echo(t: &mut Script, expected: Seg) -> u32 {
    t.expect(expected).segment.options.timestamp.unwrap().echo
}

#[test]
fn timestamps_are_used_only_when_both_sides_want_them() {
    for (ours, theirs) in [(true, true), (true, false), (false, true)] {
        let mut t = Script::configured(|config| config.tcp.timestamps = ours);
        t.listen();
        let syn = if theirs { seg().mss(MSS).ts(500, 0) } else { seg().mss(MSS) };
        t.inject(syn.syn().seq(0));
        let stamps = t.expect(seg().syn().seq(0).ack(1)).segment.options.timestamp;
        assert_eq!(stamps.map(|stamps| stamps.echo), (ours && theirs).then_some(500));
    }
}

#[test]
fn our_timestamps_count_milliseconds_and_echo_the_peers() {
    let (mut t, id) = stamped();
    t.write(id, 10);
    let first = t.expect(seg().seq(1).ack(1).data(10)).segment.options.timestamp.unwrap();
    assert_eq!(first.echo, 500);
    t.pass(100);
    t.inject(seg().ack(11).ts(600, first.value));
    t.write(id, 10);
    let second = t.expect(seg().seq(11).ack(1).data(10)).segment.options.timestamp.unwrap();
    assert_eq!((second.value.wrapping_sub(first.value), second.echo), (100, 600));
}

#[test]
fn the_echo_is_of_the_earliest_segment_that_is_acknowledged() {
    let (mut t, _) = stamped();
    // Delayed acknowledgment: of two segments, the first one's timestamp (RFC 7323, section 4.3, case A).
    t.inject(seg().ack(1).ts(510, 0).data(1_000));
    t.inject(seg().seq(1_001).ack(1).ts(520, 0).data(1_000));
    assert_eq!(echo(&mut t, seg().seq(1).ack(2_001)), 510);
    // A gap: the last segment that moved the window on (case B).
    t.inject(seg().seq(3_001).ack(1).ts(540, 0).data(1_000));
    assert_eq!(echo(&mut t, seg().seq(1).ack(2_001)), 510);
    // What fills it (case C).
    t.inject(seg().seq(2_001).ack(1).ts(550, 0).data(1_000));
    assert_eq!(echo(&mut t, seg().seq(1).ack(4_001)), 550);
}

#[test]
fn a_segment_with_an_old_timestamp_is_dropped_and_acknowledged() {
    let (mut t, id) = stamped();
    t.inject(seg().ack(1).ts(600, 0).data(100));
    t.pass(40);
    t.expect(seg().seq(1).ack(101));
    for value in [599, 0, 0x8000_0000 + 601] {
        t.inject(seg().seq(101).ack(1).ts(value, 0).data(100));
        t.expect(seg().seq(1).ack(101));
    }
    t.inject(seg().seq(101).fin().ack(1).ts(599, 0));
    t.expect(seg().seq(1).ack(101));
    assert_eq!((t.read(id), t.state(id), t.counters().paws_rejected), (100, State::Established, 4));
    t.inject(seg().seq(101).ack(1).ts(600, 0).data(100));
    assert_eq!(t.read(id), 100);
}

#[test]
fn a_reset_counts_whatever_its_timestamp() {
    for reset in [seg().rst().ts(1, 0), seg().rst()] {
        let (mut t, id) = stamped();
        t.inject(reset);
        assert_eq!(t.state(id), State::Closed);
    }
}

#[test]
fn a_timestamp_of_a_month_ago_says_nothing() {
    let (mut t, id) = stamped();
    t.pass(23 * 24 * 3_600_000);
    t.inject(seg().ack(1).ts(499, 0).data(100));
    assert_eq!(t.read(id), 0);
    t.pass(2 * 24 * 3_600_000);
    t.inject(seg().ack(1).ts(499, 0).data(100));
    assert_eq!(t.read(id), 100);
}

#[test]
fn a_segment_that_lacks_the_agreed_timestamps_is_tolerated() {
    let (mut t, id) = stamped();
    t.inject(seg().ack(1).data(100));
    assert_eq!(t.read(id), 100);
}

#[test]
fn a_peers_timestamps_may_wrap() {
    let mut t = Script::new();
    let id = t.open_with(seg().mss(MSS).ts(u32::MAX - 5, 0));
    t.inject(seg().ack(1).ts(u32::MAX, 0).data(100));
    t.pass(40);
    t.inject(seg().seq(101).ack(1).ts(3, 0).data(100));
    t.pass(40);
    t.inject(seg().seq(201).ack(1).ts(u32::MAX, 0).data(100));
    assert_eq!(t.read(id), 200);
}
