//! The table of groups, and when what is to be reported about them. Both protocols do the same at the same
//! times: RFC 3376 sections 5 and 7, RFC 3810 sections 6 and 8.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;
use libos::{Error, Instant};

use super::filter::{MAX_SOURCES, SourceFilter};
use super::membership::Membership;
use crate::random::Random;
use crate::wire::membership::GroupRecord;

/// Most groups at a time, of both versions; a further one cannot be joined.
pub(super) const MAX_GROUPS: usize = 512;
/// Most groups in one report. What is beyond has another.
pub(super) const MAX_REPORT_GROUPS: usize = 32;
/// Most bytes of records in one report. Each record fits alone, and the packets every link that IP runs on.
pub(super) const MAX_V4_REPORT_BYTES: usize = 512;
pub(super) const MAX_V6_REPORT_BYTES: usize = 1_200;

/// How often a change is reported unless a router says otherwise (RFC 3376 section 8.1).
const DEFAULT_ROBUSTNESS: u8 = 2;
/// Within so long a change is reported again (RFC 3376 section 8.11, RFC 3810 section 9.11).
const REPEAT_MS: u64 = 1_000;
/// For so long after a router spoke an older version, everybody does (RFC 3376 section 8.12 with the
/// default intervals: twice 125 s and 10 s).
const OLDER_VERSION_MS: u64 = 260_000;
/// Answers are spread over at least this, however hurried the query.
const MIN_RESPONSE_MS: u64 = 100;
/// No query makes us wait longer: the longest that both protocols can express is hours.
const MAX_RESPONSE_MS: u64 = 60_000;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Which of its protocol's versions a link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dialect {
    /// IGMPv1.
    Oldest,
    /// IGMPv2, MLDv1.
    Older,
    /// IGMPv3, MLDv2.
    Newest,
}

/// A router's question, of either protocol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) dialect: Dialect,
    /// Unspecified for all groups.
    pub(super) group: IpAddr,
    pub(super) max_response_ms: u32,
    /// How often the router wants changes reported; 0 when it does not say.
    pub(super) robustness: u8,
}

/// What routers are told of groups of one family.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// In the newest version: these records, which fit into one report.
    Records(Vec<GroupRecord>),
    /// In an older one, which knows no sources: we are in these groups, at most [`MAX_REPORT_GROUPS`].
    Present(Vec<IpAddr>),
    /// In an older one: we are no longer in a group.
    Left(IpAddr),
}

/// A report that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    V4(Dialect, What),
    V6(What),
}

impl Due {
    fn new(is_v4: bool, dialect: Dialect, what: What) -> Self {
        if is_v4 { Self::V4(dialect, what) } else { Self::V6(what) }
    }
}

/// What a link's routers speak.
#[derive(Debug, Clone, Copy)]
struct Routers {
    robustness: u8,
    older_until: Instant,
    oldest_until: Instant,
    /// When a query about all groups is answered.
    answer_at: Option<Instant>,
}

impl Routers {
    const NEW: Self = Self {
        robustness: DEFAULT_ROBUSTNESS,
        older_until: Instant::ZERO,
        oldest_until: Instant::ZERO,
        answer_at: None,
    };

    fn dialect(&self, now: Instant) -> Dialect {
        if now < self.oldest_until {
            Dialect::Oldest
        } else if now < self.older_until {
            Dialect::Older
        } else {
            Dialect::Newest
        }
    }
}

/// The groups that this host is in.
#[derive(Debug)]
pub(in crate::network) struct Groups {
    /// In the order of their addresses.
    memberships: Vec<Membership>,
    v4: Routers,
    v6: Routers,
    random: Random,
    deadline: Instant,
}

/// False for the groups that everybody is in and nobody reports (RFC 3376 section 5, RFC 3810 section 6).
pub(super) fn is_reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group != Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(group) => {
            let [_, flags_and_scope, ..] = group.octets();
            flags_and_scope & 0xf > 1 && group != Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
        }
    }
}

/// True when a report of these records has room for another.
fn has_room(records: &[GroupRecord], another: &GroupRecord) -> bool {
    let most = if another.group.is_ipv4() { MAX_V4_REPORT_BYTES } else { MAX_V6_REPORT_BYTES };
    let len: usize = records.iter().chain([another]).map(GroupRecord::len_bytes).sum();
    records.len() < MAX_REPORT_GROUPS && len <= most
}

impl Groups {
    /// No groups.
    pub(in crate::network) fn new(random: Random) -> Self {
        Self {
            memberships: Vec::new(),
            v4: Routers::NEW,
            v6: Routers::NEW,
            random,
            deadline: Instant::FAR_FUTURE,
        }
    }

    fn position(&self, group: IpAddr) -> Result<usize, usize> {
        self.memberships.binary_search_by_key(&group, |membership| membership.group)
    }

    /// True for groups that somebody here is in.
    pub(super) fn contains(&self, group: IpAddr) -> bool {
        let found = self.position(group).ok().and_then(|index| self.memberships.get(index));
        found.is_some_and(Membership::is_held)
    }

    /// Number of groups that somebody here is in.
    pub(in crate::network) fn len(&self) -> usize {
        self.memberships.iter().filter(|membership| membership.is_held()).count()
    }

    /// When [`Self::take_due`] next has something.
    #[inline]
    pub(in crate::network) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Somebody wants of a group what passes `after`, in the place of `before`; who has no filter is not in it. Routers
    /// are told what that changes for all together.
    pub(super) fn replace(
        &mut self,
        now: Instant,
        group: IpAddr,
        before: Option<&SourceFilter>,
        after: Option<&SourceFilter>,
    ) -> Result<(), Error> {
        let index = match self.position(group) {
            Ok(index) => index,
            Err(_) if before.is_some() => return Err(Error::AddressNotAvailable),
            Err(_) if self.memberships.len() >= MAX_GROUPS => return Err(Error::NoBuffers),
            Err(index) => {
                self.memberships.insert(index, Membership::new(group));
                index
            }
        };
        let Some(membership) = self.memberships.get_mut(index) else { return Ok(()) };
        let times = if group.is_ipv4() { self.v4.robustness } else { self.v6.robustness };
        let replaced = membership.replace(before, after, times, now);
        if !is_reported(group) {
            membership.keep_quiet();
        }
        if let Some(at) = membership.change_at() {
            self.deadline = self.deadline.min(at);
        } else if membership.is_over() {
            self.memberships.remove(index);
        }
        replaced
    }

    /// A router asks.
    pub(super) fn on_query(
        &mut self,
        now: Instant,
        question: Question,
        sources: impl Iterator<Item = IpAddr>,
    ) {
        let Question { dialect, group, max_response_ms, robustness } = question;
        let routers = if group.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let older_until = now.plus_nanos(OLDER_VERSION_MS * NANOS_PER_MILLI);
        match dialect {
            Dialect::Oldest => routers.oldest_until = older_until,
            Dialect::Older => routers.older_until = older_until,
            // RFC 3376 section 8.1: zero says nothing.
            Dialect::Newest if robustness > 0 => routers.robustness = robustness,
            Dialect::Newest => {}
        }
        let span_ms = u64::from(max_response_ms).clamp(MIN_RESPONSE_MS, MAX_RESPONSE_MS);
        let at = now.plus_nanos(self.random.range(0, span_ms * NANOS_PER_MILLI));
        // RFC 3376 section 5.2: of two answers that are due, the first serves for both.
        let sooner = |pending: Option<Instant>| Some(pending.map_or(at, |pending| pending.min(at)));
        if group.is_unspecified() {
            routers.answer_at = sooner(routers.answer_at);
        } else if let Ok(index) = self.position(group)
            && let Some(membership) = self.memberships.get_mut(index)
            && membership.is_held()
            && is_reported(group)
        {
            let asked: ArrayVec<IpAddr, { MAX_SOURCES + 1 }> = sources.take(MAX_SOURCES + 1).collect();
            // A question about more than can be remembered is answered as one about the group.
            membership.ask(at, if asked.len() > MAX_SOURCES { &[] } else { &asked });
        } else {
            return;
        }
        self.deadline = self.deadline.min(at);
    }

    /// Somebody else told routers of a group, in an older version: once is enough (RFC 2236 section 3).
    pub(super) fn on_others_report(&mut self, now: Instant, group: IpAddr) {
        let routers = if group.is_ipv4() { &self.v4 } else { &self.v6 };
        if routers.dialect(now) == Dialect::Newest {
            return;
        }
        if let Ok(index) = self.position(group)
            && let Some(membership) = self.memberships.get_mut(index)
        {
            membership.drop_answer();
        }
    }

    /// Takes a report that is due. `None`: nothing is until [`Self::deadline`].
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        if now < self.deadline {
            return None;
        }
        let due = self.take_change(now).or_else(|| self.take_answer(now));
        if due.is_none() {
            self.deadline = self.next_deadline();
        }
        due
    }

    fn take_change(&mut self, now: Instant) -> Option<Due> {
        let is_due = |membership: &Membership| membership.change_at().is_some_and(|at| at <= now);
        let index = self.memberships.iter().position(is_due)?;
        let next_at = now.plus_nanos(self.random.range(1, REPEAT_MS * NANOS_PER_MILLI));
        let membership = self.memberships.get_mut(index)?;
        let (group, held) = (membership.group, membership.is_held());
        let dialect = if group.is_ipv4() { self.v4.dialect(now) } else { self.v6.dialect(now) };
        let records = membership.take_change(next_at);
        let what = match (dialect, held) {
            (Dialect::Newest, _) => What::Records(records),
            (Dialect::Oldest | Dialect::Older, true) => What::Present(vec![group]),
            (Dialect::Oldest | Dialect::Older, false) => {
                // Older versions say once that they leave (RFC 2236 section 3, RFC 2710 section 4).
                membership.keep_quiet();
                What::Left(group)
            }
        };
        if membership.is_over() {
            self.memberships.remove(index);
        }
        Some(Due::new(group.is_ipv4(), dialect, what))
    }

    fn take_answer(&mut self, now: Instant) -> Option<Due> {
        for (routers, is_v4) in [(&mut self.v4, true), (&mut self.v6, false)] {
            if routers.answer_at.is_some_and(|at| at <= now) {
                routers.answer_at = None;
                let own = |membership: &&mut Membership| membership.group.is_ipv4() == is_v4;
                for membership in self.memberships.iter_mut().filter(own) {
                    if membership.is_held() && is_reported(membership.group) {
                        membership.ask(now, &[]);
                    }
                }
            }
        }
        let mut records: Vec<GroupRecord> = Vec::new();
        for membership in &mut self.memberships {
            if membership.answer_at().is_none_or(|at| at > now) {
                continue;
            }
            if let Some(record) = membership.answer() {
                // In the order of addresses, IPv4 comes first.
                let is_other =
                    records.first().is_some_and(|first| first.group.is_ipv4() != record.group.is_ipv4());
                if is_other || !has_room(&records, &record) {
                    break;
                }
                records.push(record);
            }
            membership.drop_answer();
        }
        let is_v4 = records.first()?.group.is_ipv4();
        let dialect = if is_v4 { self.v4.dialect(now) } else { self.v6.dialect(now) };
        let what = match dialect {
            Dialect::Newest => What::Records(records),
            Dialect::Oldest | Dialect::Older => {
                What::Present(records.into_iter().map(|record| record.group).collect())
            }
        };
        Some(Due::new(is_v4, dialect, what))
    }

    fn next_deadline(&self) -> Instant {
        let changes = self.memberships.iter().filter_map(Membership::change_at);
        let answers = self.memberships.iter().filter_map(Membership::answer_at);
        let all = [self.v4.answer_at, self.v6.answer_at].into_iter().flatten();
        let all = changes.chain(answers).chain(all);
        all.min().unwrap_or(Instant::FAR_FUTURE)
    }
}
