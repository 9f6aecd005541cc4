//! The structures of the headers, byte for byte. The headers are written by hand; the asserts at the
//! end and those in `tests/c/layout.c` hold the two to the same numbers.

use std::ffi::{c_char, c_int, c_void};

use libc::{sockaddr_in, sockaddr_storage, socklen_t};

/// `DEMI_SGARRAY_MAXSIZE`: segments in a [`SgArray`].
pub const SGARRAY_MAXSIZE: usize = 1;
/// `DEMI_EXT_POP_MAXSEGS`: segments in an [`ExtResult`].
pub const EXT_POP_MAXSEGS: usize = 16;
/// `DEMI_EXT_PUSH_MAXSEGS`: segments in one `demi_ext_push`.
pub const EXT_PUSH_MAXSEGS: usize = 1024;

/// `demi_opcode_t`.
pub mod opcode {
    /// `DEMI_OPC_PUSH`
    pub const PUSH: u32 = 1;
    /// `DEMI_OPC_POP`
    pub const POP: u32 = 2;
    /// `DEMI_OPC_ACCEPT`
    pub const ACCEPT: u32 = 3;
    /// `DEMI_OPC_CONNECT`
    pub const CONNECT: u32 = 4;
    /// `DEMI_OPC_CLOSE`
    pub const CLOSE: u32 = 5;
    /// `DEMI_OPC_FAILED`
    pub const FAILED: u32 = 6;
}

/// `demi_sgaseg_t`.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct SgaSegment {
    pub buffer: *mut c_void,
    pub len_bytes: u32,
}

/// `demi_sgarray_t`.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct SgArray {
    pub owner: *mut c_void,
    pub segment_count: u32,
    pub segments: [SgaSegment; SGARRAY_MAXSIZE],
    pub address: sockaddr_in,
}

/// `demi_accept_result_t`.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct AcceptResult {
    pub queue: i32,
    pub address: sockaddr_in,
}

/// The union in `demi_qresult_t`.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub union ResultValue {
    pub array: SgArray,
    pub accepted: AcceptResult,
}

/// `demi_qresult_t`.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct OperationResult {
    pub opcode: u32,
    pub queue: i32,
    pub token: u64,
    pub status: i64,
    pub value: ResultValue,
}

/// `demi_callback_t`.
pub type Callback = unsafe extern "C" fn(*const c_char, u32, u64);

/// `struct demi_args`.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Args {
    pub argc: c_int,
    pub argv: *const *const c_char,
    pub callback: Option<Callback>,
}

/// `demi_ext_seg_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ExtSegment {
    pub buffer: *mut c_void,
    pub len_bytes: usize,
    pub owner: *mut c_void,
}

/// `demi_ext_qresult_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ExtResult {
    pub opcode: u32,
    pub queue: i32,
    pub token: u64,
    pub status: i64,
    pub accepted: i32,
    pub address_len: socklen_t,
    pub address: sockaddr_storage,
    pub segment_count: usize,
    pub segments: [ExtSegment; EXT_POP_MAXSEGS],
}

impl SgArray {
    /// The array of zeros: no memory, no segments.
    pub const NULL: Self = Self {
        owner: std::ptr::null_mut(),
        segment_count: 0,
        segments: [SgaSegment { buffer: std::ptr::null_mut(), len_bytes: 0 }; SGARRAY_MAXSIZE],
        address: NO_ADDRESS,
    };
}

impl ExtSegment {
    /// The segment of zeros.
    pub const NULL: Self = Self { buffer: std::ptr::null_mut(), len_bytes: 0, owner: std::ptr::null_mut() };
}

/// A `sockaddr_in` of zeros, whose family is `AF_UNSPEC`.
pub const NO_ADDRESS: sockaddr_in =
    sockaddr_in { sin_family: 0, sin_port: 0, sin_addr: libc::in_addr { s_addr: 0 }, sin_zero: [0; 8] };

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<SgaSegment>() == 12);
    assert!(offset_of!(SgaSegment, len_bytes) == 8);
    assert!(size_of::<SgArray>() == 40);
    assert!(offset_of!(SgArray, segment_count) == 8);
    assert!(offset_of!(SgArray, segments) == 12);
    assert!(offset_of!(SgArray, address) == 24);
    assert!(size_of::<AcceptResult>() == 20);
    assert!(offset_of!(AcceptResult, address) == 4);
    assert!(size_of::<OperationResult>() == 64);
    assert!(offset_of!(OperationResult, queue) == 4);
    assert!(offset_of!(OperationResult, token) == 8);
    assert!(offset_of!(OperationResult, status) == 16);
    assert!(offset_of!(OperationResult, value) == 24);
    assert!(size_of::<Args>() == 20);
    assert!(offset_of!(Args, argv) == 4);
    assert!(offset_of!(Args, callback) == 12);
    assert!(size_of::<ExtSegment>() == 24);
    assert!(size_of::<ExtResult>() == 552);
    assert!(offset_of!(ExtResult, status) == 16);
    assert!(offset_of!(ExtResult, accepted) == 24);
    assert!(offset_of!(ExtResult, address) == 32);
    assert!(offset_of!(ExtResult, segment_count) == 160);
    assert!(offset_of!(ExtResult, segments) == 168);
};
