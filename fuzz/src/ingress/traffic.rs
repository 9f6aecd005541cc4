//! What arrives: actions made into packets, packets into frames; and what the stack sent, looked at.

use std::net::IpAddr;

use libos::RxFrame;
use libos::runtime::Medium;

use super::World;
use super::action::{ARRIVALS, Action, Arrival, Delivery, Family, Neighbor, Options, Place, Segment};
use super::packet::{self, Ip, OUR_MAC, PEER_MAC, TCP, UDP};
use super::pattern::received_bytes;
use super::peer::{ACK, End, FIN, RST, SYN, Tuple};
use super::program::{
    CONNECTED_PORT, DATAGRAM_PORT, FIRST_REMOTE_PORT, LISTEN_PORT, PEER_PORT, REMOTE_PORTS,
};

/// Most payload of one packet of a peer.
const MAX_PAYLOAD_BYTES: usize = 9_000;
/// Most openings of one flood, and the first of their ports, which no peer has.
const MAX_FLOOD: u8 = 12;
pub const FIRST_FLOOD_PORT: u16 = 50_000;
/// Pieces that a peer's data is cut into.
const MAX_PIECES: u8 = 8;
/// The field of explicit congestion notification of a packet that was marked (RFC 3168, section 5).
const CONGESTION_EXPERIENCED: u8 = 3;
/// Most fragments of one packet.
const MAX_FRAGMENTS: usize = 8;
/// Most neighbours' questions remembered.
const MAX_ASKED: usize = 16;
/// The peers' initial sequence number: near the wrap.
const PEER_ISN: u32 = u32::MAX - 2_000;

impl World {
    pub fn arrive(&mut self, action: Action) {
        match action {
            Action::Answer { on, window, payload_bytes, fin } => {
                if let Some((tuple, end)) = self.ends.pick(on) {
                    let mut flags = if end.rcv_nxt == 0 { SYN | ACK | self.ends.ecn_answer() } else { ACK };
                    if fin && flags & SYN == 0 {
                        flags |= FIN;
                    }
                    let options = if flags & SYN == 0 { Options::None } else { Options::Usual };
                    let (seq, ack) = (Place::Exact, Place::Exact);
                    let segment = Segment { seq, ack, flags, window, urgent: 0, payload_bytes, options };
                    self.send_segment(tuple, end, &segment, &Delivery::Whole);
                }
            }
            Action::Lose { pattern } => self.ends.lose(pattern),
            Action::Acknowledge { on, window, payload_bytes, doubled, flags } => {
                if let Some((tuple, end)) = self.ends.pick(on) {
                    let ack = Place::Far(end.received.next.wrapping_sub(end.snd_max) as i32);
                    let options = Options::Received { doubled };
                    // With or without PSH, URG, ECE and CWR.
                    let flags = ACK | flags & !(SYN | FIN | RST);
                    let segment =
                        Segment { seq: Place::Exact, ack, flags, window, urgent: 0, payload_bytes, options };
                    self.send_segment(tuple, end, &segment, &Delivery::Whole);
                }
            }
            Action::Syn { family, port, options } => {
                let remote_port = FIRST_REMOTE_PORT + u16::from(port % REMOTE_PORTS);
                self.send_syn(Tuple { family, local_port: LISTEN_PORT, remote_port }, 0, options);
            }
            Action::Flood { family, number } => self.flood(family, number % MAX_FLOOD, number / MAX_FLOOD),
            Action::FastOpen { family, port, payload_bytes, damaged } => {
                let remote_port = FIRST_REMOTE_PORT + u16::from(port % REMOTE_PORTS);
                let tuple = Tuple { family, local_port: LISTEN_PORT, remote_port };
                self.send_syn(tuple, payload_bytes % 1_500, Options::Cookie { damaged });
            }
            Action::Reorder { on, piece_bytes, order } => self.reorder(on, piece_bytes, order),
            Action::Segment { on, segment, delivery } => {
                if let Some((tuple, end)) = self.ends.pick(on) {
                    self.send_segment(tuple, end, &segment, &delivery);
                }
            }
            Action::IcmpError { on, kind, code, mtu, quoted_bytes, sequence } => {
                if let Some((tuple, end)) = self.ends.pick(on) {
                    let number = sequence.around(end.snd_max.wrapping_sub(1));
                    self.send_error(tuple, number, [kind, code], mtu, quoted_bytes);
                }
            }
            Action::Datagram { family, from_peer, port, len, no_checksum, delivery } => {
                let to = [DATAGRAM_PORT, CONNECTED_PORT, 9][usize::from(port) % 3];
                let from = if from_peer { PEER_PORT } else { FIRST_REMOTE_PORT };
                let len = usize::from(len) % MAX_PAYLOAD_BYTES + 8;
                let mut datagram = [from.to_be_bytes(), to.to_be_bytes()].concat();
                datagram.extend((len as u16).to_be_bytes());
                datagram.resize(len, 0);
                if !no_checksum {
                    packet::complete(family.remote(), family.local(), UDP, &mut datagram);
                }
                self.send_ip(family, UDP, 64, &datagram, &delivery);
            }
            Action::Neighbor(neighbor) => self.send_neighbor(neighbor),
            Action::Payload { family, protocol, mut bytes, hop_limit, delivery } => {
                bytes.truncate(MAX_PAYLOAD_BYTES);
                let mut packet = Ip {
                    source: family.remote(),
                    destination: family.local(),
                    protocol,
                    hop_limit,
                    traffic_class: 0,
                    fragment: None,
                };
                // Neighbour discovery is often to groups.
                if (family, protocol) == (Family::V6, packet::ICMPV6) && bytes.len() % 2 == 1 {
                    packet.destination = IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]);
                }
                packet::complete(packet.source, packet.destination, protocol, &mut bytes);
                self.deliver(&packet, &bytes, &delivery);
            }
            Action::Frame { bytes } => {
                if let Some(buffer) = self.arena.copy_from(&bytes) {
                    self.inject(RxFrame::from(buffer.freeze()));
                }
            }
            Action::Pass { .. } | Action::Call(_) | Action::Converse { .. } => {}
        }
    }

    /// The peer begins a connection.
    pub fn send_syn(&mut self, tuple: Tuple, payload_bytes: u16, options: Options) {
        self.ends.expect(tuple, PEER_ISN);
        let cookie = self.ends.cookie(tuple.family);
        let end = End { rcv_nxt: PEER_ISN, cookie, ..End::default() };
        let (seq, ack) = (Place::Exact, Place::Exact);
        let flags = SYN | self.ends.ecn_question();
        let segment = Segment { seq, ack, flags, window: 30_000, urgent: 0, payload_bytes, options };
        self.send_segment(tuple, end, &segment, &Delivery::Whole);
    }

    /// Openings that nobody goes on with, and guesses at cookies.
    fn flood(&mut self, family: Family, syns: u8, guesses: u8) {
        let tuple = |number: u8| Tuple {
            family,
            local_port: LISTEN_PORT,
            remote_port: FIRST_FLOOD_PORT + u16::from(number),
        };
        for number in 0..syns {
            self.send_syn(tuple(number), 0, Options::Usual);
        }
        for number in 0..guesses % MAX_FLOOD {
            let (seq, ack) = (Place::Exact, Place::Far(i32::from(number) << 24));
            let segment = Segment {
                seq,
                ack,
                flags: ACK,
                window: 30_000,
                urgent: 0,
                payload_bytes: 0,
                options: Options::Usual,
            };
            self.send_segment(tuple(MAX_FLOOD + number), End::default(), &segment, &Delivery::Whole);
        }
    }

    /// A piece of the peer's stream after the other, in the order asked for.
    fn reorder(&mut self, on: u8, piece_bytes: u16, order: [Arrival; ARRIVALS]) {
        let Some((tuple, end)) = self.ends.pick(on) else { return };
        let payload_bytes = piece_bytes % 1_500;
        for arrival in order {
            let offset = usize::from(payload_bytes) * usize::from(arrival.piece % MAX_PIECES);
            let segment = Segment {
                seq: Place::Far(offset as i32),
                ack: Place::Exact,
                flags: ACK,
                window: 30_000,
                urgent: 0,
                payload_bytes,
                options: Options::Usual,
            };
            let traffic_class = if arrival.marked { CONGESTION_EXPERIENCED } else { 0 };
            self.send_segment(tuple, end, &segment, &Delivery::Marked { traffic_class });
        }
    }

    fn send_segment(&mut self, tuple: Tuple, end: End, segment: &Segment, delivery: &Delivery) {
        let seq = segment.seq.around(end.rcv_nxt);
        let ack = if segment.flags & ACK == 0 { 0 } else { segment.ack.around(end.snd_max) };
        let options = segment.options.bytes(&end, segment.flags & SYN != 0);
        let len = usize::from(segment.payload_bytes) % MAX_PAYLOAD_BYTES;
        let mut tcp = Vec::with_capacity(20 + options.len() + len);
        tcp.extend(tuple.remote_port.to_be_bytes());
        tcp.extend(tuple.local_port.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([((20 + options.len()) as u8 / 4) << 4, segment.flags]);
        tcp.extend(segment.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(segment.urgent.to_be_bytes());
        tcp.extend(options);
        // A SYN takes a number in front of the data.
        let first = seq.wrapping_add(u32::from(segment.flags & SYN != 0));
        tcp.extend_from_slice(received_bytes(first, len));
        let (source, destination) = (tuple.family.remote(), tuple.family.local());
        packet::complete(source, destination, TCP, &mut tcp);
        self.send_ip(tuple.family, TCP, 64, &tcp, delivery);
    }

    /// An ICMP error about a segment with this sequence number.
    fn send_error(&mut self, tuple: Tuple, sequence: u32, kind: [u8; 2], mtu: u16, quoted_bytes: u8) {
        let mut quoted = [tuple.local_port.to_be_bytes(), tuple.remote_port.to_be_bytes()].concat();
        quoted.extend(sequence.to_be_bytes());
        quoted.resize(20, 0);
        let ip = Ip {
            source: tuple.family.local(),
            destination: tuple.family.remote(),
            protocol: TCP,
            hop_limit: 60,
            traffic_class: 0,
            fragment: None,
        };
        let mut quoted = ip.packet(&quoted);
        quoted.truncate(usize::from(quoted_bytes));
        let mut message = [kind[0], kind[1], 0, 0, 0, 0].to_vec();
        message.extend(mtu.to_be_bytes());
        message.extend(quoted);
        let protocol = tuple.family.icmp();
        packet::complete(tuple.family.remote(), tuple.family.local(), protocol, &mut message);
        self.send_ip(tuple.family, protocol, 64, &message, &Delivery::Whole);
    }

    fn send_neighbor(&mut self, neighbor: Neighbor) {
        match neighbor {
            Neighbor::ArpRequest { sender, target } => self.send_arp(1, sender, target, true),
            Neighbor::ArpReply { sender, target, to_all } => self.send_arp(2, sender, target, to_all),
            Neighbor::Solicitation { sender, target, hop_limit } => {
                self.send_discovery(135, 0, sender, target, hop_limit, true);
            }
            Neighbor::Advertisement { sender, target, flags, to_all } => {
                self.send_discovery(136, flags, sender, target, 255, to_all);
            }
            Neighbor::AnswerAll => {
                for address in std::mem::take(&mut self.asked) {
                    match address {
                        IpAddr::V4(address) => self.send_arp(2, address.octets()[3], 1, false),
                        IpAddr::V6(address) => {
                            let number = address.octets()[15];
                            self.send_discovery(136, 0x60, number, number, 255, false);
                        }
                    }
                }
            }
        }
    }

    fn send_arp(&mut self, operation: u8, sender: u8, target: u8, to_all: bool) {
        if self.medium == Medium::Ip {
            return;
        }
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
        arp.extend([2, 0, 0, 0, 0, sender, 192, 0, 2, sender]);
        arp.extend([0, 0, 0, 0, 0, 0, 192, 0, 2, target]);
        let to = if to_all { [0xff; 6] } else { OUR_MAC };
        self.send_frame(to, 0x0806, &arp, &Delivery::Whole);
    }

    fn send_discovery(&mut self, kind: u8, flags: u8, sender: u8, target: u8, hop_limit: u8, to_all: bool) {
        let address = |number| match Family::V6.host(number) {
            IpAddr::V4(_) => [0; 16],
            IpAddr::V6(address) => address.octets(),
        };
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(address(target));
        message.extend([if kind == 135 { 1 } else { 2 }, 1, 2, 0, 0, 0, 0, sender]);
        let group = IpAddr::from([0xff02, 0, 0, 0, 0, 1, 0xff00, u16::from(target)]);
        let destination = if to_all { group } else { Family::V6.local() };
        let source = Family::V6.host(sender);
        packet::complete(source, destination, packet::ICMPV6, &mut message);
        let ip =
            Ip { source, destination, protocol: packet::ICMPV6, hop_limit, traffic_class: 0, fragment: None };
        self.deliver(&ip, &message, &Delivery::Whole);
    }

    fn send_ip(&mut self, family: Family, protocol: u8, hop_limit: u8, payload: &[u8], delivery: &Delivery) {
        let ip = Ip {
            source: family.remote(),
            destination: family.local(),
            protocol,
            hop_limit,
            traffic_class: 0,
            fragment: None,
        };
        self.deliver(&ip, payload, delivery);
    }

    /// Makes frames of a packet.
    fn deliver(&mut self, ip: &Ip, payload: &[u8], delivery: &Delivery) {
        let mut ip = *ip;
        match delivery {
            Delivery::Fragments { identification, pieces } => {
                for piece in pieces.iter().take(MAX_FRAGMENTS) {
                    let offset = usize::from(piece.offset) * 8;
                    let end = offset + usize::from(piece.len) * 8;
                    let part = payload.get(offset..end.min(payload.len())).unwrap_or(&[0; 8]);
                    ip.fragment = Some((offset as u16, piece.more, *identification));
                    self.send_packet(&ip, part, &Delivery::Whole);
                }
            }
            Delivery::Marked { traffic_class } => {
                ip.traffic_class = *traffic_class;
                self.send_packet(&ip, payload, &Delivery::Whole);
            }
            whole => self.send_packet(&ip, payload, whole),
        }
    }

    fn send_packet(&mut self, ip: &Ip, payload: &[u8], delivery: &Delivery) {
        let packet = ip.packet(payload);
        let kind = if ip.source.is_ipv4() { 0x0800 } else { 0x86dd };
        let to = match ip.destination {
            IpAddr::V6(group) if group.is_multicast() => {
                let [.., a, b, c, d] = group.octets();
                [0x33, 0x33, a, b, c, d]
            }
            _ => OUR_MAC,
        };
        self.send_frame(to, kind, &packet, delivery);
    }

    fn send_frame(&mut self, to: [u8; 6], kind: u16, packet: &[u8], delivery: &Delivery) {
        let mut frame = Vec::with_capacity(14 + packet.len());
        if self.medium == Medium::Ethernet {
            frame.extend(to);
            frame.extend(PEER_MAC);
            frame.extend(kind.to_be_bytes());
        }
        let headers = frame.len() + 60;
        frame.extend(packet);
        if let Delivery::Damaged { bit } = delivery {
            let bit = usize::from(*bit) % (frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        // A device has its headers in the first buffer.
        let cut = match delivery {
            Delivery::Scattered { cut } => (headers + usize::from(*cut)).min(frame.len()),
            _ => frame.len(),
        };
        let (head, rest) = frame.split_at(cut);
        let Some(head) = self.arena.copy_from(head) else { return };
        let mut frame = RxFrame::from(head.freeze());
        if !rest.is_empty() {
            let Some(rest) = self.arena.copy_from(rest) else { return };
            frame.rest.push(rest.freeze());
        }
        if let Delivery::Joined { segment_bytes } = delivery {
            frame.segment_bytes = *segment_bytes;
        }
        self.inject(frame);
    }

    /// Looks at a frame that the stack sent.
    pub fn see(&mut self, frame: &[u8]) {
        let packet = match self.medium {
            Medium::Ip => frame,
            Medium::Ethernet => {
                assert_eq!(frame[6..12], OUR_MAC, "the source of a sent frame");
                match u16::from_be_bytes([frame[12], frame[13]]) {
                    0x0806 => {
                        if frame[21] == 1 {
                            self.asked_for(IpAddr::from([frame[38], frame[39], frame[40], frame[41]]));
                        }
                        return;
                    }
                    0x0800 | 0x86dd => &frame[14..],
                    kind => panic!("a frame of kind {kind:04x} was sent"),
                }
            }
        };
        let Some(sent) = packet::check_sent(packet, self.mtu) else { return };
        match sent.protocol {
            TCP if sent.destination != sent.source => self.ends.see(&sent),
            packet::ICMPV6 if sent.payload[0] == 135 => {
                let target: [u8; 16] = sent.payload[8..24].try_into().expect("sixteen bytes");
                self.asked_for(target.into());
            }
            _ => {}
        }
    }

    fn asked_for(&mut self, address: IpAddr) {
        let ours = [Family::V4.local(), Family::V6.local()].contains(&address);
        if self.asked.len() < MAX_ASKED && !ours {
            self.asked.push(address);
        }
    }
}
