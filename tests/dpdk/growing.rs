//! DPDK's own memory, which grows with what ports take, as far as there are hugepages.

use std::fs;

use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::{Arena, Config, LibOs};
use catnip_os::runtime_dpdk::{Dpdk, DpdkConfig, DpdkPort};

use crate::echo::nothing_is_copied;
use crate::processes::{Link, exchange, open};
use crate::root;

/// Of 2 MiB: what both ends take in the end.
const HUGEPAGES: usize = 300;
const FREE_HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// A port that takes about 80 MiB from DPDK's heap, and registers memory of its own.
fn greedy_port(index: usize) -> (Dpdk, Arena) {
    let config = DpdkConfig {
        device: format!("net_null{index}"),
        tx_descriptors: 16_384,
        mac: Some([2, 0, 0, 0, 0, 9]),
        ..DpdkConfig::default()
    };
    let memory = ArenaConfig { region_bytes: 32 << 20, hugepages: false };
    let port = DpdkPort::open(&config, memory.region_bytes).unwrap();
    let arena = port.arena(&memory).unwrap();
    (Dpdk::new(port.into_queues().remove(0), &arena).unwrap(), arena)
}

fn free_hugepages() -> usize {
    fs::read_to_string(FREE_HUGEPAGES).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// virtio_user tells its peer again of all memory that DPDK knows when DPDK takes more.
#[test]
fn a_virtio_user_port_goes_on_while_dpdks_memory_grows() {
    if free_hugepages() < HUGEPAGES {
        eprintln!("left out: DPDK's memory grows with {HUGEPAGES} free hugepages alone (vm.nr_hugepages)");
        return;
    }
    root::enter(|| {
        let link = Link {
            server: "net_vhost0,iface=SOCKET,queues=1",
            client: "virtio_user0,path=SOCKET,queues=1,packed_vq=1",
        };
        let open_client = |config: &Config| -> LibOs {
            let config = config.clone().set("dpdk.memory_mib", 160).set("memory.hugepages", false);
            let libos = open(&config);
            let before = free_hugepages();
            let first = greedy_port(0);
            let second = greedy_port(1);
            let between = free_hugepages();
            assert!(between + 20 < before, "DPDK took {} hugepages more", before.saturating_sub(between));
            drop(first);
            // These stay until the process ends.
            std::mem::forget((second, greedy_port(2)));
            libos
        };
        exchange(&link, open_client, nothing_is_copied);
    });
}
