//! What both ends can do: virtio's feature bits, and what follows from those that were agreed on.

use libos::Capabilities;
use libos::runtime::{Medium, TxChecksum};
use vhost::vhost_user::VhostUserVirtioFeatures;

use crate::config::VhostConfig;
use crate::ring::RingKind;

/// Largest TCP payload that the peer is asked to take in one frame, in bytes: with Ethernet, IP and TCP headers
/// and all their options it stays an IP packet of less than 64 KiB.
const MAX_SEGMENTATION_BYTES: usize = 65_000;

/// Most segments of memory in one frame.
pub(crate) const MAX_SEGMENTS: usize = 64;

// Virtio 1.2, section 5.1.3 and 6. "Host" is the device: the back end.
const CHECKSUM: u64 = 1 << 0;
const GUEST_CHECKSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const MERGEABLE_BUFFERS: u64 = 1 << 15;
const SEVERAL_QUEUES: u64 = 1 << 22;
const EVENT_INDEX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const RING_PACKED: u64 = 1 << 34;

const TO_DEVICE: [u64; 2] = [CHECKSUM, HOST_TSO4 | HOST_TSO6];
const TO_DRIVER: [u64; 2] = [GUEST_CHECKSUM, GUEST_TSO4 | GUEST_TSO6];

/// A set of feature bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Features(pub u64);

impl Features {
    /// What an end with this configuration offers, or would accept.
    pub fn wanted(config: &VhostConfig) -> Self {
        let mut bits =
            VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() | VERSION_1 | EVENT_INDEX | MERGEABLE_BUFFERS;
        if config.ring == RingKind::Packed {
            bits |= RING_PACKED;
        }
        if config.queues > 1 {
            bits |= SEVERAL_QUEUES;
        }
        if config.offload {
            bits |= TO_DEVICE.iter().chain(&TO_DRIVER).fold(0, |all, bits| all | bits);
        }
        Self(bits)
    }

    /// What a front end accepts of what it was offered. Some features need others: what cannot be used is left out.
    pub fn accepted(config: &VhostConfig, offered: u64) -> Result<Self, String> {
        let mut both = Self::wanted(config).0 & offered;
        if both & VERSION_1 == 0 {
            return Err("the back end knows no virtio 1".to_owned());
        }
        for [checksum, segmentation] in [TO_DEVICE, TO_DRIVER] {
            if both & checksum == 0 {
                both &= !segmentation;
            }
        }
        if both & MERGEABLE_BUFFERS == 0 {
            // No single buffer takes a frame that long.
            both &= !(GUEST_TSO4 | GUEST_TSO6);
        }
        Ok(Self(both))
    }

    fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    pub fn ring_kind(self) -> RingKind {
        if self.has(RING_PACKED) { RingKind::Packed } else { RingKind::Split }
    }

    pub fn has_event_index(self) -> bool {
        self.has(EVENT_INDEX)
    }

    pub fn has_mergeable_buffers(self) -> bool {
        self.has(MERGEABLE_BUFFERS)
    }

    pub fn has_version_1(self) -> bool {
        self.has(VERSION_1)
    }

    pub fn has_protocol_features(self) -> bool {
        self.has(VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    /// True when the back end may send frames that are longer than the MTU.
    pub fn joins_to_driver(self) -> bool {
        self.0 & (GUEST_TSO4 | GUEST_TSO6) != 0
    }

    /// What the end with this configuration can do once this was agreed on.
    pub fn capabilities(self, config: &VhostConfig) -> Capabilities {
        let [checksum, segmentation] = if config.is_front() { TO_DEVICE } else { TO_DRIVER };
        let segments =
            self.has(checksum | segmentation) && (config.is_front() || self.has_mergeable_buffers());
        Capabilities {
            medium: Medium::Ethernet,
            hardware_address: config.hardware_address(),
            mtu: config.mtu,
            tx_checksum: if self.has(checksum) { TxChecksum::Partial } else { TxChecksum::Software },
            tcp_segmentation_bytes: if segments { MAX_SEGMENTATION_BYTES } else { 0 },
            max_segments: MAX_SEGMENTS.min(usize::from(config.queue_size) - 1),
        }
    }
}
