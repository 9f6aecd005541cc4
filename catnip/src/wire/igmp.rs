//! Group membership messages of IPv4: IGMPv3 (RFC 3376), and those of versions 1 and 2 (RFC 2236).

use std::net::Ipv4Addr;

use super::checksum::{self, Checksum};
use super::membership::{GroupRecord, float_code, query_sources};

/// Bytes of a message of version 2, and of what every message begins with.
pub const HEADER_BYTES: usize = 8;

const QUERY: u8 = 0x11;
const V1_REPORT: u8 = 0x12;
const V2_REPORT: u8 = 0x16;
const V2_LEAVE: u8 = 0x17;
const V3_REPORT: u8 = 0x22;
/// Shortest query of version 3.
const V3_QUERY_BYTES: usize = 12;

/// Where version 3 reports go: all routers that speak it.
pub const V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
/// Where version 2 says that somebody left.
pub const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);

/// Which version a querier speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 1112.
    V1,
    /// RFC 2236.
    V2,
    /// RFC 3376.
    V3,
}

/// A message that matters to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgmpMessage {
    /// A router asks who is in a group, or in any when the group is unspecified.
    Query {
        /// Which version the router speaks.
        version: Version,
        /// The group asked about; unspecified for all.
        group: Ipv4Addr,
        /// Answers are to come within so many milliseconds.
        max_response_ms: u32,
        /// How often a change is to be reported; 0 when the router does not say.
        robustness: u8,
    },
    /// Somebody else is in a group: a report of version 1 or 2.
    OthersReport(Ipv4Addr),
    /// Nothing that a host has to know.
    Other,
}

impl IgmpMessage {
    /// Reads a message. `None` when it is too short or its checksum wrong.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let [kind, code, _, _, a, b, c, d] = *message.first_chunk::<HEADER_BYTES>()?;
        let mut sum = Checksum::new();
        sum.add_bytes(message);
        if !sum.is_right() {
            return None;
        }
        let group = Ipv4Addr::new(a, b, c, d);
        Some(match kind {
            // RFC 3376 section 7.1: length and code tell the versions apart.
            QUERY if message.len() >= V3_QUERY_BYTES => {
                let _ = sources(message)?;
                Self::Query {
                    version: Version::V3,
                    group,
                    max_response_ms: float_code(code.into(), 4) * 100,
                    robustness: message.get(8).map_or(0, |flags| flags & 7),
                }
            }
            QUERY if message.len() != HEADER_BYTES => return None,
            // RFC 2236 section 4: version 1 has no such field, and means ten seconds.
            QUERY if code == 0 => {
                Self::Query { version: Version::V1, group, max_response_ms: 10_000, robustness: 0 }
            }
            QUERY => Self::Query {
                version: Version::V2,
                group,
                max_response_ms: u32::from(code) * 100,
                robustness: 0,
            },
            V1_REPORT | V2_REPORT => Self::OthersReport(group),
            _ => Self::Other,
        })
    }
}

/// The sources that a query of version 3 asks about; none when it asks about all. `None` when it is too short for
/// them, or of another version.
#[must_use]
pub fn sources(message: &[u8]) -> Option<impl Iterator<Item = Ipv4Addr>> {
    query_sources(message, V3_QUERY_BYTES)
}

/// A report of version 1 or 2: we are in the group.
#[must_use]
pub fn compose_report(version: Version, group: Ipv4Addr) -> [u8; HEADER_BYTES] {
    let kind = match version {
        Version::V1 => V1_REPORT,
        Version::V2 | Version::V3 => V2_REPORT,
    };
    compose(kind, group)
}

/// A leave message of version 2.
#[must_use]
pub fn compose_leave(group: Ipv4Addr) -> [u8; HEADER_BYTES] {
    compose(V2_LEAVE, group)
}

fn compose(kind: u8, group: Ipv4Addr) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = group.octets();
    let mut message = [kind, 0, 0, 0, a, b, c, d];
    put_checksum(&mut message);
    message
}

/// Appends a version 3 report to `message`, which must be empty.
pub fn compose_v3_report(message: &mut (impl Extend<u8> + AsMut<[u8]>), records: &[GroupRecord]) {
    let [high, low] = u16::try_from(records.len()).unwrap_or(u16::MAX).to_be_bytes();
    message.extend([V3_REPORT, 0, 0, 0, 0, 0, high, low]);
    records.iter().for_each(|record| record.compose(message));
    put_checksum(message.as_mut());
}

fn put_checksum(message: &mut [u8]) {
    let sum = checksum::of(message);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::RecordKind;
    use super::*;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    fn with_checksum(mut message: Vec<u8>) -> Vec<u8> {
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    #[test]
    fn queries_of_every_version_are_told_apart() {
        let query = |version, max_response_ms, robustness| {
            Some(IgmpMessage::Query { version, group: GROUP, max_response_ms, robustness })
        };
        let [a, b, c, d] = GROUP.octets();
        for (name, bytes, expected) in [
            ("version 1", vec![0x11, 0, 0, 0, a, b, c, d], query(Version::V1, 10_000, 0)),
            ("version 2", vec![0x11, 50, 0, 0, a, b, c, d], query(Version::V2, 5_000, 0)),
            ("version 3", vec![0x11, 100, 0, 0, a, b, c, d, 0x0b, 125, 0, 0], query(Version::V3, 10_000, 3)),
            ("a long delay", vec![0x11, 0x80, 0, 0, a, b, c, d, 2, 125, 0, 0], query(Version::V3, 12_800, 2)),
            (
                "with a source",
                vec![0x11, 100, 0, 0, a, b, c, d, 2, 125, 0, 1, 10, 0, 0, 9],
                query(Version::V3, 10_000, 2),
            ),
            ("without the source it counts", vec![0x11, 100, 0, 0, a, b, c, d, 2, 125, 0, 1], None),
            ("of no version", vec![0x11, 50, 0, 0, a, b, c, d, 0], None),
            ("a report", vec![0x16, 0, 0, 0, a, b, c, d], Some(IgmpMessage::OthersReport(GROUP))),
            ("a leave", vec![0x17, 0, 0, 0, a, b, c, d], Some(IgmpMessage::Other)),
        ] {
            assert_eq!(IgmpMessage::parse(&with_checksum(bytes)), expected, "{name}");
        }
        assert_eq!(IgmpMessage::parse(&[0x11, 0, 0, 0, a, b, c, d]), None, "wrong checksum");
        assert_eq!(IgmpMessage::parse(&[0x11, 0, 0xee]), None, "too short");
    }

    #[test]
    fn sources_are_those_that_the_query_counts() {
        let message = [0x11, 1, 0, 0, 239, 1, 2, 3, 2, 125, 0, 1, 10, 0, 0, 9, 10, 0, 0, 8];
        let found = sources(&message).map(Iterator::collect::<Vec<_>>);
        assert_eq!(found, Some(vec![Ipv4Addr::new(10, 0, 0, 9)]));
        assert!(sources(&message[..14]).is_none() && sources(&message[..8]).is_none());
    }

    #[test]
    fn reports_have_right_checksums_and_their_groups() {
        assert_eq!(
            IgmpMessage::parse(&compose_report(Version::V2, GROUP)),
            Some(IgmpMessage::OthersReport(GROUP))
        );
        assert_eq!(compose_report(Version::V1, GROUP)[0], 0x12);
        assert_eq!(compose_leave(GROUP)[0], 0x17);
        let mut report = Vec::new();
        let record = |kind, sources| GroupRecord { kind, group: GROUP.into(), sources };
        let records = [
            record(RecordKind::ChangeToExclude, vec![]),
            record(RecordKind::AllowNewSources, vec![[10, 0, 0, 9].into()]),
        ];
        compose_v3_report(&mut report, &records);
        assert_eq!(IgmpMessage::parse(&report), Some(IgmpMessage::Other));
        assert_eq!(
            report[4..],
            [0, 0, 0, 2, 4, 0, 0, 0, 239, 1, 2, 3, 5, 0, 0, 1, 239, 1, 2, 3, 10, 0, 0, 9]
        );
    }
}
