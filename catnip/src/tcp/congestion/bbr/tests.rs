//! BBR on a path in miniature: a bottleneck of a given rate with a buffer, and a round-trip time.

use std::collections::VecDeque;

use libos::Instant;

use super::super::testing::{acked, lost};
use super::*;

const MSS: u32 = 1_000;
const MS: u64 = 1_000_000;

/// A segment on its way: when it was sent, what was known then, and when its acknowledgment comes.
struct Flight {
    sent_at: Instant,
    delivered_bytes: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    in_flight_bytes: u32,
    lost_bytes: u32,
    arrives_at: Instant,
    dropped: bool,
    marked: bool,
}

/// A sender without end of data on such a path.
struct Path {
    bbr: Bbr,
    now: Instant,
    bytes_per_s: u64,
    rtt_ns: u64,
    buffer_ns: u64,
    /// Every so many segments one is lost; 0 for none.
    lose_every: u64,
    /// What waited for longer in the buffer is marked, if there is such a time.
    mark_above_ns: Option<u64>,
    /// Marks are reported again from then on: once for a window of data.
    report_from: Instant,
    sent: u64,
    flights: VecDeque<Flight>,
    in_flight_bytes: u32,
    next_send_at: Instant,
    bottleneck_free_at: Instant,
    delivered_bytes: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    lost_bytes: u32,
    reported_lost_bytes: u32,
    longest_queue_ns: u64,
    least_in_flight: u32,
}

impl Path {
    fn new(bytes_per_s: u64, rtt_ms: u64, buffer_ms: u64) -> Self {
        let now = Instant::from_millis(1_000);
        let mut bbr = Bbr::new();
        bbr.on_established(MSS, now);
        Self {
            bbr,
            now,
            bytes_per_s,
            rtt_ns: rtt_ms * MS,
            buffer_ns: buffer_ms * MS,
            lose_every: 0,
            mark_above_ns: None,
            report_from: now,
            sent: 0,
            flights: VecDeque::new(),
            in_flight_bytes: 0,
            next_send_at: now,
            bottleneck_free_at: now,
            delivered_bytes: 0,
            delivered_at: now,
            first_sent_at: now,
            lost_bytes: 0,
            reported_lost_bytes: 0,
            longest_queue_ns: 0,
            least_in_flight: u32::MAX,
        }
    }

    fn send(&mut self) {
        if self.in_flight_bytes == 0 {
            (self.first_sent_at, self.delivered_at) = (self.now, self.now);
        }
        self.sent += 1;
        self.in_flight_bytes += MSS;
        let start = self.bottleneck_free_at.max(self.now);
        let queued_ns = start.nanos_since(self.now);
        let dropped =
            queued_ns > self.buffer_ns || (self.lose_every > 0 && self.sent.is_multiple_of(self.lose_every));
        if !dropped {
            self.longest_queue_ns = self.longest_queue_ns.max(queued_ns);
            self.bottleneck_free_at = start.plus_nanos(u64::from(MSS) * NS_PER_S / self.bytes_per_s);
        }
        self.flights.push_back(Flight {
            sent_at: self.now,
            delivered_bytes: self.delivered_bytes,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            in_flight_bytes: self.in_flight_bytes,
            lost_bytes: self.lost_bytes,
            arrives_at: self.bottleneck_free_at.plus_nanos(self.rtt_ns),
            dropped,
            marked: self.mark_above_ns.is_some_and(|limit_ns| queued_ns > limit_ns),
        });
        let rate = self.bbr.pacing_rate().expect("BBR paces").max(1);
        self.next_send_at = self.now.plus_nanos(u64::from(MSS) * NS_PER_S / rate);
    }

    /// The oldest segment's fate is known.
    fn settle(&mut self) {
        let Some(flight) = self.flights.pop_front() else { return };
        self.in_flight_bytes -= MSS;
        self.least_in_flight = self.least_in_flight.min(self.in_flight_bytes);
        if flight.dropped {
            self.lost_bytes += MSS;
            return;
        }
        self.delivered_bytes += u64::from(MSS);
        self.delivered_at = self.now;
        self.first_sent_at = flight.sent_at;
        let sending_ns = flight.sent_at.nanos_since(flight.first_sent_at);
        let sample = RateSample {
            now: self.now,
            delivered_total_bytes: self.delivered_bytes,
            prior_delivered_bytes: flight.delivered_bytes,
            interval_ns: sending_ns.max(self.now.nanos_since(flight.delivered_at)),
            newly_delivered_bytes: MSS,
            newly_lost_bytes: self.lost_bytes - self.reported_lost_bytes,
            in_flight_bytes: self.in_flight_bytes,
            sent_in_flight_bytes: flight.in_flight_bytes,
            lost_bytes: self.lost_bytes - flight.lost_bytes,
            rtt_ns: Some(self.now.nanos_since(flight.sent_at)),
            app_limited: false,
        };
        self.reported_lost_bytes = self.lost_bytes;
        if flight.marked && flight.sent_at >= self.report_from {
            self.report_from = self.now;
            self.bbr.on_loss(&LossEvent {
                kind: LossKind::CongestionMark,
                ..lost(self.in_flight_bytes, self.now)
            });
        }
        self.bbr.on_delivery(&sample);
    }

    /// Lets so much time pass.
    fn run(&mut self, ms: u64) {
        let end = self.now.plus_nanos(ms * MS);
        self.longest_queue_ns = 0;
        self.least_in_flight = u32::MAX;
        while self.now < end {
            let may_send = self.in_flight_bytes + MSS <= self.bbr.cwnd_bytes();
            let arrival = self.flights.front().map_or(Instant::FAR_FUTURE, |flight| flight.arrives_at);
            let sending = if may_send { self.next_send_at.max(self.now) } else { Instant::FAR_FUTURE };
            if arrival <= sending {
                self.now = arrival.max(self.now);
                self.settle();
            } else {
                self.now = sending;
                self.send();
            }
        }
    }

    /// What was delivered while so much time passed, against what the path carries, in hundredths.
    fn utilisation_percent(&mut self, ms: u64) -> u64 {
        let before = self.delivered_bytes;
        self.run(ms);
        (self.delivered_bytes - before) * 100_000 / (self.bytes_per_s * ms)
    }
}

#[test]
fn startup_finds_the_bandwidth_within_a_few_round_trips_and_drains_what_it_queued() {
    let mut path = Path::new(10_000_000, 20, 100);
    path.run(600);
    assert!(path.bbr.full_bw_reached);
    assert!(path.bbr.phase.is_probe_bw(), "{:?}", path.bbr.phase);
    let bw = path.bbr.model.max_bw();
    assert!((9_500_000..=10_500_000).contains(&bw), "{bw}");
    assert_eq!(path.bbr.model.min_rtt_ns().map(|rtt| rtt / MS), Some(20));
}

#[test]
fn a_path_is_filled_with_a_short_queue() {
    for (bytes_per_s, rtt_ms) in [(1_000_000, 10), (10_000_000, 20), (10_000_000, 100)] {
        let mut path = Path::new(bytes_per_s, rtt_ms, 1_000);
        path.run(3_000);
        let percent = path.utilisation_percent(8_000);
        assert!(percent >= 90, "{bytes_per_s} B/s, {rtt_ms} ms: {percent} %");
        // Probing is a quarter more for a round trip or two, against a buffer of a second.
        assert!(path.longest_queue_ns <= 2 * path.rtt_ns + 20 * MS, "{} ms", path.longest_queue_ns / MS);
    }
}

#[test]
fn losses_of_one_in_a_hundred_leave_three_quarters_of_the_throughput() {
    let mut path = Path::new(5_000_000, 40, 100);
    path.lose_every = 100;
    path.run(3_000);
    let percent = path.utilisation_percent(8_000);
    assert!(percent >= 75, "{percent} %");
}

#[test]
fn a_shallow_buffer_bounds_what_is_in_flight() {
    let mut path = Path::new(5_000_000, 40, 8);
    path.run(3_000);
    let (sent, lost) = (path.sent, path.lost_bytes / MSS);
    let percent = path.utilisation_percent(8_000);
    assert!(percent >= 75, "{percent} %");
    assert_ne!(path.bbr.model.inflight_longterm, u32::MAX);
    let lost = u64::from(path.lost_bytes / MSS - lost) * 100 / (path.sent - sent);
    assert!(lost <= 3, "{lost} % lost");
}

#[test]
fn marks_bound_what_is_in_flight_before_anything_is_lost() {
    let [(unmarked, _), (marked, bound)] = [None, Some(4 * MS)].map(|mark_above_ns| {
        let mut path = Path::new(5_000_000, 40, 1_000);
        path.mark_above_ns = mark_above_ns;
        path.run(3_000);
        let percent = path.utilisation_percent(8_000);
        assert!(percent >= 80, "{percent} %");
        assert_eq!(path.lost_bytes, 0);
        (path.longest_queue_ns, path.bbr.model.inflight_longterm)
    });
    assert!(marked < unmarked, "{marked} {unmarked}");
    assert_ne!(bound, u32::MAX);
}

#[test]
fn the_second_window_with_marks_ends_startup() {
    // The bandwidth would grow for rounds to come.
    let mut path = Path::new(1_000_000_000, 40, 1_000);
    for (reports, ended) in [(1, false), (2, true)] {
        path.bbr.on_loss(&LossEvent { kind: LossKind::CongestionMark, ..lost(0, path.now) });
        path.run(85);
        assert_eq!(path.bbr.full_bw_reached, ended, "{reports}");
    }
}

#[test]
fn a_mark_is_a_sign_of_congestion_and_no_loss() {
    let mut path = Path::new(10_000_000, 20, 100);
    path.run(3_000);
    while path.bbr.phase != Phase::ProbeBwCruise {
        path.run(1);
    }
    let before = path.bbr.cwnd_bytes();
    path.bbr.on_loss(&LossEvent { kind: LossKind::CongestionMark, ..lost(before, path.now) });
    assert!(!path.bbr.in_recovery);
    path.run(60);
    assert_ne!(path.bbr.model.inflight_shortterm, u32::MAX);
    assert!(path.bbr.cwnd_bytes() < before, "{} {before}", path.bbr.cwnd_bytes());
}

#[test]
fn the_round_trip_time_is_probed_with_half_of_the_flight_for_a_fifth_of_a_second() {
    let mut path = Path::new(10_000_000, 20, 100);
    path.run(4_000);
    let bdp = 200_000;
    let mut seen = false;
    for _ in 0..500 {
        path.run(10);
        if path.bbr.phase == Phase::ProbeRtt {
            seen = true;
            assert!(path.bbr.cwnd_bytes() <= bdp * 6 / 10, "{}", path.bbr.cwnd_bytes());
        }
    }
    assert!(seen);
    assert!(path.bbr.cwnd_bytes() >= bdp, "{}", path.bbr.cwnd_bytes());
}

#[test]
fn a_path_that_slows_down_is_noticed() {
    let mut path = Path::new(10_000_000, 20, 200);
    path.run(4_000);
    path.bytes_per_s = 2_000_000;
    path.run(12_000);
    let bw = path.bbr.model.bw();
    assert!((1_500_000..=2_600_000).contains(&bw), "{bw}");
}

#[test]
fn a_path_that_becomes_faster_is_filled_again() {
    let mut path = Path::new(2_000_000, 20, 200);
    path.run(4_000);
    path.bytes_per_s = 8_000_000;
    path.run(15_000);
    let bw = path.bbr.model.bw();
    assert!(bw >= 6_500_000, "{bw}");
}

#[test]
fn after_recovery_and_timeouts_the_window_comes_back() {
    let mut path = Path::new(10_000_000, 20, 100);
    path.run(3_000);
    let before = path.bbr.cwnd_bytes();
    path.bbr.on_loss(&lost(before, path.now));
    assert_eq!(path.bbr.cwnd_bytes(), before);
    path.bbr.on_recovery_exit(0, path.now);
    assert!(path.bbr.cwnd_bytes() >= before);
    path.bbr.on_timeout(before, true, path.now);
    assert_eq!(path.bbr.cwnd_bytes(), MSS);
    path.bbr.on_spurious(path.now);
    assert!(path.bbr.cwnd_bytes() >= before);
    path.bbr.on_timeout(before, true, path.now);
    path.bbr.on_timeout_repaired(path.now);
    assert!(path.bbr.cwnd_bytes() >= before);
}

#[test]
fn without_samples_it_sends_the_initial_window_in_a_millisecond_or_less() {
    let mut bbr = Bbr::new();
    bbr.on_established(MSS, Instant::from_millis(1_000));
    bbr.on_ack(&acked(MSS, 10 * MSS, Instant::from_millis(1_020)));
    assert_eq!(bbr.cwnd_bytes(), 10 * MSS);
    assert_eq!(bbr.pacing_rate(), Some(27_700_000));
}

#[test]
fn no_sample_takes_the_window_out_of_its_bounds() {
    use proptest::prelude::*;
    proptest!(|(
        mss in 1_u32..70_000,
        samples in prop::collection::vec(any::<(u32, u64, u32, u32, u64, bool)>(), 1..200),
    )| {
        let mut bbr = Bbr::new();
        let mut now = Instant::from_millis(1);
        bbr.on_established(mss, now);
        let mut total = 0_u64;
        for (newly, interval_ns, in_flight, lost, nanos, app_limited) in samples {
            now = now.plus_nanos(nanos >> 30);
            total += u64::from(newly);
            bbr.on_delivery(&RateSample {
                now,
                delivered_total_bytes: total,
                prior_delivered_bytes: total.saturating_sub(interval_ns),
                interval_ns: interval_ns >> (nanos % 64),
                newly_delivered_bytes: newly,
                newly_lost_bytes: lost >> 8,
                in_flight_bytes: in_flight,
                sent_in_flight_bytes: in_flight.rotate_left(7),
                lost_bytes: lost,
                rtt_ns: Some(nanos >> (newly % 64)),
                app_limited,
            });
            prop_assert!((1..=MAX_CWND_BYTES).contains(&bbr.cwnd_bytes()));
            prop_assert!(bbr.burst_bytes() >= mss);
        }
    });
}

#[test]
fn the_filter_of_two_spans_is_the_largest_sample_of_the_last_two_that_had_any() {
    use super::model::TwoSpanMax;
    use proptest::prelude::*;
    // A sample, or the beginning of a span.
    let event = prop::option::weighted(0.7, 1..u64::MAX);
    proptest!(|(events in prop::collection::vec(event, 1..100))| {
        let mut filter = TwoSpanMax::default();
        let mut spans: Vec<Vec<u64>> = vec![Vec::new()];
        for event in events {
            match event {
                Some(sample) => {
                    filter.update(sample);
                    spans.last_mut().unwrap().push(sample);
                }
                None => {
                    filter.advance();
                    spans.push(Vec::new());
                }
            }
            // The present span, even while it has none, and of those before the last that had.
            let (current, before) = spans.split_last().unwrap();
            let last = before.iter().rfind(|span| !span.is_empty());
            let expected = current.iter().chain(last.into_iter().flatten()).max().copied().unwrap_or(0);
            prop_assert_eq!(filter.max(), expected);
        }
    });
}

/// Lets time pass until the sender is in such a state; how many milliseconds that took.
fn until(path: &mut Path, most_ms: u64, is_meant: impl Fn(Phase) -> bool) -> u64 {
    for ms in 0..most_ms {
        if is_meant(path.bbr.phase) {
            return ms;
        }
        path.run(1);
    }
    panic!("it stays in {:?}", path.bbr.phase)
}

#[test]
fn the_round_trip_time_of_the_handshake_spreads_the_first_window() {
    let mut bbr = Bbr::new();
    bbr.on_established(MSS, Instant::from_millis(1_000));
    bbr.on_first_rtt(20 * MS);
    // Ten segments in 20 ms, times 2.77.
    assert_eq!((bbr.pacing_rate(), bbr.cwnd_bytes()), (Some(1_385_000), 10 * MSS));
    let mut path = Path::new(10_000_000, 20, 100);
    path.bbr.on_first_rtt(20 * MS);
    path.run(2_000);
    assert!(path.utilisation_percent(2_000) >= 90);
}

#[test]
fn drain_ends_after_three_rounds_though_the_queue_stays() {
    let mut path = Path::new(10_000_000, 20, 400);
    until(&mut path, 1_000, |phase| matches!(phase, Phase::Drain { .. }));
    // Others fill the path: what is in flight does not come down to what the model says.
    let mut rounds = 0;
    while matches!(path.bbr.phase, Phase::Drain { .. }) {
        let round = RateSample { in_flight_bytes: 5_000_000, ..sample(&path, path.delivered_bytes) };
        path.delivered_bytes = round.delivered_total_bytes;
        path.bbr.on_delivery(&round);
        rounds += 1;
    }
    assert_eq!((rounds, path.bbr.phase), (4, Phase::ProbeBwDown));
}

#[test]
fn after_a_probe_that_lost_too_much_the_next_one_ends_where_that_was_and_the_third_goes_on() {
    let mut path = Path::new(10_000_000, 20, 10);
    until(&mut path, 10_000, |phase| phase == Phase::ProbeBwUp);
    // It lost too much, with so much in flight.
    path.bbr.prev_probe_too_high = true;
    path.bbr.model.inflight_longterm = 180_000;
    until(&mut path, 20, |phase| phase == Phase::ProbeBwDown);
    assert!(path.bbr.prev_probe_precautionary && !path.bbr.prev_probe_too_high);
    // A round trip later nothing was lost of it: the next probe follows without a cruise.
    let waited_ms = until(&mut path, 100, |phase| phase == Phase::ProbeBwRefill);
    assert!(waited_ms <= 45, "{waited_ms}");
    until(&mut path, 100, |phase| phase == Phase::ProbeBwUp);
    assert!(!path.bbr.prev_probe_precautionary);
}

#[test]
fn the_bound_on_what_is_in_flight_grows_by_no_more_than_what_is_acknowledged() {
    let mut path = Path::new(10_000_000, 20, 100);
    path.run(3_000);
    path.bbr.bw_probe_up_rounds = 0;
    let per_segment: Vec<u64> = (0..12)
        .map(|_| {
            path.bbr.raise_longterm_slope();
            path.bbr.probe_up_bytes
        })
        .collect();
    assert_eq!(per_segment[0], u64::from(path.bbr.cwnd_bytes()));
    assert_eq!(per_segment[1], per_segment[0] / 2);
    assert_eq!(per_segment[11], u64::from(MSS), "{per_segment:?}");
}

#[test]
fn what_was_lost_for_nothing_is_taken_back_and_what_earlier_losses_found_is_not() {
    let mut path = Path::new(10_000_000, 20, 100);
    path.run(3_000);
    path.bbr.model.inflight_longterm = 300_000;
    path.bbr.on_loss(&lost(path.in_flight_bytes, path.now));
    path.bbr.model.inflight_longterm = 100_000;
    path.bbr.model.inflight_shortterm = 100_000;
    path.bbr.on_spurious(path.now);
    assert_eq!(path.bbr.model.inflight_longterm, 300_000);
    assert_eq!(path.bbr.model.inflight_shortterm, u32::MAX);
    // A second report of the same finds nothing to take back.
    path.bbr.on_spurious(path.now);
    assert_eq!(path.bbr.model.inflight_longterm, 300_000);
}

#[test]
fn startup_and_probing_that_a_loss_for_nothing_ended_go_on() {
    for (left, after) in [(Phase::Startup, Phase::Startup), (Phase::ProbeBwUp, Phase::ProbeBwRefill)] {
        let mut path = Path::new(10_000_000, 20, 100);
        path.run(3_000);
        until(&mut path, 10_000, |phase| phase == Phase::ProbeBwCruise);
        path.bbr.on_loss(&lost(path.in_flight_bytes, path.now));
        path.bbr.undo.left(left);
        path.bbr.on_spurious(path.now);
        assert_eq!((path.bbr.phase, path.bbr.full_bw_reached), (after, left != Phase::Startup));
        path.run(3_000);
        assert!(path.utilisation_percent(2_000) >= 90, "{left:?}");
    }
}

/// The sample of a segment that was sent when so much had been delivered.
fn sample(path: &Path, prior_delivered_bytes: u64) -> RateSample {
    RateSample {
        now: path.now,
        delivered_total_bytes: path.delivered_bytes + u64::from(MSS),
        prior_delivered_bytes,
        interval_ns: 20 * MS,
        newly_delivered_bytes: MSS,
        newly_lost_bytes: 0,
        in_flight_bytes: path.in_flight_bytes,
        sent_in_flight_bytes: path.in_flight_bytes,
        lost_bytes: 0,
        rtt_ns: None,
        app_limited: false,
    }
}

#[test]
fn what_is_sent_while_the_round_trip_time_is_probed_says_nothing_of_the_bandwidth() {
    let mut path = Path::new(10_000_000, 20, 100);
    path.run(4_000);
    until(&mut path, 5_000, |phase| phase == Phase::ProbeRtt);
    let (before, from) = (path.bbr.model.max_bw(), path.delivered_bytes);
    until(&mut path, 1_000, |phase| phase != Phase::ProbeRtt);
    let (sent_then, sent_before) = (sample(&path, path.delivered_bytes), sample(&path, from - 100_000));
    assert!(path.bbr.limited_by_probe_rtt(&sent_then).app_limited);
    assert!(!path.bbr.limited_by_probe_rtt(&sent_before).app_limited);
    path.run(300);
    assert!(path.bbr.model.max_bw() >= before * 98 / 100, "{} of {before}", path.bbr.model.max_bw());
    let sent_later = sample(&path, path.delivered_bytes);
    assert!(!path.bbr.limited_by_probe_rtt(&sent_later).app_limited);
}
