//! NICs that the guest's kernel drives: one for the kernel's own sockets, the other for the library OS.

use std::fs;
use std::process::Command;

/// A NIC by its place on the PCI bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nic {
    /// Its driver knows nothing of XDP.
    E1000,
    /// Its driver takes XDP programs and, from Linux 6.13 on, sockets without copies.
    Virtio,
}

impl Nic {
    /// The name of its interface.
    pub fn interface(self) -> String {
        let device = match self {
            Self::E1000 => "/sys/bus/pci/devices/0000:00:06.0".into(),
            // The driver of the bus makes a device of virtio's, which has the interface.
            Self::Virtio => {
                let bus = "/sys/bus/pci/devices/0000:00:07.0";
                let device = names(bus).into_iter().find(|name| name.starts_with("virtio")).unwrap();
                format!("{bus}/{device}")
            }
        };
        names(&format!("{device}/net")).remove(0)
    }

    fn other(self) -> Self {
        match self {
            Self::E1000 => Self::Virtio,
            Self::Virtio => Self::E1000,
        }
    }
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs a command with words; it has to succeed.
fn run(words: &str) {
    let mut words = words.split(' ');
    let program = words.next().unwrap();
    let output = Command::new(program).args(words.clone()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {errors}", words.collect::<Vec<_>>().join(" "));
}

/// Gives the kernel's addresses to the other NIC, and brings both up. Returns the name of ours.
pub fn prepare(ours: Nic) -> String {
    let (ours, kernel) = (ours.interface(), ours.other().interface());
    for interface in [&ours, &kernel] {
        run(&format!("ip link set {interface} down"));
        run(&format!("ip address flush dev {interface}"));
        run(&format!("ip link set {interface} addrgenmode none"));
        run(&format!("ip link set {interface} up"));
    }
    run("ip link set lo up");
    run(&format!("ip address add 10.5.0.1/24 dev {kernel}"));
    run(&format!("ip address add fd05::1/64 dev {kernel} nodad"));
    ours
}

/// The running kernel's version: the first two numbers.
pub fn kernel_version() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-', '+']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
