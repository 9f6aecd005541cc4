//! A device that goes away: what DPDK says of it, on a thread of its own, and what it is to the program.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk_sys as sys;
use libos::SetupError;

use crate::failure::{check, describe, failed};

/// The events by which a device goes away: pulled out, or its port closed by somebody else.
const EVENTS: [sys::rte_eth_event_type; 2] = [sys::RTE_ETH_EVENT_INTR_RMV, sys::RTE_ETH_EVENT_DESTROY];

/// Whether a port's device is still there. At one address from [`Self::watch`] to [`Self::unwatch`].
#[derive(Debug)]
pub(crate) struct Removal {
    /// Nothing is to be asked of the port any more.
    gone: AtomicBool,
    /// The port is no more, and its number may become another's.
    destroyed: AtomicBool,
    /// In words.
    reason: OnceLock<String>,
    /// Readable once it is gone: wakes threads that sleep.
    signal: OwnedFd,
}

impl Removal {
    pub(crate) fn new(port: &str) -> Result<Self, SetupError> {
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(failed(port, "eventfd", io::Error::last_os_error().to_string()));
        }
        Ok(Self {
            gone: AtomicBool::new(false),
            destroyed: AtomicBool::new(false),
            reason: OnceLock::new(),
            // SAFETY: a new descriptor that nobody else has.
            signal: unsafe { OwnedFd::from_raw_fd(fd) },
        })
    }

    /// True once nothing is to be asked of the port any more.
    #[inline]
    pub(crate) fn has_happened(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// True once the port itself is gone, and what was told of it is void.
    pub(crate) fn is_complete(&self) -> bool {
        self.destroyed.load(Ordering::Relaxed)
    }

    /// Why nothing is to be asked of the port; None while all is well.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.has_happened().then(|| self.reason.get().map_or("", String::as_str))
    }

    /// What becomes readable when it happens.
    pub(crate) fn wake_fd(&self) -> RawFd {
        self.signal.as_raw_fd()
    }

    /// It has happened, for the reason given; the first one stays.
    pub(crate) fn happen(&self, reason: impl FnOnce() -> String) {
        self.reason.get_or_init(reason);
        self.gone.store(true, Ordering::Release);
        let one = 1_u64;
        // SAFETY: as many bytes as the number has. It fails when the counter is full, and then it is readable.
        unsafe { libc::write(self.signal.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }

    /// Asks DPDK to say when the device goes away.
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

/// What DPDK calls, on a thread of its own, when a device goes away.
///
/// # Safety
/// `removal` is the address that was registered.
unsafe extern "C" fn note(
    _port: u16,
    event: sys::rte_eth_event_type,
    removal: *mut c_void,
    _more: *mut c_void,
) -> c_int {
    // SAFETY: it lives until the callback is unregistered, and only what many threads may use is used.
    let removal = unsafe { &*removal.cast::<Removal>() };
    let event = if event == sys::RTE_ETH_EVENT_DESTROY {
        removal.destroyed.store(true, Ordering::Relaxed);
        "RTE_ETH_EVENT_DESTROY"
    } else {
        "RTE_ETH_EVENT_INTR_RMV"
    };
    removal.happen(|| format!("rte_eth_rx_burst: {}: DPDK has sent {event}", describe(libc::ENODEV)));
    0
}
