//! Who waits for what arrives: then it needs neither a place in a queue nor an event.

use std::net::{Ipv4Addr, SocketAddr};

use libos::{PopLimit, QueueDescriptor, ScatterGather};

/// Whoever waits for data. What is waited for is handed over as it arrives.
pub trait Waiting {
    /// Stands for one who waits on a connection.
    type Ticket;

    /// Gives a datagram to who has waited longest on the datagram socket with this number. Who sent it is made where it is
    /// needed.
    ///
    /// # Errors
    /// The datagram's data, when nobody waits.
    fn offer_datagram(
        &mut self,
        user_data: u64,
        from: impl Fn() -> SocketAddr,
        data: ScatterGather,
    ) -> Result<(), ScatterGather>;

    /// As which the pops wait on the datagram socket with this number, once one did. None where [`Self::offer_datagram`] is
    /// the only way.
    fn queue_of_datagrams(&self, user_data: u64) -> Option<QueueDescriptor> {
        let _ = user_data;
        None
    }

    /// True when somebody waits alone for a datagram, by what [`Self::queue_of_datagrams`] said: [`Self::give_datagram`]
    /// follows.
    fn awaits_datagram(&self, queue: QueueDescriptor) -> bool {
        let _ = queue;
        false
    }

    /// Gives a datagram to who waits alone.
    fn give_datagram(&mut self, queue: QueueDescriptor, from: (Ipv4Addr, u16), data: ScatterGather) {
        let _ = (queue, from, data);
    }

    /// Gives data to who has waited longest on the connection with this number.
    ///
    /// # Errors
    /// The data, when nobody waits, or not for so much, or for more than this.
    fn offer_data(&mut self, user_data: u64, data: ScatterGather) -> Result<(), ScatterGather>;

    /// As which the pops wait on the connection with this number, once one did, unless more data follows at once. None
    /// where [`Self::offer_data`] is the only way.
    fn queue_of_data(&self, user_data: u64) -> Option<QueueDescriptor> {
        let _ = user_data;
        None
    }

    /// As [`Self::offer_data`], by what [`Self::queue_of_data`] said, when no more follows at once.
    ///
    /// # Errors
    /// The data, when nobody waits, or not for so much, or for more than this.
    fn give_data(&mut self, queue: QueueDescriptor, data: ScatterGather) -> Result<(), ScatterGather> {
        let _ = queue;
        Err(data)
    }

    /// Takes out who has waited longest on the connection with this number, and how much they want.
    /// [`Self::data`] follows.
    fn next_for_data(&mut self, user_data: u64) -> Option<(Self::Ticket, PopLimit)>;

    /// Ends a wait on a connection.
    fn data(&mut self, ticket: Self::Ticket, data: ScatterGather);
}

/// Nobody waits: data is queued, and events tell of it.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Waiting for Nobody {
    type Ticket = std::convert::Infallible;

    fn offer_datagram(
        &mut self,
        _user_data: u64,
        _from: impl Fn() -> SocketAddr,
        data: ScatterGather,
    ) -> Result<(), ScatterGather> {
        Err(data)
    }

    fn offer_data(&mut self, _user_data: u64, data: ScatterGather) -> Result<(), ScatterGather> {
        Err(data)
    }

    fn next_for_data(&mut self, _user_data: u64) -> Option<(Self::Ticket, PopLimit)> {
        None
    }

    fn data(&mut self, ticket: Self::Ticket, _data: ScatterGather) {
        match ticket {}
    }
}
