//! Frames both ways, and what happens when they cannot go.

use std::net::UdpSocket;
use std::time::Duration;

use libos::runtime::TxOffload;
use libos::{FrameBatch, Instant, Runtime};
use runtime_linux::tap::TapConfig;

use crate::end::{End, config};
use crate::wire::{
    ETHERNET_BYTES, ETHERTYPE_ARP, OUR_IP, OUR_MAC, PROTOCOL_UDP, arp_request, u16_at, udp_headers,
};
use crate::{namespace, wire};

/// Picks a UDP datagram's ports and payload out of an IPv4 frame.
fn udp(frame: &libos::RxFrame) -> Option<(u16, u16, Vec<u8>)> {
    let head = &frame.head;
    let is_udp = u16_at(head, 12) == wire::ETHERTYPE_IPV4 && head[ETHERNET_BYTES + 9] == PROTOCOL_UDP;
    is_udp.then(|| (u16_at(head, 34), u16_at(head, 36), head[42..].to_vec()))
}

fn kernel_socket() -> UdpSocket {
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

#[test]
fn the_kernels_end_gets_its_addresses_of_both_families_and_is_up() {
    namespace::enter("-Urn", || {
        let mut config = config();
        config.host_addresses.push("fd00:9::1/64".parse().unwrap());
        let end = End::open(&config);
        UdpSocket::bind("10.9.0.1:0").unwrap();
        UdpSocket::bind("[fd00:9::1]:0").unwrap();
        let capabilities = end.tap.capabilities();
        assert_eq!((capabilities.hardware_address, capabilities.mtu), (OUR_MAC, 1500));
        assert_eq!(end.tap.name(), "tap-test");
    });
}

#[test]
fn the_kernels_arp_request_arrives() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config());
        kernel_socket().send_to(b"hello", (OUR_IP, 7)).unwrap();
        let target = end.expect("ARP request", |frame| {
            let head = &frame.head;
            let is_request = u16_at(head, 12) == ETHERTYPE_ARP && u16_at(head, 20) == 1;
            is_request.then(|| (head[..6].to_vec(), head[38..42].to_vec()))
        });
        assert_eq!(target, (vec![0xff; 6], OUR_IP.octets().to_vec()));
    });
}

#[test]
fn a_datagram_crosses_in_several_segments_and_is_answered() {
    namespace::enter("-Urn", || {
        for offload in [true, false] {
            let mut end = End::open(&TapConfig { offload, ..config() });
            let kernel_mac = end.resolve();
            assert_ne!(kernel_mac, OUR_MAC);
            let socket = kernel_socket();
            let port = socket.local_addr().unwrap().port();
            let headers = udp_headers(kernel_mac, (7777, port), 10);
            end.send(&[&headers[..14], &headers[14..], b"0123", b"456789"], TxOffload::default());

            let mut buffer = [0; 100];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"0123456789"[..], (OUR_IP, 7777).into()));

            socket.send_to(b"an answer", from).unwrap();
            let answer = end.expect("datagram", udp);
            assert_eq!(answer, (port, 7777, b"an answer".to_vec()));
            let counters = end.tap.counters();
            assert_eq!((counters.tx_frames, counters.tx_bytes), (2, 42 + 52));
            assert!(counters.rx_frames >= 2 && counters.rx_bytes >= 42 + 51, "{counters:?}");
        }
    });
}

#[test]
fn a_frame_of_a_large_mtu_arrives_whole() {
    namespace::enter("-Urn", || {
        for mtu in [1500, 9000, 40_000, 65_521] {
            let mut end = End::open(&TapConfig { mtu, ..config() });
            end.resolve();
            let socket = kernel_socket();
            let datagram: Vec<u8> = (0..mtu - 28).map(|at| (at % 251) as u8).collect();
            let datagram = &datagram[..datagram.len().min(65_507)];
            socket.send_to(datagram, (OUR_IP, 7)).unwrap();
            let arrived = end.expect("datagram", |frame| udp(frame).map(|_| crate::end::bytes(frame)));
            assert!(arrived[42..] == *datagram, "MTU {mtu}: {} bytes arrived", arrived.len());
        }
    });
}

#[test]
fn a_flow_is_answered_on_the_queue_that_it_last_sent_on() {
    namespace::enter("-Urn", || {
        let mut ends = End::open_all(&TapConfig { queues: 2, ..config() });
        assert_eq!(ends.len(), 2);
        for (index, port) in [(0, 4000), (1, 4001), (1, 4002), (0, 4003)] {
            let end = &mut ends[index];
            let socket = kernel_socket();
            let to = socket.local_addr().unwrap().port();
            // The answer to this request may come on either queue, so the datagram is broadcast.
            end.send(&[&arp_request()], TxOffload::default());
            end.send(&[&udp_headers([0xff; 6], (port, to), 4), b"ping"], TxOffload::default());
            let (_, from) = socket.recv_from(&mut [0; 10]).unwrap();
            socket.send_to(b"pong", from).unwrap();
            end.expect("answer", |frame| udp(frame).filter(|datagram| datagram.1 == port));
        }
    });
}

#[test]
fn a_frame_that_the_kernel_refuses_does_not_hold_up_the_next() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config());
        end.send(&[b"runt"], TxOffload::default());
        end.send(&[&[0; 1][..]; 65], TxOffload::default());
        assert_eq!(end.tap.counters().tx_refused, 2);
        assert_eq!(end.tap.counters().tx_frames, 0);
        end.resolve();
    });
}

#[test]
fn what_is_sent_while_the_kernels_end_is_down_is_lost_and_counted() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&TapConfig { up: false, host_addresses: vec![], ..config() });
        end.send(&[&arp_request()], TxOffload::default());
        assert_eq!(end.tap.counters().tx_link_down, 1);
        assert_eq!(end.receive(), 0);
    });
}

#[test]
fn without_memory_frames_wait_in_the_device_until_there_is_some() {
    namespace::enter("-Urn", || {
        for offload in [true, false] {
            let mut end = End::open(&TapConfig { offload, ..config() });
            end.resolve();
            while end.receive() > 0 {}
            let mut held = Vec::new();
            for bytes in [1 << 20, 16_000, 1500, 64] {
                held.extend(std::iter::from_fn(|| end.arena.allocate(bytes)));
            }
            let socket = kernel_socket();
            for number in 0..10_u8 {
                socket.send_to(&[number], (OUR_IP, 7)).unwrap();
            }
            // What is left are the buffers that were waiting for a frame.
            let early = end.receive();
            assert!(early <= 1, "{early} frames");
            assert_eq!(end.receive(), 0);
            assert!(end.tap.counters().rx_no_buffers >= 2, "{:?}", end.tap.counters());

            held.clear();
            let mut next = 0;
            end.expect("last datagram", |frame| {
                let (_, _, payload) = udp(frame)?;
                assert_eq!(payload, [next]);
                next += 1;
                (next == 10).then_some(())
            });
        }
    });
}

#[test]
fn a_burst_larger_than_a_batch_arrives_in_order() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config());
        end.resolve();
        let socket = kernel_socket();
        for number in 0..200_u8 {
            socket.send_to(&[number], (OUR_IP, 7)).unwrap();
        }
        let mut next = 0;
        end.expect("last datagram", |frame| {
            let (_, _, payload) = udp(frame)?;
            assert_eq!(payload, [next]);
            next += 1;
            (next == 200).then_some(())
        });
    });
}

#[test]
fn a_batch_is_sent_front_to_back() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config());
        let kernel_mac = end.resolve();
        let socket = kernel_socket();
        let port = socket.local_addr().unwrap().port();
        let mut batch = FrameBatch::new();
        for number in 0..100_u8 {
            batch.push(end.arena.copy_from(&udp_headers(kernel_mac, (7, port), 1)).unwrap().freeze());
            batch.push(end.arena.copy_from(&[number]).unwrap().freeze());
            batch.finish(TxOffload::default());
        }
        end.tap.transmit(Instant::ZERO, &mut batch).unwrap();
        assert!(batch.is_empty());
        for number in 0..100_u8 {
            let mut payload = [0; 2];
            assert_eq!(socket.recv(&mut payload).unwrap(), 1);
            assert_eq!(payload[0], number);
        }
    });
}

#[test]
fn the_wake_descriptor_becomes_readable_when_a_frame_arrives() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config());
        end.resolve();
        while end.receive() > 0 {}
        kernel_socket().send_to(b"wake up", (OUR_IP, 7)).unwrap();
        let mut poll = libc::pollfd { fd: end.tap.wake_fd().unwrap(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor that stays open, in one structure that outlives the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 5000) };
        assert_eq!((ready, poll.revents), (1, libc::POLLIN));
        assert!(end.receive() > 0);
    });
}
