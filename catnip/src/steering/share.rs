//! Which core a flow and a port belong to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::asked::AskedAddresses;
use super::toeplitz::{HashKey, Toeplitz};

/// Most cores that share a device.
pub const MAX_CORES: usize = 63;

/// Entries of the table from hashes to cores, which are dealt out in turn: what network cards and their drivers
/// start with.
pub(super) const TABLE_ENTRIES: u32 = 128;

/// Marks a port that was found to be used by some cores and not by others, beside the cores' bits.
const UNEVEN: u64 = 1 << MAX_CORES;

const PORTS: usize = 1 << 16;

/// The transports that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Which cores use which local ports. Written when a program binds or closes, read for packets: a load of a line that
/// nobody writes meanwhile.
#[derive(Debug)]
struct Directory {
    tcp: Box<[AtomicU64]>,
    udp: Box<[AtomicU64]>,
}

impl Directory {
    fn new() -> Self {
        let table = || (0..PORTS).map(|_| AtomicU64::new(0)).collect();
        Self { tcp: table(), udp: table() }
    }

    #[inline]
    fn entry(&self, transport: Transport, port: u16) -> &AtomicU64 {
        let table = match transport {
            Transport::Tcp => &self.tcp,
            Transport::Udp => &self.udp,
        };
        // The tables have an entry for each port.
        &table[usize::from(port)]
    }
}

/// One core's part of a device that several share: its number, how flows are spread, who has which port, and which addresses
/// were asked about.
#[derive(Debug, Clone)]
pub struct CoreShare {
    core: usize,
    cores: usize,
    hash: Arc<Toeplitz>,
    directory: Arc<Directory>,
    asked: Arc<AskedAddresses>,
}

impl PartialEq for CoreShare {
    /// The same core of the same device.
    fn eq(&self, other: &Self) -> bool {
        self.core == other.core && Arc::ptr_eq(&self.directory, &other.directory)
    }
}

impl Eq for CoreShare {}

/// What is known about a port when a packet to it arrives at the core that its flow belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortUse {
    /// No other core can have anything to do with it.
    Ours,
    /// Another core may have the connection or the socket.
    Doubtful,
}

impl CoreShare {
    /// The parts of all cores, 1 to [`MAX_CORES`] of them; more are cut off.
    #[must_use]
    pub fn split(cores: usize, key: HashKey) -> Vec<Self> {
        let cores = cores.clamp(1, MAX_CORES);
        let first = Self {
            core: 0,
            cores,
            hash: Arc::new(Toeplitz::new(key)),
            directory: Arc::new(Directory::new()),
            asked: Arc::new(AskedAddresses::new()),
        };
        (0..cores).map(|core| Self { core, ..first.clone() }).collect()
    }

    /// The table from hashes to so many cores, for a device that has one: the core of each remainder that a hash leaves
    /// when it is divided by the table's length.
    pub fn table(cores: usize) -> impl Iterator<Item = usize> {
        (0..TABLE_ENTRIES as usize).map(move |entry| entry % cores.clamp(1, MAX_CORES))
    }

    /// This core's number, from 0 on.
    #[must_use]
    pub const fn core(&self) -> usize {
        self.core
    }

    /// How many cores there are.
    #[must_use]
    pub const fn cores(&self) -> usize {
        self.cores
    }

    /// The hash that spreads the flows.
    #[must_use]
    pub fn hash(&self) -> &Toeplitz {
        &self.hash
    }

    /// The core that packets of this hash belong to.
    #[must_use]
    #[inline]
    pub fn core_of_hash(&self, hash: u32) -> usize {
        (hash % TABLE_ENTRIES) as usize % self.cores
    }

    /// The core that packets from `remote` to `local` belong to.
    #[must_use]
    pub fn core_of_flow(&self, local: SocketAddr, remote: SocketAddr) -> usize {
        self.core_of_hash(self.hash.flow(remote.ip(), remote.port(), local.ip(), local.port()))
    }

    /// True when packets from `remote` to `local` come to this core.
    #[must_use]
    pub fn is_home(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.core_of_flow(local, remote) == self.core
    }

    /// Notes that this core has asked whether somebody has the address: all cores hear the answer.
    pub(crate) fn note_asked(&self, address: IpAddr) {
        self.asked.note(address);
    }

    /// Notes that what was asked about the address counts no more.
    pub(crate) fn forget_asked(&self, address: IpAddr) {
        self.asked.forget(address);
    }

    /// True when some core has asked whether somebody has the address.
    pub(crate) fn was_asked(&self, address: IpAddr) -> bool {
        self.asked.contains(address)
    }

    const fn bit(&self) -> u64 {
        1 << self.core
    }

    /// Notes that this core uses the port, whatever others do.
    pub(crate) fn take_port(&self, transport: Transport, port: u16) {
        // Release: whoever finds the bit and hands a packet over does so after this; nothing else is ordered by it.
        self.directory.entry(transport, port).fetch_or(self.bit(), Ordering::Release);
    }

    /// Notes that this core uses the port, unless another one does; false then.
    // Expanded where many ports are tried, its masks would be made in front of the loop, of a share that need not be there:
    // harmless, but valgrind takes the shift for a use of what nobody wrote.
    #[inline(never)]
    pub(crate) fn take_unused_port(&self, transport: Transport, port: u16) -> bool {
        let take = |cores: u64| (cores & !(UNEVEN | self.bit()) == 0).then_some(cores | self.bit());
        let entry = self.directory.entry(transport, port);
        entry.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Notes that this core uses the port no more.
    pub(crate) fn leave_port(&self, transport: Transport, port: u16) {
        self.directory.entry(transport, port).fetch_and(!self.bit(), Ordering::Release);
    }

    /// What there is to think about for a packet that is at its flow's core.
    #[inline]
    pub(super) fn port_use(&self, transport: Transport, port: u16) -> PortUse {
        let cores = self.directory.entry(transport, port).load(Ordering::Relaxed);
        let others = cores & !(UNEVEN | self.bit());
        if others == 0 || (cores & self.bit() != 0 && cores & UNEVEN == 0) {
            PortUse::Ours
        } else {
            PortUse::Doubtful
        }
    }

    /// The cores that use the port, a bit for each.
    #[inline]
    pub(super) fn users(&self, transport: Transport, port: u16) -> u64 {
        self.directory.entry(transport, port).load(Ordering::Acquire) & !UNEVEN
    }

    /// The core to ask next about a packet that the cores in `asked` know nothing of: of several one that the hash
    /// points at. From then on the port's packets are looked at closely. `None` when all were asked.
    pub(super) fn next_user(&self, transport: Transport, port: u16, hash: u32, asked: u64) -> Option<usize> {
        let left = self.users(transport, port) & !asked & !self.bit();
        let count = left.count_ones();
        if count == 0 {
            return None;
        }
        let entry = self.directory.entry(transport, port);
        if entry.load(Ordering::Relaxed) & UNEVEN == 0 {
            entry.fetch_or(UNEVEN, Ordering::Release);
        }
        bits(left).nth((hash % count) as usize)
    }

    /// Forgets all ports of this core: it is going.
    pub(super) fn leave_all_ports(&self) {
        for entry in self.directory.tcp.iter().chain(&self.directory.udp) {
            if entry.load(Ordering::Relaxed) & self.bit() != 0 {
                entry.fetch_and(!self.bit(), Ordering::Release);
            }
        }
    }
}

/// The numbers of the bits that are set.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(lowest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cores_agree_on_whose_a_flow_is_and_get_about_as_many() {
        let shares = CoreShare::split(3, HashKey::SYMMETRIC);
        let local: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let mut flows = [0; 3];
        for port in 40_000..43_000 {
            let remote = SocketAddr::new("10.0.0.2".parse().unwrap(), port);
            let homes: Vec<_> = shares.iter().filter(|share| share.is_home(local, remote)).collect();
            assert_eq!(homes.len(), 1);
            flows[homes[0].core()] += 1;
        }
        assert!(flows.iter().all(|&flows| (800..1200).contains(&flows)), "{flows:?}");
    }

    #[test]
    fn a_device_with_the_table_chooses_the_same_cores() {
        let share = &CoreShare::split(5, HashKey::SYMMETRIC)[0];
        let table: Vec<usize> = CoreShare::table(5).collect();
        for hash in (0..u32::MAX).step_by(0x0123_4567) {
            assert_eq!(table[hash as usize % table.len()], share.core_of_hash(hash));
        }
    }

    #[test]
    fn a_port_is_doubtful_where_it_is_not_used_and_after_it_was_found_uneven() {
        let shares = CoreShare::split(3, HashKey::SYMMETRIC);
        let uses = || [0, 1, 2].map(|core: usize| shares[core].port_use(Transport::Tcp, 80));
        assert_eq!(uses(), [PortUse::Ours; 3]);
        shares[1].take_port(Transport::Tcp, 80);
        assert_eq!(uses(), [PortUse::Doubtful, PortUse::Ours, PortUse::Doubtful]);
        assert_eq!(shares[0].next_user(Transport::Tcp, 80, 7, 0), Some(1));
        assert_eq!(shares[1].next_user(Transport::Tcp, 80, 7, 1), None, "all were asked");
        for core in [0, 2] {
            shares[core].take_port(Transport::Tcp, 80);
        }
        // Connections from before may be where their flow does not belong.
        assert_eq!(uses(), [PortUse::Doubtful; 3]);
        assert_eq!(shares[0].port_use(Transport::Udp, 80), PortUse::Ours);
        shares.iter().for_each(CoreShare::leave_all_ports);
        assert_eq!(uses(), [PortUse::Ours; 3]);
    }

    #[test]
    fn the_hash_chooses_among_several_cores_and_none_is_asked_twice() {
        let shares = CoreShare::split(4, HashKey::SYMMETRIC);
        shares[1..].iter().for_each(|share| share.take_port(Transport::Udp, 53));
        let next = |hash, asked| shares[0].next_user(Transport::Udp, 53, hash, asked);
        assert_eq!([next(0, 0), next(1, 0), next(2, 0), next(3, 0)], [Some(1), Some(2), Some(3), Some(1)]);
        assert_eq!([next(0, 0b0010), next(1, 0b0010), next(0, 0b1110)], [Some(2), Some(3), None]);
    }

    #[test]
    fn an_unused_port_goes_to_one_core() {
        let shares = CoreShare::split(2, HashKey::SYMMETRIC);
        assert!(shares[0].take_unused_port(Transport::Udp, 50_000));
        assert!(shares[0].take_unused_port(Transport::Udp, 50_000));
        assert!(!shares[1].take_unused_port(Transport::Udp, 50_000));
        shares[0].leave_port(Transport::Udp, 50_000);
        assert!(shares[1].take_unused_port(Transport::Udp, 50_000));
    }
}
