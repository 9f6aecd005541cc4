//! Completions as the structures that a program gets. From here on the program owns the memory.

use catnip_os::libos::memory::CopyCause;
use catnip_os::libos::{Arena, Buffer, Completion, Error, OperationKind, Outcome, ScatterGather};

use crate::abi::{
    self, AcceptResult, EXT_POP_MAXSEGS, ExtResult, ExtSegment, NO_ADDRESS, OperationResult, ResultValue,
    SgArray, SgaSegment, opcode,
};
use crate::address;
use crate::arrays::Arrays;
use crate::errno;

/// Gives the program memory as an array with one segment. Gives the buffer back when it does not fit one, or when the
/// program holds too much.
pub fn give(arrays: &mut Arrays, buffer: Buffer) -> Result<SgArray, Buffer> {
    let Ok(len_bytes) = u32::try_from(buffer.len()) else { return Err(buffer) };
    let start = buffer.as_ptr().cast_mut().cast();
    let owner = arrays.insert(buffer)?.to_pointer();
    let segments = [SgaSegment { buffer: start, len_bytes }; abi::SGARRAY_MAXSIZE];
    Ok(SgArray { owner, segment_count: 1, segments, address: NO_ADDRESS })
}

/// Gives the program memory as a wide segment. Gives the buffer back when the program holds too much.
pub fn give_wide(arrays: &mut Arrays, buffer: Buffer) -> Result<ExtSegment, Buffer> {
    let (start, len_bytes) = (buffer.as_ptr().cast_mut().cast(), buffer.len());
    let owner = arrays.insert(buffer)?.to_pointer();
    Ok(ExtSegment { buffer: start, len_bytes, owner })
}

/// The plain result.
pub fn plain(completion: Completion, arrays: &mut Arrays, arena: &Arena) -> OperationResult {
    let mut result = OperationResult {
        opcode: opcode_of(completion.kind),
        queue: descriptor(completion.queue.raw()),
        token: completion.token.raw(),
        status: 0,
        value: ResultValue { array: SgArray::NULL },
    };
    match completion.outcome {
        Outcome::Accepted { queue, peer } => {
            let address = address::to_sockaddr_in(peer);
            result.value.accepted = AcceptResult { queue: descriptor(queue.raw()), address };
        }
        Outcome::Popped { data, from } => match pop_plain(data, arrays, arena) {
            Ok(array) => {
                let address = from.map_or(NO_ADDRESS, address::to_sockaddr_in);
                result.value.array = SgArray { address, ..array };
            }
            Err(error) => (result.opcode, result.status) = failure(error),
        },
        Outcome::Failed(error) => (result.opcode, result.status) = failure(error),
        Outcome::Connected | Outcome::Pushed | Outcome::Closed => {}
    }
    result
}

/// The wide result.
pub fn wide(completion: Completion, arrays: &mut Arrays, arena: &Arena) -> ExtResult {
    let mut result = ExtResult {
        opcode: opcode_of(completion.kind),
        queue: descriptor(completion.queue.raw()),
        token: completion.token.raw(),
        status: 0,
        accepted: -1,
        address_len: 0,
        address: address::no_storage(),
        segment_count: 0,
        segments: [ExtSegment::NULL; EXT_POP_MAXSEGS],
    };
    match completion.outcome {
        Outcome::Accepted { queue, peer } => {
            result.accepted = descriptor(queue.raw());
            (result.address, result.address_len) = address::to_storage(peer);
        }
        Outcome::Popped { data, from } => match pop_wide(data, arrays, arena, &mut result.segments) {
            Ok(count) => {
                result.segment_count = count;
                if let Some(from) = from {
                    (result.address, result.address_len) = address::to_storage(from);
                }
            }
            Err(error) => (result.opcode, result.status) = failure(error),
        },
        Outcome::Failed(error) => (result.opcode, result.status) = failure(error),
        Outcome::Connected | Outcome::Pushed | Outcome::Closed => {}
    }
    result
}

fn pop_plain(data: ScatterGather, arrays: &mut Arrays, arena: &Arena) -> Result<SgArray, Error> {
    if data.is_empty() {
        let segments = [SgaSegment { buffer: std::ptr::null_mut(), len_bytes: 0 }; abi::SGARRAY_MAXSIZE];
        return Ok(SgArray {
            owner: arrays.empty_mark().to_pointer(),
            segment_count: 1,
            segments,
            address: NO_ADDRESS,
        });
    }
    let buffer = match data.into_single() {
        Ok(buffer) => buffer,
        Err(data) => gather(&data, arena)?,
    };
    give(arrays, buffer).map_err(|_| Error::NoBuffers)
}

fn pop_wide(
    data: ScatterGather,
    arrays: &mut Arrays,
    arena: &Arena,
    segments: &mut [ExtSegment; EXT_POP_MAXSEGS],
) -> Result<usize, Error> {
    if data.is_empty() {
        let [first, ..] = segments;
        first.owner = arrays.empty_mark().to_pointer();
        return Ok(1);
    }
    let data = if data.segments() > EXT_POP_MAXSEGS { gather(&data, arena)?.into() } else { data };
    let mut count = 0;
    for (place, buffer) in segments.iter_mut().zip(data) {
        match give_wide(arrays, buffer) {
            Ok(segment) => *place = segment,
            Err(_) => {
                take_back(arrays, segments, count);
                return Err(Error::NoBuffers);
            }
        }
        count += 1;
    }
    Ok(count)
}

/// Undoes the first `count` of [`give_wide`].
fn take_back(arrays: &mut Arrays, segments: &mut [ExtSegment], count: usize) {
    for segment in segments.iter_mut().take(count) {
        // Given a moment ago, so it is live.
        let _ = arrays.remove(crate::arrays::Mark::from_pointer(segment.owner));
        *segment = ExtSegment::NULL;
    }
}

/// Copies several segments into one piece of memory.
fn gather(data: &ScatterGather, arena: &Arena) -> Result<Buffer, Error> {
    Ok(arena.gather(CopyCause::Gathered, data.iter()).ok_or(Error::NoBuffers)?.freeze())
}

/// Opcode and status of what failed.
fn failure(error: Error) -> (u32, i64) {
    (opcode::FAILED, i64::from(errno::of(error)))
}

fn opcode_of(kind: OperationKind) -> u32 {
    match kind {
        OperationKind::Push => opcode::PUSH,
        OperationKind::Pop => opcode::POP,
        OperationKind::Accept => opcode::ACCEPT,
        OperationKind::Connect => opcode::CONNECT,
        OperationKind::Close => opcode::CLOSE,
    }
}

/// Descriptors are given out lowest first and there are fewer than 2^24 of them.
pub fn descriptor(raw: u32) -> i32 {
    i32::try_from(raw).unwrap_or(-1)
}
