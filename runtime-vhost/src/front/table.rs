//! The memory table: the regions that the back end was told of, when the link came up and, where it takes single ones, whenever
//! regions come and go later.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use libos::memory::registry::{RegisteredRegion, for_each_region, generation};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

use super::FrontSetup;
use super::control::failed;
use super::reach::{FurtherRegion, further_regions};
use crate::config::VhostConfig;

/// Regions that one message has room for and every back end takes (DPDK's and QEMU's own limit). More queues than that
/// have more regions; then there are no further ones.
const TABLE_REGIONS: usize = 8;

/// What the back end knows of.
pub(super) struct Table {
    /// First addresses of the queues' own regions.
    own: Vec<u64>,
    /// Regions beside those.
    further: Vec<RegisteredRegion>,
    /// Most regions that the back end takes one by one; 0 when it takes none later.
    slots: usize,
    /// Of the process's regions, when this was last made to fit them.
    generation: u64,
}

/// Descriptors hold the same addresses that we use, so all of a region is at its own address.
fn info(address: u64, bytes: u64, file: RawFd) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: address,
        memory_size: bytes,
        userspace_addr: address,
        mmap_offset: 0,
        mmap_handle: file,
    }
}

fn info_of(region: &RegisteredRegion, file: RawFd) -> VhostUserMemoryRegionInfo {
    info(region.base as u64, region.len as u64, file)
}

impl Table {
    /// Tells the back end, which takes `slots` regions one by one, of the queues' regions and those beside them.
    pub fn share(
        frontend: &Frontend,
        config: &VhostConfig,
        setups: &[FrontSetup],
        slots: usize,
    ) -> Result<Self, String> {
        let mut regions: Vec<(u64, u64, &OwnedFd)> = Vec::new();
        for setup in setups {
            if regions.iter().all(|(address, ..)| *address != setup.region_address) {
                regions.push((setup.region_address, setup.region_bytes, &setup.region));
            }
        }
        let own: Vec<u64> = regions.iter().map(|(address, ..)| *address).collect();
        let generation = generation();
        let further = if config.share_registered { further_regions(&own, TABLE_REGIONS) } else { Vec::new() };
        let own_infos = regions.iter().map(|(address, bytes, file)| info(*address, *bytes, file.as_raw_fd()));
        let further_infos =
            further.iter().map(|FurtherRegion { region, file }| info_of(region, file.as_raw_fd()));
        let infos: Vec<_> = own_infos.chain(further_infos).collect();
        frontend.set_mem_table(&infos).map_err(failed("SET_MEM_TABLE"))?;
        let further = further.iter().map(|further| further.region).collect();
        Ok(Self { own, further, slots: if config.share_registered { slots } else { 0 }, generation })
    }

    /// The ids of the regions beside the queues' own.
    pub fn ids(&self) -> Arc<[u64]> {
        self.further.iter().map(|region| region.id).collect()
    }

    /// Tells the back end of regions that came and went since the last time. True when there are others now.
    pub fn update(&mut self, frontend: &mut Frontend) -> Result<bool, String> {
        let generation = generation();
        if self.slots == 0 || generation == self.generation {
            return Ok(false);
        }
        self.generation = generation;
        let mut registered = Vec::new();
        for_each_region(|region| registered.push(region));
        let mut changed = false;
        // First: others may have their addresses.
        for gone in self.further.extract_if(.., |region| !registered.contains(region)) {
            frontend.remove_mem_region(&info_of(&gone, -1)).map_err(failed("REM_MEM_REG"))?;
            changed = true;
        }
        let known: Vec<u64> =
            self.further.iter().map(|region| region.base as u64).chain(self.own.iter().copied()).collect();
        for FurtherRegion { region, file } in further_regions(&known, self.slots) {
            frontend.add_mem_region(&info_of(&region, file.as_raw_fd())).map_err(failed("ADD_MEM_REG"))?;
            self.further.push(region);
            changed = true;
        }
        Ok(changed)
    }
}
