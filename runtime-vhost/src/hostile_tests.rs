//! Peers that break the rules: in the control protocol, in the rings, in the memory that they share.
#![allow(unsafe_code, reason = "what a peer does to shared memory")]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant as WallInstant};

use libos::memory::{ArenaConfig, Region};
use libos::runtime::{RxBatch, TxOffload};
use libos::{Arena, Error, FrameBatch, Instant, Runtime, SetupError};
use proptest::prelude::*;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::features::Features;
use crate::link::{event_fd, lock};
use crate::ring::{Access, DriverRing, Piece, Position, RingKind, RingMemory, RingOptions};
use crate::{Vhost, VhostConfig, VhostQueue, VhostRole};

mod back_ends;
mod memory;
mod visitors;

const RING_SIZE: u16 = 16;
/// Far enough apart for each area of a ring, and for each ring.
const AREA_BYTES: usize = 0x1000;
const RING_BYTES: usize = 4 * AREA_BYTES;
/// Where frames are.
const FRAMES_AT: usize = 2 * RING_BYTES;
const REGION_BYTES: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

fn config(role: VhostRole, ring: RingKind) -> VhostConfig {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let socket: PathBuf = std::env::temp_dir().join(format!("catnip-hostile-{}-{next}", std::process::id()));
    VhostConfig { ring, queue_size: RING_SIZE, wait_for_peer: PATIENCE, ..VhostConfig::new(socket, role) }
}

fn arena() -> Arena {
    Arena::new(&ArenaConfig { region_bytes: 8 << 20, hugepages: false }).unwrap()
}

fn connect(config: &VhostConfig) -> UnixStream {
    let deadline = WallInstant::now() + PATIENCE;
    loop {
        match UnixStream::connect(&config.socket) {
            Ok(stream) => return stream,
            Err(error) => assert!(WallInstant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A front end that does what a test wants.
struct Imposter {
    frontend: Frontend,
    region: Region,
    features: Features,
    events: Vec<EventFd>,
}

impl Imposter {
    /// Connects, and agrees on features.
    fn new(config: &VhostConfig) -> Self {
        let mut frontend = Frontend::from_stream(connect(config), 2);
        let offered = frontend.get_features().unwrap();
        let features = Features::accepted(config, offered).unwrap();
        let known = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        frontend.set_protocol_features(known & wanted).unwrap();
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_features(features.0).unwrap();
        let region = Region::map_shared(REGION_BYTES).unwrap();
        let events = (0..4).map(|_| event_fd().unwrap()).collect();
        Self { frontend, region, features, events }
    }

    fn address(&self, at: usize) -> u64 {
        self.region.base().as_ptr() as u64 + at as u64
    }

    fn memory(&self, bytes: usize, file: &impl AsRawFd) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.address(0),
            memory_size: bytes as u64,
            userspace_addr: self.address(0),
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        }
    }

    fn share(&self) {
        let memory = self.memory(REGION_BYTES, &self.region.shared_fd().unwrap());
        self.frontend.set_mem_table(&[memory]).unwrap();
    }

    /// Sets ring `index` up at `at`, with its event descriptors, and starts it.
    fn start(&mut self, index: usize, at: usize, call: &EventFd) -> vhost::Result<()> {
        let base = match self.features.ring_kind() {
            RingKind::Split => 0,
            RingKind::Packed => 0x8000,
        };
        let addresses = VringConfigData {
            queue_max_size: RING_SIZE,
            queue_size: RING_SIZE,
            flags: 0,
            desc_table_addr: self.address(at),
            avail_ring_addr: self.address(at + AREA_BYTES),
            used_ring_addr: self.address(at + 2 * AREA_BYTES),
            log_addr: None,
        };
        self.frontend.set_vring_num(index, RING_SIZE)?;
        self.frontend.set_vring_base(index, base)?;
        self.frontend.set_vring_addr(index, &addresses)?;
        self.frontend.set_vring_call(index, call)?;
        self.frontend.set_vring_kick(index, &self.events[index])?;
        self.frontend.set_vring_enable(index, true)
    }

    fn start_all(&mut self) {
        for index in 0..2 {
            let call = self.events[2 + index].try_clone().unwrap();
            self.start(index, index * RING_BYTES, &call).unwrap();
        }
    }

    /// The driver's end of ring `index`.
    fn driver(&self, index: usize) -> DriverRing {
        let first = index * RING_BYTES;
        // SAFETY: within the region, which outlives the ring in these tests.
        let areas = [0, 1, 2].map(|area| unsafe { self.region.base().add(first + area * AREA_BYTES) });
        let options = RingOptions {
            kind: self.features.ring_kind(),
            size: RING_SIZE,
            event_index: self.features.has_event_index(),
        };
        // SAFETY: as above; the other end uses atomic operations of the same widths.
        let memory = unsafe { RingMemory::new(areas, options.kind, RING_SIZE, Box::new(())) };
        DriverRing::new(memory.unwrap(), &options)
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= REGION_BYTES);
        // SAFETY: within the region.
        unsafe { self.region.base().as_ptr().add(at).copy_from(bytes.as_ptr(), bytes.len()) };
    }
}

/// A back end that our code is, and a front end that a test is.
fn back_with_imposter(ring: RingKind) -> (Vhost, Imposter, Arena) {
    let config = config(VhostRole::Back, ring);
    let opening = thread::spawn({
        let config = config.clone();
        move || VhostQueue::open(&config)
    });
    let mut imposter = Imposter::new(&config);
    imposter.share();
    imposter.start_all();
    let queue = opening.join().unwrap().unwrap().pop().unwrap();
    let arena = arena();
    (Vhost::new(queue, &arena).unwrap(), imposter, arena)
}

/// What opening a back end comes to when its front end does `this`.
fn refusal(this: impl FnOnce(Imposter, &VhostConfig)) -> String {
    let config = config(VhostRole::Back, RingKind::Split);
    let opening = thread::spawn({
        let config = config.clone();
        move || VhostQueue::open(&config).map(drop)
    });
    this(Imposter::new(&config), &config);
    match opening.join().unwrap() {
        Err(SetupError::Device { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn plain_file(bytes: u64) -> File {
    // SAFETY: the name is a C string.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC)) };
    file.set_len(bytes).unwrap();
    file
}

#[test]
fn a_ring_outside_the_memory_is_refused() {
    let reason = refusal(|mut imposter, _| {
        imposter.share();
        let call = event_fd().unwrap();
        imposter.start(0, REGION_BYTES - AREA_BYTES, &call).unwrap_err();
    });
    assert!(reason.contains("a ring outside the memory"), "{reason}");
}

#[test]
fn rings_of_sizes_that_no_ring_has_are_refused() {
    for size in [0, 3, 24, 8192] {
        let reason = refusal(|imposter, _| {
            imposter.share();
            imposter.frontend.set_vring_num(0, size).unwrap_err();
        });
        assert!(reason.contains(&format!("rings of {size} descriptors")), "{reason}");
    }
}

#[test]
fn descriptors_that_could_block_us_are_refused() {
    let reason = refusal(|mut imposter, _| {
        imposter.share();
        let (pipe, _other) = UnixStream::pair().unwrap();
        // SAFETY: the descriptor is a copy that nobody else has.
        let call = unsafe { EventFd::from_raw_fd(libc::dup(pipe.as_raw_fd())) };
        imposter.start(0, 0, &call).unwrap_err();
    });
    assert!(reason.contains("something else than an event descriptor"), "{reason}");
}

/// The front end has the same descriptor as we, and may fill it and have it block whoever writes to it.
#[test]
fn a_full_descriptor_that_blocks_holds_up_nobody() {
    let (mut vhost, imposter, arena) = back_with_imposter(RingKind::Split);
    for call in &imposter.events[2..] {
        call.write(u64::MAX - 1).unwrap();
        // SAFETY: takes no pointers.
        assert_eq!(unsafe { libc::fcntl(call.as_raw_fd(), libc::F_SETFL, 0) }, 0);
    }
    let mut ring = imposter.driver(0);
    // It wants to be told of everything.
    ring.set_calls(true);
    for at in 0..RING_SIZE {
        let address = imposter.address(FRAMES_AT + usize::from(at) * 2048);
        ring.offer(1, Access::DeviceWrites, |_| Piece { address, len: 2048 });
    }
    ring.publish();
    let mut batch = FrameBatch::new();
    batch.push(arena.copy_from(&[3; 200]).unwrap().freeze());
    batch.finish(TxOffload::default());
    vhost.transmit(Instant::ZERO, &mut batch).unwrap();
    assert_eq!((vhost.counters().tx_frames, vhost.counters().notifications), (1, 1));
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let reason = refusal(|imposter, _| {
        imposter.frontend.set_features(imposter.features.0 | 1 << 17).unwrap_err();
    });
    assert!(reason.contains("unasked"), "{reason}");
}

#[test]
fn an_end_that_says_nothing_is_given_up_in_time() {
    for role in [VhostRole::Back, VhostRole::Front] {
        let config = VhostConfig {
            server: true,
            wait_for_peer: Duration::from_millis(200),
            ..config(role, RingKind::Packed)
        };
        let opening = thread::spawn({
            let config = config.clone();
            move || VhostQueue::open(&config).map(drop)
        });
        let mut stream = connect(&config);
        // Half a header.
        stream.write_all(&[1, 0, 0, 0, 1]).unwrap();
        let error = opening.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("none came within 200 ms"), "{error}");
    }
}

#[test]
fn frames_outside_the_memory_are_counted_and_the_others_pass() {
    for kind in [RingKind::Split, RingKind::Packed] {
        let (mut vhost, imposter, arena) = back_with_imposter(kind);
        let mut ring = imposter.driver(1);
        let inside = imposter.address(FRAMES_AT);
        let end = imposter.address(REGION_BYTES);
        let offer = |ring: &mut DriverRing, pieces: &[(u64, u32)]| {
            let mut pieces = pieces.iter();
            ring.offer(pieces.len() as u16, Access::DeviceReads, |_| {
                let &(address, len) = pieces.next().unwrap();
                Piece { address, len }
            });
            ring.publish();
        };
        let bad: [&[(u64, u32)]; 11] = [
            &[(0, 100)],
            &[(u64::MAX, 100)],
            &[(end, 100)],
            &[(end - 50, 100)],
            &[(imposter.address(0) - 1, 100)],
            &[(inside, 25)],
            &[(inside, 0)],
            &[(inside, 65_600)],
            &[(inside, u32::MAX), (inside, u32::MAX)],
            &[(inside, 12), (end - 1, 100)],
            &[(inside, 30), (0, 70)],
        ];
        imposter.write(FRAMES_AT, &[0; 12]);
        for pieces in bad {
            offer(&mut ring, pieces);
            offer(&mut ring, &[(inside, 112)]);
            let mut batch = RxBatch::new();
            vhost.receive(Instant::ZERO, &mut batch).unwrap();
            assert_eq!(batch.len(), 1, "{pieces:x?}");
            assert_eq!(batch[0].head.len(), 100);
            // Returned with the next poll.
            vhost.receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
            for _ in 0..2 {
                let used = ring.next_used().unwrap().unwrap();
                ring.release(used.head, |_| {});
            }
        }
        // What the header says and nobody agreed on: joined UDP datagrams.
        imposter.write(FRAMES_AT, &[0, 3]);
        offer(&mut ring, &[(inside, 112)]);
        let mut batch = RxBatch::new();
        vhost.receive(Instant::ZERO, &mut batch).unwrap();
        assert!(batch.is_empty());
        let counters = vhost.counters();
        assert_eq!((counters.rx_malformed, counters.rx_frames), (12, 11));
        drop((vhost, ring));
        assert_eq!(arena.stats().live_buffers, 0);
    }
}

#[test]
fn buffers_outside_the_memory_cost_the_frame_and_nothing_else() {
    for kind in [RingKind::Split, RingKind::Packed] {
        let (mut vhost, imposter, arena) = back_with_imposter(kind);
        let mut ring = imposter.driver(0);
        let end = imposter.address(REGION_BYTES);
        for address in [0, u64::MAX - 100, end, end - 50, imposter.address(FRAMES_AT)] {
            ring.offer(1, Access::DeviceWrites, |_| Piece { address, len: 2000 });
        }
        ring.publish();
        let mut batch = FrameBatch::new();
        for _ in 0..5 {
            batch.push(arena.copy_from(&[7; 100]).unwrap().freeze());
            batch.finish(TxOffload::default());
        }
        vhost.transmit(Instant::ZERO, &mut batch).unwrap();
        assert!(batch.is_empty());
        let counters = vhost.counters();
        assert_eq!((counters.tx_refused, counters.tx_frames), (4, 1));
    }
}

#[test]
fn what_a_front_end_writes_later_does_not_change_what_was_received() {
    let (mut vhost, imposter, _arena) = back_with_imposter(RingKind::Packed);
    let mut ring = imposter.driver(1);
    imposter.write(FRAMES_AT, &[0; 12]);
    imposter.write(FRAMES_AT + 12, &[1; 100]);
    ring.offer(1, Access::DeviceReads, |_| Piece { address: imposter.address(FRAMES_AT), len: 112 });
    ring.publish();
    let mut batch = RxBatch::new();
    vhost.receive(Instant::ZERO, &mut batch).unwrap();
    imposter.write(FRAMES_AT, &[9; 112]);
    assert_eq!(batch[0].head.to_vec(), [1; 100]);
}

#[test]
fn messages_that_make_no_sense_end_the_link_and_nothing_else() {
    for garbage in [
        &[0xff; 64][..],
        // GET_FEATURES with a length beyond any message's.
        &[1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f],
        // SET_MEM_TABLE without descriptors.
        &[5, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        // SET_VRING_NUM of ring 77.
        &[8, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 77, 0, 0, 0, 16, 0, 0, 0],
        // GET_CONFIG, which was not offered.
        &[24, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        // No request at all.
        &[200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let (mut vhost, imposter, _arena) = back_with_imposter(RingKind::Packed);
        // The same connection, past what writes messages.
        // SAFETY: the descriptor is a copy that nobody else has.
        let mut stream = unsafe { UnixStream::from_raw_fd(libc::dup(imposter.frontend.as_raw_fd())) };
        stream.write_all(garbage).unwrap();
        let deadline = WallInstant::now() + PATIENCE;
        while vhost.receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {
            assert!(WallInstant::now() < deadline, "{garbage:x?}");
        }
        assert!(vhost.failure().is_some());
    }
}

#[test]
fn half_a_message_holds_up_no_packet() {
    let (mut vhost, imposter, _arena) = back_with_imposter(RingKind::Split);
    // SAFETY: the descriptor is a copy that nobody else has.
    let mut stream = unsafe { UnixStream::from_raw_fd(libc::dup(imposter.frontend.as_raw_fd())) };
    stream.write_all(&[1, 0, 0, 0, 1]).unwrap();
    let mut ring = imposter.driver(1);
    imposter.write(FRAMES_AT, &[0; 112]);
    for _ in 0..1000 {
        ring.offer(1, Access::DeviceReads, |_| Piece { address: imposter.address(FRAMES_AT), len: 112 });
        ring.publish();
        let mut batch = RxBatch::new();
        vhost.receive(Instant::ZERO, &mut batch).unwrap();
        assert_eq!(batch.len(), 1);
        // Returned with the next poll.
        vhost.receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
        let used = ring.next_used().unwrap().unwrap();
        ring.release(used.head, |_| {});
    }
}

/// All entries of a split ring may stand for one chain of all its descriptors.
#[test]
fn no_poll_looks_at_more_descriptors_than_the_ring_has() {
    let (mut vhost, imposter, _arena) = back_with_imposter(RingKind::Split);
    const PIECE_BYTES: u32 = 10;
    for at in 0..RING_SIZE {
        let next = u16::from(at + 1 < RING_SIZE);
        let mut descriptor = imposter.address(FRAMES_AT).to_ne_bytes().to_vec();
        descriptor.extend(PIECE_BYTES.to_ne_bytes());
        descriptor.extend(next.to_ne_bytes());
        descriptor.extend((at + 1).to_ne_bytes());
        imposter.write(RING_BYTES + 16 * usize::from(at), &descriptor);
    }
    imposter.write(FRAMES_AT, &[0; PIECE_BYTES as usize]);
    // Every entry is zero: the first descriptor.
    imposter.write(RING_BYTES + AREA_BYTES + 2, &RING_SIZE.to_ne_bytes());
    for _ in 0..RING_SIZE {
        let mut batch = RxBatch::new();
        vhost.receive(Instant::ZERO, &mut batch).unwrap();
        assert_eq!(batch.len(), 1);
    }
    assert_eq!(vhost.counters().rx_malformed, 0);
}

/// Ends what a sequence of polls comes to when somebody scribbles over the rings between them.
fn poll_under_scribbles(vhost: &mut Vhost, arena: &Arena, mut scribble: impl FnMut(usize)) {
    for round in 0..200 {
        scribble(round);
        let mut batch = FrameBatch::new();
        batch.push(arena.copy_from(&[3; 200]).unwrap().freeze());
        batch.finish(TxOffload::default());
        let sent = vhost.transmit(Instant::ZERO, &mut batch);
        let received = vhost.receive(Instant::ZERO, &mut RxBatch::new());
        vhost.wake_fd();
        for result in [sent, received] {
            assert!(matches!(result, Ok(()) | Err(Error::DeviceFailed)), "{result:?}");
        }
        if received.is_err() {
            assert!(vhost.failure().is_some());
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A front end writes anything anywhere into its rings: an error, or frames that are copies of its memory.
    #[test]
    fn garbage_from_a_front_end_is_an_error_or_nothing(
        packed in any::<bool>(),
        scribbles in prop::collection::vec((0..FRAMES_AT, any::<u8>(), 0..4_usize), 200),
    ) {
        let kind = if packed { RingKind::Packed } else { RingKind::Split };
        let (mut vhost, imposter, arena) = back_with_imposter(kind);
        poll_under_scribbles(&mut vhost, &arena, |round| {
            let (at, byte, area) = scribbles[round];
            // Most of it where something is, in either ring.
            let at = if area < 3 { at % 2 * RING_BYTES + area * AREA_BYTES + at / 2 % 300 } else { at };
            imposter.write(at, &[byte]);
        });
        drop(vhost);
        prop_assert_eq!(arena.stats().live_buffers, 0);
    }

    /// A back end writes anything into the rings of a front end: an error, or frames that were posted buffers.
    #[test]
    fn garbage_from_a_back_end_is_an_error_or_nothing(
        packed in any::<bool>(),
        scribbles in prop::collection::vec((any::<usize>(), any::<u8>(), 0..3_usize, 0..2_usize), 200),
    ) {
        let kind = if packed { RingKind::Packed } else { RingKind::Split };
        let config = VhostConfig { server: false, ..config(VhostRole::Front, kind) };
        let back_config = VhostConfig { role: VhostRole::Back, server: true, ..config.clone() };
        let opening = thread::spawn(move || VhostQueue::open(&back_config));
        let arena = Arena::with_region(Region::map_shared(8 << 20).unwrap()).unwrap();
        let mut front = Vhost::open(&config, &arena).unwrap().pop().unwrap();
        let back = Vhost::new(opening.join().unwrap().unwrap().pop().unwrap(), &self::arena()).unwrap();
        let setups = lock(&back.handle().link.pairs[0].back).setups.clone();
        poll_under_scribbles(&mut front, &arena, |round| {
            let (at, byte, area, ring) = scribbles[round];
            let setup = setups[ring].as_ref().unwrap();
            let at = at % kind.area_bytes(RING_SIZE)[area];
            let address = setup.memory.find_by_user_address(setup.areas[area] + at as u64, 1).unwrap();
            // SAFETY: within the shared memory, which `setup` keeps mapped.
            unsafe { address.write_volatile(byte) };
        });
        // It does not poll, so it could not let go of anything when it is asked.
        drop(back);
        drop(front);
    }

    /// Positions come back as they were told, whichever peer told them.
    #[test]
    fn any_base_is_a_position_in_the_ring(base in any::<u32>(), bits in 4..13_u32) {
        for kind in [RingKind::Split, RingKind::Packed] {
            let size = 1 << bits;
            let position = Position::from_base(base, kind, size);
            prop_assert!(kind == RingKind::Split || position.index < size);
        }
    }
}
