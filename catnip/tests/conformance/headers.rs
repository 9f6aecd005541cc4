//! Headers of what is sent, byte by byte.

use std::net::SocketAddr;

use libos::{SocketOption, SocketOptionName};

use crate::host::{Host, PEER_PORT, PORT, Peer};
use crate::wire::{ACK, FAMILIES, Family, PSH, SYN, Tcp, zero_sum_data};

/// Kinds of TCP's options.
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMPS: u8 = 8;

#[test]
fn a_syn_offers_everything_and_claims_nothing() {
    for family in FAMILIES {
        let mut host = Host::new("");
        host.connect(family, PORT, &[]);
        let packet = host.packets().remove(0);
        let syn = packet.tcp();
        assert_eq!((packet.ttl, packet.tos, packet.id), (64, 0, 0), "{family:?}");
        assert!(family == Family::V6 || packet.fragment == 0x4000, "it may not be cut");
        assert_eq!((syn.flags, syn.ack, syn.urgent, syn.payload.len()), (SYN, 0, 0, 0), "{family:?}");
        assert_eq!(syn.window, u16::MAX, "never scaled");
        let mss: u16 = if family == Family::V4 { 1_460 } else { 1_440 };
        assert_eq!(syn.option(MSS), Some(mss.to_be_bytes().to_vec()), "{family:?}");
        assert_eq!(syn.option(SACK_PERMITTED), Some(Vec::new()));
        assert_eq!(syn.option(TIMESTAMPS).map(|stamp| stamp[4..].to_vec()), Some(vec![0; 4]), "no echo yet");
        // As large as the receive buffer may grow: 65535 << 7 is a little less than 8 MiB.
        assert_eq!(syn.option(WINDOW_SCALE), Some(vec![8]));
        assert_eq!(syn.options.len(), 20);
    }
}

#[test]
fn a_syn_ack_agrees_to_what_is_offered_and_to_nothing_else() {
    let mss = [MSS, 4, 3, 232];
    let stamp = [1, 1, TIMESTAMPS, 10, 0, 0, 0, 100, 0, 0, 0, 0];
    let scale = [1, WINDOW_SCALE, 3, 7];
    let selective = [1, 1, SACK_PERMITTED, 2];
    for family in FAMILIES {
        for (name, offer, kinds) in [
            ("nothing", vec![], vec![MSS]),
            ("a segment size", mss.to_vec(), vec![MSS]),
            ("a scale", scale.to_vec(), vec![MSS, WINDOW_SCALE]),
            ("selective acknowledgments", selective.to_vec(), vec![MSS, SACK_PERMITTED]),
            ("timestamps", stamp.to_vec(), vec![MSS, TIMESTAMPS]),
            (
                "all",
                [&mss[..], &scale, &selective, &stamp].concat(),
                vec![MSS, WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS],
            ),
            ("a scale behind the end", [&mss[..], &[0, WINDOW_SCALE, 3, 7]].concat(), vec![MSS]),
            ("an option of length 0", [&mss[..], &[TIMESTAMPS, 0, 3, 3]].concat(), vec![MSS]),
            ("an option that runs over", [&mss[..], &[TIMESTAMPS, 10, 3, 3]].concat(), vec![MSS]),
            ("wrong lengths", vec![MSS, 3, 3, WINDOW_SCALE, 4, 7, 1, 1], vec![MSS]),
        ] {
            let mut host = Host::new("");
            host.listen(family, PORT, &[]);
            let peer = Peer::new(family);
            let syn = Tcp { options: offer, ..peer.segment(SYN, 0, 0, b"") };
            let answers = peer.ask_with(&mut host, &syn);
            assert_eq!(answers.len(), 1, "{family:?}, {name}");
            let mut given: Vec<u8> = answers[0].option_list().iter().map(|option| option.0).collect();
            given.sort_unstable();
            assert_eq!(given, kinds, "{family:?}, {name}");
            assert_eq!(answers[0].flags, SYN | ACK);
            assert_eq!(answers[0].ack.wrapping_sub(peer.isn), 1);
            let echo = answers[0].option(TIMESTAMPS).map(|stamp| stamp[4..].to_vec());
            assert!(echo.is_none_or(|echo| echo == [0, 0, 0, 100]), "{family:?}, {name}");
        }
    }
}

#[test]
fn a_streams_differentiated_services_are_the_programs_and_its_congestion_bits_are_not() {
    for family in FAMILIES {
        for (ecn, of_data) in [("off", 0xb8), ("on", 0xba)] {
            let mut host = Host::new(&format!("tcp.ecn = \"{ecn}\""));
            let set = [SocketOption::TrafficClass(0xbb), SocketOption::HopLimit(9)];
            let id = host.connect(family, PORT, &set);
            let syn = host.packets().remove(0);
            assert_eq!((syn.tos, syn.ttl), (0xb8, 9), "{family:?}");
            let peer = Peer { iss: syn.tcp().seq, ..Peer::new(family) };
            let ece = syn.tcp().flags & crate::wire::ECE;
            host.inject(&peer.packet(&peer.segment(SYN | ACK | ece, 0, 1, b"")));
            let fields =
                |host: &mut Host| -> Vec<u8> { host.packets().iter().map(|packet| packet.tos).collect() };
            assert_eq!(fields(&mut host), [0xb8], "an acknowledgment");
            host.send(id, b"data").unwrap();
            assert_eq!(fields(&mut host), [of_data], "data, {ecn}");
            // It may change while the connection stands.
            host.stack.tcp_set_option(id, SocketOption::TrafficClass(0x20)).unwrap();
            let class = host.stack.tcp_option(id, SocketOptionName::TrafficClass);
            assert_eq!(class, Ok(SocketOption::TrafficClass(0x20)));
            host.inject(&peer.packet(&peer.segment(ACK | PSH, 1, 5, b"data")));
            host.pass_ms(50);
            assert_eq!(fields(&mut host), [0x20]);
        }
        // A listener hands its own to what it accepts, from the SYN-ACK on.
        let mut host = Host::new("");
        host.listen(family, PORT, &[SocketOption::TrafficClass(0x48)]);
        let peer = Peer::new(family);
        let answers = host.ask(&peer.packet(&peer.segment(SYN, 0, 0, b"")));
        assert_eq!(answers[0].tos, 0x48, "{family:?}");
    }
}

#[test]
fn a_datagrams_traffic_class_is_the_programs() {
    for family in FAMILIES {
        let mut host = Host::new("");
        let socket = host.stack.udp_bind(SocketAddr::new(family.stack(), PORT)).unwrap();
        let to = SocketAddr::new(family.peer(), PEER_PORT);
        for class in [0, 0xb8, 0xb8, 0x22, 0] {
            host.stack.udp_set_option(socket, SocketOption::TrafficClass(class)).unwrap();
            for _ in 0..2 {
                host.send_datagram(socket, Some(&to), b"data").unwrap();
                assert_eq!(host.packets()[0].tos, class, "{family:?}");
            }
        }
        let class = host.stack.udp_option(socket, SocketOptionName::TrafficClass);
        assert_eq!(class, Ok(SocketOption::TrafficClass(0)));
    }
}

#[test]
fn a_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    for family in FAMILIES {
        let mut host = Host::new("");
        let socket = host.stack.udp_bind(SocketAddr::new(family.stack(), PORT)).unwrap();
        let to = SocketAddr::new(family.peer(), PEER_PORT);
        let data = zero_sum_data(family.stack(), family.peer(), (PORT, PEER_PORT));
        host.send_datagram(socket, Some(&to), &data).unwrap();
        assert_eq!(host.packets()[0].body[6..8], [0xff, 0xff], "{family:?}");
    }
}
