//! Explicit congestion notification (RFC 3168): agreeing on it, reporting marks to the peer, and answering the
//! peer's reports. With an algorithm that counts marks, they are reported one by one (RFC 8257, section 3.2).

use super::congestion::{CongestionControl, EcnUse, LossEvent, LossKind};
use super::connection::{Connection, Context};
use super::receiver::Data;
use super::segment::{Flags, Segment};
use super::sequence::SequenceNumber;

/// The two bits of the traffic class that are ECN's (RFC 3168, section 5).
const FIELD: u8 = 0b11;
/// Congestion experienced.
const CE: u8 = 0b11;
/// ECN-capable transport, the codepoint that senders use.
const ECT_0: u8 = 0b10;
/// What a SYN asks with (RFC 3168, section 6.1.1).
const SETUP: Flags = Flags::ECE.union(Flags::CWR);

/// Whether connections use explicit congestion notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EcnMode {
    /// Never.
    Off,
    /// When the peer asks for it, or the algorithm needs it.
    #[default]
    Passive,
    /// Every connection asks for it.
    On,
}

impl EcnMode {
    /// The names that the configuration knows.
    pub const NAMES: [&'static str; 3] = ["off", "passive", "on"];

    /// The mode of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "passive" => Some(Self::Passive),
            "on" => Some(Self::On),
            _ => None,
        }
    }

    /// The mode's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Passive => "passive",
            Self::On => "on",
        }
    }
}

/// How far the two sides have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreement {
    /// Nothing is marked or reported.
    None,
    /// Our SYN asked.
    Asked,
    /// Data may be marked, and marks are reported.
    Agreed,
}

/// What a segment with data says of ECN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DataMarking {
    /// Flags beside the others'.
    pub flags: Flags,
    /// The traffic class.
    pub traffic_class: u8,
    /// Most bytes of its payload.
    pub most_bytes: u32,
}

impl DataMarking {
    /// A segment that asks for nothing.
    const fn plain(flags: Flags) -> Self {
        Self { flags, traffic_class: 0, most_bytes: u32::MAX }
    }
}

/// One connection's variables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ecn {
    agreement: Agreement,
    /// As receiver: acknowledgments carry ECE.
    echo: bool,
    /// As sender: the next new data carries CWR.
    reduced: bool,
    /// As sender: reports count again once this is acknowledged, so that each window is reduced once.
    reduced_until: SequenceNumber,
}

impl Ecn {
    pub(super) const fn new(iss: SequenceNumber) -> Self {
        Self { agreement: Agreement::None, echo: false, reduced: false, reduced_until: iss }
    }

    #[inline]
    pub(super) fn is_agreed(&self) -> bool {
        self.agreement == Agreement::Agreed
    }

    /// The flags of our SYN, first or again. One that got no answer is followed by one that does not ask: what is
    /// on the way may drop it for the asking (RFC 3168, section 6.1.1.1).
    pub(super) fn on_syn(&mut self, asks: bool, again: bool) -> Flags {
        if asks && !again {
            self.agreement = Agreement::Asked;
            SETUP
        } else {
            self.agreement = Agreement::None;
            Flags::NONE
        }
    }

    /// The flags of our SYN-ACK.
    pub(super) fn on_syn_ack(&self) -> Flags {
        if self.is_agreed() { Flags::ECE } else { Flags::NONE }
    }

    /// The peer's SYN to our listener, or one that crosses ours.
    pub(super) fn on_peer_syn(&mut self, flags: Flags, may_agree: bool) {
        self.agreement = if may_agree && flags.contains(SETUP) { Agreement::Agreed } else { Agreement::None };
    }

    /// The peer's SYN-ACK. One that repeats both of our flags comes from a host that does not know them.
    pub(super) fn on_peer_syn_ack(&mut self, flags: Flags) {
        let agrees = flags.contains(Flags::ECE) && !flags.contains(Flags::CWR);
        self.agreement =
            if agrees && self.agreement == Agreement::Asked { Agreement::Agreed } else { Agreement::None };
    }

    /// True when our SYN asked and was not answered yet.
    pub(super) fn has_asked(&self) -> bool {
        self.agreement == Agreement::Asked
    }

    /// The flags of an acknowledgment.
    #[inline]
    pub(super) fn acknowledgment_flags(&self) -> Flags {
        if self.echo { Flags::ECE } else { Flags::NONE }
    }

    /// The window was reduced, for whatever reason: the next new data says so (RFC 3168, section 6.1.2).
    pub(super) fn on_reduction(&mut self, max: SequenceNumber) {
        if self.is_agreed() {
            self.reduced = true;
            self.reduced_until = max;
        }
    }

    /// What was marked so could not be sent: its CWR goes with the next.
    #[cold]
    pub(super) fn on_unsent(&mut self, marking: DataMarking) {
        self.reduced |= marking.flags.contains(Flags::CWR);
    }
}

impl Connection {
    /// Whether this connection's SYN asks for ECN, or its listener agrees to it.
    pub(super) fn asks_for_ecn(&self, mode: EcnMode) -> bool {
        match (mode, self.congestion.ecn_use()) {
            (EcnMode::Off, _) => false,
            // RFC 8257, section 3: without marks the algorithm is none.
            (EcnMode::On, _) | (EcnMode::Passive, EcnUse::Precise) => true,
            (EcnMode::Passive, EcnUse::Ignored | EcnUse::Classic) => false,
        }
    }

    /// What a segment of data carries. Only data sent for the first time asks for marks: not what is sent again
    /// (RFC 3168, section 6.1.5), and no window probe (section 6.1.6).
    #[inline]
    pub(super) fn mark_data(&mut self, sequence: SequenceNumber, len: u32) -> DataMarking {
        if self.ecn.is_agreed() { self.mark_ecn_data(sequence, len) } else { DataMarking::plain(Flags::NONE) }
    }

    #[inline(never)]
    fn mark_ecn_data(&mut self, sequence: SequenceNumber, len: u32) -> DataMarking {
        let flags = self.ecn.acknowledgment_flags();
        let is_new = len > 0 && sequence == self.snd.max && self.snd.wnd != 0;
        if !is_new || self.congestion.ecn_use() == EcnUse::Ignored {
            return DataMarking::plain(flags);
        }
        if std::mem::take(&mut self.ecn.reduced) {
            // One segment by itself: a device that cuts larger ones may repeat the flag on each part.
            let most_bytes = u32::from(self.snd.mss);
            return DataMarking { flags: flags | Flags::CWR, traffic_class: ECT_0, most_bytes };
        }
        DataMarking { traffic_class: ECT_0, ..DataMarking::plain(flags) }
    }

    /// Acceptable data arrived: notes whether the network marked it, before it is acknowledged.
    #[inline(never)]
    pub(super) fn note_marks(&mut self, segment: &Segment, data: &Data, cx: &mut Context<'_>) {
        if data.len == 0 {
            return;
        }
        let marked = data.traffic_class & FIELD == CE;
        cx.counters.congestion_marks += u64::from(marked);
        match self.congestion.ecn_use() {
            EcnUse::Precise => {
                if marked != self.ecn.echo {
                    // RFC 8257, section 3.2: what came before the change is reported as it was, at once, ...
                    if self.rcv.unacknowledged_bytes > 0 {
                        self.send_acknowledgment(cx);
                    }
                    self.ecn.echo = marked;
                    // ... and so is the change.
                    self.rcv.ack_now = true;
                }
            }
            EcnUse::Ignored | EcnUse::Classic => {
                // RFC 3168, section 6.1.3: from a mark on until the peer says that it has slowed down.
                if segment.flags.contains(Flags::CWR) {
                    self.ecn.echo = false;
                }
                self.ecn.echo |= marked;
            }
        }
    }

    /// True when the peer reports marks.
    #[inline]
    pub(super) fn is_ecn_echo(&self, segment: &Segment) -> bool {
        segment.flags.contains(Flags::ECE) && self.ecn.is_agreed()
    }

    /// The peer reports marks, and acknowledges everything from `una_before` on: the window is reduced, once for each
    /// window of data (RFC 3168, section 6.1.2). Where nothing is left in flight, the report is about what was.
    #[inline(never)]
    pub(super) fn on_ecn_echo(&mut self, una_before: SequenceNumber, cx: &mut Context<'_>) {
        let from = if self.snd.una == self.snd.max { una_before } else { self.snd.una };
        let in_flight = self.snd.max.distance_from(from);
        if in_flight == 0 || self.recovery.is_active() || from.before(self.ecn.reduced_until) {
            return;
        }
        cx.counters.congestion_echoes += 1;
        self.ecn.on_reduction(self.snd.max);
        self.congestion.on_loss(&LossEvent {
            now: cx.now,
            bytes_in_flight: in_flight,
            kind: LossKind::CongestionMark,
        });
    }
}
