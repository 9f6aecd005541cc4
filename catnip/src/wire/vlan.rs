//! VLAN tags (IEEE 802.1Q section 9).

/// Bytes of a tag, which stands in front of a frame's type.
pub const TAG_BYTES: usize = 4;

/// The type that says that a tag follows.
pub const TYPE_VLAN: u16 = 0x8100;

/// Identifies a VLAN: 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// The VLAN of this number; `None` for 0, which stands for none, and for what no tag expresses.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if matches!(number, 1..=4094) { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// A tag with priority 0.
    #[must_use]
    pub const fn tag(self) -> [u8; TAG_BYTES] {
        let [type_high, type_low] = TYPE_VLAN.to_be_bytes();
        let [high, low] = self.0.to_be_bytes();
        [type_high, type_low, high, low]
    }
}

/// What is behind a tag's type: the VLAN, `None` for a tag that has a priority alone, and the type of what
/// follows. `None` when there is less.
#[must_use]
pub fn parse(behind_type: &[u8]) -> Option<(Option<VlanId>, u16)> {
    let [high, low, type_high, type_low] = *behind_type.first_chunk::<TAG_BYTES>()?;
    let number = u16::from_be_bytes([high, low]) & 0xfff;
    Some((VlanId::new(number), u16::from_be_bytes([type_high, type_low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_whatever_their_priority() {
        for (bytes, expected) in [
            ([0x00, 0x64, 0x08, 0x00], (VlanId::new(100), 0x0800)),
            ([0xf0, 0x64, 0x86, 0xdd], (VlanId::new(100), 0x86dd)),
            ([0xe0, 0x00, 0x08, 0x06], (None, 0x0806)),
        ] {
            assert_eq!(parse(&bytes), Some(expected));
        }
        assert_eq!(parse(&[0, 1, 8]), None);
        assert_eq!(VlanId::new(100).map(VlanId::tag), Some([0x81, 0, 0, 100]));
    }

    #[test]
    fn numbers_that_are_no_vlans_are_refused() {
        for (number, is_one) in [(0, false), (1, true), (4094, true), (4095, false), (u16::MAX, false)] {
            assert_eq!(VlanId::new(number).is_some(), is_one, "{number}");
        }
    }
}
