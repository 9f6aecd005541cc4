//! Waiting pops, completed as what they wait for arrives.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use libos::module::{Completions, WaitingPop};
use libos::{PopLimit, QueueDescriptor, ScatterGather};

use super::sockets::{Datagram, Socket, Stream};
use crate::slab::{Key, Slab};
use crate::waiting::Waiting;

/// Who waits while frames are received.
pub(super) struct Pops<'a> {
    pub(super) sockets: &'a mut Slab<Socket>,
    pub(super) completions: &'a mut Completions,
    /// More frames follow: a pop of a stream waits for the end of the burst and takes all of it.
    pub(super) in_burst: bool,
}

impl Waiting for Pops<'_> {
    type Ticket = WaitingPop;

    #[inline(always)]
    fn offer_datagram(
        &mut self,
        user_data: u64,
        from: impl Fn() -> SocketAddr,
        data: ScatterGather,
    ) -> Result<(), ScatterGather> {
        match self.sockets.get(Key::from_bits(user_data)) {
            Some(Socket::Datagram(Datagram { popped_as: Some(queue), .. })) => {
                self.completions.give(*queue, data, || Some(from()))
            }
            Some(Socket::Datagram(Datagram { popped_as: None, .. })) => Err(data),
            Some(Socket::Fresh(_) | Socket::Closing { .. } | Socket::Stream(_) | Socket::Listener { .. })
            | None => Err(data),
        }
    }

    fn queue_of_datagrams(&self, user_data: u64) -> Option<QueueDescriptor> {
        match self.sockets.get(Key::from_bits(user_data)) {
            // In a burst several wait, and nobody alone.
            Some(Socket::Datagram(datagram)) => datagram.popped_as.filter(|_| !self.in_burst),
            Some(Socket::Fresh(_) | Socket::Closing { .. } | Socket::Stream(_) | Socket::Listener { .. })
            | None => None,
        }
    }

    #[inline(always)]
    fn awaits_datagram(&self, queue: QueueDescriptor) -> bool {
        self.completions.waits_alone(queue)
    }

    #[inline(always)]
    fn give_datagram(
        &mut self,
        queue: QueueDescriptor,
        (source, port): (Ipv4Addr, u16),
        data: ScatterGather,
    ) {
        // It waits alone, so that there is nothing that would be refused.
        let _ = self.completions.give(queue, data, || Some(SocketAddr::V4(SocketAddrV4::new(source, port))));
    }

    #[inline(always)]
    fn offer_data(&mut self, user_data: u64, data: ScatterGather) -> Result<(), ScatterGather> {
        if self.in_burst {
            return Err(data);
        }
        match self.sockets.get(Key::from_bits(user_data)) {
            Some(Socket::Stream(Stream { popped_as: Some(queue), .. })) => {
                self.completions.give(*queue, data, || None)
            }
            Some(Socket::Stream(Stream { popped_as: None, .. })) => Err(data),
            Some(
                Socket::Fresh(_) | Socket::Closing { .. } | Socket::Datagram(_) | Socket::Listener { .. },
            )
            | None => Err(data),
        }
    }

    fn queue_of_data(&self, user_data: u64) -> Option<QueueDescriptor> {
        match self.sockets.get(Key::from_bits(user_data)) {
            Some(Socket::Stream(stream)) => stream.popped_as.filter(|_| !self.in_burst),
            Some(
                Socket::Fresh(_) | Socket::Closing { .. } | Socket::Datagram(_) | Socket::Listener { .. },
            )
            | None => None,
        }
    }

    #[inline(always)]
    fn give_data(&mut self, queue: QueueDescriptor, data: ScatterGather) -> Result<(), ScatterGather> {
        self.completions.give(queue, data, || None)
    }

    #[inline(always)]
    fn next_for_data(&mut self, user_data: u64) -> Option<(WaitingPop, PopLimit)> {
        if self.in_burst {
            return None;
        }
        match self.sockets.get(Key::from_bits(user_data)) {
            Some(Socket::Stream(stream)) => {
                let pop = self.completions.waiting_pop(stream.popped_as?)?;
                let limit = pop.limit;
                Some((pop, limit))
            }
            Some(
                Socket::Fresh(_) | Socket::Closing { .. } | Socket::Datagram(_) | Socket::Listener { .. },
            )
            | None => None,
        }
    }

    #[inline(always)]
    fn data(&mut self, pop: WaitingPop, data: ScatterGather) {
        self.completions.popped(pop, data, None);
    }
}
