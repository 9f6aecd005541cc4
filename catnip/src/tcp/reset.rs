//! Resets for segments that belong to no connection, or acknowledge what was never sent
//! (RFC 9293, section 3.5.2).

use libos::Instant;

use super::connection::{Connection, Context};
use super::counters::TcpCounters;
use super::options::OptionFields;
use super::segment::{CHECKSUM_OFFSET, Flags, HeaderFields, Segment};
use super::sequence::SequenceNumber;
use super::throttle::Throttle;
use crate::network::{HeaderBuffer, Network, Outgoing, Packet, Path, Payload, Protocol};

/// Answers a segment that came to a closed port. A reset is never answered with a reset.
pub(super) fn refuse(
    segment: &Segment,
    data_len: u32,
    packet: &Packet,
    now: Instant,
    network: &mut Network,
    throttle: &mut Throttle,
    counters: &mut TcpCounters,
) {
    if segment.flags.contains(Flags::RST) {
        return;
    }
    if !throttle.allows_reset(now) {
        counters.skipped_resets += 1;
        return;
    }
    let Ok(mut path) = network.path(now, Some(packet.destination), packet.source) else { return };
    send(segment, data_len, &mut path, now, network, counters);
}

/// Answers a segment for `connection` whose acknowledgment is of nothing it sent.
pub(super) fn answer(connection: &mut Connection, segment: &Segment, cx: &mut Context<'_>) {
    if segment.flags.contains(Flags::RST) {
        return;
    }
    if !cx.throttle.allows_reset(cx.now) {
        cx.counters.skipped_resets += 1;
        return;
    }
    send(segment, 0, &mut connection.path, cx.now, cx.network, cx.counters);
}

fn send(
    segment: &Segment,
    data_len: u32,
    path: &mut Path,
    now: Instant,
    network: &mut Network,
    counters: &mut TcpCounters,
) {
    // First group of section 3.5.2: take the acknowledged number, or acknowledge all of the segment.
    let (sequence, acknowledgment, flags) = if segment.flags.contains(Flags::ACK) {
        (segment.acknowledgment, SequenceNumber::new(0), Flags::RST)
    } else {
        let end = segment.sequence + segment.sequence_len(data_len);
        (SequenceNumber::new(0), end, Flags::RST | Flags::ACK)
    };
    let fields = HeaderFields {
        source_port: segment.destination_port,
        destination_port: segment.source_port,
        sequence,
        acknowledgment,
        flags,
        window: 0,
        urgent: 0,
        options: OptionFields::default(),
    };
    let mut headers = HeaderBuffer::new();
    fields.emit(headers.transport(fields.header_bytes()));
    let outgoing = Outgoing {
        protocol: Protocol::Tcp,
        headers: &mut headers,
        checksum_offset: CHECKSUM_OFFSET,
        payload: Payload::Empty,
        segment_bytes: None,
        hop_limit: 64,
        traffic_class: 0,
    };
    if network.send(now, path, outgoing).is_ok() {
        counters.out_resets += 1;
        counters.out_segments += 1;
    }
}
