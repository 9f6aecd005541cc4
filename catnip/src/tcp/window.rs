//! Windows: what we offer, without ever taking it back or offering trifles, and what is worth sending.

use super::options::MAX_WINDOW_SCALE;
use super::sequence::SequenceNumber;

/// Largest window that fits into a header without scaling.
pub const MAX_FIELD: u32 = 65_535;

/// What a segment tells the peer it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// The right edge: where acceptable data ends, the farthest that any segment told so far.
    pub edge: SequenceNumber,
    /// The header's window field.
    pub field: u16,
}

/// The shift needed to offer a buffer of `limit_bytes` whole (RFC 7323 §2.3).
#[must_use]
pub const fn scale_for(limit_bytes: u32) -> u8 {
    let mut scale = 0;
    while scale < MAX_WINDOW_SCALE && limit_bytes >> scale > MAX_FIELD {
        scale += 1;
    }
    scale
}

/// The window of the next segment. `nxt` is RCV.NXT, `edge` the right edge offered so far,
/// `free_bytes` what the buffer of `limit_bytes` has room for, `mss` the peer's usual segment, and `scale` the shift we
/// offered, at most [`MAX_WINDOW_SCALE`].
///
/// The edge never moves left (RFC 9293 §3.8.6, SHLD-14) and moves right by no less than the smaller of
/// a segment and half of the buffer (RFC 9293 §3.8.6.2.2, MUST-39). A window that is no multiple of
/// the scale's unit is rounded up where the buffer has the room, else down: then the peer sees its
/// window shrink by less than a unit, and what it may have sent before that stays acceptable
/// (RFC 7323 §2.4).
#[inline]
#[must_use]
pub fn advertise(
    nxt: SequenceNumber,
    edge: SequenceNumber,
    free_bytes: u32,
    limit_bytes: u32,
    mss: u32,
    scale: u8,
) -> Offered {
    let offered_bytes = if edge.after(nxt) { edge.distance_from(nxt) } else { 0 };
    let worthwhile = free_bytes > offered_bytes && free_bytes - offered_bytes >= threshold(limit_bytes, mss);
    let window_bytes = if worthwhile { free_bytes } else { offered_bytes };
    debug_assert!(scale <= MAX_WINDOW_SCALE, "a window shifted by {scale}");
    let unit = 1 << scale;
    let rounded_up = window_bytes.saturating_add(unit - 1) >> scale;
    let units = if rounded_up << scale <= free_bytes { rounded_up } else { window_bytes >> scale };
    let units = units.min(MAX_FIELD);
    let field = u16::try_from(units).unwrap_or(u16::MAX);
    Offered { edge: edge.max(nxt + (units << scale)), field }
}

/// Most bytes of a buffer that [`advertise_empty`] takes.
pub const MAX_PLAIN_BYTES: u32 = 1 << 30;
/// Least segments of a buffer that [`advertise_empty`] takes.
pub const LEAST_PLAIN_SEGMENTS: u32 = 2;

/// What [`advertise`] says, of an empty buffer of at most [`MAX_PLAIN_BYTES`] which has room for
/// [`LEAST_PLAIN_SEGMENTS`] and no more units than a header expresses. `None` when the edge moves for more than rounding.
#[inline(always)]
#[must_use]
pub fn advertise_empty(
    nxt: SequenceNumber,
    edge: SequenceNumber,
    limit_bytes: u32,
    mss: u32,
    scale: u8,
) -> Option<Offered> {
    let offered_bytes = edge.distance_from(nxt);
    if limit_bytes.wrapping_sub(offered_bytes) >= mss {
        return None;
    }
    let units = ((offered_bytes - 1) >> scale) + 1;
    let window_bytes = units << scale;
    if window_bytes > limit_bytes {
        return None;
    }
    debug_assert!(units <= MAX_FIELD, "a window that the header does not express");
    Some(Offered { edge: nxt + window_bytes, field: units as u16 })
}

/// True when reading has made so much room that the peer should be told without waiting for a segment
/// to tell it with: the window was less than half of what it can be now, and the difference is worth
/// offering (RFC 9293 §3.8.6.2.2).
#[inline]
#[must_use]
pub fn update_is_due(window_bytes: u32, free_bytes: u32, limit_bytes: u32, mss: u32) -> bool {
    let gain = free_bytes.saturating_sub(window_bytes);
    gain > 0 && gain >= window_bytes && gain >= threshold(limit_bytes, mss)
}

/// True when `len` bytes are at least half of the largest window the peer ever offered: worth sending
/// though they fill no segment (RFC 9293 §3.8.6.2.1, case 3, Fs = 1/2).
#[inline]
#[must_use]
pub const fn is_large_part(len: u32, max_window_bytes: u32) -> bool {
    len >= max_window_bytes.div_ceil(2)
}

/// The least by which the right edge moves: min(Fr * RCV.BUFF, Eff.snd.MSS) with Fr = 1/2.
const fn threshold(limit_bytes: u32, mss: u32) -> u32 {
    let half = limit_bytes / 2;
    if half < mss { half } else { mss }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(raw: u32) -> SequenceNumber {
        SequenceNumber::new(raw)
    }

    #[test]
    fn the_scale_is_the_smallest_that_offers_the_whole_buffer() {
        for (limit_bytes, scale) in [
            (0, 0),
            (65_535, 0),
            (65_536, 1),
            (131_071, 1),
            (131_072, 2),
            (1 << 20, 5),
            (1 << 30, 14),
            (u32::MAX, 14),
        ] {
            assert_eq!(scale_for(limit_bytes), scale, "{limit_bytes}");
        }
    }

    #[test]
    fn the_edge_moves_right_by_a_segment_or_half_the_buffer_or_not_at_all() {
        // (nxt, edge, free, limit, mss, scale) -> (edge, field)
        let cases = [
            ("all free", (100, 100, 8_000, 8_000, 1_000, 0), (8_100, 8_000)),
            ("nothing read", (1_100, 8_100, 7_000, 8_000, 1_000, 0), (8_100, 7_000)),
            ("a byte less than a segment read", (1_100, 8_100, 7_999, 8_000, 1_000, 0), (8_100, 7_000)),
            ("a segment read", (1_100, 8_100, 8_000, 8_000, 1_000, 0), (9_100, 8_000)),
            ("closed, a little read", (8_100, 8_100, 999, 8_000, 1_000, 0), (8_100, 0)),
            ("closed, a segment read", (8_100, 8_100, 1_000, 8_000, 1_000, 0), (9_100, 1_000)),
            ("small buffer, half read", (200, 200, 50, 100, 1_000, 0), (250, 50)),
            ("small buffer, less than half read", (200, 200, 49, 100, 1_000, 0), (200, 0)),
            ("less free than offered", (100, 5_100, 10, 8_000, 1_000, 0), (5_100, 5_000)),
            ("unscaled field is full", (0, 0, 1 << 20, 1 << 20, 1_000, 0), (65_535, 65_535)),
            ("scaled", (0, 0, 1 << 20, 1 << 20, 1_000, 5), (1 << 20, 1 << 15)),
            ("rounded down to a unit", (0, 0, 1_000, 1_000, 100, 4), (992, 62)),
            ("a whole number of units", (1, 993, 1_050, 1_100, 100, 4), (993, 62)),
            ("across the wrap", (u32::MAX, u32::MAX, 100, 100, 10, 0), (99, 100)),
            ("edge behind what was accepted", (500, 400, 0, 1_000, 100, 0), (500, 0)),
        ];
        for (name, (nxt, edge, free, limit, mss, scale), (new_edge, field)) in cases {
            let offered = advertise(at(nxt), at(edge), free, limit, mss, scale);
            assert_eq!(offered, Offered { edge: at(new_edge), field }, "{name}");
        }
    }

    #[test]
    fn rounding_up_keeps_the_peers_view_from_shrinking_while_there_is_room() {
        let offered = advertise(at(1), at(1_001), 1_090, 2_000, 100, 4);
        assert_eq!(offered, Offered { edge: at(1 + 63 * 16), field: 63 });
    }

    proptest! {
        #[test]
        fn an_empty_buffer_is_offered_the_same_the_short_way(
            start: u32,
            limit in 2_u32..=MAX_PLAIN_BYTES,
            gain in prop_oneof![0..3_000_u32, any::<u32>()],
            mss in 1_u32..2_000,
        ) {
            let scale = scale_for(limit);
            let mss = mss.min(limit / LEAST_PLAIN_SEGMENTS);
            let (nxt, edge) = (at(start), at(start) + limit.saturating_sub(gain));
            let general = advertise(nxt, edge, limit, limit, mss, scale);
            if let Some(offered) = advertise_empty(nxt, edge, limit, mss, scale) {
                prop_assert_eq!(offered, general);
            } else {
                prop_assert!(gain >= mss || general.edge == edge);
            }
        }
    }

    #[test]
    fn an_update_is_due_when_the_window_at_least_doubles_by_something_worthwhile() {
        for (window, free, limit, mss, due) in [
            (0, 8_000, 8_000, 1_000, true),
            (0, 1_000, 8_000, 1_000, true),
            (0, 999, 8_000, 1_000, false),
            (0, 0, 0, 1_000, false),
            (0, 50, 100, 1_000, true),
            (4_000, 8_000, 8_000, 1_000, true),
            (4_001, 8_000, 8_000, 1_000, false),
            (500, 1_400, 8_000, 1_000, false),
            (9_000, 8_000, 8_000, 1_000, false),
        ] {
            assert_eq!(update_is_due(window, free, limit, mss), due, "{window} of {free}");
        }
    }

    #[test]
    fn half_of_the_largest_window_is_worth_sending() {
        for (len, max_window, large) in [
            (50, 100, true),
            (49, 100, false),
            (50, 101, false),
            (51, 101, true),
            (1, 1, true),
            (0, 1, false),
        ] {
            assert_eq!(is_large_part(len, max_window), large, "{len} of {max_window}");
        }
    }

    proptest! {
        /// A receiver that takes what the peer sends and reads now and then.
        #[test]
        fn the_edge_never_moves_left_and_the_buffer_never_overflows(
            start: u32,
            limit in 1_u32..200_000,
            mss in 1_u32..2_000,
            steps in prop::collection::vec((0_u32..3_000, 0_u32..5_000), 1..200),
        ) {
            let scale = scale_for(limit);
            let (mut nxt, mut edge, mut queued) = (at(start), at(start), 0);
            for (received, read) in steps {
                let received = received.min(edge.distance_from(nxt));
                nxt += received;
                queued += received;
                prop_assert!(queued <= limit);
                queued -= read.min(queued);
                let offered = advertise(nxt, edge, limit - queued, limit, mss, scale);
                prop_assert!(offered.edge.at_or_after(edge));
                let told = nxt + (u32::from(offered.field) << scale);
                prop_assert!(told.at_or_before(offered.edge));
                prop_assert!(offered.edge.distance_from(told) < 1 << scale);
                edge = offered.edge;
            }
            // Once all is read, the whole buffer but a unit is open or about to be.
            let offered = advertise(nxt, edge, limit, limit, mss, scale);
            let window = offered.edge.distance_from(nxt);
            prop_assert!(window + mss.min(limit / 2).max(1 << scale) >= limit);
        }
    }
}
