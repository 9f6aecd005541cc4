//! smoltcp's device: frames go into the other end's queue, and their memory is used again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Bytes of an Ethernet header, which smoltcp counts as part of a device's MTU.
const ETHERNET_HEADER_BYTES: usize = 14;

/// One direction.
#[derive(Debug, Default)]
struct Wire {
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

/// One end of a pair of queues.
#[derive(Debug)]
pub struct QueueDevice {
    incoming: Rc<RefCell<Wire>>,
    outgoing: Rc<RefCell<Wire>>,
    capabilities: DeviceCapabilities,
}

/// Makes two devices, joined back to back, for IP packets of at most `mtu` bytes.
pub fn queue_pair(mtu: usize, checksums: bool) -> (QueueDevice, QueueDevice) {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ethernet;
    capabilities.max_transmission_unit = mtu + ETHERNET_HEADER_BYTES;
    capabilities.checksum =
        if checksums { ChecksumCapabilities::default() } else { ChecksumCapabilities::ignored() };
    let wires: [Rc<RefCell<Wire>>; 2] = Default::default();
    let end = |incoming: usize| QueueDevice {
        incoming: Rc::clone(&wires[incoming]),
        outgoing: Rc::clone(&wires[1 - incoming]),
        capabilities: capabilities.clone(),
    };
    (end(0), end(1))
}

impl Device for QueueDevice {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    #[inline]
    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let frame = self.incoming.borrow_mut().frames.pop_front()?;
        Some((Received { frame, wire: &self.incoming }, Sending { wire: &self.outgoing }))
    }

    #[inline]
    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_>> {
        Some(Sending { wire: &self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

/// A frame that arrived.
#[derive(Debug)]
pub struct Received<'a> {
    frame: Vec<u8>,
    wire: &'a RefCell<Wire>,
}

impl RxToken for Received<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(&self.frame);
        self.wire.borrow_mut().spare.push(self.frame);
        result
    }
}

/// Room for a frame to be sent.
#[derive(Debug)]
pub struct Sending<'a> {
    wire: &'a RefCell<Wire>,
}

impl TxToken for Sending<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = self.wire.borrow_mut().spare.pop().unwrap_or_default();
        // What an earlier frame left need not be cleared: every byte is written.
        frame.resize(len, 0);
        let result = write(&mut frame);
        self.wire.borrow_mut().frames.push_back(frame);
        result
    }
}
