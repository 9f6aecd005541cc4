//! Errors name the port, the call, and what DPDK says of it.

use libos::memory::ArenaConfig;
use runtime_dpdk::{DpdkConfig, DpdkPort, MemoryPolicy};

use crate::end::{End, config};
use crate::namespace;

fn refusal(config: &DpdkConfig) -> String {
    DpdkPort::open(config, 0).map(drop).unwrap_err().to_string()
}

#[test]
fn mistakes_are_said_with_port_call_and_reason() {
    namespace::enter("-Urn", || {
        let line = refusal(&config("net_unheard_of0"));
        assert!(line.starts_with("net_unheard_of0: rte_dev_probe: "), "{line}");
        assert!(line.contains("(dpdk.device)"), "{line}");
        let line = refusal(&DpdkConfig { port: 7, ..DpdkConfig::default() });
        assert!(line.starts_with("port 7: rte_eth_dev_is_valid_port: there is no such port"), "{line}");
        let line = refusal(&DpdkConfig { queues: 100, ..config("net_ring0") });
        assert!(line.starts_with("net_ring0: rte_eth_dev_configure: 100 queues (dpdk.queues)"), "{line}");
        // None of them keeps the next one from being opened, nor that one itself a second time.
        for _ in 0..2 {
            assert!(!End::open(&config("net_null0")).receive().is_empty());
        }
    });
}

#[test]
fn arguments_that_dpdk_refuses_are_shown() {
    namespace::enter("-Urn", || {
        let eal_args = vec!["--no-such-argument".to_owned()];
        let wrong = DpdkConfig { eal_args, ..config("net_null0") };
        let line = refusal(&wrong);
        assert!(line.starts_with("EAL: rte_eal_init: "), "{line}");
        assert!(line.contains("--no-such-argument"), "{line}");
        assert_eq!(refusal(&config("net_null0")), line, "EAL is initialised once, for better or worse");
    });
}

#[test]
fn a_link_that_does_not_come_up_is_an_error() {
    namespace::enter("-Urn", || {
        let link_wait = std::time::Duration::from_millis(50);
        let device = format!("net_memif0,role=server,socket=/tmp/catnip-none-{}", std::process::id());
        let alone = DpdkConfig { link_wait, ..config(&device) };
        let memory = ArenaConfig { region_bytes: 8 << 20, hugepages: false };
        let port = DpdkPort::open(&alone, memory.region_bytes).unwrap();
        let arena = port.arena(&memory).unwrap();
        let queue = port.into_queues().pop().unwrap();
        let line = runtime_dpdk::Dpdk::new(queue, &arena).map(drop).unwrap_err().to_string();
        assert!(line.contains("the link did not come up within 50 ms (dpdk.link_wait_ms"), "{line}");
    });
}

#[test]
fn a_region_larger_than_dpdks_memory_is_refused_in_words() {
    namespace::enter("-Urn", || {
        let small = DpdkConfig { memory: MemoryPolicy::RuntimeHeap, memory_mib: 64, ..config("net_null0") };
        let port = DpdkPort::open(&small, 0).unwrap();
        let line = port.arena(&ArenaConfig { region_bytes: 256 << 20, hugepages: false }).unwrap_err();
        assert!(line.to_string().contains("dpdk.memory_mib"), "{line}");
    });
}
