//! Checksums and segmentation left to the kernel, and by it to us.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use libos::Runtime;
use libos::runtime::{RxChecksum, TxChecksum};
use runtime_linux::tap::TapConfig;

use crate::end::{End, bytes, config};
use crate::namespace;
use crate::wire::{
    ACK, ETHERNET_BYTES, KERNEL_IP, OUR_IP, PROTOCOL_TCP, PSH, SYN, TCP_AT, Tcp, pseudo_header_sum, u16_at,
};

/// Bytes with no short period, so that a lost or doubled piece shows.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| ((at * 2_654_435_761) >> 13) as u8).collect()
}

/// Opens a TCP connection from our end to a listening kernel socket; returns the kernel's Ethernet
/// address and the segment that we would send next.
fn connect(end: &mut End, port: u16) -> ([u8; 6], Tcp) {
    let kernel_mac = end.resolve();
    let mut us = Tcp {
        from_port: 5000,
        to_port: port,
        sequence: 1000,
        acknowledgement: 0,
        flags: SYN,
        header_bytes: 24,
    };
    let (headers, offload) = us.headers(kernel_mac, 0);
    end.send(&[&headers], offload);
    let answer = end.expect("SYN-ACK", |frame| Tcp::parse(&frame.head).filter(|tcp| tcp.flags == SYN | ACK));
    assert_eq!(answer.acknowledgement, 1001);
    us = Tcp { sequence: 1001, acknowledgement: answer.sequence.wrapping_add(1), flags: ACK, ..us };
    let (headers, offload) = us.headers(kernel_mac, 0);
    end.send(&[&headers], offload);
    (kernel_mac, us)
}

#[test]
fn what_the_device_offers_follows_the_configuration() {
    namespace::enter("-Urn", || {
        for (offload, checksum, segmentation_bytes) in
            [(true, TxChecksum::Partial, 65_000), (false, TxChecksum::Software, 0)]
        {
            let end = End::open(&TapConfig { offload, ..config() });
            let capabilities = end.tap.capabilities();
            assert_eq!(capabilities.tx_checksum, checksum);
            assert_eq!(capabilities.tcp_segmentation_bytes, segmentation_bytes);
        }
    });
}

#[test]
fn the_kernel_completes_our_checksums_and_cuts_our_segments() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config());
        let listener = TcpListener::bind("10.9.0.1:0").unwrap();
        let (kernel_mac, mut us) = connect(&mut end, listener.local_addr().unwrap().port());
        let (mut stream, from) = listener.accept().unwrap();
        assert_eq!(from, (OUR_IP, 5000).into());
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

        for payload_bytes in [1, 1460, 1461, 20_000] {
            let payload = pattern(payload_bytes);
            us.flags = ACK | PSH;
            let (headers, offload) = us.headers(kernel_mac, payload_bytes);
            let middle = payload_bytes / 2;
            end.send(&[&headers, &payload[..middle], &payload[middle..]], offload);
            let mut arrived = vec![0; payload_bytes];
            stream.read_exact(&mut arrived).unwrap();
            assert!(arrived == payload, "{payload_bytes} bytes");
            us.sequence = us.sequence.wrapping_add(payload_bytes as u32);
        }
        assert_eq!(end.tap.counters().tx_segmented_frames, 2);
    });
}

#[test]
fn the_kernels_segments_arrive_joined_and_without_a_checksum_to_verify() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config());
        let listener = TcpListener::bind("10.9.0.1:0").unwrap();
        let (kernel_mac, mut us) = connect(&mut end, listener.local_addr().unwrap().port());
        let (mut stream, _) = listener.accept().unwrap();
        let sent = pattern(300_000);
        let to_send = sent.clone();
        let writer = thread::spawn(move || {
            stream.write_all(&to_send).unwrap();
            stream
        });

        let mut arrived = Vec::new();
        let mut largest = 0;
        while arrived.len() < sent.len() {
            let (tcp, payload, segment_bytes) = end.expect("data", |frame| {
                let tcp = Tcp::parse(&frame.head)?;
                let frame_bytes = bytes(frame);
                let payload = frame_bytes[TCP_AT + tcp.header_bytes..].to_vec();
                assert_eq!(frame.checksum, RxChecksum::Verified);
                let tcp_bytes = frame_bytes.len() - TCP_AT;
                assert_eq!(
                    u16_at(&frame_bytes, TCP_AT + 16),
                    pseudo_header_sum(KERNEL_IP, OUR_IP, PROTOCOL_TCP, tcp_bytes),
                    "the checksum is still to be completed"
                );
                Some((tcp, payload, frame.segment_bytes))
            });
            if tcp.sequence != us.acknowledgement {
                continue;
            }
            assert_eq!(segment_bytes, if payload.len() > 1460 { 1460 } else { 0 });
            largest = largest.max(payload.len());
            us.acknowledgement = us.acknowledgement.wrapping_add(payload.len() as u32);
            arrived.extend(payload);
            let (headers, offload) = us.headers(kernel_mac, 0);
            end.send(&[&headers], offload);
        }
        assert!(arrived == sent, "the bytes are those sent");
        assert!(largest > 20_000, "the largest frame carried {largest} bytes");
        assert!(end.tap.counters().rx_joined_frames > 0);
        writer.join().unwrap();
    });
}

#[test]
fn without_offload_the_kernel_sends_whole_segments_with_checksums() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&TapConfig { offload: false, ..config() });
        end.resolve();
        let connecting =
            thread::spawn(|| TcpStream::connect_timeout(&(OUR_IP, 80).into(), Duration::from_millis(500)));
        let (segment, checksum) = end.expect("SYN", |frame| {
            Tcp::parse(&frame.head)?;
            Some((frame.head[TCP_AT..].to_vec(), frame.checksum))
        });
        assert_eq!(checksum, RxChecksum::Unknown);
        let pseudo = pseudo_header_sum(KERNEL_IP, OUR_IP, PROTOCOL_TCP, segment.len());
        let total: u32 = (0..segment.len()).step_by(2).map(|at| u32::from(u16_at(&segment, at))).sum();
        assert_eq!((total + u32::from(pseudo)) % 0xffff, 0, "the checksum is complete and right");
        assert!(connecting.join().unwrap().is_err());
    });
}

#[test]
fn joined_datagrams_arrive_only_when_asked_for() {
    namespace::enter("-Urn", || {
        for (udp_segmentation, expected) in [(true, vec![(3000, 1000)]), (false, vec![(1000, 0); 3])] {
            let mut end = End::open(&TapConfig { udp_segmentation, ..config() });
            end.resolve();
            let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
            let segment_bytes: libc::c_int = 1000;
            // SAFETY: the descriptor is open; the option's value is one `int` that outlives the call.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_UDP,
                    libc::UDP_SEGMENT,
                    (&raw const segment_bytes).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            assert_eq!(set, 0);
            socket.send_to(&pattern(3000), (OUR_IP, 7)).unwrap();
            let mut arrived = Vec::new();
            end.expect("datagrams", |frame| {
                let is_udp = u16_at(&frame.head, 12) == 0x0800 && frame.head[ETHERNET_BYTES + 9] == 17;
                if is_udp {
                    arrived.push((bytes(frame).len() - 42, frame.segment_bytes));
                }
                (arrived.iter().map(|(bytes, _)| bytes).sum::<usize>() == 3000).then_some(())
            });
            assert_eq!(arrived, expected);
        }
    });
}
