//! Errors as the numbers of `errno.h`. This is the only place where they appear.

use std::ffi::c_int;
use std::fs::File;

use catnip_os::libos::{Error, SetupError};

/// The positive error number that a C program gets for `error`.
pub fn of(error: Error) -> c_int {
    match error {
        Error::BadDescriptor => libc::EBADF,
        Error::BadToken | Error::InvalidArgument => libc::EINVAL,
        Error::NotSupported => libc::ENOTSUP,
        Error::AddressInUse => libc::EADDRINUSE,
        Error::AddressNotAvailable => libc::EADDRNOTAVAIL,
        Error::AlreadyConnected => libc::EISCONN,
        Error::NotConnected => libc::ENOTCONN,
        Error::ConnectionRefused => libc::ECONNREFUSED,
        Error::ConnectionReset => libc::ECONNRESET,
        Error::ConnectionAborted => libc::ECONNABORTED,
        Error::TimedOut => libc::ETIMEDOUT,
        Error::HostUnreachable => libc::EHOSTUNREACH,
        Error::NetworkUnreachable => libc::ENETUNREACH,
        Error::NotPermitted => libc::EACCES,
        Error::MessageTooLong => libc::EMSGSIZE,
        Error::NoBuffers => libc::ENOBUFS,
        Error::TooManyDescriptors => libc::EMFILE,
        Error::TooManyConnections => libc::ENFILE,
        Error::TooManyOperations | Error::WouldBlock => libc::EAGAIN,
        Error::Cancelled => libc::ECANCELED,
        Error::Closed => libc::EPIPE,
        Error::Busy => libc::EBUSY,
        // `Error` may grow: what this edge has no number for is a failure of the device underneath.
        Error::DeviceFailed | _ => libc::EIO,
    }
}

/// The positive error number that a C program gets from `demi_init` for `error`.
pub fn of_setup(error: &SetupError) -> c_int {
    match error {
        SetupError::Config { .. } => libc::EINVAL,
        // One that can be opened has wrong contents.
        SetupError::File { path, .. } => {
            File::open(path).err().and_then(|error| error.raw_os_error()).unwrap_or(libc::EINVAL)
        }
        SetupError::Memory { .. } => libc::ENOMEM,
        SetupError::Device { .. } | _ => libc::ENODEV,
    }
}
