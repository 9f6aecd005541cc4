//! As much of rtnetlink (RFC 3549) as giving the kernel's end of a device its settings takes: look a
//! link up, bring it up with an MTU, add an address. What `ip link` and `ip address` do.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;

use crate::system;

/// A message of `RTM_GETLINK` with all of a device's statistics stays below this.
const REPLY_BYTES: usize = 32 << 10;

const MESSAGE_HEADER_BYTES: usize = 16;
const LINK_HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h: types of messages and of their attributes.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x2;
const IFF_UP: u32 = 0x1;

/// A network interface as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    /// The interface's number.
    pub index: u32,
    /// True when it is administratively up.
    pub up: bool,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// The kernel's own Ethernet address on the link, zeros when it has none.
    pub hardware_address: [u8; 6],
}

/// A conversation with the kernel's routing tables.
pub(crate) struct Netlink {
    socket: File,
    sequence: u32,
}

impl Netlink {
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: File::from(system::route_socket()?), sequence: 0 })
    }

    /// The interface of this name. An error of kind `NotFound` or `ENODEV` when there is none.
    pub fn link(&mut self, name: &str) -> io::Result<Link> {
        let mut request = Request::new(RTM_GETLINK, NLM_F_REQUEST);
        request.link_header(0, 0, 0);
        let mut name_with_nul = Vec::from(name);
        name_with_nul.push(0);
        request.attribute(IFLA_IFNAME, &name_with_nul);
        let reply = self.exchange(request)?;
        reply.as_deref().and_then(parse_link).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Sets the interface's MTU and brings it up.
    pub fn set_up(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK);
        request.link_header(index, IFF_UP, IFF_UP);
        request.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        self.exchange(request).map(drop)
    }

    /// Gives the kernel an address on the interface; one that it already has is left as it is.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix_bits: u8) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut request = Request::new(RTM_NEWADDR, flags);
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // Both ends of the link belong to one program: duplicate address detection could only delay
        // the first packet by a second.
        let address_flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
        request.bytes(&[family as u8, prefix_bits, address_flags, 0]);
        request.bytes(&index.to_ne_bytes());
        match address {
            IpAddr::V4(address) => request.address(&address.octets()),
            IpAddr::V6(address) => request.address(&address.octets()),
        }
        self.exchange(request).map(drop)
    }

    /// Sends a request and reads its answer: the body of the reply, `None` for a mere
    /// acknowledgement, and the kernel's refusal as an error.
    fn exchange(&mut self, request: Request) -> io::Result<Option<Vec<u8>>> {
        self.sequence += 1;
        self.socket.write_all(&request.finish(self.sequence))?;
        let mut reply = vec![0; REPLY_BYTES];
        let length = self.socket.read(&mut reply)?;
        reply.truncate(length);
        let kind = u16_at(&reply, 4).ok_or(io::ErrorKind::InvalidData)?;
        let body = reply.split_off(MESSAGE_HEADER_BYTES.min(reply.len()));
        if kind != NLMSG_ERROR {
            return Ok(Some(body));
        }
        match u32_at(&body, 0).map(u32::cast_signed) {
            Some(0) => Ok(None),
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A message under construction: header, fixed part, attributes.
struct Request {
    message: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16) -> Self {
        let mut message = vec![0; MESSAGE_HEADER_BYTES];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { message }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.message.extend_from_slice(bytes);
    }

    /// `struct ifinfomsg`.
    fn link_header(&mut self, index: u32, flags: u32, change: u32) {
        self.bytes(&[0; 4]);
        self.bytes(&index.to_ne_bytes());
        self.bytes(&flags.to_ne_bytes());
        self.bytes(&change.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = ATTRIBUTE_HEADER_BYTES + value.len();
        self.bytes(&(length as u16).to_ne_bytes());
        self.bytes(&kind.to_ne_bytes());
        self.bytes(value);
        self.message.resize(self.message.len().next_multiple_of(4), 0);
    }

    fn address(&mut self, octets: &[u8]) {
        self.attribute(IFA_LOCAL, octets);
        self.attribute(IFA_ADDRESS, octets);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.message.len() as u32;
        self.message[0..4].copy_from_slice(&length.to_ne_bytes());
        self.message[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.message
    }
}

/// Reads the body of an `RTM_NEWLINK` message.
fn parse_link(body: &[u8]) -> Option<Link> {
    let mut link = Link { index: u32_at(body, 4)?, up: u32_at(body, 8)? & IFF_UP != 0, ..Link::default() };
    let mut attributes = body.get(LINK_HEADER_BYTES..)?;
    while let Some((kind, value, rest)) = split_attribute(attributes) {
        match kind {
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_ADDRESS => link.hardware_address = value.try_into().unwrap_or_default(),
            _ => {}
        }
        attributes = rest;
    }
    Some(link)
}

fn split_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16_at(bytes, 0)?);
    let kind = u16_at(bytes, 2)?;
    let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value, rest))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Deletes an interface from under whoever uses it.
    pub(crate) fn delete_link(name: &str) {
        const RTM_DELLINK: u16 = 17;
        let mut netlink = Netlink::open().unwrap();
        let mut request = Request::new(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK);
        request.link_header(netlink.link(name).unwrap().index, 0, 0);
        netlink.exchange(request).unwrap();
    }

    #[test]
    fn the_loopback_interface_is_found() {
        let link = Netlink::open().unwrap().link("lo").unwrap();
        assert_eq!(link.index, 1);
        assert_eq!(link.mtu, 65_536);
        assert_eq!(link.hardware_address, [0; 6]);
    }

    #[test]
    fn an_unknown_interface_is_refused() {
        let error = Netlink::open().unwrap().link("no-such-link").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn broken_messages_parse_to_nothing_and_never_panic() {
        let mut request = Request::new(RTM_NEWLINK, 0);
        request.link_header(7, IFF_UP, 0);
        request.attribute(IFLA_MTU, &1500_u32.to_ne_bytes());
        request.attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 9]);
        let body = request.finish(1).split_off(MESSAGE_HEADER_BYTES);
        let whole = parse_link(&body).unwrap();
        assert_eq!(whole, Link { index: 7, up: true, mtu: 1500, hardware_address: [2, 0, 0, 0, 0, 9] });
        let padding = 2;
        for cut in 0..body.len() - padding {
            assert_ne!(parse_link(&body[..cut]), Some(whole), "cut to {cut} bytes");
        }
    }
}
