//! One operation's place in the table, how far it is, and the lists it may be on.

use std::net::{SocketAddr, SocketAddrV4};

use crate::executor::WakeTarget;
use crate::{Completion, OperationKind, Outcome, PopLimit, QueueDescriptor, Token};

/// Bits of a token that hold the slot; the others hold the slot's generation. Even a single slot that
/// is used ten million times a second meets the same token again after 30 hours only.
pub(super) const INDEX_BITS: u32 = 24;
pub(super) const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
pub(super) const NO_SLOT: u32 = u32::MAX;

/// Most operations that tokens can tell apart: two slots are not for any.
pub(crate) const MAX_OPERATIONS: usize = (1 << INDEX_BITS) - 2;

/// Ends of a doubly linked list of slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl List {
    pub(crate) const EMPTY: Self = Self { head: NO_SLOT, tail: NO_SLOT };

    #[inline(always)]
    pub(crate) const fn is_empty(self) -> bool {
        self.tail == NO_SLOT
    }
}

/// How far an operation is, and who is interested: in one byte, so that one comparison asks for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage(pub(super) u8);

impl Stage {
    pub(super) const FREE: Self = Self(0);
    /// With its module for the first time, and on no list: most operations complete right there.
    pub(super) const SUBMITTED: Self = Self(1);
    /// On its queue's list.
    pub(super) const OUTSTANDING: Self = Self(2);
    /// Completed, and on the ready list.
    pub(super) const COMPLETED: Self = Self(3);
    const MASK: u8 = 3;

    /// A future waits for the token: the completion is for it alone and never on the ready list.
    pub(super) const AWAITED: u8 = 4;
    /// Somebody is to be woken. Never of a slot that is free or completed.
    pub(super) const WATCHED: u8 = 8;

    /// The stage without who is interested.
    #[inline(always)]
    pub(super) const fn bare(self) -> Self {
        Self(self.0 & Self::MASK)
    }

    #[inline(always)]
    pub(super) const fn is_awaited(self) -> bool {
        self.0 & Self::AWAITED != 0
    }

    #[inline(always)]
    pub(super) const fn is_watched(self) -> bool {
        self.0 & Self::WATCHED != 0
    }

    /// The same interest at another stage.
    #[inline(always)]
    pub(super) const fn at(self, stage: Self) -> Self {
        Self(self.0 & !Self::MASK | stage.0)
    }
}

/// One operation: what is looked at in every step of its life in the first half cache line, what is moved in
/// once and out once behind it.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Slot {
    /// The operation's token, or the next one's when the slot is free.
    pub(super) token: Token,
    /// The how-manieth submission this is, and from when it is completed the how-manieth completion: so that the earliest
    /// of several can be picked.
    pub(super) ordinal: u64,
    pub(super) queue: QueueDescriptor,
    pub(super) previous: u32,
    pub(super) next: u32,
    pub(super) stage: Stage,
    pub(super) kind: OperationKind,
    /// `Closed` or `Pushed`, which own nothing, unless the operation is completed, or was taken a moment ago.
    pub(super) outcome: Outcome,
    pub(super) wake: WakeTarget,
    /// How much a pop takes that waits: segments and bytes. There is no room for more than 32 bits, and nothing holds more.
    pub(super) limit: [u32; 2],
}

const _: () = assert!(size_of::<Slot>() == 128);

impl Slot {
    /// A free slot, on no list.
    pub(super) const fn new(index: u32) -> Self {
        Self {
            token: token(1, index),
            ordinal: 0,
            queue: QueueDescriptor::from_raw(u32::MAX),
            previous: NO_SLOT,
            next: NO_SLOT,
            stage: Stage::FREE,
            kind: OperationKind::Push,
            outcome: Outcome::Closed,
            wake: WakeTarget::Nobody,
            limit: [0; 2],
        }
    }

    #[inline(always)]
    pub(super) const fn limit(&self) -> PopLimit {
        let [segments, bytes] = self.limit;
        PopLimit { segments: segments as usize, bytes: bytes as usize }
    }

    /// Ends the use of the slot: it is for nobody's token any more.
    #[inline(always)]
    pub(super) fn retire(&mut self) {
        self.stage = Stage::FREE;
        // The next generation of the same slot; the last one is followed by the first.
        self.token = Token::from_raw(self.token.raw().wrapping_add(1 << INDEX_BITS));
    }

    /// Puts the slot in front of the `free` ones.
    #[inline(always)]
    pub(super) fn free(&mut self, free: &mut u32, index: u32) {
        self.retire();
        self.next = *free;
        *free = index;
    }

    /// The completion. What is left in its place owns nothing.
    #[inline(always)]
    pub(super) fn take(&mut self, token: Token) -> Completion {
        let outcome = match std::mem::replace(&mut self.outcome, Outcome::Closed) {
            // What nearly always comes, field by field: each then goes straight to where the program wants it.
            Outcome::Popped { data, from } => {
                Outcome::Popped { data: data.by_fields(), from: from.map(by_fields) }
            }
            outcome => outcome,
        };
        Completion { token, queue: self.queue, kind: self.kind, outcome }
    }
}

/// The same address, moved as [`ScatterGather::by_fields`].
///
/// [`ScatterGather::by_fields`]: crate::ScatterGather::by_fields
#[inline(always)]
fn by_fields(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::V4(SocketAddrV4::new(*v4.ip(), v4.port())),
        SocketAddr::V6(_) => address,
    }
}

/// The token of a slot's generation.
pub(super) const fn token(generation: u64, index: u32) -> Token {
    Token::from_raw((generation << INDEX_BITS) | index as u64)
}
