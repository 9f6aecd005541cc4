//! ICMP errors about our segments (RFC 1122, section 4.2.3.9; RFC 5461; RFC 5927).

use libos::{Error, SocketOption, SocketOptionName};

use super::script::{LOCAL, MSS, PEER, Script, ip_packet};
use super::seg::{LOCAL_PORT, PEER_PORT, seg};
use crate::tcp::State;
use crate::wire::checksum::Checksum;

const NETWORK: u8 = 0;
const HOST: u8 = 1;
const PROTOCOL: u8 = 2;
const PORT: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;

/// A "destination unreachable" about the segment of ours at `seq`, which the network says it cannot deliver.
fn unreachable(t: &mut Script, code: u8, mtu: u16, seq: u32) {
    let mut quoted = LOCAL_PORT.to_be_bytes().to_vec();
    quoted.extend(PEER_PORT.to_be_bytes());
    quoted.extend(t.iss().wrapping_add(seq).to_be_bytes());
    // More of the segment than the eight bytes that are quoted.
    let mut packet = ip_packet(LOCAL, PEER, 6, &[quoted.as_slice(), &[0; 1_000]].concat());
    packet.truncate(28);
    let mut message = vec![3, code, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(packet);
    let mut sum = Checksum::new();
    sum.add_bytes(&message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    t.inject_frame(&ip_packet(PEER, LOCAL, 1, &message));
}

#[test]
fn an_error_about_the_syn_ends_the_open() {
    for (code, error) in [
        (NETWORK, Error::NetworkUnreachable),
        (HOST, Error::HostUnreachable),
        (PROTOCOL, Error::ConnectionRefused),
        (PORT, Error::ConnectionRefused),
    ] {
        let mut t = Script::new();
        let id = t.connect();
        t.expect(seg().syn().seq(0));
        unreachable(&mut t, code, 0, 0);
        assert_eq!((t.state(id), t.stack.tcp_error(id)), (State::Closed, Some(error)));
    }
}

#[test]
fn an_error_about_a_standing_connection_is_kept_and_does_not_end_it() {
    for code in [NETWORK, HOST, PROTOCOL, PORT] {
        let mut t = Script::new();
        let id = t.open();
        t.write(id, 100);
        t.expect(seg().seq(1).ack(1).data(100));
        unreachable(&mut t, code, 0, 1);
        assert_eq!(t.state(id), State::Established);
        let pending = |t: &mut Script| t.stack.tcp_option(id, SocketOptionName::PendingError);
        assert!(matches!(pending(&mut t), Ok(SocketOption::PendingError(Some(_)))));
        assert_eq!(pending(&mut t), Ok(SocketOption::PendingError(None)), "reading clears it");
        t.inject(seg().ack(101));
        assert_eq!(t.info(id).send_queue_bytes, 0);
    }
}

#[test]
fn a_peer_that_the_network_cannot_reach_is_given_up_with_that_error() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 100);
    unreachable(&mut t, HOST, 0, 1);
    t.pass(3_600_000);
    assert_eq!(t.stack.tcp_error(id), Some(Error::HostUnreachable));
}

#[test]
fn an_error_about_what_is_not_in_flight_is_forged_or_stale() {
    for seq in [0, 101, 0x8000_0000, u32::MAX] {
        let mut t = Script::new();
        let id = t.open();
        t.write(id, 100);
        unreachable(&mut t, HOST, 0, seq);
        unreachable(&mut t, FRAGMENTATION_NEEDED, 600, seq);
        let pending = t.stack.tcp_option(id, SocketOptionName::PendingError);
        assert_eq!(pending, Ok(SocketOption::PendingError(None)), "{seq}");
        assert_eq!(t.info(id).snd_mss_bytes, MSS);
    }
    let mut t = Script::new();
    let id = t.connect();
    unreachable(&mut t, PORT, 0, 1);
    assert_eq!(t.state(id), State::SynSent);
}

#[test]
fn what_was_too_large_for_the_path_goes_again_in_smaller_segments() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 2_000);
    assert_eq!(t.take_sent().len(), 2);
    unreachable(&mut t, FRAGMENTATION_NEEDED, 640, 1);
    for seq in [1, 601, 1_201] {
        t.expect(seg().seq(seq).ack(1).data(600));
    }
    t.expect(seg().seq(1_801).ack(1).data(200));
    // Not below what every host takes, whatever the message says.
    unreachable(&mut t, FRAGMENTATION_NEEDED, 68, 1);
    assert_eq!(t.info(id).snd_mss_bytes, 536);
    // And a larger one changes nothing.
    unreachable(&mut t, FRAGMENTATION_NEEDED, 1_400, 1);
    assert_eq!(t.info(id).snd_mss_bytes, 536);
}

#[test]
fn a_smaller_path_during_the_handshake_leaves_the_numbers_in_order() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.write(id, 700);
    unreachable(&mut t, FRAGMENTATION_NEEDED, 600, 0);
    t.inject(seg().syn().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1).data(560));
    t.inject(seg().ack(561));
    t.expect(seg().seq(561).ack(1).data(140));
}
