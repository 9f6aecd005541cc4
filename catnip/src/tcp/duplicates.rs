//! Loss recovery by duplicate acknowledgments: fast retransmit (RFC 5681, section 3.2) and NewReno (RFC 6582).
//!
//! The congestion-control algorithm owns the window; this part says when a loss was noticed, what to send
//! again, and by how much the window is inflated for segments that have left the network.

use super::sequence::SequenceNumber;

/// Duplicate acknowledgments that mean a loss (RFC 5681, section 3.2).
const DUPLICATE_THRESHOLD: u32 = 3;

/// What the sender is to do after an acknowledgment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Go on.
    Continue,
    /// A loss was noticed: tell the congestion control, then send the segment at SND.UNA again.
    EnterRecovery,
    /// Only a probe of the path's size was lost: send the segment at SND.UNA again, and tell nobody.
    ResendProbe,
    /// The next hole of the same loss: send the segment at SND.UNA again.
    RetransmitNext,
    /// Everything that was in flight when the loss was noticed has arrived.
    ExitRecovery,
}

/// NewReno's variables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Duplicates {
    duplicates: u32,
    /// `recover` of RFC 6582: the highest sequence number sent when the last loss was noticed.
    recover: SequenceNumber,
    active: bool,
    /// What is being repaired was a probe of the path's size, which ended here: no sign of congestion unless more than
    /// that was lost.
    probe_end: Option<SequenceNumber>,
    /// Bytes added to the congestion window for segments known to have left the network.
    inflation_bytes: u32,
}

impl Duplicates {
    /// RFC 6582, section 3.2, step 1: `recover` starts at the initial sequence number.
    pub(super) const fn new(iss: SequenceNumber) -> Self {
        Self { duplicates: 0, recover: iss, active: false, probe_end: None, inflation_bytes: 0 }
    }

    /// True while a loss is repaired that the congestion control was told of.
    pub(super) const fn is_active(&self) -> bool {
        self.active && self.probe_end.is_none()
    }

    /// True while anything is repaired.
    pub(super) const fn is_repairing(&self) -> bool {
        self.active
    }

    pub(super) const fn inflation_bytes(&self) -> u32 {
        self.inflation_bytes
    }

    /// A duplicate acknowledgment of `una` came; `max` is the highest sequence number sent, `probe_end` where the segment
    /// at `una` ends if that is a probe of the path's size.
    pub(super) fn on_duplicate(
        &mut self,
        una: SequenceNumber,
        max: SequenceNumber,
        mss: u16,
        probe_end: Option<SequenceNumber>,
    ) -> Action {
        self.duplicates = self.duplicates.saturating_add(1);
        if self.active {
            // RFC 6582, section 3.2, step 3 and RFC 5681, section 3.2, step 4.
            self.inflation_bytes = self.inflation_bytes.saturating_add(u32::from(mss));
            return Action::Continue;
        }
        if self.duplicates < DUPLICATE_THRESHOLD {
            // Limited transmit (RFC 3042): each of the first two lets one new segment out.
            self.inflation_bytes = self.duplicates * u32::from(mss);
            return Action::Continue;
        }
        // RFC 6582, section 3.2, step 2: duplicates of what a timeout already sent again start nothing.
        if !self.recover.is_within(una, max) {
            self.active = true;
            self.recover = max;
            self.inflation_bytes = DUPLICATE_THRESHOLD * u32::from(mss);
            self.probe_end = probe_end;
            if probe_end.is_some() { Action::ResendProbe } else { Action::EnterRecovery }
        } else {
            self.inflation_bytes = 0;
            Action::Continue
        }
    }

    /// `acked_bytes` new bytes were acknowledged, up to `una`.
    #[inline]
    pub(super) fn on_progress(&mut self, una: SequenceNumber, acked_bytes: u32, mss: u16) -> Action {
        self.duplicates = 0;
        if !self.active {
            self.inflation_bytes = 0;
            return Action::Continue;
        }
        if una.at_or_after(self.recover) {
            self.active = false;
            self.inflation_bytes = 0;
            if self.probe_end.take().is_none() {
                return Action::ExitRecovery;
            }
            // Duplicates from here on are of no loss that was known: what was sent again was little.
            self.recover = SequenceNumber::new(una.raw().wrapping_sub(1));
            return Action::Continue;
        }
        // A partial acknowledgment: deflate by what was acknowledged, add back one segment
        // (RFC 6582, section 3.2, step 3).
        self.inflation_bytes = self.inflation_bytes.saturating_sub(acked_bytes);
        if acked_bytes >= u32::from(mss) {
            self.inflation_bytes = self.inflation_bytes.saturating_add(u32::from(mss));
        }
        match self.probe_end {
            Some(end) if una.before(end) => Action::ResendProbe,
            // The probe was not lost alone.
            Some(_) => {
                self.probe_end = None;
                Action::EnterRecovery
            }
            None => Action::RetransmitNext,
        }
    }

    /// The retransmission timer went off (RFC 6582, section 3.2, step 4).
    pub(super) fn on_timeout(&mut self, max: SequenceNumber) {
        self.duplicates = 0;
        self.active = false;
        self.probe_end = None;
        self.inflation_bytes = 0;
        self.recover = max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u16 = 1000;

    fn at(raw: u32) -> SequenceNumber {
        SequenceNumber::new(raw)
    }

    fn in_recovery() -> Duplicates {
        let mut recovery = Duplicates::new(at(0));
        for _ in 0..2 {
            assert_eq!(recovery.on_duplicate(at(1), at(10_001), MSS, None), Action::Continue);
        }
        assert_eq!(recovery.on_duplicate(at(1), at(10_001), MSS, None), Action::EnterRecovery);
        recovery
    }

    #[test]
    fn the_third_duplicate_enters_recovery_and_further_ones_inflate() {
        let mut recovery = in_recovery();
        assert_eq!(recovery.inflation_bytes(), 3000);
        assert_eq!(recovery.on_duplicate(at(1), at(10_001), MSS, None), Action::Continue);
        assert_eq!(recovery.inflation_bytes(), 4000);
    }

    #[test]
    fn the_first_two_duplicates_each_let_one_segment_out() {
        let mut recovery = Duplicates::new(at(0));
        let _ = recovery.on_duplicate(at(1), at(10_001), MSS, None);
        assert_eq!(recovery.inflation_bytes(), 1000);
        let _ = recovery.on_duplicate(at(1), at(10_001), MSS, None);
        assert_eq!(recovery.inflation_bytes(), 2000);
    }

    #[test]
    fn a_partial_acknowledgment_retransmits_and_a_full_one_exits() {
        let mut recovery = in_recovery();
        assert_eq!(recovery.on_progress(at(2001), 2000, MSS), Action::RetransmitNext);
        assert_eq!(recovery.inflation_bytes(), 2000);
        assert_eq!(recovery.on_progress(at(10_001), 8000, MSS), Action::ExitRecovery);
        assert_eq!(recovery.inflation_bytes(), 0);
        assert!(!recovery.is_active());
    }

    #[test]
    fn a_probe_of_the_path_is_repaired_in_silence_unless_more_was_lost() {
        let probe_end = Some(at(1_501));
        let noticed = || {
            let mut recovery = Duplicates::new(at(0));
            let actions = [(); 3].map(|()| recovery.on_duplicate(at(1), at(10_001), MSS, probe_end));
            assert_eq!(actions, [Action::Continue, Action::Continue, Action::ResendProbe]);
            assert!(recovery.is_repairing() && !recovery.is_active());
            // The probe was larger than a segment: the rest of it goes again too.
            assert_eq!(recovery.on_progress(at(1_001), 1_000, MSS), Action::ResendProbe);
            recovery
        };
        let mut alone = noticed();
        assert_eq!(alone.on_progress(at(10_001), 9_000, MSS), Action::Continue);
        assert!(!alone.is_repairing());
        let mut with_others = noticed();
        assert_eq!(with_others.on_progress(at(4_001), 3_000, MSS), Action::EnterRecovery);
        assert!(with_others.is_active());
        assert_eq!(with_others.on_progress(at(10_001), 6_000, MSS), Action::ExitRecovery);
    }

    #[test]
    fn what_was_recovered_gigabytes_ago_keeps_nothing_from_being_recovered() {
        for gigabytes in 0..4 {
            let mut recovery = Duplicates::new(at(0));
            let (una, max) = (at((gigabytes << 30) + 1), at((gigabytes << 30) + 10_001));
            let actions = [(); 3].map(|()| recovery.on_duplicate(una, max, MSS, None));
            assert_eq!(actions[2], Action::EnterRecovery, "{gigabytes}");
        }
    }

    #[test]
    fn duplicates_of_what_a_timeout_sent_again_do_not_enter_recovery() {
        let mut recovery = Duplicates::new(at(0));
        recovery.on_timeout(at(10_001));
        for _ in 0..5 {
            assert_eq!(recovery.on_duplicate(at(5001), at(10_001), MSS, None), Action::Continue);
        }
        assert!(!recovery.is_active());
    }
}
