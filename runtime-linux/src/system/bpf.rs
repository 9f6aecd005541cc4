//! As much of the bpf system call as attaching one program with one map to an interface takes, and loading one that
//! looks at packets.

use std::ffi::{c_int, c_long, c_uint};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// linux/bpf.h: commands, types of maps, programs and attachments.
const BPF_MAP_CREATE: c_int = 0;
const BPF_MAP_UPDATE_ELEM: c_int = 2;
const BPF_PROG_LOAD: c_int = 5;
const BPF_LINK_CREATE: c_int = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// What the kernel is told of the program's terms; it calls nothing that asks for others.
const LICENSE: &std::ffi::CStr = c"MIT";

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
}

#[repr(C)]
struct MapElement {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// `attributes` is what `command` takes, and its pointers are valid.
unsafe fn bpf<T>(command: c_int, attributes: &T) -> io::Result<c_int> {
    let bytes = size_of::<T>() as c_uint;
    // SAFETY: the kernel reads `bytes` bytes of attributes; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, c_long::from(command), attributes, bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as c_int) }
}

/// # Safety
/// As [`bpf`], and the command makes a descriptor.
unsafe fn make<T>(command: c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; a descriptor that was just made is nobody else's.
    unsafe { bpf(command, attributes).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// A map from the numbers of receive queues to the XDP sockets that serve them.
pub(crate) fn create_socket_map(entries: u32) -> io::Result<OwnedFd> {
    let attributes =
        MapCreate { map_type: BPF_MAP_TYPE_XSKMAP, key_bytes: 4, value_bytes: 4, max_entries: entries };
    // SAFETY: no pointers.
    unsafe { make(BPF_MAP_CREATE, &attributes) }
}

/// Puts a socket into the map; it leaves the map when it is closed.
pub(crate) fn put_socket(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = socket.as_raw_fd() as u32;
    let attributes = MapElement {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const queue as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads the four bytes of a key and of a value, both on this stack frame.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attributes).map(drop) }
}

/// Whether frames of several buffers may reach a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragments {
    Allowed,
    Refused,
}

/// Loads a program for XDP.
pub(crate) fn load_program(instructions: &[u64], fragments: Fragments) -> io::Result<OwnedFd> {
    let flags = if fragments == Fragments::Allowed { BPF_F_XDP_HAS_FRAGS } else { 0 };
    load(BPF_PROG_TYPE_XDP, BPF_XDP, flags, instructions)
}

/// Loads a program that looks at packets and returns a number.
pub(crate) fn load_filter(instructions: &[u64]) -> io::Result<OwnedFd> {
    load(BPF_PROG_TYPE_SOCKET_FILTER, 0, 0, instructions)
}

fn load(kind: u32, expected_attach_type: u32, flags: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..6].copy_from_slice(b"catnip");
    let attributes = ProgramLoad {
        kind,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags,
        name,
        interface: 0,
        expected_attach_type,
    };
    // SAFETY: the kernel reads as many instructions as are counted, and a string that ends with a zero.
    unsafe { make(BPF_PROG_LOAD, &attributes) }
}

/// Attaches a program to an interface; it is taken off when the descriptor is closed, however the process ends.
pub(crate) fn attach(program: BorrowedFd<'_>, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    let attributes =
        LinkCreate { program: program.as_raw_fd() as u32, interface, attach_type: BPF_XDP, flags };
    // SAFETY: no pointers.
    unsafe { make(BPF_LINK_CREATE, &attributes) }
}
