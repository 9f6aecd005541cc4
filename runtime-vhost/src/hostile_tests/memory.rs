//! Memory that a front end shares, or does not.

use super::*;

#[test]
fn memory_that_could_be_truncated_is_refused() {
    let reason = refusal(|imposter, _| {
        let file = plain_file(REGION_BYTES as u64);
        imposter.frontend.set_mem_table(&[imposter.memory(REGION_BYTES, &file)]).unwrap_err();
    });
    assert!(reason.contains("not sealed against shrinking"), "{reason}");
}

#[test]
fn memory_beyond_its_file_is_refused() {
    let reason = refusal(|imposter, _| {
        let memory = imposter.memory(REGION_BYTES + 1, &imposter.region.shared_fd().unwrap());
        imposter.frontend.set_mem_table(&[memory]).unwrap_err();
    });
    assert!(reason.contains("of a file of"), "{reason}");
}

#[test]
fn regions_over_one_another_or_beyond_all_addresses_are_refused() {
    type Change = fn(&mut VhostUserMemoryRegionInfo);
    let changes: [(&str, Change); 6] = [
        ("at the addresses of another one", |_| {}),
        ("at the addresses of another one", |second| second.guest_phys_addr = 1 << 40),
        ("at the addresses of another one", |second| second.userspace_addr = 1 << 40),
        // The crate that reads messages refuses these.
        ("invalid message", |second| second.guest_phys_addr = u64::MAX - 5),
        ("invalid message", |second| second.memory_size = u64::MAX),
        ("invalid message", |second| second.mmap_offset = u64::MAX),
    ];
    for (expected, change) in changes {
        let reason = refusal(|imposter, _| {
            let file = imposter.region.shared_fd().unwrap();
            let first = imposter.memory(REGION_BYTES, &file);
            let mut second = imposter.memory(REGION_BYTES, &file);
            change(&mut second);
            imposter.frontend.set_mem_table(&[first, second]).unwrap_err();
        });
        assert!(reason.contains(expected), "{reason}");
    }
}

/// The memory of a file costs nothing as long as nobody touches it, so a front end may share more than there is.
#[test]
fn files_larger_than_all_addresses_are_an_error_or_nothing() {
    let reason = refusal(|imposter, _| {
        let bytes = 1_u64 << 45;
        let vast = || {
            // SAFETY: the name is a C string.
            let file = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_ALLOW_SEALING) };
            // SAFETY: the descriptor is new, and nobody else has it.
            let file = unsafe { File::from_raw_fd(file) };
            file.set_len(bytes).unwrap();
            // SAFETY: takes no pointers.
            assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) }, 0);
            file
        };
        let files = [(); 8].map(|()| vast());
        let regions = (1..).zip(&files).map(|(at, file)| VhostUserMemoryRegionInfo {
            guest_phys_addr: at << 50,
            userspace_addr: at << 50,
            memory_size: bytes,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        });
        imposter.frontend.set_mem_table(&regions.collect::<Vec<_>>()).unwrap_err();
    });
    assert!(reason.starts_with("mmap: "), "{reason}");
}

#[test]
fn regions_that_come_and_go_one_by_one_are_checked_as_all_others() {
    type Mistake = fn(&mut Imposter) -> vhost::Result<()>;
    let mistakes: [(&str, Mistake); 4] = [
        ("a region of memory at the addresses of another one", |imposter| {
            let twice = imposter.memory(REGION_BYTES / 2, &imposter.region.shared_fd().unwrap());
            imposter.frontend.add_mem_region(&twice).map(drop)
        }),
        ("a region up to byte", |imposter| {
            let file = imposter.region.shared_fd().unwrap();
            let beyond = VhostUserMemoryRegionInfo {
                guest_phys_addr: 1 << 40,
                userspace_addr: 1 << 40,
                ..imposter.memory(REGION_BYTES + 1, &file)
            };
            imposter.frontend.add_mem_region(&beyond).map(drop)
        }),
        ("not sealed against shrinking", |imposter| {
            let file = plain_file(REGION_BYTES as u64);
            let apart = VhostUserMemoryRegionInfo {
                guest_phys_addr: 1 << 40,
                userspace_addr: 1 << 40,
                ..imposter.memory(REGION_BYTES, &file)
            };
            imposter.frontend.add_mem_region(&apart).map(drop)
        }),
        ("more than 32 regions", |imposter| {
            let file = imposter.region.shared_fd().unwrap().try_clone_to_owned().unwrap();
            (1..=40).try_for_each(|at| {
                let another = VhostUserMemoryRegionInfo {
                    guest_phys_addr: at << 40,
                    userspace_addr: at << 40,
                    ..imposter.memory(REGION_BYTES, &file)
                };
                imposter.frontend.add_mem_region(&another).map(drop)
            })
        }),
    ];
    for (expected, mistake) in mistakes {
        let reason = refusal(|mut imposter, _| {
            imposter.share();
            mistake(&mut imposter).unwrap_err();
        });
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn frames_in_a_region_are_read_while_it_is_shared_and_not_before_or_after() {
    let (mut vhost, mut imposter, _arena) = back_with_imposter(RingKind::Packed);
    let late = Region::map_shared(REGION_BYTES).unwrap();
    let file = late.shared_fd().unwrap();
    let memory = VhostUserMemoryRegionInfo {
        guest_phys_addr: 1 << 40,
        userspace_addr: 1 << 40,
        ..imposter.memory(REGION_BYTES, &file)
    };
    let mut ring = imposter.driver(1);
    let mut arrives = |vhost: &mut Vhost| {
        ring.offer(1, Access::DeviceReads, |_| Piece { address: (1 << 40) + 64, len: 112 });
        ring.publish();
        let mut batch = RxBatch::new();
        vhost.receive(Instant::ZERO, &mut batch).unwrap();
        vhost.receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
        let used = ring.next_used().unwrap().unwrap();
        ring.release(used.head, |_| {});
        batch.len() == 1
    };
    for _ in 0..3 {
        assert!(!arrives(&mut vhost));
        // Told twice, as QEMU does for each further queue pair, it is no more than once.
        for _ in 0..2 {
            polled_while(&mut vhost, || imposter.frontend.add_mem_region(&memory).map(drop)).unwrap();
            assert!(arrives(&mut vhost));
        }
        for _ in 0..2 {
            polled_while(&mut vhost, || imposter.frontend.remove_mem_region(&memory)).unwrap();
        }
    }
    assert!(!arrives(&mut vhost));
    assert_eq!(vhost.counters().rx_malformed, 4);
}

/// Does something that is answered only when the queue was polled.
fn polled_while<T: Send>(vhost: &mut Vhost, this: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let doing = scope.spawn(this);
        while !doing.is_finished() {
            vhost.receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
        }
        doing.join().unwrap()
    })
}
