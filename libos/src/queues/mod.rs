//! The two tables behind the library OS: descriptors, and the operations outstanding on them.

mod core;
mod descriptors;
mod operations;

pub(crate) use self::core::{Core, Submission};
pub(crate) use descriptors::{ModuleIndex, QueueReference};
pub(crate) use operations::MAX_OPERATIONS;
