//! Ethernet II headers (RFC 894, RFC 2464).

/// Bytes of the header.
pub const HEADER_BYTES: usize = 14;

/// Bytes in front of the type: both addresses.
pub const TYPE_OFFSET: usize = 12;

/// A hardware address.
pub type Address = [u8; 6];

/// The address that everybody on the link listens to.
pub const BROADCAST: Address = [0xff; 6];

/// True for broadcast and group addresses.
#[must_use]
#[inline]
pub const fn is_multicast(address: Address) -> bool {
    address[0] & 1 != 0
}

/// The EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// The EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// The EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// A header over the first bytes of a frame.
#[derive(Debug, Clone, Copy)]
pub struct EthernetHeader<'a>(&'a [u8; HEADER_BYTES]);

impl<'a> EthernetHeader<'a> {
    /// The header and what follows it. `None` when the frame is too short.
    #[must_use]
    #[inline]
    pub fn parse(frame: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, payload) = frame.split_first_chunk()?;
        Some((Self(header), payload))
    }

    /// To whom.
    #[must_use]
    #[inline]
    pub fn destination(self) -> Address {
        let [a, b, c, d, e, f, ..] = *self.0;
        [a, b, c, d, e, f]
    }

    /// From whom.
    #[must_use]
    #[inline]
    pub fn source(self) -> Address {
        let [_, _, _, _, _, _, a, b, c, d, e, f, _, _] = *self.0;
        [a, b, c, d, e, f]
    }

    /// The type of what follows.
    #[must_use]
    #[inline]
    pub fn ether_type(self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }
}

/// Composes a header.
#[must_use]
#[inline]
pub fn compose(destination: Address, source: Address, ether_type: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(&ether_type.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_composed_is_read_back() {
        let source = [2, 0, 0, 0, 0, 1];
        let mut frame = compose(BROADCAST, source, TYPE_ARP).to_vec();
        frame.extend([1, 2, 3]);
        let (header, payload) = EthernetHeader::parse(&frame).unwrap();
        assert_eq!(header.destination(), BROADCAST);
        assert_eq!(header.source(), source);
        assert_eq!(header.ether_type(), TYPE_ARP);
        assert_eq!(payload, [1, 2, 3]);
    }

    #[test]
    fn a_frame_shorter_than_the_header_is_refused() {
        for len in 0..HEADER_BYTES {
            assert!(EthernetHeader::parse(&[0; HEADER_BYTES][..len]).is_none(), "{len} bytes");
        }
    }
}
