//! What the tests share.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::memory::ArenaConfig;
use crate::metrics::MetricsSink;
use crate::module::{Completions, Departure, Popped};
use crate::time::{ManualClock, Timekeeper};
use crate::{
    Arena, Buffer, Completion, Config, Domain, Error, Handle, Instant, LibOs, MemoryQueues, Module, Outcome,
    PopLimit, QueueDescriptor, ScatterGather, SocketKind, Token,
};

/// A small arena.
pub(crate) fn arena() -> Arena {
    Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap()
}

/// A library OS with in-memory queues of `limit` elements, on the machine's clock.
pub(crate) fn with_queues(limit: usize) -> LibOs {
    with_queues_and(limit, &Config::new())
}

/// As [`with_queues`], with a configuration.
pub(crate) fn with_queues_and(limit: usize, config: &Config) -> LibOs {
    let libos = LibOs::builder().arena(arena()).config(config).build().unwrap();
    libos.install(MemoryQueues::new(limit)).unwrap();
    libos
}

/// A buffer with the text.
pub(crate) fn buffer(libos: &LibOs, text: &str) -> Buffer {
    libos.arena().copy_from(text.as_bytes()).unwrap().freeze()
}

/// What a completed pop brought.
pub(crate) fn popped(completion: &Completion) -> String {
    match &completion.outcome {
        Outcome::Popped { data, from: None } => String::from_utf8(data.to_vec()).unwrap(),
        other => panic!("not a pop: {other:?}"),
    }
}

pub(crate) const SECOND: Option<Duration> = Some(Duration::from_secs(1));
pub(crate) const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// What a [`Puppet`] did, and what it is to do at its next poll.
#[derive(Default)]
pub(crate) struct Strings {
    pub(crate) submitted: Vec<Token>,
    pub(crate) cancelled: Vec<Token>,
    /// How often it was asked for a pop.
    pub(crate) asked: usize,
    pub(crate) popped_as: Option<QueueDescriptor>,
    /// What there is to be popped.
    pub(crate) arrived: VecDeque<Buffer>,
    pub(crate) closed: Vec<Handle>,
    pub(crate) next_handle: u64,
    pub(crate) polls: Vec<Instant>,
    pub(crate) to_complete: VecDeque<(Token, Outcome)>,
    pub(crate) to_accept: VecDeque<(Token, Handle)>,
    pub(crate) accept_results: Vec<Result<(), Error>>,
    pub(crate) needs_poll: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) pending_work: bool,
    /// Called from inside a poll.
    pub(crate) inside: Option<Box<dyn FnMut()>>,
}

/// A module that does what the test says.
#[derive(Clone, Default)]
pub(crate) struct Puppet(pub(crate) Rc<RefCell<Strings>>);

pub(crate) const PEER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 7);

impl Puppet {
    /// A library OS in virtual time that has this module, and its clock.
    pub(crate) fn installed() -> (LibOs, Self, ManualClock) {
        Self::installed_with(&Config::new())
    }

    pub(crate) fn installed_with(config: &Config) -> (LibOs, Self, ManualClock) {
        let clock = ManualClock::new();
        let libos = LibOs::builder().arena(arena()).clock(clock.clone()).config(config).build().unwrap();
        let puppet = Self::default();
        libos.install(puppet.clone()).unwrap();
        (libos, puppet, clock)
    }

    pub(crate) fn complete(&self, token: Token, outcome: Outcome) {
        self.0.borrow_mut().to_complete.push_back((token, outcome));
    }
}

impl Module for Puppet {
    fn name(&self) -> &str {
        "puppet"
    }

    fn socket(&mut self, _domain: Domain, _kind: SocketKind) -> Result<Handle, Error> {
        let mut strings = self.0.borrow_mut();
        strings.next_handle += 1;
        Ok(Handle(strings.next_handle))
    }

    fn accept(
        &mut self,
        _now: Instant,
        _handle: Handle,
        token: Token,
        _completions: &mut Completions,
    ) -> Result<(), Error> {
        self.0.borrow_mut().submitted.push(token);
        Ok(())
    }

    fn connect(
        &mut self,
        _now: Instant,
        _handle: Handle,
        token: Token,
        _peer: SocketAddr,
        _completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        self.0.borrow_mut().submitted.push(token);
        Poll::Pending
    }

    fn push(
        &mut self,
        _time: &Timekeeper,
        _handle: Handle,
        token: Token,
        _data: &mut ScatterGather,
        _to: Option<&SocketAddr>,
        _departure: Departure,
        _completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        self.0.borrow_mut().submitted.push(token);
        Poll::Pending
    }

    fn pop(
        &mut self,
        _now: Instant,
        _handle: Handle,
        queue: QueueDescriptor,
        _limit: PopLimit,
        _completions: &mut Completions,
    ) -> Poll<Result<Popped, Error>> {
        let mut strings = self.0.borrow_mut();
        strings.asked += 1;
        strings.popped_as = Some(queue);
        match strings.arrived.pop_front() {
            Some(data) => Poll::Ready(Ok(Popped { data: data.into(), from: None })),
            None => Poll::Pending,
        }
    }

    fn cancel(&mut self, _handle: Handle, token: Token) {
        self.0.borrow_mut().cancelled.push(token);
    }

    fn close(&mut self, _now: Instant, handle: Handle) {
        self.0.borrow_mut().closed.push(handle);
    }

    fn poll(&mut self, now: Instant, completions: &mut Completions) {
        let mut strings = self.0.borrow_mut();
        strings.polls.push(now);
        for (token, outcome) in std::mem::take(&mut strings.to_complete) {
            completions.complete(token, outcome);
        }
        for (token, handle) in std::mem::take(&mut strings.to_accept) {
            let result = completions.accepted(token, handle, PEER);
            strings.accept_results.push(result);
        }
        while !strings.arrived.is_empty()
            && let Some(pop) = strings.popped_as.and_then(|queue| completions.waiting_pop(queue))
        {
            let data = strings.arrived.pop_front().map(ScatterGather::from).unwrap_or_default();
            completions.popped(pop, data, None);
        }
        let inside = strings.inside.take();
        drop(strings);
        if let Some(mut inside) = inside {
            inside();
        }
    }

    fn needs_poll(&self) -> bool {
        self.0.borrow().needs_poll
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.0.borrow().deadline
    }

    fn has_pending_work(&self) -> bool {
        self.0.borrow().pending_work
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.counter("polled", self.0.borrow().polls.len() as u64);
    }
}
