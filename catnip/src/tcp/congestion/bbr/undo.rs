//! What a loss changed that turned out to be none is taken back (draft-ietf-ccwg-bbr §5.5.11).

use super::Bbr;
use super::phases::Phase;

/// The bounds before a loss, and the state that it ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Undo {
    /// BBR.undo_bw_shortterm, BBR.undo_inflight_shortterm and BBR.undo_inflight_longterm.
    bw_shortterm: u64,
    inflight_shortterm: u32,
    inflight_longterm: u32,
    /// BBR.undo_state.
    phase: Option<Phase>,
}

impl Undo {
    /// Too much was lost to stay in that state.
    pub(super) fn left(&mut self, phase: Phase) {
        self.phase = Some(phase);
    }
}

impl Bbr {
    /// SaveStateUponLoss (§5.5.11.1).
    pub(super) fn remember_for_undo(&mut self) {
        self.save_cwnd();
        self.undo = Undo {
            bw_shortterm: self.model.bw_shortterm(),
            inflight_shortterm: self.model.inflight_shortterm,
            inflight_longterm: self.model.inflight_longterm,
            phase: None,
        };
    }

    /// HandleSpuriousLossDetection (§5.5.11.2). Bounds that earlier losses found stay.
    pub(super) fn take_back_loss(&mut self) {
        let Undo { bw_shortterm, inflight_shortterm, inflight_longterm, phase } = self.undo;
        self.restore_cwnd();
        self.reset_full_bw(0);
        self.model.raise_bounds_to(bw_shortterm, inflight_shortterm, inflight_longterm);
        self.undo.phase = None;
        if phase == Some(Phase::Startup) && self.phase != Phase::Startup {
            self.full_bw_reached = false;
            if self.phase != Phase::ProbeRtt {
                self.enter_startup();
            }
        } else if phase == Some(Phase::ProbeBwUp)
            && self.phase != Phase::ProbeBwUp
            && self.phase != Phase::ProbeRtt
        {
            self.start_probe_bw_refill(self.model.delivered_bytes());
        }
    }
}
