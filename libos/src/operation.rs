//! Operations, the tokens that stand for them, and their completions.

use std::fmt;
use std::net::SocketAddr;

use crate::{Error, ScatterGather};

/// A queue descriptor: an open socket, accepted connection or in-memory queue of one [`crate::Module`].
///
/// Descriptors are small non-negative integers, the lowest free one first, as POSIX gives out files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueDescriptor(u32);

impl QueueDescriptor {
    /// The descriptor with this number. Whether it is open shows when it is used.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The descriptor's number.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl fmt::Display for QueueDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Stands for one outstanding operation: a slot and the slot's generation, never zero, never given
/// out twice while anybody can still hold the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// The token with this number. Whether it is outstanding shows when it is used.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The token's number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// How much one pop may return. A datagram is never cut by `segments`; what does not fit into
/// `bytes` of a stream stays queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PopLimit {
    /// Most segments in the scatter-gather array, at least 1.
    pub segments: usize,
    /// Most bytes, at least 1.
    pub bytes: usize,
}

impl PopLimit {
    /// One segment of any size.
    pub const ONE_SEGMENT: Self = Self { segments: 1, bytes: usize::MAX };
}

impl Default for PopLimit {
    /// Up to 16 segments of any size.
    fn default() -> Self {
        Self { segments: 16, bytes: usize::MAX }
    }
}

/// What a module is asked to do.
#[derive(Debug)]
pub enum Operation {
    /// Take the next incoming connection.
    Accept,
    /// Connect to the address.
    Connect(SocketAddr),
    /// Send to the connected peer, or append to the in-memory queue.
    Push(ScatterGather),
    /// Send to the address.
    PushTo(ScatterGather, SocketAddr),
    /// Receive.
    Pop(PopLimit),
}

/// Which operation a completion belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// `accept`.
    Accept,
    /// `connect`.
    Connect,
    /// `push` and `pushto`.
    Push,
    /// `pop`.
    Pop,
    /// `close`.
    Close,
}

impl OperationKind {
    /// Number of kinds.
    pub(crate) const COUNT: usize = Self::NAMES.len();
    /// Names of the kinds, by [`Self::index`].
    pub(crate) const NAMES: [&'static str; 5] = ["accept", "connect", "push", "pop", "close"];

    /// The kind's place in tables.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl Operation {
    /// Which operation it is.
    #[must_use]
    pub const fn kind(&self) -> OperationKind {
        match self {
            Self::Accept => OperationKind::Accept,
            Self::Connect(_) => OperationKind::Connect,
            Self::Push(_) | Self::PushTo(..) => OperationKind::Push,
            Self::Pop(_) => OperationKind::Pop,
        }
    }
}

/// How an operation ended.
#[derive(Debug)]
pub enum Outcome {
    /// A connection was accepted.
    Accepted {
        /// The new connection.
        queue: QueueDescriptor,
        /// The peer's address.
        peer: SocketAddr,
    },
    /// The connection stands.
    Connected,
    /// The data was taken; the program's buffers may be dropped or reused.
    Pushed,
    /// Data arrived. Empty data on a stream is the end of the stream.
    Popped {
        /// The data.
        data: ScatterGather,
        /// Who sent the datagram; `None` on streams.
        from: Option<SocketAddr>,
    },
    /// The descriptor is free.
    Closed,
    /// The operation failed.
    Failed(Error),
}

/// The end of an operation. Each token has exactly one.
#[derive(Debug)]
pub struct Completion {
    /// The operation's token.
    pub token: Token,
    /// The queue the operation was submitted on.
    pub queue: QueueDescriptor,
    /// What was asked for.
    pub kind: OperationKind,
    /// How it ended.
    pub outcome: Outcome,
}

impl Completion {
    /// That a push ended well.
    ///
    /// # Errors
    /// What the push failed with; [`Error::InvalidArgument`] for what is no push.
    #[inline]
    pub fn pushed(self) -> Result<(), Error> {
        if let Outcome::Pushed = self.outcome {
            return Ok(());
        }
        match self.outcome {
            Outcome::Failed(error) => Err(error),
            _ => Err(Error::InvalidArgument),
        }
    }

    /// What a pop brought, and who sent it if it is a datagram.
    ///
    /// # Errors
    /// What the pop failed with; [`Error::InvalidArgument`] for what is no pop.
    #[inline]
    pub fn popped(self) -> Result<(ScatterGather, Option<SocketAddr>), Error> {
        match self.outcome {
            Outcome::Popped { data, from } => Ok((data, from)),
            Outcome::Failed(error) => Err(error),
            _ => Err(Error::InvalidArgument),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(kind: OperationKind, outcome: Outcome) -> Completion {
        Completion { token: Token::from_raw(1), queue: QueueDescriptor::from_raw(0), kind, outcome }
    }

    #[test]
    fn a_completion_tells_what_its_operation_brought_or_failed_with() {
        let reset = || Outcome::Failed(Error::ConnectionReset);
        let popped = || Outcome::Popped { data: ScatterGather::default(), from: None };
        let push = |outcome| completion(OperationKind::Push, outcome).pushed();
        let pop =
            |outcome| completion(OperationKind::Pop, outcome).popped().map(|(data, from)| (data.len(), from));
        assert_eq!(push(Outcome::Pushed), Ok(()));
        assert_eq!(push(reset()), Err(Error::ConnectionReset));
        assert_eq!(push(popped()), Err(Error::InvalidArgument));
        assert_eq!(pop(popped()), Ok((0, None)));
        assert_eq!(pop(reset()), Err(Error::ConnectionReset));
        assert_eq!(pop(Outcome::Pushed), Err(Error::InvalidArgument));
    }
}
