//! What cannot be opened, and the words for it.

use libos::SetupError;
use runtime_linux::tap::{TapConfig, TapQueue};

use crate::end::{End, config};
use crate::namespace;

/// The error of opening as (device, call, whole line).
fn refused(config: &TapConfig) -> (String, &'static str, String) {
    match TapQueue::open(config) {
        Err(error @ SetupError::Device { .. }) => {
            let line = error.to_string();
            let SetupError::Device { device, call, .. } = error else { unreachable!() };
            (device, call, line)
        }
        other => panic!("opening gave {other:?}"),
    }
}

#[test]
fn a_device_that_another_holds_open_is_refused_by_name() {
    namespace::enter("-Urn", || {
        let _holder = End::open(&config());
        let (device, call, line) = refused(&config());
        assert_eq!((device.as_str(), call), ("tap-test", "TUNSETIFF"));
        assert!(line.contains("another program holds this device open"), "{line}");
    });
}

#[test]
fn an_interface_of_another_kind_is_refused() {
    namespace::enter("-Urn", || {
        for queues in [1, 2] {
            let (_, call, line) = refused(&TapConfig { name: "lo".into(), queues, ..config() });
            assert_eq!(call, "TUNSETIFF");
            assert!(line.starts_with("lo: ") && line.contains("not a TAP device"), "{line}");
        }
    });
}

#[test]
fn a_user_without_rights_is_told_what_to_do() {
    namespace::enter("-U", || {
        let (_, _, line) = refused(&config());
        for hint in ["no permission", "unshare -Urn", "CAP_NET_ADMIN", "ip tuntap add"] {
            assert!(line.contains(hint), "{line}");
        }
    });
}

#[test]
fn the_name_is_free_again_once_the_device_is_dropped() {
    namespace::enter("-Urn", || {
        for _ in 0..3 {
            drop(End::open(&config()));
        }
    });
}

#[test]
fn an_address_that_the_kernel_refuses_is_reported_with_the_call() {
    namespace::enter("-Urn", || {
        let host_addresses = vec!["fd00::1/64".parse().unwrap()];
        let (_, call, line) = refused(&TapConfig { mtu: 600, host_addresses, ..config() });
        assert_eq!(call, "RTM_NEWADDR", "{line}");
    });
}
