//! The link between the library OS and the kernel.

use std::process::Command;

use catnip_os::libos::{Config, LibOs};

use super::pair::Offloads;
use crate::scenario::Failure;

/// What the library OS is connected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Tap,
    Packet,
    /// A packet socket with a ring: fewer system calls, and its latency.
    PacketRing,
    Xdp,
    /// A port of DPDK's TAP driver.
    #[cfg(feature = "dpdk")]
    Dpdk,
}

impl Device {
    /// What a pair of the kernel's has to carry to be compared with. Frames of XDP have complete checksums and are never
    /// longer than the link's: as on a wire.
    pub const fn offloads(self) -> Offloads {
        match self {
            Self::Tap | Self::Packet | Self::PacketRing => Offloads::On,
            Self::Xdp => Offloads::Off,
            #[cfg(feature = "dpdk")]
            Self::Dpdk => Offloads::Off,
        }
    }

    /// Name of the kernel's interface, whose other end is the library OS's.
    pub const fn kernel_interface(self) -> &'static str {
        match self {
            Self::Tap => "bench",
            #[cfg(feature = "dpdk")]
            Self::Dpdk => "bench",
            Self::Packet | Self::PacketRing | Self::Xdp => "kernel",
        }
    }
}

/// The kernel's address, in a network of its own.
pub const KERNEL: &str = "10.6.0.1";
/// Size of a packet socket's ring.
const RING_KIB: usize = 8192;
/// The library OS's address.
pub const OURS: &str = "10.6.0.2";

/// True when the user is root.
pub fn is_root() -> bool {
    // SAFETY: the call has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Runs a command with words; it has to succeed.
pub fn run(words: &str) -> Result<(), Failure> {
    let mut split = words.split(' ');
    let program = split.next().unwrap_or_default();
    let output = Command::new(program).args(split).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// A library OS on a new device.
pub fn open(device: Device) -> Result<LibOs, Failure> {
    open_with(device, Config::new())
}

/// As [`open`], with settings beyond the device's own.
pub fn open_with(device: Device, config: Config) -> Result<LibOs, Failure> {
    let config = config.set("stack.addresses", vec![format!("{OURS}/24")]);
    let config = match device {
        Device::Tap => config
            .set("runtime.kind", "tap")
            .set("tap.name", "bench")
            .set("tap.host_addresses", vec![format!("{KERNEL}/24")]),
        Device::Packet | Device::PacketRing => {
            make_pair()?;
            let config = config.set("runtime.kind", "packet").set("packet.interface", "ours");
            if device == Device::PacketRing { config.set("packet.ring_kib", RING_KIB) } else { config }
        }
        Device::Xdp => {
            make_pair()?;
            // XDP has no place where the kernel could say that it left a checksum open.
            run("ethtool -K kernel tx off")?;
            config.set("runtime.kind", "xdp").set("xdp.interface", "ours")
        }
        #[cfg(feature = "dpdk")]
        Device::Dpdk => {
            let config = config.set("runtime.kind", "dpdk").set("dpdk.device", "net_tap0,iface=bench");
            let libos = catnip_os::open(&config)?;
            run(&format!("ip address add {KERNEL}/24 dev bench"))?;
            run("ip link set bench up")?;
            return Ok(libos);
        }
    };
    Ok(catnip_os::open(&config)?)
}

fn make_pair() -> Result<(), Failure> {
    run("ip link add kernel type veth peer name ours")?;
    run("ip link set ours addrgenmode none")?;
    run(&format!("ip address add {KERNEL}/24 dev kernel"))?;
    run("ip link set kernel up")?;
    run("ip link set ours up")
}
