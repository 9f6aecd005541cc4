//! Handing a segment to the network layer: the straight way for a header with timestamps or with no option at
//! all, in front of one buffer or of nothing, and the general way for all else.

use libos::{Error, Instant};

use super::options::Timestamp;
use super::segment::{CHECKSUM_OFFSET, Flags, HeaderFields, MIN_HEADER_BYTES};
use super::sequence::SequenceNumber;
use crate::network::{
    HeaderBuffer, Network, Outgoing, PacketKind, Path, Payload, PieceList, PlainProtocol, Protocol,
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
    let fixed = fixed_part(fields);
    let options_bytes = fields.options.len();
    match fields.options.timestamp {
        Some(stamp)
            if options_bytes == STAMPED_BYTES - MIN_HEADER_BYTES && !fields.options.sack_permitted =>
        {
            let bytes = stamped(fixed, stamp);
            let header =
                TransportHeader { protocol: PlainProtocol::Tcp, bytes, checksum_offset: CHECKSUM_OFFSET };
            put(now, network, path, kind, header, payload)
        }
        None if options_bytes == 0 => {
            let header = TransportHeader {
                protocol: PlainProtocol::Tcp,
                bytes: fixed,
                checksum_offset: CHECKSUM_OFFSET,
            };
            put(now, network, path, kind, header, payload)
        }
        Some(_) | None => false,
    }
}

#[inline(always)]
fn put<const N: usize>(
    now: Instant,
    network: &mut Network,
    path: &Path,
    kind: PacketKind,
    header: TransportHeader<N>,
    payload: &mut Payload<'_>,
) -> bool {
    match payload {
        Payload::Whole(buffer) => network.send_express_kept(now, path, kind, header, buffer),
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
) -> TransportHeader<STAMPED_BYTES> {
    let control = (STAMPED_BYTES as u32 / 4) << 28 | u32::from(flags.bits()) << 16 | u32::from(window);
    let lead = u32::from_be_bytes(STAMP_LEAD);
    let words = [ports, sequence.raw(), acknowledgment.raw(), control, 0, lead, stamp.value, stamp.echo];
    let bytes = join(words.map(u32::to_be_bytes));
    TransportHeader { protocol: PlainProtocol::Tcp, bytes, checksum_offset: CHECKSUM_OFFSET }
}

#[inline(always)]
fn fixed_part(fields: &HeaderFields<'_>) -> [u8; MIN_HEADER_BYTES] {
    let words = if fields.options.timestamp.is_some() { STAMPED_BYTES / 4 } else { MIN_HEADER_BYTES / 4 };
    let ports = u32::from(fields.source_port) << 16 | u32::from(fields.destination_port);
    let control = (words as u32) << 28 | u32::from(fields.flags.bits()) << 16 | u32::from(fields.window);
    let words =
        [ports, fields.sequence.raw(), fields.acknowledgment.raw(), control, u32::from(fields.urgent)];
    let [ports, sequence, acknowledgment, control, urgent] = words.map(u32::to_be_bytes);
    join([ports, sequence, acknowledgment, control, urgent])
}

#[inline(always)]
fn stamped(fixed: [u8; MIN_HEADER_BYTES], stamp: Timestamp) -> [u8; STAMPED_BYTES] {
    let mut bytes = [0; STAMPED_BYTES];
    let options = join::<3, 12>([STAMP_LEAD, stamp.value.to_be_bytes(), stamp.echo.to_be_bytes()]);
    bytes[..MIN_HEADER_BYTES].copy_from_slice(&fixed);
    bytes[MIN_HEADER_BYTES..].copy_from_slice(&options);
    bytes
}

/// The words one behind the other: N of them in BYTES bytes.
#[inline(always)]
fn join<const N: usize, const BYTES: usize>(words: [[u8; 4]; N]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word);
    }
    bytes
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
            let fixed = fixed_part(&fields);
            match timestamp {
                None => assert_eq!(fixed[..], general),
                Some(stamp) => {
                    assert_eq!(stamped(fixed, stamp)[..], general);
                    let ports = u32::from(fields.source_port) << 16 | u32::from(fields.destination_port);
                    let (sequence, acknowledgment) = (fields.sequence, fields.acknowledgment);
                    let whole =
                        stamped_header(ports, sequence, acknowledgment, fields.flags, fields.window, stamp);
                    assert_eq!(whole.bytes[..], general);
                }
            }
        }
    }
}
