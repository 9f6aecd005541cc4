//! The header that ICMP messages of both IP versions begin with (RFC 792, RFC 4443).

/// Bytes of the header, the four that each kind of message uses in its own way included.
pub const HEADER_BYTES: usize = 8;

/// Bytes from the start of the header to its checksum.
pub const CHECKSUM_OFFSET: usize = 2;

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpHeader {
    /// What kind of message it is.
    pub kind: u8,
    /// What it is more precisely.
    pub code: u8,
    /// The kind's own four bytes.
    pub rest: [u8; 4],
}

impl IcmpHeader {
    /// The header at the start of `message`, and what follows. `None` when the message is too short.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<(Self, &[u8])> {
        let ([kind, code, _, _, a, b, c, d], body) = message.split_first_chunk::<HEADER_BYTES>()?;
        Some((Self { kind: *kind, code: *code, rest: [*a, *b, *c, *d] }, body))
    }

    /// Composes the header, checksum zero.
    #[must_use]
    pub const fn compose(&self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.rest;
        [self.kind, self.code, 0, 0, a, b, c, d]
    }

    /// The kind's own four bytes as a number.
    #[must_use]
    pub const fn rest_u32(&self) -> u32 {
        u32::from_be_bytes(self.rest)
    }
}

/// Messages of ICMPv4 (RFC 792).
pub mod v4 {
    /// Answers an [`ECHO_REQUEST`].
    pub const ECHO_REPLY: u8 = 0;
    /// A packet could not be delivered.
    pub const DESTINATION_UNREACHABLE: u8 = 3;
    /// Another router is nearer to the destination.
    pub const REDIRECT: u8 = 5;
    /// Asks for an [`ECHO_REPLY`].
    pub const ECHO_REQUEST: u8 = 8;
    /// A packet lived too long.
    pub const TIME_EXCEEDED: u8 = 11;
    /// A header field made no sense.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// A router has too little room; no longer sent (RFC 6633).
    pub const SOURCE_QUENCH: u8 = 4;

    /// True for the kinds that are errors (RFC 1122 section 3.2.2).
    #[must_use]
    pub const fn is_error(kind: u8) -> bool {
        matches!(kind, DESTINATION_UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    /// The code of [`TIME_EXCEEDED`] when parts of a packet did not come.
    pub const REASSEMBLY: u8 = 1;

    /// Codes of [`DESTINATION_UNREACHABLE`] (RFC 792, RFC 1122 section 3.2.2.1).
    pub mod unreachable {
        /// No route.
        pub const NETWORK: u8 = 0;
        /// Nobody answers for the host.
        pub const HOST: u8 = 1;
        /// The host does not speak the protocol.
        pub const PROTOCOL: u8 = 2;
        /// Nobody listens on the port.
        pub const PORT: u8 = 3;
        /// The packet does not fit and may not be cut.
        pub const FRAGMENTATION_NEEDED: u8 = 4;
        /// A source route failed.
        pub const SOURCE_ROUTE_FAILED: u8 = 5;
        /// Nobody knows the network.
        pub const NETWORK_UNKNOWN: u8 = 6;
        /// Nobody knows the host.
        pub const HOST_UNKNOWN: u8 = 7;
        /// The source is isolated.
        pub const SOURCE_ISOLATED: u8 = 8;
        /// The network may not be reached.
        pub const NETWORK_PROHIBITED: u8 = 9;
        /// The host may not be reached.
        pub const HOST_PROHIBITED: u8 = 10;
        /// The network cannot be reached with this type of service.
        pub const NETWORK_SERVICE: u8 = 11;
        /// The host cannot be reached with this type of service.
        pub const HOST_SERVICE: u8 = 12;
        /// A filter is in the way.
        pub const ADMIN_PROHIBITED: u8 = 13;
        /// The precedence is too low for the host.
        pub const PRECEDENCE_VIOLATION: u8 = 14;
        /// The precedence is too low for the network.
        pub const PRECEDENCE_CUTOFF: u8 = 15;
    }
}

/// Messages of ICMPv6 (RFC 4443, RFC 4861).
pub mod v6 {
    /// A packet could not be delivered.
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    /// A packet does not fit through the next link.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// A packet lived too long.
    pub const TIME_EXCEEDED: u8 = 3;
    /// A header field made no sense.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Messages from this kind on are not errors.
    pub const FIRST_INFORMATIONAL: u8 = 128;
    /// Asks for an [`ECHO_REPLY`].
    pub const ECHO_REQUEST: u8 = 128;
    /// Answers an [`ECHO_REQUEST`].
    pub const ECHO_REPLY: u8 = 129;
    /// Asks for a neighbour's hardware address.
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// Tells a neighbour's hardware address.
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;

    /// Codes of [`DESTINATION_UNREACHABLE`] (RFC 4443 section 3.1).
    pub mod unreachable {
        /// No route.
        pub const NO_ROUTE: u8 = 0;
        /// A filter is in the way.
        pub const ADMIN_PROHIBITED: u8 = 1;
        /// Beyond the scope of the source address.
        pub const BEYOND_SCOPE: u8 = 2;
        /// Nobody answers for the address.
        pub const ADDRESS: u8 = 3;
        /// Nobody listens on the port.
        pub const PORT: u8 = 4;
        /// A filter rejects the source address.
        pub const SOURCE_POLICY: u8 = 5;
        /// There is a route that rejects.
        pub const REJECT_ROUTE: u8 = 6;
    }

    /// The code of [`TIME_EXCEEDED`] when parts of a packet did not come (RFC 4443 section 3.3).
    pub const REASSEMBLY: u8 = 1;

    /// Codes of [`PARAMETER_PROBLEM`] (RFC 4443 section 3.4).
    pub mod parameter {
        /// A header field has an erroneous value.
        pub const ERRONEOUS_FIELD: u8 = 0;
        /// Nobody knows the next header.
        pub const UNRECOGNIZED_NEXT_HEADER: u8 = 1;
        /// Nobody knows the option.
        pub const UNRECOGNIZED_OPTION: u8 = 2;
        /// The first part of a packet lacks some of its headers (RFC 7112 section 7).
        pub const INCOMPLETE_CHAIN: u8 = 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_composed_is_read_back() {
        let header = IcmpHeader { kind: 8, code: 1, rest: [1, 2, 3, 4] };
        let mut message = header.compose().to_vec();
        message.push(9);
        assert_eq!(IcmpHeader::parse(&message), Some((header, &[9][..])));
        assert_eq!(header.rest_u32(), 0x0102_0304);
    }

    #[test]
    fn a_message_shorter_than_the_header_is_refused() {
        for len in 0..HEADER_BYTES {
            assert_eq!(IcmpHeader::parse(&[0; HEADER_BYTES][..len]), None, "{len} bytes");
        }
    }
}
