//! What a host answers to somebody who may not be who he says: never much more than he sent, as it may be all that
//! somebody else gets (RFC 4732, section 3.1).

use std::net::SocketAddr;
use std::time::Duration;

use libos::runtime::Medium;

use super::PORT;
use crate::host::{HostConfig, Kind, address};
use crate::raw::{ACK, FIN, RST, RawPeer, SYN, Tcp, Udp};
use crate::world::World;

/// A victim that listens, and somebody who sends to it with another's address.
struct Reflector {
    world: World,
    spoofer: RawPeer,
    sent_bytes: usize,
    received_bytes: usize,
}

const BACKLOG: usize = 64;
const CLOSED_PORT: u16 = 7;
/// Packets of a flood, in so many steps.
const FLOOD: u32 = 10_000;
const STEPS: u32 = 100;
const STEP: Duration = Duration::from_millis(10);
/// Long enough for all that is sent again.
const AFTERMATH: Duration = Duration::from_secs(300);
/// An MSS of 1460 bytes.
const MSS: [u8; 4] = [2, 4, 5, 180];

impl Reflector {
    fn new() -> Self {
        let mut world = World::new(Medium::Ip, 1, &[HostConfig::new(Kind::Catnip, 1)]);
        let spoofer = RawPeer::new(&world.fabric, Medium::Ip, 9);
        let _ = world.host(0).listen(PORT, BACKLOG);
        Self { world, spoofer, sent_bytes: 0, received_bytes: 0 }
    }

    fn segment(&self, to_port: u16, flags: u8, number: u32, options: &[u8]) -> Vec<u8> {
        self.spoofer.tcp(&Tcp {
            to: SocketAddr::new(address(1, false), to_port),
            from_port: (number % 60_000) as u16 + 1_000,
            sequence: number.wrapping_mul(2_654_435_761),
            acknowledgement: number.wrapping_mul(40_503),
            flags,
            window: 10_000,
            options,
            payload: &[],
        })
    }

    fn send(&mut self, packet: &[u8]) {
        self.sent_bytes += packet.len();
        self.world.fabric.inject(self.spoofer.port(), packet);
    }

    fn pass(&mut self, time: Duration) {
        self.world.run_for(time);
        self.received_bytes += self.spoofer.received_bytes();
    }

    /// Hundredths of what was sent that came back in all.
    fn answered_percent(mut self) -> usize {
        self.pass(AFTERMATH);
        self.received_bytes * 100 / self.sent_bytes
    }

    /// The same for a flood of packets, of which `packet` makes each.
    fn flooded_percent(packet: impl Fn(&Self, u32) -> Vec<u8>) -> usize {
        let mut reflector = Self::new();
        for number in 0..FLOOD {
            let packet = packet(&reflector, number);
            reflector.send(&packet);
            if number % (FLOOD / STEPS) == 0 {
                reflector.pass(STEP);
            }
        }
        reflector.answered_percent()
    }
}

#[test]
fn one_syn_is_answered_no_more_often_than_a_lost_answer_has_to_be() {
    let mut reflector = Reflector::new();
    let syn = reflector.segment(PORT, SYN, 1, &MSS);
    reflector.send(&syn);
    let percent = reflector.answered_percent();
    // Sent, and five times again (RFC 9293, section 3.8.1).
    assert!((100..=600).contains(&percent), "{percent} %");
}

#[test]
fn a_flood_from_somebody_elses_address_is_never_answered_with_much_more() {
    let tcp = |port: u16, flags: u8| {
        Reflector::flooded_percent(move |reflector, number| {
            let options: &[u8] = if flags == SYN { &MSS } else { &[] };
            reflector.segment(port, flags, number, options)
        })
    };
    // One cookie for a SYN, and what fills the backlog a few times.
    let syns = tcp(PORT, SYN);
    assert!((50..=110).contains(&syns), "SYNs: {syns} %");
    for (what, port, flags) in [
        ("acknowledgments to a listener", PORT, ACK),
        ("SYNs to a closed port", CLOSED_PORT, SYN),
        ("ends of no connection", CLOSED_PORT, FIN | ACK),
        ("SYN-ACKs of no connection", PORT, SYN | ACK),
    ] {
        let percent = tcp(port, flags);
        assert!(percent <= 100, "{what}: {percent} %");
    }
    assert_eq!(tcp(PORT, RST | ACK), 0, "resets");
    let datagrams = Reflector::flooded_percent(|reflector, _| {
        reflector.spoofer.udp(&Udp { to: address(1, false), ports: (9, CLOSED_PORT), payload: &[1] })
    });
    // Each error is larger than the datagram, but there are few.
    assert!((1..=50).contains(&datagrams), "datagrams to a closed port: {datagrams} %");
}
