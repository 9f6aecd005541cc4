//! What a port is asked for, of what it offers.

use dpdk_sys as sys;
use libos::runtime::TxChecksum;

use crate::config::DpdkConfig;

/// Bytes of an Ethernet header, a VLAN tag and the checksum behind the frame, which a port counts as part of it.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 14 + 4 + 4;

/// Room of a receive buffer when frames are not larger: what every driver takes, and a power of two, to which some
/// round down.
const USUAL_ROOM_BYTES: usize = 2048;

/// Largest TCP payload that a port is asked to cut, in bytes: with all headers it stays an IP packet of less than 64 KiB.
const MAX_SEGMENTATION_BYTES: usize = 65_000;

/// Most segments of memory in one frame, whatever more the port takes.
const MAX_SEGMENTS: usize = 64;

/// Segments of memory in one frame of a port that takes but one: the runtime joins them.
const JOINED_SEGMENTS: usize = 16;

/// What the driver says of the port, as far as it matters here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Offered {
    pub rx_offloads: u64,
    pub tx_offloads: u64,
    /// Hash functions for spreading flows.
    pub rss_functions: u64,
    /// Most segments of memory in a frame; 0 when the driver does not say.
    pub max_segments: u16,
    /// Of a frame that is not cut; 0 when the driver does not say.
    pub max_segments_uncut: u16,
}

/// What the port is set up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub rx_offloads: u64,
    pub tx_offloads: u64,
    pub rss_functions: u64,
    pub tx_checksum: TxChecksum,
    pub tcp_segmentation_bytes: usize,
    /// The port is asked for the sums of IPv4 headers of frames that it cuts.
    pub sums_ipv4_headers: bool,
    /// What the stack may build frames of.
    pub max_segments: usize,
    /// What the port takes as it is.
    pub port_segments: usize,
    /// Bytes of a frame that fit one receive buffer.
    pub room_bytes: usize,
}

impl Negotiated {
    pub(crate) fn new(config: &DpdkConfig, offered: &Offered, mtu: usize) -> Self {
        let has = |offered: u64, wanted: u64| offered & wanted == wanted;
        let tx_sums = sys::CATNIP_RTE_ETH_TX_OFFLOAD_TCP_CKSUM | sys::CATNIP_RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
        let tx_cut = sys::CATNIP_RTE_ETH_TX_OFFLOAD_TCP_TSO | sys::CATNIP_RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
        // Some want to be asked for the sums of IPv4 headers too. Those that don't offer it, as virtio's, take the header of
        // the whole for the pattern of each, and want its sum to be right.
        let tx_header_sums = offered.tx_offloads & sys::CATNIP_RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
        let rx_sums = sys::CATNIP_RTE_ETH_RX_OFFLOAD_TCP_CKSUM | sys::CATNIP_RTE_ETH_RX_OFFLOAD_UDP_CKSUM;

        let sums = config.offload && has(offered.tx_offloads, tx_sums);
        let cut = sums && has(offered.tx_offloads, tx_cut);
        let many = has(offered.tx_offloads, sys::CATNIP_RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
        let scatter = has(offered.rx_offloads, sys::CATNIP_RTE_ETH_RX_OFFLOAD_SCATTER);

        let mut tx_offloads = 0;
        for (wanted, flags) in [
            (sums, tx_sums),
            (cut, tx_cut | tx_header_sums),
            (many, sys::CATNIP_RTE_ETH_TX_OFFLOAD_MULTI_SEGS),
        ] {
            tx_offloads |= if wanted { flags } else { 0 };
        }
        let mut rx_offloads = if config.offload { offered.rx_offloads & rx_sums } else { 0 };
        if scatter {
            rx_offloads |= sys::CATNIP_RTE_ETH_RX_OFFLOAD_SCATTER;
        }
        let wanted_hashes =
            sys::CATNIP_RTE_ETH_RSS_IP | sys::CATNIP_RTE_ETH_RSS_TCP | sys::CATNIP_RTE_ETH_RSS_UDP;
        let said = |segments: u16| if segments == 0 { MAX_SEGMENTS } else { usize::from(segments) };
        let port_segments = if many {
            said(offered.max_segments).min(said(offered.max_segments_uncut)).min(MAX_SEGMENTS)
        } else {
            1
        };
        Self {
            rx_offloads,
            tx_offloads,
            rss_functions: if config.queues > 1 { offered.rss_functions & wanted_hashes } else { 0 },
            tx_checksum: if sums { TxChecksum::Partial } else { TxChecksum::Software },
            tcp_segmentation_bytes: if cut { MAX_SEGMENTATION_BYTES } else { 0 },
            sums_ipv4_headers: cut && tx_header_sums != 0,
            max_segments: if many { port_segments.max(2) } else { JOINED_SEGMENTS },
            port_segments,
            room_bytes: (mtu + FRAME_OVERHEAD_BYTES).next_multiple_of(64).max(USUAL_ROOM_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_offloads_is_asked_for_none_and_gets_joined_frames() {
        let negotiated = Negotiated::new(&DpdkConfig::default(), &Offered::default(), 1500);
        let expected = Negotiated {
            rx_offloads: 0,
            tx_offloads: 0,
            rss_functions: 0,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            sums_ipv4_headers: false,
            max_segments: 16,
            port_segments: 1,
            room_bytes: 2048,
        };
        assert_eq!(negotiated, expected);
    }

    #[test]
    fn what_is_offered_and_wanted_is_used() {
        let offered = Offered {
            rx_offloads: u64::MAX,
            tx_offloads: u64::MAX,
            rss_functions: u64::MAX,
            max_segments: 40,
            max_segments_uncut: 8,
        };
        let config = DpdkConfig { queues: 2, ..DpdkConfig::default() };
        let all = Negotiated::new(&config, &offered, 9000);
        assert_eq!((all.tx_checksum, all.tcp_segmentation_bytes), (TxChecksum::Partial, 65_000));
        assert_eq!((all.max_segments, all.port_segments, all.room_bytes), (8, 8, 9024));
        assert!(all.sums_ipv4_headers);
        assert_ne!(all.rx_offloads & sys::CATNIP_RTE_ETH_RX_OFFLOAD_TCP_CKSUM, 0);
        assert_ne!(all.rss_functions, 0);
        let plain = DpdkConfig { offload: false, ..config };
        let none = Negotiated::new(&plain, &offered, 1500);
        assert_eq!((none.tx_checksum, none.tcp_segmentation_bytes), (TxChecksum::Software, 0));
        assert_eq!(none.tx_offloads, sys::CATNIP_RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
    }

    #[test]
    fn a_port_that_cuts_and_sums_no_headers_is_asked_to_cut() {
        let tx_offloads = sys::CATNIP_RTE_ETH_TX_OFFLOAD_UDP_CKSUM
            | sys::CATNIP_RTE_ETH_TX_OFFLOAD_TCP_CKSUM
            | sys::CATNIP_RTE_ETH_TX_OFFLOAD_TCP_TSO
            | sys::CATNIP_RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
        let virtio =
            Negotiated::new(&DpdkConfig::default(), &Offered { tx_offloads, ..Offered::default() }, 1500);
        assert_eq!((virtio.tcp_segmentation_bytes, virtio.sums_ipv4_headers), (65_000, false));
        assert_eq!(virtio.tx_offloads, tx_offloads);
    }

    #[test]
    fn a_port_that_sums_udp_alone_leaves_sums_to_the_stack() {
        let tx_offloads = sys::CATNIP_RTE_ETH_TX_OFFLOAD_UDP_CKSUM | sys::CATNIP_RTE_ETH_TX_OFFLOAD_TCP_TSO;
        let offered = Offered { tx_offloads, ..Offered::default() };
        let negotiated = Negotiated::new(&DpdkConfig::default(), &offered, 1500);
        assert_eq!((negotiated.tx_checksum, negotiated.tx_offloads), (TxChecksum::Software, 0));
    }
}
