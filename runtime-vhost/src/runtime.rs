//! The runtime: frames between one queue pair of the link and the stack.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::sync::Arc;

use libos::metrics::MetricsSink;
use libos::runtime::{MemoryAccess, RxBatch};
use libos::{Arena, Capabilities, Error, FrameBatch, Instant, Runtime, SetupError};

use crate::back::{self, Back};
use crate::config::{VhostConfig, VhostRole};
use crate::counters::VhostCounters;
use crate::features::Features;
use crate::front::{self, Front, ring_bell};
use crate::link::{LinkHandle, Phase};
use crate::system::Watch;

/// One queue pair of a link, not yet tied to a thread's memory.
///
/// May be sent to the thread that is to serve it; [`Vhost::new`] makes a runtime of it there. The link ends with the
/// last queue.
#[derive(Debug)]
pub struct VhostQueue {
    handle: Arc<LinkHandle>,
    features: Features,
    index: usize,
}

impl VhostQueue {
    /// Meets the other end, and agrees with it on what both can do.
    ///
    /// # Errors
    /// [`SetupError::Config`] for a value that no link takes; [`SetupError::Device`] when the other end does not come
    /// in time or cannot do what is needed.
    pub fn open(config: &VhostConfig) -> Result<Vec<Self>, SetupError> {
        config.validate()?;
        let (handle, features) = match config.role {
            VhostRole::Front => LinkHandle::start(config, front::control, |phase| match phase {
                Phase::Agreed(features) | Phase::Up(features) => Some(*features),
                Phase::Connecting | Phase::Failed { .. } => None,
            }),
            VhostRole::Back => LinkHandle::start(config, back::control, |phase| match phase {
                Phase::Up(features) => Some(*features),
                Phase::Connecting | Phase::Agreed(_) | Phase::Failed { .. } => None,
            }),
        }?;
        let handle = Arc::new(handle);
        let queue = |index| Self { handle: handle.clone(), features, index };
        Ok((0..config.queues).map(queue).collect())
    }

    /// What was agreed on with the other end.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.features.capabilities(&self.handle.config)
    }
}

#[derive(Debug)]
enum End {
    Front(Front),
    Back(Back),
}

/// One queue pair of a link: a [`Runtime`] for the thread whose memory it was given.
#[derive(Debug)]
pub struct Vhost {
    end: RefCell<End>,
    handle: Arc<LinkHandle>,
    features: Features,
    index: usize,
    name: String,
    /// What was last seen in the mailbox.
    generation: u32,
    failed: bool,
    /// Notifications are asked for, since the thread is about to sleep, or slept.
    notified: Cell<bool>,
    watch: Option<Watch>,
    counters: VhostCounters,
    /// Those made on the way to sleep.
    notifications: Cell<u64>,
}

impl Vhost {
    /// Meets the other end with queues that all serve the calling thread, one runtime each. For queues on several
    /// threads see [`VhostQueue::open`].
    ///
    /// # Errors
    /// As [`VhostQueue::open`] and [`Self::new`].
    pub fn open(config: &VhostConfig, arena: &Arena) -> Result<Vec<Self>, SetupError> {
        let queues = VhostQueue::open(config)?;
        let handle = queues.first().map(|queue| queue.handle.clone());
        let queues = queues.into_iter().map(|queue| Self::new(queue, arena)).collect::<Result<_, _>>()?;
        if let Some(handle) = handle {
            handle.wait_for(|phase| matches!(phase, Phase::Up(_)).then_some(()))?;
        }
        Ok(queues)
    }

    /// Makes a runtime of a queue. Frames are received into memory of `arena`. That of a front end has to be one
    /// that can be shared: [`libos::memory::Region::map_shared`].
    ///
    /// # Errors
    /// [`SetupError::Device`] when a front end's memory cannot be shared or descriptors run out,
    /// [`SetupError::Memory`] when it has no room for the rings.
    pub fn new(queue: VhostQueue, arena: &Arena) -> Result<Self, SetupError> {
        let VhostQueue { handle, features, index } = queue;
        let config = &handle.config;
        let end = match config.role {
            VhostRole::Front => End::Front(Front::new(handle.clone(), features, index, arena)?),
            VhostRole::Back => End::Back(Back::new(handle.clone(), index, arena)),
        };
        let mut vhost = Self {
            end: RefCell::new(end),
            features,
            index,
            name: config.name(),
            generation: 0,
            failed: false,
            notified: Cell::new(false),
            watch: None,
            counters: VhostCounters::default(),
            notifications: Cell::new(0),
            handle,
        };
        vhost.refresh().map_err(|error| SetupError::Device {
            device: vhost.name.clone(),
            call: "epoll_create",
            reason: error.to_string(),
        })?;
        Ok(vhost)
    }

    /// What this queue has counted.
    #[must_use]
    pub fn counters(&self) -> VhostCounters {
        let notifications = self.counters.notifications + self.notifications.get();
        VhostCounters { notifications, ..self.counters }
    }

    #[cfg(test)]
    pub(crate) fn handle(&self) -> &LinkHandle {
        &self.handle
    }

    /// Why the link failed, if it did: the other end left, or broke the rules.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        match self.handle.link.phase() {
            Phase::Failed { reason, .. } => Some(reason),
            Phase::Connecting | Phase::Agreed(_) | Phase::Up(_) => None,
        }
    }

    /// Looks into the mailbox.
    #[cold]
    #[inline(never)]
    fn refresh(&mut self) -> std::io::Result<()> {
        let cell = &self.handle.link.pairs[self.index];
        self.generation = cell.generation();
        self.failed = self.failure().is_some();
        self.notified.set(false);
        self.watch = Some(match self.end.get_mut() {
            End::Front(front) => {
                front.refresh();
                front.watch()?
            }
            End::Back(back) => {
                back.refresh();
                back.watch()?
            }
        });
        cell.set_seen(self.generation);
        Ok(())
    }

    /// What has to be looked at before the rings are.
    #[inline]
    fn prepare(&mut self) -> Result<(), Error> {
        if self.handle.link.pairs[self.index].generation() != self.generation && self.refresh().is_err() {
            self.handle.link.fail("no descriptor left to watch the rings with", false);
        }
        if self.notified.get() {
            self.wake_up();
        }
        if self.failed { Err(Error::DeviceFailed) } else { Ok(()) }
    }

    /// Asks for no more notifications: the thread polls again.
    #[cold]
    #[inline(never)]
    fn wake_up(&mut self) {
        self.notified.set(false);
        match self.end.get_mut() {
            End::Front(front) => front.set_notified(false),
            End::Back(back) => back.set_notified(false, &mut self.counters),
        };
        if let Some(watch) = &self.watch {
            watch.clear();
        }
    }
}

impl Runtime for Vhost {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.features.capabilities(&self.handle.config)
    }

    fn memory_access(&self) -> MemoryAccess {
        match self.handle.config.role {
            // Of the library OS's region, which has to be one that can be shared.
            VhostRole::Front => MemoryAccess::Dma,
            VhostRole::Back => MemoryAccess::Copy,
        }
    }

    #[inline]
    fn receive(&mut self, _now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        self.prepare()?;
        match self.end.get_mut() {
            End::Front(front) => front.receive(batch, &mut self.counters),
            End::Back(back) => back.receive(batch, &mut self.counters),
        }
    }

    #[inline]
    fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        self.prepare()?;
        match self.end.get_mut() {
            End::Front(front) => front.transmit(batch, &mut self.counters),
            End::Back(back) => back.transmit(batch, &mut self.counters),
        }
    }

    /// Asked for by a thread that is about to sleep, so this is when notifications are asked for. They are until
    /// the next [`Self::receive`].
    fn wake_fd(&self) -> Option<RawFd> {
        let watch = self.watch.as_ref()?;
        let mut end = self.end.try_borrow_mut().ok()?;
        let mut notified = VhostCounters::default();
        let waiting = match &mut *end {
            End::Front(front) => front.set_notified(true),
            End::Back(back) if back.has_to_poll() => return None,
            End::Back(back) => back.set_notified(true, &mut notified),
        };
        self.notifications.set(self.notifications.get() + notified.notifications);
        self.notified.set(true);
        let cell = &self.handle.link.pairs[self.index];
        if waiting || cell.generation() != self.generation {
            // It came before anybody knew that we want to be told.
            ring_bell(&cell.wake);
        }
        Some(watch.fd())
    }

    fn failure(&self) -> Option<String> {
        Self::failure(self).map(|reason| format!("{}: {reason}", self.name))
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.counters().write(sink);
    }
}
