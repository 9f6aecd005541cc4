//! Accurate ECN (RFC 9768): each acknowledgment counts the packets that arrived marked, in three bits of the header. Its
//! options, which count bytes, are neither sent nor read (section 3.2.3 leaves that open).

use super::segment::Flags;

/// Values that the three bits have.
const MODULUS_MASK: u8 = 0b111;
/// What the counts begin with (section 3.2.1).
const INITIAL: u8 = 5;
/// An acknowledgment of nothing new that counts so many marks more than the last one was overtaken by it.
const OVERTAKEN: u8 = 5;

/// A SYN asks with all three (section 3.1.1).
pub(super) const SETUP: Flags = Flags::AE.union(Flags::CWR).union(Flags::ECE);

/// The ACE field: what AE, CWR and ECE are as a number.
pub(super) const fn ace(flags: Flags) -> u8 {
    (flags.contains(Flags::AE) as u8) << 2
        | (flags.contains(Flags::CWR) as u8) << 1
        | flags.contains(Flags::ECE) as u8
}

/// The flags that make a number.
fn flags_of(ace: u8) -> Flags {
    [(4, Flags::AE), (2, Flags::CWR), (1, Flags::ECE)]
        .into_iter()
        .filter(|(bit, _)| ace & bit != 0)
        .fold(Flags::NONE, |all, (_, flag)| all | flag)
}

/// What the answer to a SYN asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Accurate ECN.
    Accurate,
    /// RFC 3168's.
    Classic,
    /// None.
    None,
}

impl Answer {
    /// Of a SYN-ACK for a SYN that asked (section 3.1.2, table 2).
    pub(super) const fn of_syn_ack(flags: Flags) -> Self {
        match ace(flags) {
            0b010 | 0b011 | 0b100 | 0b110 => Self::Accurate,
            // The second is of hosts with the old experiment of a nonce (RFC 3540).
            0b001 | 0b101 => Self::Classic,
            // Refused, or sent back as it came.
            _ => Self::None,
        }
    }

    /// For a SYN (sections 3.1.2 and 3.1.3): what later versions may ask with is taken as this one.
    pub(super) const fn to_syn(flags: Flags) -> Self {
        match ace(flags) {
            0b000 => Self::None,
            0b011 => Self::Classic,
            _ => Self::Accurate,
        }
    }
}

/// One connection's counts, of which only the lowest three bits are ever told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// r.cep: marked packets that arrived.
    received: u8,
    /// s.cep: marked packets that the peer has told of.
    told: u8,
    /// The ECN field of the peer's SYN or SYN-ACK, which our answer tells (section 3.2.2.1, tables 2 and 3).
    met: u8,
    /// True until that answer was sent, of who opened the connection.
    pub owes_answer: bool,
    /// True when something on the path clears the bits: then nothing asks for marks (section 3.2.2.1).
    pub is_cleared: bool,
}

impl Counts {
    pub(super) const fn new() -> Self {
        Self { received: INITIAL, told: INITIAL, met: 0, owes_answer: false, is_cleared: false }
    }

    /// The peer's SYN or SYN-ACK came in a packet with this ECN field.
    pub(super) const fn meet(&mut self, field: u8) {
        self.met = field;
    }

    /// Tells how the peer's SYN or SYN-ACK came.
    pub(super) fn answer(&self) -> Flags {
        flags_of(match self.met {
            0b00 => 0b010,
            0b01 => 0b011,
            0b10 => 0b100,
            _ => 0b110,
        })
    }

    /// So many marked packets arrived.
    pub(super) const fn count(&mut self, packets: u32) {
        // The lowest bits are all that matters.
        self.received = self.received.wrapping_add((packets & 0xff) as u8) & MODULUS_MASK;
    }

    /// What every acknowledgment tells.
    pub(super) fn report(&self) -> Flags {
        flags_of(self.received)
    }

    /// True when an acknowledgment tells of marks that were not known. `advances` when it acknowledges something new.
    pub(super) const fn take_report(&mut self, flags: Flags, advances: bool) -> bool {
        let reported = ace(flags);
        let new = reported.wrapping_sub(self.told) & MODULUS_MASK;
        if self.is_cleared || new == 0 || (!advances && new >= OVERTAKEN) {
            return false;
        }
        self.told = reported;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_numbers_go_both_ways() {
        for number in 0..8 {
            assert_eq!(ace(flags_of(number) | Flags::ACK | Flags::PSH), number);
        }
    }

    #[test]
    fn counts_wrap_and_what_was_overtaken_counts_nothing() {
        let (mut receiver, mut sender) = (Counts::new(), Counts::new());
        assert_eq!(ace(receiver.report()), 5);
        assert!(!sender.take_report(receiver.report(), true));
        for packets in [1, 2, 4, 7, 3] {
            let before = receiver.report();
            receiver.count(packets);
            assert!(sender.take_report(receiver.report(), true), "{packets}");
            assert!(!sender.take_report(receiver.report(), true), "{packets}");
            if packets < 4 {
                assert!(!sender.take_report(before, false), "{packets} behind");
            }
        }
        receiver.count(8 + 1);
        assert!(sender.take_report(receiver.report(), true), "as far as three bits tell");
    }

    #[test]
    fn each_way_in_which_a_syn_may_come_has_an_answer_of_its_own() {
        let mut counts = Counts::new();
        for (field, number) in [(0b00, 0b010), (0b01, 0b011), (0b10, 0b100), (0b11, 0b110)] {
            counts.meet(field);
            assert_eq!(ace(counts.answer()), number);
            assert_eq!(Answer::of_syn_ack(counts.answer()), Answer::Accurate);
        }
        for (number, expected) in
            [(0, Answer::None), (1, Answer::Classic), (5, Answer::Classic), (7, Answer::None)]
        {
            assert_eq!(Answer::of_syn_ack(flags_of(number)), expected, "{number}");
        }
        for (number, expected) in
            [(0, Answer::None), (3, Answer::Classic), (7, Answer::Accurate), (4, Answer::Accurate)]
        {
            assert_eq!(Answer::to_syn(flags_of(number)), expected, "{number}");
        }
    }
}
