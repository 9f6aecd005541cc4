//! Handing a segment to the network layer: the straight way for a header with timestamps or with no option at
//! all, in front of one buffer or of nothing, and the general way for all else.

use libos::{Error, Instant};

use super::options::Timestamp;
use super::segment::{CHECKSUM_OFFSET, Flags, HeaderFields, MIN_HEADER_BYTES};
use super::sequence::SequenceNumber;
use crate::network::{
    HeaderBuffer, Network, Outgoing, PacketKind, Path, Payload, PieceList, PlainProtocol, Protocol, Refusal,
    TransportHeader,
};

/// Bytes of a header with timestamps and nothing else.
pub(super) const STAMPED_BYTES: usize = MIN_HEADER_BYTES + 12;

/// Two of no operation, then the timestamps' kind and length (RFC 7323, appendix A).
pub(super) const STAMP_LEAD: [u8; 4] = [1, 1, 8, 10];

/// What the lower layers are told about a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope {
    pub(super) hop_limit: u8,
    pub(super) traffic_class: u8,
    /// Segmentation offload: payload bytes of each segment.
    pub(super) segment_bytes: Option<u16>,
}

/// Sends a segment along `path`.
///
/// # Errors
/// As [`Network::send`].
#[inline(always)]
pub(super) fn emit(
    now: Instant,
    network: &mut Network,
    path: &mut Path,
    fields: &HeaderFields<'_>,
    mut payload: Payload<'_>,
    envelope: Envelope,
) -> Result<(), Error> {
    if envelope.segment_bytes.is_none() && emit_express(now, network, path, fields, &mut payload, envelope) {
        return Ok(());
    }
    emit_any(now, network, path, fields, payload, envelope)
}

#[inline(never)]
fn emit_any(
    now: Instant,
    network: &mut Network,
    path: &mut Path,
    fields: &HeaderFields<'_>,
    payload: Payload<'_>,
    envelope: Envelope,
) -> Result<(), Error> {
    let Envelope { hop_limit, traffic_class, segment_bytes } = envelope;
    let mut headers = HeaderBuffer::new();
    fields.emit(headers.transport(fields.header_bytes()));
    let outgoing = Outgoing {
        protocol: Protocol::Tcp,
        headers: &mut headers,
        checksum_offset: CHECKSUM_OFFSET,
        payload,
        segment_bytes,
        hop_limit,
        traffic_class,
    };
    network.send(now, path, outgoing)
}

/// The way the last segment went, if that is still right for this one. False, and nothing done, for all else.
#[inline(always)]
fn emit_express(
    now: Instant,
    network: &mut Network,
    path: &Path,
    fields: &HeaderFields<'_>,
    payload: &mut Payload<'_>,
    envelope: Envelope,
) -> bool {
    let Envelope { hop_limit, traffic_class, .. } = envelope;
    let kind = PacketKind::new(PlainProtocol::Tcp, hop_limit, traffic_class);
    let options_bytes = fields.options.len();
    match fields.options.timestamp {
        Some(stamp)
            if options_bytes == STAMPED_BYTES - MIN_HEADER_BYTES && !fields.options.sack_permitted =>
        {
            put(now, network, path, kind, stamped(fields, stamp), payload)
        }
        None if options_bytes == 0 => put(now, network, path, kind, plain(fields), payload),
        Some(_) | None => false,
    }
}

#[inline(always)]
fn put<const WORDS: usize>(
    now: Instant,
    network: &mut Network,
    path: &Path,
    kind: PacketKind,
    header: TransportHeader<WORDS>,
    payload: &mut Payload<'_>,
) -> bool {
    match payload {
        Payload::Whole(buffer) => match network.send_express_kept(now, path, kind, header, buffer) {
            Ok(()) => true,
            Err(Refusal::Shared) => {
                network.send_express_shared(now, path, kind, header, buffer.clone()).is_ok()
            }
            Err(Refusal::Unusual) => false,
        },
        Payload::Empty => network.send_express_behind(now, path, kind, header, &mut PieceList::new()),
        Payload::Pieces(pieces) => network.send_express_behind(now, path, kind, header, pieces),
    }
}

/// A header with timestamps and nothing else; the ports are in one number, ours in the upper half.
#[inline(always)]
pub(super) fn stamped_header(
    ports: u32,
    sequence: SequenceNumber,
    acknowledgment: SequenceNumber,
    flags: Flags,
    window: u16,
    stamp: Timestamp,
) -> TransportHeader<{ STAMPED_BYTES / 4 }> {
    let lead = u32::from_be_bytes(STAMP_LEAD);
    let control = control(STAMPED_BYTES, flags, window);
    let words = [ports, sequence.raw(), acknowledgment.raw(), control, 0, lead, stamp.value, stamp.echo];
    TransportHeader { protocol: PlainProtocol::Tcp, words }
}

#[inline(always)]
fn stamped(fields: &HeaderFields<'_>, stamp: Timestamp) -> TransportHeader<{ STAMPED_BYTES / 4 }> {
    let HeaderFields { sequence, acknowledgment, flags, window, urgent, .. } = *fields;
    let mut header = stamped_header(ports(fields), sequence, acknowledgment, flags, window, stamp);
    header.words[4] = u32::from(urgent);
    header
}

#[inline(always)]
fn plain(fields: &HeaderFields<'_>) -> TransportHeader<{ MIN_HEADER_BYTES / 4 }> {
    let HeaderFields { sequence, acknowledgment, flags, window, urgent, .. } = *fields;
    let control = control(MIN_HEADER_BYTES, flags, window);
    let words = [ports(fields), sequence.raw(), acknowledgment.raw(), control, u32::from(urgent)];
    TransportHeader { protocol: PlainProtocol::Tcp, words }
}

#[inline(always)]
fn ports(fields: &HeaderFields<'_>) -> u32 {
    u32::from(fields.source_port) << 16 | u32::from(fields.destination_port)
}

/// Data offset, flags and window.
#[inline(always)]
fn control(header_bytes: usize, flags: Flags, window: u16) -> u32 {
    (header_bytes as u32 / 4) << 28 | u32::from(flags.control_bits()) << 16 | u32::from(window)
}

#[cfg(test)]
mod tests {
    use super::super::options::OptionFields;
    use super::*;

    #[test]
    fn the_straight_way_writes_what_the_general_one_does() {
        for timestamp in [None, Some(Timestamp { value: 0x0102_0304, echo: 0x0506_0708 })] {
            let fields = HeaderFields {
                source_port: 12345,
                destination_port: 80,
                sequence: SequenceNumber::new(0xffff_fffe),
                acknowledgment: SequenceNumber::new(0x1001),
                flags: Flags::PSH | Flags::ACK,
                window: 502,
                urgent: 0,
                options: OptionFields { timestamp, ..OptionFields::default() },
            };
            let mut general = vec![0; fields.header_bytes()];
            fields.emit(&mut general);
            match timestamp {
                None => assert_eq!(plain(&fields).words.map(u32::to_be_bytes).as_flattened(), general),
                Some(stamp) => {
                    assert_eq!(stamped(&fields, stamp).words.map(u32::to_be_bytes).as_flattened(), general);
                }
            }
        }
    }
}
