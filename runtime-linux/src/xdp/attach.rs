//! The program on an interface, and the words for when it does not get there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use libos::SetupError;

use super::config::{Placement, XdpConfig};
use super::program;
use crate::interface::{Attachment, open_filter};
use crate::system::bpf::{self, Fragments};

// linux/if_link.h: where a program is attached.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// An interface with our program on it, as long as any queue is open.
#[derive(Debug)]
pub(super) struct Attached {
    /// Which socket serves which queue.
    pub sockets: OwnedFd,
    pub attachment: Attachment,
    pub native: bool,
    /// Frames in several buffers reach the program.
    pub fragments: bool,
    /// Why it is not native.
    pub refused: Option<String>,
    /// Keeps the program attached.
    _link: OwnedFd,
    /// Keeps the interface's filter open for our address and for groups, and answers questions about it: XDP sockets
    /// take none.
    pub filter: OwnedFd,
}

/// One queue of an interface, not yet tied to a thread's memory.
///
/// May be sent to the thread that is to serve it; [`super::Xdp::new`] makes a runtime of it there.
#[derive(Debug, Clone)]
pub struct XdpQueue {
    pub(super) attached: Arc<Attached>,
    pub(super) queue: u32,
    pub(super) config: XdpConfig,
}

impl XdpQueue {
    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.config.interface
    }

    /// Attaches the program to the interface and readies all queues.
    ///
    /// # Errors
    /// [`SetupError::Config`] for a value that no interface takes, [`SetupError::Device`] with the call that failed
    /// and what would help.
    pub fn open(config: &XdpConfig) -> Result<Vec<Self>, SetupError> {
        config.validate()?;
        let attached = Arc::new(attach(config)?);
        let queues = config.queue..config.queue + config.queues;
        Ok(queues
            .map(|queue| Self { attached: attached.clone(), queue: queue as u32, config: config.clone() })
            .collect())
    }
}

pub(super) fn failed(config: &XdpConfig, call: &'static str, reason: String) -> SetupError {
    SetupError::Device { device: config.interface.clone(), call, reason }
}

fn attach(config: &XdpConfig) -> Result<Attached, SetupError> {
    let attachment = Attachment::find("xdp", &config.interface, config.mac, config.mtu)?;
    let sockets = bpf::create_socket_map((config.queue + config.queues) as u32)
        .map_err(|error| failed(config, "BPF_MAP_CREATE", reason(&error)))?;
    let instructions = program::redirect(sockets.as_fd());
    // Kernels before 5.18 do not know frames in several buffers.
    let (program, fragments) = match bpf::load_program(&instructions, Fragments::Allowed) {
        Ok(program) => (program, true),
        Err(_) => {
            let program = bpf::load_program(&instructions, Fragments::Refused);
            (program.map_err(|error| failed(config, "BPF_PROG_LOAD", reason(&error)))?, false)
        }
    };
    let index = attachment.link.index;
    let at = |flags| bpf::attach(program.as_fd(), index, flags);
    let refusal = |error: io::Error| failed(config, "BPF_LINK_CREATE", reason(&error));
    let (link, native, refused) = match config.placement {
        Placement::Native => (at(XDP_FLAGS_DRV_MODE).map_err(refusal)?, true, None),
        Placement::Generic => (at(XDP_FLAGS_SKB_MODE).map_err(refusal)?, false, None),
        Placement::Auto => match at(XDP_FLAGS_DRV_MODE) {
            Ok(link) => (link, true, None),
            // Neither would succeed without the right to, nor beside another program.
            Err(error) if is_final(&error) => return Err(refusal(error)),
            Err(error) => {
                let link = at(XDP_FLAGS_SKB_MODE).map_err(refusal)?;
                (link, false, Some(format!("native mode was refused: {error}")))
            }
        },
    };
    let filter = open_filter(attachment)
        .map_err(|error| failed(config, "PACKET_ADD_MEMBERSHIP", error.to_string()))?;
    Ok(Attached { sockets, attachment, native, fragments, refused, _link: link, filter })
}

fn is_final(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::EBUSY | libc::EEXIST | libc::ENODEV)
    )
}

pub(super) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "no permission: XDP needs root on the machine, or CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF there; root of a \
             user namespace (`unshare -Urn`) is not enough"
                .into()
        }
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached to the interface: `ip link set NAME xdp off` takes it off".into()
        }
        Some(libc::ENOSYS) => "the kernel has no BPF (CONFIG_BPF_SYSCALL)".into(),
        Some(libc::EINVAL) => format!("{error}: it needs Linux 5.9 with XDP sockets (CONFIG_XDP_SOCKETS)"),
        _ => error.to_string(),
    }
}
