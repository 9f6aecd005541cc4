//! Sums and segmentation, asked for frame by frame.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use libos::FrameBatch;
use libos::MemoryAccess;
use libos::Runtime;
use libos::runtime::{RxChecksum, TxChecksum, TxOffload};
use runtime_dpdk::DpdkConfig;

use crate::end::{End, bytes, config, pattern};
use crate::namespace;
use crate::packets::{ETHERNET_BYTES, Protocol, SOURCE, Version, headers, is_right, offload, partial};

fn run(line: &str) {
    let mut words = line.split(' ');
    assert!(Command::new(words.next().unwrap()).args(words).status().unwrap().success(), "{line}");
}

/// Adds a frame of two segments, headers and payload.
fn push(end: &End, batch: &mut FrameBatch, header: &[u8], payload: &[u8], offload: TxOffload) {
    batch.push(end.buffer(header));
    batch.push(end.buffer(payload));
    batch.finish(offload);
}

/// What the kernel gets at its end of a link, as it is.
struct Tapped(OwnedFd);

impl Tapped {
    fn open(interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: makes a socket and binds it to an interface by its index; the address is as long as it says.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol));
            assert!(fd >= 0);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            let len = size_of::<libc::sockaddr_ll>() as u32;
            assert_eq!(libc::bind(fd, (&raw const address).cast(), len), 0);
            Self(OwnedFd::from_raw_fd(fd))
        }
    }

    /// The next frame that the port sent.
    fn next(&self) -> Vec<u8> {
        let end = Instant::now() + Duration::from_secs(5);
        let mut frame = vec![0; 70_000];
        while Instant::now() < end {
            // SAFETY: there is as much room as it says.
            let len = unsafe {
                libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
            };
            match usize::try_from(len) {
                Ok(len) if frame[6..12] == SOURCE => return frame[..len].to_vec(),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("the frame does not come");
    }
}

#[test]
fn sums_are_made_of_the_frames_that_want_it_and_of_no_others() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_tap0,iface=dtap0"));
        assert_eq!(end.dpdk.capabilities().tx_checksum, TxChecksum::Partial);
        run("sysctl -q net.ipv6.conf.dtap0.disable_ipv6=1");
        run("ip link set dtap0 up");
        let kernel = Tapped::open("dtap0");
        const KEPT: u16 = 0xbeef;
        for payload_bytes in [1, 18, 1400] {
            let payload = pattern(payload_bytes, 7);
            let mut batch = FrameBatch::new();
            let mut sent = Vec::new();
            for version in [Version::V4, Version::V6] {
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    let field = partial(version, protocol, payload_bytes);
                    let header = headers(version, protocol, payload_bytes, field);
                    push(&end, &mut batch, &header, &payload, offload(version, protocol, None));
                    // One between that the stack has summed up itself, wrongly.
                    let header = headers(version, protocol, payload_bytes, KEPT);
                    push(&end, &mut batch, &header, &payload, TxOffload::default());
                    sent.push((version, protocol, header));
                }
            }
            end.transmit(&mut batch);
            for (version, protocol, header) in sent {
                let summed = kernel.next();
                let at = ETHERNET_BYTES + version.header_bytes() + protocol.checksum_offset();
                assert!(is_right(version, protocol, &summed), "{version:?} {protocol:?} {payload_bytes}");
                let untouched = kernel.next();
                assert!(untouched == [&header[..], &payload].concat());
                // But for the sum, both are the same.
                assert_eq!(summed.len(), untouched.len());
                let differs = |index: &usize| summed[*index] != untouched[*index];
                assert!((0..summed.len()).filter(differs).all(|index| (at..at + 2).contains(&index)));
            }
        }
        assert_eq!((end.dpdk.counters().tx_copied_frames, end.dpdk.buffers_on_loan()), (0, 0));
    });
}

/// Both ends of a link in this process: vhost, and virtio_user at its socket.
fn link() -> (End, End) {
    let socket = std::env::temp_dir().join(format!("catnip-offloads-{}", std::process::id()));
    let socket = socket.display();
    let memory_mib = 512;
    let link_wait = Duration::ZERO;
    let back = format!("net_vhost0,iface={socket},queues=1,tso=1");
    // Its memory is not DPDK's own, and known to DPDK before virtio_user tells of all that there is.
    let back = End::open(&DpdkConfig { memory_mib, link_wait, ..config(&back) });
    assert_eq!(back.dpdk.memory_access(), MemoryAccess::Dma);
    let front = format!("virtio_user0,path={socket},queues=1,packed_vq=1");
    let front = End::open(&DpdkConfig { memory_mib, ..config(&front) });
    (front, back)
}

/// The next frame that comes, within some seconds.
fn next(end: &mut End) -> libos::RxFrame {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if let Some(frame) = end.receive().pop() {
            return frame;
        }
    }
    panic!("the frame does not come");
}

#[test]
fn a_large_segment_leaves_as_one_frame_and_arrives_in_several_buffers_uncopied() {
    namespace::enter("-Urn", || {
        let (mut front, mut back) = link();
        assert!(front.dpdk.capabilities().tcp_segmentation_bytes >= 60_000);
        for version in [Version::V4, Version::V6] {
            for payload_bytes in [1449, 20_000, 60_000] {
                let payload = pattern(payload_bytes, 3);
                let field = partial(version, Protocol::Tcp, payload_bytes);
                let header = headers(version, Protocol::Tcp, payload_bytes, field);
                let mut batch = FrameBatch::new();
                push(&front, &mut batch, &header, &payload, offload(version, Protocol::Tcp, Some(1448)));
                front.transmit(&mut batch);
                assert!(batch.is_empty());
                let frame = next(&mut back);
                assert!(bytes(&frame)[header.len()..] == payload, "{version:?} {payload_bytes}");
                // Whole, as it left: memory of this machine needs no sums and no cutting.
                assert_eq!(bytes(&frame)[..header.len() - 4], header[..header.len() - 4]);
                assert_eq!((frame.checksum, frame.segment_bytes), (RxChecksum::Verified, 1448));
                assert!(payload_bytes < 2000 || !frame.rest.is_empty(), "several buffers hold it");
            }
        }
        let (sent, received) = (front.dpdk.counters(), back.dpdk.counters());
        assert_eq!((sent.tx_frames, sent.tx_segmented_frames, sent.tx_copied_frames), (6, 6, 0));
        assert_eq!((received.rx_frames, received.rx_joined_frames, received.rx_copied_frames), (6, 6, 0));
    });
}

/// virtio_user tells its peer of all memory that DPDK knows of, and fails when some of it is not DPDK's own: it is told of none.
#[test]
fn memory_that_is_registered_later_does_a_virtio_user_port_no_harm() {
    namespace::enter("-Urn", || {
        let (mut front, mut back) = link();
        for round in 0..3 {
            let late = End::more_memory();
            let mut batch = FrameBatch::new();
            crate::end::push(&mut batch, [late.copy_from(&pattern(700, round)).unwrap().freeze()]);
            back.transmit(&mut batch);
            drop((batch, late));
            assert!(bytes(&next(&mut front)) == pattern(700, round));
            let mut batch = FrameBatch::new();
            crate::end::push(&mut batch, [front.buffer(&pattern(900, round))]);
            front.transmit(&mut batch);
            assert!(bytes(&next(&mut back)) == pattern(900, round));
        }
        assert_eq!((back.dpdk.counters().tx_copied_frames, front.dpdk.counters().tx_copied_frames), (0, 0));
    });
}
