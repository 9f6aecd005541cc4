//! Operations of datagram sockets.

use std::net::SocketAddr;
use std::task::Poll;

use libos::module::{Completions, Popped};
use libos::{Error, Instant, Outcome, QueueDescriptor, Runtime, ScatterGather, Token};

use super::StackModule;
use super::operations::end_pop;
use super::sockets::{Datagram, Socket, any_address, check_family};
use crate::events::UdpId;
use crate::slab::Key;
use crate::stack::Stack;
use crate::udp;

/// Sends a datagram, or leaves it to wait for room in the device's queue: then the socket is among the
/// `blocked`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "expanded where it is called, where all of them are at hand")]
pub(super) fn push(
    stack: &mut Stack,
    blocked: &mut Vec<Key>,
    now: Instant,
    key: Key,
    token: Token,
    datagram: &mut Datagram,
    data: &mut ScatterGather,
    to: Option<&SocketAddr>,
) -> Poll<Result<(), Error>> {
    if let Some(to) = to {
        check_family(datagram.domain, *to)?;
    }
    // One that waits keeps all later ones behind it.
    if datagram.pushes.is_empty() {
        match send(stack, now, key, datagram, to, data) {
            Err(Error::WouldBlock) => {}
            sent => return Poll::Ready(sent),
        }
    }
    datagram.pushes.push(token, (std::mem::take(data), to.copied()));
    // Once, however often a program gives up what waits and begins anew.
    if !std::mem::replace(&mut datagram.is_blocked, true) {
        blocked.push(key);
    }
    Poll::Pending
}

#[inline(always)]
pub(super) fn pop(
    stack: &mut Stack,
    key: Key,
    queue: QueueDescriptor,
    datagram: &mut Datagram,
) -> Poll<Result<Popped, Error>> {
    let id = stack_socket(stack, key, datagram)?;
    datagram.popped_as = Some(queue);
    popped(stack, id).map_or(Poll::Pending, Poll::Ready)
}

pub(super) fn connect(
    stack: &mut Stack,
    now: Instant,
    key: Key,
    datagram: &mut Datagram,
    remote: SocketAddr,
) -> Result<(), Error> {
    check_family(datagram.domain, remote)?;
    let id = match datagram.id {
        Some(id) => id,
        None => {
            let local = stack.udp_home_towards(now, remote).unwrap_or(any_address(datagram.domain));
            bind(stack, key, datagram, local)?
        }
    };
    stack.udp_connect(now, id, remote)
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
    bind(stack, key, datagram, any_address(datagram.domain))
}

/// Binds a socket, which may have been opened for its options.
pub(super) fn bind(
    stack: &mut Stack,
    key: Key,
    datagram: &mut Datagram,
    local: SocketAddr,
) -> Result<UdpId, Error> {
    let id = match datagram.unbound {
        Some(id) => stack.udp_bind_opened(id, local).map(|()| id)?,
        None => stack.udp_bind(local)?,
    };
    stack.udp_set_user_data(id, key.to_bits());
    (datagram.id, datagram.unbound) = (Some(id), None);
    Ok(id)
}

/// The stack's socket as far as options go: it need not be bound.
pub(super) fn socket_for_options(stack: &mut Stack, datagram: &mut Datagram) -> Result<UdpId, Error> {
    match datagram.id.or(datagram.unbound) {
        Some(id) => Ok(id),
        None => {
            let id = stack.udp_open(datagram.domain)?;
            datagram.unbound = Some(id);
            Ok(id)
        }
    }
}

#[inline(always)]
fn send(
    stack: &mut Stack,
    now: Instant,
    key: Key,
    datagram: &mut Datagram,
    to: Option<&SocketAddr>,
    data: &mut ScatterGather,
) -> Result<(), Error> {
    let id = stack_socket(stack, key, datagram)?;
    stack.udp_send(now, id, to, data)
}

/// What a pop ends with now; `None` when nothing has arrived.
fn popped(stack: &mut Stack, id: UdpId) -> Option<Result<Popped, Error>> {
    match stack.udp_receive(id) {
        Ok(Some(udp::Datagram { data, from })) => Some(Ok(Popped { data, from: Some(from) })),
        Ok(None) => None,
        Err(error) => Some(Err(error)),
    }
}

/// Completes waiting pops with what has arrived.
pub(super) fn serve_pops(stack: &mut Stack, datagram: &mut Datagram, completions: &mut Completions) {
    let (Some(id), Some(queue)) = (datagram.id, datagram.popped_as) else { return };
    while let Some(pop) = completions.waiting_pop(queue) {
        match popped(stack, id) {
            Some(popped) => end_pop(completions, pop, popped),
            None => return,
        }
    }
}

impl<R: Runtime> StackModule<R> {
    /// Sends datagrams that waited for room in the device's queue, as far as there is room now.
    #[cold]
    pub(super) fn retry_blocked(&mut self, now: Instant, completions: &mut Completions) {
        for key in std::mem::take(&mut self.blocked) {
            let Some(Socket::Datagram(datagram)) = self.sockets.get_mut(key) else { continue };
            while !self.stack.transmit_queue_is_full() {
                let Some((token, (mut data, to))) = datagram.pushes.pop() else { break };
                let sent = send(self.stack.stir(), now, key, datagram, to.as_ref(), &mut data);
                completions.complete(token, sent.map_or_else(Outcome::Failed, |()| Outcome::Pushed));
            }
            datagram.is_blocked = !datagram.pushes.is_empty();
            if datagram.is_blocked {
                self.blocked.push(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libos::memory::ArenaConfig;
    use libos::metrics::MetricsSink;
    use libos::module::Departure;
    use libos::runtime::{Capabilities, Medium, RxBatch, TxChecksum};
    use libos::time::{ManualClock, Timekeeper};
    use libos::{Arena, Domain, FrameBatch, Module, SocketKind};

    use super::*;
    use crate::StackConfig;

    /// A device that takes nothing.
    struct Stuck;

    impl Runtime for Stuck {
        fn name(&self) -> &str {
            "stuck"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities {
                medium: Medium::Ip,
                hardware_address: [0; 6],
                mtu: 1500,
                tx_checksum: TxChecksum::Software,
                tcp_segmentation_bytes: 0,
                max_segments: 4,
            }
        }

        fn receive(&mut self, _now: Instant, _batch: &mut RxBatch) -> Result<(), Error> {
            Ok(())
        }

        fn transmit(&mut self, _now: Instant, _batch: &mut FrameBatch) -> Result<(), Error> {
            Ok(())
        }

        fn metrics(&self, _sink: &mut dyn MetricsSink) {}
    }

    #[test]
    fn a_socket_is_blocked_once_however_often_its_pushes_are_given_up() {
        let time = Timekeeper::new(Box::new(ManualClock::new()));
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
        let config = StackConfig::new(Stuck.capabilities()).with_address("192.0.2.1/24".parse().unwrap());
        let stack = Stack::new(&config, arena.clone(), 1, time.last()).unwrap();
        let mut module = StackModule::new(stack, Stuck);
        let handle = module.new_socket(Domain::Ipv4, SocketKind::Datagram).unwrap();
        let to = SocketAddr::from(([192, 0, 2, 2], 9));
        let push = |module: &mut StackModule<Stuck>, token| {
            let mut data = arena.copy_from(b"datagram").unwrap().freeze().into();
            let departure = Departure::WithPoll;
            module.start_push(&time, handle, Token::from_raw(token), &mut data, Some(&to), departure)
        };
        let waits = (0..100_000).find(|token| push(&mut module, *token).is_pending());
        let first = waits.expect("the device's queue has a limit");
        for token in first..first + 100 {
            module.cancel(handle, Token::from_raw(token));
            assert!(push(&mut module, token + 1).is_pending());
        }
        assert_eq!(module.blocked.len(), 1);
    }
}
