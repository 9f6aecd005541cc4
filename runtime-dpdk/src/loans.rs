//! Buffers on loan to the device: alive until it has sent them, whatever the program frees meanwhile.
//!
//! Each loan has a slot with what DPDK wants to know of memory that isn't its own, and the buffer itself. DPDK calls
//! back when the last mbuf that refers to the slot is freed: usually on the queue's own thread, when the driver finds
//! its descriptor done, but another thread may be the one (a port of rings frees where it is received).

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use dpdk_sys as sys;
use libos::Buffer;

/// A loan, or room for one.
#[repr(C)]
struct Slot {
    shared: Cell<sys::rte_mbuf_ext_shared_info>,
    /// There while the slot is lent.
    buffer: Cell<Option<Buffer>>,
    /// The next slot of the list that this one is in.
    next: Cell<*mut Self>,
    owner: *const Book,
}

/// Which slots are free, and which came back on other threads.
struct Book {
    free: Cell<*mut Slot>,
    lent: Cell<usize>,
    /// Pushed to by any thread, emptied by the owner's.
    returned: AtomicPtr<Slot>,
    /// The owner's thread.
    thread: usize,
}

/// All loans of one queue. Belongs to the thread that made it.
pub(crate) struct Loans {
    book: NonNull<Book>,
    slots: NonNull<[Slot]>,
}

/// Tells threads apart: each has its own address for it.
fn this_thread() -> usize {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| ptr::from_ref(mark) as usize)
}

/// What DPDK calls when nothing refers to a slot's buffer any more.
///
/// # Safety
/// `slot` is the address of a lent [`Slot`].
unsafe extern "C" fn give_back(_data: *mut c_void, slot: *mut c_void) {
    let slot = slot.cast::<Slot>();
    // SAFETY: slots and their book live for as long as a slot is lent.
    let book = unsafe { &*(*slot).owner };
    if book.thread == this_thread() {
        // SAFETY: the slot comes back on its own thread.
        unsafe { book.take_back(slot) };
        return;
    }
    let mut head = book.returned.load(Ordering::Relaxed);
    loop {
        // SAFETY: whoever gives a slot back has it alone until it is in the list.
        unsafe { (*slot).next.set(head) };
        // Release: the list's reader sees the link, and what the device's thread did with the buffer is over.
        match book.returned.compare_exchange_weak(head, slot, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

impl Book {
    /// Drops the slot's buffer and makes the slot free.
    ///
    /// # Safety
    /// On the owner's thread, of a lent slot that nobody refers to.
    unsafe fn take_back(&self, slot: *mut Slot) {
        // SAFETY: the caller's promise.
        let slot_ref = unsafe { &*slot };
        slot_ref.next.set(self.free.get());
        self.free.set(slot);
        self.lent.set(self.lent.get() - 1);
        drop(slot_ref.buffer.take());
    }
}

impl Loans {
    /// Room for so many loans.
    pub(crate) fn new(count: usize) -> Self {
        let book = NonNull::from(Box::leak(Box::new(Book {
            free: Cell::new(ptr::null_mut()),
            lent: Cell::new(0),
            returned: AtomicPtr::new(ptr::null_mut()),
            thread: this_thread(),
        })));
        let empty = || Slot {
            shared: Cell::new(sys::rte_mbuf_ext_shared_info {
                free_cb: Some(give_back),
                fcb_opaque: ptr::null_mut(),
                refcnt: 0,
            }),
            buffer: Cell::new(None),
            next: Cell::new(ptr::null_mut()),
            owner: book.as_ptr(),
        };
        let slots: Box<[Slot]> = (0..count).map(|_| empty()).collect();
        let slots = NonNull::from(Box::leak(slots));
        let this = Self { book, slots };
        for index in 0..count {
            // SAFETY: the index is within the slots.
            let slot = unsafe { slots.cast::<Slot>().as_ptr().add(index) };
            // SAFETY: as above; nobody else refers to a new slot.
            unsafe {
                (*(*slot).shared.as_ptr()).fcb_opaque = slot.cast();
                (*slot).next.set(this.book().free.replace(slot));
            }
        }
        this
    }

    fn book(&self) -> &Book {
        // SAFETY: lives as long as this object, or longer.
        unsafe { self.book.as_ref() }
    }

    /// Takes what DPDK has to know of `buffer` on loan. None when as much is lent as can be.
    #[inline]
    pub(crate) fn lend(&self, buffer: Buffer) -> Option<*mut sys::rte_mbuf_ext_shared_info> {
        let book = self.book();
        let mut slot = book.free.get();
        if slot.is_null() {
            self.collect();
            slot = book.free.get();
            if slot.is_null() {
                return None;
            }
        }
        // SAFETY: free slots belong to this thread.
        let slot_ref = unsafe { &*slot };
        book.free.set(slot_ref.next.get());
        book.lent.set(book.lent.get() + 1);
        let shared = slot_ref.shared.as_ptr();
        // SAFETY: nobody else refers to a free slot, of which the rest is as it always is.
        unsafe { (*shared).refcnt = 1 };
        slot_ref.buffer.set(Some(buffer));
        Some(shared)
    }

    /// Takes back what was given back on other threads. One load when there is nothing.
    #[inline]
    pub(crate) fn collect(&self) {
        let book = self.book();
        if book.returned.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut slot = book.returned.swap(ptr::null_mut(), Ordering::Acquire);
        while !slot.is_null() {
            // SAFETY: the list is ours alone now, on our thread.
            unsafe {
                let next = (*slot).next.get();
                book.take_back(slot);
                slot = next;
            }
        }
    }

    /// Buffers that the device has at the moment.
    pub(crate) fn lent(&self) -> usize {
        self.book().lent.get()
    }
}

impl Drop for Loans {
    /// What the device never gave back stays as it is: it may still read it.
    fn drop(&mut self) {
        self.collect();
        if self.lent() > 0 {
            return;
        }
        // SAFETY: both were leaked boxes, and with nothing lent nobody refers to them.
        unsafe {
            drop(Box::from_raw(self.slots.as_ptr()));
            drop(Box::from_raw(self.book.as_ptr()));
        }
    }
}

#[cfg(test)]
mod tests {
    use libos::Arena;
    use libos::memory::ArenaConfig;

    use super::*;

    fn arena() -> Arena {
        Arena::new(&ArenaConfig { region_bytes: 4 << 20, hugepages: false }).unwrap()
    }

    fn give_back_as_dpdk(shared: *mut sys::rte_mbuf_ext_shared_info) {
        // SAFETY: the test has the loan, as DPDK would.
        unsafe { ((*shared).free_cb.unwrap())(ptr::null_mut(), (*shared).fcb_opaque) };
    }

    #[test]
    fn a_lent_buffer_lives_until_it_is_given_back() {
        let arena = arena();
        let loans = Loans::new(2);
        let lend = |byte: u8| loans.lend(arena.copy_from(&[byte; 100]).unwrap().freeze());
        let (first, second) = (lend(1).unwrap(), lend(2).unwrap());
        assert_eq!((arena.stats().live_buffers, loans.lent()), (2, 2));
        assert!(lend(3).is_none(), "as much is lent as can be");
        give_back_as_dpdk(first);
        assert_eq!((arena.stats().live_buffers, loans.lent()), (1, 1));
        let third = lend(3).unwrap();
        give_back_as_dpdk(second);
        give_back_as_dpdk(third);
        assert_eq!((arena.stats().live_buffers, loans.lent()), (0, 0));
    }

    #[test]
    fn a_buffer_that_another_thread_gives_back_is_dropped_on_its_own() {
        let arena = arena();
        let loans = Loans::new(64);
        let lent: Vec<usize> = (0..64)
            .map(|byte| loans.lend(arena.copy_from(&[byte; 100]).unwrap().freeze()).unwrap() as usize)
            .collect();
        std::thread::scope(|scope| {
            for part in lent.chunks(16) {
                scope.spawn(move || part.iter().for_each(|shared| give_back_as_dpdk(*shared as *mut _)));
            }
        });
        assert_eq!((arena.stats().live_buffers, loans.lent()), (64, 64), "not until the owner looks");
        loans.collect();
        assert_eq!((arena.stats().live_buffers, loans.lent()), (0, 0));
        assert!(loans.lend(arena.copy_from(&[1]).unwrap().freeze()).is_some_and(|shared| {
            give_back_as_dpdk(shared);
            true
        }));
    }
}
