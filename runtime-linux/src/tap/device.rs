//! Opening a TAP device and setting the kernel's end of it up, and the words for when that fails.

use std::ffi::{c_int, c_short, c_uint};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use libos::SetupError;

use super::config::TapConfig;
use crate::netlink::{Link, Netlink};
use crate::steering::{Steering, translate};
use crate::system::{self, bpf};
use crate::virtio_header::HEADER_BYTES;
use libos::mac::Mac;

const CLONE_DEVICE: &str = "/dev/net/tun";

/// linux/if_tun.h: from Linux 4.15 on; kernels before do without.
pub(super) const IFF_NAPI: c_int = 0x0010;

const RIGHTS: &str = "needs CAP_NET_ADMIN in the network namespace: run inside `unshare -Urn`, as root, \
     or have root make the device for this user (`ip tuntap add dev NAME mode tap user USER`)";

/// One queue pair of an open TAP device, not yet tied to a thread's memory.
///
/// May be sent to the thread that is to serve it; [`super::Tap::new`] makes a runtime of it there.
/// The device goes away when the last queue is dropped, unless it is a persistent one.
#[derive(Debug)]
pub struct TapQueue {
    pub(super) file: File,
    pub(super) name: String,
    pub(super) hardware_address: [u8; 6],
    pub(super) mtu: usize,
    pub(super) offload: bool,
    /// A program of ours picks the queue of each frame.
    pub(super) steered: bool,
}

impl TapQueue {
    /// Opens the device with all of its queues and sets the kernel's end up.
    ///
    /// # Errors
    /// [`SetupError::Config`] for a value that no device takes, [`SetupError::Device`] with the call
    /// that failed and what would help.
    pub fn open(config: &TapConfig) -> Result<Vec<Self>, SetupError> {
        Self::open_through(CLONE_DEVICE, config)
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn open_through(clone_device: &str, config: &TapConfig) -> Result<Vec<Self>, SetupError> {
        config.validate()?;
        let mut queues = (0..config.queues)
            .map(|_| {
                Ok(Self {
                    file: attach(clone_device, config)?,
                    name: config.name.clone(),
                    hardware_address: config.hardware_address(),
                    mtu: config.mtu,
                    offload: config.offload,
                    steered: false,
                })
            })
            .collect::<Result<Vec<Self>, _>>()?;
        if let Some(steering) = &config.steering {
            steer(&mut queues, steering);
        }
        set_kernel_end_up(config)?;
        Ok(queues)
    }
}

/// Opens the clone device and attaches it as one queue of the interface.
fn attach(clone_device: &str, config: &TapConfig) -> Result<File, SetupError> {
    let failed = |call, reason| SetupError::Device { device: config.name.clone(), call, reason };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(clone_device)
        .map_err(|error| failed("open /dev/net/tun", open_reason(&error)))?;

    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if config.queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if config.napi {
        flags |= IFF_NAPI;
    }
    system::tun_attach(&file, &config.name, flags as c_short)
        .map_err(|error| failed("TUNSETIFF", attach_reason(&error, &config.name, config.queues)))?;
    system::tun_set_header_bytes(&file, HEADER_BYTES as c_int)
        .map_err(|error| failed("TUNSETVNETHDRSZ", error.to_string()))?;
    set_offload(&file, config).map_err(|error| failed("TUNSETOFFLOAD", error.to_string()))?;
    Ok(file)
}

/// Has the program pick the queues. Where this user may not load programs the kernel goes on picking: frames of other
/// cores' flows then come too.
fn steer(queues: &mut [TapQueue], Steering(program): &Steering) {
    let Some(first) = queues.first() else { return };
    let set = translate(program)
        .and_then(|instructions| bpf::load_filter(&instructions))
        .and_then(|program| system::tun_set_steering(&first.file, program.as_fd()));
    match set {
        Ok(()) => queues.iter_mut().for_each(|queue| queue.steered = true),
        Err(error) => log::info!(
            "{}: the kernel spreads flows over the queues by itself, since it takes no program for that: {error}",
            first.name
        ),
    }
}

/// Asks for the configured offloads. Kernels before 6.2 refuse the whole set when UDP segmentation
/// is in it: then they are asked again without.
fn set_offload(file: &File, config: &TapConfig) -> io::Result<()> {
    const TCP: c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    const UDP: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    if !config.offload {
        return system::tun_set_offload(file, 0);
    }
    if config.udp_segmentation && system::tun_set_offload(file, TCP | UDP).is_ok() {
        return Ok(());
    }
    system::tun_set_offload(file, TCP)
}

fn open_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => {
            "/dev/net/tun is missing: load the module (`modprobe tun`), or hand the device to the \
             container (`--device /dev/net/tun`)"
                .into()
        }
        Some(libc::ENODEV | libc::ENXIO) => "the kernel has no TUN/TAP driver (CONFIG_TUN)".into(),
        Some(libc::EACCES | libc::EPERM) => {
            format!(
                "no permission to open /dev/net/tun: it {RIGHTS}, and read and write access to /dev/net/tun"
            )
        }
        _ => error.to_string(),
    }
}

fn attach_reason(error: &io::Error, name: &str, queues: usize) -> String {
    let exists = Netlink::open().and_then(|mut netlink| netlink.link(name)).is_ok();
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!("no permission: it {RIGHTS}"),
        Some(libc::EBUSY) => {
            "the name is taken: another program holds this device open; choose another `tap.name`".into()
        }
        Some(libc::EINVAL) if exists && queues > 1 => {
            "the name is taken by an interface that is not a TAP device with several queues; choose \
             another `tap.name`, or make it with `multi_queue`"
                .into()
        }
        Some(libc::EINVAL) if exists => {
            "the name is taken by an interface that is not a TAP device with one queue; choose another \
             `tap.name`"
                .into()
        }
        Some(libc::E2BIG) => "more queues than the device takes; lower `tap.queues`".into(),
        _ => error.to_string(),
    }
}

/// Brings the kernel's end up with the configured MTU and addresses.
fn set_kernel_end_up(config: &TapConfig) -> Result<(), SetupError> {
    let failed = |call, error: &io::Error| {
        let reason = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => format!("no permission: it {RIGHTS}"),
            _ => error.to_string(),
        };
        SetupError::Device { device: config.name.clone(), call, reason }
    };
    let mut netlink = Netlink::open().map_err(|error| failed("socket(AF_NETLINK)", &error))?;
    let link = netlink.link(&config.name).map_err(|error| failed("RTM_GETLINK", &error))?;
    check_addresses_differ(config, link)?;
    let mtu = config.mtu as u32;
    // Asked for only when something is to change, so that a device that root made ready for this user
    // can be used without privileges.
    if config.up && !(link.up && link.mtu == mtu) {
        netlink.set_up(link.index, mtu).map_err(|error| failed("RTM_NEWLINK", &error))?;
    }
    for host in &config.host_addresses {
        netlink
            .add_address(link.index, host.address, host.prefix_bits)
            .map_err(|error| failed("RTM_NEWADDR", &error))?;
    }
    Ok(())
}

/// Each end of the link needs an Ethernet address of its own: the kernel drops frames that seem to
/// come from itself.
pub(super) fn check_addresses_differ(config: &TapConfig, link: Link) -> Result<(), SetupError> {
    let ours = config.hardware_address();
    if ours != link.hardware_address {
        return Ok(());
    }
    Err(SetupError::Config {
        source: "builder".into(),
        key: "tap.mac".into(),
        value: Mac(ours).to_string(),
        allowed: format!("another address than the kernel's end of {} has", config.name),
    })
}
