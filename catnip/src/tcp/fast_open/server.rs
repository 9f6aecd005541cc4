//! The passive side (RFC 7413, section 4.2.2): data of a SYN with a valid cookie is taken before the handshake is over.

use std::collections::VecDeque;
use std::net::SocketAddr;

use libos::{Error, Instant};

use super::keys::Freshness;
use super::{CookieKeys, FastOpen, FastOpenCookie};
use crate::events::EventQueue;
use crate::network::{Network, Packet};
use crate::slab::Key;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::connection::{Connection, Context};
use crate::tcp::counters::TcpCounters;
use crate::tcp::layer::TcpLayer;
use crate::tcp::listener::Listener;
use crate::tcp::receiver::Data;
use crate::tcp::segment::Segment;
use crate::tcp::sequence::SequenceNumber;

/// How long a connection that its peer reset before the handshake was over counts as unfinished: who sends SYNs in the
/// name of others, and has those answer with resets, gains nothing (RFC 7413, section 5.1).
const RESET_MEMORY_NS: u64 = 60 * 1_000_000_000;

/// A SYN for a listener.
pub(in crate::tcp) struct Syn<'a> {
    pub listener: Key,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub segment: &'a Segment,
    /// The packet it came in, from its TCP header on. `None` for one that took the place of an old connection.
    pub packet: Option<Packet>,
    /// Where an earlier connection between the same ends stopped, of whose segments some may still be under way.
    pub used_up_to: Option<SequenceNumber>,
}

/// A listener's connections that were handed over and whose handshake is not over (RFC 7413, section 4.2.2:
/// PendingFastOpenRequests).
#[derive(Debug, Default)]
pub(in crate::tcp) struct EarlyQueue {
    pending: usize,
    /// Until when those count that were reset; no more than the queue's limit.
    resets: VecDeque<Instant>,
}

impl EarlyQueue {
    fn is_full(&mut self, limit: usize, now: Instant) -> bool {
        while self.resets.front().is_some_and(|until| *until <= now) {
            self.resets.pop_front();
        }
        self.pending + self.resets.len() >= limit
    }

    /// A handshake is over.
    pub(in crate::tcp) fn on_established(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// A connection ended before its handshake did.
    pub(in crate::tcp) fn on_failure(&mut self, connection: &Connection) {
        self.pending = self.pending.saturating_sub(1);
        if connection.error == Some(Error::ConnectionReset) {
            // Never more than there were unfinished ones.
            self.resets.push_back(connection.last_received.plus_nanos(RESET_MEMORY_NS));
        }
    }
}

/// What is done about the option of a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Ignore,
    /// The SYN-ACK gives a cookie, and the data comes again.
    Grant(FastOpenCookie),
    /// The data is taken; the SYN-ACK gives the cookie that is to take the place of an old one.
    Take(Option<FastOpenCookie>),
}

/// A passive open that has to do with Fast Open.
#[derive(Debug)]
pub(in crate::tcp) struct Passive {
    /// The cookie that the SYN-ACK gives.
    pub(super) grant: Option<FastOpenCookie>,
    /// The listener among whose unfinished ones it counts, when its data was taken.
    early_of: Option<Key>,
    /// The SYN-ACK left at least once.
    syn_ack_sent: bool,
}

impl Passive {
    pub(super) const fn is_early(&self) -> bool {
        self.early_of.is_some()
    }
}

impl TcpLayer {
    /// A SYN with a Fast Open option made the connection `key`. True when its data was taken, so that it is to be handed
    /// over at once.
    #[cold]
    pub(in crate::tcp) fn open_early(
        &mut self,
        now: Instant,
        key: Key,
        syn: Syn<'_>,
        network: &mut Network,
        events: &mut EventQueue,
    ) -> bool {
        let Some(listener) = self.listeners.get_mut(syn.listener) else { return false };
        let verdict =
            listener.weigh_fast_open(now, &syn, &mut self.fast_open_keys, &mut self.shared.counters);
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let taken = connection.apply_fast_open(verdict, syn, &mut self.shared.context(now, network, events));
        listener.early.pending += usize::from(taken);
        taken
    }
}

impl Listener {
    /// Looks at the Fast Open option of a SYN.
    fn weigh_fast_open(
        &mut self,
        now: Instant,
        syn: &Syn<'_>,
        keys: &mut CookieKeys,
        counters: &mut TcpCounters,
    ) -> Verdict {
        let limit = self.options.fast_open_queue;
        let Some(packet) = syn.packet.as_ref().filter(|_| limit > 0) else { return Verdict::Ignore };
        let Some(cookie) = syn.segment.fast_open_cookie(&packet.head) else { return Verdict::Ignore };
        let (local, client) = (syn.local.ip(), syn.remote.ip());
        if cookie.is_request() {
            counters.fast_open_cookies_asked += 1;
            return Verdict::Grant(keys.make(now, local, client));
        }
        let has_data = packet.len() > syn.segment.header_bytes;
        match keys.check(now, local, client, &cookie) {
            // RFC 7413, section 4.2.2: a cookie that is not valid any more is replaced.
            None => {
                counters.fast_open_passive_fails += 1;
                Verdict::Grant(keys.make(now, local, client))
            }
            Some(_) if self.early.is_full(limit, now) => {
                counters.fast_open_listen_overflows += 1;
                Verdict::Ignore
            }
            Some(Freshness::Current) if has_data => Verdict::Take(None),
            Some(Freshness::Previous) if has_data => Verdict::Take(Some(keys.make(now, local, client))),
            Some(Freshness::Current) => Verdict::Ignore,
            Some(Freshness::Previous) => Verdict::Grant(keys.make(now, local, client)),
        }
    }
}

impl Connection {
    /// Does what [`Listener::weigh_fast_open`] found right. True when the SYN's data was taken.
    fn apply_fast_open(&mut self, verdict: Verdict, syn: Syn<'_>, cx: &mut Context<'_>) -> bool {
        let (grant, takes_data) = match verdict {
            Verdict::Ignore => return false,
            Verdict::Grant(cookie) => (Some(cookie), false),
            Verdict::Take(grant) => (grant, true),
        };
        let Syn { listener, segment, packet, .. } = syn;
        let data =
            packet.filter(|_| takes_data).map(|packet| Data::behind_header(packet, segment.header_bytes));
        let data = data.filter(|data| data.len <= self.rcv.free_space());
        let taken = data.is_some();
        if let Some(data) = data {
            cx.counters.fast_open_passive += 1;
            self.opening = false;
            self.rcv.nxt += data.len;
            self.deliver(data.head, cx);
            for buffer in data.rest {
                self.deliver(buffer, cx);
            }
            // What is answered before the handshake is over is bounded by the initial window.
            self.congestion.on_established(u32::from(self.snd.mss), cx.now);
        }
        let passive = Passive { grant, early_of: taken.then_some(listener), syn_ack_sent: false };
        self.fast_open = Some(Box::new(FastOpen::Passive(passive)));
        taken
    }

    /// True while no SYN-ACK has left: without it, nothing else makes sense to the peer.
    pub(in crate::tcp) fn owes_syn_ack(&self) -> bool {
        matches!(self.fast_open.as_deref(), Some(FastOpen::Passive(passive)) if !passive.syn_ack_sent)
    }

    /// A SYN-ACK left.
    pub(in crate::tcp) fn note_syn_ack_sent(&mut self) {
        if let Some(FastOpen::Passive(passive)) = self.fast_open.as_deref_mut() {
            passive.syn_ack_sent = true;
        }
    }

    /// The listener among whose unfinished connections this one counts, and does so no longer.
    pub(in crate::tcp) fn end_early(&mut self) -> Option<Key> {
        match self.fast_open.take().map(|fast_open| *fast_open) {
            Some(FastOpen::Passive(passive)) => passive.early_of,
            Some(FastOpen::Active(_)) | None => None,
        }
    }
}
