//! Packets that are larger than their path carries, cut by whoever sends them (RFC 791 section 3.2,
//! RFC 8200 section 4.5).

use std::hash::Hasher;
use std::net::IpAddr;

use libos::memory::CopyCause;
use libos::runtime::TxOffload;
use libos::{Buffer, Error};
use siphasher::sip::SipHasher13;

use crate::network::Network;
use crate::random::Random;
use crate::wire::ipv4;
use crate::wire::ipv6::{self, FragmentHeader, Ipv6Header, next_header};

/// Number of identification counters; destinations share them by hash.
const IDENTIFICATIONS: usize = 256;

/// Identifications of packets that are or may be cut (RFC 6864 section 4.3, RFC 7739 section 5.3): a counter
/// for each group of destinations, with random start, and for each destination a distance from it that
/// nobody else can tell. So the numbers of packets between two hosts come again as late as possible, and
/// an observer learns nothing of those to others.
#[derive(Debug)]
pub(in crate::network) struct Identifications {
    counters: [u32; IDENTIFICATIONS],
    keys: (u64, u64),
}

/// Which counter a destination has, and its distance from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::network) struct IdentificationSlot {
    distance: u32,
    counter: u8,
}

impl Identifications {
    pub(in crate::network) fn new(random: &mut Random) -> Self {
        let mut counters = [0; IDENTIFICATIONS];
        counters.fill_with(|| random.next_u32());
        Self { counters, keys: (random.next_u64(), random.next_u64()) }
    }

    /// The counter for a destination.
    pub(in crate::network) fn slot(&self, remote: IpAddr) -> IdentificationSlot {
        let mut hasher = SipHasher13::new_with_keys(self.keys.0, self.keys.1);
        match remote {
            IpAddr::V4(remote) => hasher.write_u32(remote.to_bits()),
            IpAddr::V6(remote) => hasher.write_u128(remote.to_bits()),
        }
        let [counter, _, _, _, a, b, c, d] = hasher.finish().to_le_bytes();
        IdentificationSlot { distance: u32::from_le_bytes([a, b, c, d]), counter }
    }

    /// The next number for a destination.
    #[inline]
    pub(in crate::network) fn next(&mut self, slot: IdentificationSlot) -> u32 {
        let counter = &mut self.counters[usize::from(slot.counter)];
        *counter = counter.wrapping_add(1);
        counter.wrapping_add(slot.distance)
    }

    /// The next number for a destination, as IPv4 has them.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "IPv4's numbers are half as long")]
    pub(in crate::network) fn next_v4(&mut self, slot: IdentificationSlot) -> u16 {
        self.next(slot) as u16
    }
}

/// A packet as it would be sent if it fitted.
struct Uncut<'a> {
    link_header: &'a [u8],
    ip_header: &'a [u8],
    /// Starts with this, and goes on with the payload.
    transport_header: &'a [u8],
    payload: Buffer,
    /// Largest part with its IP header.
    mtu: usize,
}

impl Uncut<'_> {
    fn data_len(&self) -> usize {
        self.transport_header.len() + self.payload.len()
    }

    /// The headers of each part and the payload in it. `write` makes the IP header of a part from where it
    /// starts, its bytes and whether more follow. `None` without memory, or when nothing fits.
    fn parts(
        &self,
        arena: &libos::Arena,
        header_len: usize,
        write: impl Fn(&mut [u8], usize, usize, bool),
    ) -> Option<Vec<(Buffer, Option<Buffer>)>> {
        // Parts begin at multiples of eight bytes.
        let most = self.mtu.checked_sub(header_len)? & !7;
        let first = self.transport_header.len();
        if most <= first {
            return None;
        }
        let mut parts = Vec::with_capacity(self.data_len().div_ceil(most));
        let mut start = 0;
        while start < self.data_len() {
            let len = most.min(self.data_len() - start);
            let transport = if start == 0 { self.transport_header } else { &[] };
            let headers_len = self.link_header.len() + header_len + transport.len();
            let mut headers = arena.allocate(headers_len)?;
            headers.extend_from_slice(self.link_header);
            headers.set_len(headers_len);
            let (_, behind_link) = headers.split_at_mut_checked(self.link_header.len())?;
            let (header, behind) = behind_link.split_at_mut_checked(header_len)?;
            write(header, start, len, start + len < self.data_len());
            behind.copy_from_slice(transport);
            let from = start.max(first) - first;
            let payload = self.payload.try_slice(from..start + len - first)?;
            parts.push((headers.freeze(), Some(payload).filter(|payload| !payload.is_empty())));
            start += len;
        }
        Some(parts)
    }
}

impl Network {
    /// Sends a packet in parts of at most `mtu` bytes: all of them or, without memory, none. `headers` are
    /// all of it from the link header on, the transport's checksum included. They may be more than the
    /// device's queue has room for by the parts of this one packet.
    #[cold]
    pub(in crate::network) fn emit_cut(
        &mut self,
        headers: &[u8],
        payload: &[Buffer],
        mtu: usize,
    ) -> Result<(), Error> {
        let parts = self.cut(headers, payload, mtu);
        let Some(parts) = parts else {
            self.counters.ip_frag_fails += 1;
            self.counters.ip_out_discards += 1;
            return Err(Error::NoBuffers);
        };
        self.counters.ip_frag_oks += 1;
        for (headers, payload) in parts {
            self.frames.push(headers);
            if let Some(payload) = payload {
                self.frames.push(payload);
            }
            self.frames.finish(TxOffload::default());
            self.counters.ip_frag_creates += 1;
            self.counters.link_out_frames += 1;
        }
        Ok(())
    }

    fn cut(
        &mut self,
        headers: &[u8],
        payload: &[Buffer],
        mtu: usize,
    ) -> Option<Vec<(Buffer, Option<Buffer>)>> {
        let (link_header, packet) = headers.split_at_checked(self.link_header_len())?;
        let is_v4 = packet.first()? >> 4 == 4;
        let ip_header_len = if is_v4 { ipv4::HEADER_BYTES } else { ipv6::HEADER_BYTES };
        let (ip_header, transport_header) = packet.split_at_checked(ip_header_len)?;
        let payload = self.in_one(payload)?;
        let uncut = Uncut { link_header, ip_header, transport_header, payload, mtu };
        if is_v4 {
            return uncut.parts(&self.arena, ip_header_len, |header, start, len, more| {
                header.copy_from_slice(uncut.ip_header);
                let total_len = u16::try_from(ip_header_len + len).unwrap_or(u16::MAX);
                ipv4::make_part(header, total_len, start, more);
            });
        }
        let whole = Ipv6Header::parse_quoted(ip_header).ok()?;
        let slot = self.identifications.slot(whole.destination().into());
        let identification = self.identifications.next(slot);
        let header_len = ip_header_len + FragmentHeader::BYTES;
        uncut.parts(&self.arena, header_len, |header, offset, len, more| {
            let fragment = FragmentHeader { next_header: whole.next_header(), offset, more, identification };
            let payload_len = u16::try_from(FragmentHeader::BYTES + len).unwrap_or(u16::MAX);
            if let Some((fixed, behind)) = header.split_first_chunk_mut() {
                fixed.copy_from_slice(uncut.ip_header);
                ipv6::mend(fixed, whole.traffic_class(), payload_len);
                fixed[ipv6::NEXT_HEADER_OFFSET] = next_header::FRAGMENT;
                behind.copy_from_slice(&fragment.compose());
            }
        })
    }

    /// The buffers as one, which parts can be cut from.
    fn in_one(&self, payload: &[Buffer]) -> Option<Buffer> {
        if let [single] = payload {
            return Some(single.clone());
        }
        Some(self.arena.gather(CopyCause::Gathered, payload.iter())?.freeze())
    }
}
