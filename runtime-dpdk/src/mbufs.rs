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

/// Frames that were received: the first mbuf of each, and what it says.
pub(crate) struct Received {
    pub mbufs: Burst,
    segments: [MaybeUninit<sys::catnip_segment>; BURST],
}

impl Received {
    /// Takes up to `limit` frames off a queue.
    #[inline]
    pub(crate) fn take(port: u16, queue: u16, limit: usize) -> Self {
        let mut this = Self { mbufs: Burst::new_const(), segments: [const { MaybeUninit::uninit() }; BURST] };
        let limit = limit.min(BURST);
        let (mbufs, segments) = (this.mbufs.as_mut_ptr(), this.segments.as_mut_ptr().cast());
        // SAFETY: there is room for `limit` of each, and as many are written as it returns.
        unsafe {
            let received = sys::catnip_receive(port, queue, mbufs, segments, limit as u16);
            this.mbufs.set_len(usize::from(received).min(limit));
        }
        this
    }

    /// The frames in order.
    #[inline]
    pub(crate) fn frames(&self) -> impl Iterator<Item = (Mbuf, &sys::catnip_segment)> {
        // SAFETY: as many segments were written as there are mbufs.
        self.mbufs
            .iter()
            .zip(&self.segments)
            .map(|(mbuf, segment)| (*mbuf, unsafe { segment.assume_init_ref() }))
    }
}
