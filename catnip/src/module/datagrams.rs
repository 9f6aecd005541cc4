//! Operations of datagram sockets.

use std::net::SocketAddr;

use libos::module::Completions;
use libos::{Error, Instant, Operation, Outcome, Runtime, ScatterGather, Token};

use super::StackModule;
use super::sockets::{Datagram, Socket, any_address, check_family};
use crate::events::UdpId;
use crate::slab::{Key, Slab};
use crate::stack::Stack;
use crate::udp;

/// An operation on a datagram socket, and what it needs besides the socket.
pub(super) struct Call<'a> {
    pub(super) stack: &'a mut Stack,
    /// Sockets with a push that waits for room in the device's queue.
    pub(super) blocked: &'a mut Vec<Key>,
    pub(super) now: Instant,
    /// The socket's own.
    pub(super) key: Key,
    pub(super) token: Token,
    pub(super) completions: &'a mut dyn Completions,
}

impl Call<'_> {
    #[inline(always)]
    pub(super) fn start(self, datagram: &mut Datagram, operation: Operation) {
        match operation {
            Operation::Push(data) => self.push(datagram, data, None),
            Operation::PushTo(data, to) => match check_family(datagram.domain, to) {
                Ok(()) => self.push(datagram, data, Some(to)),
                Err(error) => self.completions.complete(self.token, Outcome::Failed(error)),
            },
            Operation::Pop(_) => self.pop(datagram),
            Operation::Connect(remote) => self.connect(datagram, remote),
            Operation::Accept => {
                self.completions.complete(self.token, Outcome::Failed(Error::NotSupported));
            }
        }
    }

    #[inline(always)]
    fn push(self, datagram: &mut Datagram, mut data: ScatterGather, to: Option<SocketAddr>) {
        // One that waits keeps all later ones behind it.
        let is_blocked = !datagram.pushes.is_empty();
        if is_blocked || self.stack.transmit_queue_is_full() {
            datagram.pushes.push(self.token, (data, to));
            if !is_blocked {
                self.blocked.push(self.key);
            }
            return;
        }
        let outcome = send(self.stack, self.now, self.key, datagram, to, &mut data);
        self.completions.complete(self.token, outcome);
    }

    #[inline(always)]
    fn pop(self, datagram: &mut Datagram) {
        let outcome = match stack_socket(self.stack, self.key, datagram) {
            // Whoever waits already has taken all there is.
            Ok(id) if datagram.pops.is_empty() && self.stack.udp_is_readable(id) => popped(self.stack, id),
            Ok(_) => None,
            Err(error) => Some(Outcome::Failed(error)),
        };
        match outcome {
            Some(outcome) => self.completions.complete(self.token, outcome),
            None => datagram.pops.push(self.token, ()),
        }
    }

    #[cold]
    fn connect(self, datagram: &mut Datagram, remote: SocketAddr) {
        let connected = check_family(datagram.domain, remote)
            .and_then(|()| stack_socket(self.stack, self.key, datagram))
            .and_then(|id| self.stack.udp_connect(self.now, id, remote));
        let outcome = connected.map_or_else(Outcome::Failed, |()| Outcome::Connected);
        self.completions.complete(self.token, outcome);
    }
}

/// The stack's socket of a datagram socket, made now if it has none.
#[inline(always)]
fn stack_socket(stack: &mut Stack, key: Key, datagram: &mut Datagram) -> Result<UdpId, Error> {
    match datagram.id {
        Some(id) => Ok(id),
        None => make_stack_socket(stack, key, datagram),
    }
}

#[cold]
fn make_stack_socket(stack: &mut Stack, key: Key, datagram: &mut Datagram) -> Result<UdpId, Error> {
    let id = stack.udp_bind(any_address(datagram.domain))?;
    stack.udp_set_user_data(id, key.to_bits());
    datagram.id = Some(id);
    Ok(id)
}

#[inline(always)]
fn send(
    stack: &mut Stack,
    now: Instant,
    key: Key,
    datagram: &mut Datagram,
    to: Option<SocketAddr>,
    data: &mut ScatterGather,
) -> Outcome {
    let sent = stack_socket(stack, key, datagram).and_then(|id| stack.udp_send(now, id, to, data));
    sent.map_or_else(Outcome::Failed, |()| Outcome::Pushed)
}

/// What a pop ends with now; `None` when nothing has arrived.
fn popped(stack: &mut Stack, id: UdpId) -> Option<Outcome> {
    match stack.udp_receive(id) {
        Ok(Some(udp::Datagram { data, from })) => Some(Outcome::Popped { data, from: Some(from) }),
        Ok(None) => None,
        Err(error) => Some(Outcome::Failed(error)),
    }
}

/// Completes waiting pops with what has arrived.
pub(super) fn serve_pops(stack: &mut Stack, datagram: &mut Datagram, completions: &mut dyn Completions) {
    let Some(id) = datagram.id else { return };
    while let Some(&mut (token, ())) = datagram.pops.front_mut() {
        let Some(outcome) = popped(stack, id) else { return };
        datagram.pops.pop();
        completions.complete(token, outcome);
    }
}

/// Waiting pops, to be completed with datagrams as they arrive.
pub(super) struct Pops<'a> {
    pub(super) sockets: &'a mut Slab<Socket>,
    pub(super) completions: &'a mut dyn Completions,
}

impl udp::Waiting for Pops<'_> {
    type Ticket = Token;

    #[inline(always)]
    fn next(&mut self, user_data: u64) -> Option<Token> {
        match self.sockets.get_mut(Key::from_bits(user_data)) {
            Some(Socket::Datagram(datagram)) => datagram.pops.pop().map(|(token, ())| token),
            Some(Socket::Fresh(_) | Socket::Stream(_) | Socket::Listener { .. }) | None => None,
        }
    }

    #[inline(always)]
    fn hand_over(&mut self, token: Token, udp::Datagram { from, data }: udp::Datagram) {
        self.completions.complete(token, Outcome::Popped { data, from: Some(from) });
    }
}

impl<R: Runtime> StackModule<R> {
    /// Sends datagrams that waited for room in the device's queue, as far as there is room now.
    #[cold]
    pub(super) fn retry_blocked(&mut self, now: Instant, completions: &mut dyn Completions) {
        for key in std::mem::take(&mut self.blocked) {
            let Some(Socket::Datagram(datagram)) = self.sockets.get_mut(key) else { continue };
            while !self.stack.transmit_queue_is_full() {
                let Some((token, (mut data, to))) = datagram.pushes.pop() else { break };
                let outcome = send(&mut self.stack, now, key, datagram, to, &mut data);
                completions.complete(token, outcome);
            }
            if !datagram.pushes.is_empty() {
                self.blocked.push(key);
            }
        }
    }
}
