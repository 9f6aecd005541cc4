//! The RFCs' arithmetic against models that are too plain to be wrong: positions that never wrap, and real numbers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use catnip::tcp::rtt::{RtoConfig, RttEstimator};
use catnip::tcp::sequence::SequenceNumber;
use catnip::tcp::window;
use proptest::prelude::*;

/// How far from each other numbers of one connection may be.
const REACH: i64 = (1 << 31) - 1;

/// The number at a position of an endless stream.
fn at(position: i64) -> SequenceNumber {
    SequenceNumber::new(position.rem_euclid(1 << 32) as u32)
}

/// RFC 6298, section 2, in seconds.
#[derive(Clone, Copy)]
struct Model {
    smoothed: Option<(f64, f64)>,
}

impl Model {
    /// The timeout after another sample.
    fn sample(&mut self, rtt: f64, granularity: f64, bounds: (f64, f64)) -> f64 {
        let (srtt, rttvar) = match self.smoothed {
            None => (rtt, rtt / 2.0),
            Some((srtt, rttvar)) => (0.875 * srtt + 0.125 * rtt, 0.75 * rttvar + 0.25 * (srtt - rtt).abs()),
        };
        self.smoothed = Some((srtt, rttvar));
        (srtt + granularity.max(4.0 * rttvar)).clamp(bounds.0, bounds.1)
    }
}

proptest! {
    #[test]
    fn numbers_compare_as_the_positions_they_stand_for(
        start in 0_i64..1 << 40,
        distance in -REACH..=REACH,
        third in -REACH..=REACH,
    ) {
        let (one, other) = (start, start + distance);
        prop_assert_eq!(at(one).before(at(other)), one < other);
        prop_assert_eq!(at(one).at_or_before(at(other)), one <= other);
        prop_assert_eq!(at(one).after(at(other)), one > other);
        prop_assert_eq!(at(one).at_or_after(at(other)), one >= other);
        prop_assert_eq!(at(one).max(at(other)), at(one.max(other)));
        prop_assert_eq!(at(one).min(at(other)), at(one.min(other)));
        prop_assert_eq!(i64::from(at(other).signed_distance_from(at(one))), distance);
        // Order among three, as long as all are within reach of each other.
        let last = start + third;
        if (other - last).abs() <= REACH && one <= other && other <= last {
            prop_assert!(at(one).at_or_before(at(last)));
        }
    }

    #[test]
    fn a_window_contains_the_positions_from_its_start_and_no_other(
        start in 0_i64..1 << 40,
        len in 0_i64..=1 << 30,
        offset in -(1_i64 << 30)..1 << 30,
    ) {
        let inside = (0..len).contains(&offset);
        prop_assert_eq!(at(start + offset).in_window(at(start), len as u32), inside);
    }

    #[test]
    fn a_scaled_window_says_as_much_of_the_buffer_as_its_field_can(limit in 0_u32..=1 << 30) {
        let scale = u32::from(window::scale_for(limit));
        prop_assert!(limit >> scale <= 65_535, "{limit} does not fit with a shift of {scale}");
        prop_assert!(scale == 0 || limit >> (scale - 1) > 65_535, "{limit} fits with less than {scale}");
    }

    #[test]
    fn what_a_receiver_offers_is_never_taken_back_and_never_more_than_it_has(
        start in 0_i64..1 << 40,
        limit in 1_u32..1 << 22,
        mss in 1_u32..9_000,
        steps in prop::collection::vec((0_u32..40_000, 0_u32..60_000), 1..100),
    ) {
        let scale = window::scale_for(limit);
        // Positions that never wrap: what has arrived, what was read, and how far the peer may send.
        let (mut arrived, mut read, mut edge) = (start, start, start);
        for (arrives, reads) in steps {
            arrived += i64::from(arrives).min(edge - arrived);
            read += i64::from(reads).min(arrived - read);
            let free = i64::from(limit) - (arrived - read);
            let offered = window::advertise(at(arrived), at(edge), free as u32, limit, mss, scale);
            let new_edge = edge + i64::from(offered.edge.signed_distance_from(at(edge)));
            prop_assert!(new_edge >= edge, "taken back");
            prop_assert!(new_edge <= edge.max(arrived + free), "more than there is room for");
            // SWS avoidance (RFC 9293, section 3.8.6.2.2): by a worthwhile step, less at most what scaling rounds off.
            let (moved, unit) = (new_edge - edge, 1 << scale);
            let step = i64::from(mss.min(limit / 2)) - unit;
            // Less than the field can say is rounding, not an offer.
            prop_assert!(moved < unit || moved >= step, "a step of {moved}");
            edge = new_edge;
        }
    }

    #[test]
    fn the_timeout_is_what_the_rfc_computes(
        samples_us in prop::collection::vec(1_u64..5_000_000, 1..60),
        granularity_us in prop::sample::select(vec![1_u64, 1_000, 4_000, 10_000]),
        min_ms in prop::sample::select(vec![1_u64, 200, 1_000]),
    ) {
        let config = RtoConfig {
            initial_ns: 1_000_000_000,
            min_ns: min_ms * 1_000_000,
            max_ns: 120_000_000_000,
        };
        let mut estimator = RttEstimator::new(&config);
        let mut model = Model { smoothed: None };
        let bounds = (min_ms as f64 * 1e-3, 120.0);
        for sample_us in samples_us {
            estimator.sample(sample_us * 1_000, granularity_us * 1_000);
            let rto = model.sample(sample_us as f64 * 1e-6, granularity_us as f64 * 1e-6, bounds);
            let rto_ns = (rto * 1e9) as u64;
            // Whole nanoseconds are cut off at each of the divisions; the errors stay below this.
            prop_assert!(estimator.rto_ns().abs_diff(rto_ns) <= 200, "{} for {rto_ns}", estimator.rto_ns());
        }
        // Backing off doubles it, up to the bound (section 5.5).
        let before = estimator.rto_ns();
        estimator.back_off();
        prop_assert_eq!(estimator.rto_ns(), (2 * before).min(config.max_ns));
        estimator.back_off();
        prop_assert_eq!(estimator.rto_ns(), (4 * before).min(config.max_ns));
    }
}
