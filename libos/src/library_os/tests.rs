//! Queues and tokens, shown on in-memory queues and on a module that completes what the test says.

mod misuse;
mod queues;
pub(crate) mod support;
mod waiting;
