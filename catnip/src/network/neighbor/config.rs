//! Settings of the neighbour cache.

use std::time::Duration;

/// How neighbours are found, trusted and given up. The defaults are those of RFC 4861 section 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighborConfig {
    /// Most neighbours known at a time. At the limit the one that was longest of no use gives way;
    /// when all are being looked for, sending to a further one fails.
    pub max_neighbors: usize,
    /// Most packets that wait for one neighbour's address. At the limit the oldest is dropped.
    pub max_pending_packets: usize,
    /// Time to the first repetition of a request. It doubles with each further one of ARP; those of neighbour discovery
    /// follow each other evenly.
    pub retry: Duration,
    /// Requests without an answer before the neighbour is given up.
    pub max_requests: u8,
    /// How long after giving up packets to the neighbour are refused without asking again.
    pub failure_hold: Duration,
    /// How long an address is trusted after it was confirmed, on average: each time between half
    /// and one and a half of this is drawn.
    pub reachable: Duration,
    /// How long after the first packet to a neighbour whose address is old it is asked again.
    pub probe_delay: Duration,
}

impl Default for NeighborConfig {
    fn default() -> Self {
        Self {
            max_neighbors: 1024,
            max_pending_packets: 16,
            retry: Duration::from_secs(1),
            max_requests: 3,
            failure_hold: Duration::from_secs(3),
            reachable: Duration::from_secs(30),
            probe_delay: Duration::from_secs(5),
        }
    }
}
