//! How large a connection's buffers are: limits that grow with what the connection carries, up to a maximum.
//!
//! The receive buffer follows what the program takes in a round trip (dynamic right-sizing: Fisk and Feng, "Dynamic
//! right-sizing in TCP", 2001), so that a program that reads slowly gets no more than it started with. The send
//! buffer follows the congestion window, when the program finds it full.

use libos::Instant;

use super::congestion::CongestionControl;
use super::connection::Connection;
use super::sequence::SequenceNumber;

/// A sequence distance that is not reached by chance: the next look at a buffer that does not grow.
const SELDOM_BYTES: u32 = 1 << 30;

/// What the receive buffer's growth is decided by. Looked at a few times in a window of data, not per segment.
#[derive(Debug)]
pub(super) struct ReceiveTuning {
    /// The largest limit the buffer may grow to; at or below the present one it does not grow.
    pub max_bytes: u32,
    /// RCV.NXT of the next look.
    pub look_at: SequenceNumber,
    /// What the program had taken, and when, as measuring began.
    taken: SequenceNumber,
    since: Instant,
    /// Bytes received up to a sequence number that follows RCV.NXT within less than its range.
    received_bytes: u64,
    received_to: SequenceNumber,
}

impl ReceiveTuning {
    pub(super) const fn new(max_bytes: u32) -> Self {
        let zero = SequenceNumber::new(0);
        Self {
            max_bytes,
            look_at: zero,
            taken: zero,
            since: Instant::ZERO,
            received_bytes: 0,
            received_to: zero,
        }
    }
}

impl Connection {
    /// The connection stands.
    pub(super) fn begin_receive_tuning(&mut self, now: Instant) {
        self.rcv.tuning.received_to = self.rcv.nxt;
        self.start_receive_tuning(now);
    }

    /// Bytes received in order, in all.
    pub(super) fn received_bytes(&self) -> u64 {
        let tuning = &self.rcv.tuning;
        let fin = u32::from(self.rcv.fin);
        let newer = self.rcv.nxt.distance_from(tuning.received_to).saturating_sub(fin);
        if self.state.is_synchronised() { tuning.received_bytes + u64::from(newer) } else { 0 }
    }

    /// Begins measuring what the program takes.
    fn start_receive_tuning(&mut self, now: Instant) {
        self.rcv.tuning.received_bytes = self.received_bytes();
        self.rcv.tuning.received_to = self.rcv.nxt;
        let grows = self.rcv.tuning.max_bytes > self.rcv.limit_bytes;
        let distance = if grows { (self.rcv.limit_bytes / 4).max(1) } else { SELDOM_BYTES };
        self.rcv.tuning.look_at = self.rcv.nxt + distance;
        self.rcv.tuning.taken = self.taken();
        self.rcv.tuning.since = now;
    }

    /// The sequence number up to which the program has taken data.
    fn taken(&self) -> SequenceNumber {
        let unread = u32::try_from(self.rcv.queue.len_bytes()).unwrap_or(u32::MAX);
        SequenceNumber::new(self.rcv.nxt.raw().wrapping_sub(unread))
    }

    /// A part of a window has come since the last look. When the program takes more than half of the buffer in a
    /// round trip, the peer may be waiting for window: then the buffer grows to twice what it took.
    #[cold]
    #[inline(never)]
    pub(super) fn tune_receive_buffer(&mut self, now: Instant, memory_short: bool) {
        let limit_bytes = self.rcv.limit_bytes;
        let (Some(rtt_ns), true) = (self.rtt.srtt_ns(), self.rcv.tuning.max_bytes > limit_bytes) else {
            return self.start_receive_tuning(now);
        };
        let elapsed_ns = now.nanos_since(self.rcv.tuning.since);
        if elapsed_ns < rtt_ns {
            // Less than a round trip shows a burst, not a rate.
            self.rcv.tuning.look_at = self.rcv.nxt + (limit_bytes / 4).max(1);
            return;
        }
        let taken_bytes = u64::from(self.taken().distance_from(self.rcv.tuning.taken));
        let per_rtt = taken_bytes.saturating_mul(rtt_ns.max(1)) / elapsed_ns.max(1);
        let wanted = per_rtt.saturating_mul(2).min(u64::from(limit_bytes) * 2);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.rcv.tuning.max_bytes);
        if wanted > limit_bytes && !memory_short {
            self.limit_receive_buffer(wanted);
            if let Some(reassembly) = &mut self.rcv.reassembly {
                reassembly.set_limit(wanted as usize);
            }
        }
        self.start_receive_tuning(now);
    }

    /// Memory is short: from now on no more than `limit_bytes` are offered, so that peers stop instead of sending what
    /// is thrown away. What was offered stays offered (RFC 9293, section 3.8.6). The buffer grows again as any does, up to what it
    /// was. False when it is no larger as it is.
    pub(super) fn shrink_receive_buffer(&mut self, now: Instant, limit_bytes: u32) -> bool {
        let before = self.rcv.limit_bytes;
        if before <= limit_bytes {
            return false;
        }
        self.rcv.tuning.max_bytes = self.rcv.tuning.max_bytes.max(before);
        self.limit_receive_buffer(limit_bytes);
        self.start_receive_tuning(now);
        true
    }

    /// The program has more to send than the buffer takes: it may hold two congestion windows, what is in flight and
    /// what follows it.
    #[cold]
    #[inline(never)]
    pub(super) fn grow_send_buffer(&mut self) {
        let window = self.congestion.cwnd_bytes().min(self.snd.wnd) as usize;
        let wanted = window.saturating_mul(2).min(self.snd.limit_max_bytes);
        self.snd.limit_bytes = self.snd.limit_bytes.max(wanted);
    }
}
