//! What this layer does of its own accord as time goes by: getting, telling and giving up addresses.

use std::net::IpAddr;

use libos::Instant;
use libos::runtime::Medium;

use super::address::{AddressOrigin, AddressState, Lifetime, Reaction, Start, Step, announcements};
use super::{ConflictDetection, Network, Prefix};
use crate::stack::StackConfig;
use crate::wire::ndp::solicited_node;

/// Steps taken in one poll; further ones wait for the next, which is asked for at once.
const STEPS_PER_POLL: usize = 64;

impl Network {
    /// Takes up the addresses of a checked configuration.
    pub(super) fn start_addresses(&mut self, config: &StackConfig, now: Instant) {
        let configured = config.addresses.len();
        for (index, prefix) in config.own_addresses().enumerate() {
            let origin = if index < configured { AddressOrigin::Static } else { AddressOrigin::LinkLocal };
            let added = self.start_address(now, prefix, origin, true, Lifetime::FOR_EVER);
            debug_assert!(added, "the configuration was not checked");
        }
        self.upkeep(now);
    }

    /// Makes an address ours, at once or when it is known that nobody else has it. False when there are too
    /// many, or when it is ours already.
    pub(super) fn start_address(
        &mut self,
        now: Instant,
        prefix: Prefix,
        origin: AddressOrigin,
        on_link: bool,
        lifetime: Lifetime,
    ) -> bool {
        let start = match (self.device.medium, self.conflict_detection) {
            (Medium::Ip, _) => Start::Settled,
            (Medium::Ethernet, mode) if mode.probes(origin) => Start::Probe,
            (Medium::Ethernet, ConflictDetection::Off) => Start::Announce(1),
            (Medium::Ethernet, ConflictDetection::Defend | ConflictDetection::Probe) => {
                Start::Announce(announcements(prefix.address))
            }
        };
        if !self.addresses.add(now, prefix, origin, on_link, start, lifetime) {
            return false;
        }
        self.set_upkeep();
        if let (Medium::Ethernet, IpAddr::V6(address)) = (self.device.medium, prefix.address) {
            // RFC 4862 section 5.4.2: before others are asked. There are more groups than addresses, except
            // when the program took them all; then others do not find the address, as with any full table.
            let _ = self.join_group(now, solicited_node(address).into());
        }
        match start {
            Start::Probe => {}
            Start::Settled | Start::Announce(_) => {
                self.interface.assign(prefix, on_link);
                self.addresses_changed();
            }
        }
        true
    }

    /// True while addresses are being got or probed: until then something of what was configured cannot be used.
    #[must_use]
    pub fn awaits_addresses(&self) -> bool {
        let has = |origin: AddressOrigin| {
            self.addresses.statuses().any(|status| {
                status.origin == origin
                    && matches!(status.state, AddressState::Preferred | AddressState::Deprecated)
            })
        };
        self.addresses.statuses().any(|status| status.state == AddressState::Tentative)
            || self.dhcp.is_some() && !has(AddressOrigin::Leased)
            || self.routers.is_some() && !has(AddressOrigin::Formed)
    }

    /// Does what is due. Bounded work.
    #[cold]
    #[inline(never)]
    pub(super) fn upkeep(&mut self, now: Instant) {
        for _ in 0..STEPS_PER_POLL {
            match self.addresses.next_step(now) {
                Some(step) => self.take_step(now, step),
                None => break,
            }
        }
        self.upkeep_routers(now);
        self.upkeep_dhcp(now);
        self.set_upkeep();
    }

    /// Finds out when there is next something to be done.
    pub(super) fn set_upkeep(&mut self) {
        let routers = self.routers.as_ref().map_or(Instant::FAR_FUTURE, |routers| routers.next_deadline());
        let dhcp = self.dhcp.as_ref().map_or(Instant::FAR_FUTURE, |client| client.next_deadline());
        self.upkeep_at = self.addresses.next_deadline().min(routers).min(dhcp);
    }

    fn take_step(&mut self, now: Instant, step: Step) {
        match step {
            Step::Probe(IpAddr::V4(address)) => self.probe_arp(address),
            Step::Probe(IpAddr::V6(address)) => self.probe_ndp(now, address),
            Step::Assign { prefix, on_link, deprecated } => {
                self.interface.assign(prefix, on_link);
                self.interface.set_deprecated(prefix.address, deprecated);
                self.addresses_changed();
            }
            Step::Announce(IpAddr::V4(address)) => self.announce_arp(address),
            Step::Announce(IpAddr::V6(address)) => self.announce_ndp(now, address),
            Step::Deprecate(address) => self.interface.set_deprecated(address, true),
            Step::Expire(status) => {
                if let Some(discovery) = &mut self.routers {
                    discovery.forget(status.prefix.address);
                }
                self.drop_address(now, status.prefix.address);
            }
        }
    }

    /// An address is ours no longer.
    pub(super) fn drop_address(&mut self, now: Instant, address: IpAddr) {
        self.addresses.remove(address);
        self.interface.withdraw(address);
        self.addresses_changed();
        if let (Medium::Ethernet, IpAddr::V6(address)) = (self.device.medium, address) {
            let _ = self.leave_group(now, solicited_node(address).into());
        }
    }

    /// Somebody else claims an address of ours, or one that was to be ours.
    #[cold]
    pub(super) fn on_address_conflict(&mut self, now: Instant, address: IpAddr) {
        self.counters.address_conflicts += 1;
        if self.conflict_detection == ConflictDetection::Off {
            return;
        }
        match self.addresses.conflict(now, address) {
            Reaction::Ignore => {}
            Reaction::Defend => match address {
                IpAddr::V4(address) => self.announce_arp(address),
                IpAddr::V6(_) => {}
            },
            Reaction::Duplicate(origin) => {
                self.counters.address_duplicates += 1;
                match (origin, address) {
                    (AddressOrigin::Formed, IpAddr::V6(address)) => self.replace_formed_address(now, address),
                    (AddressOrigin::Leased, IpAddr::V4(address)) => {
                        self.on_leased_address_conflict(now, address);
                    }
                    // The entry stays, so that the program can see what became of the address.
                    (
                        AddressOrigin::Static
                        | AddressOrigin::LinkLocal
                        | AddressOrigin::Formed
                        | AddressOrigin::Leased,
                        _,
                    ) => {}
                }
            }
            Reaction::GiveUp => {
                self.counters.address_duplicates += 1;
                match address {
                    IpAddr::V4(address) => self.on_leased_address_conflict(now, address),
                    IpAddr::V6(_) => self.drop_address(now, address),
                }
            }
        }
        self.set_upkeep();
    }
}
