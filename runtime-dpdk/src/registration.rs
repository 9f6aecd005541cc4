//! Registered memory as DPDK knows it: regions of the process, and regions made from DPDK's own heap.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dpdk_sys as sys;
use libos::memory::{Region, RegisteredRegion};
use libos::{MemoryAccess, SetupError};

use crate::drivers;
use crate::failure::{check, describe, failed, last_number};

/// Unit in which DPDK keeps books of a region that is a multiple of it.
const LARGE_PAGE_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4096;

/// What a region made from DPDK's heap begins at a multiple of.
const HEAP_REGION_ALIGN_BYTES: u32 = 64 << 10;

/// A region that is known to DPDK, and for how many queues of each device.
struct Known {
    id: u64,
    base: usize,
    len: usize,
    devices: Vec<(usize, usize)>,
}

/// Regions that were registered with DPDK: a process-wide table, as DPDK's is.
static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// Some driver of this process tells its peer of all memory that DPDK knows.
static SHARES: AtomicBool = AtomicBool::new(false);

/// Regions that were made from DPDK's heap: first address and bytes.
static HEAP_REGIONS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device behind a port. Valid until it is removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device(pub *mut sys::rte_device);

// SAFETY: an address that is handed to DPDK alone, whose calls lock by themselves.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Makes the device know the region, as far as it can use it; None when it can't.
pub(crate) fn tell(
    access: MemoryAccess,
    device: Device,
    port: &str,
    region: &RegisteredRegion,
) -> Option<()> {
    match access {
        MemoryAccess::Copy => None,
        MemoryAccess::RuntimeHeapOnly => is_in_heap(region).then_some(()),
        // DPDK knows its own heap.
        MemoryAccess::Dma if is_in_heap(region) => Some(()),
        MemoryAccess::Dma => register(device, port, region)
            .inspect_err(|error| log::warn!("{error}: what is in these {} bytes is copied", region.len))
            .ok(),
    }
}

/// Makes the device forget a region that it was told of. One that is gone has nothing to forget.
pub(crate) fn forget(device: Device, is_gone: bool, region: &RegisteredRegion) {
    let mut known = lock(&KNOWN);
    let Some(index) = known.iter().position(|known| known.id == region.id) else { return };
    let entry = &mut known[index];
    if let Some(user) = entry.devices.iter().position(|(user, _)| *user == device.0 as usize) {
        entry.devices[user].1 -= 1;
        if entry.devices[user].1 == 0 {
            if !is_gone {
                unmap(device, entry);
            }
            entry.devices.swap_remove(user);
        }
    }
    if entry.devices.is_empty() {
        unregister(&known.swap_remove(index));
    }
}

fn is_in_heap(region: &RegisteredRegion) -> bool {
    lock(&HEAP_REGIONS).contains(&(region.base as usize, region.len))
}

fn register(device: Device, port: &str, region: &RegisteredRegion) -> Result<(), SetupError> {
    let mut known = lock(&KNOWN);
    let base = region.base as usize;
    // A region that is gone, of which a queue on another thread has not noticed yet, may have had these addresses.
    let stale = |known: &Known| {
        known.id != region.id && base < known.base + known.len && known.base < base + region.len
    };
    while let Some(index) = known.iter().position(stale) {
        let gone = known.swap_remove(index);
        gone.devices.iter().for_each(|(device, _)| unmap(Device(*device as *mut sys::rte_device), &gone));
        unregister(&gone);
    }
    let index = match known.iter().position(|known| known.id == region.id) {
        Some(index) => index,
        None => {
            announce(port, region.base as usize, region.len)?;
            known.push(Known { id: region.id, base, len: region.len, devices: Vec::new() });
            known.len() - 1
        }
    };
    let entry = &mut known[index];
    if let Some(user) = entry.devices.iter_mut().find(|(user, _)| *user == device.0 as usize) {
        user.1 += 1;
        return Ok(());
    }
    let mapped = map(device, port, region);
    if mapped.is_ok() {
        entry.devices.push((device.0 as usize, 1));
    } else if entry.devices.is_empty() {
        unregister(&known.swap_remove(index));
    }
    mapped
}

/// Tells DPDK that the memory exists.
fn announce(port: &str, base: usize, len: usize) -> Result<(), SetupError> {
    let aligned = |unit: usize| base.is_multiple_of(unit) && len.is_multiple_of(unit);
    let page_bytes = if aligned(LARGE_PAGE_BYTES) { LARGE_PAGE_BYTES } else { PAGE_BYTES };
    // SAFETY: the region is mapped; DPDK notes its addresses, and touches nothing. With addresses as IOVAs, the only
    // mode in which this is called, no table of them is needed.
    let result =
        unsafe { sys::rte_extmem_register(base as *mut c_void, len, ptr::null_mut(), 0, page_bytes) };
    check(port, "rte_extmem_register", result).map(drop)
}

/// From now on there is a device whose driver tells its peer of all memory that DPDK knows, each time that DPDK's own grows or shrinks.
pub(crate) fn expect_sharing(device: &str) {
    if drivers::shares_all_memory(device) {
        SHARES.store(true, Ordering::Relaxed);
    }
}

/// Does something for which DPDK may take memory or give some back, or a driver tell its peer of it. Where a driver does that, DPDK
/// knows of no memory but its own meanwhile. What is done waits for no other thread, and registers nothing.
pub(crate) fn while_shared<T>(this: impl FnOnce() -> T) -> T {
    thread_local! {
        /// This is being done: what is done may let go of the last buffer of a region that DPDK's heap then takes back.
        static IN_IT: Cell<bool> = const { Cell::new(false) };
    }
    if !SHARES.load(Ordering::Relaxed) || IN_IT.get() {
        return this();
    }
    let known = lock(&KNOWN);
    known.iter().for_each(unregister);
    IN_IT.set(true);
    let done = this();
    IN_IT.set(false);
    for Known { base, len, .. } in known.iter() {
        if let Err(error) = announce("all ports", *base, *len) {
            log::warn!("{error}: DPDK knows {len} bytes of memory no more");
        }
    }
    done
}

/// Lets the device reach the memory. Drivers without a mapping of their own, as those of virtual devices, have
/// nothing to do and say so.
fn map(device: Device, port: &str, region: &RegisteredRegion) -> Result<(), SetupError> {
    let base = region.base.cast_mut().cast::<c_void>();
    // SAFETY: the device exists while its port does, and the region is mapped and was announced.
    let result = unsafe { sys::rte_dev_dma_map(device.0, base, base as u64, region.len) };
    if result != 0 && last_number() == libc::ENOTSUP {
        return Ok(());
    }
    check(port, "rte_dev_dma_map", result).map(drop)
}

fn unmap(device: Device, known: &Known) {
    // SAFETY: undoes what `map` did. A device that is gone refuses; its mapping went with it.
    unsafe { sys::rte_dev_dma_unmap(device.0, known.base as *mut c_void, known.base as u64, known.len) };
}

fn unregister(known: &Known) {
    // SAFETY: undoes what `announce` did.
    unsafe { sys::rte_extmem_unregister(known.base as *mut c_void, known.len) };
}

/// A region from DPDK's heap, given back when nothing uses it any more.
pub(crate) fn region_from_heap(port: &str, bytes: usize) -> Result<Region, SetupError> {
    let bytes = bytes.next_multiple_of(HEAP_REGION_ALIGN_BYTES as usize);
    // SAFETY: takes any size; zeroed, as regions are initialised memory.
    let allocate = || unsafe { sys::rte_zmalloc(ptr::null(), bytes, HEAP_REGION_ALIGN_BYTES) };
    let memory = while_shared(allocate);
    let Some(base) = NonNull::new(memory.cast::<u8>()) else {
        let reason = format!(
            "{} bytes for [memory] region_mib: {}; more memory for DPDK (dpdk.memory_mib) or a smaller region",
            bytes,
            describe(libc::ENOMEM)
        );
        return Err(failed(port, "rte_zmalloc", reason));
    };
    let entry = (base.as_ptr() as usize, bytes);
    lock(&HEAP_REGIONS).push(entry);
    let release = move || {
        lock(&HEAP_REGIONS).retain(|other| *other != entry);
        // SAFETY: came from `rte_zmalloc`, and nobody uses it any more.
        while_shared(|| unsafe { sys::rte_free(entry.0 as *mut c_void) });
    };
    // SAFETY: the memory is initialised, ours alone, and stays until it is released.
    Ok(unsafe { Region::from_foreign(base, bytes, release) })
}

/// True when devices know memory by the addresses that the program uses.
pub(crate) fn devices_use_our_addresses() -> bool {
    // SAFETY: EAL is initialised.
    unsafe { sys::rte_eal_iova_mode() == sys::RTE_IOVA_VA }
}
