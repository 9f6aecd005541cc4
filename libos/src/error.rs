//! Errors. [`Error`] is what an operation can end with and is `Copy`; [`SetupError`] is what building
//! a library OS can end with and carries the words a person needs to mend it.

use std::fmt;

/// Why a call or an operation failed. Each variant says what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The queue descriptor is not open.
    BadDescriptor,
    /// The token was never given out, or its completion was already taken.
    BadToken,
    /// An argument is outside what the call takes.
    InvalidArgument,
    /// No installed module does this, or not on this kind of queue.
    NotSupported,
    /// The local address and port are taken.
    AddressInUse,
    /// The local address is not one of ours, or no ephemeral port is left.
    AddressNotAvailable,
    /// The socket is connected or connecting already.
    AlreadyConnected,
    /// The socket is not connected.
    NotConnected,
    /// The peer refused: it answered with a reset, or with port unreachable.
    ConnectionRefused,
    /// The peer reset the connection.
    ConnectionReset,
    /// The connection was given up on this side.
    ConnectionAborted,
    /// The peer did not answer in time, or the call's timeout ran out.
    TimedOut,
    /// Nobody on the link answers for the host.
    HostUnreachable,
    /// There is no route to the address.
    NetworkUnreachable,
    /// The socket may not do this: an option that allows it is not set.
    NotPermitted,
    /// The datagram is larger than the path or the protocol carries.
    MessageTooLong,
    /// Memory for buffers ran out; try again when some were given back.
    NoBuffers,
    /// The table of descriptors is full; close some.
    TooManyDescriptors,
    /// The table of connections is full; close some.
    TooManyConnections,
    /// The table of outstanding operations is full; take some completions.
    TooManyOperations,
    /// The queue was closed while the operation was outstanding, or the operation was cancelled.
    Cancelled,
    /// This side was shut down for sending.
    Closed,
    /// Nothing to be had right now.
    WouldBlock,
    /// The library OS is busy with another call of the same program (a call from inside a callback).
    Busy,
    /// The device is gone or broken.
    DeviceFailed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadDescriptor => "not an open queue descriptor",
            Self::BadToken => "no such token, or its completion was already taken",
            Self::InvalidArgument => "invalid argument",
            Self::NotSupported => "not supported on this queue",
            Self::AddressInUse => "address already in use",
            Self::AddressNotAvailable => "address or port not available",
            Self::AlreadyConnected => "already connected",
            Self::NotConnected => "not connected",
            Self::ConnectionRefused => "connection refused",
            Self::ConnectionReset => "connection reset by the peer",
            Self::ConnectionAborted => "connection aborted",
            Self::TimedOut => "timed out",
            Self::HostUnreachable => "host unreachable",
            Self::NetworkUnreachable => "network unreachable",
            Self::NotPermitted => "not permitted by the socket's options",
            Self::MessageTooLong => "message too long",
            Self::NoBuffers => "out of buffers",
            Self::TooManyDescriptors => "too many queue descriptors",
            Self::TooManyConnections => "too many connections",
            Self::TooManyOperations => "too many outstanding operations",
            Self::Cancelled => "operation cancelled",
            Self::Closed => "closed for sending",
            Self::WouldBlock => "would block",
            Self::Busy => "called again from inside a call",
            Self::DeviceFailed => "device failed",
        })
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let kind = match error {
            Error::BadDescriptor | Error::BadToken | Error::InvalidArgument => ErrorKind::InvalidInput,
            Error::NotSupported => ErrorKind::Unsupported,
            Error::AddressInUse => ErrorKind::AddrInUse,
            Error::AddressNotAvailable => ErrorKind::AddrNotAvailable,
            Error::NotConnected => ErrorKind::NotConnected,
            Error::ConnectionRefused => ErrorKind::ConnectionRefused,
            Error::ConnectionReset => ErrorKind::ConnectionReset,
            Error::ConnectionAborted => ErrorKind::ConnectionAborted,
            Error::TimedOut => ErrorKind::TimedOut,
            Error::HostUnreachable => ErrorKind::HostUnreachable,
            Error::NetworkUnreachable => ErrorKind::NetworkUnreachable,
            Error::NoBuffers => ErrorKind::OutOfMemory,
            Error::Closed => ErrorKind::BrokenPipe,
            Error::WouldBlock => ErrorKind::WouldBlock,
            Error::Busy => ErrorKind::ResourceBusy,
            Error::NotPermitted => ErrorKind::PermissionDenied,
            Error::AlreadyConnected
            | Error::MessageTooLong
            | Error::TooManyDescriptors
            | Error::TooManyConnections
            | Error::TooManyOperations
            | Error::Cancelled
            | Error::DeviceFailed => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Why a library OS, a module or a runtime could not be set up. `Display` is one line for a person, and so is `Debug`: that is
/// what a `main` prints which returns it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetupError {
    /// A configuration value is wrong.
    Config {
        /// The file, `environment` or `builder`.
        source: String,
        /// The key with its table, such as `memory.region_mib`.
        key: String,
        /// What was found.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A configuration file could not be read or parsed.
    File {
        /// The file's path.
        path: String,
        /// What went wrong, with line and column where known.
        reason: String,
    },
    /// A device could not be opened or set up.
    Device {
        /// The device's or interface's name.
        device: String,
        /// The call that failed.
        call: &'static str,
        /// What went wrong and what would help.
        reason: String,
    },
    /// Memory could not be mapped.
    Memory {
        /// How many bytes were asked for.
        bytes: usize,
        /// What went wrong.
        reason: String,
    },
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { source, key, value, allowed } => {
                write!(f, "{source}: {key} = {value}: allowed is {allowed}")
            }
            Self::File { path, reason } => write!(f, "{path}: {reason}"),
            Self::Device { device, call, reason } => write!(f, "{device}: {call}: {reason}"),
            Self::Memory { bytes, reason } => write!(f, "mapping {bytes} bytes: {reason}"),
        }
    }
}

impl fmt::Debug for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for SetupError {}
