//! Failures that only can be brought about from inside: a missing device node, a device that goes away.

#[path = "../../../tests/common/namespace.rs"]
mod namespace;

use std::ffi::c_int;

use libos::memory::ArenaConfig;
use libos::runtime::{RxBatch, TxOffload};
use libos::{Arena, Error, FrameBatch, Instant, Runtime, SetupError};

use super::device::{IFF_NAPI, check_addresses_differ};
use super::{Tap, TapConfig, TapQueue};
use crate::netlink::Link;
use crate::netlink::tests::delete_link;
use crate::system;

fn arena() -> Arena {
    Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap()
}

#[test]
fn a_missing_clone_device_is_named_with_what_to_do() {
    let error = TapQueue::open_through("/dev/net/no-such-tun", &TapConfig::default()).unwrap_err();
    let SetupError::Device { device, call, reason } = error else { panic!("{error}") };
    assert_eq!((device.as_str(), call), ("catnip0", "open /dev/net/tun"));
    assert!(reason.contains("missing") && reason.contains("modprobe tun"), "{reason}");
}

#[test]
fn a_device_that_was_deleted_has_failed_for_good() {
    namespace::enter("-Urn", || {
        let arena = arena();
        let [mut tap] = <[Tap; 1]>::try_from(Tap::open(&TapConfig::default(), &arena).unwrap()).unwrap();
        delete_link("catnip0");
        let mut batch = FrameBatch::new();
        batch.push(arena.copy_from(&[0; 60]).unwrap().freeze());
        batch.finish(TxOffload::default());
        for _ in 0..2 {
            assert_eq!(tap.transmit(Instant::ZERO, &mut batch), Err(Error::DeviceFailed));
            assert_eq!(tap.receive(Instant::ZERO, &mut RxBatch::new()), Err(Error::DeviceFailed));
        }
        assert_eq!(batch.len(), 1);
    });
}

#[test]
fn the_kernel_polls_for_frames_from_us_when_it_is_told_to() {
    namespace::enter("-Urn", || {
        for napi in [true, false] {
            let queues = TapQueue::open(&TapConfig { napi, ..TapConfig::default() }).unwrap();
            let flags = c_int::from(system::tun_flags(&queues[0].file).unwrap());
            assert_eq!(flags & IFF_NAPI != 0, napi, "{flags:x}");
        }
    });
}

#[test]
fn our_end_may_not_have_the_address_of_the_kernels_end() {
    let mac = [2, 0, 0, 0, 0, 1];
    let config = TapConfig { mac: Some(mac), ..TapConfig::default() };
    let other = Link { hardware_address: [2, 0, 0, 0, 0, 2], ..Link::default() };
    let same = Link { hardware_address: mac, ..other };
    assert_eq!(check_addresses_differ(&config, other), Ok(()));
    let error = check_addresses_differ(&config, same).unwrap_err();
    assert!(error.to_string().starts_with("builder: tap.mac = 02:00:00:00:00:01: "), "{error}");
}
