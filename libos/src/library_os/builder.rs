//! Building a library OS.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::idle::Sleeper;
use super::options::Options;
use super::state::State;
use super::{IdleHook, Inner, LibOs};
use crate::executor::Executor;
use crate::memory::{ArenaConfig, Region};
use crate::time::{MonotonicClock, Timekeeper};
use crate::{Arena, Clock, Config, Instant, SetupError};

/// One part in so many of the memory is left to modules and devices when the program takes all it can get.
const DEVICE_PART: usize = 8;

/// Builds a [`LibOs`]. Without anything said it has the default configuration, the machine's monotonic
/// clock and an arena of its own.
#[must_use]
pub struct LibOsBuilder {
    config: Config,
    clock: Box<dyn Clock>,
    arena: Option<Arena>,
    shares_memory: bool,
    on_idle: Option<IdleHook>,
}

impl LibOsBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: Config::new(),
            clock: Box::new(MonotonicClock::new()),
            arena: None,
            shares_memory: false,
            on_idle: None,
        }
    }

    /// Takes the tables `[libos]` and `[memory]` of `config`.
    pub fn config(mut self, config: &Config) -> Self {
        self.config = config.clone();
        self
    }

    /// Where time comes from.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// The memory to share with modules that were made before; `[memory]` is then not used.
    pub fn arena(mut self, arena: Arena) -> Self {
        self.arena = Some(arena);
        self
    }

    /// Takes memory that a device can share with another process ([`Region::map_shared`]); of `[memory]`,
    /// `hugepages` is then not used. Without effect beside [`Self::arena`].
    pub fn shared_memory(mut self) -> Self {
        self.shares_memory = true;
        self
    }

    /// What to do when a wait finds nothing to do and the clock does not run by itself.
    ///
    /// The hook gets the time at which something next happens (a module's deadline, a timer or the
    /// wait's own timeout), moves its clock on or delivers what is under way, and returns true. When
    /// it returns false, or when there is no hook, the wait gives up with
    /// [`Error::TimedOut`](crate::Error::TimedOut) because nothing could ever end it. The hook
    /// may call the library OS, but not wait on it.
    pub fn on_idle(mut self, hook: impl FnMut(Option<Instant>) -> bool + 'static) -> Self {
        self.on_idle = Some(Box::new(hook));
        self
    }

    /// Builds the library OS, with no module installed.
    ///
    /// # Errors
    /// [`SetupError::Config`] for a mistake in `[libos]` or `[memory]`, [`SetupError::Memory`] when the
    /// arena cannot be mapped, [`SetupError::Device`] when the system has no event descriptor left.
    pub fn build(self) -> Result<LibOs, SetupError> {
        let options = Options::from_config(&self.config)?;
        let arena_config = ArenaConfig::from_config(&self.config)?;
        let device_arena = match self.arena {
            Some(arena) => arena,
            None if self.shares_memory => Arena::with_region(Region::map_shared(arena_config.region_bytes)?)?,
            None => Arena::new(&arena_config)?,
        };
        let arena = device_arena.leaving(device_arena.region().len() / DEVICE_PART);
        let executor = Executor::new()?;
        let time = Timekeeper::new(self.clock);
        let state = State::new(&options, time.is_real(), executor.tasks());
        Ok(LibOs {
            inner: Rc::new(Inner {
                state: RefCell::new(state),
                time,
                pushed: Cell::new(false),
                arena,
                device_arena,
                options,
                abandoned: RefCell::default(),
                on_idle: RefCell::new(self.on_idle),
                sleeper: RefCell::new(Sleeper::default()),
                executor,
            }),
        })
    }
}

impl std::fmt::Debug for LibOsBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LibOsBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
