//! Opening connections: who answers what with which numbers (RFC 9293, sections 3.5 and 3.10.7.1 to 3.10.7.4).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use libos::Error;

use super::script::{LOCAL, MSS, PEER, Script, ip_packet, local, remote};
use super::seg::{LOCAL_PORT, PEER_PORT, Seg, seg};
use crate::events::{Readiness, SocketId};
use crate::tcp::{State, TcpOptions};

#[test]
fn a_passive_open_answers_with_a_syn_ack_and_stands_with_the_ack() {
    let mut t = Script::new();
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS));
    t.expect(seg().seq(0).syn().ack(1).mss(1460));
    assert_eq!(t.stack.tcp_accept(listener), None);
    t.inject(seg().ack(1));
    t.expect_nothing();
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!(t.state(id), State::Established);
}

#[test]
fn an_active_open_sends_a_syn_and_answers_the_syn_ack_at_once() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0).mss(1460).win(u16::MAX));
    assert_eq!(t.state(id), State::SynSent);
    t.inject(seg().syn().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1));
    let event = t.stack.next_event().unwrap();
    assert_eq!(event.socket, SocketId::Connection(id));
    assert!(event.readiness.contains(Readiness::CONNECTED));
}

#[test]
fn in_a_simultaneous_open_each_side_answers_the_others_syn() {
    for last in [seg().seq(1).ack(1), seg().syn().seq(0).ack(1).mss(MSS)] {
        let mut t = Script::new();
        let id = t.connect();
        t.expect(seg().syn().seq(0));
        t.inject(seg().syn().seq(0).mss(MSS));
        t.expect(seg().syn().seq(0).ack(1));
        assert_eq!(t.state(id), State::SynReceived);
        t.inject(last);
        assert_eq!(t.state(id), State::Established);
        let _ = t.take_sent();
        t.write(id, 10);
        t.expect(seg().seq(1).ack(1).data(10));
    }
}

#[test]
fn an_acknowledgment_of_nothing_sent_in_syn_sent_is_reset_and_the_open_goes_on() {
    for bad in [0, 2, 70_000] {
        for segment in [seg().seq(0), seg().seq(0).syn()] {
            let mut t = Script::new();
            let id = t.connect();
            t.expect(seg().syn().seq(0));
            t.inject(segment.clone().ack(bad));
            t.expect(seg().rst().seq(bad));
            t.inject(segment.rst().ack(bad));
            t.expect_nothing();
            assert_eq!(t.state(id), State::SynSent);
        }
    }
}

#[test]
fn a_reset_in_syn_sent_counts_only_when_it_acknowledges_the_syn() {
    for (reset, refuses) in [
        (seg().rst().seq(0), false),
        (seg().rst().seq(0).ack(0), false),
        (seg().rst().seq(0).ack(2), false),
        (seg().rst().seq(0).ack(1), true),
        (seg().rst().seq(999).ack(1), true),
    ] {
        let mut t = Script::new();
        let id = t.connect();
        t.expect(seg().syn().seq(0));
        t.inject(reset);
        t.expect_nothing();
        assert_eq!(t.stack.tcp_error(id), refuses.then_some(Error::ConnectionRefused));
    }
}

#[test]
fn segments_without_syn_are_ignored_in_syn_sent() {
    for ignored in [seg().ack(1), seg().ack(1).data(10), seg().fin().ack(1), seg().data(10)] {
        let mut t = Script::new();
        let id = t.connect();
        t.expect(seg().syn().seq(0));
        t.inject(ignored);
        t.expect_nothing();
        assert_eq!(t.state(id), State::SynSent);
    }
}

#[test]
fn a_bad_acknowledgment_in_syn_received_is_reset_and_the_open_goes_on() {
    let mut t = Script::new();
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS));
    t.expect(seg().seq(0).syn().ack(1));
    for bad in [0, 2, 90_000] {
        t.inject(seg().ack(bad));
        t.expect(seg().rst().seq(bad));
    }
    t.inject(seg().ack(1));
    assert!(t.stack.tcp_accept(listener).is_some());
}

#[test]
fn a_reset_in_syn_received_returns_to_listen() {
    let mut t = Script::new();
    let options = TcpOptions::default();
    let listener = t.listen_with(1, &options);
    for _ in 0..3 {
        t.inject(seg().seq(0).syn().mss(MSS));
        t.expect(seg().seq(0).syn().ack(1));
        assert_eq!(t.stack.tcp_connections(), 1);
        t.inject(seg().rst().seq(2));
        t.expect(seg().seq(1).ack(1));
        t.inject(seg().rst().seq(1));
        t.expect_nothing();
        assert_eq!(t.stack.tcp_connections(), 0);
        t.pass(1_000);
    }
    t.open_on(listener, seg().mss(MSS));
}

#[test]
fn a_syn_that_comes_again_is_answered_again_with_the_same_numbers() {
    // The second as some peers retransmit it: with data of RFC 7413's kind.
    for again in [seg().seq(0).syn().mss(MSS), seg().seq(0).syn().mss(MSS).data(100)] {
        let mut t = Script::new();
        let listener = t.listen();
        t.inject(seg().seq(0).syn().mss(MSS));
        let first = t.expect(seg().seq(0).syn().ack(1).mss(1460));
        t.inject(again);
        let second = t.expect(seg().syn().ack(1).mss(1460));
        assert_eq!(first.segment.sequence, second.segment.sequence);
        t.inject(seg().ack(1));
        assert!(t.stack.tcp_accept(listener).is_some());
        assert_eq!(t.stack.tcp_connections(), 1);
    }
}

#[test]
fn a_syn_is_sent_again_ever_more_rarely_until_the_open_fails() {
    let mut t = Script::new();
    let id = t.connect();
    let start = t.now;
    t.expect(seg().syn().seq(0));
    // The longest timeout is two minutes.
    t.pass(246_999);
    let times: Vec<u64> = t.take_sent().iter().map(|sent| (sent.at - start).as_millis() as u64).collect();
    assert_eq!(times, [1_000, 3_000, 7_000, 15_000, 31_000, 63_000, 127_000]);
    assert_eq!(t.state(id), State::SynSent);
    t.pass(1);
    t.expect_nothing();
    assert_eq!(t.stack.tcp_error(id), Some(Error::TimedOut));
}

#[test]
fn a_syn_ack_is_sent_again_until_the_half_open_connection_goes() {
    let mut t = Script::new();
    t.listen();
    t.inject(seg().seq(0).syn().mss(MSS));
    let start = t.now;
    t.expect(seg().seq(0).syn().ack(1));
    t.pass(62_999);
    assert_eq!(t.stack.tcp_connections(), 1);
    t.pass(1);
    let sent = t.take_sent();
    let times: Vec<u64> = sent.iter().map(|sent| (sent.at - start).as_millis() as u64).collect();
    assert_eq!(times, [1_000, 3_000, 7_000, 15_000, 31_000]);
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn data_on_a_syn_is_not_taken_and_comes_again() {
    let mut t = Script::new();
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS).data(0).bytes(b"early"));
    t.expect(seg().seq(0).syn().ack(1));
    t.inject(seg().ack(1).data(200));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!(t.read(id), 200);
}

#[test]
fn data_and_fin_may_come_with_the_acknowledgment_of_the_syn_ack() {
    let mut t = Script::new();
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS));
    t.expect(seg().seq(0).syn().ack(1));
    t.inject(seg().fin().ack(1).data(300));
    t.expect(seg().seq(1).ack(302));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!(t.state(id), State::CloseWait);
    assert_eq!(t.read(id), 300);
    assert_eq!(t.read_outcome(id), Ok(Some(0)));
}

#[test]
fn data_queued_in_syn_sent_goes_out_with_the_last_acknowledgment_of_the_handshake() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.write(id, 1_500);
    t.expect_nothing();
    t.inject(seg().syn().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1).data(1_000));
    // The rest is small, and Nagle's algorithm waits for the first acknowledgment.
    t.inject(seg().ack(1_001));
    t.expect(seg().psh().seq(1_001).ack(1).data(500));
    t.expect_nothing();
}

#[test]
fn closing_in_syn_sent_forgets_the_open_and_a_late_syn_ack_is_reset() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.close(id);
    t.expect_nothing();
    assert_eq!(t.stack.tcp_connections(), 0);
    t.inject(seg().syn().seq(0).ack(1));
    t.expect(seg().rst().seq(1));
}

#[test]
fn odd_segments_do_not_open_a_connection() {
    let odd: [(&str, Seg); 5] = [
        ("SYN and FIN", seg().seq(0).syn().fin()),
        ("SYN and RST", seg().seq(0).syn().rst()),
        ("no flags", seg().seq(0)),
        ("FIN alone", seg().seq(0).fin()),
        ("data alone", seg().data(10)),
    ];
    for (name, segment) in odd {
        let mut t = Script::new();
        t.listen();
        t.inject(segment);
        t.expect_nothing();
        assert_eq!(t.stack.tcp_connections(), 0, "{name}");
    }
}

/// The TCP header of a SYN with a right checksum, between these addresses and ports.
fn syn_packet(source: Ipv4Addr, source_port: u16, destination: Ipv4Addr) -> Vec<u8> {
    let mut tcp = vec![0; 20];
    tcp[0..2].copy_from_slice(&source_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&LOCAL_PORT.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 0x02;
    tcp[14..16].copy_from_slice(&[0xff, 0xff]);
    let mut sum =
        crate::wire::checksum::Checksum::pseudo_header(source.into(), destination.into(), 6, tcp.len());
    sum.add_bytes(&tcp);
    tcp[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    ip_packet(source, destination, 6, &tcp)
}

#[test]
fn a_syn_from_ourselves_to_ourselves_or_to_many_hosts_is_dropped() {
    let others = Ipv4Addr::new(192, 0, 2, 255);
    for (name, packet, answered) in [
        ("land", syn_packet(LOCAL, LOCAL_PORT, LOCAL), false),
        ("subnet broadcast", syn_packet(PEER, PEER_PORT, others), false),
        ("limited broadcast", syn_packet(PEER, PEER_PORT, Ipv4Addr::BROADCAST), false),
        ("multicast", syn_packet(PEER, PEER_PORT, Ipv4Addr::new(224, 0, 0, 1)), false),
        ("from a broadcast address", syn_packet(others, PEER_PORT, LOCAL), false),
        ("the same from one host to another", syn_packet(PEER, PEER_PORT, LOCAL), true),
    ] {
        let mut t = Script::new();
        t.listen();
        t.inject_frame(&packet);
        assert_eq!(!t.take_sent().is_empty(), answered, "{name}");
        assert_eq!(t.stack.tcp_connections(), usize::from(answered), "{name}");
    }
}

#[test]
fn a_segment_with_a_wrong_checksum_is_dropped() {
    let mut t = Script::new();
    t.listen();
    let mut frame = t.compose(&seg().seq(0).syn().mss(MSS));
    let last = frame.len() - 1;
    frame[last] ^= 1;
    t.inject_frame(&frame);
    t.expect_nothing();
    frame[last] ^= 1;
    t.inject_frame(&frame);
    t.expect(seg().seq(0).syn().ack(1));
}

#[test]
fn initial_sequence_numbers_go_on_from_one_connection_to_the_next() {
    let mut t = Script::new();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let id = t.connect();
        t.expect(seg().syn().seq(0));
        numbers.push(t.iss());
        t.close(id);
        t.pass(1_000);
    }
    // RFC 6528, section 3: the clock ticks every 4 microseconds.
    let steps: Vec<u32> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert_eq!(steps, [250_000, 250_000]);
}

#[test]
fn without_a_free_ephemeral_port_connecting_fails_until_one_is_given_back() {
    let mut t = Script::new();
    let mut bindings: Vec<_> =
        (32_768..=u16::MAX).map(|port| t.stack.tcp_bind(local(port)).unwrap()).collect();
    let connect =
        |t: &mut Script| t.stack.tcp_connect(t.now, &mut None, remote(PEER_PORT), &TcpOptions::default());
    assert_eq!(connect(&mut t), Err(Error::AddressNotAvailable));
    let free = bindings.swap_remove(12_345);
    let port = free.local().port();
    t.stack.tcp_unbind(free);
    let id = connect(&mut t).unwrap();
    assert_eq!(t.stack.tcp_local_address(id), Ok(local(port)));
    // One port serves many peers, but each peer once.
    assert_eq!(connect(&mut t), Err(Error::AddressNotAvailable));
    let elsewhere = t.stack.tcp_connect(t.now, &mut None, remote(PEER_PORT + 1), &TcpOptions::default());
    assert_eq!(elsewhere.map(|id| t.stack.tcp_local_address(id)), Ok(Ok(local(port))));
}

#[test]
fn connecting_where_nobody_can_be_is_refused_at_once_and_leaves_the_port_bound() {
    let mut t = Script::new();
    for to in ["0.0.0.0:80", "192.0.2.2:0", "224.0.0.1:80", "192.0.2.255:80", "255.255.255.255:80"] {
        let binding = t.stack.tcp_bind(local(LOCAL_PORT)).unwrap();
        let mut binding = Some(binding);
        let to: SocketAddr = to.parse().unwrap();
        let result = t.stack.tcp_connect(t.now, &mut binding, to, &TcpOptions::default());
        assert_eq!(result, Err(Error::InvalidArgument), "{to}");
        let binding = binding.expect("the program still has its port");
        assert_eq!(t.stack.tcp_bind(local(LOCAL_PORT)), Err(Error::AddressInUse), "{to}");
        t.stack.tcp_unbind(binding);
    }
    t.connect();
    t.expect(seg().syn().seq(0));
}

#[test]
fn a_second_connection_between_the_same_ends_is_refused() {
    let mut t = Script::new();
    t.connect();
    let options = TcpOptions::default();
    assert_eq!(t.try_connect(&options).err(), Some(Error::AddressInUse));
}

#[test]
fn a_slow_handshake_gives_the_first_round_trip_time() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.pass(400);
    t.inject(seg().syn().seq(0).ack(1).mss(MSS));
    let info = t.info(id);
    assert_eq!(info.srtt_ns.map(Duration::from_nanos), Some(Duration::from_millis(400)));
    // RFC 6298, section 2.2: SRTT + 4 * SRTT / 2.
    assert_eq!(Duration::from_nanos(info.rto_ns), Duration::from_millis(1_200));
}
