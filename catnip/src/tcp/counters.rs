//! Counters of the TCP layer, named after the TCP MIB (RFC 4022) and Linux's extension of it.

use libos::metrics::MetricsSink;

libos::counters! {
    /// Counters of the TCP layer.
    pub struct TcpCounters {
        /// Connections opened by us.
        active_opens,
        /// Connections opened by peers.
        passive_opens,
        /// Connections that failed before they stood.
        attempt_fails,
        /// Connections that were reset after they stood.
        established_resets,
        /// Segments received, good or bad.
        in_segments,
        /// Segments sent, retransmissions included. One that the device cuts counts once.
        out_segments,
        /// Segments sent again.
        retransmitted_segments,
        /// Segments dropped because they could not be parsed.
        in_errors,
        /// Segments with a malformed option; what came before it was used.
        malformed_options,
        /// Resets sent.
        out_resets,
        /// Retransmission timeouts.
        retransmission_timeouts,
        /// Losses repaired by fast retransmit.
        fast_retransmits,
        /// Tail loss probes sent (RFC 8985, section 7).
        tail_loss_probes,
        /// Timeouts that turned out to be spurious (RFC 5682).
        spurious_timeouts,
        /// Recoveries that the peer reported as needless altogether (RFC 3708).
        recoveries_undone,
        /// Reports of something that came twice (RFC 2883).
        dsacks_received,
        /// Zero-window probes sent.
        zero_window_probes,
        /// Keepalive probes sent.
        keepalive_probes,
        /// Connections given up because the peer did not answer.
        timeouts,
        /// Segments answered with a challenge acknowledgment (RFC 5961).
        challenge_acks,
        /// Challenges and answers to unacceptable segments that a limit held back.
        skipped_challenges,
        /// Resets that the limit on resets held back.
        skipped_resets,
        /// SYNs answered with a cookie (RFC 4987).
        syn_cookies_sent,
        /// Connections that a cookie opened.
        syn_cookies_received,
        /// Acknowledgments to a listener that carried no valid cookie while it was handing cookies out.
        syn_cookies_failed,
        /// SYNs with data whose data the SYN-ACK acknowledged (RFC 7413).
        fast_open_active,
        /// SYNs with data that were lost or whose data was not taken.
        fast_open_active_fails,
        /// SYNs whose data was taken.
        fast_open_passive,
        /// SYNs with a Fast Open cookie that is not valid, or not any more.
        fast_open_passive_fails,
        /// SYNs whose data was not taken because the listener's Fast Open queue was full.
        fast_open_listen_overflows,
        /// SYNs that asked a listener for a Fast Open cookie.
        fast_open_cookies_asked,
        /// Segments dropped for an old timestamp (RFC 7323, section 5).
        paws_rejected,
        /// Segments outside the window.
        out_of_window,
        /// Segments that arrived before the ones in front of them.
        out_of_order,
        /// SYNs dropped because the listener's backlog was full.
        listen_overflows,
        /// Connections or SYNs refused because the connection table was full.
        table_overflows,
        /// Payload dropped because memory was short.
        memory_drops,
        /// Times that a connection offered less because memory was short.
        memory_clamps,
        /// Segments ahead of a gap dropped because out-of-order data had reached a limit on memory.
        out_of_order_drops,
        /// Segments of data that arrived with a congestion mark (RFC 3168).
        congestion_marks,
        /// Windows reduced because the peer reported congestion marks.
        congestion_echoes,
        /// Paths whose packets were made smaller because large ones vanished (RFC 4821).
        path_mtu_black_holes,
        /// Larger packets that were tried and got through.
        path_mtu_raised,
        /// Acknowledgments sent without data.
        pure_acks,
        /// Acknowledgments that waited for their timer.
        delayed_acks,
    }
}

impl TcpCounters {
    /// Writes what the TCP MIB (RFC 4022) and Linux's `TcpExt` count as well, under their names.
    /// `established` is the number of connections in ESTABLISHED and CLOSE-WAIT.
    pub fn write_mib(&self, established: u64, sink: &mut dyn MetricsSink) {
        let counters = [
            ("tcpActiveOpens", self.active_opens),
            ("tcpPassiveOpens", self.passive_opens),
            ("tcpAttemptFails", self.attempt_fails),
            ("tcpEstabResets", self.established_resets),
            ("tcpInSegs", self.in_segments),
            ("tcpOutSegs", self.out_segments.saturating_sub(self.retransmitted_segments)),
            ("tcpRetransSegs", self.retransmitted_segments),
            ("tcpInErrs", self.in_errors),
            ("tcpOutRsts", self.out_resets),
            ("SyncookiesSent", self.syn_cookies_sent),
            ("SyncookiesRecv", self.syn_cookies_received),
            ("SyncookiesFailed", self.syn_cookies_failed),
            ("ListenOverflows", self.listen_overflows),
            ("TCPFastOpenActive", self.fast_open_active),
            ("TCPFastOpenActiveFail", self.fast_open_active_fails),
            ("TCPFastOpenPassive", self.fast_open_passive),
            ("TCPFastOpenPassiveFail", self.fast_open_passive_fails),
            ("TCPFastOpenListenOverflow", self.fast_open_listen_overflows),
            ("TCPFastOpenCookieReqd", self.fast_open_cookies_asked),
            ("PAWSEstab", self.paws_rejected),
            ("DelayedACKs", self.delayed_acks),
            ("TCPTimeouts", self.retransmission_timeouts),
            ("TCPFastRetrans", self.fast_retransmits),
            ("TCPWinProbe", self.zero_window_probes),
            ("TCPKeepAlive", self.keepalive_probes),
            ("TCPAbortOnTimeout", self.timeouts),
            ("TCPChallengeACK", self.challenge_acks),
            ("TCPACKSkippedChallenge", self.skipped_challenges),
            ("TCPOFOQueue", self.out_of_order),
            ("TCPOFODrop", self.out_of_order_drops),
            ("TCPRcvQDrop", self.memory_drops),
            ("TCPMTUPFail", self.path_mtu_black_holes),
            ("TCPMTUPSuccess", self.path_mtu_raised),
        ];
        for (name, value) in counters {
            sink.counter(name, value);
        }
        sink.gauge("tcpCurrEstab", established);
    }
}
