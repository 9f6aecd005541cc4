//! What the control thread and the queues of one device share: how far the link is, and for each queue pair a mailbox.
//!
//! The control protocol has a thread of its own, so that a peer which stops in the middle of a message holds up nobody
//! who sends or receives packets. A queue reads one number per poll, [`PairCell::generation`], and looks
//! into its mailbox only when that has changed.

pub(crate) mod socket;

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libos::SetupError;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::back::BackRings;
use crate::config::VhostConfig;
use crate::features::Features;
use crate::front::FrontRings;
use crate::system;

/// Between two looks at whether a queue has seen what it has to see. It is woken before.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// More than anything is waited for.
pub(crate) const FOREVER: Duration = Duration::from_secs(1 << 32);

/// How far the link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waiting for the other end.
    Connecting,
    /// Both know what they can do; the rings are not there yet.
    Agreed(Features),
    /// Packets can pass.
    Up(Features),
    /// The other end is gone, or broke the rules.
    Failed {
        reason: String,
        /// It can be using none of our memory any more.
        left: bool,
    },
}

/// A queue pair's mailbox.
#[derive(Debug)]
pub(crate) struct PairCell {
    /// Changes whenever the queue has to look.
    generation: AtomicU32,
    /// The last generation that the queue has seen, and since when it uses nothing older.
    seen: AtomicU32,
    /// The queue is no more.
    gone: AtomicBool,
    /// Wakes the queue's thread when it sleeps.
    pub wake: EventFd,
    /// For a back end: the rings to serve.
    pub back: Mutex<BackRings>,
    /// From a front end: the rings it made.
    pub front: Mutex<FrontRings>,
}

impl PairCell {
    fn new() -> io::Result<Self> {
        Ok(Self {
            generation: AtomicU32::new(0),
            seen: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            wake: event_fd()?,
            back: Mutex::default(),
            front: Mutex::default(),
        })
    }

    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// The queue has seen `generation`, and uses nothing of before.
    pub fn set_seen(&self, generation: u32) {
        self.seen.store(generation, Ordering::Release);
    }

    /// The queue uses nothing any more.
    pub fn set_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Has the queue look into its mailbox.
    pub fn notify(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        // It cannot fail in a way that matters: a full counter wakes as well.
        let _ = self.wake.write(1);
    }

    /// True when the queue has looked since the last [`Self::notify`].
    fn is_seen(&self) -> bool {
        self.gone.load(Ordering::Acquire) || self.seen.load(Ordering::Acquire) == self.generation()
    }
}

/// One device.
#[derive(Debug)]
pub(crate) struct Link {
    phase: Mutex<Phase>,
    changed: Condvar,
    closing: AtomicBool,
    stream: Mutex<Option<UnixStream>>,
    /// Why the queues want no more of the other end, which is to be hung up on and another one waited for.
    given_up: Mutex<Option<String>>,
    /// Wakes the control thread.
    pub control: EventFd,
    pub pairs: Box<[PairCell]>,
}

/// Locks also what a thread that panicked left behind: each of these is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn event_fd() -> io::Result<EventFd> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
}

impl Link {
    fn new(queues: usize) -> io::Result<Self> {
        Ok(Self {
            phase: Mutex::new(Phase::Connecting),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
            stream: Mutex::new(None),
            given_up: Mutex::new(None),
            control: event_fd()?,
            pairs: (0..queues).map(|_| PairCell::new()).collect::<Result<_, _>>()?,
        })
    }

    pub fn phase(&self) -> Phase {
        lock(&self.phase).clone()
    }

    /// Goes on to `phase`, unless the link has failed.
    pub fn set_phase(&self, phase: Phase) {
        let mut current = lock(&self.phase);
        if !matches!(*current, Phase::Failed { .. }) {
            *current = phase;
        }
        self.changed.notify_all();
    }

    /// Ends the link: all queues fail from now on. The first reason stays.
    pub fn fail(&self, reason: impl Into<String>, left: bool) {
        self.set_phase(Phase::Failed { reason: reason.into(), left });
        self.hang_up();
        self.pairs.iter().for_each(PairCell::notify);
    }

    /// Ends this connection, and not the link. The first reason stays.
    pub fn give_up_peer(&self, reason: String) {
        lock(&self.given_up).get_or_insert(reason);
        self.hang_up();
    }

    /// Why the other end was given up by [`Self::give_up_peer`], if it was. Told once.
    pub fn reason_given_up(&self) -> Option<String> {
        lock(&self.given_up).take()
    }

    /// True once nobody needs the link any more.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Remembers the connection, so that [`Self::hang_up`] ends whatever waits for it.
    pub fn set_stream(&self, stream: &UnixStream) -> Result<(), String> {
        let stream = stream.try_clone().map_err(|error| error.to_string())?;
        *lock(&self.stream) = Some(stream);
        if self.is_closing() { Err("closed".to_owned()) } else { Ok(()) }
    }

    fn hang_up(&self) {
        if let Some(stream) = lock(&self.stream).take() {
            // Fails only when the other end was faster.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.hang_up();
        let _ = self.control.write(1);
        self.changed.notify_all();
    }

    /// Something that [`Self::wait`] waits for may have come.
    pub fn announce(&self) {
        // Whoever is about to wait has looked under this lock.
        drop(lock(&self.phase));
        self.changed.notify_all();
    }

    /// Waits until `done` says something, which is asked whenever the phase changes or something is announced.
    pub fn wait<T>(&self, deadline: Instant, mut done: impl FnMut(&Phase) -> Option<T>) -> Option<T> {
        let mut phase = lock(&self.phase);
        loop {
            if let Some(result) = done(&phase) {
                return Some(result);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            phase = self.changed.wait_timeout(phase, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the queue has seen what its mailbox says, so that nothing of before is in use. False when it does not
    /// look for too long.
    pub fn wait_until_seen(&self, pair: &PairCell, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        while !pair.is_seen() {
            if self.is_closing() || Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }
}

/// A device's link and its control thread, which ends with the last queue.
#[derive(Debug)]
pub(crate) struct LinkHandle {
    pub link: Arc<Link>,
    pub config: VhostConfig,
    thread: Option<JoinHandle<()>>,
}

impl LinkHandle {
    /// Starts the control thread, which does `control`, and waits until `ready` says that the link is far enough.
    pub fn start<T>(
        config: &VhostConfig,
        control: impl FnOnce(&Arc<Link>, &VhostConfig) -> Result<(), String> + Send + 'static,
        ready: impl Fn(&Phase) -> Option<T>,
    ) -> Result<(Self, T), SetupError> {
        let failed = |call, reason: String| SetupError::Device { device: config.name(), call, reason };
        let system = |call| move |error: io::Error| failed(call, error.to_string());
        let link = Arc::new(Link::new(config.queues).map_err(system("eventfd"))?);
        let thread = std::thread::Builder::new()
            .name("vhost-control".to_owned())
            .spawn({
                let (link, config) = (link.clone(), config.clone());
                move || {
                    system::block_signals();
                    if let Err(reason) = control(&link, &config) {
                        link.fail(reason, false);
                    }
                }
            })
            .map_err(system("thread"))?;
        let handle = Self { link, config: config.clone(), thread: Some(thread) };
        let ready = handle.wait_for(ready)?;
        Ok((handle, ready))
    }

    /// Waits until `ready` says that the link is far enough, as long as the configuration allows.
    pub fn wait_for<T>(&self, ready: impl Fn(&Phase) -> Option<T>) -> Result<T, SetupError> {
        let failed = |call, reason: String| SetupError::Device { device: self.config.name(), call, reason };
        let deadline = Instant::now() + self.config.wait_for_peer.min(FOREVER);
        let outcome = self.link.wait(deadline, |phase| match phase {
            Phase::Failed { reason, .. } => Some(Err(failed("negotiate", reason.clone()))),
            phase => ready(phase).map(Ok),
        });
        let ms = self.config.wait_for_peer.as_millis();
        outcome.unwrap_or_else(|| {
            let reason = format!("none came within {ms} ms (vhost.wait_for_peer_ms)");
            Err(failed("wait for the other end", reason))
        })
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.link.close();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}
