//! The network layer: interface addresses, routes, neighbours, IP and ICMP.
//!
//! Frames come in through [`Network::receive`], which answers what concerns this layer alone and hands
//! up the rest. Transports send through [`Network::send`] along a [`Path`]. All that is to go out
//! gathers in [`Network::frames`].

mod address;
mod arp;
mod asking;
mod counters;
mod dhcp;
mod express;
mod fragment;
mod groups;
mod icmp_errors;
mod icmp_messages;
mod incoming;
mod interface;
mod ipv4;
mod ipv6;
mod lane;
mod ndp;
mod neighbor;
mod outgoing;
mod path;
mod plain;
mod prefix;
mod quoted;
mod rate_limit;
mod receive;
mod router;
mod send;
mod solicit;
mod straight;
mod upkeep;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;

use libos::metrics::MetricsSink;
use libos::runtime::{Capabilities, FrameBatch, Medium, RxFrame};
use libos::{Arena, Error, Instant, SetupError};

use address::AddressTable;
pub use address::{AddressOrigin, AddressState, AddressStatus, ConflictDetection};
use asking::Asking;
pub use counters::NetworkCounters;
use dhcp::DhcpClient;
pub use dhcp::{DhcpCounters, Lease};
pub(crate) use express::{PacketKind, Refusal, TransportHeader};
pub use fragment::FragmentConfig;
use fragment::{FragmentCache, Identifications};
use groups::Groups;
pub use groups::{FilterMode, SourceFilter};
pub use incoming::{DestinationKind, IcmpError, IcmpErrorKind, Ingress, Packet};
use interface::{Interface, NextHop};
use lane::Lanes;
pub(crate) use lane::{InLane, LaneEnd};
use neighbor::{Expiry, NeighborCache};
pub use neighbor::{NeighborConfig, NeighborCounters};
pub use outgoing::{HeaderBuffer, MAX_TRANSPORT_HEADER_BYTES, Outgoing, Payload, PieceList, Protocol};
use path::{Exit, Express};
pub use path::{Path, SendPolicy};
use plain::PlainFilter;
pub(crate) use plain::{Plain, PlainProtocol};
pub use prefix::{ParsePrefixError, ParseRouteError, Prefix, Route};
use quoted::LastHeader;
use rate_limit::TokenBucket;
use router::RouterDiscovery;
pub(crate) use straight::Straight;

use crate::random::Random;
use crate::stack::StackConfig;
use crate::wire::vlan::VlanId;

/// Neighbour timers served in one poll; what is due beyond that waits for the next, which
/// [`Network::next_deadline`] asks for at once.
const NEIGHBOR_TIMERS_PER_POLL: usize = 64;

/// Errors about neighbours that did not answer, kept until the transports take them. Beyond that
/// transports find out by their own timers.
const MAX_UNREPORTED_ERRORS: usize = 64;

/// Parts of packets hold at most one in so many bytes of memory, whatever the configuration allows.
const FRAGMENT_MEMORY_SHARE: usize = 16;

/// Answers to ARP requests and neighbour solicitations per second, and at once: far more than any link's hosts
/// ask for, and too few to make of us a source of floods.
const NEIGHBOR_ANSWERS_PER_SECOND: u32 = 2000;
const NEIGHBOR_ANSWERS_BURST: u32 = 200;

/// The hop limit of what this layer sends on its own account.
const HOP_LIMIT: u8 = 64;

/// One interface with its addresses, routes and neighbours.
#[derive(Debug)]
pub struct Network {
    device: Capabilities,
    vlan: Option<VlanId>,
    verify_checksums: bool,
    max_frames: usize,
    max_looped: usize,
    interface: Interface,
    /// What becomes of the interface's addresses over time.
    addresses: AddressTable,
    conflict_detection: ConflictDetection,
    /// What is known from routers, if they are listened to.
    routers: Option<Box<RouterDiscovery>>,
    /// What gets an IPv4 address from a server, if that is wanted.
    dhcp: Option<Box<DhcpClient>>,
    /// Largest IPv4 packet on the link, which a server may tell.
    mtu_v4: usize,
    /// Redirects are followed.
    redirects: bool,
    /// Largest IPv6 packet on the link, which routers may tell.
    mtu_v6: usize,
    /// The hop limit of what this layer sends by IPv6 on its own account, which routers may tell.
    hop_limit_v6: u8,
    /// When [`Self::poll`] next has something to do besides the neighbours' timers;
    /// [`Instant::FAR_FUTURE`] for never.
    upkeep_at: Instant,
    neighbors: NeighborCache,
    arena: Arena,
    frames: FrameBatch,
    /// Packets to our own addresses, without link header, oldest first.
    looped: VecDeque<RxFrame>,
    identifications: Identifications,
    fragments: FragmentCache,
    groups: Groups,
    icmp_errors: TokenBucket,
    neighbor_answers: TokenBucket,
    /// Errors that neighbours' silence gave rise to, oldest first.
    unreported: VecDeque<IcmpError>,
    /// The IP header of the packet handed up last, for quoting.
    last_header: LastHeader,
    plain: PlainFilter,
    lanes: Lanes,
    counters: NetworkCounters,
    /// Frames of the usual kind received, which count as such and as packets received and delivered.
    plain_in: u64,
    /// Packets sent with the headers of those before them, which count as such and as frames.
    express_out: u64,
}

impl Network {
    /// The network layer of a stack. Announces the stack's addresses on the link.
    ///
    /// # Errors
    /// As [`StackConfig::check`].
    pub fn new(
        config: &StackConfig,
        arena: Arena,
        random: &mut Random,
        now: Instant,
    ) -> Result<Self, SetupError> {
        config.check()?;
        let device = config.link();
        let memory_bytes = arena.stats().region_bytes;
        let asking = Asking::of(config.share.as_ref());
        let nonce = Asking::nonce(config, random);
        let mut network = Self {
            device,
            vlan: config.vlan,
            verify_checksums: config.verify_checksums,
            max_frames: config.transmit_queue_frames,
            max_looped: config.loop_queue_packets,
            interface: Interface::new(config),
            addresses: AddressTable::new(random.fork(), config.share.clone(), nonce),
            conflict_detection: config.conflict_detection,
            routers: config.router_discovery.then(|| {
                let hardware = device.hardware_address;
                Box::new(RouterDiscovery::new(hardware, config.address_secret, asking, random.fork(), now))
            }),
            dhcp: config.dhcp.then(|| {
                let Capabilities { hardware_address, mtu, .. } = device;
                Box::new(DhcpClient::new(hardware_address, mtu, asking, random.fork(), now))
            }),
            mtu_v4: device.mtu,
            redirects: config.redirects,
            mtu_v6: device.mtu,
            hop_limit_v6: HOP_LIMIT,
            upkeep_at: Instant::FAR_FUTURE,
            neighbors: NeighborCache::new(config.neighbor.clone(), random.fork(), now),
            arena,
            frames: FrameBatch::new(),
            looped: VecDeque::new(),
            identifications: Identifications::new(random),
            fragments: FragmentCache::new(&config.fragment, memory_bytes / FRAGMENT_MEMORY_SHARE),
            groups: Groups::new(random.fork()),
            icmp_errors: TokenBucket::new(config.icmp_errors_per_second, config.icmp_errors_burst, now),
            neighbor_answers: TokenBucket::new(NEIGHBOR_ANSWERS_PER_SECOND, NEIGHBOR_ANSWERS_BURST, now),
            unreported: VecDeque::new(),
            last_header: LastHeader::default(),
            plain: PlainFilter::NONE,
            lanes: Lanes::NONE,
            counters: NetworkCounters::default(),
            plain_in: 0,
            express_out: 0,
        };
        network.renew_plain_filter();
        network.start_addresses(config, now);
        Ok(network)
    }

    /// Route, source address and neighbour for `remote`. `local`, when it is given, must be one of this
    /// stack's addresses or unspecified.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] when `local` is not ours or no address of ours is of the
    /// destination's family, [`Error::NetworkUnreachable`] without a route, [`Error::InvalidArgument`]
    /// for an unspecified destination or addresses of unlike families.
    pub fn path(&mut self, _now: Instant, local: Option<IpAddr>, remote: IpAddr) -> Result<Path, Error> {
        let remote = remote.to_canonical();
        let local = local.map(|address| address.to_canonical()).filter(|address| !address.is_unspecified());
        if remote.is_unspecified() || local.is_some_and(|local| local.is_ipv4() != remote.is_ipv4()) {
            return Err(Error::InvalidArgument);
        }
        let dead = |router| self.neighbors.has_failed(router);
        let Some(next_hop) = self.interface.next_hop_around(remote, dead) else {
            self.counters.ip_out_no_routes += 1;
            return Err(Error::NetworkUnreachable);
        };
        let local = match local {
            Some(local) if self.interface.is_local(local) => local,
            Some(_) => return Err(Error::AddressNotAvailable),
            None => self.interface.source_for(remote, next_hop).ok_or(Error::AddressNotAvailable)?,
        };
        // RFC 1122 section 3.2.1.3 (g): loopback addresses never leave the host.
        if local.is_loopback() && next_hop != NextHop::Ourselves {
            return Err(Error::InvalidArgument);
        }
        let exit = match (next_hop, self.device.medium) {
            (NextHop::Ourselves, _) => Exit::Loop,
            (NextHop::Broadcast | NextHop::Group | NextHop::Neighbor(_), Medium::Ip) => Exit::Medium,
            (NextHop::Broadcast, Medium::Ethernet) => Exit::Fixed(crate::wire::ethernet::BROADCAST),
            (NextHop::Group, Medium::Ethernet) => Exit::Fixed(interface::group_hardware(remote)),
            (NextHop::Neighbor(next_hop), Medium::Ethernet) => {
                Exit::Neighbor { next_hop, key: self.neighbors.find(next_hop) }
            }
        };
        let identification = self.identifications.slot(remote);
        let mtu = self.link_mtu(remote);
        let generation = self.interface.generation();
        let (unconfirmed, express) = (false, Express::NONE);
        let policy = SendPolicy::default();
        Ok(Path { local, remote, mtu, policy, exit, identification, generation, unconfirmed, express })
    }

    /// Takes note that the destination of `path` has received what was sent to it, so that its
    /// neighbour need not be probed (RFC 4861 section 7.3.1). For transports that see acknowledgments.
    /// One question, except while the neighbour's address is in doubt.
    #[inline]
    pub fn confirm(&mut self, now: Instant, path: &mut Path) {
        if path.unconfirmed {
            self.confirm_neighbor(now, path);
        }
    }

    #[cold]
    fn confirm_neighbor(&mut self, now: Instant, path: &mut Path) {
        path.unconfirmed = false;
        if let Exit::Neighbor { key, .. } = path.exit {
            self.neighbors.confirm(now, key);
        }
    }

    /// True when nothing sent along `path` has left yet: its neighbour's address is not known.
    #[cold]
    #[must_use]
    pub fn awaits_neighbor(&self, path: &Path) -> bool {
        match path.exit {
            Exit::Neighbor { next_hop, .. } => self.neighbors.is_unresolved(next_hop),
            Exit::Fixed(_) | Exit::Medium | Exit::Loop => false,
        }
    }

    /// Serves the timers of neighbours and addresses. Bounded work.
    #[inline]
    pub fn poll(&mut self, now: Instant) {
        let due = now >= self.upkeep_at
            || self.neighbors.is_due(now)
            || now >= self.fragments.deadline()
            || now >= self.groups.deadline();
        if due {
            self.serve_timers(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn serve_timers(&mut self, now: Instant) {
        if now >= self.upkeep_at {
            self.upkeep(now);
        }
        for _ in 0..NEIGHBOR_TIMERS_PER_POLL {
            match self.neighbors.next_expired(now) {
                Some(Expiry::Ask { address, known }) => self.solicit(now, address, known),
                Some(Expiry::GaveUp { address, packets }) => {
                    self.interface.reconsider_routers();
                    self.report_unreachable(&packets);
                    self.on_neighbor_silence(address);
                }
                None => break,
            }
        }
        if now >= self.fragments.deadline() {
            self.expire_parts(now);
        }
        if now >= self.groups.deadline() {
            self.serve_groups(now);
        }
    }

    /// Takes the oldest packet that was sent to one of this stack's own addresses, as if it had just
    /// been received. `None` when there is none. Answers queue up behind it, so whoever empties the
    /// queue must do so in rounds: first [`Self::looped_packets`], then that many calls.
    pub fn receive_looped(&mut self, now: Instant) -> Option<Ingress> {
        let frame = self.looped.pop_front()?;
        Some(self.receive_from_ourselves(now, frame))
    }

    /// Packets that [`Self::receive_looped`] has.
    #[must_use]
    #[inline]
    pub fn looped_packets(&self) -> usize {
        self.looped.len()
    }

    /// Takes the oldest error that this stack itself found out about: a neighbour that does not answer.
    pub fn next_error(&mut self) -> Option<IcmpError> {
        self.unreported.pop_front()
    }

    /// True when there are looped packets or errors to be taken.
    #[must_use]
    #[inline]
    pub fn needs_poll(&self) -> bool {
        !self.looped.is_empty() || !self.unreported.is_empty()
    }

    /// When [`Self::poll`] next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let others = Some(self.groups.deadline().min(self.fragments.deadline()).min(self.upkeep_at));
        match (self.neighbors.next_deadline(), others.filter(|at| *at < Instant::FAR_FUTURE)) {
            (Some(neighbors), Some(others)) => Some(neighbors.min(others)),
            (deadline, None) | (None, deadline) => deadline,
        }
    }

    /// What the device's frames begin with.
    pub(crate) const fn medium(&self) -> Medium {
        self.device.medium
    }

    /// Frames to be sent, oldest first.
    #[inline]
    pub fn frames(&mut self) -> &mut FrameBatch {
        &mut self.frames
    }

    /// Frames that wait for the device.
    #[must_use]
    #[inline]
    pub fn queued_frames(&self) -> usize {
        self.frames.len()
    }

    /// True when so many frames wait for the device that nothing more is sent until it takes some.
    #[must_use]
    #[inline]
    pub fn transmit_queue_is_full(&self) -> bool {
        self.frames.len() >= self.max_frames
    }

    /// Where headers and copies are allocated.
    #[must_use]
    #[inline]
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The hop limit of what this layer sends on its own account.
    fn hop_limit(&self, remote: IpAddr) -> u8 {
        if remote.is_ipv6() { self.hop_limit_v6 } else { HOP_LIMIT }
    }

    /// True for this stack's addresses and for loopback ones: those a socket can be bound to.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.interface.is_local(address)
    }

    /// True for addresses that everybody on the link listens to.
    #[must_use]
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        self.interface.is_broadcast(address)
    }

    /// Largest IP packet that the link carries towards `remote`, in bytes.
    #[must_use]
    pub const fn link_mtu(&self, remote: IpAddr) -> usize {
        if remote.is_ipv6() { self.mtu_v6 } else { self.mtu_v4 }
    }

    /// This stack's addresses, those included that are not ours yet, or not to be ours.
    pub fn addresses(&self) -> impl Iterator<Item = AddressStatus> {
        self.addresses.statuses()
    }

    /// Largest TCP payload of one frame that the device cuts into segments itself, in bytes; 0 for none.
    #[must_use]
    #[inline]
    pub fn tcp_segmentation_bytes(&self) -> usize {
        self.device.tcp_segmentation_bytes
    }

    /// Most pieces of payload in one packet that are sent without being copied together.
    #[must_use]
    #[inline]
    pub fn max_pieces(&self) -> usize {
        self.device.max_segments.saturating_sub(1).clamp(1, PieceList::new_const().capacity())
    }

    /// What this layer has seen.
    #[must_use]
    pub fn counters(&self) -> NetworkCounters {
        let Self { plain_in, express_out, mut counters, .. } = *self;
        counters.link_in_frames += plain_in;
        counters.ip_in_receives += plain_in;
        counters.ip_in_delivers += plain_in;
        counters.ip_out_requests += express_out;
        counters.link_out_frames += express_out;
        counters
    }

    /// What the neighbour cache has seen.
    #[must_use]
    pub fn neighbor_counters(&self) -> &NeighborCounters {
        self.neighbors.counters()
    }

    /// Writes all counters.
    pub fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.enter("network");
        self.counters().write(sink);
        sink.gauge("looped_packets", self.looped.len() as u64);
        sink.gauge("queued_frames", self.frames.len() as u64);
        sink.gauge("reassembling_packets", self.fragments.len() as u64);
        sink.gauge("reassembling_bytes", self.fragments.held_bytes() as u64);
        sink.gauge("addresses", self.addresses.statuses().count() as u64);
        sink.gauge("awaits_addresses", u64::from(self.awaits_addresses()));
        sink.gauge("routers", self.routers.as_ref().map_or(0, |routers| routers.len()) as u64);
        sink.gauge("ipv6_hop_limit", self.hop_limit_v6.into());
        sink.gauge("ipv4_mtu", self.mtu_v4 as u64);
        sink.gauge("ipv6_mtu", self.mtu_v6 as u64);
        sink.gauge("groups", self.groups.len() as u64);
        self.write_dhcp_metrics(sink);
        sink.enter("neighbors");
        self.neighbors.counters().write(sink);
        sink.gauge("entries", self.neighbors.len() as u64);
        sink.leave();
        sink.leave();
    }
}
