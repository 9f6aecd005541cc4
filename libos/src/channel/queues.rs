//! The module that puts ends of channels behind queue descriptors.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::task::Poll;

use super::{ChannelEnd, Message, Receiver, Sender};
use crate::doorbell::Sleeper;
use crate::handle_table::HandleTable;
use crate::metrics::MetricsSink;
use crate::module::{Completions, Departure, Popped};
use crate::time::Timekeeper;
use crate::{
    Arena, Error, Handle, Instant, Module, Outcome, PopLimit, QueueDescriptor, ScatterGather, SetupError,
    Token,
};

#[derive(Debug)]
enum Queue {
    Outgoing {
        sender: Sender,
        /// Pushes that wait for room, oldest first.
        pushes: VecDeque<(Token, Message)>,
    },
    Incoming {
        receiver: Receiver,
        /// Whose pops wait for a message, once one did.
        popped_as: Option<QueueDescriptor>,
    },
}

/// The ends of channels that one library OS has. Polls only look at queues with somebody waiting.
#[derive(Debug)]
pub(crate) struct ChannelQueues {
    arena: Arena,
    sleeper: Sleeper,
    queues: HandleTable<Queue>,
    /// Queues on which somebody waits, each once; some may wait no more.
    waiting: Vec<Handle>,
    pushed: u64,
    popped: u64,
}

impl ChannelQueues {
    /// No queues yet. Messages that are copied go to memory of `arena`.
    pub(crate) fn new(arena: Arena) -> Result<Self, SetupError> {
        Ok(Self {
            arena,
            sleeper: Sleeper::new()?,
            queues: HandleTable::default(),
            waiting: Vec::new(),
            pushed: 0,
            popped: 0,
        })
    }

    fn wait_for(&mut self, handle: Handle) {
        if !self.waiting.contains(&handle) {
            self.waiting.push(handle);
        }
    }

    fn try_push(&mut self, token: Token, handle: Handle, data: ScatterGather) -> Poll<Result<(), Error>> {
        let queue = self.queues.get_mut(handle)?;
        let Queue::Outgoing { sender, pushes } = queue else { return Poll::Ready(Err(Error::NotSupported)) };
        if sender.lane.is_abandoned() {
            return Poll::Ready(Err(Error::ConnectionReset));
        }
        if data.is_empty() {
            // An empty array is how a receiver is told of the end.
            return Poll::Ready(Err(Error::InvalidArgument));
        }
        let message = Message::lend(data);
        let left = if pushes.is_empty() { sender.send(message) } else { Err(message) };
        match left {
            Ok(()) => {
                self.pushed += 1;
                Poll::Ready(Ok(()))
            }
            Err(message) => {
                pushes.push_back((token, message));
                self.wait_for(handle);
                Poll::Pending
            }
        }
    }

    fn try_pop(&mut self, handle: Handle, descriptor: QueueDescriptor) -> Poll<Result<Popped, Error>> {
        let queue = self.queues.get_mut(handle)?;
        let Queue::Incoming { receiver, popped_as } = queue else {
            return Poll::Ready(Err(Error::NotSupported));
        };
        match receiver.receive() {
            Some(message) => {
                self.popped += 1;
                Poll::Ready(Ok(Popped { data: message.land(&self.arena), from: None }))
            }
            None if receiver.is_at_end() => {
                Poll::Ready(Ok(Popped { data: ScatterGather::new(), from: None }))
            }
            None => {
                *popped_as = Some(descriptor);
                self.wait_for(handle);
                Poll::Pending
            }
        }
    }

    #[inline(never)]
    fn serve_waiting(&mut self, completions: &mut Completions) {
        let Self { arena, queues, waiting, pushed, popped, .. } = self;
        waiting.retain(|&handle| match queues.get_mut(handle) {
            Ok(Queue::Outgoing { sender, pushes }) => {
                let sent = serve_pushes(sender, pushes, completions);
                *pushed += sent;
                !pushes.is_empty()
            }
            Ok(Queue::Incoming { receiver, popped_as }) => {
                let (received, waits) = serve_pops(receiver, *popped_as, arena, completions);
                *popped += received;
                waits
            }
            Err(_) => false,
        });
    }
}

/// Sends what waits while there is room; returns how many.
fn serve_pushes(
    sender: &mut Sender,
    pushes: &mut VecDeque<(Token, Message)>,
    completions: &mut Completions,
) -> u64 {
    let mut sent = 0;
    let abandoned = sender.lane.is_abandoned();
    while let Some((token, message)) = pushes.pop_front() {
        if abandoned {
            completions.complete(token, Outcome::Failed(Error::ConnectionReset));
            continue;
        }
        match sender.send(message) {
            Ok(()) => {
                completions.complete(token, Outcome::Pushed);
                sent += 1;
            }
            Err(message) => {
                pushes.push_front((token, message));
                break;
            }
        }
    }
    sent
}

/// Gives messages to those who wait; returns how many, and whether anybody waits still.
fn serve_pops(
    receiver: &mut Receiver,
    popped_as: Option<QueueDescriptor>,
    arena: &Arena,
    completions: &mut Completions,
) -> (u64, bool) {
    let mut received = 0;
    while let Some(pop) = popped_as.and_then(|queue| completions.waiting_pop(queue)) {
        let data = match receiver.receive() {
            Some(message) => {
                received += 1;
                message.land(arena)
            }
            None if receiver.is_at_end() => ScatterGather::new(),
            None => return (received, true),
        };
        completions.popped(pop, data, None);
    }
    (received, false)
}

impl Module for ChannelQueues {
    fn name(&self) -> &str {
        "channel"
    }

    fn attach(&mut self, end: &mut Option<ChannelEnd>) -> Result<Handle, Error> {
        let queue = match end.take() {
            Some(ChannelEnd::Sender(sender)) => {
                sender.attach(self.sleeper.doorbell());
                Queue::Outgoing { sender, pushes: VecDeque::new() }
            }
            Some(ChannelEnd::Receiver(receiver)) => {
                receiver.attach(self.sleeper.doorbell());
                Queue::Incoming { receiver, popped_as: None }
            }
            None => return Err(Error::InvalidArgument),
        };
        Ok(self.queues.insert(queue))
    }

    fn push(
        &mut self,
        _time: &Timekeeper,
        handle: Handle,
        token: Token,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
        _departure: Departure,
        _completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        if to.is_some() {
            return Poll::Ready(Err(Error::NotSupported));
        }
        self.try_push(token, handle, std::mem::take(data))
    }

    fn pop(
        &mut self,
        _now: Instant,
        handle: Handle,
        descriptor: QueueDescriptor,
        _limit: PopLimit,
        _completions: &mut Completions,
    ) -> Poll<Result<Popped, Error>> {
        self.try_pop(handle, descriptor)
    }

    fn cancel(&mut self, handle: Handle, token: Token) {
        if let Ok(Queue::Outgoing { pushes, .. }) = self.queues.get_mut(handle) {
            pushes.retain(|(push, _)| *push != token);
        }
    }

    fn close(&mut self, _now: Instant, handle: Handle) {
        if self.queues.remove(handle).is_some() {
            self.waiting.retain(|&waiting| waiting != handle);
        }
    }

    fn poll(&mut self, _now: Instant, completions: &mut Completions) {
        self.sleeper.wake_up();
        if !self.waiting.is_empty() {
            self.serve_waiting(completions);
        }
    }

    fn wake_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        fds.push(self.sleeper.prepare_sleep());
        // What came before the announcement rang nobody.
        self.waiting.iter().all(|&handle| match self.queues.get(handle) {
            Ok(Queue::Outgoing { sender, .. }) => sender.lane.is_full() && !sender.lane.is_abandoned(),
            Ok(Queue::Incoming { receiver, .. }) => receiver.is_empty() && !receiver.is_at_end(),
            Err(_) => true,
        })
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.gauge("queues", self.queues.len() as u64);
        sink.counter("pushed", self.pushed);
        sink.counter("popped", self.popped);
    }
}
