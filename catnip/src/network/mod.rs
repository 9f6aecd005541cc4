//! The network layer: interface addresses, routes, neighbours, IP and ICMP.

mod incoming;
mod outgoing;
mod path;

pub use incoming::{DestinationKind, IcmpError, IcmpErrorKind, Ingress, Packet};
pub use outgoing::{HeaderBuffer, MAX_TRANSPORT_HEADER_BYTES, Outgoing, Payload, PieceList, Protocol};
pub use path::Path;
