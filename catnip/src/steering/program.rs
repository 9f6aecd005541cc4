//! Steering as a program of the kernel's packet filter, for devices that let a program pick a frame's queue.
//!
//! It computes as much of the Toeplitz hash as the pick takes: each bit of the hash is the parity of some bits of addresses
//! and ports, and which those are follows from the key. Words of which the same bits count are joined first; under the
//! symmetric key those are all.

use super::flow::DHCP_CLIENT_PORT;
use super::share::{MAX_CORES, TABLE_ENTRIES};
use super::toeplitz::HashKey;
use crate::network::Protocol;

/// One instruction of the packet filter (McCanne and Jacobson, "The BSD Packet Filter", 1993): the kernel's `struct
/// sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What is done.
    pub code: u16,
    /// Instructions to skip when a condition holds.
    pub if_true: u8,
    /// Instructions to skip when it does not.
    pub if_false: u8,
    /// A constant or an offset.
    pub value: u32,
}

// linux/bpf_common.h: class, size or operation, and mode or source. A is the accumulator, X the index, M a word of memory.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// At an offset from X.
const LOAD_WORD_BEHIND: u16 = 0x40;
const LOAD_HALF_BEHIND: u16 = 0x48;
const LOAD_CONSTANT: u16 = 0x00;
const LOAD_MEMORY: u16 = 0x60;
const LOAD_X_MEMORY: u16 = 0x61;
/// X becomes four times the lower half of a byte: an IPv4 header's length.
const LOAD_X_HEADER: u16 = 0xb1;
const STORE: u16 = 0x02;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const SHIFT_RIGHT: u16 = 0x74;
const REMAINDER: u16 = 0x94;
const OR_X: u16 = 0x4c;
const XOR_X: u16 = 0xac;
const A_TO_X: u16 = 0x07;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN_A: u16 = 0x16;

/// Offsets from here on begin at the network header (linux/filter.h, `SKF_NET_OFF`).
const NETWORK: u32 = 0xfff0_0000;
/// Where a random number is (`SKF_AD_OFF + SKF_AD_RANDOM`).
const RANDOM: u32 = 0xffff_f000 + 56;

/// Words of the longest input of the hash: two IPv6 addresses and two ports.
const INPUT_WORDS: usize = 9;
/// Memory behind the words: what is being summed, and the entry of the table.
const SUM: u32 = INPUT_WORDS as u32;
const ENTRY: u32 = SUM + 1;

/// Places to jump to; all lie ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    V4,
    V6,
    Udp4,
    Ports4,
    Ports6,
    Hashed,
    Any,
}

/// A jump whose distance is not known yet.
#[derive(Debug)]
struct Open {
    at: usize,
    to: Label,
}

#[derive(Debug, Default)]
struct Assembler {
    program: Vec<Instruction>,
    open: Vec<Open>,
}

impl Assembler {
    fn put(&mut self, code: u16, value: u32) {
        self.program.push(Instruction { code, if_true: 0, if_false: 0, value });
    }

    fn jump(&mut self, to: Label) {
        self.open.push(Open { at: self.program.len(), to });
        self.put(JUMP, 0);
    }

    fn jump_if(&mut self, code: u16, value: u32, to: Label) {
        self.open.push(Open { at: self.program.len(), to });
        self.put(code, value);
    }

    /// What jumps to this label comes here.
    fn here(&mut self, label: Label) {
        let here = self.program.len();
        for open in self.open.extract_if(.., |open| open.to == label) {
            let Some(instruction) = self.program.get_mut(open.at) else { continue };
            let distance = here - open.at - 1;
            match instruction.code {
                JUMP => instruction.value = distance as u32,
                _ => {
                    debug_assert!(distance <= usize::from(u8::MAX), "too far for a condition");
                    instruction.if_true = distance as u8;
                }
            }
        }
    }

    /// Joins the word in A to what is at `place`.
    fn join(&mut self, place: u32) {
        self.put(LOAD_X_MEMORY, place);
        self.put(XOR_X, 0);
        self.put(STORE, place);
    }
}

/// Which bits of the input's words a bit of the hash is the parity of: a row for each bit, from the lowest.
fn masks(key: HashKey, bits: u32) -> Vec<[u32; INPUT_WORDS]> {
    let mask = |word: usize, bit: u32| {
        let counts = |at: &usize| key.window(32 * word + at) >> bit & 1 == 1;
        (0..32).filter(counts).fold(0, |mask, at| mask | 1 << (31 - at))
    };
    (0..bits).map(|bit| std::array::from_fn(|word| mask(word, bit))).collect()
}

/// The program for so many cores, of which core n has queue n, or with fewer queues n modulo their number. It returns
/// the queue of the core that a frame's flow belongs to, as [`classify`](super::classify) has it; of the frames that
/// belong to no flow each goes to any queue, so that what is repeated reaches those who poll.
#[must_use]
pub fn program(key: HashKey, cores: usize, queues: usize) -> Vec<Instruction> {
    let (cores, queues) = (cores.clamp(1, MAX_CORES) as u32, queues.clamp(1, MAX_CORES) as u32);
    // With a power of two the upper bits of the table's entry make no difference.
    let bits = if cores.is_power_of_two() { cores.ilog2() } else { TABLE_ENTRIES.ilog2() };
    let masks = masks(key, bits);
    let column = |word: usize| masks.iter().map(move |row| row[word]);
    // The first word of which the same bits count.
    let place_of = |word: usize| (0..word).find(|first| column(*first).eq(column(word))).unwrap_or(word);
    let mut places: Vec<usize> = (0..INPUT_WORDS).map(place_of).collect();
    let place = |word: usize| place_of(word) as u32;
    places.sort_unstable();
    places.dedup();

    let mut code = Assembler::default();
    code.put(LOAD_CONSTANT, 0);
    for place in &places {
        code.put(STORE, *place as u32);
    }
    code.put(STORE, ENTRY);
    code.put(LOAD_BYTE, NETWORK);
    code.put(SHIFT_RIGHT, 4);
    code.jump_if(JUMP_IF_EQUAL, 4, Label::V4);
    code.jump_if(JUMP_IF_EQUAL, 6, Label::V6);
    code.jump(Label::Any);
    ipv4(&mut code, place);
    ipv6(&mut code, place);

    code.here(Label::Any);
    code.put(LOAD_WORD, RANDOM);
    code.put(REMAINDER, queues);
    code.put(RETURN_A, 0);

    code.here(Label::Hashed);
    for (bit, row) in masks.iter().enumerate() {
        parity(&mut code, &places, row);
        code.put(SHIFT_LEFT, bit as u32);
        code.put(LOAD_X_MEMORY, ENTRY);
        code.put(OR_X, 0);
        code.put(STORE, ENTRY);
    }
    code.put(LOAD_MEMORY, ENTRY);
    code.put(REMAINDER, cores);
    code.put(REMAINDER, queues);
    code.put(RETURN_A, 0);
    debug_assert!(code.open.is_empty(), "every label has its place");
    code.program
}

/// Bytes from an IPv4 header's start to its fields (RFC 791 section 3.1).
const V4_FRAGMENT_AT: u32 = 6;
const V4_PROTOCOL_AT: u32 = 9;
const V4_ADDRESSES_AT: u32 = 12;
/// More parts follow, or this is not the first.
const V4_PART_BITS: u32 = 0x3fff;

fn ipv4(code: &mut Assembler, place: impl Fn(usize) -> u32) {
    code.here(Label::V4);
    for word in 0..2 {
        code.put(LOAD_WORD, NETWORK + V4_ADDRESSES_AT + 4 * word);
        code.join(place(word as usize));
    }
    code.put(LOAD_HALF, NETWORK + V4_FRAGMENT_AT);
    code.jump_if(JUMP_IF_ANY_BIT, V4_PART_BITS, Label::Hashed);
    code.put(LOAD_BYTE, NETWORK + V4_PROTOCOL_AT);
    code.jump_if(JUMP_IF_EQUAL, Protocol::Tcp.number().into(), Label::Ports4);
    code.jump_if(JUMP_IF_EQUAL, Protocol::Udp.number().into(), Label::Udp4);
    code.jump(Label::Any);
    code.here(Label::Udp4);
    code.put(LOAD_X_HEADER, NETWORK);
    code.put(LOAD_HALF_BEHIND, NETWORK + 2);
    // A server's answer, for all cores.
    code.jump_if(JUMP_IF_EQUAL, DHCP_CLIENT_PORT.into(), Label::Any);
    code.here(Label::Ports4);
    code.put(LOAD_X_HEADER, NETWORK);
    code.put(LOAD_WORD_BEHIND, NETWORK);
    code.join(place(2));
    code.jump(Label::Hashed);
}

/// Bytes from an IPv6 header's start to its fields and its end (RFC 8200 section 3).
const V6_NEXT_HEADER_AT: u32 = 6;
const V6_ADDRESSES_AT: u32 = 8;
const V6_HEADER_BYTES: u32 = 40;

/// What has extension headers goes by its addresses alone, as parts of packets do.
fn ipv6(code: &mut Assembler, place: impl Fn(usize) -> u32) {
    code.here(Label::V6);
    for word in 0..8 {
        code.put(LOAD_WORD, NETWORK + V6_ADDRESSES_AT + 4 * word);
        code.join(place(word as usize));
    }
    code.put(LOAD_BYTE, NETWORK + V6_NEXT_HEADER_AT);
    code.jump_if(JUMP_IF_EQUAL, Protocol::Tcp.number().into(), Label::Ports6);
    code.jump_if(JUMP_IF_EQUAL, Protocol::Udp.number().into(), Label::Ports6);
    code.jump_if(JUMP_IF_EQUAL, Protocol::Icmpv6.number().into(), Label::Any);
    code.jump(Label::Hashed);
    code.here(Label::Ports6);
    code.put(LOAD_WORD, NETWORK + V6_HEADER_BYTES);
    code.join(place(8));
    code.jump(Label::Hashed);
}

/// The parity of the bits in `row` of the words at `places`, in A.
fn parity(code: &mut Assembler, places: &[usize], row: &[u32; INPUT_WORDS]) {
    code.put(LOAD_CONSTANT, 0);
    code.put(STORE, SUM);
    for place in places {
        code.put(LOAD_MEMORY, *place as u32);
        code.put(AND, row[*place]);
        code.join(SUM);
    }
    for half in [16, 8, 4, 2, 1] {
        code.put(A_TO_X, 0);
        code.put(SHIFT_RIGHT, half);
        code.put(XOR_X, 0);
    }
    code.put(AND, 1);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::IpAddr;

    use libos::runtime::Medium;

    use super::*;
    use crate::network::testing::{framed, icmp_message, ip_packet, udp_datagram, with_header_byte};
    use crate::steering::{Class, CoreShare, classify};

    /// Bytes of the Ethernet header, where the kernel's view of the network header begins.
    const LINK: usize = 14;

    /// Runs a program on a frame as the kernel does: a load from beyond its end returns 0.
    fn run(program: &[Instruction], frame: &[u8], random: u32) -> u32 {
        let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [None; 16], 0);
        let load = |offset: u32, bytes: usize| {
            let start = LINK + offset.wrapping_sub(NETWORK) as usize;
            let found = frame.get(start..start + bytes)?;
            Some(found.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        loop {
            let Instruction { code, if_true, if_false, value } = program[at];
            at += 1;
            let bytes = |code| if code == LOAD_WORD || code == LOAD_WORD_BEHIND { 4 } else { 2 };
            match code {
                LOAD_WORD if value == RANDOM => a = random,
                LOAD_WORD | LOAD_HALF => match load(value, bytes(code)) {
                    Some(loaded) => a = loaded,
                    None => return 0,
                },
                LOAD_BYTE => match load(value, 1) {
                    Some(loaded) => a = loaded,
                    None => return 0,
                },
                LOAD_WORD_BEHIND | LOAD_HALF_BEHIND => match load(value.wrapping_add(x), bytes(code)) {
                    Some(loaded) => a = loaded,
                    None => return 0,
                },
                LOAD_X_HEADER => match load(value, 1) {
                    Some(loaded) => x = 4 * (loaded & 0xf),
                    None => return 0,
                },
                LOAD_CONSTANT => a = value,
                LOAD_MEMORY => {
                    a = memory[value as usize].expect("the kernel refuses what reads before it writes");
                }
                LOAD_X_MEMORY => x = memory[value as usize].expect("as above"),
                STORE => memory[value as usize] = Some(a),
                AND => a &= value,
                SHIFT_LEFT => a <<= value,
                SHIFT_RIGHT => a >>= value,
                REMAINDER => a %= value,
                OR_X => a |= x,
                XOR_X => a ^= x,
                A_TO_X => x = a,
                JUMP => at += value as usize,
                JUMP_IF_EQUAL => at += usize::from(if a == value { if_true } else { if_false }),
                JUMP_IF_ANY_BIT => at += usize::from(if a & value != 0 { if_true } else { if_false }),
                RETURN_A => return a,
                _ => panic!("{code:x} is no instruction that is used"),
            }
        }
    }

    fn hosts() -> [(IpAddr, IpAddr); 3] {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        [
            (address("10.0.0.2"), address("10.0.0.1")),
            (address("203.0.113.77"), address("192.168.255.254")),
            (address("2001:db8:1:2:a3b4:c5d6:e7f8:99aa"), address("fd00::1")),
        ]
    }

    /// Frames of flows, of parts, and of neither.
    fn frames() -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for (source, destination) in hosts() {
            for port in 0..300_u16 {
                let ports = (port.wrapping_mul(7919), if port % 2 == 0 { 80 } else { port });
                let datagram = udp_datagram(source, destination, ports, b"data");
                let mut segment = datagram.clone();
                segment.resize(20, 0);
                frames.push(framed(&ip_packet(source, destination, 17, &datagram)));
                frames.push(framed(&ip_packet(source, destination, 6, &segment)));
                if source.is_ipv4() {
                    let whole = ip_packet(source, destination, 17, &datagram);
                    frames.push(framed(&with_header_byte(whole.clone(), 6, 0x20)));
                    // With options: the header is 24 bytes.
                    let mut options = [&whole[..20], &[1, 1, 1, 0], &whole[20..]].concat();
                    options[0] = 0x46;
                    let total = u16::try_from(options.len()).unwrap().to_be_bytes();
                    options[2..4].copy_from_slice(&total);
                    let options = with_header_byte(options, 0, 0x46);
                    frames.push(framed(&options));
                }
            }
            if source.is_ipv4() {
                let offer = udp_datagram(source, destination, (67, DHCP_CLIENT_PORT), b"offer");
                frames.push(framed(&ip_packet(source, destination, 17, &offer)));
            }
            let kind = if source.is_ipv4() { 1 } else { 58 };
            let echo = icmp_message(source, destination, 8, 0, &[0; 8]);
            frames.push(framed(&ip_packet(source, destination, kind, &echo)));
        }
        let mut arp =
            framed(&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
        arp[12..14].copy_from_slice(&[8, 6]);
        frames.push(arp);
        frames
    }

    #[test]
    fn flows_come_to_their_core_under_every_key_and_number_of_cores() {
        let frames = frames();
        for key in [HashKey::SYMMETRIC, HashKey::MICROSOFT] {
            for cores in [1, 2, 3, 4, 7, 16, 63] {
                let share = CoreShare::split(cores, key).remove(0);
                let program = program(key, cores, cores);
                assert!(program.len() < 1000, "{} instructions", program.len());
                let mut found = HashSet::new();
                for frame in &frames {
                    let queue = run(&program, frame, 12_345) as usize;
                    let expected = match classify(Medium::Ethernet, frame) {
                        Class::Flow(flow) => share.core_of_flow(flow.local, flow.remote),
                        Class::Part(source, destination) => {
                            share.core_of_hash(share.hash().addresses(source, destination))
                        }
                        Class::Error(_) | Class::Everyone | Class::Group { .. } | Class::Anyone => {
                            12_345 % cores
                        }
                    };
                    assert_eq!(queue, expected, "{cores} cores, {frame:x?}");
                    found.insert(queue);
                }
                assert_eq!(found.len(), cores, "all cores have flows");
            }
        }
    }

    #[test]
    fn the_usual_program_is_short() {
        assert!(program(HashKey::SYMMETRIC, 2, 2).len() < 110);
    }

    #[test]
    fn with_fewer_queues_cores_share_them() {
        let (all, two) = (program(HashKey::SYMMETRIC, 5, 5), program(HashKey::SYMMETRIC, 5, 2));
        for frame in frames() {
            if matches!(classify(Medium::Ethernet, &frame), Class::Flow(_)) {
                assert_eq!(run(&two, &frame, 1), run(&all, &frame, 1) % 2);
            }
        }
    }

    #[test]
    fn no_cut_of_a_frame_is_too_short_and_every_queue_is_there() {
        let program = program(HashKey::MICROSOFT, 3, 3);
        for frame in frames().iter().step_by(97) {
            for len in LINK..=frame.len() {
                assert!(run(&program, &frame[..len], u32::MAX) < 3);
            }
        }
    }
}
