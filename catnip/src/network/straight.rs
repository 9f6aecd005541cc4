//! The straight way out for datagrams: what the next one of a socket to the same host is made with, found out when the last
//! one took the general way.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use libos::runtime::{TxChecksum, TxOffload};
use libos::{Buffer, Instant, ScatterGather};

use super::path::{EXPRESS_BYTES, Express};
use super::{Network, Path, PlainProtocol, Refusal};
use crate::wire::{ethernet, ipv4, udp};

const TOTAL_LENGTH: usize = ethernet::HEADER_BYTES + 2;
const CHECKSUM: usize = ethernet::HEADER_BYTES + 10;
const UDP: usize = EXPRESS_BYTES;
/// Bytes of all headers.
const HEADERS_BYTES: usize = UDP + udp::HEADER_BYTES;
/// Bytes of an IP packet that are not payload.
const PACKET_HEADERS_BYTES: usize = ipv4::HEADER_BYTES + udp::HEADER_BYTES;
/// Bytes that all headers begin with, or where they differ hold zeros: up to our port.
const CONSTANT_BYTES: usize = UDP + 2;

/// A datagram's headers as far as they are known, and for how long they are.
#[derive(Debug)]
pub(crate) struct Straight {
    constant: [u8; CONSTANT_BYTES],
    /// One's complement sum of the IPv4 header without length, identification and checksum, as the machine reads it.
    sum: u16,
    /// Where datagrams go.
    remote: [u8; 4],
    /// Which state of the neighbour cache the headers were made by.
    epoch: u32,
    /// Largest payload, in bytes.
    most_bytes: usize,
    usable_until: Instant,
    /// Until when neither an identification nor a checksum is to be filled in.
    plain_until: Instant,
}

/// One's complement addition (RFC 1071).
#[inline(always)]
const fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum.wrapping_add(carry as u16)
}

impl Straight {
    /// No way: it was usable before all times.
    pub(crate) const NONE: Self = Self {
        constant: [0; CONSTANT_BYTES],
        sum: 0,
        remote: [0; 4],
        epoch: 0,
        most_bytes: 0,
        usable_until: Instant::ZERO,
        plain_until: Instant::ZERO,
    };

    /// True when the next datagram goes the same way, apart from the time.
    #[inline(always)]
    fn leads(&self, epoch: u32, to: &SocketAddrV4, bytes: usize) -> bool {
        to.ip().octets() == self.remote && to.port() != 0 && self.epoch == epoch && bytes <= self.most_bytes
    }

    /// Writes the headers of a datagram of so many bytes to a port.
    #[inline(always)]
    fn write(
        &self,
        out: &mut [u8; HEADERS_BYTES],
        bytes: usize,
        port: u16,
        identification: u16,
        checksum: u16,
    ) {
        /// Where the second of two words of vector registers begins. What is between them is written by itself.
        const SECOND: usize = CONSTANT_BYTES - 16;
        // No MTU is more than these express.
        let total_len = ((bytes + PACKET_HEADERS_BYTES) as u16).to_be();
        let datagram_len = ((bytes + udp::HEADER_BYTES) as u16).to_be();
        let identification = identification.to_be();
        let header_sum = !add(add(self.sum, total_len), identification);
        out[..16].copy_from_slice(&self.constant[..16]);
        out[SECOND..CONSTANT_BYTES].copy_from_slice(&self.constant[SECOND..]);
        out[TOTAL_LENGTH..SECOND - 2].copy_from_slice(&total_len.to_ne_bytes());
        out[SECOND - 2..SECOND].copy_from_slice(&identification.to_ne_bytes());
        out[CHECKSUM..CHECKSUM + 2].copy_from_slice(&header_sum.to_ne_bytes());
        out[UDP + 2..UDP + 4].copy_from_slice(&port.to_be_bytes());
        out[UDP + 4..UDP + 6].copy_from_slice(&datagram_len.to_ne_bytes());
        out[UDP + 6..].copy_from_slice(&checksum.to_be_bytes());
    }
}

impl Network {
    /// The straight way for what follows the datagram that was sent along `path` just now, from a port of ours.
    pub(crate) fn straight_after(&self, path: &Path, local_port: u16) -> Straight {
        let Express { headers, epoch, usable_until, .. } = path.express;
        let IpAddr::V4(remote) = path.remote else { return Straight::NONE };
        if epoch != self.neighbors.epoch() {
            return Straight::NONE;
        }
        let mut constant = [0; CONSTANT_BYTES];
        constant[..EXPRESS_BYTES].copy_from_slice(&headers);
        constant[EXPRESS_BYTES..].copy_from_slice(&local_port.to_be_bytes());
        let (pairs, _) = headers[ethernet::HEADER_BYTES..].as_chunks::<2>();
        let is_plain = path.policy.dont_fragment && self.device.tx_checksum == TxChecksum::Unneeded;
        Straight {
            constant,
            sum: pairs.iter().fold(0, |sum, pair| add(sum, u16::from_ne_bytes(*pair))),
            remote: remote.octets(),
            epoch,
            most_bytes: path.mtu.saturating_sub(PACKET_HEADERS_BYTES),
            usable_until,
            plain_until: if is_plain { usable_until } else { Instant::ZERO },
        }
    }

    /// The frame of a datagram that goes the straight way and for which nothing is left to be done. It counts as sent, and is
    /// to be. `None`, and `data` as it was, for all else: one that goes elsewhere, or has several pieces, or whose payload
    /// others hold, or has no room in front, or that is for
    /// [`Self::send_straight`].
    #[inline(always)]
    pub(crate) fn send_plain(
        &mut self,
        now: Instant,
        straight: &Straight,
        to: &SocketAddr,
        data: &mut ScatterGather,
    ) -> Option<Buffer> {
        let SocketAddr::V4(to) = to else { return None };
        let mut payload = data.single_with_room::<HEADERS_BYTES>()?;
        if now >= straight.plain_until || !straight.leads(self.neighbors.epoch(), to, payload.len()) {
            return None;
        }
        self.express_out += 1;
        let bytes = payload.len();
        straight.write(payload.parts().0, bytes, to.port(), 0, 0);
        Some(payload.take())
    }

    /// As [`Self::send_plain`], for any datagram that goes the straight way; and what is left to the device.
    ///
    /// # Errors
    /// Why not, and `data` as it was.
    #[inline(always)]
    pub(crate) fn send_straight(
        &mut self,
        now: Instant,
        straight: &Straight,
        path: Option<&Path>,
        to: &SocketAddr,
        data: &mut ScatterGather,
    ) -> Result<(Buffer, TxOffload), Refusal> {
        let (SocketAddr::V4(to), Some(path), Some(payload)) = (to, path, data.single_mut()) else {
            return Err(Refusal::Unusual);
        };
        if now >= straight.usable_until || !straight.leads(self.neighbors.epoch(), to, payload.len()) {
            return Err(Refusal::Unusual);
        }
        let Some(mut payload) = data.single_with_room::<HEADERS_BYTES>() else {
            return Err(Refusal::Shared);
        };
        self.express_out += 1;
        if now < straight.plain_until {
            let bytes = payload.len();
            straight.write(payload.parts().0, bytes, to.port(), 0, 0);
            return Ok((payload.take(), TxOffload::default()));
        }
        let (out, bytes) = payload.parts();
        let offload = self.write_straight(straight, path, to.port(), out, bytes);
        Ok((payload.take(), offload))
    }

    /// Writes the headers of a datagram for which it takes more than a look at its length.
    #[inline(never)]
    fn write_straight(
        &mut self,
        straight: &Straight,
        path: &Path,
        port: u16,
        out: &mut [u8; HEADERS_BYTES],
        payload: &[u8],
    ) -> TxOffload {
        // RFC 6864 section 4.1: the identification of a packet that is never cut means nothing.
        let identification =
            if path.policy.dont_fragment { 0 } else { self.identifications.next_v4(path.identification) };
        let (mut checksum, mut offload) = (0, TxOffload::default());
        if self.device.tx_checksum != TxChecksum::Unneeded {
            let [l0, l1] = ((payload.len() + udp::HEADER_BYTES) as u16).to_be_bytes();
            let [p0, p1] = port.to_be_bytes();
            let header = [straight.constant[UDP], straight.constant[UDP + 1], p0, p1, l0, l1, 0, 0];
            (checksum, offload) = self.express_checksum(path, PlainProtocol::Udp, &header, payload);
        }
        straight.write(out, payload.len(), port, identification, checksum);
        offload
    }
}
