//! `struct tcp_info` as Linux lays it out, as far as its member `tcpi_snd_wnd`.

use catnip_os::libos::{Instant, StreamInfo};

const OPTION_TIMESTAMPS: u8 = 1;
const OPTION_SACK: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 4;
const OPTION_ECN: u8 = 8;

/// `TCP_CA_Open` and `TCP_CA_Recovery`.
const CONGESTION_OPEN: u8 = 0;
const CONGESTION_RECOVERY: u8 = 3;

/// What Linux shows for a slow-start threshold that was never set.
const NO_THRESHOLD: u32 = 0x7fff_ffff;

/// The prefix of `struct tcp_info`. Members that nothing is known for are 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    /// The peer's shift in the lower half, ours in the upper one.
    window_scales: u8,
    app_limited: u8,
    rto_us: u32,
    ato_us: u32,
    snd_mss: u32,
    rcv_mss: u32,
    unacked_segments: u32,
    sacked_segments: u32,
    lost_segments: u32,
    retrans_segments: u32,
    fackets: u32,
    last_data_sent_ms: u32,
    last_ack_sent_ms: u32,
    last_data_recv_ms: u32,
    last_ack_recv_ms: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt_us: u32,
    rttvar_us: u32,
    snd_ssthresh_segments: u32,
    snd_cwnd_segments: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt_us: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt_us: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time_us: u64,
    rwnd_limited_us: u64,
    sndbuf_limited_us: u64,
    delivered_segments: u32,
    delivered_ce_segments: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
    dsack_dups: u32,
    reord_seen: u32,
    rcv_ooopack: u32,
    snd_wnd: u32,
}

impl TcpInfo {
    /// The snapshot `info`, taken at `now`.
    pub fn new(info: &StreamInfo, now: Instant) -> Self {
        let segment_bytes = info.send_segment_bytes.max(1);
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let age_ms = |at: Instant| match at {
            Instant::ZERO => 0,
            at => u32::try_from(now.nanos_since(at) / 1_000_000).unwrap_or(u32::MAX),
        };
        let (send_scale, receive_scale) = info.window_scales.unwrap_or((0, 0));
        Self {
            state: info.state,
            ca_state: if info.in_recovery { CONGESTION_RECOVERY } else { CONGESTION_OPEN },
            retransmits: info.timeouts,
            backoff: info.timeouts,
            options: flag(info.timestamps, OPTION_TIMESTAMPS)
                | flag(info.selective_acknowledgments, OPTION_SACK)
                | flag(info.window_scales.is_some(), OPTION_WINDOW_SCALE)
                | flag(info.ecn, OPTION_ECN),
            window_scales: (send_scale & 0xf) | (receive_scale & 0xf) << 4,
            rto_us: info.rto_us,
            snd_mss: info.send_segment_bytes,
            rcv_mss: info.receive_segment_bytes,
            unacked_segments: info.in_flight_bytes.div_ceil(segment_bytes),
            sacked_segments: info.sacked_segments,
            lost_segments: info.lost_segments,
            retrans_segments: info.resent_in_flight_segments,
            last_data_sent_ms: age_ms(info.last_data_sent),
            last_data_recv_ms: age_ms(info.last_data_received),
            last_ack_recv_ms: age_ms(info.last_acknowledgment_received),
            min_rtt_us: info.least_rtt_us,
            reord_seen: u32::from(info.reordering_seen),
            pmtu: info.path_mtu_bytes,
            rcv_ssthresh: info.receive_window_bytes,
            rtt_us: info.rtt_us,
            rttvar_us: info.rtt_variation_us,
            snd_ssthresh_segments: match info.ssthresh_bytes {
                u32::MAX => NO_THRESHOLD,
                bytes => bytes.div_ceil(segment_bytes),
            },
            snd_cwnd_segments: info.cwnd_bytes / segment_bytes,
            reordering: info.reordering_segments,
            rcv_space: info.receive_buffer_bytes,
            total_retrans: info.retransmitted_segments,
            pacing_rate: info.pacing_bytes_per_s.unwrap_or(u64::MAX),
            max_pacing_rate: u64::MAX,
            bytes_acked: info.acknowledged_bytes,
            bytes_received: info.received_bytes,
            notsent_bytes: info.unsent_bytes,
            delivery_rate: info.delivery_bytes_per_s,
            bytes_retrans: info.retransmitted_bytes,
            snd_wnd: info.send_window_bytes,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn members_lie_where_linux_has_them() {
        for (name, offset, linux) in [
            ("tcpi_rto", offset_of!(TcpInfo, rto_us), 8),
            ("tcpi_unacked", offset_of!(TcpInfo, unacked_segments), 24),
            ("tcpi_pmtu", offset_of!(TcpInfo, pmtu), 60),
            ("tcpi_rtt", offset_of!(TcpInfo, rtt_us), 68),
            ("tcpi_snd_cwnd", offset_of!(TcpInfo, snd_cwnd_segments), 80),
            ("tcpi_total_retrans", offset_of!(TcpInfo, total_retrans), 100),
            ("tcpi_pacing_rate", offset_of!(TcpInfo, pacing_rate), 104),
            ("tcpi_bytes_received", offset_of!(TcpInfo, bytes_received), 128),
            ("tcpi_notsent_bytes", offset_of!(TcpInfo, notsent_bytes), 144),
            ("tcpi_delivery_rate", offset_of!(TcpInfo, delivery_rate), 160),
            ("tcpi_bytes_retrans", offset_of!(TcpInfo, bytes_retrans), 208),
            ("tcpi_snd_wnd", offset_of!(TcpInfo, snd_wnd), 228),
            ("the end", size_of::<TcpInfo>(), 232),
        ] {
            assert_eq!(offset, linux, "{name}");
        }
    }

    #[test]
    fn bytes_become_segments() {
        let info = StreamInfo {
            send_segment_bytes: 1_000,
            in_flight_bytes: 2_001,
            cwnd_bytes: 10_500,
            ssthresh_bytes: u32::MAX,
            window_scales: Some((7, 9)),
            timestamps: true,
            ..StreamInfo::default()
        };
        let shown = TcpInfo::new(&info, Instant::ZERO);
        assert_eq!((shown.unacked_segments, shown.snd_cwnd_segments), (3, 10));
        assert_eq!((shown.snd_ssthresh_segments, shown.pacing_rate), (NO_THRESHOLD, u64::MAX));
        assert_eq!((shown.window_scales, shown.options), (0x97, 5));
    }
}
