//! Groups: which ones this host is in, and telling routers so (IGMP and MLD).
//!
//! Whoever wants a group's packets joins with [`super::Network::join_group`] and leaves with
//! [`super::Network::leave_group`]; a group with several holders is left with the last one. Sources are told apart by
//! filters ([`SourceFilter`]): [`super::Network::filter_group_at_next_poll`]. Routers hear what all holders want
//! together; which datagrams each of them gets is its own business.

mod filter;
mod igmp;
mod membership;
mod mld;
mod table;

#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use libos::{Error, Instant};

use super::{DestinationKind, Network};
pub use filter::{FilterMode, SourceFilter};
pub(super) use igmp::IGMP;
use table::Due;
pub(super) use table::Groups;

impl Network {
    /// Takes part in a group from now on, until [`Self::leave_group`] was called as often. Routers are told.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the address is not a group's, [`Error::NoBuffers`] when there are too
    /// many groups.
    pub fn join_group(&mut self, now: Instant, group: IpAddr) -> Result<(), Error> {
        if !group.is_multicast() {
            return Err(Error::InvalidArgument);
        }
        self.groups.replace(now, group, None, Some(&SourceFilter::EVERYBODY))?;
        self.serve_groups(now);
        Ok(())
    }

    /// Undoes one [`Self::join_group`]. Routers are told when it was the last for the group.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] when nobody here is in the group.
    pub fn leave_group(&mut self, now: Instant, group: IpAddr) -> Result<(), Error> {
        self.groups.replace(now, group, Some(&SourceFilter::EVERYBODY), None)?;
        self.serve_groups(now);
        Ok(())
    }

    /// Somebody in a group wants what passes the filter `after` from now on, in the place of what they wanted `before`;
    /// without a filter they are not in the group. Routers are told with the next [`Self::poll`], which
    /// [`Self::next_deadline`] asks for at once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the address is not a group's, [`Error::NoBuffers`] when there are too many groups,
    /// or sources of this one. [`Error::AddressNotAvailable`] when nobody wanted what `before` says.
    pub fn filter_group_at_next_poll(
        &mut self,
        group: IpAddr,
        before: Option<&SourceFilter>,
        after: Option<&SourceFilter>,
    ) -> Result<(), Error> {
        if !group.is_multicast() {
            return Err(Error::InvalidArgument);
        }
        self.groups.replace(Instant::ZERO, group, before, after)
    }

    /// True for groups whose packets are received: those that were joined, and the groups of all hosts.
    #[must_use]
    pub fn is_in_group(&self, group: IpAddr) -> bool {
        self.is_group_of_all(group) || self.groups.contains(group)
    }

    /// True for the groups that every host is in.
    pub(crate) fn is_group_of_all(&self, group: IpAddr) -> bool {
        self.interface.is_group_of_all(group)
    }

    /// How a packet to a group concerns us.
    pub(super) fn group_kind(&self, destination: IpAddr) -> Option<DestinationKind> {
        (destination.is_multicast() && self.is_in_group(destination)).then_some(DestinationKind::Multicast)
    }

    /// Sends the reports that are due.
    #[cold]
    pub(super) fn serve_groups(&mut self, now: Instant) {
        while let Some(due) = self.groups.take_due(now) {
            match due {
                Due::V4(dialect, what) => self.send_igmp(dialect, &what),
                Due::V6(what) => self.send_mld(&what),
            }
        }
    }
}
