//! What a connection looks like from outside, in the terms of Linux's `TCP_INFO`, and a check of its variables.

use std::net::SocketAddr;

use super::congestion::CongestionControl;
use super::connection::Connection;
use super::state::State;

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
    /// The retransmission timeout, in nanoseconds.
    pub rto_ns: u64,
    /// Retransmissions of the oldest segment so far, or unanswered probes.
    pub retransmissions: u8,
    /// True while a loss is being repaired.
    pub in_recovery: bool,
    /// Bytes queued to be sent or acknowledged.
    pub send_queue_bytes: usize,
    /// Bytes the program has not received yet.
    pub receive_queue_bytes: usize,
    /// Bytes that wait behind a gap.
    pub out_of_order_bytes: usize,
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
            rto_ns: self.rtt.rto_ns(),
            retransmissions: self.retransmissions,
            in_recovery: self.recovery.is_active(),
            send_queue_bytes: self.snd.queue.len_bytes(),
            receive_queue_bytes: self.rcv.queue.len_bytes(),
            out_of_order_bytes: self.rcv.reassembly.as_ref().map_or(0, |queue| queue.len_bytes()),
        }
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
                self.sent.span().is_none_or(|(start, end)| start == snd.una && end.at_or_before(snd.max)),
                "the records of what was sent are of what is unacknowledged",
            ),
            (self.deadlines.armed <= self.deadlines.earliest(), "the wheel fires no later than a deadline"),
            (!self.rcv.fin || !self.state.receives_data(), "no data is received after the peer's FIN"),
        ];
        rules.into_iter().find(|&(holds, _)| !holds).map(|(_, rule)| rule)
    }
}
