//! Sending again: what is lost, in the order of its sequence numbers, as the window of the recovery allows.

use libos::Error;

use super::connection::{Connection, Context};
use super::recovery::Repair;
use super::sender::{FRAMES_PER_TURN, MAX_QUEUED_FRAMES, Output};
use super::sequence::SequenceNumber;

/// What sending again left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resent {
    /// Nothing lost is left: new data may follow.
    All,
    /// The window, or a fault on the way, holds back what is left, and new data with it.
    HeldBack,
    /// The turn is over or the device is full; there is more.
    More,
}

impl From<Resent> for Output {
    fn from(resent: Resent) -> Self {
        match resent {
            Resent::All | Resent::HeldBack => Self::Done,
            Resent::More => Self::More,
        }
    }
}

impl Connection {
    /// Sends again what is lost (RFC 6675, section 5, step C; RFC 9937).
    #[cold]
    pub(super) fn send_lost(&mut self, cx: &mut Context<'_>) -> Resent {
        if self.recovery.holds_retransmissions() {
            return Resent::All;
        }
        let mut repair = self.take_repair();
        let outcome = self.send_lost_by(&mut repair, cx);
        self.put_repair(repair);
        outcome
    }

    fn send_lost_by(&mut self, repair: &mut Repair, cx: &mut Context<'_>) -> Resent {
        let window_bytes = repair.window_bytes(self);
        let edge = self.snd.una + self.snd.wnd;
        let mut turn = 0;
        while let Some(lost) = repair.scoreboard.next_lost(&self.sent) {
            let len = lost.len().min(u32::from(self.snd.mss));
            if self.pipe_bytes().saturating_add(len) > window_bytes {
                return Resent::HeldBack;
            }
            // A peer that took its window back gets the oldest segment only, which asks whether it is open again.
            if lost.start != self.snd.una && (lost.start + len).after(edge) {
                return Resent::HeldBack;
            }
            if turn == FRAMES_PER_TURN || cx.network.frames().len() >= MAX_QUEUED_FRAMES {
                return Resent::More;
            }
            if self.pacing.is_some() && self.regulate(len, cx) == 0 {
                return Resent::HeldBack;
            }
            turn += 1;
            match self.retransmit(lost.start, len, repair, cx) {
                Ok(()) => {}
                Err(Error::WouldBlock) => return Resent::More,
                // Without memory or a way to the peer, the retransmission timer tries again.
                Err(_) => return Resent::HeldBack,
            }
        }
        Resent::All
    }

    /// Sends up to `len` sequence numbers from `start` on again.
    pub(super) fn retransmit(
        &mut self,
        start: SequenceNumber,
        len: u32,
        repair: &mut Repair,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let end = self.snd.end();
        let text = if start.before(end) { len.min(end.distance_from(start)) } else { 0 };
        let fin = len > text;
        let sent = self.send_data(start, text, fin, cx)?;
        let until = start + sent + u32::from(fin && sent == text);
        self.sent.on_sent(start, until, self.snd.mss, cx.now);
        repair.on_resent(start, until, &self.sent);
        cx.counters.retransmitted_segments += 1;
        Ok(())
    }

    /// Sends the segment at SND.UNA again, without moving SND.NXT.
    pub(super) fn retransmit_front(&mut self, cx: &mut Context<'_>) {
        let outstanding = self.snd.max.distance_from(self.snd.front);
        let queued = u32::try_from(self.snd.queue.len_bytes()).unwrap_or(u32::MAX);
        let len = queued.min(outstanding).min(u32::from(self.snd.mss));
        let fin = self.snd.fin && len == queued && outstanding > queued;
        if len == 0 && !fin {
            return;
        }
        cx.counters.retransmitted_segments += 1;
        // Failure is a loss like any other: the timer tries again.
        if let Ok(sent) = self.send_data(self.snd.una, len, fin, cx) {
            let end = self.snd.una + sent + u32::from(fin && sent == len);
            self.sent.on_sent(self.snd.una, end, self.snd.mss, cx.now);
        }
    }
}
