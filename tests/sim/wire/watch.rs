//! An observer on the wire that holds our side to the rules: checksums, windows, order.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use libos::Instant;
use libos::runtime::RxChecksum;
use runtime_sim::{PortId, Sighting, Stage};
use smoltcp::wire::TcpSeqNumber;

use super::arrivals::Arrivals;
use super::{Content, Flow, Segment, parse};

/// A TCP segment on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub time: Instant,
    pub stage: Stage,
    pub segment: Segment,
}

/// One direction of a connection, as its sender and the wire know it.
#[derive(Debug, Clone, Copy)]
struct Direction {
    initial_sequence: TcpSeqNumber,
    /// Behind the last byte that was ever sent.
    sent_to: TcpSeqNumber,
    /// The largest segment that the sender takes.
    max_segment: Option<u16>,
    /// The sender has sent something besides SYNs: it knows its peer.
    is_established: bool,
    /// The sender has heard of its peer since it sent data.
    is_answered: bool,
    /// What the sender offered in its SYN.
    window_scale: Option<u8>,
    /// The window in its SYN, which is never scaled.
    syn_window: u16,
    /// Behind the last byte that the peer's segments which reached the sender ever allowed.
    allowed_to: Option<TcpSeqNumber>,
    /// The highest acknowledgement in the sender's segments, of the other direction.
    acknowledged_to: Option<TcpSeqNumber>,
    /// Behind the last byte that the sender allowed the peer to send.
    advertised_to: Option<TcpSeqNumber>,
    /// True once the sender has sent a FIN, or sent or been given a reset, after which a SYN begins another connection, even one
    /// with the same number: the clock that initial sequence numbers follow need not have moved on.
    is_over: bool,
    /// True when an old duplicate of the sender's SYN made its peer begin another connection, of which the
    /// sender knows nothing.
    is_stale: bool,
}

/// One of our hosts.
#[derive(Debug, Clone, Copy)]
pub struct Ours {
    pub address: IpAddr,
    /// True when what was composed is on the wire at once.
    pub sends_at_once: bool,
}

/// Watches the segments of a fabric and keeps the first violation by one of our hosts.
#[derive(Debug)]
pub struct Watch {
    ours: BTreeMap<PortId, Ours>,
    directions: HashMap<Flow, Direction>,
    /// What reached our hosts, by the flow of the data.
    arrivals: HashMap<Flow, Arrivals>,
    violation: Option<String>,
    /// What would be a violation by this host if it had thrown nothing away.
    doubt: Option<(PortId, String)>,
    /// Acknowledgements have to come in time: nothing on the way fails.
    is_prompt: bool,
    /// All TCP segments, when a test wants to look at them.
    log: Option<Vec<Seen>>,
}

impl Watch {
    pub fn new(ours: BTreeMap<PortId, Ours>) -> Self {
        Self {
            ours,
            directions: HashMap::new(),
            arrivals: HashMap::new(),
            violation: None,
            doubt: None,
            is_prompt: false,
            log: None,
        }
    }

    /// From now on our hosts have to acknowledge in time.
    pub fn expect_prompt_acknowledgements(&mut self) {
        self.is_prompt = true;
    }

    /// What would be a violation if the host had thrown nothing away.
    pub fn take_doubt(&mut self) -> Option<(PortId, String)> {
        self.doubt.take()
    }

    /// Looks for acknowledgements that did not come in time.
    pub fn look_at_clock(&mut self, now: Instant) {
        if !self.is_prompt || self.doubt.is_some() {
            return;
        }
        let late = self.arrivals.iter().find(|(_, arrivals)| arrivals.due_at().is_some_and(|due| due < now));
        if let Some((flow, arrivals)) = late
            && let Some((&port, _)) = self.ours.iter().find(|(_, ours)| ours.address == flow.to.ip())
        {
            self.doubt =
                Some((port, format!("acknowledged nothing in time, {flow:?} at {now:?}: {arrivals:#?}")));
        }
    }

    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub fn keep_log(&mut self) {
        self.log = Some(Vec::new());
    }

    /// The segments that left `port`.
    pub fn sent_from(&self, port: PortId) -> impl Iterator<Item = &Seen> {
        self.log.iter().flatten().filter(move |seen| seen.stage == Stage::Sent(port))
    }

    pub fn see(&mut self, sighting: &Sighting<'_>) {
        let parsed = parse(sighting.medium, sighting.bytes);
        let holds = parsed.network_checksum_holds
            && (parsed.transport_checksum_holds || sighting.checksum == RxChecksum::Verified);
        if let (Some(log), Content::Tcp(segment)) = (&mut self.log, parsed.content) {
            log.push(Seen { time: sighting.time, stage: sighting.stage, segment });
        }
        match sighting.stage {
            Stage::Sent(port) => {
                let is_ours = self.ours.contains_key(&port);
                if is_ours && !holds {
                    self.violate(sighting, "sent with a wrong checksum");
                }
                if is_ours && parsed.content == Content::Malformed {
                    self.violate(sighting, "sent malformed");
                }
                if let Content::Tcp(segment) = parsed.content {
                    if let Err(rule) = self.sent(&segment, is_ours) {
                        self.violate(sighting, rule);
                    }
                    if is_ours && let Err(rule) = self.answered(&segment, port, sighting.time) {
                        self.violate(sighting, rule);
                    }
                }
            }
            Stage::Delivered(port) => {
                if let Content::Tcp(segment) = parsed.content
                    && holds
                {
                    if self.ours.get(&port).is_some_and(|ours| ours.address == segment.flow.to.ip()) {
                        self.arrived(&segment, sighting.time);
                    }
                    self.delivered(&segment);
                }
            }
            Stage::Lost(port, runtime_sim::Loss::BadOffload | runtime_sim::Loss::TooLong) => {
                if self.ours.contains_key(&port) {
                    self.violate(sighting, "sent what the device cannot send");
                }
            }
            Stage::Lost(..) => {}
        }
    }

    fn violate(&mut self, sighting: &Sighting<'_>, rule: &str) {
        let content = parse(sighting.medium, sighting.bytes).content;
        let directions = match content {
            Content::Tcp(Segment { flow, .. }) => {
                [flow, flow.reversed()].map(|flow| self.directions.get(&flow).copied())
            }
            Content::Datagram | Content::Other | Content::Malformed => [None, None],
        };
        self.violation.get_or_insert_with(|| {
            format!("{rule} at {:?}, {:?}: {content:?}\n{directions:#?}", sighting.time, sighting.stage)
        });
    }

    fn sent(&mut self, segment: &Segment, is_ours: bool) -> Result<(), &'static str> {
        if segment.rst {
            if let Some(direction) = self.directions.get_mut(&segment.flow) {
                direction.is_over = true;
            }
            return Ok(());
        }
        let sequence = segment.sequence;
        let reverse = self.directions.get(&segment.flow.reversed()).copied();
        let known = self.directions.get(&segment.flow);
        let is_new = known.is_none_or(|known| known.initial_sequence != sequence || known.is_over);
        if segment.syn && is_new {
            if let Some(peer) = self.directions.get_mut(&segment.flow.reversed()) {
                peer.is_stale = peer.acknowledged_to.is_some();
            }
            self.arrivals
                .entry(segment.flow)
                .and_modify(|arrivals| arrivals.restart(sequence))
                .or_insert_with(|| Arrivals::new(sequence));
            self.directions.insert(
                segment.flow,
                Direction {
                    initial_sequence: sequence,
                    sent_to: sequence + 1,
                    max_segment: segment.max_segment,
                    is_established: false,
                    is_answered: false,
                    window_scale: segment.window_scale,
                    syn_window: segment.window,
                    // Who answers a SYN has its window, which data may use at once (RFC 7413, section 4.2.2).
                    allowed_to: reverse
                        .filter(|_| segment.acknowledgement.is_some())
                        .map(|reverse| sequence + 1 + usize::from(reverse.syn_window)),
                    acknowledged_to: None,
                    advertised_to: None,
                    is_over: false,
                    is_stale: false,
                },
            );
        }
        let Some(direction) = self.directions.get_mut(&segment.flow) else {
            return if is_ours { Err("sent on a connection without a SYN") } else { Ok(()) };
        };
        let payload_end = sequence + usize::from(segment.syn) + segment.payload_bytes;
        let before = *direction;
        let is_ours = is_ours && !direction.is_stale;
        direction.is_over |= segment.fin;
        direction.is_established |= !segment.syn;
        direction.sent_to = later(direction.sent_to, payload_end + usize::from(segment.fin));
        let scale = match (direction.window_scale, reverse.and_then(|reverse| reverse.window_scale)) {
            (Some(own), Some(_)) if !segment.syn => own,
            _ => 0,
        };
        if let Some(acknowledgement) = segment.acknowledgement {
            let edge = acknowledgement + (usize::from(segment.window) << scale);
            direction.acknowledged_to =
                Some(later(before.acknowledged_to.unwrap_or(acknowledgement), acknowledgement));
            direction.advertised_to = Some(later(before.advertised_to.unwrap_or(edge), edge));
            if is_ours {
                if before.acknowledged_to.is_some_and(|last| acknowledgement < last) {
                    return Err("acknowledged less than before");
                }
                if reverse.is_some_and(|reverse| acknowledgement > reverse.sent_to) {
                    return Err("acknowledged what was never sent");
                }
                // Scaling may round the edge down by less than one unit, and a SYN that goes again cannot say more than its
                // field holds.
                let says_all = !segment.syn || segment.window < u16::MAX;
                if says_all && before.advertised_to.is_some_and(|last| edge + (1_usize << scale) <= last) {
                    return Err("shrank its window");
                }
            }
        }
        // Data on a SYN goes before there is a window to go by (RFC 7413, section 4.2.1).
        let opens_fast = segment.syn && segment.acknowledgement.is_none();
        if is_ours && segment.payload_bytes > 0 && !opens_fast {
            let Some(allowed_to) = before.allowed_to else { return Err("sent before a window was known") };
            let is_probe = segment.payload_bytes == 1 && sequence <= allowed_to;
            if payload_end > allowed_to && !is_probe {
                return Err("sent beyond the peer's window");
            }
            let initial_bytes = initial_window_bytes(segment.flow, reverse.and_then(|peer| peer.max_segment));
            if !before.is_answered && payload_end > before.initial_sequence + 1 + initial_bytes {
                return Err("sent more than an initial window unanswered");
            }
        }
        Ok(())
    }

    /// What one of our hosts says of what reached it.
    fn answered(&mut self, segment: &Segment, port: PortId, now: Instant) -> Result<(), &'static str> {
        let Some(arrivals) = self.arrivals.get_mut(&segment.flow.reversed()) else { return Ok(()) };
        if segment.rst || segment.acknowledgement.is_some() {
            arrivals.acknowledged();
        }
        let is_stale = self.directions.get(&segment.flow).is_none_or(|direction| direction.is_stale);
        if segment.rst || is_stale {
            return Ok(());
        }
        if segment.syn {
            // Perhaps of a connection that an old copy of a SYN began after what arrived for the one before.
            arrivals.forget();
        }
        let sends_at_once = self.ours.get(&port).is_some_and(|ours| ours.sends_at_once);
        if sends_at_once && arrivals.leaves_out(segment, now) {
            let doubt = format!("left out what had arrived at {now:?}: {segment:?} {arrivals:#?}");
            self.doubt.get_or_insert((port, doubt));
        }
        arrivals.broken_by(segment).map_or(Ok(()), Err)
    }

    /// A segment reached one of our hosts.
    fn arrived(&mut self, segment: &Segment, now: Instant) {
        let Some(arrivals) = self.arrivals.get_mut(&segment.flow) else { return };
        match self.directions.get(&segment.flow.reversed()) {
            Some(host) if segment.rst || host.is_over => arrivals.acknowledged(),
            Some(Direction {
                is_established: true,
                acknowledged_to: Some(to),
                advertised_to: Some(edge),
                ..
            }) => arrivals.expect(segment, *to, *edge, now),
            Some(_) | None => {}
        }
        arrivals.note(segment);
    }

    /// What a segment that reaches its receiver allows it to send.
    fn delivered(&mut self, segment: &Segment) {
        if segment.rst
            && let Some(receiver) = self.directions.get_mut(&segment.flow.reversed())
        {
            receiver.is_over = true;
        }
        let Some(acknowledgement) = segment.acknowledgement.filter(|_| !segment.rst) else { return };
        let scale = self.directions.get(&segment.flow).and_then(|direction| direction.window_scale);
        let Some(receiver) = self.directions.get_mut(&segment.flow.reversed()) else { return };
        // Something left over from an earlier connection of the same ports says nothing here.
        if acknowledgement > receiver.sent_to || acknowledgement <= receiver.initial_sequence {
            return;
        }
        let scale = match (scale, receiver.window_scale) {
            (Some(scale), Some(_)) if !segment.syn => scale,
            _ => 0,
        };
        receiver.is_answered |= !segment.syn && receiver.sent_to > receiver.initial_sequence + 1;
        let edge = acknowledgement + (usize::from(segment.window) << scale);
        receiver.allowed_to = Some(later(receiver.allowed_to.unwrap_or(edge), edge));
    }
}

/// The most that is sent before anything is acknowledged (RFC 6928, section 2, and two segments that duplicate acknowledgements
/// or a probe of the tail let out: RFC 3042, RFC 8985), to a peer that takes segments of so many bytes; one that does not say
/// takes those of RFC 9293, section 3.7.1.
fn initial_window_bytes(flow: Flow, max_segment: Option<u16>) -> usize {
    let default = if flow.to.is_ipv6() { 1220 } else { 536 };
    let bytes = max_segment.map_or(default, usize::from);
    (10 * bytes).min((2 * bytes).max(14_600)) + 2 * bytes
}

fn later(one: TcpSeqNumber, other: TcpSeqNumber) -> TcpSeqNumber {
    if one < other { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who sends a segment, and whether it then reaches the other.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Step {
        Us,
        UsLost,
        Peer,
        PeerLost,
    }

    /// Who sends, sequence number, acknowledgement, window field and payload.
    type Sent = (Step, i32, i32, u16, usize);

    fn segment(
        step: Step,
        sequence: i32,
        acknowledgement: i32,
        window: u16,
        payload_bytes: usize,
    ) -> Segment {
        let [us, peer] = ["10.0.0.1:1000", "10.0.0.2:2000"].map(|address| address.parse().unwrap());
        let flow = Flow { from: us, to: peer };
        Segment {
            flow: if matches!(step, Step::Us | Step::UsLost) { flow } else { flow.reversed() },
            sequence: TcpSeqNumber(sequence),
            acknowledgement: Some(TcpSeqNumber(acknowledgement)),
            window,
            window_scale: None,
            max_segment: None,
            stamps: None,
            blocks: [None; 3],
            syn: false,
            fin: false,
            rst: false,
            payload_bytes,
        }
    }

    /// A handshake with our window scaled by 2 and the peer's by 1, windows of 1000 bytes; then `steps` as
    /// (who, sequence, acknowledgement, window field, payload), from 100 on for us and 500 for the peer.
    fn verdict(steps: &[Sent]) -> Result<(), &'static str> {
        let mut watch = Watch::new(BTreeMap::new());
        let syn = |step, sequence, acknowledgement, scale| Segment {
            syn: true,
            window_scale: Some(scale),
            ..segment(step, sequence, acknowledgement, 1000, 0)
        };
        watch.sent(&Segment { acknowledgement: None, ..syn(Step::Us, 99, 0, 2) }, true)?;
        let answer = syn(Step::Peer, 499, 100, 1);
        watch.sent(&answer, false)?;
        watch.delivered(&answer);
        for &(step, sequence, acknowledgement, window, payload_bytes) in steps {
            let segment = segment(step, sequence, acknowledgement, window, payload_bytes);
            watch.sent(&segment, matches!(step, Step::Us | Step::UsLost))?;
            if matches!(step, Step::Us | Step::Peer) {
                watch.delivered(&segment);
            }
        }
        Ok(())
    }

    #[test]
    fn each_rule_is_held_up_and_nothing_else_is() {
        use Step::{Peer, PeerLost, Us, UsLost};
        let cases: [(&str, Result<(), &str>, &[Sent]); 11] = [
            ("within the window", Ok(()), &[(Us, 100, 500, 250, 1000), (UsLost, 100, 500, 250, 1000)]),
            ("beyond the window", Err("sent beyond the peer's window"), &[(Us, 100, 500, 250, 1002)]),
            (
                "a probe",
                Ok(()),
                &[(Us, 100, 500, 250, 1000), (Peer, 500, 1100, 0, 0), (Us, 1100, 500, 250, 1)],
            ),
            (
                "a large probe",
                Err("sent beyond the peer's window"),
                &[(Us, 100, 500, 250, 1000), (Peer, 500, 1100, 0, 0), (Us, 1100, 500, 250, 2)],
            ),
            ("a scaled window", Ok(()), &[(Peer, 500, 100, 1000, 0), (Us, 100, 500, 250, 2000)]),
            (
                "a window that never came",
                Err("sent beyond the peer's window"),
                &[(PeerLost, 500, 100, 1000, 0), (Us, 100, 500, 250, 2000)],
            ),
            (
                "a window the peer took back",
                Ok(()),
                &[(Peer, 500, 100, 1000, 0), (Peer, 500, 100, 100, 0), (Us, 100, 500, 250, 2000)],
            ),
            (
                "too far back",
                Err("acknowledged less than before"),
                &[(Peer, 500, 100, 9, 10), (Us, 100, 510, 250, 0), (Us, 100, 505, 250, 0)],
            ),
            (
                "too far",
                Err("acknowledged what was never sent"),
                &[(Peer, 500, 100, 9, 10), (Us, 100, 511, 250, 0)],
            ),
            ("less room", Err("shrank its window"), &[(Us, 100, 500, 250, 0), (Us, 100, 500, 249, 0)]),
            ("rounding", Ok(()), &[(Us, 100, 500, 250, 0), (Peer, 500, 100, 9, 3), (Us, 100, 503, 249, 0)]),
        ];
        for (name, expected, steps) in cases {
            assert_eq!(verdict(steps), expected, "{name}");
        }
    }
}
