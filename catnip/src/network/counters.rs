//! What the network layer has seen, under the names of the MIBs where they have one (RFC 4293).

libos::counters! {
    /// Counters of the link, of IP and of ICMP, both versions together.
    pub struct NetworkCounters {
        /// Frames received.
        link_in_frames,
        /// Frames too short for their header.
        link_in_malformed,
        /// Frames for another hardware address, or a group we are not in.
        link_in_other_host,
        /// Frames of a type that nobody here speaks.
        link_in_unknown_types,
        /// Frames of another VLAN than ours, or of one though we are in none.
        link_in_other_vlans,
        /// Frames handed to the device's queue.
        link_out_frames,
        /// Packets refused because the device's queue was full.
        link_out_queue_full,
        /// ARP packets received that were well-formed.
        arp_in_packets,
        /// ARP packets received that were not.
        arp_in_malformed,
        /// ARP packets sent.
        arp_out_packets,
        /// ARP packets and neighbour messages by which somebody else claims an address of ours, or wants one.
        address_conflicts,
        /// Addresses not taken, or given up, because somebody else has them.
        address_duplicates,
        /// Questions about our addresses not answered because too many were.
        neighbor_answers_limited,
        /// Router advertisements taken.
        router_advertisements,
        /// Redirects followed.
        redirects,
        /// Redirects not followed: not from the router in use, or not wanted.
        redirects_refused,
        /// IP packets received.
        ip_in_receives,
        /// IP packets with a malformed header.
        ip_in_header_errors,
        /// IP packets for an address that is not ours, or from one that cannot send.
        ip_in_address_errors,
        /// IP packets with a payload that nobody here understands.
        ip_in_unknown_protocols,
        /// IP packets handed to a transport or to ICMP.
        ip_in_delivers,
        /// IP packets that transports and ICMP wanted to send.
        ip_out_requests,
        /// IP packets not sent because buffers ran out.
        ip_out_discards,
        /// Destinations without a route.
        ip_out_no_routes,
        /// Parts of packets received.
        ip_reasm_reqds,
        /// Packets put together from parts.
        ip_reasm_oks,
        /// Packets given up, and parts dropped: malformed, contradictory, late, or beyond what memory there is.
        ip_reasm_fails,
        /// Packets whose parts did not all come in time.
        ip_reasm_timeout,
        /// Packets cut into parts.
        ip_frag_oks,
        /// Packets that did not fit and may not be cut.
        ip_frag_fails,
        /// Parts sent.
        ip_frag_creates,
        /// Packets on their way back to this stack that were dropped because too many were.
        loop_queue_full,
        /// TCP segments with a wrong checksum.
        tcp_in_checksum_errors,
        /// UDP datagrams with a wrong checksum, or none where IPv6 demands one.
        udp_in_checksum_errors,
        /// UDP datagrams with a length that does not fit.
        udp_in_malformed,
        /// ICMP messages received.
        icmp_in_messages,
        /// ICMP messages received that were malformed, or had a wrong checksum.
        icmp_in_errors,
        /// Echo requests received.
        icmp_in_echos,
        /// ICMP errors about packets of a transport.
        icmp_in_destination_errors,
        /// ICMP messages sent.
        icmp_out_messages,
        /// ICMP errors sent.
        icmp_out_destination_errors,
        /// ICMP errors not sent because too many were.
        icmp_out_rate_limited,
        /// IGMP messages received.
        igmp_in_messages,
        /// IGMP messages received that were malformed, or had a wrong checksum.
        igmp_in_errors,
        /// IGMP messages sent.
        igmp_out_messages,
    }
}
