//! What only an algorithm that paces, or wants delivery rates, asks of a connection: sending in bursts of the
//! right distance, and samples of what was delivered. A connection of another algorithm passes by all of it.

use libos::Instant;

use super::congestion::{Congestion, CongestionControl, RateSample, SendEvent};
use super::connection::{Connection, Context};
use super::transmissions::Delivered;

/// How much of the time that a timer came late is made up for, beside twice the clock's granularity.
const MOST_CREDIT_NS: u64 = 1_000_000;

/// No more is ever in flight (RFC 7323, section 2.3).
const MAX_WINDOW_BYTES: u32 = 1 << 30;

/// The state of a connection whose algorithm paces.
#[derive(Debug)]
pub(super) struct Pacing {
    /// When the next burst may begin.
    next_burst: Instant,
    /// Bytes left of the present one.
    burst_bytes: u32,
    /// Bytes that had been given up for lost when the last sample was made.
    sampled_lost_bytes: u32,
}

impl Pacing {
    /// What a connection of that algorithm needs.
    pub(super) fn of(congestion: &Congestion) -> Option<Box<Self>> {
        let regulated = congestion.samples_delivery() || congestion.pacing_rate().is_some();
        regulated.then(|| Box::new(Self { next_burst: Instant::ZERO, burst_bytes: 0, sampled_lost_bytes: 0 }))
    }
}

impl Connection {
    /// How many of `len` bytes may be sent now; with none, the timer says when to ask again.
    #[cold]
    pub(super) fn regulate(&mut self, len: u32, cx: &Context<'_>) -> u32 {
        self.congestion.on_sent(&SendEvent {
            now: cx.now,
            in_flight_bytes: self.pipe_bytes(),
            app_limited: self.sent.is_app_limited(),
        });
        let (Some(pacing), Some(bytes_per_s)) = (&mut self.pacing, self.congestion.pacing_rate()) else {
            return len;
        };
        if pacing.burst_bytes == 0 {
            if cx.now < pacing.next_burst {
                self.deadlines.pacing = pacing.next_burst;
                return 0;
            }
            pacing.burst_bytes = self.congestion.burst_bytes();
        }
        // The last segment of a burst is a whole one, so that bursts do not end in small segments.
        let mss = u32::from(self.snd.mss).max(1);
        let allowed = len.min(pacing.burst_bytes.next_multiple_of(mss));
        pacing.burst_bytes = pacing.burst_bytes.saturating_sub(allowed);
        let credit_ns = MOST_CREDIT_NS.saturating_add(cx.settings.clock_granularity_ns.saturating_mul(2));
        let earliest = Instant::from_nanos(cx.now.as_nanos().saturating_sub(credit_ns));
        let takes_ns = u64::from(allowed) * 1_000_000_000 / bytes_per_s.max(1);
        pacing.next_burst = pacing.next_burst.max(earliest).plus_nanos(takes_ns);
        allowed
    }

    /// A turn of output is over. When all that the program gave is sent and the window has room, samples tell
    /// what the program gave, not what the path carries (draft-ietf-ccwg-bbr, section 4.1.2.4).
    #[cold]
    pub(super) fn note_app_limit(&mut self) {
        let pipe_bytes = self.pipe_bytes();
        if self.snd.unsent() == 0 && pipe_bytes < self.congestion.cwnd_bytes() {
            self.sent.mark_app_limited(pipe_bytes);
        }
    }

    /// An acknowledgment delivered something.
    #[inline]
    pub(super) fn note_delivery(&mut self, delivered: &Delivered, cx: &Context<'_>) {
        if self.pacing.is_some() {
            self.sample_delivery(delivered, cx);
        }
    }

    /// Tells the algorithm what an acknowledgment delivered (draft-ietf-ccwg-bbr, section 4.1.2.3).
    #[cold]
    fn sample_delivery(&mut self, delivered: &Delivered, cx: &Context<'_>) {
        let in_flight_bytes = self.pipe_bytes();
        let (Some(newest), Some(pacing)) = (delivered.newest, &mut self.pacing) else { return };
        let sending_ns = newest.sent_at.nanos_since(newest.first_sent_at);
        let arriving_ns = cx.now.nanos_since(newest.delivered_at);
        let interval_ns = sending_ns.max(arriving_ns);
        // What takes less than any round trip was not measured but compressed on its way.
        let plausible = self.rtt.min_rtt_ns().is_none_or(|least_ns| interval_ns >= least_ns);
        let lost_bytes = self.sent.given_up_bytes();
        let newly_lost_bytes = lost_bytes.wrapping_sub(pacing.sampled_lost_bytes);
        pacing.sampled_lost_bytes = lost_bytes;
        // All that had been sent by then less what had been delivered. What went again, and what counts as delivered
        // twice since a timeout forgot of it, make that meaningless.
        #[allow(clippy::cast_possible_truncation, reason = "sequence numbers wrap, too")]
        let delivered_then = newest.delivered_bytes as u32;
        let sent_then = newest.end.distance_from(self.snd.iss).wrapping_sub(delivered_then);
        let sent_in_flight_bytes = if newest.retransmitted || sent_then > MAX_WINDOW_BYTES {
            in_flight_bytes.saturating_add(delivered.bytes)
        } else {
            sent_then
        };
        let sample = RateSample {
            now: cx.now,
            delivered_total_bytes: self.sent.delivered_bytes(),
            prior_delivered_bytes: newest.delivered_bytes,
            interval_ns: if plausible { interval_ns } else { 0 },
            newly_delivered_bytes: delivered.bytes,
            newly_lost_bytes,
            in_flight_bytes,
            sent_in_flight_bytes,
            lost_bytes: lost_bytes.wrapping_sub(newest.given_up_bytes),
            rtt_ns: delivered.timed_from().map(|sent_at| cx.now.nanos_since(sent_at)),
            app_limited: newest.app_limited,
        };
        self.congestion.on_delivery(&sample);
    }
}
