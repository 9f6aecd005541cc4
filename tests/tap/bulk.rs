//! Tens of megabytes against kernel sockets, compared by hash: each direction and both, both families, with
//! offloads and without, small and large frames.

use catnip_os::libos::Config;

use crate::link::{self, Family};
use crate::namespace;
use crate::transfer::{FLOWS, transfer};

fn transfer_all(what: &str, offload: bool, mtu: usize) {
    transfer_all_over(what, &link::config().set("tap.offload", offload).set("tap.mtu", mtu));
}

fn transfer_all_over(what: &str, config: &Config) {
    let libos = link::open(config);
    for family in Family::BOTH {
        for flow in FLOWS {
            transfer(&libos, family, flow, what);
        }
    }
    assert_eq!(
        link::metric(&libos, "catnip.tcp.retransmitted_segments"),
        0,
        "{what}: nothing is lost on this link"
    );
}

#[test]
fn bulk_arrives_unchanged_both_ways_with_offloads() {
    namespace::enter("-Urn", || transfer_all("offloads", true, 1500));
}

#[test]
fn bulk_arrives_unchanged_both_ways_without_offloads() {
    namespace::enter("-Urn", || transfer_all("no offloads", false, 1500));
}

#[test]
fn bulk_arrives_unchanged_both_ways_in_large_frames() {
    namespace::enter("-Urn", || transfer_all("large frames", false, 9000));
}

#[test]
fn bulk_arrives_unchanged_both_ways_when_the_kernel_polls_for_frames() {
    namespace::enter("-Urn", || transfer_all_over("NAPI", &link::config().set("tap.napi", true)));
}
