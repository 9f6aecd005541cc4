//! Memory that an idle connection takes.

use crate::catnip_side::IdleConnections;
use crate::scenario::Failure;

/// Connections over which memory is averaged.
const CONNECTIONS: usize = 100_000;

/// Bytes that one end of an idle connection takes, after a message each way and with a pop outstanding at one of
/// the two ends: of the heap and of the arenas, what tables have to spare included.
///
/// # Errors
/// [`Failure`] when the connections cannot be made.
pub fn bytes_per_idle_connection() -> Result<f64, Failure> {
    let taken = |connections| -> Result<usize, Failure> {
        let before = heap_bytes();
        let idle = IdleConnections::new(connections)?;
        Ok(heap_bytes() - before + idle.arena_bytes())
    };
    let without = taken(0)?;
    let with = taken(CONNECTIONS)?;
    Ok(with.saturating_sub(without) as f64 / (2 * CONNECTIONS) as f64)
}

/// Bytes that the program has taken from the heap and not given back, with what the heap needs to know about them.
/// The C library's own account: an allocator that counts would cost every benchmark instructions.
fn heap_bytes() -> usize {
    // SAFETY: the function has no preconditions.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}
