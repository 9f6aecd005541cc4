//! The groups that a socket is in, and whose datagrams it wants there (RFC 3376 section 3.1, RFC 3678 section 4).

use std::net::IpAddr;

use libos::{Error, GroupMembership, SourceMembership};

use super::options::interface;
use super::socket::Socket;
use crate::network::{FilterMode, Network, SourceFilter};

/// Most groups that one socket is in.
const MAX_MEMBERSHIPS: usize = 64;

/// A group that a socket is in.
#[derive(Debug)]
pub(super) struct Membership {
    group: IpAddr,
    filter: SourceFilter,
}

impl Socket {
    /// True when what `source` sends to `group` is wanted.
    pub(super) fn wants_from(&self, group: IpAddr, source: IpAddr) -> bool {
        let membership = self.groups.iter().find(|membership| membership.group == group);
        membership.is_some_and(|membership| membership.filter.admits(source))
    }

    fn place_of(&self, group: IpAddr) -> Option<usize> {
        self.groups.iter().position(|membership| membership.group == group)
    }

    pub(super) fn join(&mut self, network: &mut Network, joined: GroupMembership) -> Result<(), Error> {
        // RFC 4604, section 2.1: no router delivers what is sent to such a group by anybody.
        if needs_source(joined.group) {
            return Err(Error::InvalidArgument);
        }
        self.check_group(network, joined)?;
        if self.place_of(joined.group).is_some() {
            return Err(Error::AddressInUse);
        }
        self.set_filter(network, joined.group, Some(SourceFilter::EVERYBODY))
    }

    pub(super) fn leave(&mut self, network: &mut Network, left: GroupMembership) -> Result<(), Error> {
        self.place_of(left.group).ok_or(Error::AddressNotAvailable)?;
        self.set_filter(network, left.group, None)
    }

    /// Names one source more, of a group that the socket may be in with other sources or not at all.
    pub(super) fn join_source(
        &mut self,
        network: &mut Network,
        wanted: SourceMembership,
    ) -> Result<(), Error> {
        self.check_source(network, wanted)?;
        let filter = match self.place_of(wanted.group.group) {
            None => SourceFilter::only(wanted.source),
            Some(place) => self.filter(place, FilterMode::Include)?.with(wanted.source)?,
        };
        self.set_filter(network, wanted.group.group, Some(filter))
    }

    /// Names one source less; with the last the socket leaves the group.
    pub(super) fn leave_source(
        &mut self,
        network: &mut Network,
        unwanted: SourceMembership,
    ) -> Result<(), Error> {
        let filter = self.filter_of(network, unwanted, FilterMode::Include)?.without(unwanted.source)?;
        self.set_filter(network, unwanted.group.group, Some(filter).filter(|filter| !filter.is_of_nobody()))
    }

    /// Shuts one source out of a group that the socket is in as a whole.
    pub(super) fn block_source(
        &mut self,
        network: &mut Network,
        unwanted: SourceMembership,
    ) -> Result<(), Error> {
        let filter = self.filter_of(network, unwanted, FilterMode::Exclude)?.with(unwanted.source)?;
        self.set_filter(network, unwanted.group.group, Some(filter))
    }

    /// Lets a source in again.
    pub(super) fn unblock_source(
        &mut self,
        network: &mut Network,
        wanted: SourceMembership,
    ) -> Result<(), Error> {
        let filter = self.filter_of(network, wanted, FilterMode::Exclude)?.without(wanted.source)?;
        self.set_filter(network, wanted.group.group, Some(filter))
    }

    /// Puts a whole list in the place of what the socket wanted of a group, if anything (RFC 3376, section 3.1).
    pub(super) fn set_source_filter(
        &mut self,
        network: &mut Network,
        joined: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        self.check_group(network, joined)?;
        if mode == FilterMode::Exclude && needs_source(joined.group) {
            return Err(Error::InvalidArgument);
        }
        let filter = SourceFilter::of(mode, sources)?;
        for &source in filter.sources() {
            self.check_source(network, SourceMembership { group: joined, source })?;
        }
        if filter.is_of_nobody() && self.place_of(joined.group).is_none() {
            return Ok(());
        }
        self.set_filter(network, joined.group, Some(filter).filter(|filter| !filter.is_of_nobody()))
    }

    /// What it wants of a group.
    pub(super) fn source_filter(&self, joined: GroupMembership) -> Result<&SourceFilter, Error> {
        let membership = self.place_of(joined.group).and_then(|place| self.groups.get(place));
        membership.map(|membership| &membership.filter).ok_or(Error::AddressNotAvailable)
    }

    /// Lets go of all groups, as the socket ends.
    pub(super) fn leave_all(&mut self, network: &mut Network) {
        for Membership { group, filter } in std::mem::take(&mut self.groups) {
            let left = network.filter_group_at_next_poll(group, Some(&filter), None);
            debug_assert_eq!(left, Ok(()), "the socket was in the group");
        }
    }

    fn check_group(&self, network: &Network, joined: GroupMembership) -> Result<(), Error> {
        if !joined.group.is_multicast() || joined.group.is_ipv4() != self.local.is_ipv4() {
            return Err(Error::InvalidArgument);
        }
        interface(network, joined.interface).map(|_| ())
    }

    fn check_source(&self, network: &Network, named: SourceMembership) -> Result<(), Error> {
        let source = named.source;
        if source.is_multicast() || source.is_unspecified() || source.is_ipv4() != self.local.is_ipv4() {
            return Err(Error::InvalidArgument);
        }
        self.check_group(network, named.group)
    }

    /// The filter, of that mode, of the group that a source is named of, in which the socket must be.
    fn filter_of(
        &self,
        network: &Network,
        named: SourceMembership,
        mode: FilterMode,
    ) -> Result<&SourceFilter, Error> {
        self.check_source(network, named)?;
        let place = self.place_of(named.group.group).ok_or(Error::AddressNotAvailable)?;
        self.filter(place, mode)
    }

    /// The filter of a group, which must be of that mode (RFC 3678, section 4.1.3).
    fn filter(&self, place: usize, mode: FilterMode) -> Result<&SourceFilter, Error> {
        let membership = self.groups.get(place).ok_or(Error::AddressNotAvailable)?;
        if membership.filter.mode() == mode { Ok(&membership.filter) } else { Err(Error::InvalidArgument) }
    }

    /// Puts a filter in the place of the one that a group had; without one the socket leaves the group. Options are set
    /// without a look at the clock.
    fn set_filter(
        &mut self,
        network: &mut Network,
        group: IpAddr,
        filter: Option<SourceFilter>,
    ) -> Result<(), Error> {
        let place = self.place_of(group);
        if place.is_none() && self.groups.len() >= MAX_MEMBERSHIPS {
            return Err(Error::NoBuffers);
        }
        let before = place.and_then(|place| self.groups.get(place)).map(|membership| &membership.filter);
        network.filter_group_at_next_poll(group, before, filter.as_ref())?;
        if let Some(place) = place {
            self.groups.swap_remove(place);
        }
        self.groups.extend(filter.map(|filter| Membership { group, filter }));
        Ok(())
    }
}

/// True for the groups that are only ever joined with a source (RFC 4607, section 1).
fn needs_source(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets()[0] == 232,
        IpAddr::V6(group) => {
            let [first, second, ..] = group.segments();
            first & 0xfff0 == 0xff30 && second == 0
        }
    }
}
