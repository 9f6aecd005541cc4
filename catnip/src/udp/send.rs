//! Sending one datagram.

use std::net::{IpAddr, SocketAddr};

use libos::memory::CopyCause;
use libos::{Buffer, Error, Instant, ScatterGather};

use super::layer::MAX_PAYLOAD_BYTES;
use super::options::Options;
use super::socket::Socket;
use crate::network::{
    HeaderBuffer, Network, Outgoing, PacketKind, Path, Payload, PieceList, PlainProtocol, Protocol, Refusal,
    TransportHeader,
};
use crate::wire::udp;

#[inline(always)]
pub(super) fn send_from(
    now: Instant,
    network: &mut Network,
    socket: &mut Socket,
    headers: &mut HeaderBuffer,
    to: Option<&SocketAddr>,
    data: &mut ScatterGather,
) -> Result<(), Error> {
    if !network.transmit_queue_is_full()
        && let Some(to) = to.or(socket.remote.as_ref())
    {
        match network.send_straight(now, socket.way.straight(), socket.way.path(), to, data) {
            Ok((frame, offload)) => {
                network.frames().push_frame(frame, offload);
                return Ok(());
            }
            Err(Refusal::Shared) => {
                if send_shared(now, network, socket, to.port(), data) {
                    return Ok(());
                }
            }
            Err(Refusal::Unusual) => {}
        }
    }
    send_any(now, network, socket, headers, to, data)
}

/// The frame of a datagram that goes the way of the last one and is ready. `None`, and `data` as it was, for all others.
#[inline(always)]
pub(super) fn plain(
    now: Instant,
    network: &mut Network,
    socket: &Socket,
    to: Option<&SocketAddr>,
    data: &mut ScatterGather,
) -> Option<Buffer> {
    let to = match to {
        Some(to) => to,
        None => socket.remote.as_ref()?,
    };
    network.send_plain(now, socket.way.straight(), to, data)
}

#[inline(always)]
fn header(local_port: u16, remote_port: u16, payload_len: usize) -> TransportHeader<2> {
    // What is longer than its length field fits into no packet and is refused there.
    let datagram_len = (payload_len + udp::HEADER_BYTES) as u16;
    let ports = u32::from(local_port) << 16 | u32::from(remote_port);
    TransportHeader { protocol: PlainProtocol::Udp, words: [ports, u32::from(datagram_len) << 16] }
}

/// Sends a payload that others hold as well, or in front of which there is no room, the way of the last datagram. False, and
/// `data` as it was, when it has to go another one.
#[inline(never)]
fn send_shared(
    now: Instant,
    network: &mut Network,
    socket: &Socket,
    to_port: u16,
    data: &mut ScatterGather,
) -> bool {
    let Some(path) = socket.way.path() else { return false };
    let Some(payload) = data.take_single() else { return false };
    let kind = PacketKind::new(PlainProtocol::Udp, socket.hop_limit, socket.options.traffic_class);
    let header = header(socket.local.port(), to_port, payload.len());
    match network.send_express_shared(now, path, kind, header, payload) {
        Ok(()) => true,
        Err(payload) => {
            payload.into_iter().for_each(|payload| data.push(payload));
            false
        }
    }
}

/// Sends a datagram of any kind.
#[inline(never)]
fn send_any(
    now: Instant,
    network: &mut Network,
    socket: &mut Socket,
    headers: &mut HeaderBuffer,
    to: Option<&SocketAddr>,
    data: &mut ScatterGather,
) -> Result<(), Error> {
    let Socket { local, remote, way, hop_limit, options, error, .. } = socket;
    if let Some(error) = error.take() {
        return Err(error);
    }
    let to = to.or(remote.as_ref()).ok_or(Error::NotConnected)?;
    let (to_port, len) = (to.port(), data.len());
    if to_port == 0 {
        return Err(Error::InvalidArgument);
    }
    if len > MAX_PAYLOAD_BYTES {
        return Err(Error::MessageTooLong);
    }
    let path = match way.path_mut() {
        Some(path) if path.leads_to(to) => path,
        other => {
            let path = other.insert(find_path(now, network, options, *local, to.ip())?);
            *hop_limit = options.hop_limit_to(path.remote);
            path
        }
    };
    let datagram_len = u16::try_from(len + udp::HEADER_BYTES).map_err(|_| Error::MessageTooLong)?;
    let header = udp::compose(local.port(), to_port, datagram_len);
    headers.transport(udp::HEADER_BYTES).copy_from_slice(&header);
    let outgoing = Outgoing {
        protocol: Protocol::Udp,
        headers,
        checksum_offset: udp::CHECKSUM_OFFSET,
        payload: Payload::Empty,
        segment_bytes: None,
        hop_limit: *hop_limit,
        traffic_class: options.traffic_class,
    };
    match data.single_mut() {
        Some(buffer) => network.send(now, path, Outgoing { payload: Payload::Whole(buffer), ..outgoing })?,
        None => send_pieces(now, network, path, outgoing, data)?,
    }
    data.clear();
    // What goes straight is asked for its address alone: from a socket of IPv6 none of IPv4 is to go.
    if local.is_ipv4() {
        way.straighten(network, local.port());
    }
    Ok(())
}

/// The way to a destination, with what the socket's options say of it.
#[cold]
pub(super) fn find_path(
    now: Instant,
    network: &mut Network,
    options: &Options,
    local: SocketAddr,
    remote: IpAddr,
) -> Result<Path, Error> {
    if local.port() == 0 {
        return Err(Error::InvalidArgument);
    }
    // What is received through a group is sent by one of our own.
    let own = Some(local.ip()).filter(|own| !own.is_unspecified() && !own.is_multicast());
    let source = own.or(options.multicast_source.filter(|_| remote.is_multicast()));
    let mut path = network.path(now, source, remote)?;
    if !options.broadcast && network.is_broadcast(path.remote) {
        return Err(Error::NotPermitted);
    }
    path.set_policy(options.policy(path.remote));
    Ok(path)
}

/// Sends a datagram of no segments or several.
#[inline(never)]
fn send_pieces(
    now: Instant,
    network: &mut Network,
    path: &mut Path,
    outgoing: Outgoing<'_>,
    data: &ScatterGather,
) -> Result<(), Error> {
    let mut pieces = gather(network, data)?;
    let payload = if pieces.is_empty() { Payload::Empty } else { Payload::Pieces(&mut pieces) };
    network.send(now, path, Outgoing { payload, ..outgoing })
}

/// The segments as pieces of one packet; copied together when there are more than a packet can have.
#[inline(never)]
fn gather(network: &Network, data: &ScatterGather) -> Result<PieceList, Error> {
    let mut pieces = PieceList::new();
    if data.segments() <= network.max_pieces() {
        for piece in data.iter() {
            pieces.try_push(piece.clone()).map_err(|_| Error::NoBuffers)?;
        }
        return Ok(pieces);
    }
    let whole = network.arena().gather(CopyCause::Gathered, data.iter()).ok_or(Error::NoBuffers)?;
    pieces.push(whole.freeze());
    Ok(pieces)
}
