//! The program that the kernel runs for each frame: it hands the frame to the socket that serves its queue, and to the
//! kernel's stack when there is none.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::steering::instruction;

/// What `XDP_PASS` is: the frame goes on to the kernel's stack.
const PASS: i32 = 2;
/// The helper `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;
/// Where the number of the receive queue is in `struct xdp_md`.
const RX_QUEUE_INDEX_AT: i16 = 16;

/// Marks the immediate value of a load as a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;

// Instruction codes (RFC 9669, section 3 to 5): class, size or operation, and mode or source.
const LOAD_WORD: u8 = 0x61;
const LOAD_IMMEDIATE_64: u8 = 0x18;
const MOVE_IMMEDIATE: u8 = 0xb7;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// `return bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);`
pub(super) fn redirect(sockets: BorrowedFd<'_>) -> [u64; 6] {
    [
        instruction(LOAD_WORD, 2, 1, RX_QUEUE_INDEX_AT, 0),
        instruction(LOAD_IMMEDIATE_64, 1, PSEUDO_MAP_FD, 0, sockets.as_raw_fd()),
        // The upper half of the 64 bits.
        0,
        instruction(MOVE_IMMEDIATE, 3, 0, 0, PASS),
        instruction(CALL, 0, 0, 0, REDIRECT_MAP),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_program_is_the_bytes_that_an_assembler_gives() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let [load, map, upper, pass, call, exit] = redirect(file.as_fd());
        assert_eq!(load.to_ne_bytes(), [0x61, 0x12, 16, 0, 0, 0, 0, 0]);
        assert_eq!(map.to_ne_bytes()[..4], [0x18, 0x11, 0, 0]);
        assert_eq!(map.to_ne_bytes()[4..], file.as_raw_fd().to_ne_bytes());
        assert_eq!(upper, 0);
        assert_eq!(pass.to_ne_bytes(), [0xb7, 3, 0, 0, 2, 0, 0, 0]);
        assert_eq!(call.to_ne_bytes(), [0x85, 0, 0, 0, 51, 0, 0, 0]);
        assert_eq!(exit.to_ne_bytes(), [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }
}
