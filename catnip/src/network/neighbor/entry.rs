//! One neighbour: its state (RFC 4861 section 7.3.2), and the packets that wait for its address.

use std::collections::VecDeque;
use std::net::IpAddr;

use libos::runtime::TxOffload;
use libos::{Buffer, BufferMut, Instant};

use crate::wire::ethernet;

/// What is known about a neighbour. ARP's entries go through the same states, with requests to its
/// own address as probes (RFC 1122 section 2.3.2.1 (2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its address was asked for, `requests` times; packets wait.
    Incomplete { requests: u8 },
    /// Its address was confirmed not long ago.
    Reachable,
    /// Its address was not confirmed for a while. It is used, and the first packet sent starts the
    /// confirmation.
    Stale,
    /// A packet was sent to the old address; what comes back may confirm it.
    Delay,
    /// The old address was asked whether it is right, `requests` times.
    Probe { requests: u8 },
    /// Nobody answered. Packets are refused until the state ends.
    Failed,
}

/// A packet that waits for its neighbour's address. Its first segment begins with room for the
/// Ethernet header.
#[derive(Debug)]
pub(in crate::network) struct PendingPacket {
    /// All headers.
    pub headers: BufferMut,
    /// What follows them.
    pub payload: Vec<Buffer>,
    /// What the device has to do.
    pub offload: TxOffload,
    /// It is larger than this and to be cut.
    pub cut_to: Option<usize>,
}

impl PendingPacket {
    /// The IP packet's first bytes, behind a link header of this length.
    pub(in crate::network) fn ip(&self, link_header_len: usize) -> &[u8] {
        self.headers.get(link_header_len..).unwrap_or_default()
    }
}

/// A neighbour.
#[derive(Debug)]
pub(super) struct Neighbor {
    pub(super) address: IpAddr,
    /// Where packets go until [`Self::usable_until`]. Of no meaning while incomplete or failed.
    pub(super) hardware: ethernet::Address,
    /// Until then a packet needs one comparison and this address, and nothing else.
    pub(super) usable_until: Instant,
    pub(super) state: State,
    /// Packets were sent to it since it was learned.
    pub(super) used: bool,
    /// It counts among the neighbours that are being looked for.
    pub(super) is_looked_for: bool,
    pub(super) pending: VecDeque<PendingPacket>,
}

impl Neighbor {
    pub(super) fn new(address: IpAddr, state: State) -> Self {
        Self {
            address,
            hardware: [0; 6],
            usable_until: Instant::ZERO,
            state,
            used: false,
            is_looked_for: false,
            pending: VecDeque::new(),
        }
    }
}
