//! The connection states of RFC 9293, figure 5, and every transition between them, in one place.

use std::fmt;

/// State of a connection (RFC 9293, section 3.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// No connection.
    Closed,
    /// Waiting for a SYN. A listener is in this state; a connection never is.
    Listen,
    /// A SYN was sent.
    SynSent,
    /// A SYN was received and answered.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// Our FIN was sent.
    FinWait1,
    /// Our FIN was acknowledged.
    FinWait2,
    /// The peer's FIN was received.
    CloseWait,
    /// Both FINs were sent, neither side's acknowledgment of ours came yet.
    Closing,
    /// Our FIN was sent after the peer's.
    LastAck,
    /// Both FINs are acknowledged; old duplicates are waited for.
    TimeWait,
}

/// Something that moves a connection from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Trigger {
    /// The program connects.
    Connect,
    /// A SYN came to a listener, or to a connection in TIME-WAIT that may be reused.
    SynForListener,
    /// A SYN without an acknowledgment came (simultaneous open).
    Syn,
    /// A SYN that acknowledges ours came.
    SynAck,
    /// Our SYN is acknowledged.
    SynAcknowledged,
    /// Our FIN went out: the program closed and all data before it was sent.
    FinSent,
    /// Our FIN is acknowledged.
    FinAcknowledged,
    /// The peer's FIN is next in sequence.
    Fin,
    /// TIME-WAIT is over.
    TimeWaitOver,
    /// A reset came or was sent, the connection timed out, or it was dropped before it stood.
    Abort,
}

impl State {
    /// All states, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::Closed,
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
    ];

    /// The state after `trigger`, `None` where RFC 9293 has no such arrow.
    #[must_use]
    pub const fn after(self, trigger: Trigger) -> Option<Self> {
        match (self, trigger) {
            (Self::Closed, Trigger::Connect) => Some(Self::SynSent),
            (Self::Listen | Self::TimeWait, Trigger::SynForListener) => Some(Self::SynReceived),
            // Simultaneous open: RFC 9293, section 3.5, figure 7.
            (Self::SynSent, Trigger::Syn) => Some(Self::SynReceived),
            (Self::SynSent, Trigger::SynAck) | (Self::SynReceived, Trigger::SynAcknowledged) => {
                Some(Self::Established)
            }
            // A close in SYN-RECEIVED waits for ESTABLISHED, and a FIN there acknowledges our SYN first,
            // so neither leaves SYN-RECEIVED directly (RFC 9293, section 3.10.4 allows the queueing).
            (Self::Established, Trigger::FinSent) => Some(Self::FinWait1),
            (Self::Established, Trigger::Fin) => Some(Self::CloseWait),
            (Self::FinWait1, Trigger::FinAcknowledged) => Some(Self::FinWait2),
            (Self::FinWait1, Trigger::Fin) => Some(Self::Closing),
            (Self::FinWait2, Trigger::Fin) | (Self::Closing, Trigger::FinAcknowledged) => {
                Some(Self::TimeWait)
            }
            (Self::CloseWait, Trigger::FinSent) => Some(Self::LastAck),
            (Self::LastAck, Trigger::FinAcknowledged) | (Self::TimeWait, Trigger::TimeWaitOver) => {
                Some(Self::Closed)
            }
            (
                Self::SynSent
                | Self::SynReceived
                | Self::Established
                | Self::FinWait1
                | Self::FinWait2
                | Self::CloseWait
                | Self::Closing
                | Self::LastAck
                | Self::TimeWait,
                Trigger::Abort,
            ) => Some(Self::Closed),
            (
                Self::Closed
                | Self::Listen
                | Self::SynSent
                | Self::SynReceived
                | Self::Established
                | Self::FinWait1
                | Self::FinWait2
                | Self::CloseWait
                | Self::Closing
                | Self::LastAck
                | Self::TimeWait,
                Trigger::Connect
                | Trigger::SynForListener
                | Trigger::Syn
                | Trigger::SynAck
                | Trigger::SynAcknowledged
                | Trigger::FinSent
                | Trigger::FinAcknowledged
                | Trigger::Fin
                | Trigger::TimeWaitOver
                | Trigger::Abort,
            ) => None,
        }
    }

    /// True from ESTABLISHED on: both sides have synchronised their sequence numbers.
    #[must_use]
    pub const fn is_synchronised(self) -> bool {
        match self {
            Self::Closed | Self::Listen | Self::SynSent | Self::SynReceived => false,
            Self::Established
            | Self::FinWait1
            | Self::FinWait2
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait => true,
        }
    }

    /// True while the peer may send data: it has not sent its FIN.
    #[must_use]
    pub const fn receives_data(self) -> bool {
        match self {
            Self::Established | Self::FinWait1 | Self::FinWait2 => true,
            Self::Closed
            | Self::Listen
            | Self::SynSent
            | Self::SynReceived
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait => false,
        }
    }

    /// True while data or a FIN of ours may have to be sent or sent again.
    #[must_use]
    pub const fn sends_data(self) -> bool {
        match self {
            Self::Established | Self::CloseWait | Self::FinWait1 | Self::Closing | Self::LastAck => true,
            Self::Closed
            | Self::Listen
            | Self::SynSent
            | Self::SynReceived
            | Self::FinWait2
            | Self::TimeWait => false,
        }
    }

    /// The name in RFC 9293.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Listen => "LISTEN",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each transition was taken: what coverage is measured by.
#[derive(Debug, Clone, Default)]
pub struct Transitions {
    counts: [[u64; 11]; 11],
}

impl Transitions {
    pub(super) fn record(&mut self, from: State, to: State) {
        self.counts[from as usize][to as usize] += 1;
    }

    /// How often a connection went from `from` to `to`.
    #[must_use]
    pub fn count(&self, from: State, to: State) -> u64 {
        self.counts[from as usize][to as usize]
    }

    /// The transitions that were taken, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (State, State, u64)> + '_ {
        State::ALL
            .into_iter()
            .flat_map(move |from| State::ALL.into_iter().map(move |to| (from, to, self.count(from, to))))
            .filter(|&(_, _, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIGGERS: [Trigger; 10] = [
        Trigger::Connect,
        Trigger::SynForListener,
        Trigger::Syn,
        Trigger::SynAck,
        Trigger::SynAcknowledged,
        Trigger::FinSent,
        Trigger::FinAcknowledged,
        Trigger::Fin,
        Trigger::TimeWaitOver,
        Trigger::Abort,
    ];

    #[test]
    fn every_state_but_listen_is_reached_from_closed_or_listen() {
        let mut reached = vec![State::Closed, State::Listen];
        let mut next = 0;
        while let Some(&state) = reached.get(next) {
            next += 1;
            for trigger in TRIGGERS {
                if let Some(after) = state.after(trigger)
                    && !reached.contains(&after)
                {
                    reached.push(after);
                }
            }
        }
        assert_eq!(reached.len(), State::ALL.len());
    }

    #[test]
    fn every_connection_can_be_aborted_and_nothing_else_ends_an_established_one_at_once() {
        for state in State::ALL {
            let aborted = state.after(Trigger::Abort);
            assert_eq!(aborted.is_some(), !matches!(state, State::Closed | State::Listen), "{state}");
        }
        let ends: Vec<_> = TRIGGERS
            .into_iter()
            .filter(|&trigger| State::Established.after(trigger) == Some(State::Closed))
            .collect();
        assert_eq!(ends, [Trigger::Abort]);
    }

    #[test]
    fn transitions_are_counted_by_both_ends() {
        let mut transitions = Transitions::default();
        transitions.record(State::SynSent, State::Established);
        transitions.record(State::SynSent, State::Established);
        assert_eq!(transitions.iter().collect::<Vec<_>>(), [(State::SynSent, State::Established, 2)]);
    }
}
