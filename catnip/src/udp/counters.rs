//! What the UDP layer has seen, under the names of the MIB (RFC 4113) where they have one.

use libos::metrics::MetricsSink;

/// Counters of all sockets together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpCounters {
    /// Datagrams put into a receive queue.
    pub in_datagrams: u64,
    /// Datagrams for a port that nobody listens on.
    pub no_ports: u64,
    /// Datagrams dropped because the socket's receive queue was full.
    pub receive_overflows: u64,
    /// Datagrams sent.
    pub out_datagrams: u64,
    /// Datagrams that could not be sent.
    pub out_errors: u64,
    /// ICMP errors that a connected socket was told about.
    pub in_icmp_errors: u64,
}

impl UdpCounters {
    /// Writes all counters.
    pub fn write(&self, sink: &mut dyn MetricsSink) {
        let Self { in_datagrams, no_ports, receive_overflows, out_datagrams, out_errors, in_icmp_errors } =
            *self;
        sink.counter("in_datagrams", in_datagrams);
        sink.counter("no_ports", no_ports);
        sink.counter("receive_overflows", receive_overflows);
        sink.counter("out_datagrams", out_datagrams);
        sink.counter("out_errors", out_errors);
        sink.counter("in_icmp_errors", in_icmp_errors);
    }
}
