//! Waiting pops, completed as what they wait for arrives.

use std::net::SocketAddr;

use libos::module::Completions;
use libos::{PopLimit, ScatterGather, Token};

use super::sockets::Socket;
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
    type Ticket = Token;

    #[inline(always)]
    fn next_for_datagram(&mut self, user_data: u64) -> Option<Token> {
        match self.sockets.get_mut(Key::from_bits(user_data)) {
            Some(Socket::Datagram(datagram)) => datagram.pops.pop().map(|(token, ())| token),
            Some(Socket::Fresh(_) | Socket::Closing { .. } | Socket::Stream(_) | Socket::Listener { .. })
            | None => None,
        }
    }

    #[inline(always)]
    fn datagram(&mut self, token: Token, from: SocketAddr, data: ScatterGather) {
        self.completions.popped(token, data, Some(from));
    }

    #[inline(always)]
    fn next_for_data(&mut self, user_data: u64) -> Option<(Token, PopLimit)> {
        if self.in_burst {
            return None;
        }
        match self.sockets.get_mut(Key::from_bits(user_data)) {
            Some(Socket::Stream(stream)) => stream.pops.pop(),
            Some(
                Socket::Fresh(_) | Socket::Closing { .. } | Socket::Datagram(_) | Socket::Listener { .. },
            )
            | None => None,
        }
    }

    #[inline(always)]
    fn data(&mut self, token: Token, data: ScatterGather) {
        self.completions.popped(token, data, None);
    }
}
