//! Sources of groups: what all holders want together, and what routers are told of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::{Error, Instant};

use super::SourceFilter;
use super::filter::MAX_SOURCES;
use super::tests::{igmp_query, mld_message, quiet_network, reports, settle};
use crate::network::Network;
use crate::network::testing::*;

const NOW: Instant = Instant::from_millis(1);
const ALLOW: u8 = 5;
const BLOCK: u8 = 6;
const IS_IN: u8 = 1;
const IS_EX: u8 = 2;
const TO_IN: u8 = 3;
const TO_EX: u8 = 4;

/// The same test for both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn group(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(232, 1, 2, number).into(),
            Self::V6 => Ipv6Addr::new(0xff35, 0, 0, 0, 0, 0, 0x8000, number.into()).into(),
        }
    }

    fn source(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, number).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// A router's question about a group and these sources.
    fn query(self, group: IpAddr, sources: &[u8]) -> Vec<u8> {
        let mut tail = vec![2, 125, 0, sources.len() as u8];
        for &source in sources {
            match self.source(source) {
                IpAddr::V4(source) => tail.extend(source.octets()),
                IpAddr::V6(source) => tail.extend(source.octets()),
            }
        }
        match group {
            IpAddr::V4(group) => igmp_query(10, group, &tail),
            IpAddr::V6(group) => mld_message(130, 1_000, group, &tail),
        }
    }
}

/// The records of a report: kind, group and sources by their last bytes.
fn records(message: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let address_bytes = if message[0] == 143 { 16 } else { 4 };
    assert!([0x22, 143].contains(&message[0]));
    let (mut rest, mut found) = (&message[8..], Vec::new());
    for _ in 0..u16::from_be_bytes([message[6], message[7]]) {
        let count = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let (addresses, behind) = rest[4..].split_at(address_bytes * (1 + count));
        let lasts: Vec<u8> =
            addresses.chunks(address_bytes).map(|address| address[address_bytes - 1]).collect();
        found.push((rest[0], lasts[0], lasts[1..].to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    found
}

/// What was reported of group 1, report by report.
fn said(network: &mut Network) -> Vec<Vec<(u8, Vec<u8>)>> {
    let of_group = |(_, message): (IpAddr, Vec<u8>)| -> Vec<_> {
        records(&message).into_iter().map(|(kind, _, sources)| (kind, sources)).collect()
    };
    reports(network).into_iter().map(of_group).collect()
}

fn only(family: Family, sources: &[u8]) -> Option<SourceFilter> {
    let (first, others) = sources.split_first()?;
    let filter = SourceFilter::only(family.source(*first));
    Some(others.iter().fold(filter, |filter, source| filter.with(family.source(*source)).unwrap()))
}

fn all_but(family: Family, sources: &[u8]) -> Option<SourceFilter> {
    let everybody = SourceFilter::EVERYBODY;
    Some(sources.iter().fold(everybody, |filter, source| filter.with(family.source(*source)).unwrap()))
}

#[test]
fn each_change_of_what_all_want_together_is_reported_twice() {
    for family in Family::BOTH {
        let only = |sources: &[u8]| only(family, sources);
        let all_but = |sources: &[u8]| all_but(family, sources);
        let mut network = quiet_network();
        let mut now = NOW;
        for (before, after, expected) in [
            (None, only(&[1]), vec![(ALLOW, vec![1])]),
            (only(&[1]), only(&[1, 2]), vec![(ALLOW, vec![2])]),
            // Somebody else wants the same, which changes nothing.
            (None, only(&[2]), vec![]),
            (only(&[2]), None, vec![]),
            // Somebody else wants everybody, and then all but one.
            (None, all_but(&[]), vec![(TO_EX, vec![])]),
            (all_but(&[]), all_but(&[1, 3]), vec![(BLOCK, vec![3])]),
            // A second one who excludes it no less, and one who does not.
            (None, all_but(&[3]), vec![]),
            (None, all_but(&[]), vec![(ALLOW, vec![3])]),
            (all_but(&[]), None, vec![(BLOCK, vec![3])]),
            (all_but(&[3]), None, vec![]),
            // Back to who names sources.
            (all_but(&[1, 3]), None, vec![(TO_IN, vec![1, 2])]),
            (only(&[1, 2]), only(&[2, 4]), vec![(ALLOW, vec![4]), (BLOCK, vec![1])]),
            (only(&[2, 4]), None, vec![(BLOCK, vec![2, 4])]),
        ] {
            let changed = network.filter_group_at_next_poll(family.group(1), before.as_ref(), after.as_ref());
            assert_eq!(changed, Ok(()));
            now = settle(&mut network, now);
            let times = if expected.is_empty() { 0 } else { 2 };
            assert_eq!(said(&mut network), vec![expected; times], "{family:?} {before:?} {after:?}");
        }
        assert!(!network.is_in_group(family.group(1)));
    }
}

#[test]
fn changes_that_follow_each_other_are_reported_together() {
    for family in Family::BOTH {
        let mut network = quiet_network();
        let group = family.group(1);
        let (one, two) = (only(family, &[1]), only(family, &[1, 2]));
        network.filter_group_at_next_poll(group, None, one.as_ref()).unwrap();
        network.poll(NOW);
        network.filter_group_at_next_poll(group, one.as_ref(), two.as_ref()).unwrap();
        let now = settle(&mut network, NOW);
        let expected = [vec![(ALLOW, vec![1])], vec![(ALLOW, vec![1, 2])], vec![(ALLOW, vec![2])]];
        assert_eq!(said(&mut network), expected);
        // A change of the list while the mode is being told goes along with it.
        network.filter_group_at_next_poll(group, two.as_ref(), all_but(family, &[]).as_ref()).unwrap();
        network.poll(now);
        let (all, but) = (all_but(family, &[]), all_but(family, &[7]));
        network.filter_group_at_next_poll(group, all.as_ref(), but.as_ref()).unwrap();
        settle(&mut network, now);
        let expected = [vec![(TO_EX, vec![])], vec![(TO_EX, vec![7])], vec![(TO_EX, vec![7])]];
        assert_eq!(said(&mut network), expected);
    }
}

#[test]
fn questions_are_answered_with_the_sources_that_are_wanted() {
    for family in Family::BOTH {
        let of_all: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let group = family.group(1);
        for (filter, asked, expected) in [
            (only(family, &[1, 2]), vec![], Some((IS_IN, vec![1, 2]))),
            (only(family, &[1, 2]), vec![2, 3], Some((IS_IN, vec![2]))),
            (only(family, &[1, 2]), vec![3], None),
            (all_but(family, &[1, 2]), vec![], Some((IS_EX, vec![1, 2]))),
            (all_but(family, &[1, 2]), vec![2, 3], Some((IS_IN, vec![3]))),
            (all_but(family, &[1, 2]), vec![2], None),
        ] {
            let mut network = quiet_network();
            network.filter_group_at_next_poll(group, None, filter.as_ref()).unwrap();
            let now = settle(&mut network, NOW);
            network.frames().clear();
            receive(&mut network, now, &family.query(group, &asked));
            let now = settle(&mut network, now);
            let expected_records: Vec<_> = expected.into_iter().map(|record| vec![record]).collect();
            assert_eq!(said(&mut network), expected_records, "{filter:?} {asked:?}");
            // A question about all groups takes up all sources, and two about sources of one are answered as one.
            receive(&mut network, now, &family.query(group, &[1]));
            receive(&mut network, now, &family.query(group, &[2, 3]));
            receive(&mut network, now, &family.query(of_all, &[]));
            settle(&mut network, now);
            let answers: Vec<_> = said(&mut network).concat();
            let of_group =
                answers.iter().filter(|(kind, sources)| [IS_IN, IS_EX].contains(kind) && !sources.is_empty());
            assert!((1..=2).contains(&of_group.count()), "{answers:?}");
        }
    }
}

#[test]
fn older_routers_hear_of_the_group_alone() {
    let group = Family::V4.group(1);
    let mut network = quiet_network();
    let mut query = igmp_query(10, Ipv4Addr::UNSPECIFIED, &[]);
    receive(&mut network, NOW, &query);
    let mut now = settle(&mut network, NOW);
    network.frames().clear();
    let filter = only(Family::V4, &[1]);
    network.filter_group_at_next_poll(group, None, filter.as_ref()).unwrap();
    now = settle(&mut network, now);
    network.filter_group_at_next_poll(group, filter.as_ref(), None).unwrap();
    settle(&mut network, now);
    let kinds: Vec<u8> = reports(&mut network).iter().map(|(_, message)| message[0]).collect();
    assert_eq!(kinds, [0x16, 0x16, 0x17]);
    query.truncate(30);
    receive(&mut network, now, &query);
}

#[test]
fn sources_of_a_group_and_bytes_of_a_report_are_bounded() {
    for family in Family::BOTH {
        let mut network = quiet_network();
        let most = (1..=MAX_SOURCES as u8).collect::<Vec<_>>();
        let full = only(family, &most);
        for number in 0..4 {
            network.filter_group_at_next_poll(family.group(number), None, full.as_ref()).unwrap();
        }
        let another = only(family, &[200]);
        let refused = network.filter_group_at_next_poll(family.group(0), None, another.as_ref());
        assert_eq!(refused, Err(Error::NoBuffers));
        let now = settle(&mut network, NOW);
        network.frames().clear();
        let of_all = match family {
            Family::V4 => igmp_query(10, Ipv4Addr::UNSPECIFIED, &[2, 125, 0, 0]),
            Family::V6 => mld_message(130, 1_000, Ipv6Addr::UNSPECIFIED, &[2, 125, 0, 0]),
        };
        receive(&mut network, now, &of_all);
        settle(&mut network, now);
        let sent = reports(&mut network);
        let told = sent.iter().flat_map(|(_, message)| records(message));
        assert_eq!(told.filter(|(_, _, sources)| sources.len() == MAX_SOURCES).count(), 4);
        // Room that nobody uses any more is given to others at once.
        network.filter_group_at_next_poll(family.group(0), full.as_ref(), another.as_ref()).unwrap();
    }
}

#[test]
fn who_was_not_in_a_group_cannot_leave_it() {
    let mut network = quiet_network();
    let group = Family::V4.group(1);
    let everybody = Some(&SourceFilter::EVERYBODY);
    assert_eq!(network.filter_group_at_next_poll(group, everybody, None), Err(Error::AddressNotAvailable));
    let unicast = Family::V4.source(1);
    assert_eq!(network.filter_group_at_next_poll(unicast, None, everybody), Err(Error::InvalidArgument));
}
