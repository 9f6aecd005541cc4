//! Ports of DPDK through VFIO, behind an IOMMU.

use crate::processes::{Link, exchange, open};
use crate::{echo, namespace};

/// An e1000 and a virtio-net NIC on one emulated hub. Each reads and writes the library OS's region where it is: the IOMMU
/// stops it everywhere else.
#[test]
fn pci_ports_exchange_echoes_from_the_registered_region() {
    namespace::enter("-n", || {
        let link = Link { server: "0000:00:04.0", client: "0000:00:05.0" };
        exchange(&link, open, echo::nothing_is_copied);
    });
}
