//! What a connection looks like from outside, in the terms of Linux's `TCP_INFO`, and a check of its variables.

use std::net::SocketAddr;

use libos::metrics::MetricsSink;
use libos::{Instant, StreamInfo};

use super::congestion::CongestionControl;
use super::connection::Connection;
use super::state::State;
use super::transmissions::Fate;

/// A snapshot of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpInfo {
    /// The connection's state.
    pub state: State,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// SND.UNA.
    pub snd_una: u32,
    /// SND.NXT.
    pub snd_nxt: u32,
    /// The sequence number after the highest one sent.
    pub snd_max: u32,
    /// SND.WND, in bytes.
    pub snd_wnd_bytes: u32,
    /// RCV.NXT.
    pub rcv_nxt: u32,
    /// RCV.WND as last told to the peer, in bytes.
    pub rcv_wnd_bytes: u32,
    /// Payload bytes of a full segment sent.
    pub snd_mss_bytes: u16,
    /// The congestion window, in bytes.
    pub cwnd_bytes: u32,
    /// The slow-start threshold, in bytes.
    pub ssthresh_bytes: u32,
    /// The smoothed round-trip time, in nanoseconds.
    pub srtt_ns: Option<u64>,
    /// The round-trip time's variation, in nanoseconds.
    pub rttvar_ns: Option<u64>,
    /// The least round-trip time measured, in nanoseconds.
    pub least_rtt_ns: Option<u64>,
    /// The retransmission timeout, in nanoseconds.
    pub rto_ns: u64,
    /// When data was last sent, when data last arrived, and when an acknowledgment last did; [`Instant::ZERO`] when none.
    pub last_data_sent: Instant,
    /// See [`Self::last_data_sent`].
    pub last_data_received: Instant,
    /// See [`Self::last_data_sent`].
    pub last_acknowledgment_received: Instant,
    /// Segments in flight that were selectively acknowledged.
    pub sacked_segments: u32,
    /// Segments given up for lost that were not sent again yet.
    pub lost_segments: u32,
    /// Segments in flight that were sent again.
    pub resent_in_flight_segments: u32,
    /// Segments were seen to overtake each other (RFC 8985, section 6.2: RACK.reordering_seen).
    pub reordering_seen: bool,
    /// Retransmissions of the oldest segment so far, or unanswered probes.
    pub retransmissions: u8,
    /// True while a loss is being repaired.
    pub in_recovery: bool,
    /// Bytes queued and not sent.
    pub unsent_bytes: u32,
    /// Segments and bytes sent again.
    pub retransmitted_segments: u32,
    /// Bytes sent again.
    pub retransmitted_bytes: u64,
    /// Bytes that the peer has acknowledged.
    pub acknowledged_bytes: u64,
    /// Bytes received in order.
    pub received_bytes: u64,
    /// Bytes a second at which segments are spaced, where the congestion control asks for it.
    pub pacing_bytes_per_s: Option<u64>,
    /// Bytes a second delivered while what is in flight was; `None` when nothing is.
    pub delivery_bytes_per_s: Option<u64>,
    /// The path's largest packet, in bytes.
    pub path_mtu_bytes: usize,
    /// Payload bytes of the largest segment received.
    pub rcv_mss_bytes: u16,
    /// The limits of both buffers, in bytes.
    pub send_buffer_bytes: usize,
    /// The receive buffer's present limit, in bytes.
    pub receive_buffer_bytes: usize,
    /// Timestamps were agreed on.
    pub timestamps: bool,
    /// Selective acknowledgments were agreed on.
    pub sack: bool,
    /// Marks of congestion were agreed on.
    pub ecn: bool,
    /// The shifts of the peer's windows and of ours, when they are scaled.
    pub window_scales: Option<(u8, u8)>,
    /// Bytes queued to be sent or acknowledged.
    pub send_queue_bytes: usize,
    /// Bytes the program has not received yet.
    pub receive_queue_bytes: usize,
    /// Bytes that wait behind a gap.
    pub out_of_order_bytes: usize,
}

impl TcpInfo {
    /// Writes the numbers of one connection, under the names of its ends.
    pub(super) fn write(&self, sink: &mut dyn MetricsSink) {
        sink.enter(&format!("{}-{}", self.local, self.remote));
        for (name, value) in [
            ("cwnd_bytes", self.cwnd_bytes.into()),
            ("in_flight_bytes", self.snd_max.wrapping_sub(self.snd_una).into()),
            ("unsent_bytes", self.unsent_bytes.into()),
            ("receive_queue_bytes", self.receive_queue_bytes as u64),
            ("rtt_ns", self.srtt_ns.unwrap_or(0)),
            ("least_rtt_ns", self.least_rtt_ns.unwrap_or(0)),
            ("rto_ns", self.rto_ns),
            ("delivery_bytes_per_s", self.delivery_bytes_per_s.unwrap_or(0)),
        ] {
            sink.gauge(name, value);
        }
        sink.counter("acknowledged_bytes", self.acknowledged_bytes);
        sink.counter("received_bytes", self.received_bytes);
        sink.counter("retransmitted_bytes", self.retransmitted_bytes);
        sink.leave();
    }
}

/// A loss is assumed when three segments behind it have arrived (RFC 5681, section 3.2).
const REORDERING_SEGMENTS: u32 = 3;

impl From<&TcpInfo> for StreamInfo {
    fn from(info: &TcpInfo) -> Self {
        let micros = |nanos: u64| u32::try_from(nanos / 1_000).unwrap_or(u32::MAX);
        let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            state: linux_number(info.state),
            in_recovery: info.in_recovery,
            timeouts: info.retransmissions,
            timestamps: info.timestamps,
            selective_acknowledgments: info.sack,
            ecn: info.ecn,
            window_scales: info.window_scales,
            rto_us: micros(info.rto_ns),
            rtt_us: micros(info.srtt_ns.unwrap_or(0)),
            rtt_variation_us: micros(info.rttvar_ns.unwrap_or(0)),
            least_rtt_us: micros(info.least_rtt_ns.unwrap_or(0)),
            last_data_sent: info.last_data_sent,
            last_data_received: info.last_data_received,
            last_acknowledgment_received: info.last_acknowledgment_received,
            sacked_segments: info.sacked_segments,
            lost_segments: info.lost_segments,
            resent_in_flight_segments: info.resent_in_flight_segments,
            reordering_seen: info.reordering_seen,
            send_segment_bytes: info.snd_mss_bytes.into(),
            receive_segment_bytes: info.rcv_mss_bytes.into(),
            path_mtu_bytes: bytes(info.path_mtu_bytes),
            cwnd_bytes: info.cwnd_bytes,
            ssthresh_bytes: info.ssthresh_bytes,
            in_flight_bytes: info.snd_max.wrapping_sub(info.snd_una),
            unsent_bytes: info.unsent_bytes,
            send_queue_bytes: bytes(info.send_queue_bytes),
            receive_queue_bytes: bytes(info.receive_queue_bytes),
            out_of_order_bytes: bytes(info.out_of_order_bytes),
            send_window_bytes: info.snd_wnd_bytes,
            receive_window_bytes: info.rcv_wnd_bytes,
            receive_buffer_bytes: bytes(info.receive_buffer_bytes),
            reordering_segments: REORDERING_SEGMENTS,
            retransmitted_segments: info.retransmitted_segments,
            retransmitted_bytes: info.retransmitted_bytes,
            acknowledged_bytes: info.acknowledged_bytes,
            received_bytes: info.received_bytes,
            pacing_bytes_per_s: info.pacing_bytes_per_s,
            delivery_bytes_per_s: info.delivery_bytes_per_s.unwrap_or(0),
        }
    }
}

/// The state's number in Linux's `<netinet/tcp.h>`.
const fn linux_number(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Listen => 10,
        State::Closing => 11,
    }
}

impl Connection {
    /// A snapshot of the connection.
    #[must_use]
    pub fn info(&self) -> TcpInfo {
        TcpInfo {
            state: self.state,
            local: self.local(),
            remote: self.remote(),
            snd_una: self.snd.una.raw(),
            snd_nxt: self.snd.nxt.raw(),
            snd_max: self.snd.max.raw(),
            snd_wnd_bytes: self.snd.wnd,
            rcv_nxt: self.rcv.nxt.raw(),
            rcv_wnd_bytes: self.rcv.window(),
            snd_mss_bytes: self.snd.mss,
            cwnd_bytes: self.congestion.cwnd_bytes(),
            ssthresh_bytes: self.congestion.ssthresh_bytes(),
            srtt_ns: self.rtt.srtt_ns(),
            rttvar_ns: self.rtt.rttvar_ns(),
            least_rtt_ns: self.rtt.min_rtt_ns(),
            rto_ns: self.rtt.rto_ns(),
            last_data_sent: if self.snd.max == self.snd.iss + 1 { Instant::ZERO } else { self.last_sent },
            last_data_received: self.rcv.last_data,
            last_acknowledgment_received: self.last_received,
            sacked_segments: self.sent.sacked_segments(),
            lost_segments: self.sent.count_segments(|record| record.fate == Fate::Lost),
            resent_in_flight_segments: self
                .sent
                .count_segments(|record| record.fate == Fate::InFlight && record.retransmitted),
            reordering_seen: self.recovery.has_seen_reordering(),
            retransmissions: self.retransmissions,
            in_recovery: self.recovery.is_active(),
            unsent_bytes: self.snd.unsent(),
            retransmitted_segments: self.sent.resent().0,
            retransmitted_bytes: self.sent.resent().1,
            acknowledged_bytes: self.acknowledged_bytes(),
            received_bytes: self.received_bytes(),
            pacing_bytes_per_s: self.congestion.pacing_rate(),
            delivery_bytes_per_s: self.sent.delivery_rate(),
            path_mtu_bytes: self.path.mtu,
            rcv_mss_bytes: self.rcv.segment_bytes,
            send_buffer_bytes: self.snd.limit_bytes,
            receive_buffer_bytes: self.rcv.limit_bytes as usize,
            timestamps: self.timestamps.is_some(),
            sack: self.sack_permitted,
            ecn: self.ecn.is_agreed(),
            window_scales: (self.snd.scale != 0 || self.rcv.scale != 0)
                .then_some((self.snd.scale, self.rcv.scale)),
            send_queue_bytes: self.snd.queue.len_bytes(),
            receive_queue_bytes: self.rcv.queue.len_bytes(),
            out_of_order_bytes: self.rcv.reassembly.as_ref().map_or(0, |queue| queue.len_bytes()),
        }
    }

    /// Bytes delivered, without the SYN and the FIN, which count as bytes do.
    fn acknowledged_bytes(&self) -> u64 {
        let controls = u64::from(self.snd.una.after(self.snd.iss)) + u64::from(self.snd.fin_acknowledged());
        self.sent.delivered_bytes().saturating_sub(controls)
    }

    /// The first rule among the connection's variables that does not hold, for tests that ask after every event.
    #[must_use]
    pub fn broken_invariant(&self) -> Option<&'static str> {
        let snd = &self.snd;
        let rcv = &self.rcv;
        let open = self.state.is_synchronised();
        let rules = [
            (snd.una.at_or_before(snd.nxt), "SND.UNA <= SND.NXT"),
            (snd.nxt.at_or_before(snd.max), "SND.NXT <= the highest number sent"),
            (snd.queue.len_bytes() == 0 || !open || snd.una == snd.front, "the send queue begins at SND.UNA"),
            (snd.queue.len_bytes() <= snd.limit_bytes, "the send queue keeps its limit"),
            (snd.wnd <= snd.max_wnd, "SND.WND <= the largest window seen"),
            (rcv.last_ack_sent.at_or_before(rcv.nxt), "nothing is acknowledged that has not arrived"),
            (
                rcv.reassembly.as_ref().is_none_or(|queue| queue.len_bytes() <= rcv.window() as usize),
                "out-of-order data lies in the window",
            ),
            (
                self.sent.left_bytes() <= snd.max.distance_from(snd.una),
                "no more is lost or selectively acknowledged than is unacknowledged",
            ),
            (
                !self.recovery.is_quiet() || self.sent.left_bytes() == 0,
                "recovery looks after what left the network",
            ),
            (
                self.sent.span().is_none_or(|(start, end)| start == snd.una && end.at_or_before(snd.max)),
                "the records of what was sent are of what is unacknowledged",
            ),
            (self.deadlines.armed <= self.deadlines.earliest(), "the wheel fires no later than a deadline"),
            (!self.rcv.fin || !self.state.receives_data(), "no data is received after the peer's FIN"),
        ];
        rules.into_iter().find(|&(holds, _)| !holds).map(|(_, rule)| rule)
    }
}
