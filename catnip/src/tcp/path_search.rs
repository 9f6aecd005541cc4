//! Finding what the path carries without being told (RFC 4821, RFC 8899): noticing that large segments vanish, and
//! trying larger ones again later.
//!
//! Two timeouts in a row of a large segment make the path a black hole for it: segments become so small that every
//! path carries them. From then on single segments of new data are sent larger than the others, as probes: first as
//! large as the link allows, since a host that was away loses small ones as well, then halfway between what got
//! through and what did not. A probe that is lost is repaired as any loss is, but when nothing else was lost it is no sign of
//! congestion (RFC 8899, section 3; RFC 4821, section 7.7), whether the peer acknowledges selectively or not.

use std::time::Duration;

use libos::Instant;

use super::congestion::CongestionControl;
use super::connection::{Connection, Context};
use super::sequence::SequenceNumber;
use super::transmissions::Fate;

/// Timeouts of one segment after which it is taken to be too large.
const BLACK_HOLE_TIMEOUTS: u8 = 2;
/// The packet size that is fallen back to first (RFC 8899, section 5.1.2: BASE_PLPMTU), and what IPv4 falls back to
/// after that. IPv6 has no smaller one than 1280.
const BASE_MTU_BYTES: usize = 1_200;
const LEAST_IPV4_MTU_BYTES: usize = 576;
const LEAST_IPV6_MTU_BYTES: usize = 1_280;
/// Probes of one size that have to be lost before it counts as too large (RFC 8899, section 5.1.2: MAX_PROBES).
const MAX_PROBES: u8 = 3;
/// Sizes closer than this are not told apart.
const STEP_BYTES: usize = 32;
/// How long a size is kept before larger ones are tried again (RFC 8899, section 5.1.1: PMTU_RAISE_TIMER).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// Segments of new data that have to follow a probe, so that its loss is noticed without a timeout.
const SEGMENTS_BEHIND: u32 = 4;

/// A segment larger than the others.
#[derive(Debug, Clone, Copy)]
struct Probe {
    mtu_bytes: usize,
    start: SequenceNumber,
    end: SequenceNumber,
    /// Segments sent again before it: when there are more at its end, it may have been among them.
    resent_before: u32,
}

/// What the search wants of the rest of a turn of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterSearch {
    /// Further data may go.
    SendOn,
    /// The next acknowledgment makes room for a probe, if nothing takes it before.
    Wait,
}

/// The search for the path's MTU. Only a connection whose MTU was reduced has one.
#[derive(Debug)]
pub(super) struct PathSearch {
    /// What the link allows.
    ceiling_bytes: usize,
    /// The largest size that may get through.
    high_bytes: usize,
    probe: Option<Probe>,
    lost_probes: u8,
    next_at: Instant,
}

impl PathSearch {
    const fn new(ceiling_bytes: usize, next_at: Instant) -> Self {
        Self { ceiling_bytes, high_bytes: ceiling_bytes, probe: None, lost_probes: 0, next_at }
    }

    /// The size to try next, `None` when `good_bytes` is as large as can be told.
    fn next_size(&self, good_bytes: usize) -> Option<usize> {
        if self.high_bytes < good_bytes + STEP_BYTES {
            return None;
        }
        let halfway = (good_bytes + self.high_bytes).div_ceil(2);
        Some(if self.high_bytes == self.ceiling_bytes { self.high_bytes } else { halfway })
    }
}

impl Connection {
    /// The path was said to carry less than was thought: larger segments are tried again after a while.
    pub(super) fn search_path_later(&mut self, former_mtu: usize, now: Instant) {
        let ceiling = self.path_search.as_ref().map_or(former_mtu, |search| search.ceiling_bytes);
        self.path_search = Some(Box::new(PathSearch::new(ceiling, now + RAISE_AFTER)));
    }

    /// The oldest segment was lost and timed out `retransmissions` times.
    #[cold]
    pub(super) fn suspect_black_hole(&mut self, cx: &mut Context<'_>) {
        if !cx.settings.config.path_mtu_search || !self.retransmissions.is_multiple_of(BLACK_HOLE_TIMEOUTS) {
            return;
        }
        let former = self.path.mtu;
        let smaller = if self.path.remote.is_ipv6() {
            LEAST_IPV6_MTU_BYTES
        } else if former > BASE_MTU_BYTES {
            BASE_MTU_BYTES
        } else {
            LEAST_IPV4_MTU_BYTES
        };
        let oldest_bytes = self.snd.max.distance_from(self.snd.una).min(u32::from(self.snd.mss));
        self.path.mtu = smaller.min(former);
        if u32::from(self.effective_mss()) >= oldest_bytes {
            // It was small enough for any path.
            self.path.mtu = former;
            return;
        }
        let ceiling = self.path_search.as_ref().map_or(former, |search| search.ceiling_bytes);
        self.path_search = Some(Box::new(PathSearch::new(ceiling, cx.now)));
        self.change_mss();
        cx.counters.path_mtu_black_holes += 1;
    }

    /// Looks after the last probe, and sends the next one when it is time and there is enough to send.
    #[cold]
    pub(super) fn search_path(&mut self, cx: &mut Context<'_>) -> AfterSearch {
        let Some(mut search) = self.path_search.take() else { return AfterSearch::SendOn };
        if let Some(probe) = search.probe
            && !self.conclude(probe, &mut search, cx)
        {
            self.path_search = Some(search);
            return AfterSearch::SendOn;
        }
        let mut after = AfterSearch::SendOn;
        if cx.now >= search.next_at {
            match search.next_size(self.path.mtu) {
                Some(size) => after = self.send_path_probe(size, &mut search, cx),
                None if self.path.mtu + STEP_BYTES > search.ceiling_bytes => return after,
                None => *search = PathSearch::new(search.ceiling_bytes, cx.now + RAISE_AFTER),
            }
        }
        self.path_search = Some(search);
        after
    }

    /// True when a probe is lost, and nothing else is.
    pub(super) fn lost_probe_alone(&self) -> bool {
        let probe = self.path_search.as_ref().and_then(|search| search.probe);
        probe.is_some_and(|probe| {
            let record = self.sent.get(self.sent.index_of(probe.start));
            self.sent.lost_bytes() == probe.end.distance_from(probe.start)
                && record.is_some_and(|record| record.fate == Fate::Lost && record.start == probe.start)
        })
    }

    /// Where the probe ends that begins at `start`, if one does.
    pub(super) fn end_of_probe_at(&self, start: SequenceNumber) -> Option<SequenceNumber> {
        let probe = self.path_search.as_ref()?.probe?;
        (probe.start == start).then_some(probe.end)
    }

    /// False while nothing is known of the probe yet.
    fn conclude(&mut self, probe: Probe, search: &mut PathSearch, cx: &mut Context<'_>) -> bool {
        let resent = self.sent.resent().0 != probe.resent_before;
        if !resent && self.snd.una.before(probe.end) {
            return false;
        }
        search.probe = None;
        if resent {
            search.lost_probes += 1;
            if search.lost_probes == MAX_PROBES {
                search.lost_probes = 0;
                search.high_bytes = probe.mtu_bytes - 1;
            }
        } else {
            search.lost_probes = 0;
            self.path.mtu = probe.mtu_bytes;
            self.change_mss();
            cx.counters.path_mtu_raised += 1;
        }
        true
    }

    /// Sends the next new data as one segment that makes a packet of `mtu_bytes`.
    fn send_path_probe(
        &mut self,
        mtu_bytes: usize,
        search: &mut PathSearch,
        cx: &mut Context<'_>,
    ) -> AfterSearch {
        let (mtu, mss) = (self.path.mtu, self.snd.mss);
        self.path.mtu = mtu_bytes;
        let len = self.effective_mss();
        let room = self.snd.wnd.min(self.congestion.cwnd_bytes()).saturating_sub(self.snd.in_flight());
        let behind = SEGMENTS_BEHIND * u32::from(mss);
        let is_followed = u32::from(len) + behind <= self.snd.unsent();
        let mut after = AfterSearch::SendOn;
        let is_new = self.snd.nxt == self.snd.max && self.sent.lost_bytes() == 0 && self.recovery.is_quiet();
        if len <= mss {
            // The peer or the program wants no larger segments.
            search.high_bytes = mtu;
        } else if is_followed && is_new && u32::from(len) > room {
            if self.snd.in_flight() > 0 {
                after = AfterSearch::Wait;
            }
        } else if is_followed && is_new {
            let start = self.snd.nxt;
            let resent_before = self.sent.resent().0;
            self.snd.mss = len;
            let sent = self.send_segment_of(u32::from(len), cx).is_ok();
            self.snd.mss = mss;
            // One that lay in too many buffers went smaller, and probes nothing.
            if sent && self.snd.nxt.distance_from(start) == u32::from(len) {
                search.probe = Some(Probe { mtu_bytes, start, end: self.snd.nxt, resent_before });
            }
        }
        self.path.mtu = mtu;
        after
    }
}
