//! XDP sockets on NICs of a PCI bus, behind an IOMMU, against the kernel's sockets on the other NIC of the emulated wire.

use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::{Arena, Config, LibOs};
use runtime_linux::xdp::{Xdp, XdpConfig};

use crate::kernel_echo::exchange;
use crate::link::{self, Family};
use crate::nics::{self, Nic};
use crate::transfer::{Flow, transfer};

const PORT: u16 = 5012;
const BYTES: usize = 2 << 20;
/// From which on the kernel's virtio-net driver gives its queues to XDP sockets, both ways.
const ZERO_COPY_SINCE: (u32, u32) = (6, 13);

fn config(interface: &str) -> Config {
    let addresses = ["10.5.0.2/24", "fd05::2/64"].map(str::to_owned).to_vec();
    Config::new()
        .set("runtime.kind", "xdp")
        .set("xdp.interface", interface)
        .set("stack.addresses", addresses)
        .set("memory.region_mib", 64)
}

/// In words, which way a socket on this interface was bound.
fn mode(interface: &str) -> String {
    let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
    let config = XdpConfig { interface: interface.into(), ..XdpConfig::default() };
    Xdp::open(&config, &arena).unwrap().remove(0).mode().to_string()
}

fn metric(libos: &LibOs, name: &str) -> u64 {
    link::metric(libos, &format!("catnip.device.{name}"))
}

/// What is received goes back from where it lies; then memory is sent that the program frees at once.
fn exchange_both(libos: &LibOs, what: &str) {
    for family in Family::BOTH {
        exchange(libos, family.catnip(PORT), BYTES, what);
        transfer(libos, family, Flow { up: BYTES, down: BYTES }, what);
    }
}

/// The device reads and writes the region itself, or the message says why it does not. Either way the bytes are right.
#[test]
fn a_driver_of_linux_6_13_copies_nothing_and_an_older_one_is_said_to_refuse() {
    let interface = nics::prepare(Nic::Virtio);
    let zero_copy = nics::kernel_version() >= ZERO_COPY_SINCE;
    let said = mode(&interface);
    println!("virtio-net on Linux {:?}: {said}", nics::kernel_version());
    assert!(
        said.starts_with(if zero_copy { "native mode, zero-copy" } else { "native mode, copying" }),
        "{said}"
    );
    assert_eq!(!zero_copy, said.contains("zero-copy with one buffer a frame was refused: "), "{said}");

    // A queue that was left is taken again, also while the device still has memory of the one before.
    for idle in ["adaptive", "spin", "sleep"] {
        let libos = link::open(&config(&interface).set("libos.idle", idle));
        exchange_both(&libos, &format!("virtio-net, {said}, {idle}"));
        assert_eq!(metric(&libos, "native_mode"), 1);
        assert_eq!(metric(&libos, "zero_copy"), u64::from(zero_copy));
        assert_eq!(metric(&libos, "rx_unknown_buffers"), 0);
        assert_eq!(metric(&libos, "rx_copied_bytes") == 0, zero_copy, "{said}");
        libos.abort_tasks();
    }
}

#[test]
fn copies_that_are_asked_for_are_made() {
    let interface = nics::prepare(Nic::Virtio);
    let libos = link::open(&config(&interface).set("xdp.zero_copy", false));
    exchange_both(&libos, "virtio-net, copies");
    assert_eq!((metric(&libos, "native_mode"), metric(&libos, "zero_copy")), (1, 0));
    assert_eq!(metric(&libos, "rx_copied_bytes"), metric(&libos, "rx_bytes"));
    libos.abort_tasks();
}

#[test]
fn a_driver_without_xdp_is_served_behind_it_and_the_message_says_why() {
    let interface = nics::prepare(Nic::E1000);
    let said = mode(&interface);
    println!("e1000 on Linux {:?}: {said}", nics::kernel_version());
    assert!(said.starts_with("generic mode, copying"), "{said}");
    assert!(said.contains("native mode was refused: "), "{said}");
    let libos = link::open(&config(&interface));
    exchange_both(&libos, "e1000, generic");
    assert_eq!((metric(&libos, "native_mode"), metric(&libos, "zero_copy")), (0, 0));
    libos.abort_tasks();
    drop(libos);
    let refused =
        catnip_os::open(&config(&interface).set("xdp.mode", "native")).map(drop).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("{interface}: BPF_LINK_CREATE: ")), "{refused}");
}
