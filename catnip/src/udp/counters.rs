//! What the UDP layer has seen, under the names of the MIB (RFC 4113) where they have one.

libos::counters! {
    /// Counters of all sockets together.
    pub struct UdpCounters {
        /// Datagrams put into a receive queue.
        in_datagrams,
        /// Datagrams for a port that nobody listens on.
        no_ports,
        /// Datagrams dropped because the socket's receive queue was full.
        receive_overflows,
        /// Datagrams sent.
        out_datagrams,
        /// Datagrams that could not be sent.
        out_errors,
        /// ICMP errors that a connected socket was told about.
        in_icmp_errors,
    }
}
