//! Settings of reassembly.

use std::time::Duration;

/// Limits of packets that are put together again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentConfig {
    /// How long the parts of a packet are waited for. RFC 1122 section 3.3.2 wants 60 s to 120 s, RFC 8200
    /// section 4.5 wants 60 s.
    pub timeout: Duration,
    /// Most packets that wait for parts. At the limit the one that has waited longest gives way.
    pub max_packets: usize,
    /// Most packets of one source that wait for parts. At the limit its oldest gives way.
    pub max_source_packets: usize,
    /// Most bytes of memory that parts hold, and never more than a sixteenth of the stack's memory. At the
    /// limit the packet that has waited longest gives way.
    pub max_bytes: usize,
    /// Most bytes of memory that parts of one source hold. At the limit its oldest packet gives way.
    pub max_source_bytes: usize,
}

impl Default for FragmentConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            max_packets: 1024,
            max_source_packets: 128,
            max_bytes: 4 << 20,
            max_source_bytes: 1 << 20,
        }
    }
}
