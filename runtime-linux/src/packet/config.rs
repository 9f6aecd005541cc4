//! Which interface, and how it is used.

use libos::SetupError;

use crate::interface::{NAME_RULE, is_interface_name};
use crate::steering::Steering;
use libos::mac::{Mac, is_station};

/// Most sockets that share an interface.
pub const MAX_QUEUES: usize = 256;
/// Smallest receive ring of a queue, in KiB.
pub const MIN_RING_KIB: usize = 512;
/// Largest receive ring of a queue, in KiB.
pub const MAX_RING_KIB: usize = 1 << 20;

/// How an interface is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketConfig {
    /// The interface's name. It has to be there and up.
    pub interface: String,
    /// The Ethernet address of the library OS on the link. Without one it is the interface's own; then the kernel must
    /// have no IP address there, because it would answer the same packets.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes; the interface's own when not given.
    pub mtu: Option<usize>,
    /// Queue pairs, 1 to [`MAX_QUEUES`], each a socket with a ring of its own. The kernel spreads flows over them.
    pub queues: usize,
    /// Leave checksums and the cutting of large TCP sends to the device.
    pub offload: bool,
    /// Receive frames for every Ethernet address. Those for `mac` and for groups are received anyway.
    pub promiscuous: bool,
    /// KiB of the receive ring of each queue, [`MIN_RING_KIB`] to [`MAX_RING_KIB`], with which the kernel hands frames over
    /// in blocks, a millisecond after they came. 0 for no ring: a system call for each frame, and each at once.
    pub ring_kib: usize,
    /// What picks the queue of each received frame; without it the kernel does, by a hash of its own.
    pub steering: Option<Steering>,
}

impl Default for PacketConfig {
    /// One queue with offloads and without a ring, on an interface that is still to be named.
    fn default() -> Self {
        Self {
            interface: String::new(),
            mac: None,
            mtu: None,
            queues: 1,
            offload: true,
            promiscuous: false,
            ring_kib: 0,
            steering: None,
        }
    }
}

/// True for a size that a ring can have, and for none.
pub(super) fn is_ring_size(kib: usize) -> bool {
    kib == 0 || (MIN_RING_KIB..=MAX_RING_KIB).contains(&kib)
}

/// What [`is_ring_size`] takes, in words.
pub(super) fn ring_rule() -> String {
    format!("0, or {MIN_RING_KIB} to {MAX_RING_KIB}")
}

impl PacketConfig {
    /// Checks what can be checked without the kernel.
    pub(super) fn validate(&self) -> Result<(), SetupError> {
        let refused = |key: &str, value: String, allowed: String| {
            Err(SetupError::Config { source: "builder".into(), key: format!("packet.{key}"), value, allowed })
        };
        if !is_interface_name(&self.interface) {
            return refused("interface", self.interface.clone(), NAME_RULE.into());
        }
        if !(1..=MAX_QUEUES).contains(&self.queues) {
            return refused("queues", self.queues.to_string(), format!("1 to {MAX_QUEUES}"));
        }
        if !is_ring_size(self.ring_kib) {
            return refused("ring_kib", self.ring_kib.to_string(), ring_rule());
        }
        match self.mac {
            Some(mac) if !is_station(mac) => refused("mac", Mac(mac).to_string(), Mac::RULE.into()),
            _ => Ok(()),
        }
    }
}
