//! The connections of one stack, and who may have changed one since the straight way last looked.

use std::ops::Deref;

use super::connection::Connection;
use crate::slab::{Key, Slab};

/// What the straight way knows of a connection: which segments nothing stands in the way of. It is found out once
/// and holds until somebody else gets hold of the connection, because the straight way itself changes
/// nothing of what it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Course(u8);

impl Course {
    /// Nothing is known.
    const UNKNOWN: Self = Self(0);
    const RECEIVES: u8 = 1;
    const SENDS: u8 = 2;
    const IDLE: u8 = 4;
    const LONE: u8 = 8;
    /// Nothing is in flight and nothing whatever is pending: [`super::lone`] takes what comes and what is pushed.
    pub(super) const READY: Self = Self(Self::RECEIVES | Self::SENDS | Self::IDLE);
    /// As [`Self::READY`], but for one segment in flight, of which only [`super::lone`] keeps account.
    pub(super) const WAITS: Self = Self(Self::RECEIVES | Self::SENDS | Self::LONE);
    /// Something beside what is said and answered is pending, or more than one segment is in flight.
    pub(super) const BUSY: Self = Self(Self::RECEIVES | Self::SENDS);

    #[inline(always)]
    pub(super) const fn new(receives: bool, sends: bool) -> Self {
        Self((receives as u8 * Self::RECEIVES) | (sends as u8 * Self::SENDS))
    }

    /// True when the next segment in order can be taken straight away.
    #[inline(always)]
    pub(super) const fn receives(self) -> bool {
        self.0 & Self::RECEIVES != 0
    }

    /// True when what is pushed next can be sent straight away.
    #[inline(always)]
    pub(super) const fn sends(self) -> bool {
        self.0 & Self::SENDS != 0
    }

    /// True for [`Self::READY`].
    #[inline(always)]
    pub(super) const fn is_ready(self) -> bool {
        self.0 & Self::IDLE != 0
    }

    /// True for [`Self::WAITS`].
    #[inline(always)]
    pub(super) const fn waits(self) -> bool {
        self.0 & Self::LONE != 0
    }
}

/// Connections by key. To look at, a [`Slab`]; whoever gets one to change it, by any but the straight way, ends what that
/// way knows of it.
#[derive(Debug)]
pub(super) struct Connections(Slab<Connection>);

impl Connections {
    pub(super) fn with_capacity_limit(capacity: usize) -> Self {
        Self(Slab::with_capacity_limit(capacity))
    }

    pub(super) fn insert_with(&mut self, make: impl FnOnce(Key) -> Connection) -> Option<Key> {
        self.0.insert_with(make)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Connection> {
        self.0.remove(key)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        let connection = self.0.get_mut(key)?;
        connection.forget_course();
        Some(connection)
    }

    #[inline]
    pub(super) fn get_index_mut(&mut self, index: u32) -> Option<&mut Connection> {
        let connection = self.0.get_index_mut(index)?;
        connection.forget_course();
        Some(connection)
    }

    /// For the straight way alone.
    #[inline(always)]
    pub(super) fn straight_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.0.get_mut(key)
    }

    /// For the straight way alone.
    #[inline(always)]
    pub(super) fn straight_index_mut(&mut self, index: u32) -> Option<&mut Connection> {
        self.0.get_index_mut(index)
    }
}

impl Connection {
    /// Somebody may change what the straight way knows.
    #[inline(always)]
    fn forget_course(&mut self) {
        if self.course.waits() {
            self.settle_lone();
        }
        self.course = Course::UNKNOWN;
    }
}

impl Deref for Connections {
    type Target = Slab<Connection>;

    #[inline(always)]
    fn deref(&self) -> &Slab<Connection> {
        &self.0
    }
}
