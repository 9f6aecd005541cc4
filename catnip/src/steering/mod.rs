//! Several cores on one device: which core a flow belongs to, and how its packets get there.

mod asked;
mod counters;
mod exchange;
mod flow;
mod plain;
mod program;
mod share;
mod steered;
#[cfg(test)]
mod tests;
mod toeplitz;

pub use counters::SteeringCounters;
pub use exchange::{ExchangeSeat, exchange};
pub use flow::{Class, Flow, classify};
pub use program::{Instruction, program};
pub use share::{CoreShare, MAX_CORES, Transport};
pub use steered::{Link, Steered};
pub use toeplitz::{HashKey, KEY_BYTES, Toeplitz};
