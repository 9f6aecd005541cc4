//! The registered regions as one device knows them.

use std::cell::Cell;

use super::registry::{self, RegisteredRegion};

/// A region that the device was told about.
#[derive(Debug)]
struct Told<H> {
    region: RegisteredRegion,
    /// What the device made of it; none when it refused.
    handle: Option<H>,
}

/// Keeps a device informed about the process's registered memory, and says which bytes the device can reach by itself.
///
/// Belongs to a device queue. [`Self::refresh`] before each burst costs one load while nothing changes; a buffer
/// that comes to the queue after that is in a region that the device knows, or is not in registered memory.
/// `H` is what the device's own registration gives: a key, a slot number, or `()`.
#[derive(Debug)]
pub struct DeviceRegions<H> {
    generation: Option<u64>,
    told: Vec<Told<H>>,
    /// Where the last address was found.
    recent: Cell<usize>,
}

impl<H> Default for DeviceRegions<H> {
    fn default() -> Self {
        Self { generation: None, told: Vec::new(), recent: Cell::new(0) }
    }
}

impl<H> DeviceRegions<H> {
    /// Nothing told yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the device know what is registered now: `forget` for what went, then `tell` for what came. A region for
    /// which `tell` gives `None` is not asked about again, and its bytes are not found.
    ///
    /// When `forget` is called, the region's memory is gone, and may be somebody else's.
    #[inline]
    pub fn refresh(
        &mut self,
        tell: impl FnMut(&RegisteredRegion) -> Option<H>,
        forget: impl FnMut(&RegisteredRegion, H),
    ) {
        let generation = registry::generation();
        if self.generation != Some(generation) {
            self.look_again(tell, forget);
            self.generation = Some(generation);
        }
    }

    #[cold]
    #[inline(never)]
    fn look_again(
        &mut self,
        mut tell: impl FnMut(&RegisteredRegion) -> Option<H>,
        forget: impl FnMut(&RegisteredRegion, H),
    ) {
        let mut registered = Vec::with_capacity(self.told.len() + 1);
        registry::for_each_region(|region| registered.push(region));
        self.forget_unless(|told| registered.contains(told), forget);
        for region in registered {
            if !self.told.iter().any(|told| told.region == region) {
                self.told.push(Told { region, handle: tell(&region) });
            }
        }
    }

    /// Makes the device forget everything, for when it is taken down.
    pub fn forget_all(&mut self, forget: impl FnMut(&RegisteredRegion, H)) {
        self.forget_unless(|_| false, forget);
        self.generation = None;
    }

    fn forget_unless(
        &mut self,
        keep: impl Fn(&RegisteredRegion) -> bool,
        mut forget: impl FnMut(&RegisteredRegion, H),
    ) {
        for gone in self.told.extract_if(.., |told| !keep(&told.region)) {
            if let Some(handle) = gone.handle {
                forget(&gone.region, handle);
            }
        }
    }

    /// The region that all of `bytes` are in, and the device's handle for it; `None` when the device cannot reach them.
    #[must_use]
    #[inline]
    pub fn find(&self, bytes: &[u8]) -> Option<(&RegisteredRegion, &H)> {
        match self.told.get(self.recent.get()) {
            Some(Told { region, handle: Some(handle) }) if region.contains(bytes) => Some((region, handle)),
            _ => self.find_elsewhere(bytes),
        }
    }

    #[inline(never)]
    fn find_elsewhere(&self, bytes: &[u8]) -> Option<(&RegisteredRegion, &H)> {
        self.told.iter().enumerate().find_map(|(index, told)| {
            let handle = told.handle.as_ref().filter(|_| told.region.contains(bytes))?;
            self.recent.set(index);
            Some((&told.region, handle))
        })
    }
}
