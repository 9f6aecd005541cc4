//! One socket: its ends, its receive queue and what it was told.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use libos::{Error, ScatterGather};

use super::memberships::Membership;
use super::options::Options;
use super::way::Way;
use crate::events::EventMark;
use crate::tcp::demux::FourTuple;

/// A received datagram.
#[derive(Debug)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// Its payload; no segments when it is empty.
    pub data: ScatterGather,
}

#[derive(Debug)]
struct Queued {
    datagram: Datagram,
    held_bytes: usize,
}

/// A bounded queue of received datagrams.
#[derive(Debug, Default)]
pub(super) struct ReceiveQueue {
    datagrams: VecDeque<Queued>,
    held_bytes: usize,
}

impl ReceiveQueue {
    /// True when a datagram that holds so many bytes of memory may be added. One always fits.
    #[inline]
    pub(super) fn has_room(&self, held_bytes: usize, max_datagrams: usize, max_bytes: usize) -> bool {
        self.datagrams.is_empty()
            || self.datagrams.len() < max_datagrams && self.held_bytes + held_bytes <= max_bytes
    }

    #[inline]
    pub(super) fn push(&mut self, datagram: Datagram, held_bytes: usize) {
        self.held_bytes += held_bytes;
        self.datagrams.push_back(Queued { datagram, held_bytes });
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Datagram> {
        let Queued { datagram, held_bytes } = self.datagrams.pop_front()?;
        self.held_bytes -= held_bytes;
        Some(datagram)
    }

    pub(super) fn front(&self) -> Option<&Datagram> {
        self.datagrams.front().map(|queued| &queued.datagram)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    /// The address is unspecified when the socket takes datagrams to all of our addresses.
    pub(super) local: SocketAddr,
    pub(super) remote: Option<SocketAddr>,
    /// Both ends of a connected socket.
    pub(super) tuple: Option<FourTuple>,
    pub(super) way: Way,
    pub(super) queue: ReceiveQueue,
    /// What ICMP said; reported by the next call.
    pub(super) error: Option<Error>,
    /// The next socket on the same port that takes datagrams from anybody.
    pub(super) next: Option<u32>,
    /// Of what goes the present way.
    pub(super) hop_limit: u8,
    pub(super) options: Options,
    /// Groups whose datagrams it takes.
    pub(super) groups: Vec<Membership>,
    pub(super) user_data: u64,
    pub(super) mark: EventMark,
}

impl Socket {
    pub(super) fn new(local: SocketAddr, hop_limit: u8) -> Self {
        Self {
            local,
            remote: None,
            tuple: None,
            way: Way::NONE,
            queue: ReceiveQueue::default(),
            error: None,
            next: None,
            hop_limit,
            options: Options::new(hop_limit),
            groups: Vec::new(),
            user_data: 0,
            mark: EventMark::default(),
        }
    }

    /// True when neither a datagram nor an error waits to be taken.
    #[inline]
    pub(super) fn has_nothing_to_tell(&self) -> bool {
        self.queue.is_empty() && self.error.is_none()
    }

    /// True when datagrams to `destination` are for this socket, as far as the address goes.
    #[inline]
    pub(super) fn takes(&self, destination: IpAddr) -> bool {
        let own = self.local.ip();
        own == destination || own.is_unspecified() && own.is_ipv4() == destination.is_ipv4()
    }

    /// True when datagrams from `source` to `group`, which every host is in when it is `of_all`, are for this socket.
    pub(super) fn takes_group(&self, group: IpAddr, source: IpAddr, of_all: bool) -> bool {
        self.takes(group) && (of_all || self.wants_from(group, source))
    }

    /// True when a datagram to `address` may go to this socket though another, which shares its port or
    /// not, asks for it.
    pub(super) fn shares(&self, address: IpAddr, shared: bool) -> bool {
        shared && self.options.shared || !self.overlaps(address)
    }

    /// True when no datagram could tell this socket from one bound to `other`.
    pub(super) fn overlaps(&self, other: IpAddr) -> bool {
        self.takes(other) || other.is_unspecified() && other.is_ipv4() == self.local.is_ipv4()
    }
}
