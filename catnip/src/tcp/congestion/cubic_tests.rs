//! CUBIC against a simple model in floating point, and its behaviour at losses.

use libos::Instant;
use proptest::prelude::*;

use super::super::testing::{acked, lost};
use super::*;

const MSS: u32 = 1_000;
const MS: u64 = 1_000_000;

fn at_ms(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

/// A connection with the initial window of ten segments.
fn established(mss_bytes: u32) -> Cubic {
    let mut cubic = Cubic::new();
    cubic.on_established(mss_bytes, at_ms(0));
    cubic
}

/// A connection that lost something with so many segments in flight, its whole window.
fn after_loss(segments: u32) -> Cubic {
    let mut cubic = established(MSS);
    cubic.cwnd_bytes = segments * MSS;
    cubic.on_loss(&lost(segments * MSS, at_ms(0)));
    cubic
}

/// A round trip of acknowledgments, one for each segment of the window, over `rtt_ms`.
fn round(cubic: &mut Cubic, start_ms: u64, rtt_ms: u64) {
    let window = cubic.cwnd_bytes();
    let segments = u64::from(window / cubic.mss_bytes);
    for segment in 1..=segments {
        let now = at_ms(start_ms).plus_nanos(segment * rtt_ms * MS / segments);
        let event = AckEvent { rtt_ns: Some(rtt_ms * MS), ..acked(cubic.mss_bytes, window, now) };
        cubic.on_ack(&event);
    }
}

#[test]
fn a_loss_leaves_seven_tenths_of_the_flight_but_two_segments() {
    for (in_flight, expected) in [(10 * MSS, 7 * MSS), (40 * MSS, 7 * MSS), (5 * MSS, 3_500), (MSS, 2 * MSS)]
    {
        let mut cubic = established(MSS);
        cubic.on_loss(&lost(in_flight, at_ms(0)));
        assert_eq!((cubic.cwnd_bytes(), cubic.ssthresh_bytes()), (expected, expected), "{in_flight}");
    }
}

#[test]
fn the_window_comes_back_to_where_it_was_after_k_seconds_and_goes_on_beyond() {
    // 1,000 segments fall to 700: K = cbrt(300 / 0.4) = 9.09 s.
    let mut cubic = after_loss(1_000);
    let rtt_ms = 100;
    for ms in (0..9_000).step_by(100) {
        round(&mut cubic, ms, rtt_ms);
        assert!(cubic.cwnd_bytes() <= 1_001 * MSS, "at {ms} ms: {}", cubic.cwnd_bytes());
    }
    assert!(cubic.cwnd_bytes() > 995 * MSS, "{}", cubic.cwnd_bytes());
    for ms in (9_000..14_000).step_by(100) {
        round(&mut cubic, ms, rtt_ms);
    }
    // 0.4 * (14 - 9.09)^3 = 47.
    let window = cubic.cwnd_bytes() / MSS;
    assert!((1_044..=1_052).contains(&window), "{window}");
}

#[test]
fn on_short_paths_it_grows_as_reno_does() {
    // At 1 ms the curve barely moves in a second; alpha = 9/17 of a segment a round trip does.
    let mut cubic = after_loss(100);
    for ms in 0..57 {
        round(&mut cubic, ms, 1);
    }
    // 57 rounds at 0.529: about 30 segments, back at the window before the loss.
    let window = cubic.cwnd_bytes() / MSS;
    assert!((97..=101).contains(&window), "{window}");
    for ms in 57..77 {
        round(&mut cubic, ms, 1);
    }
    // From there on a whole segment a round trip.
    let grown = cubic.cwnd_bytes() / MSS - window;
    assert!((18..=21).contains(&grown), "{grown}");
}

#[test]
fn fast_convergence_aims_lower_when_the_window_did_not_come_back() {
    let mut cubic = after_loss(100);
    assert_eq!(cubic.max_bytes, 100 * MSS);
    cubic.on_loss(&lost(70 * MSS, at_ms(10)));
    assert_eq!((cubic.max_bytes, cubic.prior_bytes, cubic.cwnd_bytes()), (59_500, 70 * MSS, 49 * MSS));
}

#[test]
fn one_acknowledgment_never_overshoots_the_curve() {
    let mut cubic = after_loss(1_000);
    cubic.on_ack(&AckEvent { rtt_ns: Some(100 * MS), ..acked(700 * MSS, 700 * MSS, at_ms(100)) });
    assert!(cubic.cwnd_bytes() <= 712 * MSS, "{}", cubic.cwnd_bytes());
}

#[test]
fn after_a_timeout_it_starts_with_one_segment_and_the_curve_at_its_plateau() {
    let mut cubic = established(MSS);
    cubic.cwnd_bytes = 100 * MSS;
    cubic.on_timeout(100 * MSS, true, at_ms(0));
    assert_eq!((cubic.cwnd_bytes(), cubic.ssthresh_bytes()), (MSS, 70 * MSS));
    cubic.on_timeout(MSS, false, at_ms(400));
    assert_eq!((cubic.cwnd_bytes(), cubic.ssthresh_bytes()), (MSS, 70 * MSS));
    // One segment an acknowledgment in slow start.
    cubic.on_ack(&acked(5 * MSS, MSS, at_ms(500)));
    assert_eq!(cubic.cwnd_bytes(), 2 * MSS);
    while cubic.cwnd_bytes() < cubic.ssthresh_bytes() {
        cubic.on_ack(&acked(MSS, cubic.cwnd_bytes(), at_ms(600)));
    }
    cubic.on_ack(&acked(MSS, 70 * MSS, at_ms(700)));
    let epoch = cubic.epoch.expect("congestion avoidance");
    assert_eq!((epoch.k_ticks, epoch.origin_bytes), (0, 70 * MSS));
}

#[test]
fn time_in_which_the_window_was_not_used_does_not_count() {
    let mut busy = after_loss(1_000);
    let mut paused = after_loss(1_000);
    for cubic in [&mut busy, &mut paused] {
        round(cubic, 0, 100);
    }
    for ms in (200..20_000).step_by(100) {
        paused.on_ack(&AckEvent { app_limited: true, ..acked(MSS, MSS, at_ms(ms)) });
    }
    for round_number in 0..20 {
        round(&mut busy, 100 + round_number * 100, 100);
        round(&mut paused, 19_900 + round_number * 100, 100);
    }
    let apart = busy.cwnd_bytes().abs_diff(paused.cwnd_bytes());
    assert!(apart <= 6 * MSS, "{} and {}", busy.cwnd_bytes(), paused.cwnd_bytes());
}

#[test]
fn a_window_that_is_not_used_or_in_recovery_does_not_grow() {
    for (app_limited, in_recovery) in [(true, false), (false, true)] {
        let mut cubic = established(MSS);
        cubic.on_ack(&AckEvent { app_limited, in_recovery, ..acked(MSS, MSS, at_ms(1)) });
        assert_eq!(cubic.cwnd_bytes(), 10 * MSS);
    }
}

#[test]
fn a_reduction_for_nothing_is_taken_back_and_one_for_a_mark_is_not() {
    let reductions: [fn(&mut Cubic); 2] = [
        |cubic| cubic.on_loss(&lost(700 * MSS, at_ms(50))),
        |cubic| cubic.on_timeout(700 * MSS, true, at_ms(50)),
    ];
    for reduce in reductions {
        let mut cubic = after_loss(1_000);
        round(&mut cubic, 0, 100);
        let before = (cubic.cwnd_bytes(), cubic.ssthresh_bytes(), cubic.max_bytes, cubic.epoch);
        reduce(&mut cubic);
        assert!(cubic.cwnd_bytes() < before.0);
        cubic.on_spurious(at_ms(100));
        assert_eq!((cubic.cwnd_bytes(), cubic.ssthresh_bytes(), cubic.max_bytes, cubic.epoch), before);
        cubic.on_loss(&LossEvent { kind: LossKind::CongestionMark, ..lost(700 * MSS, at_ms(200)) });
        let marked = cubic.cwnd_bytes();
        cubic.on_spurious(at_ms(300));
        assert_eq!(cubic.cwnd_bytes(), marked);
    }
}

#[test]
fn a_rise_of_round_trip_times_ends_the_first_slow_start() {
    let mut cubic = established(MSS);
    let mut rtt_ms = 20;
    for rounds in 0..12 {
        round(&mut cubic, rounds * 40, rtt_ms);
        rtt_ms = if rounds < 3 { 20 } else { 20 + (rounds - 2) * 4 };
        if cubic.ssthresh_bytes() != u32::MAX {
            break;
        }
    }
    assert_ne!(cubic.ssthresh_bytes(), u32::MAX);
    // Ten, doubled four times before the rise showed and by a quarter for five rounds, far below 12 doublings.
    assert!(cubic.cwnd_bytes() < 700 * MSS, "{}", cubic.cwnd_bytes());
}

#[test]
fn after_idling_the_window_is_at_most_the_initial_one() {
    let mut cubic = after_loss(1_000);
    cubic.on_idle(at_ms(5_000));
    assert_eq!((cubic.cwnd_bytes(), cubic.ssthresh_bytes()), (10 * MSS, 700 * MSS));
}

/// RFC 9438 §4.2 to §4.4 in floating point, acknowledgment by acknowledgment.
struct Model {
    cwnd: f64,
    max: f64,
    estimate: f64,
    prior: f64,
    k_s: f64,
}

impl Model {
    fn on_ack(&mut self, acked: f64, elapsed_s: f64, rtt_s: f64, mss: f64) {
        let alpha = if self.estimate >= self.prior { 1.0 } else { 9.0 / 17.0 };
        self.estimate += alpha * mss * acked / self.cwnd;
        let curve = |t_s: f64| 0.4 * (t_s - self.k_s).powi(3) * mss + self.max;
        if curve(elapsed_s) < self.estimate {
            self.cwnd = self.cwnd.max(self.estimate);
        } else {
            let target = curve(elapsed_s + rtt_s).clamp(self.cwnd, 1.5 * self.cwnd);
            self.cwnd += (target - self.cwnd) * acked / self.cwnd;
        }
    }
}

proptest! {
    #[test]
    fn the_window_follows_the_floating_point_model(
        segments in 10_u32..5_000,
        mss in 500_u32..9_000,
        rtt_ms in 5_u64..300,
        rounds in 1_u64..60,
    ) {
        let mut cubic = established(mss);
        cubic.cwnd_bytes = segments * mss;
        cubic.on_loss(&lost(segments * mss, at_ms(0)));
        let start = f64::from(cubic.cwnd_bytes());
        let max = f64::from(segments * mss);
        let mss_f = f64::from(mss);
        let k_s = ((max - start) / mss_f / 0.4).cbrt();
        let mut model = Model { cwnd: start, max, estimate: start, prior: max, k_s };
        for round in 0..rounds {
            // Ten acknowledgments a round trip, each for a tenth of the window.
            for part in 0..10 {
                let elapsed_ns = (round * 10 + part) * rtt_ms * MS / 10;
                let bytes = cubic.cwnd_bytes() / 10;
                let now = at_ms(0).plus_nanos(elapsed_ns);
                let event = AckEvent { rtt_ns: Some(rtt_ms * MS), ..acked(bytes, cubic.cwnd_bytes(), now) };
                cubic.on_ack(&event);
                model.on_ack(f64::from(bytes), elapsed_ns as f64 / 1e9, rtt_ms as f64 / 1e3, mss_f);
                let apart = (f64::from(cubic.cwnd_bytes()) - model.cwnd).abs();
                // A tick of the clock and a byte an acknowledgment.
                prop_assert!(apart <= 0.02 * model.cwnd + mss_f, "{} for {}", cubic.cwnd_bytes(), model.cwnd);
            }
        }
    }

    #[test]
    fn no_sequence_of_events_takes_the_window_out_of_its_bounds(
        mss in 1_u32..70_000,
        events in prop::collection::vec((0_u8..7, any::<u32>(), 0_u64..10_000_000_000), 1..100),
    ) {
        let mut cubic = established(mss);
        let mut now = at_ms(0);
        for (kind, bytes, nanos) in events {
            now = now.plus_nanos(nanos);
            match kind {
                0 => cubic.on_loss(&lost(bytes, now)),
                1 => cubic.on_timeout(bytes, bytes % 2 == 0, now),
                2 => cubic.on_recovery_exit(bytes, now),
                3 => cubic.on_spurious(now),
                4 => cubic.on_idle(now),
                5 => cubic.on_mss_change(bytes >> 16),
                _ => cubic.on_ack(&AckEvent { rtt_ns: Some(nanos), ..acked(bytes, bytes, now) }),
            }
            prop_assert!((1..=MAX_CWND_BYTES).contains(&cubic.cwnd_bytes()));
        }
    }
}
