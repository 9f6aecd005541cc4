//! The client's states (RFC 2131 section 4.4, figure 5), without I/O.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libos::Instant;
use libos::time::duration_nanos;

use super::lease::Lease;
use crate::network::asking::Asking;
use crate::random::Random;
use crate::wire::dhcp::{ClientMessage, MessageType, ServerMessage};
use crate::wire::ethernet;

/// Hosts that were switched on together do not ask together: up to so long until the first message. The ten
/// seconds of RFC 2131 section 4.4.1 are of a time of larger networks without switches.
const INITIAL_DELAY: Duration = Duration::from_secs(1);
/// Time to the first repetition, which doubles with each further one (RFC 2131 section 4.1).
const FIRST_INTERVAL: Duration = Duration::from_secs(4);
const LONGEST_INTERVAL: Duration = Duration::from_secs(64);
/// Each interval is so much longer or shorter.
const SPREAD: Duration = Duration::from_secs(1);
/// A lease is renewed so much of its first part early at most, so that hosts whose leases began together do not ask
/// together (RFC 2131 section 4.4.5).
const RENEWAL_SPREAD: u64 = 16;
/// Requests for an offer before another is looked for.
const MAX_REQUESTS: u8 = 4;
/// Least time between requests to prolong a lease (RFC 2131 section 4.4.5).
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// Time until another address is looked for after one was found in use (RFC 2131 section 3.1 (5)).
const DECLINE_DELAY: Duration = Duration::from_secs(10);
/// That, once it has happened so often (RFC 5227 section 2.1.1).
const MAX_CONFLICTS: u8 = 10;
const CONFLICTS_DELAY: Duration = Duration::from_secs(60);
/// Time until another address is looked for after a server refused; doubles while servers do.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);

libos::counters! {
    /// What the client has done and seen.
    pub struct DhcpCounters {
        /// Messages sent.
        messages_out,
        /// Servers' messages that were for this client and made sense in its state.
        messages_in,
        /// Messages to our port that were malformed, for others, or out of place.
        messages_ignored,
        /// Leases begun.
        leases,
        /// Leases prolonged.
        renewals,
        /// Refusals of servers.
        refusals,
        /// Addresses given back because somebody else has them.
        declines,
        /// Leases that ended though the address was still wanted.
        expirations,
    }
}

/// What a bound client does about its lease's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prolonging {
    /// Nothing yet.
    NotYet,
    /// It asks the server that granted the lease.
    Renewing,
    /// It asks any server.
    Rebinding,
}

#[derive(Debug)]
enum State {
    /// It waits before it looks for servers.
    Init,
    /// It looks for servers.
    Selecting { sent: u8 },
    /// It asked for what a server offered.
    Requesting { offer: Box<Lease>, sent: u8 },
    /// It has a lease.
    Bound { lease: Box<Lease>, prolonging: Prolonging },
}

/// To whom a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Broadcast,
    Server(Ipv4Addr),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Send(ClientMessage, Destination),
    /// The lease has begun.
    Begin(Box<Lease>),
    /// The lease goes on, perhaps with other routers.
    Prolong(Box<Lease>),
    /// The lease is over.
    End(Ipv4Addr),
}

/// The client of one interface.
#[derive(Debug)]
pub(in crate::network) struct DhcpClient {
    state: State,
    asking: Asking,
    /// What another core was granted while this one had another address, which ends first.
    heard: Option<Box<Lease>>,
    hardware: ethernet::Address,
    max_bytes: u16,
    transaction: u32,
    /// When it began to look for an address.
    started_at: Instant,
    /// What the last message that looked for servers said of the time since then.
    looked_for_s: u16,
    /// When there is next something to be done.
    due: Instant,
    conflicts: u8,
    refusals: u32,
    random: Random,
    pub(super) counters: DhcpCounters,
}

impl DhcpClient {
    pub(in crate::network) fn new(
        hardware: ethernet::Address,
        mtu: usize,
        asking: Asking,
        mut random: Random,
        now: Instant,
    ) -> Self {
        let delay_ns = random.range(0, duration_nanos(INITIAL_DELAY));
        Self {
            state: State::Init,
            asking,
            heard: None,
            hardware,
            max_bytes: u16::try_from(mtu).unwrap_or(u16::MAX),
            transaction: random.next_u32(),
            started_at: now,
            looked_for_s: 0,
            due: now.plus_nanos(delay_ns) + asking.patience(),
            conflicts: 0,
            refusals: 0,
            random,
            counters: DhcpCounters::default(),
        }
    }

    /// The lease, if there is one.
    pub(super) fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound { lease, .. } => Some(lease),
            State::Init | State::Selecting { .. } | State::Requesting { .. } => None,
        }
    }

    /// When [`Self::next_action`] next has something; [`Instant::FAR_FUTURE`] for never.
    pub(in crate::network) fn next_deadline(&self) -> Instant {
        self.due
    }

    fn message(&self, now: Instant, kind: MessageType) -> ClientMessage {
        let seconds = now.nanos_since(self.started_at) / 1_000_000_000;
        ClientMessage {
            kind,
            transaction: self.transaction,
            seconds: u16::try_from(seconds).unwrap_or(u16::MAX),
            hardware: self.hardware,
            client: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server: None,
            max_bytes: self.max_bytes,
        }
    }

    fn start_again(&mut self, at: Instant) {
        self.state = State::Init;
        self.started_at = at;
        self.due = at + self.asking.patience();
    }

    /// RFC 2131 section 4.1: doubling, a second more or less.
    fn interval(&mut self, sent: u8) -> Duration {
        let doubled = FIRST_INTERVAL.saturating_mul(1 << u32::from(sent.saturating_sub(1)).min(8));
        let mean_ns = duration_nanos(doubled.min(LONGEST_INTERVAL));
        let spread_ns = duration_nanos(SPREAD);
        Duration::from_nanos(self.random.range(mean_ns - spread_ns, mean_ns + spread_ns))
    }

    /// What is to be done now. Call until `None`.
    pub(super) fn next_action(&mut self, now: Instant) -> Option<Action> {
        if now < self.due {
            return None;
        }
        match &mut self.state {
            State::Init => match self.heard.take() {
                Some(lease) => Some(self.begin(now, *lease)),
                None => {
                    self.transaction = self.random.next_u32();
                    self.discover(now, 1)
                }
            },
            State::Selecting { sent } => {
                let sent = sent.saturating_add(1);
                self.discover(now, sent)
            }
            State::Requesting { sent, .. } if *sent >= MAX_REQUESTS => {
                self.start_again(now);
                None
            }
            State::Requesting { offer, sent } => {
                *sent += 1;
                let (sent, offer) = (*sent, offer.clone());
                self.due = now + self.interval(sent);
                Some(self.request(now, &offer))
            }
            State::Bound { lease, .. } if lease.expires_at <= now => {
                let address = own(lease);
                self.counters.expirations += 1;
                self.start_again(now);
                Some(Action::End(address))
            }
            State::Bound { .. } => self.prolong(now),
        }
    }

    fn discover(&mut self, now: Instant, sent: u8) -> Option<Action> {
        self.state = State::Selecting { sent };
        self.due = now + self.interval(sent);
        let message = self.message(now, MessageType::Discover);
        self.looked_for_s = message.seconds;
        Some(Action::Send(message, Destination::Broadcast))
    }

    fn request(&self, now: Instant, offer: &Lease) -> Action {
        let message = ClientMessage {
            requested: Some(own(offer)),
            server: Some(offer.server),
            // RFC 2131 section 3.1 (3): so that relays take it to the same servers.
            seconds: self.looked_for_s,
            ..self.message(now, MessageType::Request)
        };
        Action::Send(message, Destination::Broadcast)
    }

    /// RFC 2131 section 4.4.5: asks again after half of the time that is left, but not within a minute.
    fn prolong(&mut self, now: Instant) -> Option<Action> {
        let State::Bound { lease, prolonging } = &mut self.state else { return None };
        let before = *prolonging;
        let (next, until, destination) = if now >= lease.rebind_at {
            (Prolonging::Rebinding, lease.expires_at, Destination::Broadcast)
        } else {
            (Prolonging::Renewing, lease.rebind_at, Destination::Server(lease.server))
        };
        *prolonging = next;
        let (client, expires_at) = (own(lease), lease.expires_at);
        let half_ns = until.nanos_since(now) / 2;
        let wait = Duration::from_nanos(half_ns).max(RENEWAL_INTERVAL);
        self.due = (now + wait).min(until).min(expires_at);
        if before == Prolonging::NotYet {
            self.transaction = self.random.next_u32();
            self.started_at = now;
        }
        // RFC 2131 section 4.3.2: the address in its own field, and no server, tell what is asked for.
        let message = ClientMessage { client, ..self.message(now, MessageType::Request) };
        Some(Action::Send(message, destination))
    }

    /// Takes a message that came to the client's port.
    pub(super) fn on_message(&mut self, now: Instant, message: &ServerMessage) -> Option<Action> {
        let for_us = message.transaction == self.transaction && message.hardware == self.hardware;
        if !for_us && self.asking == Asking::Later && message.hardware == self.hardware {
            return self.overhear(now, message);
        }
        let granted = Lease::granted(now, message);
        let action = match (&mut self.state, message.kind) {
            _ if !for_us => None,
            // The first offer is taken.
            (State::Selecting { .. }, MessageType::Offer) => granted.map(|offer| {
                self.state = State::Requesting { offer: Box::new(offer.clone()), sent: 1 };
                self.due = now + self.interval(1);
                self.request(now, &offer)
            }),
            (State::Requesting { offer, .. }, MessageType::Ack) => {
                let agreed = |lease: &Lease| lease.server == offer.server && own(lease) == own(offer);
                granted.filter(agreed).map(|lease| self.begin(now, lease))
            }
            (State::Requesting { offer, .. }, MessageType::Nak) if message.server == Some(offer.server) => {
                self.counters.messages_in += 1;
                self.refused(now);
                return None;
            }
            (State::Bound { lease, prolonging }, MessageType::Ack) if *prolonging != Prolonging::NotYet => {
                // RFC 2131 section 4.4.5: while renewing only the server that is asked may answer.
                let may = *prolonging == Prolonging::Rebinding || message.server == Some(lease.server);
                let same = |new: &Lease| may && own(new) == own(lease);
                granted.filter(same).map(|lease| {
                    self.counters.renewals += 1;
                    // It has been ours for that long.
                    self.conflicts = 0;
                    Action::Prolong(self.bind(now, lease))
                })
            }
            (State::Bound { lease, prolonging }, MessageType::Nak) if *prolonging != Prolonging::NotYet => {
                let may = *prolonging == Prolonging::Rebinding || message.server == Some(lease.server);
                let address = own(lease);
                may.then(|| {
                    self.refused(now);
                    Action::End(address)
                })
            }
            (
                State::Init | State::Selecting { .. } | State::Requesting { .. } | State::Bound { .. },
                MessageType::Discover
                | MessageType::Offer
                | MessageType::Request
                | MessageType::Decline
                | MessageType::Ack
                | MessageType::Nak
                | MessageType::Release,
            ) => None,
        };
        match action {
            Some(_) => self.counters.messages_in += 1,
            None => self.counters.messages_ignored += 1,
        }
        action
    }

    /// Takes the answer to what another core asked in this host's name, whose transaction is not known here. Whoever would make
    /// one up is on the link, where questions and their transactions are broadcast as well.
    fn overhear(&mut self, now: Instant, message: &ServerMessage) -> Option<Action> {
        let bound = self.lease().map(own);
        let action = match (message.kind, Lease::granted(now, message), bound) {
            (MessageType::Ack, Some(lease), Some(address)) if own(&lease) == address => {
                self.counters.renewals += 1;
                Some(Action::Prolong(self.bind(now, lease)))
            }
            (MessageType::Ack, Some(lease), Some(address)) => {
                self.start_again(now);
                self.heard = Some(Box::new(lease));
                self.due = now;
                Some(Action::End(address))
            }
            (MessageType::Ack, Some(lease), None) => Some(self.begin(now, lease)),
            (MessageType::Nak, _, Some(address)) => {
                self.refused(now);
                Some(Action::End(address))
            }
            (MessageType::Ack, None, _)
            | (MessageType::Nak, _, None)
            | (
                MessageType::Discover
                | MessageType::Offer
                | MessageType::Request
                | MessageType::Decline
                | MessageType::Release,
                ..,
            ) => None,
        };
        match action {
            Some(_) => self.counters.messages_in += 1,
            None => self.counters.messages_ignored += 1,
        }
        action
    }

    fn begin(&mut self, now: Instant, lease: Lease) -> Action {
        self.counters.leases += 1;
        Action::Begin(self.bind(now, lease))
    }

    fn bind(&mut self, now: Instant, lease: Lease) -> Box<Lease> {
        self.refusals = 0;
        let ask_at = match self.asking {
            Asking::First if lease.renew_at == Instant::FAR_FUTURE => lease.renew_at,
            Asking::First => {
                let after_ns = lease.renew_at.nanos_since(now);
                now.plus_nanos(self.random.range(after_ns - after_ns / RENEWAL_SPREAD, after_ns))
            }
            // By then the other core would have been heard to renew it.
            Asking::Later => lease.rebind_at,
        };
        self.due = ask_at.min(lease.expires_at);
        let lease = Box::new(lease);
        self.state = State::Bound { lease: lease.clone(), prolonging: Prolonging::NotYet };
        lease
    }

    /// A server refused. One that offers and refuses in turn is not asked without end at the speed of the link.
    fn refused(&mut self, now: Instant) {
        self.counters.refusals += 1;
        let wait = REFUSAL_DELAY.saturating_mul(1 << self.refusals.min(6));
        self.refusals = self.refusals.saturating_add(1);
        self.start_again(now + wait);
    }

    /// The address is somebody else's: the server is told, and another looked for (RFC 2131 section 3.1 (5)).
    pub(super) fn decline(&mut self, now: Instant) -> Option<Action> {
        let lease = self.lease()?;
        let message = ClientMessage {
            requested: Some(own(lease)),
            server: Some(lease.server),
            seconds: 0,
            ..self.message(now, MessageType::Decline)
        };
        self.counters.declines += 1;
        self.conflicts = self.conflicts.saturating_add(1);
        let wait = if self.conflicts >= MAX_CONFLICTS { CONFLICTS_DELAY } else { DECLINE_DELAY };
        self.start_again(now + wait);
        Some(Action::Send(message, Destination::Broadcast))
    }

    /// The address is not wanted any more: the server is told, and nothing else done (RFC 2131 section 4.4.6). Of several
    /// cores the one that asked tells it, and the others give up their part.
    pub(super) fn release(&mut self, now: Instant) -> Option<(Option<Action>, Ipv4Addr)> {
        let lease = self.lease()?;
        let (client, server) = (own(lease), lease.server);
        let message = ClientMessage {
            client,
            server: Some(server),
            seconds: 0,
            ..self.message(now, MessageType::Release)
        };
        self.start_again(now);
        self.due = Instant::FAR_FUTURE;
        let tell = Action::Send(message, Destination::Server(server));
        Some(((self.asking == Asking::First).then_some(tell), client))
    }
}

fn own(lease: &Lease) -> Ipv4Addr {
    match lease.address.address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}
