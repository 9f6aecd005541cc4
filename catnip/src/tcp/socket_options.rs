//! Socket options of TCP, by the library OS's names.

use libos::{Error, Instant, SocketOption, SocketOptionName};

use super::config::TcpOptions;
use super::congestion::{Algorithm, CongestionControl};
use super::connection::Connection;
use super::ecn;
use super::keepalive::Keepalive;
use super::options::MAX_WINDOW_SCALE;
use super::pacing::Pacing;

/// Largest send or receive queue of a socket: what a window scaled by 14 expresses (RFC 7323, section 2.3).
const MAX_QUEUE_BYTES: usize = 1 << 30;

impl TcpOptions {
    /// Sets one option.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a value outside what the option takes, [`Error::NotSupported`] for
    /// an option TCP does not have or that can only be read.
    pub fn set(&mut self, option: SocketOption) -> Result<(), Error> {
        match option {
            SocketOption::NoDelay(on) => self.no_delay = on,
            SocketOption::KeepAlive(on) => self.keep_alive = on,
            SocketOption::KeepAliveIdle(time) => self.keepalive.idle_ms = Keepalive::millis(time)?,
            SocketOption::KeepAliveInterval(time) => self.keepalive.interval_ms = Keepalive::millis(time)?,
            SocketOption::KeepAliveProbes(0) => return Err(Error::InvalidArgument),
            SocketOption::KeepAliveProbes(probes) => self.keepalive.probes = probes,
            SocketOption::Linger(time) => self.linger = time,
            // Whoever names a size gets that size: it does not grow by itself any more.
            SocketOption::SendBuffer(bytes) => {
                self.send_buffer_bytes = queue_bytes(bytes)?;
                self.send_buffer_max_bytes = bytes;
            }
            SocketOption::ReceiveBuffer(bytes) => {
                self.receive_buffer_bytes = queue_bytes(bytes)?;
                self.receive_buffer_max_bytes = bytes;
            }
            SocketOption::MaxSegmentSize(bytes) => {
                let bytes = u16::try_from(bytes).map_err(|_| Error::InvalidArgument)?;
                if bytes < super::connection::MIN_SEGMENT_BYTES {
                    return Err(Error::InvalidArgument);
                }
                self.max_segment_bytes = Some(bytes);
            }
            SocketOption::ReuseAddress(on) => self.reuse.address = on,
            SocketOption::ReusePort(on) => self.reuse.port = on,
            SocketOption::Cork(on) => self.cork = on,
            SocketOption::QuickAck(on) => self.quick_ack = on,
            SocketOption::UserTimeout(limit) => self.user_timeout = limit.filter(|limit| !limit.is_zero()),
            SocketOption::UserTimeoutOption(on) => self.user_timeout_option = on,
            SocketOption::FastOpenQueue(connections) => {
                self.fast_open_queue = connections.min(super::listener::MAX_BACKLOG);
            }
            SocketOption::FastOpenConnect(on) => self.fast_open_connect = on,
            SocketOption::HopLimit(0) => return Err(Error::InvalidArgument),
            SocketOption::HopLimit(limit) => self.hop_limit = limit,
            // RFC 9293, section 3.9.1.8; what is ECN's stays so (RFC 3168, section 5).
            SocketOption::TrafficClass(class) => self.traffic_class = class & !ecn::FIELD,
            SocketOption::Congestion(name) if name == self.congestion.option_name() => {}
            SocketOption::Congestion(name) => {
                self.congestion = Algorithm::from_name(name.as_str()).ok_or(Error::InvalidArgument)?;
            }
            _ => return Err(Error::NotSupported),
        }
        Ok(())
    }

    /// Reads one option.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for an option TCP does not have.
    pub fn get(&self, name: SocketOptionName) -> Result<SocketOption, Error> {
        Ok(match name {
            SocketOptionName::NoDelay => SocketOption::NoDelay(self.no_delay),
            SocketOptionName::KeepAlive => SocketOption::KeepAlive(self.keep_alive),
            SocketOptionName::KeepAliveIdle => SocketOption::KeepAliveIdle(self.keepalive.idle()),
            SocketOptionName::KeepAliveInterval => SocketOption::KeepAliveInterval(self.keepalive.interval()),
            SocketOptionName::KeepAliveProbes => SocketOption::KeepAliveProbes(self.keepalive.probes),
            SocketOptionName::Linger => SocketOption::Linger(self.linger),
            SocketOptionName::SendBuffer => SocketOption::SendBuffer(self.send_buffer_bytes),
            SocketOptionName::ReceiveBuffer => SocketOption::ReceiveBuffer(self.receive_buffer_bytes),
            SocketOptionName::MaxSegmentSize => {
                SocketOption::MaxSegmentSize(usize::from(self.max_segment_bytes.unwrap_or(536)))
            }
            SocketOptionName::ReuseAddress => SocketOption::ReuseAddress(self.reuse.address),
            SocketOptionName::ReusePort => SocketOption::ReusePort(self.reuse.port),
            SocketOptionName::Cork => SocketOption::Cork(self.cork),
            SocketOptionName::QuickAck => SocketOption::QuickAck(self.quick_ack),
            SocketOptionName::UserTimeout => SocketOption::UserTimeout(self.user_timeout),
            SocketOptionName::UserTimeoutOption => SocketOption::UserTimeoutOption(self.user_timeout_option),
            SocketOptionName::FastOpenQueue => SocketOption::FastOpenQueue(self.fast_open_queue),
            SocketOptionName::FastOpenConnect => SocketOption::FastOpenConnect(self.fast_open_connect),
            SocketOptionName::HopLimit => SocketOption::HopLimit(self.hop_limit),
            SocketOptionName::TrafficClass => SocketOption::TrafficClass(self.traffic_class),
            SocketOptionName::Congestion => SocketOption::Congestion(self.congestion.option_name()),
            SocketOptionName::PendingError => SocketOption::PendingError(None),
            _ => return Err(Error::NotSupported),
        })
    }
}

fn queue_bytes(bytes: usize) -> Result<usize, Error> {
    if (1..=MAX_QUEUE_BYTES).contains(&bytes) { Ok(bytes) } else { Err(Error::InvalidArgument) }
}

impl Connection {
    /// Sets one option of a connection that stands.
    pub(super) fn set_option(&mut self, option: SocketOption) -> Result<(), Error> {
        let mut options = self.options();
        options.set(option)?;
        self.no_delay = options.no_delay;
        self.linger = options.linger;
        self.cork = options.cork;
        let tells = self.user_timeout.choose(options.user_timeout, options.user_timeout_option);
        self.rcv.ack_now |= tells && self.state.is_synchronised();
        self.rcv.quick_ack = options.quick_ack;
        if options.quick_ack && self.rcv.unacknowledged_bytes() > 0 {
            self.rcv.ack_now = true;
        }
        self.hop_limit = options.hop_limit;
        self.traffic_class = options.traffic_class;
        // What is queued stays queued: a smaller limit holds for what comes.
        self.snd.limit_bytes = options.send_buffer_bytes.max(self.snd.queue.len_bytes());
        self.snd.limit_max_bytes = options.send_buffer_max_bytes;
        self.rcv.tuning.max_bytes = u32::try_from(options.receive_buffer_max_bytes).unwrap_or(u32::MAX);
        self.choose_keepalive(options.keep_alive, options.keepalive);
        if options.congestion != self.algorithm() {
            self.change_algorithm(options.congestion);
        }
        if self.max_segment_bytes != options.max_segment_bytes {
            self.max_segment_bytes = options.max_segment_bytes;
            self.change_mss();
        }
        self.limit_receive_buffer(u32::try_from(options.receive_buffer_bytes).unwrap_or(u32::MAX));
        self.consider_window_update();
        Ok(())
    }

    /// The algorithm at work.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.congestion.algorithm()
    }

    /// Another algorithm takes over. It knows of the path how long it is, and starts as a new connection's does.
    fn change_algorithm(&mut self, algorithm: Algorithm) {
        self.congestion = algorithm.start();
        self.pacing = Pacing::of(&self.congestion);
        self.deadlines.pacing = Instant::FAR_FUTURE;
        if self.state.is_synchronised() {
            self.congestion.on_established(u32::from(self.snd.mss), self.last_sent.max(self.last_received));
            if let Some(rtt_ns) = self.rtt.min_rtt_ns() {
                self.congestion.on_first_rtt(rtt_ns);
            }
        }
    }

    /// The receive buffer is as large as the program wants, and as the scale agreed on at the handshake
    /// expresses: room that cannot be offered is none. What was offered stays offered (RFC 9293, section 3.8.6).
    pub(super) fn limit_receive_buffer(&mut self, wanted_bytes: u32) {
        let synchronised = self.state.is_synchronised();
        let scale = if synchronised { self.rcv.scale } else { MAX_WINDOW_SCALE };
        self.rcv.limit_bytes = wanted_bytes.min(u32::from(u16::MAX) << scale);
        self.rcv.queue.set_limit(self.rcv.limit_bytes as usize);
    }

    /// Reads one option; reading the pending error clears it.
    pub(super) fn option(&mut self, name: SocketOptionName) -> Result<SocketOption, Error> {
        match name {
            SocketOptionName::PendingError => {
                // What ended the connection is told once here, and by every call that it makes fail.
                let told = std::mem::replace(&mut self.error_told, self.error.is_some());
                let error = self.error.filter(|_| !told);
                Ok(SocketOption::PendingError(error.or_else(|| self.soft_error.take())))
            }
            SocketOptionName::MaxSegmentSize => Ok(SocketOption::MaxSegmentSize(usize::from(self.snd.mss))),
            SocketOptionName::StreamInfo => Ok(SocketOption::StreamInfo((&self.info()).into())),
            _ => self.options().get(name),
        }
    }
}
