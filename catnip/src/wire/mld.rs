//! Group membership messages of IPv6: MLDv2 (RFC 3810), and those of version 1 (RFC 2710). They are
//! ICMPv6 messages, whose checksum covers addresses and is put on elsewhere.

use std::net::Ipv6Addr;

use super::membership::{GroupRecord, float_code, query_sources};

/// Bytes of a message of version 1.
pub const V1_BYTES: usize = 24;
/// Bytes in front of the records of a version 2 report.
pub const V2_REPORT_HEADER_BYTES: usize = 8;

/// A router asks who is in a group.
pub const QUERY: u8 = 130;
/// Version 1: somebody is in a group.
pub const V1_REPORT: u8 = 131;
/// Version 1: somebody left a group.
pub const V1_DONE: u8 = 132;
/// Version 2: what groups somebody is in.
pub const V2_REPORT: u8 = 143;
/// Shortest query of version 2.
const V2_QUERY_BYTES: usize = 28;

/// Where version 2 reports go: all routers that speak it.
pub const V2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Where version 1 says that somebody left.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// A hop-by-hop header with the router alert option for these messages (RFC 2711), in front of ICMPv6.
pub const ROUTER_ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// Which version a querier speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 2710.
    V1,
    /// RFC 3810.
    V2,
}

/// A router's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Which version the router speaks.
    pub version: Version,
    /// The group asked about; unspecified for all.
    pub group: Ipv6Addr,
    /// Answers are to come within so many milliseconds.
    pub max_response_ms: u32,
    /// How often a change is to be reported; 0 when the router does not say.
    pub robustness: u8,
}

impl Query {
    /// Reads a query whose checksum is right. `None` when it has the length of no version's.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let code = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
        let group = group(message)?;
        // RFC 3810 section 8.1: the length tells the versions apart.
        let (version, max_response_ms, robustness) = match message.len() {
            V1_BYTES => (Version::V1, u32::from(code), 0),
            V2_QUERY_BYTES.. => {
                let _ = sources(message)?;
                (Version::V2, float_code(code, 12), message.get(V1_BYTES).map_or(0, |flags| flags & 7))
            }
            _ => return None,
        };
        Some(Self { version, group, max_response_ms, robustness })
    }
}

/// The sources that a query of version 2 asks about; none when it asks about all. `None` when it is too short for
/// them, or of another version.
#[must_use]
pub fn sources(message: &[u8]) -> Option<impl Iterator<Item = Ipv6Addr>> {
    query_sources(message, V2_QUERY_BYTES)
}

/// The group that a query, or a report of version 1, is about.
#[must_use]
pub fn group(message: &[u8]) -> Option<Ipv6Addr> {
    message.get(8..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from_octets(*octets))
}

/// A report of version 1, or its done message, checksum zero.
#[must_use]
pub fn compose_v1(kind: u8, group: Ipv6Addr) -> [u8; V1_BYTES] {
    let mut message = [0; V1_BYTES];
    message[0] = kind;
    message[8..].copy_from_slice(&group.octets());
    message
}

/// Appends a version 2 report, checksum zero, to `message`.
pub fn compose_v2_report(message: &mut impl Extend<u8>, records: &[GroupRecord]) {
    let [high, low] = u16::try_from(records.len()).unwrap_or(u16::MAX).to_be_bytes();
    message.extend([V2_REPORT, 0, 0, 0, 0, 0, high, low]);
    records.iter().for_each(|record| record.compose(message));
}

#[cfg(test)]
mod tests {
    use super::super::membership::RecordKind;
    use super::*;

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);

    fn query(code: u16, tail: &[u8]) -> Vec<u8> {
        let [high, low] = code.to_be_bytes();
        let mut message = vec![QUERY, 0, 0, 0, high, low, 0, 0];
        message.extend(GROUP.octets());
        message.extend(tail);
        message
    }

    #[test]
    fn queries_of_both_versions_are_told_apart() {
        let expected = |version, max_response_ms, robustness| {
            Some(Query { version, group: GROUP, max_response_ms, robustness })
        };
        for (name, message, expected) in [
            ("version 1", query(10_000, &[]), expected(Version::V1, 10_000, 0)),
            ("version 2", query(10_000, &[0x0a, 125, 0, 0]), expected(Version::V2, 10_000, 2)),
            ("a long delay", query(0x8000, &[2, 125, 0, 0]), expected(Version::V2, 32_768, 2)),
            ("without the source it counts", query(1, &[2, 125, 0, 1]), None),
            ("of no version", query(1, &[2, 125]), None),
            ("too short", query(1, &[])[..20].to_vec(), None),
        ] {
            assert_eq!(Query::parse(&message), expected, "{name}");
        }
    }

    #[test]
    fn reports_have_their_groups() {
        assert_eq!(group(&compose_v1(V1_REPORT, GROUP)), Some(GROUP));
        let mut report = Vec::new();
        let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
        let kind = RecordKind::BlockOldSources;
        compose_v2_report(
            &mut report,
            &[GroupRecord { kind, group: GROUP.into(), sources: vec![source.into()] }],
        );
        assert_eq!(report[..12], [143, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 1]);
        assert_eq!(report[12..], [GROUP.octets(), source.octets()].concat());
    }
}
