//! Loss recovery: what an acknowledgment says about losses, and what is done about it.
//!
//! With selective acknowledgments, losses are found by RACK (RFC 8985) on the scoreboard (RFC 6675) and repaired
//! under proportional rate reduction (RFC 9937); a timeout is checked for being spurious (RFC 5682). A peer without
//! them is left to duplicate acknowledgments ([`super::duplicates`]). While nothing is amiss, all of it costs an
//! acknowledgment one comparison.

use arrayvec::ArrayVec;
use libos::Instant;

use super::congestion::{CongestionControl, LossEvent, LossKind};
use super::connection::{Connection, Context};
use super::duplicates::{Action, Duplicates};
use super::options::MAX_SACK_BLOCKS;
use super::prr::{RateReduction, Step};
use super::rack::{Rack, Waiting};
use super::scoreboard::{Reported, Scoreboard};
use super::segment::Segment;
use super::selective::Block;
use super::sequence::SequenceNumber;
use super::tail_probe::TailProbe;
use super::transmissions::{Delivered, Transmission, Transmissions};

/// Least time after which a peer that dropped what it had reported is sent it again.
const RENEGING_DELAY_NS: u64 = 10_000_000;

/// What the retransmission deadline stands for: one timer serves all (RFC 8985, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The retransmission timeout, or the persist timer.
    Retransmission,
    /// The tail loss probe.
    TailProbe,
    /// The end of the reordering window.
    Reordering,
}

/// Where a connection stands with its losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// None is known.
    Open,
    /// Losses found by acknowledgments are repaired.
    Recovery,
    /// A timeout gave up all that was in flight.
    Timeout,
}

/// The check whether a timeout was spurious (RFC 5682, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeoutCheck {
    /// There is none, or it is settled.
    Settled,
    /// Step 2: the oldest segment was sent again.
    Retransmitted,
    /// Step 3: it was acknowledged, and new data is sent instead of old.
    Probing,
}

/// One connection's loss recovery.
#[derive(Debug)]
pub(super) struct Recovery {
    /// For a peer without selective acknowledgments.
    duplicates: Duplicates,
    phase: Phase,
    pub alarm: Alarm,
    /// True while there is nothing to look after: then acknowledgments and sending pass by all this.
    quiet: bool,
    /// RecoveryPoint: when so much is acknowledged, the present phase is over.
    recover: SequenceNumber,
    pub probe: Option<TailProbe>,
    /// No round trip was measured since a probe left.
    pub unmeasured: bool,
    /// Made when first needed.
    repair: Option<Box<Repair>>,
}

/// What only a connection needs that has seen a gap.
#[derive(Debug)]
pub(super) struct Repair {
    pub scoreboard: Scoreboard,
    rack: Rack,
    reduction: Option<RateReduction>,
    check: TimeoutCheck,
    /// The blocks of the segment being worked on.
    blocks: ArrayVec<Block, MAX_SACK_BLOCKS>,
    /// Retransmissions of the last recovery that the peer has not reported as needless; `None` when that can no
    /// longer undo anything.
    needed: Option<u32>,
}

impl Recovery {
    pub(super) const fn new(iss: SequenceNumber) -> Self {
        Self {
            duplicates: Duplicates::new(iss),
            phase: Phase::Open,
            alarm: Alarm::Retransmission,
            quiet: true,
            recover: iss,
            probe: None,
            unmeasured: false,
            repair: None,
        }
    }

    /// True while a loss is being repaired and the congestion control has been told.
    pub(super) fn is_active(&self) -> bool {
        self.phase == Phase::Recovery || self.duplicates.is_active()
    }

    /// True from a timeout on until all that it gave up is acknowledged.
    pub(super) fn has_timed_out(&self) -> bool {
        self.phase == Phase::Timeout
    }

    #[inline]
    pub(super) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// True when segments were seen to overtake each other.
    pub(super) fn has_seen_reordering(&self) -> bool {
        self.repair.as_ref().is_some_and(|repair| repair.rack.has_seen_reordering())
    }

    /// True while new data is sent in the place of what a timeout gave up (RFC 5682, section 3.1, step 2b).
    pub(super) fn holds_retransmissions(&self) -> bool {
        self.repair.as_ref().is_some_and(|repair| repair.check == TimeoutCheck::Probing)
    }

    /// Something of `bytes` was sent, first or again.
    #[cold]
    pub(super) fn on_sent(&mut self, bytes: u32) {
        if self.phase == Phase::Recovery
            && let Some(reduction) = self.repair.as_mut().and_then(|repair| repair.reduction.as_mut())
        {
            reduction.on_sent(bytes);
        }
    }

    /// Lets go of what only an ongoing transfer needs.
    pub(super) fn release(&mut self) {
        self.repair = None;
        self.probe = None;
        self.unmeasured = false;
        self.phase = Phase::Open;
        self.quiet = true;
    }
}

impl Repair {
    fn new(una: SequenceNumber) -> Self {
        Self {
            scoreboard: Scoreboard::new(una),
            rack: Rack::new(),
            reduction: None,
            check: TimeoutCheck::Settled,
            blocks: ArrayVec::new(),
            needed: None,
        }
    }

    /// `start..end` was sent again, and so its record was renewed.
    pub(super) fn on_resent(&mut self, start: SequenceNumber, end: SequenceNumber, sent: &Transmissions) {
        self.scoreboard.on_resent(start, end, sent);
        self.needed = self.needed.map(|needed| needed.saturating_add(1));
        if let Some(reduction) = &mut self.reduction {
            reduction.on_sent(end.distance_from(start));
        }
    }

    /// The congestion window of a connection that sends again: in recovery the rate reduction sets it.
    pub(super) fn window_bytes(&self, connection: &Connection) -> u32 {
        match (connection.recovery.phase, &self.reduction) {
            (Phase::Recovery, Some(reduction)) => reduction.cwnd_bytes(),
            (Phase::Recovery, None) | (Phase::Open | Phase::Timeout, _) => connection.congestion.cwnd_bytes(),
        }
    }
}

impl Connection {
    /// A segment with SACK blocks came; what they say counts once its acknowledgment does.
    pub(super) fn note_sack_blocks(&mut self, segment: &Segment, bytes: &[u8]) {
        if self.sack_permitted && segment.options.sack.is_some() {
            let mut repair = self.take_repair();
            repair.blocks = segment.sack_blocks(bytes).take(MAX_SACK_BLOCKS).collect();
            self.recovery.repair = Some(repair);
        }
    }

    pub(super) fn take_repair(&mut self) -> Box<Repair> {
        self.recovery.repair.take().unwrap_or_else(|| Box::new(Repair::new(self.snd.una)))
    }

    pub(super) fn put_repair(&mut self, repair: Box<Repair>) {
        self.recovery.repair = Some(repair);
    }

    /// Bytes that may lie between SND.UNA and what is sent next, for all the congestion control says.
    #[inline]
    pub(super) fn flight_limit_bytes(&self) -> u32 {
        if self.recovery.quiet { self.congestion.cwnd_bytes() } else { self.flight_limit_in_recovery() }
    }

    #[cold]
    fn flight_limit_in_recovery(&self) -> u32 {
        let repair = self.recovery.repair.as_ref();
        repair
            .map_or(self.congestion.cwnd_bytes(), |repair| repair.window_bytes(self))
            .saturating_add(self.recovery.duplicates.inflation_bytes())
            .saturating_add(self.sent.left_bytes())
    }

    /// Bytes in the network, as far as is known: `pipe` of RFC 6675.
    pub(super) fn pipe_bytes(&self) -> u32 {
        self.snd.in_flight().saturating_sub(self.sent.left_bytes())
    }

    /// An acknowledgment that says, or may say, something about losses. `acked_bytes` is by how much SND.UNA advanced.
    #[inline(never)]
    pub(super) fn on_telling_acknowledgment(
        &mut self,
        mut delivered: Delivered,
        acked_bytes: u32,
        segment: &Segment,
        cx: &mut Context<'_>,
    ) {
        if !self.sack_permitted {
            self.on_unselective_progress(acked_bytes, cx);
            self.note_delivery(&delivered, cx);
            return;
        }
        let mut repair = self.take_repair();
        let advanced = acked_bytes > 0;
        let reneged = repair.scoreboard.on_acknowledged(self.snd.una, &self.sent);
        let reported = self.read_blocks(&mut repair, segment, &mut delivered, cx);
        if let Some(newest) = self.trusted_newest(&delivered, segment, cx) {
            repair.rack.on_arrival(&newest, cx.now);
        }
        if delivered.reordered {
            repair.rack.on_reordering();
        }
        repair.rack.on_progress(self.snd.una, self.snd.max);
        self.check_duplicate_report(&mut repair, &reported, cx);
        self.check_probe(&reported, advanced, segment, cx);
        self.check_timeout(&mut repair, &delivered, advanced, cx);
        if self.recovery.phase != Phase::Open && self.snd.una.at_or_after(self.recovery.recover) {
            self.leave_recovery(&mut repair, cx);
        }
        let lost_before = self.sent.lost_bytes();
        let wait_ns = self.detect_losses(&mut repair, cx);
        self.react_to_losses(&mut repair, delivered.bytes, cx);
        if let Some(reduction) = repair.reduction.as_mut().filter(|_| self.recovery.phase == Phase::Recovery)
        {
            reduction.on_acknowledgment(Step {
                delivered_bytes: delivered.bytes,
                pipe_bytes: self.snd.in_flight().saturating_sub(self.sent.left_bytes()),
                is_safe: advanced && self.sent.lost_bytes() <= lost_before,
                mss_bytes: u32::from(self.snd.mss),
            });
        }
        self.put_repair(repair);
        self.settle_recovery();
        self.set_alarm(wait_ns, reneged, advanced || reported.news, cx);
        self.note_delivery(&delivered, cx);
    }

    fn read_blocks(
        &mut self,
        repair: &mut Repair,
        segment: &Segment,
        delivered: &mut Delivered,
        cx: &Context<'_>,
    ) -> Reported {
        if segment.options.sack.is_none() {
            return Reported::default();
        }
        let mut by_sack = Delivered::default();
        let blocks = std::mem::take(&mut repair.blocks);
        let (una, max) = (self.snd.una, self.snd.max);
        let reported = repair.scoreboard.take(&blocks, una, max, &mut self.sent, &mut by_sack);
        self.sent.count_sacked(&by_sack, cx.now);
        delivered.merge(&by_sack);
        reported
    }

    /// Of what arrived, what left last, unless an acknowledgment of something sent twice may be of the first copy
    /// (RFC 8985, section 6.2, step 2).
    fn trusted_newest(
        &self,
        delivered: &Delivered,
        segment: &Segment,
        cx: &Context<'_>,
    ) -> Option<Transmission> {
        let newest = delivered.newest?;
        if newest.retransmitted {
            let rtt_ns = cx.now.nanos_since(newest.sent_at);
            let least_ns = self.rtt.min_rtt_ns().unwrap_or(0).max(cx.settings.clock_granularity_ns);
            // Ahead of a gap the echo is of something else (RFC 7323, section 4.3).
            let in_sequence = newest.end.at_or_before(self.snd.una);
            let echoes_first = match (self.timestamps, segment.options.timestamp) {
                (Some(ours), Some(theirs)) => {
                    let echoed = theirs.echo.wrapping_sub(ours.value(newest.sent_at));
                    in_sequence && echoed.cast_signed() < 0
                }
                (Some(_) | None, Some(_) | None) => false,
            };
            if rtt_ns < least_ns || echoes_first {
                return delivered.newest_once();
            }
        }
        Some(newest)
    }

    /// The peer reports what came twice (RFC 2883).
    fn check_duplicate_report(&mut self, repair: &mut Repair, reported: &Reported, cx: &mut Context<'_>) {
        let Some((start, end)) = reported.duplicate else { return };
        cx.counters.dsacks_received += 1;
        if self.recovery.probe.is_some_and(|probe| probe.end == end) {
            return;
        }
        // After a timeout everything goes again that was reported and forgotten (RFC 2018, section 8): that some of it comes
        // twice says nothing of patience.
        let Some(needed) = repair.needed else { return };
        repair.rack.on_needless_retransmission(self.snd.max);
        let segments = end.distance_from(start).div_ceil(u32::from(self.snd.mss).max(1));
        repair.needed = Some(needed.saturating_sub(segments));
        if needed > 0 && segments >= needed {
            // Not one retransmission of the whole recovery was needed (RFC 3708).
            repair.needed = None;
            cx.counters.recoveries_undone += 1;
            self.congestion.on_spurious(cx.now);
            if self.recovery.phase == Phase::Recovery {
                repair.scoreboard.take_back_losses(self.snd.una, &mut self.sent);
                self.recovery.phase = Phase::Open;
            }
        }
    }

    /// F-RTO with selective acknowledgments (RFC 5682, section 3.1).
    fn check_timeout(
        &mut self,
        repair: &mut Repair,
        delivered: &Delivered,
        advanced: bool,
        cx: &mut Context<'_>,
    ) {
        match repair.check {
            TimeoutCheck::Settled => {}
            TimeoutCheck::Retransmitted if advanced => {
                // Step 2: new data tells more than old, if there is any that may go.
                let has_new = self.snd.unsent() > 0 && self.snd.in_flight() < self.snd.wnd;
                let is_over = self.snd.una.at_or_after(self.recovery.recover);
                repair.check =
                    if has_new && !is_over { TimeoutCheck::Probing } else { TimeoutCheck::Settled };
            }
            TimeoutCheck::Retransmitted => {}
            TimeoutCheck::Probing if delivered.was_not_lost => {
                // Step 3b: what was not sent again arrived, so that the timeout was early.
                repair.check = TimeoutCheck::Settled;
                repair.scoreboard.take_back_losses(self.snd.una, &mut self.sent);
                self.recovery.phase = Phase::Open;
                self.rtt.reset_backoff();
                cx.counters.spurious_timeouts += 1;
                self.congestion.on_spurious(cx.now);
            }
            // Step 3a: what left after the timeout arrived before what it gave up, or did not arrive either.
            TimeoutCheck::Probing => repair.check = TimeoutCheck::Settled,
        }
    }

    fn leave_recovery(&mut self, repair: &mut Repair, cx: &Context<'_>) {
        repair.rack.on_recovered();
        match self.recovery.phase {
            Phase::Open => {}
            Phase::Recovery => {
                repair.reduction = None;
                self.congestion.on_recovery_exit(self.pipe_bytes(), cx.now);
            }
            Phase::Timeout => self.congestion.on_timeout_repaired(cx.now),
        }
        repair.check = TimeoutCheck::Settled;
        self.recovery.phase = Phase::Open;
    }

    /// Gives up what RACK finds lost. Returns after how many nanoseconds to look again.
    fn detect_losses(&mut self, repair: &mut Repair, cx: &Context<'_>) -> Option<u64> {
        repair.rack.age_min_rtt(&mut self.rtt, cx.now);
        let waiting = Waiting {
            recovering: self.recovery.phase != Phase::Open,
            sacked_segments: self.sent.sacked_segments(),
            granularity_ns: cx.settings.clock_granularity_ns,
        };
        let window_ns = repair.rack.window_ns(waiting, &self.rtt);
        let rack = &repair.rack;
        repair.scoreboard.detect(&mut self.sent, |record| rack.judge(record, window_ns, cx.now))
    }

    /// Begins recovery if a loss was found that is not yet being repaired. `delivered_bytes` is what the
    /// acknowledgment told of.
    fn react_to_losses(&mut self, repair: &mut Repair, delivered_bytes: u32, cx: &mut Context<'_>) {
        if self.recovery.phase != Phase::Open || self.sent.lost_bytes() == 0 {
            return;
        }
        if self.lost_probe_alone() {
            // It goes again, smaller, without a recovery.
            return;
        }
        cx.counters.fast_retransmits += 1;
        let outstanding = self.snd.max.distance_from(self.snd.una);
        self.ecn.on_reduction(self.snd.max);
        self.congestion.on_loss(&LossEvent {
            now: cx.now,
            bytes_in_flight: outstanding,
            kind: LossKind::FastRetransmit,
        });
        // RFC 9937, section 6.1: RecoverFS is without what had been selectively acknowledged before.
        let flight = outstanding.saturating_sub(self.sent.sacked_bytes()).saturating_add(delivered_bytes);
        let target = self.congestion.cwnd_bytes().min(self.congestion.ssthresh_bytes());
        repair.reduction = (!self.congestion.owns_recovery()).then(|| RateReduction::new(flight, target));
        repair.needed = Some(0);
        self.recovery.phase = Phase::Recovery;
        self.recovery.recover = self.snd.max;
        self.recovery.probe = None;
    }

    /// Whether acknowledgments pass by from now on.
    pub(super) fn settle_recovery(&mut self) {
        self.recovery.quiet = self.recovery.phase == Phase::Open
            && self.recovery.probe.is_none()
            && !self.recovery.unmeasured
            && self.sent.left_bytes() == 0;
    }

    /// Sets the deadline after an acknowledgment with news: the end of the reordering window, or what
    /// [`Self::arm_retransmission`] finds (RFC 8985, section 8).
    fn set_alarm(&mut self, wait_ns: Option<u64>, reneged: bool, news: bool, cx: &Context<'_>) {
        let now = cx.now;
        if self.snd.una == self.snd.max {
            self.deadlines.retransmit = Instant::FAR_FUTURE;
        } else if let Some(wait_ns) = wait_ns {
            self.recovery.alarm = Alarm::Reordering;
            self.deadlines.retransmit = now.plus_nanos(wait_ns);
        } else if reneged {
            // The peer dropped what it had. Waiting long for it makes nothing better, but it may yet say more.
            let soon_ns = (self.rtt.srtt_ns().unwrap_or(0) / 2).max(RENEGING_DELAY_NS);
            self.recovery.alarm = Alarm::Retransmission;
            self.deadlines.retransmit = self.deadlines.retransmit.min(now.plus_nanos(soon_ns));
        } else if news || self.recovery.alarm == Alarm::Reordering {
            // RFC 6298, section 5.3, and what is selectively acknowledged is progress too (RFC 6675, section 6).
            self.restart_retransmission(cx);
        }
    }

    /// The reordering window is over: what was waited for is lost.
    pub(super) fn on_reordering_timeout(&mut self, cx: &mut Context<'_>) {
        let mut repair = self.take_repair();
        let wait_ns = self.detect_losses(&mut repair, cx);
        self.react_to_losses(&mut repair, 0, cx);
        if let Some(reduction) = repair.reduction.as_mut().filter(|_| self.recovery.phase == Phase::Recovery)
        {
            reduction.on_acknowledgment(Step {
                delivered_bytes: 0,
                pipe_bytes: self.snd.in_flight().saturating_sub(self.sent.left_bytes()),
                is_safe: false,
                mss_bytes: u32::from(self.snd.mss),
            });
        }
        self.put_repair(repair);
        self.settle_recovery();
        self.set_alarm(wait_ns, false, true, cx);
    }

    /// The retransmission timer went off for what is in flight: all of it is given up (RFC 6298, section 5.4).
    pub(super) fn on_loss_timeout(&mut self) {
        if !self.sack_permitted {
            self.recovery.duplicates.on_timeout(self.snd.max);
            self.recovery.quiet = true;
            // Sending starts again at the oldest, one segment first.
            self.snd.nxt = self.snd.una;
            return;
        }
        let is_first = self.recovery.phase == Phase::Open;
        self.give_up_flight();
        if let Some(repair) = &mut self.recovery.repair {
            repair.check = if is_first { TimeoutCheck::Retransmitted } else { TimeoutCheck::Settled };
        }
    }

    /// Segments are to be no larger than they are from now on: what is in flight in larger ones goes again, which is no
    /// sign of congestion (RFC 1191, section 6.5).
    pub(super) fn resend_what_is_too_large(&mut self) {
        if !self.sack_permitted {
            self.snd.nxt = self.snd.una;
            return;
        }
        let mut repair = self.take_repair();
        if repair.scoreboard.give_up_larger(self.snd.mss, &mut self.sent) {
            repair.check = TimeoutCheck::Settled;
            repair.reduction = None;
            repair.needed = None;
            self.recovery.phase = Phase::Timeout;
            self.recovery.recover = self.snd.max;
            self.recovery.probe = None;
        }
        self.put_repair(repair);
        self.settle_recovery();
    }

    /// Everything in flight is to be sent again, for a reason the congestion control need not hear of here.
    fn give_up_flight(&mut self) {
        if !self.sack_permitted {
            self.snd.nxt = self.snd.una;
            return;
        }
        let mut repair = self.take_repair();
        repair.scoreboard.give_up_all(self.snd.max, &mut self.sent);
        repair.check = TimeoutCheck::Settled;
        repair.reduction = None;
        repair.needed = None;
        self.put_repair(repair);
        self.recovery.phase = Phase::Timeout;
        self.recovery.recover = self.snd.max;
        self.recovery.probe = None;
        self.settle_recovery();
    }

    /// The peer opens the window it had closed. What it was sent again while it was closed, it did not take.
    #[cold]
    pub(super) fn on_window_reopened(&mut self) {
        if self.sack_permitted && self.recovery.phase == Phase::Timeout {
            self.give_up_flight();
        }
    }

    /// Progress with a peer that has no selective acknowledgments.
    fn on_unselective_progress(&mut self, acked_bytes: u32, cx: &mut Context<'_>) {
        match self.recovery.duplicates.on_progress(self.snd.una, acked_bytes, self.snd.mss) {
            Action::Continue => {}
            Action::EnterRecovery => self.enter_unselective_recovery(cx),
            Action::RetransmitNext => {
                self.sent.note_unselective_loss(self.snd.mss.into());
                self.retransmit_front(cx);
            }
            Action::ResendProbe => self.retransmit_front(cx),
            Action::ExitRecovery => self.congestion.on_recovery_exit(self.snd.in_flight(), cx.now),
        }
        self.recovery.quiet = !self.recovery.duplicates.is_repairing();
        self.restart_retransmission(cx);
    }

    /// A duplicate acknowledgment by a peer that has no selective ones.
    #[inline(never)]
    pub(super) fn on_duplicate(&mut self, cx: &mut Context<'_>) {
        self.recovery.quiet = false;
        let (una, probe_end) = (self.snd.una, self.end_of_probe_at(self.snd.una));
        match self.recovery.duplicates.on_duplicate(una, self.snd.max, self.snd.mss, probe_end) {
            Action::EnterRecovery => {
                self.enter_unselective_recovery(cx);
                self.restart_retransmission(cx);
            }
            Action::ResendProbe => {
                self.retransmit_front(cx);
                self.restart_retransmission(cx);
            }
            Action::Continue | Action::RetransmitNext | Action::ExitRecovery => {}
        }
    }

    /// The segment at SND.UNA is lost, which is a sign of congestion.
    fn enter_unselective_recovery(&mut self, cx: &mut Context<'_>) {
        cx.counters.fast_retransmits += 1;
        self.sent.note_unselective_loss(self.snd.mss.into());
        self.ecn.on_reduction(self.snd.max);
        self.congestion.on_loss(&LossEvent {
            now: cx.now,
            bytes_in_flight: self.snd.max.distance_from(self.snd.una),
            kind: LossKind::FastRetransmit,
        });
        self.retransmit_front(cx);
    }
}
