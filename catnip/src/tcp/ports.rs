//! Local ports: who has bound which, and picking a free one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use libos::Error;

use crate::random::Random;
use crate::slab::Key;

/// The first port that is given out when the program names none.
pub(super) const EPHEMERAL_FIRST: u16 = 32_768;
const EPHEMERAL_COUNT: u32 = 65_536 - EPHEMERAL_FIRST as u32;

#[derive(Debug)]
struct Binding {
    address: IpAddr,
    listener: Option<Key>,
}

/// Bound ports. Looked at when a SYN comes and when a program binds, never for an established connection.
#[derive(Debug, Default)]
pub(super) struct Ports {
    bound: BTreeMap<u16, Vec<Binding>>,
}

fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

impl Ports {
    /// Takes the port for the address; port 0 picks a free one.
    pub(super) fn bind(&mut self, local: SocketAddr, random: &mut Random) -> Result<SocketAddr, Error> {
        let local = if local.port() == 0 {
            let free = ephemeral(random, |port| !self.is_bound(SocketAddr::new(local.ip(), port)));
            SocketAddr::new(local.ip(), free.ok_or(Error::AddressNotAvailable)?)
        } else {
            local
        };
        if self.is_bound(local) {
            return Err(Error::AddressInUse);
        }
        self.bound.entry(local.port()).or_default().push(Binding { address: local.ip(), listener: None });
        Ok(local)
    }

    /// True when the port is taken for an address that overlaps this one.
    pub(super) fn is_bound(&self, local: SocketAddr) -> bool {
        self.bound
            .get(&local.port())
            .is_some_and(|bindings| bindings.iter().any(|binding| overlap(binding.address, local.ip())))
    }

    /// Makes the bound port a listener's.
    pub(super) fn listen(&mut self, local: SocketAddr, listener: Key) {
        let bindings = self.bound.get_mut(&local.port());
        if let Some(binding) =
            bindings.and_then(|bindings| bindings.iter_mut().find(|binding| binding.address == local.ip()))
        {
            binding.listener = Some(listener);
        }
    }

    /// Gives the port back.
    pub(super) fn release(&mut self, local: SocketAddr) {
        if let Some(bindings) = self.bound.get_mut(&local.port()) {
            bindings.retain(|binding| binding.address != local.ip());
            if bindings.is_empty() {
                self.bound.remove(&local.port());
            }
        }
    }

    /// The listener for a destination: one on the very address before one on all addresses.
    pub(super) fn listener(&self, destination: SocketAddr) -> Option<Key> {
        let bindings = self.bound.get(&destination.port())?;
        let on = |wanted: fn(IpAddr, IpAddr) -> bool| {
            bindings
                .iter()
                .find(|binding| binding.listener.is_some() && wanted(binding.address, destination.ip()))
                .and_then(|binding| binding.listener)
        };
        on(|bound, wanted| bound == wanted)
            .or_else(|| on(|bound, wanted| bound.is_unspecified() && overlap(bound, wanted)))
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
            ports.bind(address(first), &mut random).unwrap();
            assert_eq!(ports.bind(address(second), &mut random).is_ok(), fits, "{first} then {second}");
        }
    }

    #[test]
    fn a_released_port_can_be_bound_again() {
        let mut random = Random::new(1);
        let mut ports = Ports::default();
        ports.bind(address("10.0.0.1:80"), &mut random).unwrap();
        ports.release(address("10.0.0.1:80"));
        assert!(ports.bind(address("0.0.0.0:80"), &mut random).is_ok());
    }

    #[test]
    fn the_listener_on_the_very_address_comes_before_the_wildcard() {
        let mut random = Random::new(1);
        let mut ports = Ports::default();
        let (one, all) = (Key { index: 1, generation: 1 }, Key { index: 2, generation: 1 });
        ports.bind(address("10.0.0.1:80"), &mut random).unwrap();
        ports.listen(address("10.0.0.1:80"), one);
        ports.bind(address("10.0.0.2:80"), &mut random).unwrap();
        ports.bind(address("0.0.0.0:81"), &mut random).unwrap();
        ports.listen(address("0.0.0.0:81"), all);
        assert_eq!(ports.listener(address("10.0.0.1:80")), Some(one));
        assert_eq!(ports.listener(address("10.0.0.2:80")), None);
        assert_eq!(ports.listener(address("10.0.0.9:81")), Some(all));
        assert_eq!(ports.listener(address("[fe80::1]:81")), None);
    }

    #[test]
    fn ephemeral_ports_run_out_with_an_error() {
        let mut random = Random::new(1);
        assert_eq!(ephemeral(&mut random, |_| false), None);
        assert_eq!(ephemeral(&mut random, |port| port == 40_000), Some(40_000));
    }
}
