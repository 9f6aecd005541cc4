//! UDP headers (RFC 768).

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// Bytes from the start of the header to its checksum.
pub const CHECKSUM_OFFSET: usize = 6;

/// A header over the first bytes of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct UdpHeader<'a>(&'a [u8; HEADER_BYTES]);

impl<'a> UdpHeader<'a> {
    /// The header at the start of `head`, the first bytes of an IP payload of `available` bytes.
    /// `None` when the datagram says it is longer than that, or shorter than its header.
    #[must_use]
    #[inline]
    pub fn parse(head: &'a [u8], available: usize) -> Option<Self> {
        let header = Self(head.first_chunk()?);
        (HEADER_BYTES..=available).contains(&header.len()).then_some(header)
    }

    /// The header at the start of a datagram whose length was checked. `None` without one.
    #[must_use]
    #[inline]
    pub fn of_checked(datagram: &'a [u8]) -> Option<Self> {
        datagram.first_chunk().map(Self)
    }

    #[inline]
    const fn u16_at(self, offset: usize) -> u16 {
        u16::from_be_bytes([self.0[offset], self.0[offset + 1]])
    }

    /// The sender's port.
    #[must_use]
    #[inline]
    pub const fn source_port(self) -> u16 {
        self.u16_at(0)
    }

    /// The receiver's port.
    #[must_use]
    #[inline]
    pub const fn destination_port(self) -> u16 {
        self.u16_at(2)
    }

    /// Bytes of header and payload.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "at least the header's eight")]
    pub fn len(self) -> usize {
        usize::from(self.u16_at(4))
    }

    /// The checksum; zero when the sender computed none.
    #[must_use]
    #[inline]
    pub const fn checksum(self) -> u16 {
        self.u16_at(CHECKSUM_OFFSET)
    }
}

/// Composes a header for `len` bytes of header and payload, checksum zero.
#[must_use]
#[inline]
pub fn compose(source_port: u16, destination_port: u16, len: u16) -> [u8; HEADER_BYTES] {
    let ([a, b], [c, d], [e, f]) =
        (source_port.to_be_bytes(), destination_port.to_be_bytes(), len.to_be_bytes());
    [a, b, c, d, e, f, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_composed_is_read_back() {
        let bytes = compose(1000, 2000, 8);
        let header = UdpHeader::parse(&bytes, 8).unwrap();
        assert_eq!((header.source_port(), header.destination_port()), (1000, 2000));
        assert_eq!((header.len(), header.checksum()), (8, 0));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        for (name, len, available, fits) in [
            ("shorter than the header", 7, 8, false),
            ("header alone", 8, 8, true),
            ("all of the payload", 12, 12, true),
            ("less than the payload", 10, 12, true),
            ("beyond the payload", 13, 12, false),
        ] {
            let bytes = compose(1, 2, len);
            assert_eq!(UdpHeader::parse(&bytes, available).is_some(), fits, "{name}");
        }
        assert!(UdpHeader::parse(&[0, 1, 0, 2, 0, 8, 0], 8).is_none());
    }
}
