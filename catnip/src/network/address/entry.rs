//! One address of ours.

use libos::Instant;

use crate::network::Prefix;

/// What is done so that no two hosts on a link use one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConflictDetection {
    /// Addresses are used at once and announced once. Conflicts are counted.
    Off,
    /// Configured addresses are used at once, announced, and defended against others that claim them
    /// (RFC 5227 sections 2.3 and 2.4). Addresses that this stack gives itself are probed first.
    #[default]
    Defend,
    /// All addresses are probed before they are used (RFC 5227 section 2.1, RFC 4862 section 5.4), which takes
    /// up to two seconds for IPv6 and seven for IPv4. Until then nothing can be bound to them.
    Probe,
}

impl ConflictDetection {
    pub(in crate::network) const fn probes(self, origin: AddressOrigin) -> bool {
        match (self, origin) {
            (Self::Off, _) | (Self::Defend, AddressOrigin::Static | AddressOrigin::LinkLocal) => false,
            (Self::Defend, AddressOrigin::Formed | AddressOrigin::Leased) | (Self::Probe, _) => true,
        }
    }
}

/// Who an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressOrigin {
    /// The program's configuration.
    Static,
    /// This stack, for the link alone (RFC 4862 section 5.3).
    LinkLocal,
    /// This stack, from a prefix that a router advertised (RFC 4862 section 5.5).
    Formed,
    /// A DHCP server.
    Leased,
}

/// What an address is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressState {
    /// For nothing yet: others are being asked whether it is theirs.
    Tentative,
    /// For everything.
    Preferred,
    /// For what uses it already (RFC 4862 section 5.5.4).
    Deprecated,
    /// For nothing: somebody else has it.
    Duplicate,
}

/// An address of ours as the program sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressStatus {
    /// The address, and the length of its network's prefix.
    pub prefix: Prefix,
    /// Who it comes from.
    pub origin: AddressOrigin,
    /// What it is good for.
    pub state: AddressState,
    /// Until when it is ours; [`Instant::FAR_FUTURE`] when for ever.
    pub valid_until: Instant,
}

/// How long an address is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) struct Lifetime {
    /// For new connections.
    pub(in crate::network) preferred_until: Instant,
    /// At all.
    pub(in crate::network) valid_until: Instant,
}

impl Lifetime {
    pub(in crate::network) const FOR_EVER: Self =
        Self { preferred_until: Instant::FAR_FUTURE, valid_until: Instant::FAR_FUTURE };
}

/// How an address starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Start {
    /// It is ours, and there is nobody to be told.
    Settled,
    /// It is ours, and others are told so many times.
    Announce(u8),
    /// Others are asked first.
    Probe,
}

/// How far an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Others were asked so many times.
    Probing { sent: u8 },
    /// Another core asks, and this one hears the answer. It waits so many times more for some core to have asked before it does so
    /// itself.
    Listening { left: usize },
    /// It is ours, and others are to be told so many times more.
    Announcing { left: u8 },
    /// It is ours.
    Settled,
    /// It is somebody else's.
    Duplicate,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) prefix: Prefix,
    pub(super) origin: AddressOrigin,
    pub(super) on_link: bool,
    pub(super) progress: Progress,
    /// When the progress goes on; [`Instant::FAR_FUTURE`] when it does not.
    pub(super) due: Instant,
    pub(super) lifetime: Lifetime,
    pub(super) deprecated: bool,
    pub(super) defended_at: Option<Instant>,
}

impl Entry {
    pub(super) fn status(&self) -> AddressStatus {
        let state = match self.progress {
            Progress::Probing { .. } | Progress::Listening { .. } => AddressState::Tentative,
            Progress::Duplicate => AddressState::Duplicate,
            Progress::Announcing { .. } | Progress::Settled if self.deprecated => AddressState::Deprecated,
            Progress::Announcing { .. } | Progress::Settled => AddressState::Preferred,
        };
        AddressStatus {
            prefix: self.prefix,
            origin: self.origin,
            state,
            valid_until: self.lifetime.valid_until,
        }
    }

    /// When there is next something to be done.
    pub(super) fn deadline(&self) -> Instant {
        let preferred_until =
            if self.deprecated { Instant::FAR_FUTURE } else { self.lifetime.preferred_until };
        self.due.min(preferred_until).min(self.lifetime.valid_until)
    }
}
