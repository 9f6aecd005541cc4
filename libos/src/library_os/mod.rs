//! The library OS itself: one handle over the descriptors, the operations, the installed modules, the
//! clock and the executor.

mod builder;
mod calls;
mod claims;
mod idle;
mod lateness;
mod options;
mod poll;
mod shut_down;
mod state;
mod wait;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;

pub use builder::LibOsBuilder;
pub(crate) use calls::Claim;
pub(crate) use idle::Idling;
use options::Options;
pub(crate) use state::Abandoned;
use state::State;

use crate::executor::Executor;
use crate::metrics::{MetricsSink, Snapshot, SnapshotWriter};
use crate::time::Timekeeper;
use crate::{Arena, Error, Instant, Module};

/// Called when a wait can make no progress by itself; see [`LibOsBuilder::on_idle`].
type IdleHook = Box<dyn FnMut(Option<Instant>) -> bool>;

/// The library OS of one core: a handle, of which clones are cheap and stand for the same one.
///
/// It starts empty; [`LibOs::install`] adds modules that serve queues. Everything happens on the
/// thread that calls: time passes and packets move while the program is inside [`LibOs::poll`], a
/// wait, or [`LibOs::block_on`]. Calls take `&self`. A call from inside a module's
/// callback fails with [`Error::Busy`]; a call from a waker is fine.
///
/// Spawned tasks usually hold clones of the handle and so keep the library OS alive;
/// [`LibOs::abort_tasks`] ends them. With the last handle modules, queues and memory go as well, and so do connections:
/// what was pushed and not acknowledged is lost, and peers are told nothing. [`LibOs::shut_down`] ends them in order.
#[derive(Clone)]
pub struct LibOs {
    inner: Rc<Inner>,
}

pub(crate) struct Inner {
    state: RefCell<State>,
    time: Timekeeper,
    /// True when there was a push since the last poll. Beside the state, as it decides how a push begins.
    pushed: Cell<bool>,
    /// The program's handle to the memory, and the one of modules and devices.
    arena: Arena,
    device_arena: Arena,
    options: Options,
    /// What was dropped while the state was borrowed, to be given up at the next poll.
    abandoned: RefCell<Vec<Abandoned>>,
    on_idle: RefCell<Option<IdleHook>>,
    sleeper: RefCell<idle::Sleeper>,
    executor: Executor,
}

/// An installed module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleId(usize);

impl LibOs {
    /// Starts building a library OS.
    pub fn builder() -> LibOsBuilder {
        LibOsBuilder::new()
    }

    /// Adds a module. Sockets and queues are made by the first module, in the order of
    /// installation, that serves their kind.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a callback.
    pub fn install(&self, module: impl Module + 'static) -> Result<ModuleId, Error> {
        self.install_boxed(Box::new(module))
    }

    /// As [`Self::install`], for a module whose type the program does not know.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn install_boxed(&self, module: Box<dyn Module>) -> Result<ModuleId, Error> {
        let mut state = self.state()?;
        state.modules.push(module);
        Ok(ModuleId(state.modules.len() - 1))
    }

    /// The memory that the program shares with all modules. Allocating fails while an eighth of it is
    /// still free: that part is left to modules and devices.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.inner.arena
    }

    /// The same memory without that limit, to make modules and devices with.
    #[must_use]
    pub fn device_arena(&self) -> &Arena {
        &self.inner.device_arena
    }

    /// The time of the last poll, or of a push after it: no clock is read.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.inner.time.last()
    }

    /// Why a device failed, in words: which device, which call, and what the system said of it. None while all of them work.
    /// What needs a device that failed ends with [`Error::DeviceFailed`].
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a callback.
    pub fn device_failure(&self) -> Result<Option<String>, Error> {
        Ok(self.state()?.modules.iter().find_map(|module| module.failure()))
    }

    /// All metrics of the library OS, the arena and the modules.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a callback.
    pub fn metrics(&self) -> Result<Snapshot, Error> {
        let state = self.state()?;
        let mut writer = SnapshotWriter::new();
        writer.enter("libos");
        state.metrics(&mut writer);
        writer.gauge("tasks", self.inner.executor.live_tasks() as u64);
        writer.leave();
        let arena = self.inner.arena.stats();
        writer.enter("arena");
        writer.gauge("region_bytes", arena.region_bytes as u64);
        writer.gauge("used_bytes", arena.used_bytes as u64);
        writer.gauge("peak_used_bytes", arena.peak_used_bytes as u64);
        writer.gauge("live_buffers", arena.live_buffers as u64);
        writer.gauge("lent_bytes", arena.lent_bytes as u64);
        writer.counter("lent_copies", arena.lent_copies);
        writer.counter("failed_allocations", arena.failed_allocations);
        arena.copied_bytes.write(&mut writer);
        writer.leave();
        #[cfg(feature = "global-allocator")]
        crate::memory::GlobalAllocator::stats().write(&mut writer);
        for module in &state.modules {
            writer.enter(module.name());
            module.metrics(&mut writer);
            writer.leave();
        }
        Ok(writer.finish())
    }

    /// How many polls came late so far: the program kept the core while peers were waiting.
    #[must_use]
    pub fn late_polls(&self) -> u64 {
        self.state().map_or(0, |state| state.lateness.late_polls)
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.inner.executor
    }

    pub(crate) fn read_clock(&self) -> Instant {
        self.inner.time.peek()
    }

    #[inline(always)]
    fn state(&self) -> Result<RefMut<'_, State>, Error> {
        let mut state = self.state_as_is()?;
        state.tables.operations.unfold();
        Ok(state)
    }

    /// The state with a push beside the table of operations, if one was kept there: for who knows about it.
    #[inline(always)]
    fn state_as_is(&self) -> Result<RefMut<'_, State>, Error> {
        self.inner.state.try_borrow_mut().map_err(|_| Error::Busy)
    }

    /// Ends the borrow, and then calls the wakers that were collected during it.
    #[inline(always)]
    fn release(&self, state: RefMut<'_, State>) {
        if !state.tables.foreign_wakers.is_empty() {
            self.call_wakers(state);
        }
    }

    #[cold]
    fn call_wakers(&self, mut state: RefMut<'_, State>) {
        let mut wakers = std::mem::take(&mut state.tables.foreign_wakers);
        drop(state);
        wakers.drain(..).for_each(std::task::Waker::wake);
        // The list goes back for its memory, unless a waker has filled another one.
        if let Ok(mut state) = self.inner.state.try_borrow_mut()
            && state.tables.foreign_wakers.capacity() == 0
        {
            state.tables.foreign_wakers = wakers;
        }
    }
}

impl std::fmt::Debug for LibOs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LibOs").field("now", &self.now()).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) use tests::support as test_support;

#[cfg(test)]
mod tests;
