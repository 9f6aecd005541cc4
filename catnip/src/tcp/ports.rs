//! Local ports: who has bound which, and picking a free one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libos::Error;

use super::config::Reuse;
use crate::random::Random;
use crate::slab::Key;
use crate::steering::{CoreShare, Transport};

/// The first port that is given out when the program names none.
pub(super) const EPHEMERAL_FIRST: u16 = 32_768;
const EPHEMERAL_COUNT: u32 = 65_536 - EPHEMERAL_FIRST as u32;

/// A bound local address and port, told apart from others on the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reservation {
    pub local: SocketAddr,
    id: u64,
}

#[derive(Debug)]
struct Binding {
    id: u64,
    address: IpAddr,
    reuse: Reuse,
    listener: Option<Key>,
}

impl Binding {
    /// True when a further socket may not have the port (compare Linux's `SO_REUSEADDR` and `SO_REUSEPORT`).
    fn excludes(&self, address: IpAddr, reuse: Reuse) -> bool {
        let shared = (self.reuse.port && reuse.port)
            || (self.reuse.address && reuse.address && self.listener.is_none());
        overlap(self.address, address) && !shared
    }
}

/// Bound ports. Looked at when a SYN comes and when a program binds, never for an established connection.
#[derive(Debug, Default)]
pub(super) struct Ports {
    bound: BTreeMap<u16, Vec<Binding>>,
    last_id: u64,
    /// When several cores share the device: who of them has which port.
    share: Option<CoreShare>,
}

fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

impl Ports {
    /// No port bound.
    pub(super) fn new(share: Option<CoreShare>) -> Self {
        Self { share, ..Self::default() }
    }

    /// True when what `remote` sends to `local` comes to this core.
    pub(super) fn is_home(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.share.as_ref().is_none_or(|share| share.is_home(local, remote))
    }

    /// Takes the port for the address; port 0 picks one that nobody has.
    pub(super) fn bind(
        &mut self,
        local: SocketAddr,
        reuse: Reuse,
        random: &mut Random,
    ) -> Result<Reservation, Error> {
        let local = if local.port() == 0 {
            // Whoever sends there must find this core, so no other one may have the port.
            let is_free = |port| {
                !self.is_bound(SocketAddr::new(local.ip(), port))
                    && self.share.as_ref().is_none_or(|share| share.take_unused_port(Transport::Tcp, port))
            };
            let free = ephemeral(random, is_free);
            SocketAddr::new(local.ip(), free.ok_or(Error::AddressNotAvailable)?)
        } else {
            local
        };
        let bindings = self.bound.entry(local.port()).or_default();
        if bindings.iter().any(|binding| binding.excludes(local.ip(), reuse)) {
            return Err(Error::AddressInUse);
        }
        if let Some(share) = &self.share {
            share.take_port(Transport::Tcp, local.port());
        }
        self.last_id += 1;
        bindings.push(Binding { id: self.last_id, address: local.ip(), reuse, listener: None });
        Ok(Reservation { local, id: self.last_id })
    }

    /// True when the port is taken for an address that overlaps this one.
    pub(super) fn is_bound(&self, local: SocketAddr) -> bool {
        self.bound
            .get(&local.port())
            .is_some_and(|bindings| bindings.iter().any(|binding| overlap(binding.address, local.ip())))
    }

    /// True when the bound port may become a listener's: no other one listens that does not share it.
    pub(super) fn may_listen(&self, reservation: Reservation) -> bool {
        let bindings = self.bound.get(&reservation.local.port()).map_or(&[][..], Vec::as_slice);
        let Some(own) = bindings.iter().find(|binding| binding.id == reservation.id) else { return false };
        bindings.iter().all(|other| {
            other.id == own.id
                || other.listener.is_none()
                || !overlap(other.address, own.address)
                || (other.reuse.port && own.reuse.port)
        })
    }

    /// Makes the bound port a listener's.
    pub(super) fn listen(&mut self, reservation: Reservation, listener: Key) {
        let bindings = self.bound.get_mut(&reservation.local.port());
        if let Some(binding) =
            bindings.and_then(|bindings| bindings.iter_mut().find(|binding| binding.id == reservation.id))
        {
            binding.listener = Some(listener);
        }
    }

    /// Gives the port back.
    pub(super) fn release(&mut self, reservation: Reservation) {
        if let Some(bindings) = self.bound.get_mut(&reservation.local.port()) {
            // The connections of a listener that is gone still have its port: other cores go on asking this one.
            let listened = bindings.iter().any(|binding| binding.listener.is_some());
            bindings.retain(|binding| binding.id != reservation.id);
            if bindings.is_empty() {
                if let Some(share) = self.share.as_ref().filter(|_| !listened) {
                    share.leave_port(Transport::Tcp, reservation.local.port());
                }
                self.bound.remove(&reservation.local.port());
            }
        }
    }

    /// The listener for a destination: one on the very address before one on all addresses. Of several that
    /// share the port, the one that `hash` points at, which should be uniform and the same for the same peer.
    pub(super) fn listener(&self, destination: SocketAddr, hash: impl FnOnce() -> u32) -> Option<Key> {
        let bindings = self.bound.get(&destination.port())?;
        let on = |address: IpAddr| {
            let here = bindings.iter().filter(move |binding| binding.address == address);
            here.filter_map(|binding| binding.listener)
        };
        let any = match destination {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let address = if on(destination.ip()).next().is_some() { destination.ip() } else { any };
        match on(address).count() {
            0 | 1 => on(address).next(),
            // The upper half of a product of 32 bits each: below the count.
            count => on(address).nth(((u64::from(hash()) * count as u64) >> 32) as usize),
        }
    }
}

/// A free port, beginning the search at a random one (RFC 6056, section 3.3.1).
pub(super) fn ephemeral(random: &mut Random, mut is_free: impl FnMut(u16) -> bool) -> Option<u16> {
    let start = random.next_u32() % EPHEMERAL_COUNT;
    (0..EPHEMERAL_COUNT)
        .filter_map(|step| u16::try_from(u32::from(EPHEMERAL_FIRST) + (start + step) % EPHEMERAL_COUNT).ok())
        .find(|&port| is_free(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const ALONE: Reuse = Reuse { address: false, port: false };
    const ADDRESS: Reuse = Reuse { address: true, port: false };
    const PORT: Reuse = Reuse { address: false, port: true };

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    #[test]
    fn overlapping_bindings_are_refused_and_others_are_not() {
        let cases = [
            ("10.0.0.1:80", "10.0.0.1:80", false),
            ("10.0.0.1:80", "0.0.0.0:80", false),
            ("0.0.0.0:80", "10.0.0.1:80", false),
            ("10.0.0.1:80", "10.0.0.2:80", true),
            ("10.0.0.1:80", "10.0.0.1:81", true),
            ("0.0.0.0:80", "[::]:80", true),
        ];
        for (first, second, fits) in cases {
            let mut random = Random::new(1);
            let mut ports = Ports::default();
            ports.bind(address(first), ALONE, &mut random).unwrap();
            let result = ports.bind(address(second), ALONE, &mut random);
            assert_eq!(result.is_ok(), fits, "{first} then {second}");
        }
    }

    #[test]
    fn a_port_is_shared_by_those_who_agree_to() {
        for (first, listens, second, fits) in [
            (ADDRESS, false, ADDRESS, true),
            (ADDRESS, true, ADDRESS, false),
            (ADDRESS, false, ALONE, false),
            (ALONE, false, ADDRESS, false),
            (PORT, true, PORT, true),
            (PORT, false, PORT, true),
            (PORT, true, ADDRESS, false),
            (ALONE, true, PORT, false),
        ] {
            let mut random = Random::new(1);
            let mut ports = Ports::default();
            let bound = ports.bind(address("10.0.0.1:80"), first, &mut random).unwrap();
            if listens {
                ports.listen(bound, key(1));
            }
            let result = ports.bind(address("0.0.0.0:80"), second, &mut random);
            assert_eq!(result.is_ok(), fits, "{first:?} {listens} {second:?}");
        }
    }

    #[test]
    fn of_two_with_one_address_only_one_listens() {
        let mut random = Random::new(1);
        let mut ports = Ports::default();
        let first = ports.bind(address("10.0.0.1:80"), ADDRESS, &mut random).unwrap();
        let second = ports.bind(address("10.0.0.1:80"), ADDRESS, &mut random).unwrap();
        assert!(ports.may_listen(first) && ports.may_listen(second));
        ports.listen(first, key(1));
        assert!(!ports.may_listen(second));
        ports.release(first);
        assert!(ports.may_listen(second));
    }

    #[test]
    fn listeners_that_share_a_port_are_chosen_by_the_hash() {
        let mut random = Random::new(1);
        let mut ports = Ports::default();
        for index in 0..4 {
            let bound = ports.bind(address("0.0.0.0:80"), PORT, &mut random).unwrap();
            ports.listen(bound, key(index));
        }
        for index in 0..4_u32 {
            let hash = index << 30 | 12_345;
            assert_eq!(ports.listener(address("10.0.0.1:80"), || hash), Some(key(index)));
        }
    }

    #[test]
    fn a_released_port_can_be_bound_again() {
        let mut random = Random::new(1);
        let mut ports = Ports::default();
        let bound = ports.bind(address("10.0.0.1:80"), ALONE, &mut random).unwrap();
        ports.release(bound);
        assert!(ports.bind(address("0.0.0.0:80"), ALONE, &mut random).is_ok());
    }

    #[test]
    fn the_listener_on_the_very_address_comes_before_the_wildcard() {
        let mut random = Random::new(1);
        let mut ports = Ports::default();
        let first = ports.bind(address("10.0.0.1:80"), ALONE, &mut random).unwrap();
        ports.listen(first, key(1));
        ports.bind(address("10.0.0.2:80"), ALONE, &mut random).unwrap();
        let all = ports.bind(address("0.0.0.0:81"), ALONE, &mut random).unwrap();
        ports.listen(all, key(2));
        let listener = |at: &str| ports.listener(address(at), || 0);
        assert_eq!(listener("10.0.0.1:80"), Some(key(1)));
        assert_eq!(listener("10.0.0.2:80"), None);
        assert_eq!(listener("10.0.0.9:81"), Some(key(2)));
        assert_eq!(listener("[fe80::1]:81"), None);
    }

    #[test]
    fn ephemeral_ports_run_out_with_an_error() {
        let mut random = Random::new(1);
        assert_eq!(ephemeral(&mut random, |_| false), None);
        assert_eq!(ephemeral(&mut random, |port| port == 40_000), Some(40_000));
    }
}
