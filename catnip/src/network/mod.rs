//! The network layer: interface addresses, routes, neighbours, IP and ICMP.

mod incoming;
mod neighbor;
mod outgoing;
mod path;
mod prefix;

pub use incoming::{DestinationKind, IcmpError, IcmpErrorKind, Ingress, Packet};
pub use neighbor::NeighborConfig;
pub use outgoing::{HeaderBuffer, MAX_TRANSPORT_HEADER_BYTES, Outgoing, Payload, PieceList, Protocol};
pub use path::Path;
pub use prefix::{ParsePrefixError, ParseRouteError, Prefix, Route};
