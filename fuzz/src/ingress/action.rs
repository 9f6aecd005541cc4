//! What a run consists of: how the stack is set up, and what happens to it.

use arbitrary::Arbitrary;

/// A whole run.
#[derive(Debug, Arbitrary)]
pub struct Input {
    pub setup: Setup,
    pub actions: Vec<Action>,
}

/// How the stack is set up.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Setup {
    /// Bare IP packets instead of Ethernet frames.
    pub bare_ip: bool,
    pub mtu: Mtu,
    pub timestamps: bool,
    pub window_scaling: bool,
    pub no_delay: bool,
    pub keep_alive: bool,
    pub small_send_buffer: bool,
    pub small_receive_buffer: bool,
    pub sack: bool,
    pub congestion: Congestion,
    pub ecn: Ecn,
    /// RTO_min of a millisecond, and a clock that only has those.
    pub coarse: bool,
    /// Memory for some packets only.
    pub little_memory: bool,
    pub path_mtu_search: bool,
    /// The peers ask for congestion marks, and agree to them.
    pub ecn_peers: bool,
    /// Both ways.
    pub fast_open: bool,
    pub backlog: u8,
    /// Connections that stand from the start, from the peer and to it by turns.
    pub opened: u8,
}

/// What is used against congestion.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Congestion {
    Cubic,
    NewReno,
    Dctcp,
    Bbr,
}

/// Whether congestion marks are asked for.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Ecn {
    Off,
    Passive,
    On,
}

/// Largest packets of the link.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Mtu {
    Ipv6Least,
    Ethernet,
    Jumbo,
}

/// One of the addresses' families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Arbitrary)]
pub enum Family {
    V4,
    V6,
}

/// One thing that happens.
#[derive(Debug, Arbitrary)]
pub enum Action {
    /// The peer does what a good peer would: acknowledges all it was sent, sends more, and at last closes.
    Answer { on: u8, window: u16, payload_bytes: u16, fin: bool },
    /// From now on the link loses the stack's segments whose turn comes at a bit that is set, over and over.
    Lose { pattern: u32 },
    /// The peer says truthfully what of that arrived, selectively, with data of its own.
    Acknowledge { on: u8, window: u16, payload_bytes: u16, doubled: bool, flags: u8 },
    /// The program writes, and the peer acknowledges each flight truthfully, so many times.
    Converse { on: u8, rounds: u8, write_bytes: u16, scale: u8 },
    /// The peer opens a connection, or tries to.
    Syn { family: Family, port: u8, options: Options },
    /// Openings in the names of hosts that are not there, so many, and acknowledgments of what nobody sent.
    Flood { family: Family, number: u8 },
    /// The peer opens a connection with data on the SYN; without a cookie it asks for one.
    FastOpen { family: Family, port: u8, payload_bytes: u16, damaged: bool },
    /// The peer's data comes in another order, and some of it twice or never.
    Reorder { on: u8, piece_bytes: u16, order: [Arrival; ARRIVALS] },
    /// A segment about where the connection is.
    Segment { on: u8, segment: Segment, delivery: Delivery },
    /// An ICMP error that quotes something the stack sent.
    IcmpError { on: u8, kind: u8, code: u8, mtu: u16, quoted_bytes: u8, sequence: Place },
    /// A datagram.
    Datagram { family: Family, from_peer: bool, port: u8, len: u16, no_checksum: bool, delivery: Delivery },
    /// ARP and neighbour discovery.
    Neighbor(Neighbor),
    /// Any payload in a right IP packet, with a right checksum if the protocol has one.
    Payload { family: Family, protocol: u8, bytes: Vec<u8>, hop_limit: u8, delivery: Delivery },
    /// Any bytes as a frame.
    Frame { bytes: Vec<u8> },
    /// Time passes: 2^`scale` microseconds.
    Pass { scale: u8 },
    /// The program does something.
    Call(Call),
}

/// Segments of one [`Action::Reorder`].
pub const ARRIVALS: usize = 6;

/// One of the pieces that a peer's data is cut into.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Arrival {
    /// Which one, counted from where the stack is.
    pub piece: u8,
    /// With a mark of congestion.
    pub marked: bool,
}

/// A segment, in terms of where the connection is.
#[derive(Debug, Arbitrary)]
pub struct Segment {
    pub seq: Place,
    pub ack: Place,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub payload_bytes: u16,
    pub options: Options,
}

/// A sequence number beside the one that is due.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Place {
    Exact,
    Near(i8),
    Around(i16),
    Far(i32),
}

impl Place {
    pub fn around(self, number: u32) -> u32 {
        match self {
            Self::Exact => number,
            Self::Near(offset) => number.wrapping_add_signed(offset.into()),
            Self::Around(offset) => number.wrapping_add_signed(offset.into()),
            Self::Far(offset) => number.wrapping_add_signed(offset),
        }
    }
}

/// A header's options.
#[derive(Debug, Arbitrary)]
pub enum Options {
    None,
    /// Those of most connections: MSS, window scale, SACK permitted, timestamps (on a SYN), or timestamps alone.
    Usual,
    /// As usual, with the peer's Fast Open cookie; without one, with the question for it.
    Cookie {
        damaged: bool,
    },
    /// As usual, with what has arrived out of order, and first what came twice.
    Received {
        doubled: bool,
    },
    /// As usual, with blocks that are about what the stack has sent.
    Sack(Vec<(Place, u16)>),
    /// Timestamps beside the ones that are due.
    Stamped {
        value: Place,
        echo: Place,
    },
    /// Any bytes.
    Soup(Vec<u8>),
    Listed(Vec<Listed>),
}

/// One option, well formed or nearly so.
#[derive(Debug, Arbitrary)]
pub enum Listed {
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    Timestamps(u32, u32),
    Nothing,
    FastOpen(Vec<u8>),
    Other { kind: u8, len: u8, bytes: Vec<u8> },
}

/// How a packet arrives.
#[derive(Debug, Arbitrary)]
pub enum Delivery {
    Whole,
    /// In several buffers.
    Scattered {
        cut: u16,
    },
    /// In IP fragments with these boundaries, in units of eight bytes, and in this order.
    Fragments {
        identification: u8,
        pieces: Vec<Piece>,
    },
    /// With one bit wrong.
    Damaged {
        bit: u16,
    },
    /// As a device that joins segments delivers it.
    Joined {
        segment_bytes: u16,
    },
    /// With its traffic class set.
    Marked {
        traffic_class: u8,
    },
}

/// One fragment.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Piece {
    pub offset: u8,
    pub len: u8,
    pub more: bool,
}

/// ARP and neighbour discovery messages.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Neighbor {
    ArpRequest {
        sender: u8,
        target: u8,
    },
    ArpReply {
        sender: u8,
        target: u8,
        to_all: bool,
    },
    Solicitation {
        sender: u8,
        target: u8,
        hop_limit: u8,
    },
    Advertisement {
        sender: u8,
        target: u8,
        flags: u8,
        to_all: bool,
    },
    /// Whoever is asked for answers.
    AnswerAll,
}

/// What the program does.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Call {
    Accept,
    Connect { family: Family, port: u8 },
    Send { on: u8, len: u16 },
    Receive { on: u8, len: u16 },
    Shutdown { on: u8, how: u8 },
    Close { on: u8 },
    Abort { on: u8 },
    SetOption { on: u8, option: u8, value: u32 },
    CloseListener,
    Listen,
    SendDatagram { connected: bool, len: u16 },
    ReceiveDatagrams,
}
