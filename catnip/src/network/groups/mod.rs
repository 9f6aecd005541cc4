//! Groups: which ones this host is in, and telling routers so (IGMP and MLD).
//!
//! Whoever wants a group's packets joins with [`super::Network::join_group`] and leaves with
//! [`super::Network::leave_group`]; a group with several holders is left with the last one. Sources are not
//! told apart: a group is wanted from everybody or not at all.

mod igmp;
mod mld;
mod table;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use libos::{Error, Instant};

use super::{DestinationKind, Network};
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
        self.groups.join(now, group)?;
        self.serve_groups(now);
        Ok(())
    }

    /// As [`Self::join_group`], where no time is known: routers are told with the next [`Self::poll`], which
    /// [`Self::next_deadline`] asks for at once.
    ///
    /// # Errors
    /// As [`Self::join_group`].
    pub fn join_group_at_next_poll(&mut self, group: IpAddr) -> Result<(), Error> {
        if group.is_multicast() {
            self.groups.join(Instant::ZERO, group)
        } else {
            Err(Error::InvalidArgument)
        }
    }

    /// As [`Self::leave_group`], where no time is known.
    ///
    /// # Errors
    /// As [`Self::leave_group`].
    pub fn leave_group_at_next_poll(&mut self, group: IpAddr) -> Result<(), Error> {
        self.groups.leave(Instant::ZERO, group)
    }

    /// Undoes one [`Self::join_group`]. Routers are told when it was the last for the group.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] when nobody here is in the group.
    pub fn leave_group(&mut self, now: Instant, group: IpAddr) -> Result<(), Error> {
        self.groups.leave(now, group)?;
        self.serve_groups(now);
        Ok(())
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
                Due::V4(report) => self.send_igmp(&report),
                Due::V6(report) => self.send_mld(&report),
            }
        }
    }
}
