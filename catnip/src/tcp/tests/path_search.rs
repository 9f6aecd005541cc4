//! Paths that lose what is too large for them and tell nobody.

use super::script::Script;
use super::seg::{Seg, seg};
use crate::events::ConnectionId;

/// Header bytes of every packet in these scripts, which have no options.
const HEADER_BYTES: usize = 40;

/// The far end of a path: acknowledges what comes through, in order or not.
struct Peer {
    /// Acknowledges selectively.
    sack: bool,
    next: u32,
    ahead: Vec<(u32, u32)>,
}

impl Peer {
    fn acknowledge(&mut self, seq: u32, len: u32) -> Seg {
        self.ahead.push((seq, seq + len));
        self.ahead.sort_unstable();
        for &(start, end) in &self.ahead {
            if start <= self.next {
                self.next = self.next.max(end);
            }
        }
        let next = self.next;
        self.ahead.retain(|&(_, end)| end > next);
        let newest: Vec<_> = self.ahead.iter().rev().take(4).copied().collect();
        if self.sack && !newest.is_empty() { seg().ack(next).sack(&newest) } else { seg().ack(next) }
    }
}

/// Sends `bytes` over a path that carries packets of `mtu` bytes; returns the largest segment at the end.
fn stream(t: &mut Script, id: ConnectionId, peer: &mut Peer, bytes: u32, mtu: usize) -> usize {
    let end = peer.next + bytes;
    let mut written = t.info(id).send_queue_bytes as u32;
    for _ in 0..20_000 {
        if peer.next >= end {
            return usize::from(t.info(id).snd_mss_bytes);
        }
        if written < bytes {
            written += t.try_write(id, (bytes - written).min(60_000) as usize).unwrap() as u32;
        }
        let sent = t.take_sent();
        if sent.is_empty() {
            t.pass(10);
            continue;
        }
        t.pass(5);
        let through = sent.iter().filter(|sent| sent.payload.len() + HEADER_BYTES <= mtu);
        let acks: Vec<_> = through
            .filter(|sent| !sent.payload.is_empty())
            .map(|sent| peer.acknowledge(t.relative_seq(sent), sent.payload.len() as u32))
            .collect();
        acks.into_iter().for_each(|ack| t.inject(ack));
    }
    panic!("{} of {bytes} bytes got through: {:?}", peer.next, t.info(id));
}

fn open() -> (Script, ConnectionId, Peer) {
    let mut t = Script::new();
    let id = t.open_with(seg().mss(1_460));
    (t, id, Peer { sack: false, next: 1, ahead: Vec::new() })
}

#[test]
fn a_probe_that_is_lost_alone_is_sent_again_and_is_no_congestion() {
    for sack in [true, false] {
        let mut t = Script::new();
        let syn = seg().mss(1_460);
        let id = t.open_with(if sack { syn.sack_permitted() } else { syn });
        let mut peer = Peer { sack, next: 1, ahead: Vec::new() };
        let mss = stream(&mut t, id, &mut peer, 900_000, 1_400);
        assert!((1_300..=1_360).contains(&mss), "{mss}");
        // The black hole cost two timeouts; each probe cost a retransmission and nothing else.
        let counters = t.counters();
        assert!(counters.retransmitted_segments > 5, "{counters:?}");
        let signs = (counters.fast_retransmits, counters.retransmission_timeouts);
        assert_eq!(signs, (0, 2), "{sack} {counters:?}");
    }
}

#[test]
fn a_black_hole_for_large_segments_is_noticed_and_measured() {
    for mtu in [1_499, 1_400, 1_280, 1_200, 700, 576] {
        let (mut t, id, mut peer) = open();
        let mss = stream(&mut t, id, &mut peer, 900_000, mtu);
        assert!(mss + HEADER_BYTES <= mtu, "{mss} on {mtu}");
        if mtu >= 700 {
            assert!(mss + HEADER_BYTES + 40 >= mtu, "{mss} on {mtu}");
        }
        assert!(t.counters().path_mtu_black_holes >= 1);
    }
}

#[test]
fn a_path_that_was_only_away_gets_its_size_back() {
    let (mut t, id, mut peer) = open();
    t.write(id, 20_000);
    // Nothing at all gets through for a while.
    t.pass(3_000);
    let _ = t.take_sent();
    assert!(t.info(id).snd_mss_bytes < 1_200, "{:?}", t.info(id));
    let mss = stream(&mut t, id, &mut peer, 300_000, 1_500);
    assert_eq!((mss, t.counters().path_mtu_raised), (1_460, 1));
}

#[test]
fn small_segments_that_vanish_are_no_black_hole() {
    let (mut t, id, _) = open();
    t.write(id, 500);
    t.pass(5_000);
    assert_eq!((t.info(id).snd_mss_bytes, t.counters().path_mtu_black_holes), (1_460, 0));
}

#[test]
fn without_the_search_segments_stay_as_they_are() {
    let mut t = Script::configured(|config| config.tcp.path_mtu_search = false);
    let id = t.open_with(seg().mss(1_460));
    t.write(id, 5_000);
    t.pass(5_000);
    assert_eq!(t.info(id).snd_mss_bytes, 1_460);
}
