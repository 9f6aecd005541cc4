//! What DPDK says of a port on a thread of its own: that its link came or went, and that its device goes away.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dpdk_sys as sys;
use libos::SetupError;

use crate::failure::{check, describe, failed};

/// The link came or went; the device was pulled out; its port was closed by somebody else.
const EVENTS: [sys::rte_eth_event_type; 3] =
    [sys::RTE_ETH_EVENT_INTR_LSC, sys::RTE_ETH_EVENT_INTR_RMV, sys::RTE_ETH_EVENT_DESTROY];

/// What has happened to a port. At one address from [`Self::watch`] to [`Self::unwatch`].
#[derive(Debug)]
pub(crate) struct Events {
    /// Changes with everything that happens.
    generation: AtomicU32,
    /// Nothing is to be asked of the port any more.
    gone: AtomicBool,
    /// The port is no more, and its number may become another's.
    destroyed: AtomicBool,
    /// In words.
    reason: OnceLock<String>,
    /// Written to with everything that happens: wakes threads that sleep.
    signal: OwnedFd,
}

impl Events {
    pub(crate) fn new(port: &str) -> Result<Self, SetupError> {
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(failed(port, "eventfd", io::Error::last_os_error().to_string()));
        }
        Ok(Self {
            generation: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            destroyed: AtomicBool::new(false),
            reason: OnceLock::new(),
            // SAFETY: a new descriptor that nobody else has.
            signal: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }

    /// Another number than before when something has happened.
    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// True once nothing is to be asked of the port any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// True once the port itself is gone, and what was told of it is void.
    pub(crate) fn is_destroyed(&self) -> bool {
        self.destroyed.load(Ordering::Relaxed)
    }

    /// The port was found to be no more.
    pub(crate) fn note_destroyed(&self) {
        self.destroyed.store(true, Ordering::Relaxed);
    }

    /// Why nothing is to be asked of the port; None while all is well.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.is_gone().then(|| self.reason.get().map_or("", String::as_str))
    }

    /// What is written to with everything that happens, and never read.
    pub(crate) fn wake_fd(&self) -> RawFd {
        self.signal.as_raw_fd()
    }

    /// Nothing is to be asked of the port any more, for the reason given; the first one stays.
    pub(crate) fn give_up(&self, reason: impl FnOnce() -> String) {
        self.reason.get_or_init(reason);
        self.gone.store(true, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        let one = 1_u64;
        // SAFETY: as many bytes as the number has. It fails when the counter is full, and then it is readable.
        unsafe { libc::write(self.signal.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }

    /// Asks DPDK to say what happens.
    pub(crate) fn watch(&self, id: u16, port: &str) -> Result<(), SetupError> {
        for event in EVENTS {
            // SAFETY: this object stays where it is until `unwatch`.
            let result =
                unsafe { sys::rte_eth_dev_callback_register(id, event, Some(note), self.as_argument()) };
            check(port, "rte_eth_dev_callback_register", result)?;
        }
        Ok(())
    }

    /// Undoes [`Self::watch`], as far as that was done.
    pub(crate) fn unwatch(&self, id: u16) {
        for event in EVENTS {
            // SAFETY: as it was registered, if it was.
            unsafe { sys::rte_eth_dev_callback_unregister(id, event, Some(note), self.as_argument()) };
        }
    }

    fn as_argument(&self) -> *mut c_void {
        (&raw const *self).cast_mut().cast()
    }
}

/// What DPDK calls, on a thread of its own, when something happens.
///
/// # Safety
/// `events` is the address that was registered.
unsafe extern "C" fn note(
    _port: u16,
    event: sys::rte_eth_event_type,
    events: *mut c_void,
    _more: *mut c_void,
) -> c_int {
    // SAFETY: it lives until the callback is unregistered, and only what many threads may use is used.
    let events = unsafe { &*events.cast::<Events>() };
    let event = match event {
        sys::RTE_ETH_EVENT_DESTROY => {
            events.note_destroyed();
            "RTE_ETH_EVENT_DESTROY"
        }
        sys::RTE_ETH_EVENT_INTR_RMV => "RTE_ETH_EVENT_INTR_RMV",
        _ => {
            events.tell();
            return 0;
        }
    };
    events.give_up(|| format!("rte_eth_rx_burst: {}: DPDK has sent {event}", describe(libc::ENODEV)));
    0
}
