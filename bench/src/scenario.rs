//! What is measured: the work, and the world it is done in.

use std::error::Error;

/// Why a measurement could not be made.
pub type Failure = Box<dyn Error>;

/// Bytes of one message of the echo benchmarks.
pub const MESSAGE_BYTES: usize = 64;
/// Bytes that one round of [`Work::Stream`] carries.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Datagrams that one round of [`Work::Datagrams`] carries.
pub const BURST_DATAGRAMS: usize = 32;
/// Payload of a datagram that just fits into an IPv4 packet of 1500 bytes.
pub const DATAGRAM_BYTES: usize = 1472;

/// What one round does. Both peers run on the calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// A message to the server and back over one connection.
    TcpEcho,
    /// A datagram to the server and back.
    UdpEcho,
    /// [`CHUNK_BYTES`] from the client to the server over one connection.
    Stream,
    /// [`BURST_DATAGRAMS`] from the client to the server.
    Datagrams,
    /// One segment arrives of [`Scenario::segments_in_flight`], or is lost as one in a hundred is, and is acknowledged.
    Losses,
    /// One SYN arrives at a listener whose backlog is full, and is answered with a cookie.
    SynFlood,
    /// One poll of a server that has nothing to do.
    IdlePoll,
}

impl Work {
    /// What figures of this work are for.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::TcpEcho | Self::UdpEcho => "round trip",
            Self::Stream => "64 KiB",
            Self::Datagrams => "32 datagrams",
            Self::Losses => "segment",
            Self::SynFlood => "SYN",
            Self::IdlePoll => "poll",
        }
    }

    /// Payload that one round carries, where throughput is the point.
    pub const fn bytes(self) -> Option<usize> {
        match self {
            Self::Stream => Some(CHUNK_BYTES),
            Self::Datagrams => Some(BURST_DATAGRAMS * DATAGRAM_BYTES),
            Self::TcpEcho | Self::UdpEcho | Self::Losses | Self::SynFlood | Self::IdlePoll => None,
        }
    }
}

/// The work, and the world it is done in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scenario {
    /// What a round does.
    pub work: Work,
    /// Checksums are computed and verified in software; else nobody does, on either side.
    pub checksums: bool,
    /// Largest TCP payload of one frame, in bytes; 0 for one segment of the MTU.
    pub segmentation_bytes: usize,
    /// Every poll reads the machine's clock; else a simulated clock goes on by a fixed step.
    pub machine_clock: bool,
    /// Other connections, established, used once and idle since, each with a pop outstanding at the server.
    pub connections: usize,
    /// Other ports that the server listens on.
    pub listeners: usize,
    /// Segments in flight, of [`Work::Losses`].
    pub segments_in_flight: u32,
    /// Each host is one of two cores that share a device: every received frame is looked at for whose it is.
    pub steered: bool,
}

impl Scenario {
    /// The work alone, with no checksums and on a simulated clock.
    pub const fn of(work: Work) -> Self {
        Self {
            work,
            checksums: false,
            segmentation_bytes: 0,
            machine_clock: false,
            connections: 0,
            listeners: 0,
            segments_in_flight: 0,
            steered: false,
        }
    }
}

/// Somebody who can do the work, set up and warm.
pub trait Subject {
    /// Does the work so many times.
    ///
    /// # Errors
    /// [`Failure`] when the work is not done as it should be: then figures would mean nothing.
    fn run(&mut self, rounds: u64) -> Result<(), Failure>;
}
