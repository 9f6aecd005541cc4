//! Which addresses some core has asked the link about: where none has, because the one that does so has stopped polling, another one asks.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Addresses that are noted at a time: more than a stack has. One too many is not noted, and each core asks by itself.
const PLACES: usize = 64;

/// A set of addresses in which cores look by loads alone. Written a few times in an address's life.
#[derive(Debug)]
pub(super) struct AskedAddresses([AtomicU64; PLACES]);

impl AskedAddresses {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; PLACES])
    }

    pub(super) fn note(&self, address: IpAddr) {
        let mark = mark(address);
        if self.contains(address) {
            return;
        }
        for place in &self.0 {
            if place.compare_exchange(0, mark, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    pub(super) fn forget(&self, address: IpAddr) {
        let mark = mark(address);
        for place in &self.0 {
            let _ = place.compare_exchange(mark, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let mark = mark(address);
        self.0.iter().any(|place| place.load(Ordering::Acquire) == mark)
    }
}

/// What stands for an address: never 0. Addresses of one host with the same mark would be a matter of one in 2⁶³.
fn mark(address: IpAddr) -> u64 {
    /// The golden ratio's digits: odd, and without a pattern.
    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let number = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    (number.wrapping_mul(SPREAD) >> 64) as u64 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_noted_once_and_forgotten_and_a_full_set_takes_no_more() {
        let set = AskedAddresses::new();
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let six: IpAddr = "fd00::1".parse().unwrap();
        for _ in 0..2 * PLACES {
            set.note(six);
        }
        (1..=PLACES as u8).for_each(|last| set.note(address(last)));
        assert!(set.contains(six) && set.contains(address(1)));
        assert!(!set.contains(address(PLACES as u8)), "there is no place for it");
        set.forget(six);
        set.note(address(PLACES as u8));
        assert!(!set.contains(six) && set.contains(address(PLACES as u8)));
    }
}
