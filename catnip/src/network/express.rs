//! The straight way out: one buffer over IPv4 and Ethernet, to where the last packet of its path went.
//!
//! The lower headers of the last packet are kept in the path and put in front of the next one, of which they
//! differ in length, identification and checksum alone.

use std::net::IpAddr;

use libos::runtime::{PartialChecksum, TxChecksum, TxOffload};
use libos::{Buffer, Instant};

use super::path::{EXPRESS_BYTES, Express};
use super::{HeaderBuffer, Network, Path, PieceList, PlainProtocol, Protocol};
use crate::slab::Key;
use crate::wire::checksum::{self, Checksum};
use crate::wire::{ethernet, ipv4};

const TOTAL_LENGTH_OFFSET: usize = ethernet::HEADER_BYTES + 2;
const CHECKSUM_OFFSET: usize = ethernet::HEADER_BYTES + 10;

/// What all packets of one sender to one destination have in common in their IPv4 header: protocol, hop limit and
/// traffic class in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PacketKind(u32);

impl PacketKind {
    #[inline(always)]
    pub(crate) const fn new(protocol: PlainProtocol, hop_limit: u8, traffic_class: u8) -> Self {
        Self((protocol as u32) << 16 | (hop_limit as u32) << 8 | traffic_class as u32)
    }
}

/// A transport's header of so many 32-bit words, its checksum field zero. As numbers, so that they get from
/// registers to where they belong without being put together anywhere else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransportHeader<const WORDS: usize> {
    pub(crate) protocol: PlainProtocol,
    pub(crate) words: [u32; WORDS],
}

impl<const WORDS: usize> TransportHeader<WORDS> {
    /// Puts the checksum into its field.
    #[inline(always)]
    fn set_checksum(&mut self, checksum: u16) {
        let offset = self.protocol.checksum_offset();
        if let Some(word) = self.words.get_mut(offset / 4) {
            *word |= u32::from(checksum) << (16 - offset % 4 * 8);
        }
    }
}

/// Why a packet does not take the straight way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The last one of its path went another way, or the device's queue is full: it is for [`Network::send`].
    Unusual,
    /// Somebody else holds the payload: it is for [`Network::send_express_shared`]. Said afterwards, so that for all
    /// others the headers need not be in memory.
    Shared,
}

/// All headers of one packet, about to be written in front of its payload.
struct Headers<'a, const WORDS: usize> {
    lower: &'a [u8; EXPRESS_BYTES],
    /// Total length and identification, as they stand in the header.
    length_and_identification: [u8; 4],
    checksum: [u8; 2],
    transport: [u32; WORDS],
    offload: TxOffload,
}

impl<const WORDS: usize> Headers<'_, WORDS> {
    const BYTES: usize = EXPRESS_BYTES + WORDS * 4;

    /// Bytes of the IP packet.
    #[inline(always)]
    const fn packet_len(payload: &[u8]) -> usize {
        ipv4::HEADER_BYTES + WORDS * 4 + payload.len()
    }

    #[inline(always)]
    fn write(&self, out: &mut [u8]) {
        let Some((lower, out)) = out.split_first_chunk_mut::<EXPRESS_BYTES>() else { return };
        *lower = *self.lower;
        lower[TOTAL_LENGTH_OFFSET..TOTAL_LENGTH_OFFSET + 4].copy_from_slice(&self.length_and_identification);
        lower[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&self.checksum);
        // Two at a time: else they are turned around in vector registers, which takes more than it saves.
        let (pairs, odd) = self.transport.as_chunks::<2>();
        let (places, last) = out.as_chunks_mut::<8>();
        for (place, [first, second]) in places.iter_mut().zip(pairs) {
            *place = (u64::from(*first) << 32 | u64::from(*second)).to_be_bytes();
        }
        if let ([word], Some(place)) = (odd, last.first_chunk_mut()) {
            *place = word.to_be_bytes();
        }
    }
}

impl Network {
    /// Sends `payload`, which its sender keeps, behind a transport header along `path`, if the last packet went the same
    /// way and nobody else holds the payload: the headers go in front of it.
    ///
    /// # Errors
    /// Why not, and nothing done.
    #[inline(always)]
    pub(crate) fn send_express_kept<const WORDS: usize>(
        &mut self,
        now: Instant,
        path: &Path,
        kind: PacketKind,
        header: TransportHeader<WORDS>,
        payload: &mut Buffer,
    ) -> Result<(), Refusal> {
        let headers = self.express_headers(now, path, kind, header, payload).ok_or(Refusal::Unusual)?;
        let frame = payload.with_header_by(Headers::<WORDS>::BYTES, |out| headers.write(out));
        self.emit_express(frame.ok_or(Refusal::Shared)?, headers.offload);
        Ok(())
    }

    /// Writes the headers of a packet to `out`, which is as large, for a frame that counts as sent and is to be, while nothing
    /// else waits to be sent. False, and nothing done, if the last packet went another way, or something would be left to the
    /// device.
    #[inline(always)]
    pub(crate) fn write_express<const WORDS: usize>(
        &mut self,
        now: Instant,
        path: &Path,
        kind: PacketKind,
        header: TransportHeader<WORDS>,
        out: &mut [u8],
        payload: &[u8],
    ) -> bool {
        if !self.leads::<WORDS>(now, path, kind, payload) || self.device.tx_checksum == TxChecksum::Partial {
            return false;
        }
        self.compose(path, header, payload).write(out);
        self.express_out += 1;
        true
    }

    /// As [`Self::send_express_kept`], for a payload that others hold as well: the headers go into a segment of their own.
    ///
    /// # Errors
    /// The payload, when it is still as unusual or there is no memory; it is for [`Self::send`].
    pub(crate) fn send_express_shared<const WORDS: usize>(
        &mut self,
        now: Instant,
        path: &Path,
        kind: PacketKind,
        header: TransportHeader<WORDS>,
        payload: Buffer,
    ) -> Result<(), Option<Buffer>> {
        match self.express_headers(now, path, kind, header, &payload) {
            Some(headers) => self.emit_separately(&headers, Some(payload)),
            None => Err(Some(payload)),
        }
    }

    /// As [`Self::send_express_shared`], for at most one piece of a larger buffer, which is taken out of the list.
    #[inline(always)]
    pub(crate) fn send_express_behind<const WORDS: usize>(
        &mut self,
        now: Instant,
        path: &Path,
        kind: PacketKind,
        header: TransportHeader<WORDS>,
        pieces: &mut PieceList,
    ) -> bool {
        let bytes = match pieces.as_slice() {
            [] => &[],
            [piece] => &**piece,
            _ => return false,
        };
        match self.express_headers(now, path, kind, header, bytes) {
            Some(headers) => match self.emit_separately(&headers, pieces.pop()) {
                Ok(()) => true,
                Err(piece) => {
                    pieces.extend(piece);
                    false
                }
            },
            None => false,
        }
    }

    /// Sends headers in a segment of their own, and the payload behind it. Gives it back when there is no memory.
    #[inline(always)]
    fn emit_separately<const WORDS: usize>(
        &mut self,
        headers: &Headers<'_, WORDS>,
        payload: Option<Buffer>,
    ) -> Result<(), Option<Buffer>> {
        let Some(mut own) = self.arena.allocate(Headers::<WORDS>::BYTES) else { return Err(payload) };
        own.set_len(Headers::<WORDS>::BYTES);
        headers.write(&mut own);
        self.express_out += 1;
        self.frames.push(own.freeze());
        if let Some(payload) = payload {
            self.frames.push(payload);
        }
        self.frames.finish(headers.offload);
        Ok(())
    }

    /// Keeps the headers of a packet to a neighbour for the next one of its kind.
    pub(super) fn keep_express(
        &self,
        path: &mut Path,
        neighbor: Key,
        headers: &HeaderBuffer,
        protocol: Protocol,
        hop_limit: u8,
        traffic_class: u8,
    ) {
        let protocol = match protocol {
            Protocol::Tcp => PlainProtocol::Tcp,
            Protocol::Udp => PlainProtocol::Udp,
            Protocol::Icmpv4 | Protocol::Icmpv6 => return,
        };
        let mut lower = headers.express();
        lower[TOTAL_LENGTH_OFFSET..TOTAL_LENGTH_OFFSET + 4].fill(0);
        lower[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].fill(0);
        path.express = Express {
            sum: !checksum::of(&lower[ethernet::HEADER_BYTES..]),
            headers: lower,
            kind: PacketKind::new(protocol, hop_limit, traffic_class),
            epoch: self.neighbors.epoch(),
            usable_until: self.neighbors.usable_until(neighbor),
        };
    }

    #[inline(always)]
    fn emit_express(&mut self, frame: Buffer, offload: TxOffload) {
        self.express_out += 1;
        self.frames.push_frame(frame, offload);
    }

    #[inline(always)]
    fn express_headers<'a, const WORDS: usize>(
        &mut self,
        now: Instant,
        path: &'a Path,
        kind: PacketKind,
        header: TransportHeader<WORDS>,
        payload: &[u8],
    ) -> Option<Headers<'a, WORDS>> {
        let ready = self.leads::<WORDS>(now, path, kind, payload) && !self.transmit_queue_is_full();
        if ready { Some(self.compose(path, header, payload)) } else { None }
    }

    /// True when a packet goes the way of the last one of its path.
    #[inline(always)]
    fn leads<const WORDS: usize>(&self, now: Instant, path: &Path, kind: PacketKind, payload: &[u8]) -> bool {
        path.express.epoch == self.neighbors.epoch()
            && now < path.express.usable_until
            && Headers::<WORDS>::packet_len(payload) <= path.mtu
            && path.express.kind == kind
    }

    #[inline(always)]
    fn compose<'a, const WORDS: usize>(
        &mut self,
        path: &'a Path,
        mut header: TransportHeader<WORDS>,
        payload: &[u8],
    ) -> Headers<'a, WORDS> {
        let express = &path.express;
        let packet_len = Headers::<WORDS>::packet_len(payload);
        let mut offload = TxOffload::default();
        if self.device.tx_checksum != TxChecksum::Unneeded {
            let bytes = header.words.map(u32::to_be_bytes);
            let checksum;
            (checksum, offload) = self.express_checksum(path, header.protocol, bytes.as_flattened(), payload);
            header.set_checksum(checksum);
        }
        // RFC 6864 section 4.1: the identification of a packet that is never cut means nothing.
        let identification = match header.protocol {
            PlainProtocol::Tcp => 0,
            PlainProtocol::Udp if path.policy.dont_fragment => 0,
            PlainProtocol::Udp => self.identifications.next_v4(path.identification),
        };
        // No MTU is more than that expresses, see [`crate::StackConfig`].
        let total_len = packet_len as u16;
        let sum = u32::from(express.sum) + u32::from(total_len) + u32::from(identification);
        let [length, identification] = [total_len, identification].map(u16::to_be_bytes);
        Headers {
            lower: &express.headers,
            length_and_identification: [length[0], length[1], identification[0], identification[1]],
            checksum: (!fold(sum)).to_be_bytes(),
            transport: header.words,
            offload,
        }
    }

    /// The transport's checksum, or as much of it as the device wants.
    #[inline(never)]
    pub(super) fn express_checksum(
        &self,
        path: &Path,
        protocol: PlainProtocol,
        header: &[u8],
        payload: &[u8],
    ) -> (u16, TxOffload) {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (path.local, path.remote) else {
            return (0, TxOffload::default());
        };
        let len = header.len() + payload.len();
        let mut sum = Checksum::pseudo_header_v4(source, destination, protocol.protocol().number(), len);
        if self.device.tx_checksum == TxChecksum::Partial {
            let offset = protocol.checksum_offset() as u8;
            let partial = PartialChecksum { start: EXPRESS_BYTES as u16, offset };
            let offload = TxOffload::new(Some(partial), None);
            return (sum.partial(), offload);
        }
        sum.add_bytes(header);
        sum.add_bytes(payload);
        // RFC 768: zero would say that there is no checksum.
        let checksum = match (sum.finish(), protocol) {
            (0, PlainProtocol::Udp) => 0xffff,
            (checksum, _) => checksum,
        };
        (checksum, TxOffload::default())
    }
}

/// The one's complement sum of the two halves.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}
