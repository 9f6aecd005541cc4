//! A device that goes away is an error, and not a crash.

use libos::runtime::RxBatch;
use libos::{Error, FrameBatch, Instant, Runtime};

use crate::end::{End, config, pattern, push};
use crate::namespace;

#[test]
fn a_port_that_is_unplugged_fails_and_its_memory_comes_back() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_null0"));
        assert!(!end.receive().is_empty());
        unplug(&end);
        let mut batch = FrameBatch::new();
        push(&mut batch, [end.buffer(&pattern(60, 1))]);
        assert_eq!(end.dpdk.transmit(Instant::ZERO, &mut batch), Err(Error::DeviceFailed));
        assert_eq!(end.dpdk.receive(Instant::ZERO, &mut RxBatch::new()), Err(Error::DeviceFailed));
        drop(batch);
        let End { dpdk, arena } = end;
        drop(dpdk);
        assert_eq!(arena.stats().live_buffers, 0);
    });
}

/// Takes the device away as hot-unplugging does.
fn unplug(end: &End) {
    let name = std::ffi::CString::new(end.dpdk.name()).unwrap();
    let bus = c"vdev";
    // SAFETY: two texts that end with zeros.
    let result = unsafe { dpdk_sys::rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr()) };
    assert_eq!(result, 0);
}
