//! One function a parser: any bytes are read without harm, what is accessible stays within them, and what can be
//! composed comes out as it was read.

use std::net::{Ipv4Addr, Ipv6Addr};

use catnip::tcp::options::OptionFields;
use catnip::tcp::segment::{HeaderFields, MAX_HEADER_BYTES, Segment};
use catnip::wire::arp::ArpPacket;
use catnip::wire::checksum;
use catnip::wire::dhcp::{MessageType, ServerMessage};
use catnip::wire::ethernet::{self, EthernetHeader};
use catnip::wire::icmp::IcmpHeader;
use catnip::wire::ipv4::{Ipv4Fields, Ipv4Header};
use catnip::wire::ipv6::{self, ExtensionHeader, FragmentHeader, Ipv6Fields, Ipv6Header};
use catnip::wire::ndp::{self, NeighborMessage};
use catnip::wire::router::{Redirect, RouterAdvertisement};
use catnip::wire::udp::UdpHeader;
use catnip::{Stack, StackConfig};
use libos::runtime::{Capabilities, Medium, TxChecksum};
use libos::{Config, Instant};

/// Ethernet headers.
pub fn ethernet(bytes: &[u8]) {
    let Some((header, rest)) = EthernetHeader::parse(bytes) else {
        assert!(bytes.len() < ethernet::HEADER_BYTES);
        return;
    };
    let composed = ethernet::compose(header.destination(), header.source(), header.ether_type());
    assert_eq!([&composed[..], rest].concat(), bytes);
}

/// ARP packets.
pub fn arp(bytes: &[u8]) {
    if let Some(packet) = ArpPacket::parse(bytes) {
        assert_eq!(ArpPacket::parse(&packet.compose()), Some(packet));
        assert!(bytes.starts_with(&packet.compose()));
    }
}

/// IPv4 headers, whole and as ICMP quotes them.
pub fn ipv4(bytes: &[u8]) {
    let plain = Ipv4Header::parse_plain(bytes);
    if let Ok(header) = Ipv4Header::parse(bytes, bytes.len()) {
        assert!((20..=60).contains(&header.header_len()) && header.header_len() <= bytes.len());
        assert!((header.header_len()..=bytes.len()).contains(&header.total_len()));
        assert_eq!(checksum::of(&bytes[..header.header_len()]), 0, "a wrong checksum was accepted");
        let fields = Ipv4Fields {
            traffic_class: header.traffic_class(),
            total_len: header.total_len() as u16,
            identification: header.identification(),
            dont_fragment: header.dont_fragment(),
            time_to_live: header.time_to_live(),
            protocol: header.protocol(),
            source: header.source(),
            destination: header.destination(),
        };
        if header.header_len() == 20 && !header.is_fragment() && bytes[6] & 0x80 == 0 {
            // The two forms of a sum of zero aside.
            let composed = fields.compose();
            assert_eq!((&composed[..10], &composed[12..]), (&bytes[..10], &bytes[12..20]));
        }
        assert!(!header.is_later_fragment() || header.is_fragment());
    } else {
        assert!(plain.is_none(), "the short way takes what the long one refuses");
    }
    if let Some((header, payload)) = plain {
        assert!(header.header_len() == 20 && !header.is_fragment());
        assert_eq!(payload.len(), header.total_len() - 20);
    }
    if let Ok(quoted) = Ipv4Header::parse_quoted(bytes) {
        assert!(quoted.header_len() <= bytes.len());
        let _: (Ipv4Addr, Ipv4Addr) = (quoted.source(), quoted.destination());
    }
}

/// IPv6 headers, extension headers and their options.
pub fn ipv6(bytes: &[u8]) {
    if let Ok(header) = Ipv6Header::parse(bytes, bytes.len()) {
        assert!(40 + header.payload_len() <= bytes.len());
        let fields = Ipv6Fields {
            traffic_class: header.traffic_class(),
            payload_len: header.payload_len() as u16,
            next_header: header.next_header(),
            hop_limit: header.hop_limit(),
            source: header.source(),
            destination: header.destination(),
        };
        let composed = fields.compose();
        // The flow label is not looked at.
        assert_eq!((composed[0], &composed[4..]), (bytes[0], &bytes[4..40]));
    }
    if let Ok(quoted) = Ipv6Header::parse_quoted(bytes) {
        let _: (Ipv6Addr, Ipv6Addr) = (quoted.source(), quoted.destination());
    }
    if let Some(header) = ExtensionHeader::parse(bytes) {
        assert!(header.len() <= bytes.len() && header.len() % 8 == 0);
        if let Err(bad) = ipv6::check_options(header.body) {
            assert!(bad.offset < header.body.len());
        }
    }
    if let Some(fragment) = FragmentHeader::parse(bytes) {
        assert_eq!(fragment.offset % 8, 0);
        assert!(fragment.offset <= 65_528);
    }
}

/// ICMP headers.
pub fn icmp(bytes: &[u8]) {
    if let Some((header, body)) = IcmpHeader::parse(bytes) {
        let composed = header.compose();
        assert_eq!((&composed[..2], &composed[4..]), (&bytes[..2], &bytes[4..8]));
        assert_eq!(body.len(), bytes.len() - 8);
        let _ = header.rest_u32();
    }
}

/// Neighbour discovery messages.
pub fn ndp(bytes: &[u8]) {
    if let Some(message) = NeighborMessage::parse(bytes) {
        if matches!(message, NeighborMessage::Solicitation { source: Some(_), nonce: Some(_), .. }) {
            // Both is never composed.
            return;
        }
        let mut composed = [0; ndp::MESSAGE_BYTES];
        let len = message.compose(&mut composed);
        assert_eq!(NeighborMessage::parse(&composed[..len]), Some(message));
    }
}

/// Router advertisements and redirects.
pub fn router(bytes: &[u8]) {
    if let Some(message) = RouterAdvertisement::parse(bytes) {
        // The shortest option has eight bytes.
        assert!(message.options().count() <= bytes.len() / 8);
    }
    if let Some(redirect) = Redirect::parse(bytes) {
        assert!(!redirect.destination.is_multicast());
        assert!(redirect.target == redirect.destination || redirect.target.is_unicast_link_local());
    }
}

/// Messages of DHCP servers.
pub fn dhcp(bytes: &[u8]) {
    if let Some(message) = ServerMessage::parse(bytes) {
        assert!(message.prefix_length.is_none_or(|length| length <= 32));
        assert!(matches!(message.kind, MessageType::Offer | MessageType::Ack | MessageType::Nak));
        assert_eq!(bytes[0], 2, "a client's message was taken for a server's");
    }
}

/// UDP headers.
pub fn udp(bytes: &[u8]) {
    if let Some(header) = UdpHeader::parse(bytes, bytes.len()) {
        assert!((8..=bytes.len()).contains(&header.len()));
        let _ = (header.source_port(), header.destination_port(), header.checksum());
    }
}

/// TCP headers with their options.
pub fn tcp_segment(bytes: &[u8]) {
    let Ok(segment) = Segment::parse(bytes) else { return };
    assert!((20..=MAX_HEADER_BYTES).contains(&segment.header_bytes) && segment.header_bytes <= bytes.len());
    assert!(segment.sack_blocks(bytes).count() <= 4);
    let options = segment.options;
    assert!(options.window_scale.is_none_or(|shift| shift <= 14));
    let fields = HeaderFields {
        source_port: segment.source_port,
        destination_port: segment.destination_port,
        sequence: segment.sequence,
        acknowledgment: segment.acknowledgment,
        flags: segment.flags,
        window: segment.window,
        urgent: segment.urgent,
        options: OptionFields {
            mss: options.mss,
            window_scale: options.window_scale,
            sack_permitted: options.sack_permitted,
            timestamp: options.timestamp,
            ..OptionFields::default()
        },
    };
    let mut composed = [0; MAX_HEADER_BYTES];
    let len = fields.emit(&mut composed);
    let again = Segment::parse(&composed[..len]).expect("what was composed can be read");
    assert_eq!(
        (again.sequence, again.acknowledgment, again.flags, again.window, again.urgent),
        (segment.sequence, segment.acknowledgment, segment.flags, segment.window, segment.urgent)
    );
    assert_eq!(
        (again.options.mss, again.options.window_scale, again.options.timestamp),
        (options.mss, options.window_scale, options.timestamp)
    );
}

/// Configuration files: what is accepted makes a stack that runs.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = Config::from_toml_str("fuzz.toml", text) else { return };
    for medium in [Medium::Ethernet, Medium::Ip] {
        let device = Capabilities {
            medium,
            hardware_address: [2, 0, 0, 0, 0, 1],
            mtu: 1_500,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: 16,
        };
        let stack = StackConfig::from_config(&config, device)
            .and_then(|config| Stack::new(&config, super::arena(), 1, Instant::from_millis(1)));
        match stack {
            Ok(mut stack) => {
                stack.poll(Instant::from_millis(1));
                let _ = stack.next_deadline();
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "more than one line: {error}"),
        }
    }
}
