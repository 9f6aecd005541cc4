//! One side of a connection: what it sends and reads, how fast, and how it ends.

use std::time::Duration;

use libos::Instant;

use crate::host::{Failure, Host, Opening, Received, Socket};
use crate::pattern::Pattern;

/// More than any link here carries in one segment.
const MAX_SEGMENT_BYTES: u64 = 10_000;

/// How a side ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Closes once everything is sent and the peer has ended its direction.
    Last,
    /// Closes once everything is sent and received, whatever the peer does.
    First,
    /// Ends its own direction once everything is sent, and closes when the peer has ended too.
    HalfClose,
    /// Resets the connection after so many bytes were sent and received.
    Abort { after_bytes: u64 },
    /// Ends its own direction `pause` after everything is sent, and resets the connection `rest` later.
    ShutdownAbort { pause: Duration, rest: Duration },
}

impl Ending {
    /// True when the peer may find the connection reset.
    pub fn resets(self) -> bool {
        match self {
            Self::Abort { .. } | Self::ShutdownAbort { .. } => true,
            Self::Last | Self::First | Self::HalfClose => false,
        }
    }
}

/// A time for which a side sends nothing, once it has sent so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    pub after_bytes: u64,
    pub time: Duration,
}

/// What one side of a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub total_bytes: u64,
    pub write_bytes: usize,
    pub read_bytes: usize,
    /// Time between two reads of a slow reader.
    pub read_pause: Duration,
    pub silence: Option<Silence>,
    /// For ping-pong: bytes of one turn; the client has the first.
    pub turn_bytes: Option<u64>,
    pub ending: Ending,
    /// Gives up when nothing has moved for so long; for peers of a side that aborts.
    pub patience: Option<Duration>,
}

impl Plan {
    /// Sends so much in one go, reads as fast as it can.
    pub fn bulk(total_bytes: u64, ending: Ending) -> Self {
        Self {
            total_bytes,
            write_bytes: 16 << 10,
            read_bytes: 64 << 10,
            read_pause: Duration::ZERO,
            silence: None,
            turn_bytes: None,
            ending,
            patience: None,
        }
    }

    /// Sends `turns` messages of `turn_bytes`, one for each of the peer's.
    pub fn ping_pong(turns: u64, turn_bytes: u64, ending: Ending) -> Self {
        Self { turn_bytes: Some(turn_bytes), ..Self::bulk(turns * turn_bytes, ending) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    /// Closed or aborted as planned.
    Done,
    GaveUp,
    Failed(Failure),
}

/// One side of one connection.
#[derive(Debug)]
pub struct Side {
    plan: Plan,
    peer: Plan,
    is_client: bool,
    connection: Socket,
    /// Outgoing and incoming pattern, known once the ports are.
    patterns: Option<(Pattern, Pattern)>,
    phase: Phase,
    sent_bytes: u64,
    received_bytes: u64,
    was_shut_down: bool,
    end_seen: bool,
    next_read: Instant,
    /// When the silence is over, once it has begun.
    silent_until: Option<Instant>,
    /// When the next step of an ending that takes its time is due.
    next_step: Option<Instant>,
    last_progress: Instant,
}

impl Side {
    pub fn new(connection: Socket, is_client: bool, plan: Plan, peer: Plan, now: Instant) -> Self {
        Self {
            plan,
            peer,
            is_client,
            connection,
            patterns: None,
            phase: Phase::Opening,
            sent_bytes: 0,
            received_bytes: 0,
            was_shut_down: false,
            end_seen: false,
            next_read: Instant::ZERO,
            silent_until: None,
            next_step: None,
            last_progress: now,
        }
    }

    pub fn is_over(&self) -> bool {
        !matches!(self.phase, Phase::Opening | Phase::Open)
    }

    /// The failure of a connection that was never open.
    pub fn failed_to_open(&self) -> Option<Failure> {
        match self.phase {
            Phase::Failed(failure) if self.patterns.is_none() => Some(failure),
            _ => None,
        }
    }

    /// True when the connection was reset before anything came.
    pub fn was_reset_untouched(&self) -> bool {
        self.phase == Phase::Failed(Failure::Reset) && self.is_untouched()
    }

    /// True when the connection was reset after no more than one segment had come.
    pub fn was_reset_early(&self) -> bool {
        self.phase == Phase::Failed(Failure::Reset)
            && !self.end_seen
            && self.received_bytes <= MAX_SEGMENT_BYTES
    }

    /// True when nothing of what the client was to send has come.
    pub fn is_untouched(&self) -> bool {
        self.received_bytes == 0 && !self.end_seen
    }

    pub fn last_progress(&self) -> Instant {
        self.last_progress
    }

    /// Gives the connection up.
    pub fn give_up(&mut self, host: &mut dyn Host) {
        host.abort(self.connection);
        self.phase = Phase::GaveUp;
    }

    /// When the side goes on by itself after `now`.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let read = (self.next_read > now && !self.end_seen).then_some(self.next_read);
        let patience = self.plan.patience.map(|patience| self.last_progress + patience);
        let own = [self.silent_until, self.next_step].map(|time| time.filter(|&time| time > now));
        own.into_iter().chain([read, patience]).flatten().min()
    }

    /// Everything that was planned was done, and everything that was sent was received.
    pub fn assert_fulfilled(&self) {
        assert_eq!(self.phase, Phase::Done, "{self:?}");
        assert_eq!(self.sent_bytes, self.plan.total_bytes, "{self:?}");
        assert_eq!(self.received_bytes, self.peer.total_bytes, "{self:?}");
        assert!(self.end_seen || self.plan.ending == Ending::First, "{self:?}");
    }

    pub fn step(&mut self, host: &mut dyn Host, now: Instant) -> bool {
        let mut progress = false;
        if self.phase == Phase::Opening {
            progress = self.open(host);
        }
        if self.phase == Phase::Open {
            match self.exchange(host, now) {
                Ok(moved) => progress |= moved,
                Err(failure) => {
                    host.close(self.connection);
                    self.phase = Phase::Failed(failure);
                    progress = true;
                }
            }
        }
        if self.phase == Phase::Open {
            progress |= self.finish(host, now);
        }
        if progress {
            self.last_progress = now;
        } else if !self.is_over()
            && let Some(patience) = self.plan.patience
            && now >= self.last_progress + patience
        {
            self.give_up(host);
            return true;
        }
        progress
    }

    fn open(&mut self, host: &mut dyn Host) -> bool {
        match host.opening(self.connection) {
            Opening::InProgress => return false,
            Opening::Failed(failure) => {
                host.close(self.connection);
                self.phase = Phase::Failed(failure);
            }
            Opening::Open { local, remote } => {
                let (client, server) = if self.is_client { (local, remote) } else { (remote, local) };
                let pattern = |from_client| Pattern::new(client.port(), server.port(), from_client);
                self.patterns = Some((pattern(self.is_client), pattern(!self.is_client)));
                self.phase = Phase::Open;
            }
        }
        true
    }

    /// Bytes that may have been sent by now, as far as turns go.
    fn allowance_bytes(&self, now: Instant) -> u64 {
        let turns = |turn_bytes: u64| self.received_bytes / turn_bytes + u64::from(self.is_client);
        let allowance = self.plan.turn_bytes.map_or(u64::MAX, |bytes| turns(bytes) * bytes);
        let until_abort = match self.plan.ending {
            Ending::Abort { after_bytes } => after_bytes.saturating_sub(self.received_bytes),
            Ending::Last | Ending::First | Ending::HalfClose | Ending::ShutdownAbort { .. } => u64::MAX,
        };
        let until_silence = match self.plan.silence {
            Some(silence) if self.silent_until.is_none_or(|over| now < over) => silence.after_bytes,
            Some(_) | None => u64::MAX,
        };
        self.plan.total_bytes.min(allowance).min(until_abort).min(until_silence)
    }

    /// Begins the silence when it is time.
    fn fall_silent(&mut self, now: Instant) {
        if let Some(silence) = self.plan.silence
            && self.silent_until.is_none()
            && self.sent_bytes >= silence.after_bytes
        {
            self.silent_until = Some(now + silence.time);
        }
    }

    fn exchange(&mut self, host: &mut dyn Host, now: Instant) -> Result<bool, Failure> {
        let Some((outgoing, incoming)) = self.patterns else { return Ok(false) };
        let mut progress = false;
        let mut chunk = vec![0; self.plan.write_bytes];
        while self.sent_bytes < self.allowance_bytes(now) {
            let left = self.allowance_bytes(now) - self.sent_bytes;
            let chunk = &mut chunk[..left.min(self.plan.write_bytes as u64) as usize];
            outgoing.fill(self.sent_bytes, chunk);
            let taken = host.send(self.connection, chunk)?;
            assert!(taken <= chunk.len(), "more was taken than was offered");
            self.sent_bytes += taken as u64;
            progress |= taken > 0;
            if taken == 0 {
                break;
            }
        }
        self.fall_silent(now);
        while !self.end_seen && now >= self.next_read {
            match host.receive(self.connection, self.plan.read_bytes)? {
                Received::Nothing => break,
                Received::End => self.end_seen = true,
                Received::Data(bytes) => {
                    let mismatch = incoming.mismatch(self.received_bytes, &bytes);
                    assert_eq!(mismatch, None, "the stream differs from what was sent: {self:?}");
                    self.received_bytes += bytes.len() as u64;
                    assert!(self.received_bytes <= self.peer.total_bytes, "more than was sent: {self:?}");
                }
            }
            progress = true;
            if self.plan.read_pause > Duration::ZERO {
                self.next_read = now + self.plan.read_pause;
            }
        }
        Ok(progress)
    }

    fn finish(&mut self, host: &mut dyn Host, now: Instant) -> bool {
        let all_sent = self.sent_bytes == self.plan.total_bytes;
        let all_received = self.received_bytes == self.peer.total_bytes;
        if self.end_seen && !matches!(self.peer.ending, Ending::Abort { .. }) {
            assert!(all_received, "the stream ended early: {self:?}");
        }
        let closes = match self.plan.ending {
            Ending::Last => all_sent && self.end_seen,
            Ending::First => all_sent && all_received,
            Ending::HalfClose => {
                if all_sent && !self.was_shut_down {
                    host.shutdown(self.connection);
                    self.was_shut_down = true;
                    return true;
                }
                self.was_shut_down && self.end_seen
            }
            Ending::Abort { after_bytes } => {
                if self.sent_bytes + self.received_bytes >= after_bytes || self.end_seen {
                    host.abort(self.connection);
                    self.phase = Phase::Done;
                    return true;
                }
                false
            }
            Ending::ShutdownAbort { pause, rest } => {
                if !all_sent {
                    return false;
                }
                if now < *self.next_step.get_or_insert(now + pause) {
                    return false;
                }
                if self.was_shut_down {
                    host.abort(self.connection);
                    self.phase = Phase::Done;
                } else {
                    host.shutdown(self.connection);
                    self.was_shut_down = true;
                    self.next_step = Some(now + rest);
                }
                return true;
            }
        };
        if closes {
            host.close(self.connection);
            self.phase = Phase::Done;
        }
        closes
    }
}
