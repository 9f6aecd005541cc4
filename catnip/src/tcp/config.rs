//! What can be set about TCP: for the whole stack, and for one socket.

use std::time::Duration;

use super::congestion::Algorithm;
use super::ecn::EcnMode;
use super::keepalive::Keepalive;

/// Settings of the TCP layer. Every one has a default that works on the Internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpConfig {
    /// What a new socket starts with.
    pub options: TcpOptions,
    /// Most connections at a time, those in TIME-WAIT included.
    pub max_connections: usize,
    /// Most listeners at a time.
    pub max_listeners: usize,
    /// Lower bound of the retransmission timeout (RFC 6298 asks for 1 s, Linux uses 200 ms).
    pub rto_min: Duration,
    /// Upper bound of the retransmission timeout, at least 60 s (RFC 6298, section 2.5).
    pub rto_max: Duration,
    /// The timeout before the first round-trip time is measured (RFC 6298, section 2.1).
    pub rto_initial: Duration,
    /// Retransmissions of one segment before the connection is given up (RFC 9293, section 3.8.3: R2).
    pub max_retransmissions: u8,
    /// Retransmissions of a SYN before the open is given up: by default after four minutes (RFC 9293, section 3.8.3,
    /// MUST-23, asks for three at least).
    pub max_syn_retransmissions: u8,
    /// Retransmissions of a SYN-ACK before the open is given up. Fewer: who answers none may be somebody else than who
    /// sent the SYN.
    pub max_syn_ack_retransmissions: u8,
    /// How long an acknowledgment may wait for data to ride on; at most 500 ms (RFC 9293, section 3.8.6.3).
    pub delayed_ack: Duration,
    /// How long a connection stays in TIME-WAIT: twice the maximum segment lifetime.
    pub time_wait: Duration,
    /// How long a connection that the program closed waits in FIN-WAIT-2 for the peer's FIN.
    pub fin_wait_2: Duration,
    /// Offer and use timestamps (RFC 7323).
    pub timestamps: bool,
    /// Offer and use window scaling (RFC 7323).
    pub window_scaling: bool,
    /// Notice segments that are too large for the path without ICMP, and look for what it carries (RFC 4821, RFC 8899).
    pub path_mtu_search: bool,
    /// Answer SYNs with cookies (RFC 4987, section 3.6) instead of dropping them while handshakes that do not end fill
    /// the backlog.
    pub syn_cookies: bool,
    /// Bounds of a user timeout that the peer asks for (RFC 5482, section 3.1: L_LIMIT and U_LIMIT).
    pub user_timeout_least: Duration,
    /// See [`Self::user_timeout_least`].
    pub user_timeout_most: Duration,
    /// Keys of the Fast Open cookies that this host gives (RFC 7413): of those named here, at most two, cookies are made
    /// with the first, and those of the second are taken as well. Without any, keys are drawn.
    pub fast_open_keys: Vec<u128>,
    /// How long a key that was drawn makes cookies; for as long again they are taken.
    pub fast_open_key_lifetime: Duration,
    /// About how many servers' Fast Open cookies are kept.
    pub fast_open_cache_entries: usize,
    /// About how many challenge acknowledgments all connections together send a second (RFC 5961, section 7).
    pub challenge_acks_per_second: u32,
    /// About how many resets a second answer segments that belong to no connection.
    pub resets_per_second: u32,
    /// Bytes of memory that data ahead of gaps may hold in all connections together.
    pub max_out_of_order_bytes: usize,
    /// Offer and use selective acknowledgments (RFC 2018).
    pub sack: bool,
    /// Explicit congestion notification (RFC 3168).
    pub ecn: EcnMode,
    /// Most connections that have numbers of their own among the metrics.
    pub metrics_connections: usize,
    /// Granularity of the clock that `now` comes from.
    pub clock_granularity: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            options: TcpOptions::default(),
            max_connections: 1 << 20,
            max_listeners: 1 << 16,
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            rto_initial: Duration::from_secs(1),
            max_retransmissions: 15,
            max_syn_retransmissions: 7,
            max_syn_ack_retransmissions: 5,
            delayed_ack: Duration::from_millis(40),
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            timestamps: true,
            window_scaling: true,
            ecn: EcnMode::default(),
            path_mtu_search: true,
            syn_cookies: true,
            user_timeout_least: Duration::from_secs(100),
            user_timeout_most: Duration::from_secs(3600),
            fast_open_keys: Vec::new(),
            fast_open_key_lifetime: Duration::from_secs(12 * 3600),
            fast_open_cache_entries: 1024,
            challenge_acks_per_second: 1000,
            resets_per_second: 10_000,
            max_out_of_order_bytes: 64 << 20,
            sack: true,
            metrics_connections: 0,
            clock_granularity: Duration::from_micros(1),
        }
    }
}

/// Settings of one socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpOptions {
    /// Send small segments at once instead of gathering them (`TCP_NODELAY`; off is Nagle's algorithm, RFC 896).
    pub no_delay: bool,
    /// Probe an idle peer (`SO_KEEPALIVE`).
    pub keep_alive: bool,
    /// When it is probed then (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
    pub keepalive: Keepalive,
    /// What closing does with unsent data (`SO_LINGER`): `None` sends it in the background for as long as it takes,
    /// `Some` for so long and then resets the connection, and the close completes with the one or the other; `Some(0)`
    /// resets at once.
    pub linger: Option<Duration>,
    /// Bytes that may wait to be sent and acknowledged (`SO_SNDBUF`), to begin with.
    pub send_buffer_bytes: usize,
    /// What that limit may grow to with the congestion window. No growth when it is not more; `SO_SNDBUF` sets both.
    pub send_buffer_max_bytes: usize,
    /// Bytes that may wait for the program: the largest window offered (`SO_RCVBUF`), to begin with.
    pub receive_buffer_bytes: usize,
    /// What that limit may grow to with what the program takes in a round trip. No growth when it is not more;
    /// `SO_RCVBUF` sets both.
    pub receive_buffer_max_bytes: usize,
    /// Largest payload of a segment, both ways; `None` leaves it to the path (`TCP_MAXSEG`).
    pub max_segment_bytes: Option<u16>,
    /// Send full segments only, for at most a fifth of a second (`TCP_CORK`).
    pub cork: bool,
    /// Acknowledge everything at once (`TCP_QUICKACK`).
    pub quick_ack: bool,
    /// How long sent data may stay unacknowledged before the connection is given up (`TCP_USER_TIMEOUT`,
    /// RFC 5482). `None` leaves it to the number of retransmissions.
    pub user_timeout: Option<Duration>,
    /// Tell the peer of that time, or without one heed the peer's within bounds (RFC 5482's option).
    pub user_timeout_option: bool,
    /// Connections of a listener that are handed over with the data of their SYN before the handshake is over
    /// (`TCP_FASTOPEN`, RFC 7413). 0 turns that off.
    pub fast_open_queue: usize,
    /// Put what is pushed first on the SYN to a server that gave a cookie before, and ask others for one
    /// (`TCP_FASTOPEN_CONNECT`, RFC 7413). Such a SYN may arrive twice, and its data with it: for what may be done twice.
    pub fast_open_connect: bool,
    /// Which other sockets may have the same port.
    pub reuse: Reuse,
    /// Hop limit of what is sent.
    pub hop_limit: u8,
    /// Differentiated services of what is sent, in the upper six bits (`IP_TOS`, `IPV6_TCLASS`).
    pub traffic_class: u8,
    /// The congestion-control algorithm (`TCP_CONGESTION`).
    pub congestion: Algorithm,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            no_delay: false,
            keep_alive: false,
            keepalive: Keepalive::default(),
            linger: None,
            send_buffer_bytes: 1 << 20,
            send_buffer_max_bytes: 8 << 20,
            receive_buffer_bytes: 1 << 20,
            receive_buffer_max_bytes: 8 << 20,
            max_segment_bytes: None,
            cork: false,
            quick_ack: false,
            user_timeout: None,
            user_timeout_option: false,
            fast_open_queue: 0,
            fast_open_connect: false,
            reuse: Reuse::default(),
            hop_limit: 64,
            traffic_class: 0,
            congestion: Algorithm::default(),
        }
    }
}

/// Which other sockets may have the same port, if they agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reuse {
    /// Those that do not listen (`SO_REUSEADDR`).
    pub address: bool,
    /// Those that listen too: connections are shared out among them by a keyed hash (`SO_REUSEPORT`).
    pub port: bool,
}
