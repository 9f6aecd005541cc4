//! The transmission control protocol (RFC 9293), one concern a file.

pub mod congestion;
pub mod demux;
pub mod isn;
pub mod options;
pub mod reassembly;
pub mod receive_queue;
pub mod rtt;
pub mod segment;
pub mod send_queue;
pub mod sequence;
pub mod window;
