//! Mbufs: DPDK's description of a piece of a frame, as far as the runtime touches it.

use std::mem::MaybeUninit;

use dpdk_sys as sys;
use libos::runtime::BURST;

/// An mbuf, as DPDK passes it around.
pub(crate) type Mbuf = *mut sys::rte_mbuf;

/// Mbufs for a burst.
pub(crate) type Burst = arrayvec::ArrayVec<Mbuf, BURST>;

/// Reads what a received frame's mbuf says.
///
/// # Safety
/// `mbuf` is valid.
#[inline]
pub(crate) unsafe fn segment(mbuf: Mbuf) -> sys::catnip_segment {
    let mut segment = MaybeUninit::uninit();
    // SAFETY: the caller's promise; every field is written.
    unsafe {
        sys::catnip_mbuf_segment(mbuf, segment.as_mut_ptr());
        segment.assume_init()
    }
}

/// Takes up to `limit` received mbufs off a queue.
#[inline]
pub(crate) fn receive(port: u16, queue: u16, limit: usize, burst: &mut Burst) {
    let limit = limit.min(burst.remaining_capacity());
    let start = burst.len();
    // SAFETY: there is room for `limit` pointers behind the last, and DPDK writes as many as it returns.
    unsafe {
        let received = sys::rte_eth_rx_burst(port, queue, burst.as_mut_ptr().add(start), limit as u16);
        burst.set_len(start + usize::from(received).min(limit));
    }
}
