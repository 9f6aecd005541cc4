//! What an emulated PCI NIC behind an IOMMU can read, and what not: run by `make test-vm`, in a virtual machine that has
//! such NICs. Each test runs in a process of its own, as EAL is initialised once in a process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../ports/end.rs"]
#[allow(dead_code, reason = "shared with the tests of ports, which use all of it")]
mod end;
mod iommu;
#[path = "../../../tests/common/namespace.rs"]
mod namespace;

use std::time::{Duration, Instant};

use end::{End, bytes, config, pattern, push};
use libos::{Buffer, FrameBatch};

/// The NIC that sends, an e1000, and the one at the other end of the emulated wire, of virtio.
const SENDER: &str = "0000:00:04.0";
const RECEIVER: &str = "0000:00:05.0";
/// The port's number: it is opened first.
const SENDER_PORT: u16 = 0;

const PATIENCE: Duration = Duration::from_secs(10);
/// Frames take milliseconds.
const IN_VAIN: Duration = Duration::from_secs(1);

const HEADER_BYTES: usize = 54;
const PAYLOAD_BYTES: usize = 1400;

fn open() -> (End, End) {
    let sender = End::open(&config(SENDER));
    (sender, End::open(&config(RECEIVER)))
}

/// An Ethernet header for everybody, and bytes to fill up a packet's headers with.
fn header() -> Vec<u8> {
    let mut header = pattern(HEADER_BYTES, 1);
    header[..14].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 0x88, 0xb5]);
    header
}

fn send(sender: &mut End, payload: Buffer) {
    let mut batch = FrameBatch::new();
    push(&mut batch, [sender.buffer(&header()), payload]);
    sender.transmit(&mut batch);
}

/// True when a frame with this payload arrives within the time. Others are let go.
fn arrives(sender: &mut End, receiver: &mut End, payload: &[u8], within: Duration) -> bool {
    let end = Instant::now() + within;
    while Instant::now() < end {
        // Gives what was sent back.
        sender.receive();
        if receiver.receive().iter().any(|frame| bytes(frame) == [&header(), payload].concat()) {
            return true;
        }
    }
    false
}

/// Memory that the NIC was not told of is seen: it is copied, which is counted, and the right bytes arrive.
#[test]
fn memory_that_was_not_registered_is_copied_and_counted() {
    namespace::enter("-n", || {
        let (mut sender, mut receiver) = open();
        let payload = pattern(PAYLOAD_BYTES, 2);
        let registered = sender.buffer(&payload);
        send(&mut sender, registered);
        assert!(arrives(&mut sender, &mut receiver, &payload, PATIENCE));
        assert_eq!(sender.dpdk.counters().tx_copied_frames, 0);

        send(&mut sender, payload.clone().into());
        assert!(arrives(&mut sender, &mut receiver, &payload, PATIENCE));
        let counters = sender.dpdk.counters();
        assert_eq!((counters.tx_copied_frames, counters.tx_copied_bytes), (1, PAYLOAD_BYTES as u64));
    });
}

/// That the other tests would notice memory which the device was not told of: the IOMMU stops the NIC at memory whose
/// mapping is taken away behind the runtime's back, though every call succeeds.
#[test]
fn the_iommu_stops_a_nic_at_memory_that_is_not_mapped_for_it() {
    namespace::enter("-n", || {
        let (mut sender, mut receiver) = open();
        let (before, after) = (pattern(PAYLOAD_BYTES, 3), pattern(PAYLOAD_BYTES, 4));
        let mapped = sender.buffer(&before);
        send(&mut sender, mapped);
        assert!(arrives(&mut sender, &mut receiver, &before, PATIENCE));
        assert_eq!(iommu::faults(SENDER), 0);

        iommu::unmap(SENDER_PORT, &sender.arena);
        let unmapped = sender.buffer(&after);
        send(&mut sender, unmapped);
        assert!(
            !arrives(&mut sender, &mut receiver, &after, IN_VAIN),
            "the NIC read what is not mapped for it"
        );
        assert_eq!(sender.dpdk.counters().tx_copied_frames, 0, "nobody copied it for the NIC");
        assert!(iommu::faults(SENDER) > 0, "the kernel tells of no fault");
    });
}
