//! What the streams' bytes are. They lie ready, so that making and comparing them takes no step for each byte.

/// Most bytes of one piece of a stream.
pub const MAX_PIECE_BYTES: usize = 64 << 10;

/// The program's bytes repeat after so many: a prime, so that no usual distance of segments is a multiple.
const SENT_PERIOD: usize = 251;
/// The peers' bytes are their sequence numbers.
const RECEIVED_PERIOD: usize = 256;

static SENT: [u8; MAX_PIECE_BYTES + SENT_PERIOD] = repeated(SENT_PERIOD);
static RECEIVED: [u8; MAX_PIECE_BYTES + RECEIVED_PERIOD] = repeated(RECEIVED_PERIOD);

const fn repeated<const LEN: usize>(period: usize) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let mut at = 0;
    while at < LEN {
        bytes[at] = (at % period) as u8;
        at += 1;
    }
    bytes
}

/// Bytes of a program's stream, from this offset on.
pub fn sent_bytes(offset: u32, len: usize) -> &'static [u8] {
    &SENT[offset as usize % SENT_PERIOD..][..len]
}

/// Bytes of a peer's stream, from this sequence number on, as it stands in the header.
pub fn received_bytes(number: u32, len: usize) -> &'static [u8] {
    &RECEIVED[number as usize % RECEIVED_PERIOD..][..len]
}
