//! Telling a front end that does not trust us as little as we trust it.
//!
//! An event descriptor refuses to be added to when it is full, if it was told not to block; and who gave it to us shares that
//! setting, may change it at any time, and fill it: a write would then never return. So the kernel is asked to signal it when an
//! operation of ours is complete, which it does without waiting for anything.
#![allow(unsafe_code, reason = "the kernel's asynchronous operations have no safe wrapper")]

use std::os::fd::AsRawFd;

use vmm_sys_util::eventfd::EventFd;

use crate::front::ring_bell;
use crate::link::event_fd;

/// Complete operations that the kernel keeps until they are asked for.
const MOST: usize = 128;

/// Of `linux/aio_abi.h`.
const POLL: u16 = 5;
const SIGNALS_DESCRIPTOR: u32 = 1;

/// An operation, as the kernel reads it (`struct iocb` on little-endian machines).
#[repr(C)]
#[derive(Default)]
struct Operation {
    data: u64,
    key: u32,
    rw_flags: u32,
    kind: u16,
    priority: i16,
    descriptor: u32,
    /// Of a poll: the events.
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    signalled: u32,
}

/// An operation's end, as the kernel writes it (`struct io_event`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Ended([u64; 4]);

/// Rings event descriptors of other processes.
#[derive(Debug)]
pub(super) struct Bell(Option<Signaller>);

impl Bell {
    /// Where the kernel has no such operations, or does not let this process have them, descriptors are written to.
    pub fn new() -> Self {
        Self(Signaller::new())
    }

    /// Wakes whoever waits for the descriptor.
    pub fn ring(&mut self, event: &EventFd) {
        if !self.0.as_mut().is_some_and(|signaller| signaller.signal(event)) {
            ring_bell(event);
        }
    }
}

/// The kernel's context of operations.
#[derive(Debug)]
struct Signaller {
    context: libc::c_ulong,
    /// Always readable: an operation that waits for it is complete at once.
    readable: EventFd,
    /// Operations whose ends nobody asked for.
    ended: usize,
}

impl Signaller {
    fn new() -> Option<Self> {
        let readable = event_fd().ok()?;
        readable.write(1).ok()?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes the context's number.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, MOST as libc::c_long, &raw mut context) };
        (made == 0).then_some(Self { context, readable, ended: 0 })
    }

    /// False when the kernel refused.
    fn signal(&mut self, event: &EventFd) -> bool {
        if self.ended == MOST {
            self.forget_ended();
        }
        let mut operation = Operation {
            kind: POLL,
            descriptor: self.readable.as_raw_fd() as u32,
            buffer: libc::POLLIN as u64,
            flags: SIGNALS_DESCRIPTOR,
            signalled: event.as_raw_fd() as u32,
            ..Operation::default()
        };
        let mut list = [&raw mut operation];
        // SAFETY: one operation, which the kernel copies during the call.
        let begun =
            unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1 as libc::c_long, list.as_mut_ptr()) };
        self.ended += usize::from(begun == 1);
        begun == 1
    }

    /// Takes the operations' ends, which mean nothing more.
    fn forget_ended(&mut self) {
        let mut ended = [Ended::default(); MOST];
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let (least, most) = (0 as libc::c_long, MOST as libc::c_long);
        // SAFETY: there is room for as many as are asked for, and the call does not wait.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                least,
                most,
                ended.as_mut_ptr(),
                &raw const at_once,
            )
        };
        self.ended -= usize::try_from(taken).unwrap_or(0).min(self.ended);
    }
}

impl Drop for Signaller {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and all its operations are complete.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds up what the descriptor was told since it was last asked.
    fn count(event: &EventFd) -> u64 {
        event.read().unwrap_or(0)
    }

    #[test]
    fn every_ring_is_heard_also_beyond_what_the_kernel_keeps() {
        let (mut bell, event) = (Bell::new(), event_fd().unwrap());
        assert!(bell.0.is_some(), "this kernel has asynchronous operations");
        for _ in 0..3 * MOST {
            bell.ring(&event);
            assert_eq!(count(&event), 1);
        }
    }

    #[test]
    fn without_the_kernels_help_descriptors_are_written_to() {
        let event = event_fd().unwrap();
        Bell(None).ring(&event);
        assert_eq!(count(&event), 1);
    }
}
