//! DHCP messages (RFC 2131 section 2, options of RFC 2132).

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;

use super::ethernet::Address;

/// The server's port.
pub const SERVER_PORT: u16 = 67;
/// The client's port.
pub const CLIENT_PORT: u16 = 68;

/// Bytes of the largest message that is composed.
pub const REQUEST_BYTES: usize = 300;
/// Routers and name servers that are read of a list; further ones are left out.
pub const MAX_LISTED: usize = 4;

const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const FIXED_BYTES: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..FIXED_BYTES;
/// Nobody says to take less than this (RFC 2132 section 9.10).
const LEAST_MAX_BYTES: u16 = 576;
/// The flag of those who cannot take unicasts yet (RFC 2131 section 4.1).
const BROADCAST_FLAG: u8 = 0x80;

mod option {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTERS: u8 = 3;
    pub const NAME_SERVERS: u8 = 6;
    pub const MTU: u8 = 26;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_IDENTIFIER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT_IDENTIFIER: u8 = 61;
    pub const END: u8 = 255;
}

/// What a message is for (RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// The client looks for servers.
    Discover,
    /// A server offers an address.
    Offer,
    /// The client takes an offer, or wants to keep its address.
    Request,
    /// The client found the address in use.
    Decline,
    /// The server agrees.
    Ack,
    /// The server refuses.
    Nak,
    /// The client gives its address back.
    Release,
}

impl MessageType {
    const fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Decline => 4,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        let all =
            [Self::Discover, Self::Offer, Self::Request, Self::Decline, Self::Ack, Self::Nak, Self::Release];
        all.into_iter().find(|kind| kind.number() == number)
    }
}

/// A client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientMessage {
    /// What it is for.
    pub kind: MessageType,
    /// What the server's answer repeats.
    pub transaction: u32,
    /// Seconds since the client began to look for an address.
    pub seconds: u16,
    /// The client's hardware address.
    pub hardware: Address,
    /// The address that the client has; unspecified while it has none.
    pub client: Ipv4Addr,
    /// The address that the client wants.
    pub requested: Option<Ipv4Addr>,
    /// The server that the message is for.
    pub server: Option<Ipv4Addr>,
    /// Largest message that the client takes, in bytes of IP packet.
    pub max_bytes: u16,
}

/// A server's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMessage {
    /// What it is for.
    pub kind: MessageType,
    /// As in the client's message.
    pub transaction: u32,
    /// The hardware address of the client that it is for.
    pub hardware: Address,
    /// The client's address from now on.
    pub yours: Ipv4Addr,
    /// The server.
    pub server: Option<Ipv4Addr>,
    /// Bits of the network's prefix.
    pub prefix_length: Option<u8>,
    /// Routers in order of preference.
    pub routers: ArrayVec<Ipv4Addr, MAX_LISTED>,
    /// Name servers in order of preference.
    pub name_servers: ArrayVec<Ipv4Addr, MAX_LISTED>,
    /// The link's MTU, in bytes.
    pub mtu: Option<u16>,
    /// For how many seconds the address is the client's; all ones for ever.
    pub lease_s: Option<u32>,
    /// Seconds after which the client asks the same server.
    pub renewal_s: Option<u32>,
    /// Seconds after which the client asks any server.
    pub rebinding_s: Option<u32>,
}

impl ClientMessage {
    /// Composes the message.
    #[must_use]
    pub fn compose(&self) -> ArrayVec<u8, REQUEST_BYTES> {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..4].copy_from_slice(&[BOOT_REQUEST, ETHERNET, 6, 0]);
        bytes[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        // RFC 2131 section 4.4.1, table 5: what asks for no answer has no flags, and what is given up is not asked about.
        let asks = matches!(self.kind, MessageType::Discover | MessageType::Request);
        if asks && self.client.is_unspecified() {
            bytes[10] = BROADCAST_FLAG;
        }
        bytes[12..16].copy_from_slice(&self.client.octets());
        bytes[28..34].copy_from_slice(&self.hardware);
        bytes[FIXED_BYTES..FIXED_BYTES + 4].copy_from_slice(&COOKIE);
        let mut options: ArrayVec<u8, { REQUEST_BYTES - FIXED_BYTES - 4 }> = ArrayVec::new();
        let mut put = |kind: u8, body: &[u8]| {
            let len = u8::try_from(body.len()).unwrap_or(u8::MAX);
            options.extend([kind, len].into_iter().chain(body.iter().copied()));
        };
        put(option::MESSAGE_TYPE, &[self.kind.number()]);
        put(option::CLIENT_IDENTIFIER, &client_identifier(self.hardware));
        if let Some(requested) = self.requested {
            put(option::REQUESTED_ADDRESS, &requested.octets());
        }
        if let Some(server) = self.server {
            put(option::SERVER_IDENTIFIER, &server.octets());
        }
        if asks {
            put(option::MAX_SIZE, &self.max_bytes.max(LEAST_MAX_BYTES).to_be_bytes());
            let wanted = [
                option::SUBNET_MASK,
                option::ROUTERS,
                option::NAME_SERVERS,
                option::MTU,
                option::LEASE_TIME,
                option::RENEWAL_TIME,
                option::REBINDING_TIME,
            ];
            put(option::PARAMETERS, &wanted);
        }
        options.push(option::END);
        bytes[FIXED_BYTES + 4..FIXED_BYTES + 4 + options.len()].copy_from_slice(&options);
        bytes.into()
    }
}

impl ServerMessage {
    /// The message in a datagram. `None` when it is malformed, is no server's, or does not say what it is.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_BYTES>()?;
        let (cookie, options) = rest.split_first_chunk::<4>()?;
        if fixed[..3] != [BOOT_REPLY, ETHERNET, 6] || *cookie != COOKIE {
            return None;
        }
        let mut hardware = [0; 6];
        hardware.copy_from_slice(&fixed[28..34]);
        let mut read = Options::default();
        read.add_all(options)?;
        // RFC 2131 section 4.1: options may go on in fields that are not used for what they are for.
        let [overload] = read.first(option::OVERLOAD).unwrap_or([0]);
        if overload & 1 != 0 {
            read.add_all(&fixed[FILE])?;
        }
        if overload & 2 != 0 {
            read.add_all(&fixed[SERVER_NAME])?;
        }
        let [kind] = read.first(option::MESSAGE_TYPE)?;
        let kind = MessageType::from_number(kind)?;
        let is_servers = matches!(kind, MessageType::Offer | MessageType::Ack | MessageType::Nak);
        // RFC 6842 section 3: who told an identifier takes no answer to another one.
        let identifier = read.body(option::CLIENT_IDENTIFIER);
        if !is_servers || (!identifier.is_empty() && identifier != client_identifier(hardware)) {
            return None;
        }
        let address = |kind| read.first(kind).map(Ipv4Addr::from_octets);
        Some(Self {
            kind,
            transaction: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            hardware,
            yours: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
            server: address(option::SERVER_IDENTIFIER),
            prefix_length: address(option::SUBNET_MASK).and_then(prefix_length),
            routers: addresses(read.body(option::ROUTERS)),
            name_servers: addresses(read.body(option::NAME_SERVERS)),
            mtu: read.first(option::MTU).map(u16::from_be_bytes),
            lease_s: read.first(option::LEASE_TIME).map(u32::from_be_bytes),
            renewal_s: read.first(option::RENEWAL_TIME).map(u32::from_be_bytes),
            rebinding_s: read.first(option::REBINDING_TIME).map(u32::from_be_bytes),
        })
    }
}

/// Options that are read.
const READ: [u8; 11] = [
    option::SUBNET_MASK,
    option::ROUTERS,
    option::NAME_SERVERS,
    option::MTU,
    option::LEASE_TIME,
    option::OVERLOAD,
    option::MESSAGE_TYPE,
    option::SERVER_IDENTIFIER,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
    option::CLIENT_IDENTIFIER,
];
/// Bytes that are read of each.
const LONGEST_BYTES: usize = 4 * MAX_LISTED;

/// A message's options. One that comes in several pieces is the pieces in a row (RFC 3396 section 7).
#[derive(Debug, Default)]
struct Options {
    bodies: [ArrayVec<u8, LONGEST_BYTES>; READ.len()],
}

impl Options {
    /// Each option takes at least a byte, so the walk ends.
    fn add_all(&mut self, mut bytes: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = bytes.split_first() {
            match kind {
                option::PAD => bytes = rest,
                option::END => break,
                _ => {
                    let (&len, rest) = rest.split_first()?;
                    let (body, rest) = rest.split_at_checked(usize::from(len))?;
                    self.add(kind, body);
                    bytes = rest;
                }
            }
        }
        Some(())
    }

    fn add(&mut self, kind: u8, body: &[u8]) {
        if let Some((_, known)) = READ.iter().zip(&mut self.bodies).find(|(read, _)| **read == kind) {
            let room = known.remaining_capacity();
            known.extend(body.iter().copied().take(room));
        }
    }

    /// What an option says; nothing when it is not there.
    fn body(&self, kind: u8) -> &[u8] {
        READ.iter().zip(&self.bodies).find(|(read, _)| **read == kind).map_or(&[], |(_, body)| body)
    }

    /// An option of so many bytes, the first where somebody sent it twice. What has a wrong length is as good as not
    /// there.
    fn first<const BYTES: usize>(&self, kind: u8) -> Option<[u8; BYTES]> {
        let body = self.body(kind);
        body.first_chunk().filter(|_| body.len().is_multiple_of(BYTES)).copied()
    }
}

/// The identifier of a client with that hardware address (RFC 2132 section 9.14).
const fn client_identifier([a, b, c, d, e, f]: Address) -> [u8; 7] {
    [ETHERNET, a, b, c, d, e, f]
}

fn addresses(body: &[u8]) -> ArrayVec<Ipv4Addr, MAX_LISTED> {
    let (listed, _) = body.as_chunks::<4>();
    listed.iter().copied().map(Ipv4Addr::from_octets).take(MAX_LISTED).collect()
}

/// The length of a mask whose ones all come first.
fn prefix_length(mask: Ipv4Addr) -> Option<u8> {
    let length = mask.to_bits().leading_ones();
    (mask.to_bits().count_ones() == length).then_some(u8::try_from(length).unwrap_or(32))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const HARDWARE: Address = [2, 0, 0, 0, 0, 1];

    /// A server's message with these options.
    pub(crate) fn reply(transaction: u32, hardware: Address, yours: Ipv4Addr, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[..3].copy_from_slice(&[BOOT_REPLY, ETHERNET, 6]);
        bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
        bytes[16..20].copy_from_slice(&yours.octets());
        bytes[28..34].copy_from_slice(&hardware);
        bytes.extend(COOKIE);
        bytes.extend(options);
        bytes.push(option::END);
        bytes
    }

    const OPTIONS: [u8; 57] = [
        53, 1, 5, 54, 4, 192, 0, 2, 254, 1, 4, 255, 255, 255, 0, 3, 8, 192, 0, 2, 254, 192, 0, 2, 253, 6, 4,
        9, 9, 9, 9, 26, 2, 5, 0x78, 51, 4, 0, 0, 14, 16, 58, 4, 0, 0, 7, 8, 59, 4, 0, 0, 12, 78, 12, 2, b'h',
        b'i',
    ];

    #[test]
    fn an_answer_is_read_with_its_options() {
        let yours = Ipv4Addr::new(192, 0, 2, 77);
        let message = ServerMessage::parse(&reply(7, HARDWARE, yours, &OPTIONS)).unwrap();
        let addresses = |last: &[u8]| last.iter().map(|last| Ipv4Addr::new(192, 0, 2, *last)).collect();
        assert_eq!(
            message,
            ServerMessage {
                kind: MessageType::Ack,
                transaction: 7,
                hardware: HARDWARE,
                yours,
                server: Some(Ipv4Addr::new(192, 0, 2, 254)),
                prefix_length: Some(24),
                routers: addresses(&[254, 253]),
                name_servers: [Ipv4Addr::new(9, 9, 9, 9)].into_iter().collect(),
                mtu: Some(1400),
                lease_s: Some(3600),
                renewal_s: Some(1800),
                rebinding_s: Some(3150),
            }
        );
    }

    #[test]
    fn options_go_on_in_fields_that_are_free() {
        let mut bytes = reply(7, HARDWARE, Ipv4Addr::UNSPECIFIED, &[52, 1, 3]);
        bytes[FILE.start..FILE.start + 4].copy_from_slice(&[53, 1, 6, 255]);
        bytes[SERVER_NAME.start..SERVER_NAME.start + 7].copy_from_slice(&[54, 4, 192, 0, 2, 9, 255]);
        let message = ServerMessage::parse(&bytes).unwrap();
        assert_eq!((message.kind, message.server), (MessageType::Nak, Some(Ipv4Addr::new(192, 0, 2, 9))));
    }

    #[test]
    fn an_option_in_pieces_is_one_and_an_option_that_comes_twice_counts_once() {
        let mut bytes = reply(7, HARDWARE, Ipv4Addr::UNSPECIFIED, &[]);
        bytes.truncate(FIXED_BYTES + 4);
        // RFC 3396 section 5: what is split goes on in the file's field, then in the server's name.
        bytes.extend([53, 1, 5, 53, 1, 5, 54, 2, 192, 0, 3, 3, 192, 0, 2, 52, 1, 3, 51, 4, 0, 0, 0, 60, 255]);
        bytes[FILE.start..FILE.start + 8].copy_from_slice(&[54, 1, 2, 3, 2, 254, 192, 255]);
        bytes[SERVER_NAME.start..SERVER_NAME.start + 9].copy_from_slice(&[54, 1, 9, 3, 3, 0, 2, 253, 255]);
        let message = ServerMessage::parse(&bytes).unwrap();
        assert_eq!(message.server, Some(Ipv4Addr::new(192, 0, 2, 9)));
        let routers = [254, 253].map(|last| Ipv4Addr::new(192, 0, 2, last));
        assert_eq!((message.routers.as_slice(), message.lease_s), (&routers[..], Some(60)));
        assert_eq!(message.kind, MessageType::Ack);
        // However many pieces there are, no more is kept than is read.
        let many: Vec<u8> = [53, 1, 5].into_iter().chain([6, 4, 9, 9, 9, 9].repeat(40)).collect();
        let message = ServerMessage::parse(&reply(7, HARDWARE, Ipv4Addr::UNSPECIFIED, &many)).unwrap();
        assert_eq!(message.name_servers.len(), MAX_LISTED);
    }

    #[test]
    fn an_answer_to_another_client_identifier_is_nobodys() {
        let to = |identifier: &[u8]| {
            let mut options = vec![53, 1, 5, 61, identifier.len() as u8];
            options.extend(identifier);
            ServerMessage::parse(&reply(7, HARDWARE, Ipv4Addr::UNSPECIFIED, &options))
        };
        assert!(to(&[1, 2, 0, 0, 0, 0, 1]).is_some());
        for other in [&[1, 2, 0, 0, 0, 0, 2][..], &[1, 2, 0, 0, 0, 0, 1, 0], &[0, 2, 0, 0, 0, 0, 1], &[7]] {
            assert_eq!(to(other), None, "{other:?}");
        }
    }

    #[test]
    fn malformed_messages_are_refused_and_malformed_options_left_out() {
        let good = reply(7, HARDWARE, Ipv4Addr::UNSPECIFIED, &OPTIONS);
        for (name, offset, value) in [
            ("a client's", 0, 1),
            ("another kind of link", 1, 6),
            ("another kind of address", 2, 8),
            ("no cookie", FIXED_BYTES, 0),
            ("of no known type", FIXED_BYTES + 6, 99),
            ("of a client's type", FIXED_BYTES + 6, 3),
            ("cut in an option", FIXED_BYTES + 5, 250),
        ] {
            let mut bytes = good.clone();
            bytes[offset] = value;
            assert_eq!(ServerMessage::parse(&bytes), None, "{name}");
        }
        for len in 0..FIXED_BYTES + 7 {
            assert_eq!(ServerMessage::parse(&good[..len]), None, "{len} bytes");
        }
        let odd = reply(
            7,
            HARDWARE,
            Ipv4Addr::UNSPECIFIED,
            &[53, 1, 5, 1, 4, 255, 0, 255, 0, 51, 2, 1, 1, 3, 3, 1, 2, 3],
        );
        let message = ServerMessage::parse(&odd).unwrap();
        assert_eq!((message.prefix_length, message.lease_s, message.routers.len()), (None, None, 0));
    }

    #[test]
    fn a_clients_message_has_its_fields_where_the_standard_puts_them() {
        let message = ClientMessage {
            kind: MessageType::Request,
            transaction: 0x0102_0304,
            seconds: 9,
            hardware: HARDWARE,
            client: Ipv4Addr::UNSPECIFIED,
            requested: Some(Ipv4Addr::new(192, 0, 2, 77)),
            server: Some(Ipv4Addr::new(192, 0, 2, 254)),
            max_bytes: 1500,
        };
        let bytes = message.compose();
        assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 9, 0x80, 0]);
        assert_eq!(bytes[28..34], HARDWARE);
        assert_eq!(bytes[236..243], [99, 130, 83, 99, 53, 1, 3]);
        assert!(bytes.windows(6).any(|window| window == [50, 4, 192, 0, 2, 77]));
        assert!(bytes.windows(6).any(|window| window == [54, 4, 192, 0, 2, 254]));
        assert!(bytes.windows(4).any(|window| window == [57, 2, 0x05, 0xdc]));
        let bound = ClientMessage { client: Ipv4Addr::new(192, 0, 2, 77), ..message }.compose();
        assert_eq!(bound[10..16], [0, 0, 192, 0, 2, 77]);
        let narrow = ClientMessage { max_bytes: 300, ..message }.compose();
        assert!(narrow.windows(4).any(|window| window == [57, 2, 0x02, 0x40]));
        // Table 5: no flag, and nothing asked for.
        for kind in [MessageType::Decline, MessageType::Release] {
            let given_up = ClientMessage { kind, ..message }.compose();
            assert_eq!(given_up[10], 0);
            assert!(!given_up[240..].windows(2).any(|window| window == [55, 7] || window == [57, 2]));
        }
    }
}
