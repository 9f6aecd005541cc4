//! Emulated PCI NICs behind an IOMMU, through VFIO: run by `make test-vm`, in a virtual machine that has them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod echo;
mod processes;

use processes::{Link, exchange, open};

/// An e1000 and a virtio-net NIC on one emulated hub. Each reads and writes the library OS's region where it is: the IOMMU
/// stops it everywhere else.
#[test]
fn pci_ports_exchange_echoes_from_the_registered_region() {
    let link = Link { server: "0000:00:04.0", client: "0000:00:05.0" };
    exchange(&link, open, echo::nothing_is_copied);
}
