//! Which interface and queues, and how they are used.

use libos::SetupError;

use crate::interface::{NAME_RULE, is_interface_name};
use libos::mac::{Mac, is_station};

/// Largest number of a queue, and most queues.
pub const MAX_QUEUE: usize = 1024;
/// Fewest entries of a ring.
pub const MIN_RING_ENTRIES: usize = 64;
/// Most entries of a ring.
pub const MAX_RING_ENTRIES: usize = 16_384;

/// Where in the kernel frames are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// In the driver when it can, else behind it.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// Behind the driver, which works with any.
    Generic,
}

/// How queues of an interface are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpConfig {
    /// The interface's name. It has to be there and up.
    pub interface: String,
    /// The first queue that is served. What arrives on others goes to the kernel.
    pub queue: usize,
    /// Queues from that on, each with a socket of its own.
    pub queues: usize,
    /// The Ethernet address of the library OS on the link; the interface's own when not given.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes; the interface's own when not given.
    pub mtu: Option<usize>,
    /// Where in the kernel frames are taken.
    pub placement: Placement,
    /// Have the device read and write the library OS's memory itself, when its driver can.
    pub zero_copy: bool,
    /// Have polls of the library OS drive the device for so many microseconds at a time, instead of interrupts; 0 for not.
    pub busy_poll_us: u32,
    /// Frames that wait to be received, and as many buffers more that wait for frames: a power of two,
    /// [`MIN_RING_ENTRIES`] to [`MAX_RING_ENTRIES`].
    pub receive_ring: usize,
    /// Pieces of frames that wait to be sent: a power of two, as above.
    pub transmit_ring: usize,
}

impl Default for XdpConfig {
    /// Queue 0 of an interface that is still to be named, as fast as its driver allows, with rings of 2048 entries.
    fn default() -> Self {
        Self {
            interface: String::new(),
            queue: 0,
            queues: 1,
            mac: None,
            mtu: None,
            placement: Placement::Auto,
            zero_copy: true,
            busy_poll_us: 0,
            receive_ring: 2048,
            transmit_ring: 2048,
        }
    }
}

/// True for a size that a ring can have.
pub(super) fn is_ring_size(entries: usize) -> bool {
    entries.is_power_of_two() && (MIN_RING_ENTRIES..=MAX_RING_ENTRIES).contains(&entries)
}

/// What [`is_ring_size`] takes, in words.
pub(super) const RING_RULE: &str = "a power of two from 64 to 16384";

impl XdpConfig {
    /// Checks what can be checked without the kernel.
    pub(super) fn validate(&self) -> Result<(), SetupError> {
        let refused = |key: &str, value: String, allowed: String| {
            Err(SetupError::Config { source: "builder".into(), key: format!("xdp.{key}"), value, allowed })
        };
        if !is_interface_name(&self.interface) {
            return refused("interface", self.interface.clone(), NAME_RULE.into());
        }
        if self.queue >= MAX_QUEUE {
            return refused("queue", self.queue.to_string(), format!("0 to {}", MAX_QUEUE - 1));
        }
        if !(1..=MAX_QUEUE - self.queue).contains(&self.queues) {
            return refused("queues", self.queues.to_string(), format!("1 to {}", MAX_QUEUE - self.queue));
        }
        for (key, entries) in [("receive_ring", self.receive_ring), ("transmit_ring", self.transmit_ring)] {
            if !is_ring_size(entries) {
                return refused(key, entries.to_string(), RING_RULE.into());
            }
        }
        match self.mac {
            Some(mac) if !is_station(mac) => refused("mac", Mac(mac).to_string(), Mac::RULE.into()),
            _ => Ok(()),
        }
    }
}
