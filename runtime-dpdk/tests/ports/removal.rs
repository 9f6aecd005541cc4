//! A device that goes away is an error, and not a crash.

use libos::runtime::RxBatch;
use libos::{Error, FrameBatch, Instant, Runtime};

use crate::end::{End, config, pattern, push};
use crate::namespace;
use crate::sleeping::{readable, run};

#[test]
fn a_port_that_is_unplugged_fails_and_its_memory_comes_back() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_null0"));
        assert!(!end.receive().is_empty());
        assert_eq!(end.dpdk.failure(), None);
        unplug(end.dpdk.name());
        let mut batch = FrameBatch::new();
        push(&mut batch, [end.buffer(&pattern(60, 1))]);
        assert_eq!(end.dpdk.transmit(Instant::ZERO, &mut batch), Err(Error::DeviceFailed));
        assert_eq!(end.dpdk.receive(Instant::ZERO, &mut RxBatch::new()), Err(Error::DeviceFailed));
        drop(batch);
        let line = end.dpdk.failure().unwrap();
        let expected = "net_null0: rte_eth_rx_burst: No such device: DPDK has sent RTE_ETH_EVENT_DESTROY";
        assert_eq!(line, expected);
        let End { dpdk, arena } = end;
        drop(dpdk);
        assert_eq!(arena.stats().live_buffers, 0);
    });
}

#[test]
fn a_thread_that_sleeps_is_woken_when_its_port_is_unplugged() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_tap0,iface=dtap0"));
        // No frames but the test's.
        run("sysctl -q net.ipv6.conf.dtap0.disable_ipv6=1");
        std::thread::sleep(std::time::Duration::from_millis(50));
        end.receive_all();
        let asleep = end.dpdk.wake_fd().unwrap();
        assert!(!readable(asleep, 50));
        std::thread::scope(|scope| {
            scope.spawn(|| unplug("net_tap0"));
            assert!(readable(asleep, 5000));
        });
        assert_eq!(end.dpdk.receive(Instant::ZERO, &mut RxBatch::new()), Err(Error::DeviceFailed));
    });
}

#[test]
fn all_queues_of_a_port_say_why_one_of_them_could_not_be_set_up() {
    namespace::enter("-Urn", || {
        let two = runtime_dpdk::DpdkConfig { queues: 2, ..config("net_null0") };
        let mut queues = runtime_dpdk::DpdkPort::open(&two, 32 << 20).unwrap().into_queues();
        let (second, first) = (queues.pop().unwrap(), queues.pop().unwrap());
        let memory = libos::memory::ArenaConfig { region_bytes: 32 << 20, hugepages: false };
        let arena = libos::Arena::new(&memory).unwrap();
        let mut first = runtime_dpdk::Dpdk::new(first, &arena).unwrap();
        unplug("net_null0");
        let line = runtime_dpdk::Dpdk::new(second, &arena).map(drop).unwrap_err().to_string();
        assert!(line.starts_with("net_null0: rte_eth_rx_queue_setup: "), "{line}");
        assert_eq!(first.receive(Instant::ZERO, &mut RxBatch::new()), Err(Error::DeviceFailed));
        assert_eq!(first.failure(), Some(format!("net_null0: queue 1 could not be set up: {line}")));
    });
}

/// Takes a device away as hot-unplugging does.
fn unplug(device: &str) {
    let name = std::ffi::CString::new(device).unwrap();
    let bus = c"vdev";
    // SAFETY: two texts that end with zeros.
    let result = unsafe { dpdk_sys::rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr()) };
    assert_eq!(result, 0);
}
