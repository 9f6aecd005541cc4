//! The two tables behind the library OS: descriptors, and the operations outstanding on them.

mod completions;
mod descriptors;
mod operations;
mod slot;

pub(crate) use completions::Submission;
pub use completions::{Completions, WaitingPop};
pub(crate) use descriptors::{ModuleIndex, Queue, QueueReference};
pub(crate) use operations::Taken;
pub(crate) use slot::MAX_OPERATIONS;
