//! A port of the fabric as a device of smoltcp.

use std::collections::HashSet;

use libos::runtime::{Medium, RxBatch, TxOffload};
use libos::{Arena, FrameBatch, Runtime, RxFrame};
use runtime_sim::SimRuntime;
use smoltcp::phy;
use smoltcp::time::Instant;

use crate::wire::{Content, Flow, parse};

pub struct PortDevice {
    runtime: SimRuntime,
    arena: Arena,
    received: RxBatch,
    /// What the device had no room for yet.
    unsent: FrameBatch,
    /// Every SYN that came. smoltcp has no backlog, and gives a second copy of a SYN to another of the
    /// listening sockets that stand for one; it repeats its SYN-ACK by itself, so no copy is needed.
    syns: HashSet<(Flow, i32)>,
}

impl PortDevice {
    pub fn new(runtime: SimRuntime, arena: Arena) -> Self {
        Self { runtime, arena, received: RxBatch::new(), unsent: FrameBatch::new(), syns: HashSet::new() }
    }

    pub fn runtime(&self) -> &SimRuntime {
        &self.runtime
    }

    fn flush(&mut self) {
        if !self.unsent.is_empty() {
            // The fabric goes by its own clock.
            self.runtime.transmit(libos::Instant::ZERO, &mut self.unsent).expect("a fabric never fails");
        }
    }

    fn is_repeated_syn(&mut self, bytes: &[u8]) -> bool {
        let parsed = parse(self.runtime.capabilities().medium, bytes);
        let is_sound = parsed.network_checksum_holds && parsed.transport_checksum_holds;
        match parsed.content {
            Content::Tcp(segment) if is_sound && segment.syn && segment.acknowledgement.is_none() => {
                !self.syns.insert((segment.flow, segment.sequence.0))
            }
            Content::Tcp(_) | Content::Datagram | Content::Other | Content::Malformed => false,
        }
    }

    fn has_room(&mut self) -> bool {
        self.flush();
        self.unsent.is_empty()
    }
}

impl phy::Device for PortDevice {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        if !self.has_room() {
            return None;
        }
        loop {
            if self.received.is_empty() {
                self.runtime.receive(libos::Instant::ZERO, &mut self.received).expect("a fabric never fails");
            }
            if self.received.is_empty() {
                return None;
            }
            let frame = joined(&self.received.remove(0));
            if !self.is_repeated_syn(&frame) {
                return Some((Incoming(frame), Outgoing(self)));
            }
        }
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        self.has_room().then_some(Outgoing(self))
    }

    fn capabilities(&self) -> phy::DeviceCapabilities {
        let ours = self.runtime.capabilities();
        let mut capabilities = phy::DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = match ours.medium {
            Medium::Ethernet => (phy::Medium::Ethernet, ours.mtu + 14),
            Medium::Ip => (phy::Medium::Ip, ours.mtu),
        };
        capabilities
    }
}

fn joined(frame: &RxFrame) -> Vec<u8> {
    frame.rest.iter().fold(frame.head.to_vec(), |bytes, buffer| [&bytes, &buffer[..]].concat())
}

pub struct Incoming(Vec<u8>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub struct Outgoing<'a>(&'a mut PortDevice);

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let device = self.0;
        let mut buffer = device.arena.allocate(len).expect("memory for a frame of the far peer");
        buffer.set_len(len);
        let result = f(&mut buffer);
        device.unsent.push(buffer.freeze());
        device.unsent.finish(TxOffload::default());
        device.flush();
        result
    }
}
