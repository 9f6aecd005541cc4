//! Carrying out what the client wants.

use std::net::{IpAddr, Ipv4Addr};

use libos::Instant;
use libos::metrics::MetricsSink;
use libos::runtime::Medium;

use super::Lease;
use super::client::{Action, Destination};
use crate::network::address::{AddressOrigin, Lifetime};
use crate::network::fragment::IdentificationSlot;
use crate::network::interface::RouteOrigin;
use crate::network::path::{Exit, Express, SendPolicy};
use crate::network::{
    DhcpCounters, HOP_LIMIT, HeaderBuffer, Network, Outgoing, Packet, Path, Payload, Prefix, Protocol, Route,
};
use crate::wire::dhcp::{CLIENT_PORT, ClientMessage, SERVER_PORT, ServerMessage};
use crate::wire::ethernet;
use crate::wire::udp::{self, UdpHeader};

/// Smallest MTU that a server can make us use: what every host takes (RFC 791 section 3.1).
const MIN_MTU: usize = 576;
/// Actions of the client in one poll; it never has more in a row.
const ACTIONS_PER_POLL: usize = 4;

impl Network {
    /// The lease of our IPv4 address, if a DHCP server granted one.
    #[must_use]
    pub fn dhcp_lease(&self) -> Option<&Lease> {
        self.dhcp.as_ref().and_then(|client| client.lease())
    }

    /// What the DHCP client has done and seen, if there is one.
    #[must_use]
    pub fn dhcp_counters(&self) -> Option<&DhcpCounters> {
        self.dhcp.as_ref().map(|client| &client.counters)
    }

    /// Gives the leased address back (RFC 2131 section 4.4.6). No other is asked for.
    pub fn release_dhcp_lease(&mut self, now: Instant) {
        let Some((action, address)) = self.dhcp.as_mut().and_then(|client| client.release(now)) else {
            return;
        };
        if let Some(action) = action {
            self.carry_out(now, action);
        }
        self.end_lease(now, address);
        self.set_upkeep();
    }

    pub(in crate::network) fn write_dhcp_metrics(&self, sink: &mut dyn MetricsSink) {
        if let Some(client) = &self.dhcp {
            sink.enter("dhcp");
            client.counters.write(sink);
            sink.gauge("bound", u64::from(client.lease().is_some()));
            let expires_at = client.lease().map_or(Instant::ZERO, |lease| lease.expires_at);
            sink.gauge("lease_expires_at_s", expires_at.as_nanos() / 1_000_000_000);
            sink.leave();
        }
    }

    /// True for the port that a program cannot have because this layer uses it.
    #[must_use]
    pub fn is_reserved_udp_port(&self, port: u16) -> bool {
        self.dhcp.is_some() && port == CLIENT_PORT
    }

    /// Takes a datagram for which there is no socket. False when it is of no use here either.
    #[cold]
    pub fn receive_unclaimed_datagram(&mut self, now: Instant, packet: &Packet) -> bool {
        let Some(header) = UdpHeader::of_checked(&packet.head) else { return false };
        let from_server = header.source_port() == SERVER_PORT && packet.source.is_ipv4();
        let Some(client) = self.dhcp.as_mut().filter(|_| header.destination_port() == CLIENT_PORT) else {
            return false;
        };
        let data = packet.head.get(udp::HEADER_BYTES..).unwrap_or_default();
        match ServerMessage::parse(data).filter(|_| from_server) {
            Some(message) => {
                if let Some(action) = client.on_message(now, &message) {
                    self.carry_out(now, action);
                }
                self.set_upkeep();
            }
            None => client.counters.messages_ignored += 1,
        }
        true
    }

    /// Does what the client has to do.
    pub(in crate::network) fn upkeep_dhcp(&mut self, now: Instant) {
        for _ in 0..ACTIONS_PER_POLL {
            match self.dhcp.as_mut().and_then(|client| client.next_action(now)) {
                Some(action) => self.carry_out(now, action),
                None => break,
            }
        }
    }

    /// The leased address is somebody else's.
    pub(in crate::network) fn on_leased_address_conflict(&mut self, now: Instant, address: Ipv4Addr) {
        let declined = self.dhcp.as_mut().and_then(|client| client.decline(now));
        self.end_lease(now, address);
        if let Some(action) = declined {
            self.carry_out(now, action);
        }
    }

    fn carry_out(&mut self, now: Instant, action: Action) {
        match action {
            Action::Send(message, destination) => self.send_dhcp(now, &message, destination),
            Action::Begin(lease) => {
                self.start_address(now, lease.address, AddressOrigin::Leased, true, Lifetime::FOR_EVER);
                self.apply_lease(&lease);
            }
            Action::Prolong(lease) => self.apply_lease(&lease),
            Action::End(address) => self.end_lease(now, address),
        }
    }

    fn apply_lease(&mut self, lease: &Lease) {
        let mtu = lease.mtu.map(usize::from).filter(|mtu| (MIN_MTU..=self.device.mtu).contains(mtu));
        self.mtu_v4 = mtu.unwrap_or(self.device.mtu);
        let gateway = lease.routers.first().copied().map(IpAddr::V4);
        let used = self.interface.routes(RouteOrigin::Leased).next().map(|route| route.gateway);
        if gateway == used {
            return;
        }
        self.interface.remove_routes(RouteOrigin::Leased, |_| true);
        if let Some(gateway) = gateway {
            let destination = Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 };
            self.interface.add_route(Route { destination, gateway, metric: 0 }, RouteOrigin::Leased);
        }
        self.neighbors.renew_epoch();
    }

    fn end_lease(&mut self, now: Instant, address: Ipv4Addr) {
        self.mtu_v4 = self.device.mtu;
        self.interface.remove_routes(RouteOrigin::Leased, |_| true);
        self.drop_address(now, address.into());
    }

    fn send_dhcp(&mut self, now: Instant, message: &ClientMessage, destination: Destination) {
        let path = match destination {
            Destination::Broadcast => Some(self.broadcast_path(message.client)),
            Destination::Server(server) => self.path(now, Some(message.client.into()), server.into()).ok(),
        };
        let data = self.arena.copy_from(&message.compose());
        // What cannot be sent now is sent again when the client's time comes.
        let (Some(mut path), Some(data)) = (path, data) else { return };
        let mut data = data.freeze();
        let len = u16::try_from(udp::HEADER_BYTES + data.len()).unwrap_or(u16::MAX);
        let mut headers = HeaderBuffer::new();
        headers.transport(udp::HEADER_BYTES).copy_from_slice(&udp::compose(CLIENT_PORT, SERVER_PORT, len));
        let outgoing = Outgoing {
            protocol: Protocol::Udp,
            headers: &mut headers,
            checksum_offset: udp::CHECKSUM_OFFSET,
            payload: Payload::Whole(&mut data),
            segment_bytes: None,
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
        };
        if self.send(now, &mut path, outgoing).is_ok()
            && let Some(client) = &mut self.dhcp
        {
            client.counters.messages_out += 1;
        }
    }

    /// The way to everybody on the link, from an address or from none.
    fn broadcast_path(&self, local: Ipv4Addr) -> Path {
        let exit = match self.device.medium {
            Medium::Ethernet => Exit::Fixed(ethernet::BROADCAST),
            Medium::Ip => Exit::Medium,
        };
        Path {
            local: local.into(),
            remote: Ipv4Addr::BROADCAST.into(),
            mtu: self.device.mtu,
            policy: SendPolicy::default(),
            exit,
            identification: IdentificationSlot::default(),
            generation: self.interface.generation(),
            unconfirmed: false,
            express: Express::NONE,
        }
    }
}
