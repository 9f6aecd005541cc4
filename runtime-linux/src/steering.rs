//! A program that picks the queue of each received frame. Who opens the device writes it; the kernel runs it.
//!
//! Packet sockets take it as it is, a program of the classic packet filter. TAP devices take instructions of today's
//! machine (RFC 9669), into which it is put here.

use std::io;

/// One instruction of the classic packet filter: the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
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

/// The program: what it returns, modulo the number of queues, is the queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steering(pub Vec<Instruction>);

// linux/bpf_common.h: of a classic instruction the class, and what is told apart by more than that.
const CLASS: u16 = 0x07;
const CLASS_LOAD: u16 = 0x00;
const CLASS_LOAD_X: u16 = 0x01;
const CLASS_STORE: u16 = 0x02;
const CLASS_ARITHMETIC: u16 = 0x04;
const CLASS_JUMP: u16 = 0x05;
const CLASS_RETURN: u16 = 0x06;
const MODE: u16 = 0xe0;
const MODE_CONSTANT: u16 = 0x00;
const MODE_PACKET: u16 = 0x20;
const MODE_PACKET_BEHIND_X: u16 = 0x40;
const MODE_MEMORY: u16 = 0x60;
const MODE_HEADER_LENGTH: u16 = 0xa0;
/// The other operand is X.
const SOURCE_X: u16 = 0x08;
const JUMP_ALWAYS: u16 = 0x05;
const RETURN_A: u16 = 0x16;
const A_TO_X: u16 = 0x07;
/// Where a random number is (`SKF_AD_OFF + SKF_AD_RANDOM`); the only one of its kind that is known here.
const RANDOM: u32 = 0xffff_f000 + 56;
const ANCILLARY: u32 = 0xffff_f000;

// RFC 9669, sections 4 and 5: the same of today's machine.
const MOVE_CONSTANT_32: u8 = 0xb4;
const MOVE_32: u8 = 0xbc;
const MOVE_64: u8 = 0xbf;
const AND_CONSTANT_32: u8 = 0x54;
const SHIFT_LEFT_CONSTANT_32: u8 = 0x64;
const LOAD_PACKET_BYTE: u8 = 0x30;
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x63;
const JUMP: u8 = 0x05;
/// Conditions on the lower halves of registers.
const CONDITIONS_32: u8 = 0x06;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// The helper `bpf_get_prandom_u32`.
const RANDOM_HELPER: i32 = 7;

// Registers: where loads from packets put what they find, and what calls leave alone.
const A: u8 = 0;
const FIRST_ARGUMENT: u8 = 1;
const CONTEXT: u8 = 6;
const X: u8 = 7;
const SPARE: u8 = 8;
const FRAME: u8 = 10;

/// Words of memory that a classic program has.
const MEMORY_WORDS: u32 = 16;
/// Instructions that one of the classic ones becomes, at most, and so how far apart two may come.
const MAX_INSTRUCTIONS: usize = 4096;

/// One instruction (RFC 9669, section 3): code, two registers, offset and immediate value.
pub(crate) fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let registers =
        if cfg!(target_endian = "little") { destination | source << 4 } else { destination << 4 | source };
    let [a, b] = offset.to_ne_bytes();
    let [c, d, e, f] = immediate.to_ne_bytes();
    u64::from_ne_bytes([code, registers, a, b, c, d, e, f])
}

/// A jump in the translation, whose distance is known once all is translated: at which instruction it stands, and to
/// which classic one it goes.
struct Jump {
    at: usize,
    code: u8,
    immediate: i32,
    to: usize,
}

/// Puts a classic program into instructions of today's machine.
///
/// # Errors
/// `InvalidInput` for an instruction that is none, or none that is needed for picking a queue.
pub(crate) fn translate(program: &[Instruction]) -> io::Result<Vec<u64>> {
    let refused = || io::Error::from(io::ErrorKind::InvalidInput);
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(refused());
    }
    let mut code = vec![
        instruction(MOVE_64, CONTEXT, FIRST_ARGUMENT, 0, 0),
        instruction(MOVE_CONSTANT_32, A, 0, 0, 0),
        instruction(MOVE_CONSTANT_32, X, 0, 0, 0),
    ];
    let mut begins = Vec::with_capacity(program.len());
    let mut jumps = Vec::new();
    for (index, classic) in program.iter().enumerate() {
        begins.push(code.len());
        let next = index + 1;
        let mut jump = |code: &mut Vec<u64>, with: u8, to: usize| {
            jumps.push(Jump { at: code.len(), code: with, immediate: classic.value.cast_signed(), to });
            code.push(0);
        };
        match (classic.code & CLASS, classic.code) {
            (CLASS_JUMP, JUMP_ALWAYS) => jump(&mut code, JUMP, next + classic.value as usize),
            (CLASS_JUMP, condition) if condition & SOURCE_X == 0 => {
                let condition = (condition as u8 & !CLASS as u8) | CONDITIONS_32;
                jump(&mut code, condition, next + usize::from(classic.if_true));
                jump(&mut code, JUMP, next + usize::from(classic.if_false));
            }
            _ => straight(classic, &mut code).ok_or_else(refused)?,
        }
    }
    for Jump { at, code: with, immediate, to } in jumps {
        let to = *begins.get(to).ok_or_else(refused)?;
        let distance = i16::try_from(to - at - 1).map_err(|_| refused())?;
        let condition = with != JUMP;
        code[at] = instruction(
            with,
            if condition { A } else { 0 },
            0,
            distance,
            if condition { immediate } else { 0 },
        );
    }
    Ok(code)
}

/// Puts one instruction that does not jump; `None` for one that is not known.
fn straight(classic: &Instruction, code: &mut Vec<u64>) -> Option<()> {
    let value = classic.value.cast_signed();
    // Below the frame's end.
    let word = |value: u32| (value < MEMORY_WORDS).then(|| -4 * (value as i16 + 1));
    let own = classic.code as u8;
    match (classic.code & CLASS, classic.code & MODE) {
        (CLASS_LOAD, MODE_CONSTANT) => code.push(instruction(MOVE_CONSTANT_32, A, 0, 0, value)),
        (CLASS_LOAD, MODE_PACKET) if classic.value == RANDOM => {
            code.push(instruction(CALL, 0, 0, 0, RANDOM_HELPER));
        }
        (CLASS_LOAD, MODE_PACKET) if classic.value >= ANCILLARY => return None,
        // Loads from packets have kept their codes.
        (CLASS_LOAD, MODE_PACKET) => code.push(instruction(own, 0, 0, 0, value)),
        (CLASS_LOAD, MODE_PACKET_BEHIND_X) => code.push(instruction(own, 0, X, 0, value)),
        (CLASS_LOAD, MODE_MEMORY) => code.push(instruction(LOAD_WORD, A, FRAME, word(classic.value)?, 0)),
        (CLASS_LOAD_X, MODE_MEMORY) => code.push(instruction(LOAD_WORD, X, FRAME, word(classic.value)?, 0)),
        (CLASS_LOAD_X, MODE_HEADER_LENGTH) => code.extend([
            instruction(MOVE_32, SPARE, A, 0, 0),
            instruction(LOAD_PACKET_BYTE, 0, 0, 0, value),
            instruction(AND_CONSTANT_32, A, 0, 0, 0xf),
            instruction(SHIFT_LEFT_CONSTANT_32, A, 0, 0, 2),
            instruction(MOVE_32, X, A, 0, 0),
            instruction(MOVE_32, A, SPARE, 0, 0),
        ]),
        (CLASS_STORE, _) => code.push(instruction(STORE_WORD, FRAME, A, word(classic.value)?, 0)),
        // So has arithmetic, on the lower halves of registers. The source is X, or the value.
        (CLASS_ARITHMETIC, _) if classic.code & SOURCE_X != 0 => code.push(instruction(own, A, X, 0, 0)),
        (CLASS_ARITHMETIC, _) => code.push(instruction(own, A, 0, 0, value)),
        (CLASS_RETURN, _) if classic.code == RETURN_A => code.push(instruction(EXIT, 0, 0, 0, 0)),
        _ if classic.code == A_TO_X => code.push(instruction(MOVE_32, X, A, 0, 0)),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classic(code: u16, if_true: u8, if_false: u8, value: u32) -> Instruction {
        Instruction { code, if_true, if_false, value }
    }

    #[test]
    fn jumps_go_where_they_went_though_all_is_longer() {
        let program = [
            classic(0x30, 0, 0, 0xfff0_0000),
            classic(0x15, 2, 0, 4),
            classic(0xb1, 0, 0, 0xfff0_0000),
            classic(0x05, 0, 0, 0),
            classic(0x16, 0, 0, 0),
        ];
        let translated = translate(&program).unwrap();
        let bytes: Vec<[u8; 8]> = translated.iter().map(|instruction| instruction.to_ne_bytes()).collect();
        assert_eq!(bytes.len(), 3 + 1 + 2 + 6 + 1 + 1);
        assert_eq!(bytes[3], [0x30, 0, 0, 0, 0, 0, 0xf0, 0xff]);
        // If equal, over the other jump, the six of the header's length and the jump behind.
        assert_eq!(bytes[4], [0x16, 0, 8, 0, 4, 0, 0, 0]);
        assert_eq!(bytes[5], [0x05, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[13], [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_not_known_and_what_leads_out_is_refused() {
        let end = classic(0x16, 0, 0, 0);
        for bad in [
            classic(0x05, 0, 0, 7),
            classic(0x05, 0, 0, u32::MAX),
            classic(0x15, 0, 7, 0),
            classic(0x1d, 0, 0, 0),
            classic(0x60, 0, 0, 16),
            classic(0x02, 0, 0, u32::MAX),
            classic(0x20, 0, 0, 0xffff_f000),
            classic(0x80, 0, 0, 0),
            classic(0xffff, 0, 0, 0),
        ] {
            assert!(translate(&[bad, end]).is_err(), "{bad:?}");
        }
        assert!(translate(&[]).is_err());
    }
}
