//! The table of groups, and when what is to be reported about them. Both protocols do the same at the same
//! times: RFC 3376 sections 5 and 7, RFC 3810 sections 6 and 8.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::{Error, Instant};

use crate::random::Random;

/// Most groups at a time, of both versions; a further one cannot be joined.
pub(super) const MAX_GROUPS: usize = 512;
/// Most groups in one report. What is beyond has another.
pub(super) const MAX_REPORT_GROUPS: usize = 32;

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

/// What routers are told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What<A> {
    /// We are in a group from now on.
    Joined(A),
    /// We are no longer in a group.
    Left(A),
    /// We are in these groups: at most [`MAX_REPORT_GROUPS`].
    Current(Vec<A>),
}

/// A report that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report<A> {
    pub(super) dialect: Dialect,
    pub(super) what: What<A>,
}

/// A report of either protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    V4(Report<Ipv4Addr>),
    V6(Report<Ipv6Addr>),
}

/// A change that is to be reported.
#[derive(Debug, Clone, Copy)]
struct Change {
    times_left: u8,
    at: Instant,
}

#[derive(Debug)]
struct Membership {
    group: IpAddr,
    /// Who is in it. None: it was left, and stays until routers know.
    holders: u32,
    change: Option<Change>,
    /// When a query about it is answered.
    answer_at: Option<Instant>,
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

/// Adds a group to a report unless that is full.
fn push_within<A>(groups: &mut Vec<A>, group: A) -> bool {
    let has_room = groups.len() < MAX_REPORT_GROUPS;
    if has_room {
        groups.push(group);
    }
    has_room
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
        found.is_some_and(|membership| membership.holders > 0)
    }

    /// Number of groups that somebody here is in.
    pub(in crate::network) fn len(&self) -> usize {
        self.memberships.iter().filter(|membership| membership.holders > 0).count()
    }

    /// When [`Self::take_due`] next has something.
    #[inline]
    pub(in crate::network) const fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn join(&mut self, now: Instant, group: IpAddr) -> Result<(), Error> {
        let index = match self.position(group) {
            Ok(index) => index,
            Err(_) if self.memberships.len() >= MAX_GROUPS => return Err(Error::NoBuffers),
            Err(index) => {
                let membership = Membership { group, holders: 0, change: None, answer_at: None };
                self.memberships.insert(index, membership);
                index
            }
        };
        self.count(now, index, |holders| holders.checked_add(1)).ok_or(Error::NoBuffers)
    }

    pub(super) fn leave(&mut self, now: Instant, group: IpAddr) -> Result<(), Error> {
        let index = self.position(group).map_err(|_| Error::AddressNotAvailable)?;
        self.count(now, index, |holders| holders.checked_sub(1)).ok_or(Error::AddressNotAvailable)
    }

    /// Changes how many are in a group; between none and one this is to be reported.
    fn count(&mut self, now: Instant, index: usize, change: impl Fn(u32) -> Option<u32>) -> Option<()> {
        let membership = self.memberships.get_mut(index)?;
        let before = membership.holders;
        membership.holders = change(before)?;
        let robustness = if membership.group.is_ipv4() { self.v4.robustness } else { self.v6.robustness };
        if (before == 0) != (membership.holders == 0) && is_reported(membership.group) {
            membership.change = Some(Change { times_left: robustness, at: now });
            self.deadline = self.deadline.min(now);
        } else if membership.holders == 0 && membership.change.is_none() {
            self.memberships.remove(index);
        }
        Some(())
    }

    /// A router asks.
    pub(super) fn on_query(&mut self, now: Instant, question: Question) {
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
            && membership.holders > 0
            && is_reported(group)
        {
            membership.answer_at = sooner(membership.answer_at);
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
            membership.answer_at = None;
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
        let is_due = |membership: &Membership| membership.change.is_some_and(|change| change.at <= now);
        let index = self.memberships.iter().position(is_due)?;
        let membership = self.memberships.get_mut(index)?;
        let (group, joined) = (membership.group, membership.holders > 0);
        let dialect = if group.is_ipv4() { self.v4.dialect(now) } else { self.v6.dialect(now) };
        let left = membership.change.map_or(0, |change| change.times_left).saturating_sub(1);
        // Older versions say once that they leave (RFC 2236 section 3, RFC 2710 section 4).
        let ends = left == 0 || !joined && dialect != Dialect::Newest;
        membership.change = (!ends).then(|| {
            let delay = self.random.range(1, REPEAT_MS * NANOS_PER_MILLI);
            Change { times_left: left, at: now.plus_nanos(delay) }
        });
        if ends && !joined {
            self.memberships.remove(index);
        }
        fn what<A>(joined: bool, group: A) -> What<A> {
            if joined { What::Joined(group) } else { What::Left(group) }
        }
        Some(match group {
            IpAddr::V4(group) => Due::V4(Report { dialect, what: what(joined, group) }),
            IpAddr::V6(group) => Due::V6(Report { dialect, what: what(joined, group) }),
        })
    }

    fn take_answer(&mut self, now: Instant) -> Option<Due> {
        for (routers, is_v4) in [(&mut self.v4, true), (&mut self.v6, false)] {
            if routers.answer_at.is_some_and(|at| at <= now) {
                routers.answer_at = None;
                let own = |membership: &&mut Membership| membership.group.is_ipv4() == is_v4;
                for membership in self.memberships.iter_mut().filter(own) {
                    let answers = membership.holders > 0 && is_reported(membership.group);
                    membership.answer_at = answers.then_some(now);
                }
            }
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for membership in &mut self.memberships {
            // A group that was left since has nothing to answer.
            if membership.answer_at.is_none_or(|at| at > now) {
                continue;
            }
            let taken = match membership.group {
                _ if membership.holders == 0 => true,
                // In the order of addresses, IPv4 comes first.
                IpAddr::V4(group) => push_within(&mut v4, group),
                IpAddr::V6(group) => v4.is_empty() && push_within(&mut v6, group),
            };
            if !taken {
                break;
            }
            membership.answer_at = None;
        }
        if !v4.is_empty() {
            Some(Due::V4(Report { dialect: self.v4.dialect(now), what: What::Current(v4) }))
        } else if !v6.is_empty() {
            Some(Due::V6(Report { dialect: self.v6.dialect(now), what: What::Current(v6) }))
        } else {
            None
        }
    }

    fn next_deadline(&self) -> Instant {
        let changes = self.memberships.iter().filter_map(|membership| membership.change);
        let answers = self.memberships.iter().filter_map(|membership| membership.answer_at);
        let all = [self.v4.answer_at, self.v6.answer_at].into_iter().flatten();
        let all = changes.map(|change| change.at).chain(answers).chain(all);
        all.min().unwrap_or(Instant::FAR_FUTURE)
    }
}
