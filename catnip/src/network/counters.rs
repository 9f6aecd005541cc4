//! What the network layer has seen, under the names of the MIBs where they have one (RFC 4293).

use libos::metrics::MetricsSink;

/// Counters of the link, of IP and of ICMP, both versions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkCounters {
    /// Frames received.
    pub link_in_frames: u64,
    /// Frames too short for their header.
    pub link_in_malformed: u64,
    /// Frames for another hardware address, or a group we are not in.
    pub link_in_other_host: u64,
    /// Frames of a type that nobody here speaks.
    pub link_in_unknown_types: u64,
    /// Frames of another VLAN than ours, or of one though we are in none.
    pub link_in_other_vlans: u64,
    /// Frames handed to the device's queue.
    pub link_out_frames: u64,
    /// Packets refused because the device's queue was full.
    pub link_out_queue_full: u64,
    /// ARP packets received that were well-formed.
    pub arp_in_packets: u64,
    /// ARP packets received that were not.
    pub arp_in_malformed: u64,
    /// ARP packets sent.
    pub arp_out_packets: u64,
    /// ARP packets and neighbour messages by which somebody else claims an address of ours, or wants one.
    pub address_conflicts: u64,
    /// Addresses not taken, or given up, because somebody else has them.
    pub address_duplicates: u64,
    /// Questions about our addresses not answered because too many were.
    pub neighbor_answers_limited: u64,
    /// Router advertisements taken.
    pub router_advertisements: u64,
    /// Redirects followed.
    pub redirects: u64,
    /// Redirects not followed: not from the router in use, or not wanted.
    pub redirects_refused: u64,
    /// IP packets received.
    pub ip_in_receives: u64,
    /// IP packets with a malformed header.
    pub ip_in_header_errors: u64,
    /// IP packets for an address that is not ours, or from one that cannot send.
    pub ip_in_address_errors: u64,
    /// IP packets with a payload that nobody here understands.
    pub ip_in_unknown_protocols: u64,
    /// IP packets handed to a transport or to ICMP.
    pub ip_in_delivers: u64,
    /// IP packets that transports and ICMP wanted to send.
    pub ip_out_requests: u64,
    /// IP packets not sent because buffers ran out.
    pub ip_out_discards: u64,
    /// Destinations without a route.
    pub ip_out_no_routes: u64,
    /// Parts of packets received.
    pub ip_reasm_reqds: u64,
    /// Packets put together from parts.
    pub ip_reasm_oks: u64,
    /// Packets given up, and parts dropped: malformed, contradictory, late, or beyond what memory there is.
    pub ip_reasm_fails: u64,
    /// Packets whose parts did not all come in time.
    pub ip_reasm_timeout: u64,
    /// Packets cut into parts.
    pub ip_frag_oks: u64,
    /// Packets that did not fit and may not be cut.
    pub ip_frag_fails: u64,
    /// Parts sent.
    pub ip_frag_creates: u64,
    /// Packets on their way back to this stack that were dropped because too many were.
    pub loop_queue_full: u64,
    /// TCP segments with a wrong checksum.
    pub tcp_in_checksum_errors: u64,
    /// UDP datagrams with a wrong checksum, or none where IPv6 demands one.
    pub udp_in_checksum_errors: u64,
    /// UDP datagrams with a length that does not fit.
    pub udp_in_malformed: u64,
    /// ICMP messages received.
    pub icmp_in_messages: u64,
    /// ICMP messages received that were malformed, or had a wrong checksum.
    pub icmp_in_errors: u64,
    /// Echo requests received.
    pub icmp_in_echos: u64,
    /// ICMP errors about packets of a transport.
    pub icmp_in_destination_errors: u64,
    /// ICMP messages sent.
    pub icmp_out_messages: u64,
    /// ICMP errors sent.
    pub icmp_out_destination_errors: u64,
    /// ICMP errors not sent because too many were.
    pub icmp_out_rate_limited: u64,
    /// IGMP messages received.
    pub igmp_in_messages: u64,
    /// IGMP messages received that were malformed, or had a wrong checksum.
    pub igmp_in_errors: u64,
    /// IGMP messages sent.
    pub igmp_out_messages: u64,
}

impl NetworkCounters {
    /// Writes all counters.
    pub fn write(&self, sink: &mut dyn MetricsSink) {
        // Exhaustive, so that a new counter cannot be left out.
        let Self {
            link_in_frames,
            link_in_malformed,
            link_in_other_host,
            link_in_unknown_types,
            link_in_other_vlans,
            link_out_frames,
            link_out_queue_full,
            arp_in_packets,
            arp_in_malformed,
            arp_out_packets,
            address_conflicts,
            address_duplicates,
            neighbor_answers_limited,
            router_advertisements,
            redirects,
            redirects_refused,
            ip_in_receives,
            ip_in_header_errors,
            ip_in_address_errors,
            ip_in_unknown_protocols,
            ip_in_delivers,
            ip_out_requests,
            ip_out_discards,
            ip_out_no_routes,
            ip_reasm_reqds,
            ip_reasm_oks,
            ip_reasm_fails,
            ip_reasm_timeout,
            ip_frag_oks,
            ip_frag_fails,
            ip_frag_creates,
            loop_queue_full,
            tcp_in_checksum_errors,
            udp_in_checksum_errors,
            udp_in_malformed,
            icmp_in_messages,
            icmp_in_errors,
            icmp_in_echos,
            icmp_in_destination_errors,
            icmp_out_messages,
            icmp_out_destination_errors,
            icmp_out_rate_limited,
            igmp_in_messages,
            igmp_in_errors,
            igmp_out_messages,
        } = *self;
        for (name, value) in [
            ("link_in_frames", link_in_frames),
            ("link_in_malformed", link_in_malformed),
            ("link_in_other_host", link_in_other_host),
            ("link_in_unknown_types", link_in_unknown_types),
            ("link_in_other_vlans", link_in_other_vlans),
            ("link_out_frames", link_out_frames),
            ("link_out_queue_full", link_out_queue_full),
            ("arp_in_packets", arp_in_packets),
            ("arp_in_malformed", arp_in_malformed),
            ("arp_out_packets", arp_out_packets),
            ("address_conflicts", address_conflicts),
            ("address_duplicates", address_duplicates),
            ("neighbor_answers_limited", neighbor_answers_limited),
            ("router_advertisements", router_advertisements),
            ("redirects", redirects),
            ("redirects_refused", redirects_refused),
            ("ip_in_receives", ip_in_receives),
            ("ip_in_header_errors", ip_in_header_errors),
            ("ip_in_address_errors", ip_in_address_errors),
            ("ip_in_unknown_protocols", ip_in_unknown_protocols),
            ("ip_in_delivers", ip_in_delivers),
            ("ip_out_requests", ip_out_requests),
            ("ip_out_discards", ip_out_discards),
            ("ip_out_no_routes", ip_out_no_routes),
            ("ip_reasm_reqds", ip_reasm_reqds),
            ("ip_reasm_oks", ip_reasm_oks),
            ("ip_reasm_fails", ip_reasm_fails),
            ("ip_reasm_timeout", ip_reasm_timeout),
            ("ip_frag_oks", ip_frag_oks),
            ("ip_frag_fails", ip_frag_fails),
            ("ip_frag_creates", ip_frag_creates),
            ("loop_queue_full", loop_queue_full),
            ("tcp_in_checksum_errors", tcp_in_checksum_errors),
            ("udp_in_checksum_errors", udp_in_checksum_errors),
            ("udp_in_malformed", udp_in_malformed),
            ("icmp_in_messages", icmp_in_messages),
            ("icmp_in_errors", icmp_in_errors),
            ("icmp_in_echos", icmp_in_echos),
            ("icmp_in_destination_errors", icmp_in_destination_errors),
            ("icmp_out_messages", icmp_out_messages),
            ("icmp_out_destination_errors", icmp_out_destination_errors),
            ("icmp_out_rate_limited", icmp_out_rate_limited),
            ("igmp_in_messages", igmp_in_messages),
            ("igmp_in_errors", igmp_in_errors),
            ("igmp_out_messages", igmp_out_messages),
        ] {
            sink.counter(name, value);
        }
    }
}
