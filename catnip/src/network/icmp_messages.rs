//! Received ICMP messages: echo requests, and errors about what we sent.

use std::net::IpAddr;

use libos::runtime::RxFrame;
use libos::{BufferList, Instant};

use super::quoted::Quoted;
use super::receive::{IpInfo, frame_len};
use super::{DestinationKind, HeaderBuffer, IcmpErrorKind, Ingress, Network, Outgoing, Payload, Protocol};
use crate::stack::MIN_MTU_IPV6;
use crate::wire::icmp::{self, IcmpHeader, v4, v6};
use crate::wire::mld;
use crate::wire::router;

/// Smallest MTU that an IPv4 path has (RFC 791 section 3.2).
const MIN_MTU_IPV4: usize = 68;

/// Likely MTUs below that of the packet that did not fit, for routers that do not tell theirs
/// (RFC 1191 section 7).
const PLATEAUS: [usize; 10] = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296];

impl Network {
    /// Takes an ICMPv4 message (RFC 792, RFC 1122 section 3.2.2).
    #[cold]
    pub(super) fn receive_icmpv4(&mut self, now: Instant, ip: &IpInfo, frame: RxFrame) -> Ingress {
        self.counters.icmp_in_messages += 1;
        let Some(frame) = self.joined(frame) else { return Ingress::Consumed };
        let Some((header, body)) = self.check_icmp(ip, &frame) else { return Ingress::Consumed };
        match header.kind {
            v4::ECHO_REQUEST => {
                self.counters.icmp_in_echos += 1;
                // RFC 1122 section 3.2.2.6: requests to everybody may be ignored, and are, since the
                // answers are a well-known way to flood a third party.
                if ip.kind == DestinationKind::Unicast {
                    self.reply_to_echo(now, ip, header, frame);
                }
                Ingress::Consumed
            }
            v4::DESTINATION_UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM => {
                let quoted = Quoted::parse_v4(body);
                let kind = quoted.and_then(|quoted| error_kind_v4(header, quoted.packet_len));
                self.report(quoted, kind)
            }
            v4::REDIRECT => {
                self.receive_redirect_v4(ip, header, body);
                Ingress::Consumed
            }
            // Replies to echo requests that we never send, source quench (RFC 6633), and whatever else there is.
            _ => Ingress::Consumed,
        }
    }

    /// Takes an ICMPv6 message (RFC 4443).
    #[cold]
    pub(super) fn receive_icmpv6(&mut self, now: Instant, ip: &IpInfo, frame: RxFrame) -> Ingress {
        self.counters.icmp_in_messages += 1;
        let Some(frame) = self.joined(frame) else { return Ingress::Consumed };
        let Some((header, body)) = self.check_icmp(ip, &frame) else { return Ingress::Consumed };
        match header.kind {
            v6::NEIGHBOR_SOLICITATION | v6::NEIGHBOR_ADVERTISEMENT => {
                self.receive_ndp(now, ip, &frame.head);
                Ingress::Consumed
            }
            mld::QUERY | mld::V1_REPORT | mld::V1_DONE | mld::V2_REPORT => {
                self.receive_mld(now, ip, &frame.head);
                Ingress::Consumed
            }
            router::kind::ROUTER_ADVERTISEMENT => {
                self.receive_advertisement(now, ip, &frame.head);
                Ingress::Consumed
            }
            router::kind::REDIRECT => {
                self.receive_redirect(now, ip, &frame.head);
                Ingress::Consumed
            }
            _ if ip.source.is_unspecified() => {
                self.counters.icmp_in_errors += 1;
                Ingress::Consumed
            }
            v6::ECHO_REQUEST => {
                self.counters.icmp_in_echos += 1;
                self.reply_to_echo(now, ip, header, frame);
                Ingress::Consumed
            }
            v6::DESTINATION_UNREACHABLE | v6::PACKET_TOO_BIG | v6::TIME_EXCEEDED | v6::PARAMETER_PROBLEM => {
                self.report(Quoted::parse_v6(body), error_kind_v6(header))
            }
            // Router messages, replies to echo requests that we never send.
            _ => Ingress::Consumed,
        }
    }

    /// The message in one buffer: what it quotes or tells may be in the frame's further ones.
    pub(super) fn joined(&mut self, frame: RxFrame) -> Option<RxFrame> {
        if frame.rest.is_empty() {
            return Some(frame);
        }
        let Some(mut whole) = self.arena.allocate(frame_len(&frame)) else {
            self.counters.icmp_in_errors += 1;
            return None;
        };
        whole.extend_from_slice(&frame.head);
        frame.rest.iter().for_each(|piece| {
            whole.extend_from_slice(piece);
        });
        Some(RxFrame { head: whole.freeze(), rest: BufferList::new(), ..frame })
    }

    /// The header of a message whose checksum is right.
    fn check_icmp<'a>(&mut self, ip: &IpInfo, frame: &'a RxFrame) -> Option<(IcmpHeader, &'a [u8])> {
        let parsed = IcmpHeader::parse(&frame.head).filter(|_| self.checksum_is_right(ip, frame));
        self.counters.icmp_in_errors += u64::from(parsed.is_none());
        parsed
    }

    /// Hands an error up, if it is about something that one of our sockets may have sent.
    fn report(&mut self, quoted: Option<Quoted>, kind: Option<IcmpErrorKind>) -> Ingress {
        let quoted = quoted.filter(|quoted| self.interface.is_local(quoted.source()));
        let (Some(quoted), Some(kind)) = (quoted, kind) else { return Ingress::Consumed };
        self.counters.icmp_in_destination_errors += 1;
        Ingress::Error(quoted.error(kind))
    }

    /// Sends the data back (RFC 1122 section 3.2.2.6, RFC 4443 section 4.2), without a copy.
    fn reply_to_echo(&mut self, now: Instant, ip: &IpInfo, request: IcmpHeader, frame: RxFrame) {
        let mut data = frame.head;
        data.advance(icmp::HEADER_BYTES);
        let local = (ip.kind == DestinationKind::Unicast).then_some(ip.destination);
        let Ok(mut path) = self.path(now, local, ip.source) else { return };
        let (protocol, kind) = match ip.source {
            IpAddr::V4(_) => (Protocol::Icmpv4, v4::ECHO_REPLY),
            IpAddr::V6(_) => (Protocol::Icmpv6, v6::ECHO_REPLY),
        };
        let mut headers = HeaderBuffer::new();
        let reply = IcmpHeader { kind, code: 0, rest: request.rest };
        headers.transport(icmp::HEADER_BYTES).copy_from_slice(&reply.compose());
        let outgoing = Outgoing {
            protocol,
            headers: &mut headers,
            checksum_offset: icmp::CHECKSUM_OFFSET,
            payload: Payload::Whole(&mut data),
            segment_bytes: None,
            hop_limit: self.hop_limit(path.remote),
            // RFC 1349 section 5.1: a reply has its request's type of service.
            traffic_class: ip.traffic_class,
        };
        if self.send(now, &mut path, outgoing).is_ok() {
            self.counters.icmp_out_messages += 1;
        }
    }
}

/// What an ICMPv4 error says; `None` for codes that say nothing to a transport.
fn error_kind_v4(header: IcmpHeader, packet_len: usize) -> Option<IcmpErrorKind> {
    use v4::unreachable as code;
    match (header.kind, header.code) {
        (v4::TIME_EXCEEDED, _) => Some(IcmpErrorKind::TimeExceeded),
        (v4::PARAMETER_PROBLEM, _) => Some(IcmpErrorKind::ParameterProblem),
        (_, code::NETWORK | code::NETWORK_UNKNOWN | code::NETWORK_SERVICE) => {
            Some(IcmpErrorKind::NetworkUnreachable)
        }
        (
            _,
            code::HOST
            | code::SOURCE_ROUTE_FAILED
            | code::HOST_UNKNOWN
            | code::SOURCE_ISOLATED
            | code::HOST_SERVICE
            | code::PRECEDENCE_VIOLATION
            | code::PRECEDENCE_CUTOFF,
        ) => Some(IcmpErrorKind::HostUnreachable),
        (_, code::PROTOCOL) => Some(IcmpErrorKind::ProtocolUnreachable),
        (_, code::PORT) => Some(IcmpErrorKind::PortUnreachable),
        (_, code::NETWORK_PROHIBITED | code::HOST_PROHIBITED | code::ADMIN_PROHIBITED) => {
            Some(IcmpErrorKind::AdminProhibited)
        }
        (_, code::FRAGMENTATION_NEEDED) => {
            let [_, _, high, low] = header.rest;
            let mtu = match usize::from(u16::from_be_bytes([high, low])) {
                0 => PLATEAUS.into_iter().find(|mtu| *mtu < packet_len).unwrap_or(MIN_MTU_IPV4),
                mtu => mtu,
            };
            Some(IcmpErrorKind::FragmentationNeeded { mtu: mtu.max(MIN_MTU_IPV4) })
        }
        _ => None,
    }
}

/// What an ICMPv6 error says; `None` for codes that say nothing to a transport.
fn error_kind_v6(header: IcmpHeader) -> Option<IcmpErrorKind> {
    use v6::unreachable as code;
    match (header.kind, header.code) {
        (v6::PACKET_TOO_BIG, _) => {
            // RFC 8201 section 4: nothing below the least MTU is believed, and no such path is one of the least.
            let mtu = usize::try_from(header.rest_u32()).unwrap_or(usize::MAX);
            (mtu >= MIN_MTU_IPV6).then_some(IcmpErrorKind::FragmentationNeeded { mtu })
        }
        (v6::TIME_EXCEEDED, _) => Some(IcmpErrorKind::TimeExceeded),
        // RFC 4443 section 3.4: an unrecognized next header is this version's protocol unreachable.
        (v6::PARAMETER_PROBLEM, v6::parameter::UNRECOGNIZED_NEXT_HEADER) => {
            Some(IcmpErrorKind::ProtocolUnreachable)
        }
        (v6::PARAMETER_PROBLEM, _) => Some(IcmpErrorKind::ParameterProblem),
        (v6::DESTINATION_UNREACHABLE, code::NO_ROUTE | code::REJECT_ROUTE) => {
            Some(IcmpErrorKind::NetworkUnreachable)
        }
        (v6::DESTINATION_UNREACHABLE, code::ADMIN_PROHIBITED | code::SOURCE_POLICY) => {
            Some(IcmpErrorKind::AdminProhibited)
        }
        (v6::DESTINATION_UNREACHABLE, code::BEYOND_SCOPE | code::ADDRESS) => {
            Some(IcmpErrorKind::HostUnreachable)
        }
        (v6::DESTINATION_UNREACHABLE, code::PORT) => Some(IcmpErrorKind::PortUnreachable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_that_does_not_tell_its_mtu_is_guessed_at() {
        let needed = |rest, len| error_kind_v4(IcmpHeader { kind: 3, code: 4, rest }, len);
        for (rest, packet_len, mtu) in [
            ([0, 0, 5, 0], 1500, 1280),
            ([0, 0, 0, 0], 1500, 1492),
            ([0, 0, 0, 0], 1492, 1006),
            ([0, 0, 0, 0], 200, 68),
            ([0, 0, 0, 9], 1500, 68),
        ] {
            assert_eq!(needed(rest, packet_len), Some(IcmpErrorKind::FragmentationNeeded { mtu }));
        }
    }

    #[test]
    fn every_code_has_its_meaning() {
        use IcmpErrorKind::*;
        for (kind, code, expected) in [
            (3, 0, Some(NetworkUnreachable)),
            (3, 1, Some(HostUnreachable)),
            (3, 2, Some(ProtocolUnreachable)),
            (3, 3, Some(PortUnreachable)),
            (3, 5, Some(HostUnreachable)),
            (3, 6, Some(NetworkUnreachable)),
            (3, 7, Some(HostUnreachable)),
            (3, 9, Some(AdminProhibited)),
            (3, 10, Some(AdminProhibited)),
            (3, 13, Some(AdminProhibited)),
            (3, 15, Some(HostUnreachable)),
            (3, 16, None),
            (11, 0, Some(TimeExceeded)),
            (12, 0, Some(ParameterProblem)),
        ] {
            assert_eq!(
                error_kind_v4(IcmpHeader { kind, code, rest: [0; 4] }, 100),
                expected,
                "{kind}/{code}"
            );
        }
        for (kind, code, expected) in [
            (1, 0, Some(NetworkUnreachable)),
            (1, 1, Some(AdminProhibited)),
            (1, 3, Some(HostUnreachable)),
            (1, 4, Some(PortUnreachable)),
            (1, 6, Some(NetworkUnreachable)),
            (1, 7, None),
            (2, 0, None),
            (3, 1, Some(TimeExceeded)),
            (4, 0, Some(ParameterProblem)),
            (4, 1, Some(ProtocolUnreachable)),
        ] {
            assert_eq!(error_kind_v6(IcmpHeader { kind, code, rest: [0; 4] }), expected, "{kind}/{code}");
        }
        for (mtu, expected) in [
            (1279_u32, None),
            (1280, Some(FragmentationNeeded { mtu: 1280 })),
            (9000, Some(FragmentationNeeded { mtu: 9000 })),
        ] {
            let told = IcmpHeader { kind: v6::PACKET_TOO_BIG, code: 0, rest: mtu.to_be_bytes() };
            assert_eq!(error_kind_v6(told), expected, "{mtu}");
        }
    }
}
