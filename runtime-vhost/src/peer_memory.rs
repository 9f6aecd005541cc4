//! The front end's memory, as the back end sees it.
#![allow(unsafe_code, reason = "the memory is shared with another process")]

use std::fs::File;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use vhost::vhost_user::message::VhostUserMemoryRegion;

use crate::system::{self, Mapping};

/// Most bytes of one region: far above any machine's memory, far below where sums overflow.
const MAX_REGION_BYTES: u64 = 1 << 46;

/// Most regions of a front end: each is looked at for each piece of a frame, at worst.
pub(crate) const MAX_REGIONS: usize = 32;

/// Another process's memory, mapped into this one.
///
/// The other process writes to it at any time. So it is only ever copied out of and into, never lent as a slice: what
/// was checked is a copy, and stays as it was checked.
#[derive(Debug)]
pub(crate) struct PeerMemory {
    regions: Vec<PeerRegion>,
}

#[derive(Debug, Clone)]
struct PeerRegion {
    mapping: Arc<Mapping>,
    /// From the mapping's first byte to the region's.
    offset: usize,
    len: u64,
    /// Where descriptors say that the region is.
    guest_address: u64,
    /// Where the front end has it, by which it says where the rings are.
    user_address: u64,
}

impl PeerRegion {
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |one: u64, two: u64| one < two + other.len && two < one + self.len;
        meet(self.guest_address, other.guest_address) || meet(self.user_address, other.user_address)
    }

    /// The `len` bytes from `address` on, when `base` is what the region's first byte is known by.
    #[inline]
    fn find(&self, base: u64, address: u64, len: usize) -> Option<NonNull<u8>> {
        let at = address.wrapping_sub(base);
        if at >= self.len || len as u64 > self.len - at {
            return None;
        }
        // SAFETY: `offset + len` is within the mapping, and `at` less than `len`.
        Some(unsafe { self.mapping.base().add(self.offset + at as usize) })
    }
}

impl PeerMemory {
    /// Maps what a front end shares. Unless it is `trusted`, its memory must be of a kind that cannot be taken away
    /// again: to touch a page that is no more ends the process.
    pub fn map(regions: &[VhostUserMemoryRegion], files: &[File], trusted: bool) -> Result<Self, String> {
        if regions.len() != files.len() || regions.is_empty() {
            return Err(format!("{} regions of memory with {} files", regions.len(), files.len()));
        }
        let none = Self { regions: Vec::with_capacity(regions.len()) };
        regions
            .iter()
            .zip(files)
            .try_fold(none, |known, (region, file)| known.and(map_region(region, file, trusted)?))
    }

    /// The same memory and one more region, or another one at the same place: QEMU 7.2 tells of each region once for each of its queue
    /// pairs.
    pub fn with(&self, region: &VhostUserMemoryRegion, file: &File, trusted: bool) -> Result<Self, String> {
        self.without(region).and(map_region(region, file, trusted)?)
    }

    /// With a region more.
    fn and(mut self, added: PeerRegion) -> Result<Self, String> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(format!("more than {MAX_REGIONS} regions of memory"));
        }
        if self.regions.iter().any(|known| known.overlaps(&added)) {
            return Err("a region of memory at the addresses of another one".to_owned());
        }
        self.regions.push(added);
        Ok(self)
    }

    /// The same memory less one region, if it is there.
    pub fn without(&self, region: &VhostUserMemoryRegion) -> Self {
        let meant = (region.guest_phys_addr, region.user_addr, region.memory_size);
        let stays = |known: &&PeerRegion| (known.guest_address, known.user_address, known.len) != meant;
        Self { regions: self.regions.iter().filter(stays).cloned().collect() }
    }

    /// True when all of `other` is in this too, at the same addresses: whoever uses that may go on.
    pub fn contains(&self, other: &Self) -> bool {
        let has = |region: &PeerRegion| {
            self.regions.iter().any(|known| Arc::ptr_eq(&known.mapping, &region.mapping))
        };
        other.regions.iter().all(has)
    }

    #[inline]
    fn find(&self, address: u64, len: usize) -> Option<NonNull<u8>> {
        self.regions.iter().find_map(|region| region.find(region.guest_address, address, len))
    }

    /// The `len` bytes that the front end has at `address`.
    pub fn find_by_user_address(&self, address: u64, len: usize) -> Option<NonNull<u8>> {
        self.regions.iter().find_map(|region| region.find(region.user_address, address, len))
    }

    /// Copies what is at `address` into `to`; false when not all of it is the peer's memory.
    #[inline]
    pub fn read(&self, address: u64, to: &mut [u8]) -> bool {
        let Some(from) = self.find(address, to.len()) else { return false };
        // SAFETY: the bytes are mapped, and `to` is ours. That they may change meanwhile changes the copy alone.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        true
    }

    /// Copies `from` to `address`; false when there is no room.
    #[inline]
    pub fn write(&self, address: u64, from: &[u8]) -> bool {
        let Some(to) = self.find(address, from.len()) else { return false };
        // SAFETY: the bytes are mapped and nobody in this process refers to them.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), from.len()) };
        true
    }
}

fn map_region(region: &VhostUserMemoryRegion, file: &File, trusted: bool) -> Result<PeerRegion, String> {
    // The structure is packed: its fields are copied out.
    let (len, offset) = (region.memory_size, region.mmap_offset);
    let (guest_address, user_address) = (region.guest_phys_addr, region.user_addr);
    let end = offset.checked_add(len).filter(|&end| len > 0 && end <= MAX_REGION_BYTES);
    let Some(end) = end else { return Err(format!("a region of {len} bytes at {offset}")) };
    if guest_address.checked_add(len).is_none() || user_address.checked_add(len).is_none() {
        return Err("a region that goes beyond the last address".to_owned());
    }
    if !trusted && !system::is_sealed_against_shrinking(file) {
        return Err("the peer could take its memory away under us, because it is not sealed against \
                    shrinking; vhost.trust_peer = true takes it all the same"
            .to_owned());
    }
    if !trusted && system::is_on_hugepages(file) {
        return Err("the peer could take its hugepages away under us; vhost.trust_peer = true takes \
                    them all the same"
            .to_owned());
    }
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    if bytes < end {
        return Err(format!("a region up to byte {end} of a file of {bytes}"));
    }
    let mapping = Mapping::new(file, end as usize).map_err(|error| format!("mmap: {error}"))?;
    Ok(PeerRegion { mapping: Arc::new(mapping), offset: offset as usize, len, guest_address, user_address })
}
