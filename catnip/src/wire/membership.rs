//! What IGMPv3 and MLDv2 have in common: records of groups and their sources, and how delays are written.

use std::net::IpAddr;

/// Bytes of a record in front of its group.
const RECORD_HEADER_BYTES: usize = 4;

/// What a record of a report says about a group (RFC 3376 section 4.2.12, RFC 3810 section 5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// We want what the sources listed send there, and nothing else.
    ModeIsInclude,
    /// We want what everybody sends there, but for the sources listed.
    ModeIsExclude,
    /// From now on we want nothing but what the sources listed send. Without any, we leave.
    ChangeToInclude,
    /// From now on we want what everybody sends there, but for the sources listed. So we join.
    ChangeToExclude,
    /// From now on we want what the sources listed send as well.
    AllowNewSources,
    /// From now on we want what the sources listed send no longer.
    BlockOldSources,
}

impl RecordKind {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::ModeIsInclude => 1,
            Self::ModeIsExclude => 2,
            Self::ChangeToInclude => 3,
            Self::ChangeToExclude => 4,
            Self::AllowNewSources => 5,
            Self::BlockOldSources => 6,
        }
    }
}

/// A record of a report. All its addresses are of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// What it says.
    pub kind: RecordKind,
    /// The group it is about.
    pub group: IpAddr,
    /// The sources it is about.
    pub sources: Vec<IpAddr>,
}

impl GroupRecord {
    /// Bytes of it in a report.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        let address_bytes = if self.group.is_ipv4() { 4 } else { 16 };
        RECORD_HEADER_BYTES + address_bytes * (1 + self.sources.len())
    }

    /// Appends it to a report.
    pub(super) fn compose(&self, message: &mut impl Extend<u8>) {
        let [high, low] = u16::try_from(self.sources.len()).unwrap_or(u16::MAX).to_be_bytes();
        message.extend([self.kind.number(), 0, high, low]);
        for address in std::iter::once(&self.group).chain(&self.sources) {
            match address {
                IpAddr::V4(address) => message.extend(address.octets()),
                IpAddr::V6(address) => message.extend(address.octets()),
            }
        }
    }
}

/// The sources that a query of the newest versions asks about, which follow `fixed_bytes` that end with their number
/// (RFC 3376 section 4.1.8, RFC 3810 section 5.1.10). `None` when the query is too short for them.
pub(super) fn query_sources<const ADDRESS_BYTES: usize, A: From<[u8; ADDRESS_BYTES]>>(
    message: &[u8],
    fixed_bytes: usize,
) -> Option<impl Iterator<Item = A>> {
    let (fixed, sources) = message.split_at_checked(fixed_bytes)?;
    let count = usize::from(u16::from_be_bytes(*fixed.last_chunk()?));
    let sources = sources.get(..count * ADDRESS_BYTES)?;
    Some(sources.as_chunks().0.iter().map(|octets| A::from(*octets)))
}

/// A number in the form of RFC 3376 section 4.1.1 and RFC 3810 section 5.1.3: when the bit in front of
/// three bits of exponent and so many of mantissa is set, a floating-point number, else itself.
#[must_use]
pub(super) fn float_code(code: u16, mantissa_bits: u32) -> u32 {
    let code = u32::from(code);
    let hidden = 1 << mantissa_bits;
    if code < hidden << 3 {
        return code;
    }
    let (mantissa, exponent) = (code & (hidden - 1), code >> mantissa_bits & 7);
    (mantissa | hidden) << (exponent + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_on_both_scales() {
        for (code, mantissa_bits, value) in [
            (0, 4, 0),
            (127, 4, 127),
            (0x80, 4, 128),
            (0x8f, 4, 248),
            (0xff, 4, 31_744),
            (32_767, 12, 32_767),
            (0x8000, 12, 32_768),
            (0xffff, 12, 8_387_584),
        ] {
            assert_eq!(float_code(code, mantissa_bits), value, "{code:#x}");
        }
    }

    #[test]
    fn a_record_is_as_long_as_it_says() {
        for (group, sources, start) in [
            ("232.1.2.3", vec!["10.0.0.1", "10.0.0.2"], [5, 0, 0, 2, 232, 1, 2, 3]),
            ("ff35::1", vec!["2001:db8::1"], [5, 0, 0, 1, 0xff, 0x35, 0, 0]),
        ] {
            let record = GroupRecord {
                kind: RecordKind::AllowNewSources,
                group: group.parse().unwrap(),
                sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
            };
            let mut message = Vec::new();
            record.compose(&mut message);
            assert_eq!((message.len(), &message[..8]), (record.len_bytes(), &start[..]));
        }
    }
}
