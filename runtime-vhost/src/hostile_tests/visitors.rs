//! Who comes to the socket, stays for a while, and leaves things behind.

use super::*;

/// Waits for something that another thread does.
fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = WallInstant::now() + PATIENCE;
    while !done() {
        assert!(WallInstant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn who_looks_in_and_leaves_is_not_taken_for_the_other_end() {
    for role in [VhostRole::Front, VhostRole::Back] {
        let waiting = VhostConfig { server: true, ..config(role, RingKind::Packed) };
        let other = match role {
            VhostRole::Front => VhostRole::Back,
            VhostRole::Back => VhostRole::Front,
        };
        let coming = VhostConfig { role: other, server: false, ..waiting.clone() };
        let opened = Arc::new(AtomicU32::new(0));
        let open = |config: VhostConfig| {
            let count = opened.clone();
            thread::spawn(move || {
                let arena = Arena::with_region(Region::map_shared(8 << 20).unwrap()).unwrap();
                let link = Vhost::open(&config, &arena);
                count.fetch_add(1, Ordering::Relaxed);
                // Neither leaves before the other one has seen that it came.
                wait_until(|| count.load(Ordering::Relaxed) == 2);
                link.map(drop)
            })
        };
        let waiter = open(waiting.clone());
        for _ in 0..3 {
            drop(connect(&waiting));
        }
        // Nor is a second server, which is told that it is one.
        let line = VhostQueue::open(&waiting).map(drop).unwrap_err().to_string();
        assert!(line.contains("another program listens at the socket"), "{line}");
        let comer = open(coming);
        assert_eq!(comer.join().unwrap(), Ok(()), "{role:?}");
        assert_eq!(waiter.join().unwrap(), Ok(()), "{role:?}");
    }
}

#[test]
fn a_back_end_that_reconnects_gives_up_who_writes_garbage_and_serves_the_next() {
    let config = VhostConfig { reconnect: true, ..config(VhostRole::Back, RingKind::Split) };
    let came = AtomicU32::new(0);
    thread::scope(|scope| {
        let visitors = scope.spawn(|| {
            for visitor in 0..3 {
                let mut imposter = Imposter::new(&config);
                imposter.share();
                imposter.start_all();
                let mut ring = imposter.driver(1);
                imposter.write(FRAMES_AT, &[0; 112]);
                let address = imposter.address(FRAMES_AT);
                ring.offer(1, Access::DeviceReads, |_| Piece { address, len: 112 });
                ring.publish();
                wait_until(|| came.load(Ordering::Relaxed) == visitor + 1);
                // More entries than the ring has.
                imposter.write(RING_BYTES + AREA_BYTES + 2, &900_u16.to_ne_bytes());
                wait_until(|| imposter.frontend.get_features().is_err());
            }
        });
        let queue = VhostQueue::open(&config).unwrap().pop().unwrap();
        let mut vhost = Vhost::new(queue, &arena()).unwrap();
        while !visitors.is_finished() {
            let mut batch = RxBatch::new();
            vhost.receive(Instant::ZERO, &mut batch).unwrap();
            came.fetch_add(batch.len() as u32, Ordering::Relaxed);
            thread::yield_now();
        }
        assert_eq!(vhost.failure(), None);
    });
    assert_eq!(came.load(Ordering::Relaxed), 3);
}

/// The other end writes to rings and buffers until it says that it has done: before that, nobody else gets their memory.
#[test]
fn memory_that_the_back_end_does_not_let_go_of_is_never_used_again() {
    for kind in [RingKind::Split, RingKind::Packed] {
        let config = VhostConfig { server: false, ..config(VhostRole::Front, kind) };
        let back_config = VhostConfig { role: VhostRole::Back, server: true, ..config.clone() };
        let opening = thread::spawn(move || VhostQueue::open(&back_config));
        let arena = Arena::with_region(Region::map_shared(8 << 20).unwrap()).unwrap();
        let front = Vhost::open(&config, &arena).unwrap().pop().unwrap();
        // It does not poll, so it lets go of nothing.
        let back = Vhost::new(opening.join().unwrap().unwrap().pop().unwrap(), &self::arena()).unwrap();
        let before = arena.stats().live_buffers;
        drop(front);
        assert_eq!(arena.stats().live_buffers, before, "{kind:?}");
        drop(back);
    }
}
