//! Who waits for what arrives: then it needs neither a place in a queue nor an event.

use std::net::SocketAddr;

use libos::{PopLimit, ScatterGather};

/// Whoever waits for data. What is waited for is handed over as it arrives.
pub trait Waiting {
    /// Stands for one who waits.
    type Ticket;

    /// Takes out who has waited longest on the datagram socket with this number. [`Self::datagram`] follows.
    fn next_for_datagram(&mut self, user_data: u64) -> Option<Self::Ticket>;

    /// Ends a wait on a datagram socket with a datagram and who sent it.
    fn datagram(&mut self, ticket: Self::Ticket, from: SocketAddr, data: ScatterGather);

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

    fn next_for_datagram(&mut self, _user_data: u64) -> Option<Self::Ticket> {
        None
    }

    fn datagram(&mut self, ticket: Self::Ticket, _from: SocketAddr, _data: ScatterGather) {
        match ticket {}
    }

    fn next_for_data(&mut self, _user_data: u64) -> Option<(Self::Ticket, PopLimit)> {
        None
    }

    fn data(&mut self, ticket: Self::Ticket, _data: ScatterGather) {
        match ticket {}
    }
}
