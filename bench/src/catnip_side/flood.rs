//! A flood of SYNs at a listener whose backlog is full: what each costs before it is answered with a cookie, which is all
//! that it gets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use catnip_os::catnip::{Stack, StackConfig};
use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::runtime::{Capabilities, Medium, RxChecksum, TxChecksum};
use catnip_os::libos::{Arena, Instant, RxFrame};

use crate::scenario::{Failure, Subject};

const PORT: u16 = 7_000;
const BACKLOG: usize = 64;
/// Half-open connections have to fill the backlog for twice this before there are cookies.
const BEFORE_COOKIES: Duration = Duration::from_millis(100);
/// SYNs come at this distance.
const STEP: Duration = Duration::from_micros(1);
const IPV4_HEADER_BYTES: usize = 20;
const TCP_HEADER_BYTES: usize = 20;
/// Options of a usual SYN: MSS, permission of selective acknowledgments, timestamp, scale.
const OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
const SYN_BYTES: usize = IPV4_HEADER_BYTES + TCP_HEADER_BYTES + OPTIONS.len();

/// A victim, and who floods it.
pub struct Flood {
    victim: Stack,
    arena: Arena,
    now: Instant,
    syns: u32,
}

impl Flood {
    pub fn new() -> Result<Self, Failure> {
        let device = Capabilities {
            medium: Medium::Ip,
            hardware_address: [0; 6],
            mtu: 1_500,
            tx_checksum: TxChecksum::Unneeded,
            tcp_segmentation_bytes: 0,
            max_segments: 19,
        };
        let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false })?;
        let config = StackConfig::new(device).with_address("10.0.0.2/8".parse()?);
        let now = Instant::from_millis(1);
        let mut victim = Stack::new(&config, arena.clone(), 1, now)?;
        let options = victim.default_tcp_options().clone();
        let binding = victim.tcp_bind(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), PORT)))?;
        victim.tcp_listen(binding, BACKLOG, &options)?;
        let mut flood = Self { victim, arena, now, syns: 0 };
        for _ in 0..4 * BACKLOG {
            flood.send()?;
        }
        for _ in 0..4 {
            flood.now += BEFORE_COOKIES;
            flood.send()?;
        }
        flood.run(1_000)?;
        Ok(flood)
    }

    /// A SYN arrives. Returns how many answers leave.
    fn send(&mut self) -> Result<usize, Failure> {
        self.now += STEP;
        self.syns = self.syns.wrapping_add(1);
        let frame = self.arena.copy_from(&syn(self.syns)).ok_or("no memory for a frame")?.freeze();
        let frame = RxFrame { checksum: RxChecksum::Verified, ..RxFrame::from(frame) };
        self.victim.receive(self.now, frame);
        self.victim.poll(self.now);
        let answers = self.victim.frames().len();
        self.victim.frames().clear();
        Ok(answers)
    }
}

/// A SYN from one of millions of addresses.
fn syn(number: u32) -> [u8; SYN_BYTES] {
    let mixed = number.wrapping_mul(2_654_435_761);
    let mut packet = [0; SYN_BYTES];
    let [_, a, b, c] = mixed.to_be_bytes();
    packet[..12].copy_from_slice(&[0x45, 0, 0, SYN_BYTES as u8, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet[12..20].copy_from_slice(&[10, a | 1, b, c, 10, 0, 0, 2]);
    let sum: u32 = packet[..IPV4_HEADER_BYTES]
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let tcp = &mut packet[IPV4_HEADER_BYTES..];
    tcp[..2].copy_from_slice(&(1_024 | mixed as u16).to_be_bytes());
    tcp[2..4].copy_from_slice(&PORT.to_be_bytes());
    tcp[4..8].copy_from_slice(&mixed.to_be_bytes());
    tcp[12..16].copy_from_slice(&[((SYN_BYTES - IPV4_HEADER_BYTES) as u8 / 4) << 4, 2, 0x20, 0]);
    tcp[TCP_HEADER_BYTES..].copy_from_slice(&OPTIONS);
    packet
}

impl Subject for Flood {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let before = self.victim.tcp_counters().syn_cookies_sent;
        let mut answers = 0;
        for _ in 0..rounds {
            answers += self.send()?;
        }
        let cookies = self.victim.tcp_counters().syn_cookies_sent - before;
        if cookies != rounds || answers as u64 > rounds + 5 * BACKLOG as u64 {
            return Err(format!("{cookies} cookies in {answers} answers to {rounds} SYNs").into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_syn_of_the_flood_is_answered_with_a_cookie() {
        Flood::new().unwrap().run(2_000).unwrap();
    }
}
