//! Settings of the UDP layer.

/// Limits of sockets and their receive queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpConfig {
    /// Most sockets at a time. At the limit, binding fails.
    pub max_sockets: usize,
    /// Most datagrams that wait in one socket's receive queue. At the limit a newly arrived one is dropped.
    pub receive_queue_datagrams: usize,
    /// Most bytes of memory that the datagrams in one socket's receive queue hold. At the limit a newly
    /// arrived one is dropped.
    pub receive_queue_bytes: usize,
    /// Lowest ephemeral port.
    pub ephemeral_low: u16,
    /// Highest ephemeral port.
    pub ephemeral_high: u16,
    /// Hop limit of what is sent.
    pub hop_limit: u8,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self {
            max_sockets: 1 << 16,
            receive_queue_datagrams: 256,
            receive_queue_bytes: 1 << 20,
            // The dynamic ports of RFC 6335 section 6.
            ephemeral_low: 49152,
            ephemeral_high: 65535,
            hop_limit: 64,
        }
    }
}
