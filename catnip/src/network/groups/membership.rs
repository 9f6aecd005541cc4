//! One group as this host is in it: what all who are in it want together (RFC 3376 section 3.2, RFC 3810 section 4.2),
//! and what routers have yet to be told of that.

use std::net::IpAddr;

use libos::{Error, Instant};

use super::filter::{FilterMode, MAX_SOURCES, SourceFilter};
use crate::wire::membership::{GroupRecord, RecordKind};

/// A source that somebody named.
#[derive(Debug, Clone, Copy)]
struct Source {
    address: IpAddr,
    /// How many include it, and how many exclude it.
    included: u32,
    excluded: u32,
    /// Reports that still have to say that it is wanted, or no longer is.
    reports_left: u8,
}

impl Source {
    /// True when somebody wants it by name, or one of those who want all but some does (RFC 3376 section 3.2).
    const fn is_wanted(&self, excluding: u32) -> bool {
        self.included > 0 || self.excluded < excluding
    }
}

/// A question that is to be answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    at: Instant,
    /// The sources asked about; none for the group as a whole.
    sources: Vec<IpAddr>,
}

/// A group that somebody is in, or whose end routers have yet to be told of.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) group: IpAddr,
    /// How many want everybody, but for the sources that they exclude.
    excluding: u32,
    /// In the order of their addresses.
    sources: Vec<Source>,
    /// Reports that still have to say that everybody is wanted, or no longer is.
    mode_reports_left: u8,
    /// When the next report of a change is due.
    change_at: Option<Instant>,
    answer: Option<Answer>,
}

impl Membership {
    pub(super) const fn new(group: IpAddr) -> Self {
        Self { group, excluding: 0, sources: Vec::new(), mode_reports_left: 0, change_at: None, answer: None }
    }

    /// True while somebody is in the group.
    pub(super) fn is_held(&self) -> bool {
        self.excluding > 0 || self.sources.iter().any(|source| source.included > 0)
    }

    /// True when nobody is in the group and routers know it.
    pub(super) fn is_over(&self) -> bool {
        self.change_at.is_none() && !self.is_held()
    }

    pub(super) const fn change_at(&self) -> Option<Instant> {
        self.change_at
    }

    pub(super) fn answer_at(&self) -> Option<Instant> {
        self.answer.as_ref().map(|answer| answer.at)
    }

    const fn mode(&self) -> FilterMode {
        if self.excluding > 0 { FilterMode::Exclude } else { FilterMode::Include }
    }

    const fn wants(&self, source: &Source) -> bool {
        source.is_wanted(self.excluding)
    }

    fn wants_address(&self, address: IpAddr) -> bool {
        match self.sources.binary_search_by_key(&address, |source| source.address) {
            Ok(place) => self.sources.get(place).is_some_and(|source| self.wants(source)),
            Err(_) => self.excluding > 0,
        }
    }

    /// Somebody wants `after` in the place of `before`; without a filter they are not in the group. Of a change
    /// routers are told `times` times from `now` on.
    pub(super) fn replace(
        &mut self,
        before: Option<&SourceFilter>,
        after: Option<&SourceFilter>,
        times: u8,
        now: Instant,
    ) -> Result<(), Error> {
        let excludes = |filter: Option<&SourceFilter>| {
            u32::from(filter.is_some_and(|filter| filter.mode() == FilterMode::Exclude))
        };
        let left = self.excluding.checked_sub(excludes(before)).ok_or(Error::AddressNotAvailable)?;
        let excluding = left.checked_add(excludes(after)).ok_or(Error::NoBuffers)?;
        let mode = self.mode();
        let wanted: Vec<_> = self.sources.iter().map(|source| (source.address, self.wants(source))).collect();
        self.count(before, |count| count.saturating_sub(1));
        if let Err(error) = self.make_room(after) {
            self.count(before, |count| count.saturating_add(1));
            return Err(error);
        }
        self.excluding = excluding;
        self.count(after, |count| count.saturating_add(1));
        let switched = mode != self.mode();
        if switched || self.note_changed_sources(&wanted, times) {
            // The list goes along with the mode (RFC 3376 section 5.1).
            if switched || self.mode_reports_left > 0 {
                self.mode_reports_left = times;
                self.sources.iter_mut().for_each(|source| source.reports_left = 0);
            }
            self.change_at = Some(now);
        }
        self.forget_unnamed();
        Ok(())
    }

    /// Makes sure that all sources of a filter have a place in the list, those that it names for the first time with no
    /// counts.
    fn make_room(&mut self, filter: Option<&SourceFilter>) -> Result<(), Error> {
        let named = filter.map_or(&[][..], SourceFilter::sources);
        let place = |sources: &[Source], address: IpAddr| {
            sources.binary_search_by_key(&address, |source| source.address)
        };
        let unknown = named.iter().filter(|address| place(&self.sources, **address).is_err()).count();
        if self.sources.len() + unknown > MAX_SOURCES {
            // Of those that nobody names any more routers learn when they ask.
            let stays = |source: &Source| {
                source.included + source.excluded > 0 || named.binary_search(&source.address).is_ok()
            };
            if self.sources.iter().filter(|source| stays(source)).count() + unknown > MAX_SOURCES {
                return Err(Error::NoBuffers);
            }
            self.sources.retain(stays);
        }
        for &address in named {
            if let Err(place) = place(&self.sources, address) {
                let source = Source { address, included: 0, excluded: 0, reports_left: 0 };
                self.sources.insert(place, source);
            }
        }
        Ok(())
    }

    fn count(&mut self, filter: Option<&SourceFilter>, change: impl Fn(u32) -> u32) {
        let Some(filter) = filter else { return };
        for address in filter.sources() {
            let Ok(place) = self.sources.binary_search_by_key(address, |source| source.address) else {
                continue;
            };
            let Some(source) = self.sources.get_mut(place) else { continue };
            let count = match filter.mode() {
                FilterMode::Include => &mut source.included,
                FilterMode::Exclude => &mut source.excluded,
            };
            *count = change(*count);
        }
    }

    /// Takes note of the sources that are wanted now and were not, as `wanted` says in the order of addresses, or the
    /// other way round. True when there are any.
    fn note_changed_sources(&mut self, wanted: &[(IpAddr, bool)], times: u8) -> bool {
        let (excluding, mut any) = (self.excluding, false);
        for source in &mut self.sources {
            let known = wanted.binary_search_by_key(&source.address, |(address, _)| *address);
            // Who was not named was wanted if everybody was.
            let was_wanted =
                known.ok().and_then(|place| wanted.get(place)).map_or(excluding > 0, |known| known.1);
            if source.is_wanted(excluding) != was_wanted {
                source.reports_left = times;
                any = true;
            }
        }
        any
    }

    fn has_news(&self) -> bool {
        self.mode_reports_left > 0 || self.sources.iter().any(|source| source.reports_left > 0)
    }

    fn forget_unnamed(&mut self) {
        self.sources.retain(|source| source.included + source.excluded + u32::from(source.reports_left) > 0);
    }

    /// Nobody is told of this group's changes.
    pub(super) fn keep_quiet(&mut self) {
        self.mode_reports_left = 0;
        self.sources.iter_mut().for_each(|source| source.reports_left = 0);
        self.change_at = None;
        self.forget_unnamed();
    }

    /// The records of a report of changes; `next_at` is when the next one is due, if there has to be one (RFC 3376
    /// section 5.1).
    pub(super) fn take_change(&mut self, next_at: Instant) -> Vec<GroupRecord> {
        let records = if self.mode_reports_left > 0 {
            self.mode_reports_left -= 1;
            vec![self.state_record(match self.mode() {
                FilterMode::Include => RecordKind::ChangeToInclude,
                FilterMode::Exclude => RecordKind::ChangeToExclude,
            })]
        } else {
            let changed = |kind, wanted| {
                let told = self.sources.iter().filter(|source| source.reports_left > 0);
                let sources = told.filter(|source| self.wants(source) == wanted).map(|source| source.address);
                GroupRecord { kind, group: self.group, sources: sources.collect() }
            };
            let mut records =
                vec![changed(RecordKind::AllowNewSources, true), changed(RecordKind::BlockOldSources, false)];
            records.retain(|record| !record.sources.is_empty());
            for source in &mut self.sources {
                source.reports_left = source.reports_left.saturating_sub(1);
            }
            records
        };
        self.change_at = self.has_news().then_some(next_at);
        self.forget_unnamed();
        records
    }

    /// Somebody asks about the group, or about some sources in it. Of two answers the earlier time counts, and it says
    /// what both asked for (RFC 3376 section 5.2).
    pub(super) fn ask(&mut self, at: Instant, sources: &[IpAddr]) {
        self.answer = Some(match self.answer.take() {
            None => Answer { at, sources: sources.to_vec() },
            Some(mut pending) => {
                let asks_for_all = pending.sources.is_empty() || sources.is_empty();
                pending.sources.extend(sources);
                pending.sources.sort_unstable();
                pending.sources.dedup();
                // What cannot all be remembered is answered as a whole.
                if asks_for_all || pending.sources.len() > MAX_SOURCES {
                    pending.sources.clear();
                }
                Answer { at: pending.at.min(at), sources: pending.sources }
            }
        });
    }

    pub(super) fn drop_answer(&mut self) {
        self.answer = None;
    }

    /// What the question that waits is answered with; `None` for nothing, as nobody is in the group or wants the
    /// sources asked about.
    pub(super) fn answer(&self) -> Option<GroupRecord> {
        let answer = self.answer.as_ref().filter(|_| self.is_held())?;
        if answer.sources.is_empty() {
            return Some(self.state_record(match self.mode() {
                FilterMode::Include => RecordKind::ModeIsInclude,
                FilterMode::Exclude => RecordKind::ModeIsExclude,
            }));
        }
        let wanted = answer.sources.iter().copied().filter(|source| self.wants_address(*source));
        let sources: Vec<_> = wanted.collect();
        let kind = RecordKind::ModeIsInclude;
        (!sources.is_empty()).then_some(GroupRecord { kind, group: self.group, sources })
    }

    /// A record with the list of the present state: who is wanted, or who is not.
    fn state_record(&self, kind: RecordKind) -> GroupRecord {
        let listed = match self.mode() {
            FilterMode::Include => true,
            FilterMode::Exclude => false,
        };
        let sources = self.sources.iter().filter(|source| self.wants(source) == listed);
        GroupRecord { kind, group: self.group, sources: sources.map(|source| source.address).collect() }
    }
}
