//! Opening packet sockets on an interface, and the words for when that fails.

use std::ffi::{c_int, c_uint};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::SOL_PACKET;
use libos::SetupError;

use super::config::PacketConfig;
use crate::interface::{Attachment, widen_filter};
use crate::steering::Steering;
use crate::system::packet_ring::PacketRing;
use crate::system::socket::{self, link_address};

/// Bytes that wait in a socket without a ring.
const QUEUE_BYTES: c_int = 4 << 20;

/// One queue pair on an interface, not yet tied to a thread's memory.
///
/// May be sent to the thread that is to serve it; [`super::Packet::new`] makes a runtime of it there.
#[derive(Debug)]
pub struct PacketSocket {
    // In front of the socket, so that the ring is unmapped before it is closed.
    pub(super) ring: Option<PacketRing>,
    pub(super) fd: OwnedFd,
    pub(super) name: String,
    pub(super) attachment: Attachment,
    pub(super) offload: bool,
}

impl PacketSocket {
    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// Opens all queues on the interface.
    ///
    /// # Errors
    /// [`SetupError::Config`] for a value that no interface takes, [`SetupError::Device`] with the call that failed
    /// and what would help.
    pub fn open(config: &PacketConfig) -> Result<Vec<Self>, SetupError> {
        config.validate()?;
        let attachment = Attachment::find("packet", &config.interface, config.mac, config.mtu)?;
        let queues: Vec<Self> =
            (0..config.queues).map(|_| open_one(config, attachment)).collect::<Result<_, _>>()?;
        if queues.len() > 1 {
            spread(&queues, config.steering.as_ref())
                .and_then(|()| queues.iter().try_for_each(|queue| socket::receive_all(queue.fd.as_fd())))
                .map_err(|error| failed(config, "PACKET_FANOUT", error.to_string()))?;
        }
        Ok(queues)
    }
}

fn failed(config: &PacketConfig, call: &'static str, reason: String) -> SetupError {
    SetupError::Device { device: config.interface.clone(), call, reason }
}

fn open_one(config: &PacketConfig, attachment: Attachment) -> Result<PacketSocket, SetupError> {
    // Without a protocol nothing arrives until it is bound, with everything set.
    let fd = socket::open(libc::AF_PACKET, libc::SOCK_RAW)
        .map_err(|error| failed(config, "socket(AF_PACKET)", open_reason(&error)))?;
    let set = |call, name, value: c_int| {
        socket::set_option(fd.as_fd(), SOL_PACKET, name, &value)
            .map_err(|error| failed(config, call, error.to_string()))
    };
    // What we send ourselves is not received again.
    set("PACKET_IGNORE_OUTGOING", libc::PACKET_IGNORE_OUTGOING, 1)?;
    set("PACKET_VNET_HDR", libc::PACKET_VNET_HDR, 1)?;
    set("PACKET_QDISC_BYPASS", libc::PACKET_QDISC_BYPASS, 1)?;
    let ring = match config.ring_kib {
        0 => {
            set("PACKET_AUXDATA", libc::PACKET_AUXDATA, 1)?;
            grow_queue(fd.as_fd());
            None
        }
        kib => {
            let ring = PacketRing::new(fd.as_fd(), kib << 10);
            Some(ring.map_err(|error| failed(config, "PACKET_RX_RING", ring_reason(&error)))?)
        }
    };
    if config.queues > 1 {
        // Until it is one of the group it would get what the others get, too.
        socket::receive_nothing(fd.as_fd())
            .map_err(|error| failed(config, "SO_ATTACH_FILTER", error.to_string()))?;
    }
    let index = attachment.link.index;
    socket::bind(fd.as_fd(), &link_address(index))
        .map_err(|error| failed(config, "bind", error.to_string()))?;
    let everybody = config.promiscuous;
    widen_filter(fd.as_fd(), attachment, everybody)
        .map_err(|error| failed(config, "PACKET_ADD_MEMBERSHIP", error.to_string()))?;
    Ok(PacketSocket { ring, fd, name: config.interface.clone(), attachment, offload: config.offload })
}

/// Has the socket's queue hold as much as it may: by itself it is for three or four joined frames.
fn grow_queue(fd: BorrowedFd<'_>) {
    let set = |name| socket::set_option(fd, libc::SOL_SOCKET, name, &QUEUE_BYTES);
    // Beyond the system's limit only with CAP_NET_ADMIN; up to it anybody may. A short queue works as well.
    let _ = set(libc::SO_RCVBUFFORCE).or_else(|_| set(libc::SO_RCVBUF));
}

fn open_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "no permission: it needs CAP_NET_RAW in the network namespace: run \
                                             inside `unshare -Urn`, as root, or after `setcap cap_net_raw+ep PROGRAM`"
            .into(),
        Some(libc::EAFNOSUPPORT) => "the kernel has no packet sockets (CONFIG_PACKET)".into(),
        _ => error.to_string(),
    }
}

fn ring_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => "the kernel has not so much memory; lower `packet.ring_kib`".into(),
        _ => error.to_string(),
    }
}

/// Has the kernel spread flows over the sockets: as the program says, or by a hash of its own.
fn spread(queues: &[PacketSocket], steering: Option<&Steering>) -> io::Result<()> {
    let by = if steering.is_some() { libc::PACKET_FANOUT_CBPF } else { libc::PACKET_FANOUT_HASH };
    let mut group = None;
    for queue in queues {
        // The first asks for a group that nobody else has.
        let (id, flags) = group.map_or((0, libc::PACKET_FANOUT_FLAG_UNIQUEID), |id| (id, 0));
        let request = c_uint::from(id) | (by | flags) << 16;
        let fd = queue.fd.as_fd();
        socket::set_option(fd, SOL_PACKET, libc::PACKET_FANOUT, &request)?;
        if group.is_none() {
            let made: c_uint = socket::option(fd, SOL_PACKET, libc::PACKET_FANOUT)?;
            group = Some(made as u16);
            // Before there are others: until then all that arrives is the first one's.
            if let Some(Steering(program)) = steering {
                socket::set_fanout_program(fd, program)?;
            }
        }
    }
    Ok(())
}
