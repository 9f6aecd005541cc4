//! Keeps the other end busy: so many datagrams under way, each sent anew when it comes back.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant as Time};

use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::runtime::{RxBatch, TxOffload};
use catnip_os::libos::{Arena, FrameBatch, Instant, Runtime};
use catnip_os::runtime_dpdk::Dpdk;

use super::echo::{ADDRESS, PORT, STOP};
use super::{GENERATOR_CPU, client_device, open_port, pin};
use crate::scenario::Failure;

pub const REGION_BYTES: usize = 64 << 20;

const MEASURED_FOR: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);

/// Datagrams under way: enough that the other end always finds a burst.
const WINDOW: usize = 256;

/// When nothing has come for so long, what was under way is lost.
const LOST_AFTER: Duration = Duration::from_millis(20);

const OUR_ADDRESS: [u8; 4] = [10, 9, 0, 2];
const ETHERNET_BYTES: usize = 14;
const ARP_OPERATION_AT: usize = 21;
const BROADCAST: [u8; 6] = [0xff; 6];

struct Generator {
    dpdk: Dpdk,
    arena: Arena,
    mac: [u8; 6],
    batch: FrameBatch,
}

/// Prints how many packets a second came back.
pub fn generate(socket: &Path, payload_bytes: usize) -> Result<(), Failure> {
    pin(GENERATOR_CPU)?;
    let end = Time::now() + Duration::from_secs(10);
    while !socket.exists() && Time::now() < end {
        sleep(Duration::from_millis(5));
    }
    let port = open_port(&client_device(socket))?;
    let arena = port.arena(&ArenaConfig { region_bytes: REGION_BYTES, hugepages: true })?;
    let queue = port.into_queues().pop().ok_or("the port has no queue")?;
    let dpdk = Dpdk::new(queue, &arena)?;
    let mac = dpdk.capabilities().hardware_address;
    let mut generator = Generator { dpdk, arena, mac, batch: FrameBatch::new() };
    let peer = generator.resolve()?;
    generator.keep_busy(&datagram(mac, peer, payload_bytes, 0), WARM_UP)?;
    let rate = generator.keep_busy(&datagram(mac, peer, payload_bytes, 0), MEASURED_FOR)?;
    for _ in 0..10 {
        generator.push(&datagram(mac, peer, payload_bytes, STOP))?;
        generator.flush()?;
        sleep(Duration::from_millis(2));
    }
    println!("{rate}");
    // Until whoever started this lets go.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

impl Generator {
    fn push(&mut self, frame: &[u8]) -> Result<(), Failure> {
        self.batch.push(self.arena.copy_from(frame).ok_or("no memory")?.freeze());
        self.batch.finish(TxOffload::default());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.dpdk.transmit(Instant::ZERO, &mut self.batch)?)
    }

    /// The other end's Ethernet address. One that only forwards sends the question back, which will do.
    fn resolve(&mut self) -> Result<[u8; 6], Failure> {
        let end = Time::now() + Duration::from_secs(10);
        while Time::now() < end {
            self.push(&arp(1, self.mac, BROADCAST, [0; 6]))?;
            self.flush()?;
            sleep(Duration::from_millis(10));
            let mut frames = RxBatch::new();
            self.dpdk.receive(Instant::ZERO, &mut frames)?;
            for frame in &frames {
                if is_arp(&frame.head)
                    && let Some(from) = frame.head.get(6..12).and_then(|bytes| bytes.try_into().ok())
                {
                    return Ok(from);
                }
            }
        }
        Err("the other end does not answer".into())
    }

    /// Keeps so many frames under way; returns how many a second came back.
    fn keep_busy(&mut self, frame: &[u8], duration: Duration) -> Result<f64, Failure> {
        let begin = Time::now();
        let (mut returned, mut under_way) = (0_u64, 0);
        let mut last = begin;
        let mut now = begin;
        while now < begin + duration {
            while under_way < WINDOW {
                self.push(frame)?;
                under_way += 1;
            }
            self.flush()?;
            let mut frames = RxBatch::new();
            self.dpdk.receive(Instant::ZERO, &mut frames)?;
            now = Time::now();
            if frames.is_empty() {
                if now > last + LOST_AFTER {
                    (under_way, last) = (0, now);
                }
                continue;
            }
            last = now;
            for frame in frames {
                if is_arp(&frame.head) {
                    self.answer(&frame.head)?;
                } else {
                    returned += 1;
                    under_way = under_way.saturating_sub(1);
                }
            }
        }
        Ok(returned as f64 / begin.elapsed().as_secs_f64())
    }

    fn answer(&mut self, request: &[u8]) -> Result<(), Failure> {
        let from = request.get(6..12).and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        match (request.get(ARP_OPERATION_AT), from) {
            (Some(1), Some(from)) if from != self.mac => self.push(&arp(2, self.mac, from, from)),
            _ => Ok(()),
        }
    }
}

fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x06])
}

/// A request (1) or a reply (2) of RFC 826.
fn arp(operation: u8, mac: [u8; 6], to: [u8; 6], target: [u8; 6]) -> Vec<u8> {
    let head = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation];
    [&to[..], &mac, &head, &mac, &OUR_ADDRESS, &target, &ADDRESS].concat()
}

/// A UDP datagram without a checksum, which RFC 768 allows on IPv4.
fn datagram(mac: [u8; 6], peer: [u8; 6], payload_bytes: usize, first: u8) -> Vec<u8> {
    let ip_bytes = (20 + 8 + payload_bytes) as u16;
    let mut frame = [&peer[..], &mac, &[0x08, 0, 0x45, 0], &ip_bytes.to_be_bytes()].concat();
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&OUR_ADDRESS);
    frame.extend_from_slice(&ADDRESS);
    let pairs = frame[ETHERNET_BYTES..].chunks(2);
    let sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[ETHERNET_BYTES + 10..ETHERNET_BYTES + 12].copy_from_slice(&checksum.to_be_bytes());
    for field in [4000, PORT, 8 + payload_bytes as u16, 0] {
        frame.extend_from_slice(&field.to_be_bytes());
    }
    frame.push(first);
    frame.resize(frame.len() + payload_bytes - 1, 0);
    frame
}
