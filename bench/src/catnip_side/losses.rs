//! One connection with so many segments in flight of which one in a hundred is lost: what a segment and its
//! acknowledgment cost both ends while losses are found and repaired.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use catnip_os::catnip::events::ConnectionId;
use catnip_os::catnip::tcp::TcpOptions;
use catnip_os::catnip::tcp::congestion::{
    AckEvent, Algorithm, CongestionControl, CustomAlgorithm, LossEvent,
};
use catnip_os::catnip::{Stack, StackConfig};
use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::runtime::{Capabilities, Medium, RxChecksum, TxChecksum};
use catnip_os::libos::{Arena, Buffer, Instant, PopLimit, RxFrame, ScatterGather};

use crate::scenario::{Failure, Scenario, Subject};

/// Of so many frames with data one is lost, retransmissions among them.
const LOSE_EVERY: u64 = 100;
/// Payload of a segment: a packet of 1500 bytes less headers and timestamps.
const SEGMENT_BYTES: u32 = 1_448;
/// Frames with data leave the path at this distance.
const STEP: Duration = Duration::from_micros(1);
/// What the program writes at a time.
const CHUNK_BYTES: usize = 64 << 10;
const PORT: u16 = 7_000;

/// A congestion window that stays: what is in flight is the benchmark's choice.
#[derive(Debug)]
struct FixedWindow<const SEGMENTS: u32>;

impl<const SEGMENTS: u32> FixedWindow<SEGMENTS> {
    const ALGORITHM: Algorithm =
        Algorithm::Custom(CustomAlgorithm { name: "fixed", start: || Box::new(Self) });
}

impl<const SEGMENTS: u32> CongestionControl for FixedWindow<SEGMENTS> {
    fn name(&self) -> &'static str {
        "fixed"
    }
    fn on_established(&mut self, _mss_bytes: u32, _now: Instant) {}
    fn on_mss_change(&mut self, _mss_bytes: u32) {}
    fn on_ack(&mut self, _event: &AckEvent) {}
    fn on_loss(&mut self, _event: &LossEvent) {}
    fn on_recovery_exit(&mut self, _bytes_in_flight: u32, _now: Instant) {}
    fn on_timeout(&mut self, _bytes_in_flight: u32, _first: bool, _now: Instant) {}
    fn on_idle(&mut self, _now: Instant) {}
    fn cwnd_bytes(&self) -> u32 {
        SEGMENTS * SEGMENT_BYTES
    }
    fn ssthresh_bytes(&self) -> u32 {
        u32::MAX
    }
}

/// A sender, a receiver, and a path that holds what is in flight between them.
pub struct Losses {
    sender: Stack,
    receiver: Stack,
    arena: Arena,
    now: Instant,
    from: ConnectionId,
    to: ConnectionId,
    chunk: Buffer,
    segments: usize,
    /// Frames with data on their way.
    path: VecDeque<Vec<Buffer>>,
    carried: u64,
}

fn stack(arena: &Arena, host: u8, scenario: &Scenario) -> Result<Stack, Failure> {
    let device = Capabilities {
        medium: Medium::Ip,
        hardware_address: [0; 6],
        mtu: 1_500,
        tx_checksum: TxChecksum::Unneeded,
        tcp_segmentation_bytes: 0,
        max_segments: 19,
    };
    let mut config = StackConfig::new(device).with_address(format!("10.0.0.{host}/24").parse()?);
    // Four windows: a hole lasts for one, and its repair may be lost too.
    let window_bytes = 4 * scenario.segments_in_flight as usize * SEGMENT_BYTES as usize + (256 << 10);
    let options = &mut config.tcp.options;
    options.send_buffer_bytes = window_bytes;
    options.send_buffer_max_bytes = window_bytes;
    options.receive_buffer_bytes = window_bytes;
    options.receive_buffer_max_bytes = window_bytes;
    options.congestion = match scenario.segments_in_flight {
        10 => FixedWindow::<10>::ALGORITHM,
        1_000 => FixedWindow::<1_000>::ALGORITHM,
        30_000 => FixedWindow::<30_000>::ALGORITHM,
        other => return Err(format!("no window of {other} segments is prepared").into()),
    };
    config.tcp.max_out_of_order_bytes = 1 << 30;
    Ok(Stack::new(&config, arena.clone(), host.into(), Instant::from_millis(1))?)
}

impl Losses {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let arena = Arena::new(&ArenaConfig { region_bytes: 1 << 30, hugepages: false })?;
        let mut sender = stack(&arena, 1, scenario)?;
        let mut receiver = stack(&arena, 2, scenario)?;
        let now = Instant::from_millis(1);
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), PORT));
        let options = |stack: &Stack| stack.default_tcp_options().clone();
        let listening = options(&receiver);
        let binding = receiver.tcp_bind(address)?;
        let listener = receiver.tcp_listen(binding, 4, &listening)?;
        let connecting: TcpOptions = options(&sender);
        let from = sender.tcp_connect(now, &mut None, address, &connecting)?;
        let mut ends = [&mut sender, &mut receiver];
        for _ in 0..4 {
            let [from, to] = &mut ends;
            from.poll(now);
            while let Some(frame) = take_frame(from) {
                to.receive(now, received(&arena, &frame)?);
            }
            ends.swap(0, 1);
        }
        let (to, _) = receiver.tcp_accept(listener).ok_or("the connection does not stand")?;
        let chunk = arena.copy_from(&[0x5a; CHUNK_BYTES]).ok_or("no memory")?.freeze();
        let segments = scenario.segments_in_flight as usize;
        let path = VecDeque::with_capacity(2 * segments);
        let mut losses = Self { sender, receiver, arena, now, from, to, chunk, segments, path, carried: 0 };
        losses.run(4 * segments as u64 + 1_000)?;
        Ok(losses)
    }

    /// Writes as much as there is room for, and has the sender send what it may.
    fn send(&mut self) -> Result<(), Failure> {
        while self.sender.tcp_send(self.from, &mut ScatterGather::from(self.chunk.clone()))? == CHUNK_BYTES {}
        self.sender.poll(self.now);
        while let Some(frame) = take_frame(&mut self.sender) {
            self.path.push_back(frame);
        }
        Ok(())
    }

    /// The oldest frame on the path arrives, or does not, and is answered.
    fn carry(&mut self) -> Result<(), Failure> {
        let Some(frame) = self.path.pop_front() else {
            // All is lost: whoever waits for that does so until a deadline.
            self.now = self.sender.next_deadline().ok_or("nothing is in flight and nobody waits")?;
            return Ok(());
        };
        self.now += STEP;
        self.carried += 1;
        if self.carried.is_multiple_of(LOSE_EVERY) {
            return Ok(());
        }
        self.receiver.receive(self.now, received(&self.arena, &frame)?);
        drop(frame);
        self.receiver.poll(self.now);
        while self.receiver.tcp_receive(self.to, PopLimit::default())?.is_some_and(|data| !data.is_empty()) {}
        self.receiver.poll(self.now);
        while let Some(answer) = take_frame(&mut self.receiver) {
            self.sender.receive(self.now, received(&self.arena, &answer)?);
        }
        Ok(())
    }
}

/// The oldest frame that a stack wants to send.
fn take_frame(stack: &mut Stack) -> Option<Vec<Buffer>> {
    let frame = stack.frames().front()?.segments.to_vec();
    stack.frames().pop_front();
    Some(frame)
}

/// A frame as the other side's device hands it up.
fn received(arena: &Arena, frame: &[Buffer]) -> Result<RxFrame, Failure> {
    let mut bytes = Vec::with_capacity(1_500);
    frame.iter().for_each(|segment| bytes.extend_from_slice(segment));
    let buffer = arena.copy_from(&bytes).ok_or("no memory for a frame")?.freeze();
    Ok(RxFrame { checksum: RxChecksum::Verified, ..RxFrame::from(buffer) })
}

impl Subject for Losses {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        for _ in 0..rounds {
            self.send()?;
            self.carry()?;
        }
        let in_flight = self.path.len();
        // Of ten a moment's loss is a tenth, and a repair is in flight beside new data.
        if in_flight < self.segments / 2 || in_flight > self.segments * 2 {
            return Err(
                format!("{in_flight} segments are in flight in the place of {}", self.segments).into()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Work;

    #[test]
    fn the_path_stays_full_while_one_in_a_hundred_is_lost_and_repaired() {
        for segments_in_flight in [10, 1_000] {
            let scenario = Scenario { segments_in_flight, ..Scenario::of(Work::Losses) };
            let mut losses = Losses::new(&scenario).unwrap();
            losses.run(2_000).unwrap();
            let counters = losses.sender.tcp_counters();
            let resent = counters.retransmitted_segments * LOSE_EVERY;
            assert!((losses.carried * 8 / 10..losses.carried * 2).contains(&resent), "{counters:?}");
            assert!(counters.retransmission_timeouts <= 1, "{counters:?}");
        }
    }
}
