//! The active side (RFC 7413, section 4.2.1): the SYN waits for the data that it is to carry.

use libos::Instant;

use super::cache::{Known, Lesson};
use super::{FastOpen, FastOpenCookie};
use crate::events::Readiness;
use crate::network::Payload;
use crate::tcp::connection::{Connection, Context, Disposition};
use crate::tcp::emit::{Envelope, emit};
use crate::tcp::handshake::own_mss;
use crate::tcp::layer::TcpLayer;
use crate::tcp::segment::{HeaderFields, Segment};
use crate::tcp::sequence::SequenceNumber;
use crate::tcp::state::State;

/// How long a SYN waits for data. A program that says nothing first, and waits for its peer to, is not held up for
/// longer.
const PATIENCE_NS: u64 = 10_000_000;

/// What becomes of the SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for data, to leave with this cookie; the server's MSS option beside it.
    Deferred(FastOpenCookie, u16),
    /// It asks for a cookie.
    Asking,
    /// It left with a cookie and data.
    Sent,
    /// It left without any of this: there was no data, or a timeout gave the rest up.
    Plain,
}

/// An active open that has to do with Fast Open.
#[derive(Debug)]
pub(in crate::tcp) struct Active {
    phase: Phase,
    /// The cookie in the SYN-ACK.
    granted: Option<FastOpenCookie>,
    /// What the cache has to be told.
    lesson: Option<Lesson>,
}

impl Active {
    pub(super) const fn is_deferred(&self) -> bool {
        matches!(self.phase, Phase::Deferred(..))
    }

    /// True while the program was told that it is connected, though nobody has answered.
    pub(super) const fn carries_data(&self) -> bool {
        matches!(self.phase, Phase::Deferred(..) | Phase::Sent)
    }
}

impl TcpLayer {
    /// A connection is about to be opened whose socket asks for Fast Open.
    pub(in crate::tcp) fn plan_fast_open(&mut self, now: Instant, index: u32) {
        let Some(connection) = self.connections.get_index_mut(index) else { return };
        if self.fast_open_cache.is_disabled() {
            return;
        }
        let phase = match self.fast_open_cache.look_up(now, connection.path.remote) {
            Known::Cookie(cookie, mss) => Phase::Deferred(cookie, mss),
            Known::Nothing => Phase::Asking,
            Known::Held => return,
        };
        let active = Active { phase, granted: None, lesson: None };
        connection.fast_open = Some(Box::new(FastOpen::Active(active)));
    }

    /// A connection has learned something about its server.
    #[cold]
    pub(in crate::tcp) fn remember_fast_open(&mut self, now: Instant, index: u32) {
        let Some(connection) = self.connections.get_index_mut(index) else { return };
        let Some(FastOpen::Active(active)) = connection.fast_open.as_deref_mut() else { return };
        if let Some(lesson) = active.lesson.take() {
            self.fast_open_cache.learn(now, connection.path.remote, lesson);
        }
        if connection.state != State::SynSent {
            connection.fast_open = None;
        }
    }
}

impl Connection {
    /// Puts the SYN off until there is data for it, if there is a cookie to send it with. The program may go on as if
    /// it were connected.
    pub(in crate::tcp) fn defer_syn(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(FastOpen::Active(Active { phase: Phase::Deferred(..), .. })) = self.fast_open.as_deref()
        else {
            return false;
        };
        self.deadlines.retransmit = cx.now.plus_nanos(PATIENCE_NS);
        self.raise(Readiness::CONNECTED | Readiness::WRITABLE, cx.events);
        true
    }

    /// The option of a SYN or SYN-ACK.
    pub(in crate::tcp) fn fast_open_option(&self) -> Option<FastOpenCookie> {
        match self.fast_open.as_deref()? {
            FastOpen::Active(active) => match active.phase {
                Phase::Deferred(cookie, _) => (self.snd.unsent() > 0).then_some(cookie),
                Phase::Asking => Some(FastOpenCookie::REQUEST),
                Phase::Sent | Phase::Plain => None,
            },
            FastOpen::Passive(passive) => passive.grant,
        }
    }

    /// What waits for a SYN that was put off, or for the end of the handshake, goes now.
    pub(in crate::tcp) fn send_deferred_syn(&mut self, cx: &mut Context<'_>) {
        self.send_syn(cx);
        let has_data = self.snd.nxt != self.snd.iss + 1;
        if let Some(FastOpen::Active(active)) = self.fast_open.as_deref_mut() {
            active.phase = if has_data { Phase::Sent } else { Phase::Plain };
        }
        self.deadlines.retransmit = Instant::FAR_FUTURE;
        self.arm_retransmission(cx);
    }

    /// Sends a SYN with what the program pushed, as far as one segment takes it. False when it is to go alone.
    pub(in crate::tcp) fn send_syn_with_data(
        &mut self,
        fields: &HeaderFields<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(FastOpen::Active(Active { phase: Phase::Deferred(_, mss), .. })) = self.fast_open.as_deref()
        else {
            return false;
        };
        // What the server said when it gave the cookie (RFC 7413, section 4.1.3).
        let room = own_mss(&self.path, self.max_segment_bytes).min(*mss);
        let room = usize::from(room).saturating_sub(fields.options.len());
        let len = self.snd.queue.len_bytes().min(room);
        if len == 0 {
            return false;
        }
        let (payload, sent) = self.snd.queue.payload(0, len, cx.pieces);
        debug_assert!(!matches!(payload, Payload::Empty), "there is data");
        let (hop_limit, traffic_class) = (self.hop_limit, self.traffic_class);
        let envelope = Envelope { hop_limit, traffic_class, segment_bytes: None };
        if emit(cx.now, cx.network, &mut self.path, fields, payload, envelope).is_err() {
            // Lost like any other; the timer sends one without data.
            cx.pieces.clear();
        }
        cx.counters.out_segments += 1;
        self.last_sent = cx.now;
        // A segment's worth.
        #[allow(clippy::cast_possible_truncation)]
        let sent = sent as u32;
        self.snd.nxt = self.snd.iss + 1 + sent;
        self.snd.max = self.snd.nxt;
        true
    }

    /// The SYN was not answered in time: it goes again as any other does, without data and cookie (RFC 7413,
    /// section 4.2.1).
    pub(in crate::tcp) fn give_up_fast_open(&mut self, cx: &mut Context<'_>) -> Disposition {
        let Some(FastOpen::Active(active)) = self.fast_open.as_deref_mut() else { return Disposition::Keep };
        if cx.network.awaits_neighbor(&self.path) {
            // It has not left yet, and nothing was lost.
            return Disposition::Keep;
        }
        let phase = std::mem::replace(&mut active.phase, Phase::Plain);
        match phase {
            Phase::Sent => {
                cx.counters.fast_open_active_fails += 1;
                active.lesson = Some(Lesson::Lost);
                Disposition::FastOpenLearned
            }
            Phase::Deferred(..) | Phase::Asking | Phase::Plain => Disposition::Keep,
        }
    }

    /// A SYN-ACK, or a segment that poses as one, has the option.
    pub(in crate::tcp) fn note_fast_open_cookie(&mut self, segment: &Segment, bytes: &[u8]) {
        if let Some(FastOpen::Active(active)) = self.fast_open.as_deref_mut()
            && segment.acknowledgment.after(self.snd.iss)
            && segment.acknowledgment.at_or_before(self.snd.max)
        {
            active.granted = segment.fast_open_cookie(bytes).filter(|cookie| !cookie.is_request());
        }
    }

    /// The SYN-ACK came. What it does not acknowledge of the SYN's data goes again at once, as if it had never left
    /// (RFC 7413, section 4.2.1).
    pub(in crate::tcp) fn take_syn_ack(&mut self, acknowledgment: SequenceNumber) {
        let first = self.snd.iss + 1;
        self.snd.una = acknowledgment;
        self.snd.nxt = acknowledgment;
        self.snd.max = acknowledgment;
        if acknowledgment.after(first) {
            let bytes = acknowledgment.distance_from(first);
            self.snd.queue.acknowledge(bytes as usize);
            self.snd.front = acknowledgment;
        }
    }

    /// What the handshake taught, once it is over.
    pub(in crate::tcp) fn settle_fast_open(&mut self, cx: &mut Context<'_>) -> Disposition {
        let peer_mss = self.peer_mss;
        let took_data = self.snd.una != self.snd.iss + 1;
        let Some(FastOpen::Active(active)) = self.fast_open.as_deref_mut() else { return Disposition::Keep };
        let granted = active.granted.map(|cookie| Lesson::Granted(cookie, peer_mss));
        active.lesson = match active.phase {
            Phase::Asking => granted.or(Some(Lesson::Refused)),
            Phase::Sent => {
                let counters = &mut *cx.counters;
                let counter = if took_data {
                    &mut counters.fast_open_active
                } else {
                    &mut counters.fast_open_active_fails
                };
                *counter += 1;
                granted
            }
            // An answer to the SYN that was given up brings a cookie all the same.
            Phase::Deferred(..) | Phase::Plain => granted,
        };
        if active.lesson.is_some() {
            return Disposition::FastOpenLearned;
        }
        self.fast_open = None;
        Disposition::Keep
    }
}
