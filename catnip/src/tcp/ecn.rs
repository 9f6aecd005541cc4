//! Explicit congestion notification (RFC 3168): agreeing on it, reporting marks to the peer, and answering the
//! peer's reports. With an algorithm that counts marks, they are reported one by one (RFC 8257, section 3.2). Where both
//! sides know it, they count them for each other (RFC 9768): [`super::accurate_ecn`].

use super::accurate_ecn::{self, Answer, Counts};
use super::congestion::{CongestionControl, EcnUse, LossEvent, LossKind};
use super::connection::{Connection, Context};
use super::receiver::Data;
use super::segment::{Flags, Segment};
use super::sequence::SequenceNumber;

/// The two bits of the traffic class that are ECN's (RFC 3168, section 5).
pub(super) const FIELD: u8 = 0b11;
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
    /// So it does, and for each mark to be counted (RFC 9768), if the peer knows how.
    Accurate,
}

impl EcnMode {
    /// The names that the configuration knows.
    pub const NAMES: [&'static str; 4] = ["off", "passive", "on", "accurate"];

    /// The mode of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "passive" => Some(Self::Passive),
            "on" => Some(Self::On),
            "accurate" => Some(Self::Accurate),
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
            Self::Accurate => "accurate",
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
    /// Our SYN asked for marks to be counted.
    AskedAccurately,
    /// Data may be marked, and marks are reported.
    Agreed,
    /// And counted.
    Accurate,
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
    /// As sender: reports count again once more than this is acknowledged, so that each window is reduced once.
    reduced_until: SequenceNumber,
    /// What is counted where that was agreed on.
    counts: Counts,
}

impl Ecn {
    pub(super) const fn new(iss: SequenceNumber) -> Self {
        Self {
            agreement: Agreement::None,
            echo: false,
            reduced: false,
            reduced_until: iss,
            counts: Counts::new(),
        }
    }

    #[inline]
    pub(super) fn is_agreed(&self) -> bool {
        matches!(self.agreement, Agreement::Agreed | Agreement::Accurate)
    }

    fn is_accurate(&self) -> bool {
        self.agreement == Agreement::Accurate
    }

    /// The flags of our SYN, first or again. One that got no answer is followed by one that does not ask: what is
    /// on the way may drop it for the asking (RFC 3168, section 6.1.1.1; of accurate ones the second still asks: RFC 9768,
    /// section 3.1.4.1).
    pub(super) fn on_syn(&mut self, asks: bool, accurately: bool, times_before: u8) -> Flags {
        let (agreement, flags, most_times) = match (asks, accurately) {
            (true, true) => (Agreement::AskedAccurately, accurate_ecn::SETUP, 2),
            (true, false) => (Agreement::Asked, SETUP, 1),
            (false, _) => (Agreement::None, Flags::NONE, u8::MAX),
        };
        let asks_still = times_before < most_times;
        self.agreement = if asks_still { agreement } else { Agreement::None };
        if asks_still { flags } else { Flags::NONE }
    }

    /// The flags of our SYN-ACK.
    pub(super) fn on_syn_ack(&self) -> Flags {
        match self.agreement {
            Agreement::Accurate => self.counts.answer(),
            Agreement::Agreed => Flags::ECE,
            Agreement::None | Agreement::Asked | Agreement::AskedAccurately => Flags::NONE,
        }
    }

    /// The peer's SYN to our listener, or one that crosses ours, in a packet of that traffic class.
    pub(super) fn on_peer_syn(&mut self, flags: Flags, traffic_class: u8, mode: EcnMode) {
        self.counts.meet(traffic_class & FIELD);
        self.agreement = match (mode, Answer::to_syn(flags)) {
            (EcnMode::Off, _) => Agreement::None,
            (EcnMode::Accurate, Answer::Accurate) => Agreement::Accurate,
            (EcnMode::Passive | EcnMode::On | EcnMode::Accurate, _) if flags.contains(SETUP) => {
                Agreement::Agreed
            }
            (EcnMode::Passive | EcnMode::On | EcnMode::Accurate, _) => Agreement::None,
        };
    }

    /// What our own SYN asked for.
    pub(super) fn asked(&self) -> EcnMode {
        match self.agreement {
            Agreement::Asked => EcnMode::On,
            Agreement::AskedAccurately => EcnMode::Accurate,
            Agreement::None | Agreement::Agreed | Agreement::Accurate => EcnMode::Off,
        }
    }

    /// The peer's SYN-ACK. One that repeats all of our flags comes from a host that does not know them.
    pub(super) fn on_peer_syn_ack(&mut self, flags: Flags, traffic_class: u8) {
        let agrees = flags.contains(Flags::ECE) && !flags.contains(Flags::CWR);
        self.agreement = match (self.agreement, Answer::of_syn_ack(flags)) {
            (Agreement::AskedAccurately, Answer::Accurate) => {
                self.counts.meet(traffic_class & FIELD);
                self.counts.owes_answer = true;
                Agreement::Accurate
            }
            (Agreement::AskedAccurately, Answer::Classic) => Agreement::Agreed,
            (Agreement::Asked, _) if agrees => Agreement::Agreed,
            (
                Agreement::None
                | Agreement::Asked
                | Agreement::AskedAccurately
                | Agreement::Agreed
                | Agreement::Accurate,
                _,
            ) => Agreement::None,
        };
    }

    /// True when an acknowledgment without data has to tell how the SYN-ACK came (RFC 9768, section 3.2.2.1).
    pub(super) const fn owes_answer(&self) -> bool {
        self.counts.owes_answer
    }

    pub(super) const fn answered(&mut self) {
        self.counts.owes_answer = false;
    }

    /// The acknowledgment of our SYN-ACK. Without data, it has one of the bits set, or somebody on the path cleared them
    /// (RFC 9768, section 3.2.2.1).
    pub(super) fn on_handshake_over(&mut self, segment: &Segment, data_len: u32) {
        let tells = data_len == 0 && segment.options.sack.is_none() && !segment.flags.contains(Flags::SYN);
        self.counts.is_cleared = self.is_accurate() && tells && accurate_ecn::ace(segment.flags) == 0;
    }

    /// The flags of an acknowledgment.
    #[inline]
    pub(super) fn acknowledgment_flags(&self) -> Flags {
        if self.is_agreed() { self.report() } else { Flags::NONE }
    }

    #[inline(never)]
    fn report(&self) -> Flags {
        match (self.is_accurate(), self.echo) {
            (true, _) if self.counts.owes_answer => self.counts.answer(),
            (true, _) => self.counts.report(),
            (false, true) => Flags::ECE,
            (false, false) => Flags::NONE,
        }
    }

    /// True when what the peer reports, with all from `from` to `max` in flight, may have been marked before the window
    /// was reduced. What was sent after that is beyond the mark, and not at it.
    fn has_reduced_for(&self, from: SequenceNumber, max: SequenceNumber) -> bool {
        self.reduced_until.is_within(from, max)
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
            (EcnMode::On | EcnMode::Accurate, _) | (EcnMode::Passive, EcnUse::Precise) => true,
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
        let asks = is_new && self.congestion.ecn_use() != EcnUse::Ignored && !self.ecn.counts.is_cleared;
        if self.ecn.is_accurate() {
            // One segment by itself: a device that cuts larger ones does not know what the flags mean.
            let traffic_class = if asks { ECT_0 } else { 0 };
            return DataMarking { flags, traffic_class, most_bytes: u32::from(self.snd.mss) };
        }
        if !asks {
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
        let marked = data.traffic_class & FIELD == CE;
        if self.ecn.is_accurate() {
            return self.count_marks(data, marked, cx);
        }
        if data.len == 0 {
            return;
        }
        cx.counters.congestion_marks += u64::from(marked);
        match self.congestion.ecn_use() {
            EcnUse::Precise => {
                if marked != self.ecn.echo {
                    // RFC 8257, section 3.2: what came before the change is reported as it was, at once, ...
                    if self.rcv.unacknowledged_bytes() > 0 {
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

    /// Acceptable packets arrived, marked or not. Each mark is told of at once (RFC 9768, section 3.2.2.5.1).
    fn count_marks(&mut self, data: &Data, marked: bool, cx: &mut Context<'_>) {
        if !marked {
            return;
        }
        let packets = match data.segment_bytes {
            0 => 1,
            segment_bytes => data.len.div_ceil(u32::from(segment_bytes)).max(1),
        };
        cx.counters.congestion_marks += u64::from(packets);
        self.ecn.counts.count(packets);
        self.rcv.ack_now |= data.len > 0;
    }

    /// True when the peer reports marks. `advances` when the segment acknowledges something new.
    #[inline]
    pub(super) fn is_ecn_echo(&mut self, segment: &Segment, advances: bool) -> bool {
        self.ecn.is_agreed() && self.reads_ecn_echo(segment, advances)
    }

    #[inline(never)]
    fn reads_ecn_echo(&mut self, segment: &Segment, advances: bool) -> bool {
        if !self.ecn.is_accurate() {
            return segment.flags.contains(Flags::ECE);
        }
        // What acknowledges no more than the SYN may be the answer to it, late or twice.
        segment.acknowledgment.after(self.snd.iss + 1) && self.ecn.counts.take_report(segment.flags, advances)
    }

    /// The peer reports marks, and acknowledges everything from `una_before` on: the window is reduced, once for each
    /// window of data (RFC 3168, section 6.1.2). Where nothing is left in flight, the report is about what was.
    #[inline(never)]
    pub(super) fn on_ecn_echo(&mut self, una_before: SequenceNumber, cx: &mut Context<'_>) {
        let from = if self.snd.una == self.snd.max { una_before } else { self.snd.una };
        let in_flight = self.snd.max.distance_from(from);
        if in_flight == 0 || self.recovery.is_active() || self.ecn.has_reduced_for(from, self.snd.max) {
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
