//! Receive interrupts: a descriptor that becomes readable when a frame arrives, where the driver has such.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use dpdk_sys as sys;

use crate::events::Events;

/// A queue's receive interrupt.
#[derive(Debug)]
pub(crate) struct Interrupts {
    port: u16,
    queue: u16,
    /// Holds the driver's descriptor; DPDK empties that one as its kind wants it.
    events: OwnedFd,
    /// Always readable: for frames that came before the interrupt was armed.
    readable: OwnedFd,
    armed: Cell<bool>,
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds the queue's descriptor to those that are waited for, or takes it away.
fn control(port: u16, queue: u16, events: &OwnedFd, operation: u32) -> i32 {
    // SAFETY: the port was started with the queue; what DPDK does without, it refuses.
    unsafe {
        sys::rte_eth_dev_rx_intr_ctl_q(port, queue, events.as_raw_fd(), operation as i32, ptr::null_mut())
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        control(self.port, self.queue, &self.events, sys::RTE_INTR_EVENT_DEL);
    }
}

impl Interrupts {
    /// Sets the queue's interrupt up, which the started port was configured for; None when the driver has none after all.
    /// The descriptor becomes readable as well when something happens to the port.
    pub(crate) fn new(port: u16, queue: u16, port_events: &Events) -> Option<Self> {
        // SAFETY: makes a descriptor.
        let events = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).ok()?;
        // SAFETY: as above.
        let readable = owned(unsafe { libc::eventfd(1, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).ok()?;
        if control(port, queue, &events, sys::RTE_INTR_EVENT_ADD) != 0 {
            return None;
        }
        // DPDK takes what comes with an event for the address of an account of its own, unless it is null.
        let mut about = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: both descriptors are open, and `about` is read during the call alone.
        let added = unsafe {
            libc::epoll_ctl(events.as_raw_fd(), libc::EPOLL_CTL_ADD, port_events.wake_fd(), &raw mut about)
        };
        if added != 0 {
            return None;
        }
        let this = Self { port, queue, events, readable, armed: Cell::new(false) };
        this.arm();
        let works = this.armed.get();
        this.disarm();
        works.then_some(this)
    }

    fn arm(&self) {
        // SAFETY: the port is started and has the queue.
        let result = unsafe { sys::rte_eth_dev_rx_intr_enable(self.port, self.queue) };
        // A driver without the call has interrupts that are never switched off.
        self.armed.set(result == 0 || result == -libc::ENOTSUP);
    }

    /// Arms the interrupt and returns what becomes readable with the next frame, and when something happens to the port; None when
    /// it cannot be armed. `may_wait` is false when no frame can have come.
    pub(crate) fn wake_fd(&self, may_wait: bool) -> Option<RawFd> {
        if !self.armed.get() {
            self.arm();
        }
        if !self.armed.get() {
            return None;
        }
        // A frame that came between the last look and the arming raises no interrupt. Drivers that cannot count
        // have descriptors that stay readable while there is a frame.
        // SAFETY: the port is started and has the queue.
        let waiting = may_wait && unsafe { sys::rte_eth_rx_queue_count(self.port, self.queue) } > 0;
        Some(if waiting { self.readable_fd() } else { self.events.as_raw_fd() })
    }

    /// What is always readable.
    pub(crate) fn readable_fd(&self) -> RawFd {
        self.readable.as_raw_fd()
    }

    /// True when there is something to disarm.
    #[inline]
    pub(crate) fn are_armed(&self) -> bool {
        self.armed.get()
    }

    /// Ends waiting: the interrupt is switched off and what it raised is taken.
    #[cold]
    pub(crate) fn disarm(&self) {
        let mut event = MaybeUninit::<sys::rte_epoll_event>::uninit();
        // SAFETY: the port has the queue; there is room for one event, and no time to wait.
        unsafe {
            sys::rte_eth_dev_rx_intr_disable(self.port, self.queue);
            sys::rte_epoll_wait(self.events.as_raw_fd(), event.as_mut_ptr(), 1, 0);
        }
        self.armed.set(false);
    }
}
