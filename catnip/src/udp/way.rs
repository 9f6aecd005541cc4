//! The way to where a socket's last datagram went.

use crate::network::{Network, Path, Straight};

/// A path, and what is known of the next datagram's headers, which is forgotten with any change of the path.
#[derive(Debug)]
pub(super) struct Way {
    straight: Straight,
    path: Option<Path>,
}

impl Way {
    /// None yet.
    pub(super) const NONE: Self = Self { straight: Straight::NONE, path: None };

    /// What the next datagram's headers are made with.
    #[inline(always)]
    pub(super) const fn straight(&self) -> &Straight {
        &self.straight
    }

    /// The path of the last datagram; for a connected socket, to its peer.
    #[inline(always)]
    pub(super) const fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    /// The path, to be changed.
    pub(super) const fn path_mut(&mut self) -> &mut Option<Path> {
        self.straight = Straight::NONE;
        &mut self.path
    }

    /// Has the next datagram take the general way, where it is told what there is to tell.
    pub(super) const fn bend(&mut self) {
        self.straight = Straight::NONE;
    }

    /// Has the next datagram go as the last one, which was just sent.
    pub(super) fn straighten(&mut self, network: &Network, local_port: u16) {
        if let Some(path) = &self.path {
            self.straight = network.straight_after(path, local_port);
        }
    }
}
