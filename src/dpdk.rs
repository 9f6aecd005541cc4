//! A library OS on a DPDK port.

use std::time::Duration;

use libos::memory::ArenaConfig;
use libos::{Config, LibOs, SetupError};
use runtime_dpdk::{Dpdk, DpdkConfig, DpdkPort};

use crate::open::{install_memory_queues, network};

/// Opens the port of the table `[dpdk]` and builds a library OS on it. The port comes first: its driver may want the region
/// made from memory of DPDK's.
pub fn open(config: &Config, wait_for_addresses: Duration) -> Result<LibOs, SetupError> {
    let settings = DpdkConfig::from_config(config)?;
    if settings.queues != 1 {
        let section = config.section("dpdk");
        return Err(section.reject("queues", "1: this thread's library OS serves one queue"));
    }
    let memory = ArenaConfig::from_config(config)?;
    let port = DpdkPort::open(&settings, memory.region_bytes)?;
    let name = port.name().to_owned();
    let arena = port.arena(&memory)?;
    let libos = LibOs::builder().config(config).arena(arena).build()?;
    install_memory_queues(&libos, config)?;
    let queue = port.into_queues().pop().ok_or_else(|| SetupError::Device {
        device: name,
        call: "rte_eth_dev_configure",
        reason: "the port has no queue".to_owned(),
    })?;
    let runtime = Dpdk::new(queue, libos.device_arena())?;
    network::install(&libos, config, runtime)?;
    network::wait_for_addresses(&libos, wait_for_addresses)?;
    Ok(libos)
}
