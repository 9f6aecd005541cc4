//! The bytes that streams carry: a function of the stream and the position, checked as they arrive.

/// A direction of a connection, as far as its bytes are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pattern(u64);

impl Pattern {
    /// The pattern that both ends derive from the connection's ports.
    pub fn new(client_port: u16, server_port: u16, from_client: bool) -> Self {
        Self(u64::from(client_port) << 32 | u64::from(server_port) << 8 | u64::from(from_client))
    }

    /// Fills `bytes` with the pattern from `position` on.
    pub fn fill(self, position: u64, bytes: &mut [u8]) {
        for (byte, position) in bytes.iter_mut().zip(position..) {
            *byte = self.byte(position);
        }
    }

    /// The first place in `bytes`, which start at `position`, that is not as it should be.
    pub fn mismatch(self, position: u64, bytes: &[u8]) -> Option<u64> {
        bytes.iter().zip(position..).find(|&(&byte, position)| byte != self.byte(position)).map(|(_, at)| at)
    }

    /// The mixing function of splitmix64 over groups of eight positions.
    fn byte(self, position: u64) -> u8 {
        let mut word =
            (self.0 ^ (position / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(self.0 << 17);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word >> (8 * (position % 8))) as u8
    }
}

#[test]
fn a_moved_or_foreign_byte_is_found() {
    let pattern = Pattern::new(1, 2, true);
    let mut bytes = [0; 100];
    pattern.fill(1000, &mut bytes);
    assert_eq!(pattern.mismatch(1000, &bytes), None);
    assert!(pattern.mismatch(1001, &bytes).is_some());
    assert!(Pattern::new(1, 2, false).mismatch(1000, &bytes).is_some());
    bytes[50] ^= 1;
    assert_eq!(pattern.mismatch(1000, &bytes), Some(1050));
}
