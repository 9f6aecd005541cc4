//! The link between the library OS and the kernel.

use std::process::Command;

use catnip_os::libos::{Config, LibOs};

use crate::scenario::Failure;

/// What the library OS is connected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Tap,
    Packet,
    Xdp,
}

/// The kernel's address, in a network of its own.
pub const KERNEL: &str = "10.6.0.1";
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
    let config = Config::new().set("stack.addresses", vec![format!("{OURS}/24")]);
    let config = match device {
        Device::Tap => config
            .set("runtime.kind", "tap")
            .set("tap.name", "bench")
            .set("tap.host_addresses", vec![format!("{KERNEL}/24")]),
        Device::Packet => {
            make_pair()?;
            config.set("runtime.kind", "packet").set("packet.interface", "ours")
        }
        Device::Xdp => {
            make_pair()?;
            // XDP has no place where the kernel could say that it left a checksum open.
            run("ethtool -K kernel tx off")?;
            config.set("runtime.kind", "xdp").set("xdp.interface", "ours")
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
