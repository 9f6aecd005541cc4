//! `ping`, as the kernel does it.

use std::fs;
use std::io::Read;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

use crate::link::{self, Family, PATIENCE};
use crate::namespace;
use crate::noise::Noise;

const HEADER_BYTES: usize = 8;

/// Type of an echo request and of the reply.
const fn types(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 129),
    }
}

/// Sends an echo request and returns the reply's type and data. The kernel sees to checksum and identifier.
fn ping(family: Family, data: &[u8]) -> (u8, Vec<u8>) {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
        Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(&family.catnip(0).into()).unwrap();
    let mut request = vec![types(family).0, 0, 0, 0, 0, 0, 0, 1];
    request.extend(data);
    socket.send(&request).unwrap();
    let mut reply = vec![0; 2048];
    let len = (&socket).read(&mut reply).unwrap();
    reply.truncate(len);
    assert_eq!(reply[6..8], [0, 1], "the sequence number");
    (reply[0], reply[HEADER_BYTES..].to_vec())
}

#[test]
fn echo_requests_of_all_sizes_are_answered() {
    namespace::enter("-Urn", || {
        // Who may ping without privileges: the only group there is in here.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        for offload in [true, false] {
            let libos = link::open(&link::config().set("tap.offload", offload));
            let pings = thread::spawn(|| {
                for family in Family::BOTH {
                    for len in [0, 1, 56, 1000, 1452] {
                        let data = Noise::bytes(len as u64, len);
                        assert!(ping(family, &data) == (types(family).1, data), "{family:?}, {len} bytes");
                    }
                }
            });
            link::drive_until_joined(&libos, pings);
        }
    });
}
