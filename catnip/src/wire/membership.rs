//! What IGMPv3 and MLDv2 have in common: kinds of records, and how delays are written.

/// Bytes of a record in front of its group.
pub const RECORD_HEADER_BYTES: usize = 4;

/// What a record of a report says about a group (RFC 3376 section 4.2.12, RFC 3810 section 5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// We want what everybody sends there, but for the sources listed: none, here.
    ModeIsExclude,
    /// From now on we want nothing but what the sources listed send: none, here. So we leave.
    ChangeToInclude,
    /// From now on we want what everybody sends there. So we join.
    ChangeToExclude,
}

impl RecordKind {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::ModeIsExclude => 2,
            Self::ChangeToInclude => 3,
            Self::ChangeToExclude => 4,
        }
    }
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
}
