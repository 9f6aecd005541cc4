//! Rings that a front end enables before it has said which features it takes.
//!
//! The specification lets `SET_VRING_ENABLE` come once `VHOST_USER_F_PROTOCOL_FEATURES` was negotiated, and the crate that reads messages refuses it
//! before `SET_FEATURES` has named that bit. QEMU takes the bit for negotiated when it was offered: it enables the first pair
//! when the machine is reset, long before its guest has chosen features. So such messages are read here.

use std::os::unix::net::UnixStream;

use crate::system;

/// Request, flags and length of what follows, each of 32 bits.
const HEADER_BYTES: usize = 12;
/// Number of a ring and its new state, each of 32 bits.
const STATE_BYTES: usize = 8;
const SET_VRING_ENABLE: u32 = 18;
/// Version 1 of the protocol, no answer wanted.
const PLAIN_FLAGS: u32 = 1;

/// The message that waits, if it is one that enables a ring or stops it: which ring, and whether. Waits for a message, and
/// leaves any other where it is.
pub(super) fn ring_enable(stream: &UnixStream) -> Option<(u32, bool)> {
    let mut header = [0; HEADER_BYTES];
    if !system::peek_all(stream, &mut header)
        || words(&header) != [SET_VRING_ENABLE, PLAIN_FLAGS, STATE_BYTES as u32]
    {
        return None;
    }
    let mut message = [0; HEADER_BYTES + STATE_BYTES];
    if !system::peek_all(stream, &mut message) {
        return None;
    }
    let [.., index, enable] = words::<5>(&message);
    // What is no state is left to the crate, which refuses it.
    let enable = match enable {
        0 => false,
        1 => true,
        _ => return None,
    };
    system::read_all(stream, &mut message).then_some((index, enable))
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn message(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn messages_that_enable_rings_are_taken_and_others_are_left() {
        for (sent, taken) in [
            (message(&[18, 1, 8, 3, 1]), Some((3, true))),
            (message(&[18, 1, 8, 0, 0]), Some((0, false))),
            (message(&[18, 1, 8, 0, 2]), None),
            (message(&[18, 9, 8, 0, 1]), None),
            (message(&[18, 1, 4, 0]), None),
            (message(&[1, 1, 0]), None),
            (message(&[18, 1]), None),
        ] {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&sent).unwrap();
            drop(theirs);
            assert_eq!(ring_enable(&ours), taken, "{sent:?}");
            let mut left = Vec::new();
            ours.read_to_end(&mut left).unwrap();
            assert_eq!(left.len(), if taken.is_some() { 0 } else { sent.len() }, "{sent:?}");
        }
    }
}
