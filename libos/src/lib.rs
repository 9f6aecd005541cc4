//! The core of the Catnip library OS.
//!
//! Queue descriptors and tokens over modules that are installed at run time, the buffers and the
//! registered memory that all of them share, and the traits a module or a device runtime implements.
//! Nothing in this crate knows a protocol or a device.

pub mod affinity;
mod buffer_list;
pub mod channel;
pub mod config;
pub mod doorbell;
pub mod error;
pub mod executor;
mod handle_table;
pub mod library_os;
pub mod mac;
pub mod memory;
pub mod memory_queue;
pub mod metrics;
pub mod module;
pub mod net;
pub mod operation;
mod queues;
pub mod ring;
pub mod runtime;
pub mod scatter_gather;
pub mod socket;
mod stream_info;
mod sys;
pub mod time;

pub use buffer_list::BufferList;
pub use config::Config;
pub use error::{Error, SetupError};
pub use executor::{JoinHandle, OperationFuture, Sleep};
pub use library_os::{LibOs, LibOsBuilder, ModuleId};
pub use memory::{Arena, Buffer, BufferMut};
pub use memory_queue::MemoryQueues;
pub use metrics::Snapshot;
pub use module::{Handle, Module};
pub use operation::{Completion, Operation, OperationKind, Outcome, PopLimit, QueueDescriptor, Token};
pub use runtime::{Capabilities, FrameBatch, MemoryAccess, Runtime, RxFrame};
pub use scatter_gather::ScatterGather;
pub use socket::{
    CongestionName, Domain, FilterMode, GroupMembership, PathMtuDiscovery, Shutdown, SocketKind,
    SocketOption, SocketOptionName, SourceMembership,
};
pub use stream_info::StreamInfo;
pub use time::{Clock, Instant};
