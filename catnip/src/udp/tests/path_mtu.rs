//! Datagrams larger than their path, and what the sender wants done about them.

use libos::PathMtuDiscovery::{Always, Never, Probe, Wanted};
use libos::SocketOption::PathMtuDiscovery;

use super::*;
use crate::network::testing::{framed, icmp_message, ip_packet};

/// Router's message to host 1 that packets from port 5000 to port 7 of host 2 are to have at most 1300 bytes.
fn too_big(v6_family: bool) -> Vec<u8> {
    let (one, two): (IpAddr, IpAddr) =
        if v6_family { (v6(1).into(), v6(2).into()) } else { (v4(1).into(), v4(2).into()) };
    let quoted = ip_packet(one, two, 17, &[0x13, 0x88, 0, 7, 0, 9, 0, 0, 1]);
    let body = [&[0, 0, 5, 20][..], &quoted].concat();
    let (protocol, kind, code) = if v6_family { (58, 2, 0) } else { (1, 3, 4) };
    framed(&ip_packet(two, one, protocol, &icmp_message(two, one, kind, code, &body)))
}

/// Lengths of the packets that a datagram of so much data becomes, and whether the first may be cut further.
fn packets(
    host: &mut Host,
    id: UdpId,
    to: Option<SocketAddr>,
    len: usize,
) -> Result<(Vec<usize>, bool), Error> {
    introduce(&mut host.network, NOW);
    host.send(id, to, &vec![0; len])?;
    let frames = take_frames(&mut host.network);
    let lengths = frames.iter().map(|frame| frame.bytes.len() - 14).collect();
    Ok((lengths, frames[0].bytes[14] == 0x45 && frames[0].bytes[20] & 0x40 == 0))
}

#[test]
fn each_kind_of_discovery_does_what_it_says() {
    for connected in [true, false] {
        for (discovery, told, sent_1300, sent_1301, sent_1501) in [
            (Never, None, Ok((vec![1300], true)), Ok((vec![1301], true)), Ok((vec![1500, 21], true))),
            (
                Wanted,
                Some(Error::MessageTooLong),
                Ok((vec![1300], false)),
                Ok((vec![1300, 21], true)),
                Ok((vec![1300, 221], true)),
            ),
            (
                Always,
                Some(Error::MessageTooLong),
                Ok((vec![1300], false)),
                Err(Error::MessageTooLong),
                Err(Error::MessageTooLong),
            ),
            (Probe, None, Ok((vec![1300], false)), Ok((vec![1301], false)), Err(Error::MessageTooLong)),
        ] {
            let mut one = Host::new(1);
            one.network.poll(NOW);
            let client = one.bind((v4(1), 5000));
            one.set(client, PathMtuDiscovery(discovery)).unwrap();
            let to = if connected {
                one.connect(client, (v4(2), 7)).unwrap();
                None
            } else {
                Some((v4(2), 7).into())
            };
            packets(&mut one, client, to, 1).unwrap();
            let ingress = receive(&mut one.network, NOW, &too_big(false));
            one.take(ingress);
            assert_eq!(one.udp.receive(client).err(), told.filter(|_| connected), "{discovery:?}");
            for (len, expected) in [(1300, sent_1300), (1301, sent_1301), (1501, sent_1501)] {
                let sent = packets(&mut one, client, to, len - 28);
                assert_eq!(sent, expected, "{discovery:?} {len} connected {connected}");
            }
            let mtu = one.udp.option(client, SocketOptionName::PathMtu);
            let expected = if discovery.follows_the_path() { 1300 } else { 1500 };
            let known = SocketOption::PathMtu(expected);
            assert_eq!(mtu, if connected { Ok(known) } else { Err(Error::NotConnected) });
        }
    }
}

#[test]
fn in_ipv6_only_the_sender_cuts() {
    let mut one = Host::new(1);
    one.network.poll(NOW);
    let client = one.bind((v6(1), 5000));
    let to = Some((v6(2), 7).into());
    assert_eq!(packets(&mut one, client, to, 1452), Ok((vec![1500], false)));
    let ingress = receive(&mut one.network, NOW, &too_big(true));
    one.take(ingress);
    assert_eq!(packets(&mut one, client, to, 1452), Ok((vec![1296, 260], false)));
}
