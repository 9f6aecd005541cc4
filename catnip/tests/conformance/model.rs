//! What RFC 9293, section 3.10.7.4 (with RFC 5961 and RFC 7323) makes of one segment in ESTABLISHED, written down a second
//! time and as plainly as can be, and the stack beside it on random segments near the window.

use std::collections::BTreeSet;
use std::fmt;

use libos::SocketOption;

use crate::host::{PEER_PORT, PORT, Peer};
use crate::wire::{ACK, FAMILIES, FIN, Family, PSH, RST, SYN, Tcp, URG};

/// The option's kind.
const SACK: u8 = 5;

/// Numbers that follow from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit)) as u32
    }

    fn one_in(&mut self, chances: u32) -> bool {
        self.below(chances) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }
}

/// `a` is before `b` on the circle of sequence numbers.
fn before(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) > 0
}

/// What a segment has to be answered with at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// An acknowledgment of what is expected next.
    Acknowledgment,
    /// No segment without data.
    Silence,
    /// Either is allowed: an acknowledgment may be delayed.
    Either,
}

/// The receiving and the acknowledged half of a connection, in numbers relative to the initial ones.
struct Model {
    rcv_nxt: u32,
    /// The right edge of the window that the stack has told.
    rcv_edge: u32,
    /// Bytes behind RCV.NXT that came.
    ahead: BTreeSet<u32>,
    fin_at: Option<u32>,
    snd_una: u32,
    snd_max: u32,
    snd_wnd: u32,
    max_wnd: u32,
    wl1: u32,
    wl2: u32,
    ts_recent: u32,
    last_ack_sent: u32,
    is_reset: bool,
    /// Where the text of the last segment began, if its text was looked at.
    text_at: Option<u32>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rcv_nxt, rcv_edge, snd_una, snd_max, snd_wnd, max_wnd, wl1, wl2, ts_recent, .. } = self;
        write!(f, "window {rcv_nxt}..{rcv_edge}, ahead {:?}, ", self.ranges_ahead())?;
        write!(f, "unacknowledged {snd_una}..{snd_max}, peer's window {snd_wnd} of {max_wnd} ")?;
        write!(f, "by {wl1} and {wl2}, timestamp {ts_recent}, acknowledged {}", self.last_ack_sent)
    }
}

impl Model {
    /// Bytes that came ahead of a gap, as ranges.
    fn ranges_ahead(&self) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in self.ahead.iter().copied() {
            match ranges.last_mut() {
                Some((_, end)) if *end == number => *end += 1,
                Some(_) | None => ranges.push((number, number + 1)),
            }
        }
        ranges
    }

    fn window(&self) -> u32 {
        self.rcv_edge.wrapping_sub(self.rcv_nxt)
    }

    fn in_window(&self, number: u32) -> bool {
        number.wrapping_sub(self.rcv_nxt) < self.window()
    }

    fn is_acceptable(&self, seq: u32, len: u32) -> bool {
        match (len, self.window()) {
            (0, 0) => seq == self.rcv_nxt,
            (0, _) => self.in_window(seq),
            (_, 0) => false,
            (_, _) => (0..len).any(|offset| self.in_window(seq.wrapping_add(offset))),
        }
    }

    /// Takes one segment, whose numbers are relative.
    fn take(&mut self, segment: &Tcp, timestamp: Option<u32>) -> Answer {
        let has = |flag| segment.flags & flag != 0;
        self.text_at = None;
        let seq = segment.seq;
        let text = segment.payload.len() as u32;
        let len = text + u32::from(has(SYN)) + u32::from(has(FIN));
        if !has(RST) && timestamp.is_some_and(|value| before(value, self.ts_recent)) {
            return Answer::Acknowledgment;
        }
        // A reset's text is none; a FIN alone needs no room (a deviation that COMPLIANCE.md names).
        let is_bare_fin = segment.flags & (FIN | SYN) == FIN && text == 0 && seq == self.rcv_nxt;
        let len = if has(RST) || (is_bare_fin && self.window() == 0) { 0 } else { len };
        if !self.is_acceptable(seq, len) {
            if has(RST) {
                return Answer::Silence;
            }
            // Probes of a closed window, and the edge of a window that is full, acknowledge all the same.
            let beside = [self.rcv_nxt, self.rcv_nxt.wrapping_add(1), self.rcv_nxt.wrapping_sub(1)];
            let counts = beside.contains(&seq) || (len == 0 && seq == self.rcv_edge);
            if counts && has(ACK) && !has(SYN) {
                self.acknowledge(segment);
            }
            return Answer::Acknowledgment;
        }
        if has(RST) {
            self.is_reset = seq == self.rcv_nxt;
            return if self.is_reset { Answer::Silence } else { Answer::Acknowledgment };
        }
        if has(SYN) {
            return Answer::Acknowledgment;
        }
        if !has(ACK) {
            return Answer::Silence;
        }
        if !self.acknowledge(segment) {
            return Answer::Acknowledgment;
        }
        if let Some(value) = timestamp
            && !before(self.last_ack_sent, seq)
        {
            self.ts_recent = value;
        }
        if text == 0 && !has(FIN) {
            return Answer::Silence;
        }
        self.text_at = Some(seq);
        let (was_next, had_gap) = (self.rcv_nxt, !self.ahead.is_empty());
        for number in (0..text).map(|offset| seq.wrapping_add(offset)) {
            let beyond_fin = self.fin_at.is_some_and(|fin| !before(number, fin));
            if self.in_window(number) && !beyond_fin {
                self.ahead.insert(number);
            }
        }
        while self.ahead.remove(&self.rcv_nxt) {
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        }
        let is_in_order = seq == was_next && !had_gap && !has(FIN);
        if is_in_order { Answer::Either } else { Answer::Acknowledgment }
    }

    /// The fifth step: false when the segment is dropped.
    fn acknowledge(&mut self, segment: &Tcp) -> bool {
        let ack = segment.ack;
        if before(self.snd_max, ack) || before(ack, self.snd_una.wrapping_sub(self.max_wnd)) {
            return false;
        }
        if before(ack, self.snd_una) {
            return true;
        }
        self.snd_una = ack;
        // What acknowledges something new is newer, whatever its number (a deviation that COMPLIANCE.md names).
        let is_newer = before(self.wl2, ack)
            || before(self.wl1, segment.seq)
            || (self.wl1 == segment.seq && self.wl2 == ack);
        if is_newer {
            self.snd_wnd = u32::from(segment.window);
            self.max_wnd = self.max_wnd.max(self.snd_wnd);
            (self.wl1, self.wl2) = (segment.seq, ack);
        }
        true
    }

    /// A report of what came selectively (RFC 2018, section 4; RFC 2883, section 4): whole ranges, each once, the one that
    /// the segment is in first, but for a range that came twice in front of it.
    fn check_report(&self, peer: &Peer, sent: &Tcp) -> Result<(), String> {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap()).wrapping_sub(peer.isn);
        let option = sent.option(SACK).unwrap_or_default();
        let blocks: Vec<_> =
            option.chunks(8).map(|block| (number(&block[..4]), number(&block[4..]))).collect();
        let wrong = |what: &str| Err(format!("{what}: {blocks:?}"));
        let ahead = self.ranges_ahead();
        let is_twice = blocks.first().is_some_and(|first| {
            let inside = |range: &(u32, u32)| range.0 <= first.0 && first.1 <= range.1;
            !before(self.rcv_nxt, first.1) || blocks.get(1).is_some_and(inside)
        });
        let ranges = &blocks[usize::from(is_twice)..];
        if let Some(range) = ranges.iter().find(|range| !ahead.contains(range)) {
            return wrong(&format!("{range:?} is no range that came"));
        }
        if ranges.iter().collect::<BTreeSet<_>>().len() != ranges.len() {
            return wrong("a range is reported twice");
        }
        let is_own = |range: &&(u32, u32)| self.text_at.is_some_and(|at| (range.0..range.1).contains(&at));
        if let Some(own) = ahead.iter().find(is_own)
            && ranges.first() != Some(own)
        {
            return wrong("what came last is not reported first");
        }
        if ranges.len() < ahead.len().min(4 - usize::from(is_twice)) {
            return wrong("a range is left out that there is room for");
        }
        Ok(())
    }

    /// What the stack sent tells where its window ends.
    fn hear(&mut self, peer: &Peer, sent: &[Tcp]) {
        for segment in sent.iter().filter(|segment| segment.flags & ACK != 0) {
            let (_, seq, ack, len) = peer.shown(segment);
            let edge = ack.wrapping_add(u32::from(segment.window));
            if before(self.rcv_edge, edge) {
                self.rcv_edge = edge;
            }
            self.last_ack_sent = ack;
            let end = seq.wrapping_add(len as u32);
            if before(self.snd_max, end) {
                self.snd_max = end;
            }
        }
    }
}

/// So large that the memory which data ahead of gaps may hold is no limit here.
const BUFFER_BYTES: u32 = 16_000;

fn timestamp_option(value: u32) -> Vec<u8> {
    let mut option = vec![1, 1, 8, 10];
    option.extend(value.to_be_bytes());
    option.extend([0; 4]);
    option
}

/// A segment that is likely to matter.
fn draw(dice: &mut Dice, model: &Model, with_timestamps: bool) -> (Tcp, Option<u32>) {
    let near =
        |dice: &mut Dice, base: u32, width: u32| base.wrapping_add(dice.below(width)).wrapping_sub(width / 2);
    let seq = match dice.below(8) {
        0..=3 => model.rcv_nxt,
        4 => near(dice, model.rcv_nxt, 6),
        5 => near(dice, model.rcv_nxt, 2 * BUFFER_BYTES),
        6 => near(dice, model.rcv_edge, 6),
        _ => model.ahead.last().map_or(model.rcv_nxt, |last| near(dice, *last, 200)),
    };
    let ack = match dice.below(8) {
        0..=2 => model.snd_una,
        3 | 4 => model.snd_una.wrapping_add(dice.below(model.snd_max.wrapping_sub(model.snd_una) + 1)),
        5 => near(dice, model.snd_una, 6),
        6 => near(dice, model.snd_max, 6),
        _ => near(dice, model.snd_una.wrapping_sub(model.max_wnd), 6),
    };
    let rare = |dice: &mut Dice, flag: u8| if dice.one_in(12) { flag } else { 0 };
    let mut flags = if dice.one_in(16) { 0 } else { ACK };
    flags |= rare(dice, SYN) | rare(dice, URG) | rare(dice, PSH);
    // A reset that hits ends the run.
    if dice.one_in(10) && seq != model.rcv_nxt {
        flags |= RST;
    }
    let text = dice.of(&[0, 0, 1, 2, 500, 1_000, 1_400, 1_400]);
    let payload = (0..text).map(|offset| seq.wrapping_add(offset) as u8).collect();
    let timestamp = with_timestamps.then(|| match dice.below(6) {
        0 => model.ts_recent.wrapping_sub(1 + dice.below(1_000)),
        1 => model.ts_recent,
        _ => model.ts_recent.wrapping_add(dice.below(50)),
    });
    let window = dice.of(&[0, 1, 500, 1_000, 20_000, 65_535]);
    let segment = Tcp {
        ports: (0, 0),
        seq,
        ack,
        flags,
        window,
        urgent: 0,
        options: timestamp.map(timestamp_option).unwrap_or_default(),
        payload,
    };
    (segment, timestamp)
}

/// What the peer's SYN offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Nothing,
    Timestamps,
    Selective,
}

/// Plays one run; what differs first is told.
fn run(family: Family, seed: u64, offer: Offer) -> Result<(), String> {
    let with_timestamps = offer == Offer::Timestamps;
    let mut dice = Dice(seed);
    let buffers =
        "tcp.receive_buffer_bytes = 16000\ntcp.receive_buffer_max_bytes = 16000\ntcp.path_mtu_search = false";
    let options = match offer {
        Offer::Nothing => Vec::new(),
        Offer::Timestamps => timestamp_option(1_000),
        Offer::Selective => vec![1, 1, 4, 2],
    };
    let set = [SocketOption::NoDelay(true)];
    let (mut host, peer, id) = Peer::opened(family, buffers, &options, &set);
    let mut model = Model {
        rcv_nxt: 1,
        rcv_edge: 1 + BUFFER_BYTES,
        ahead: BTreeSet::new(),
        fin_at: None,
        snd_una: 1,
        snd_max: 1,
        snd_wnd: 30_000,
        max_wnd: 30_000,
        wl1: 1,
        wl2: 1,
        ts_recent: 1_000,
        last_ack_sent: 1,
        is_reset: false,
        text_at: None,
    };
    let mut read = 1_u32;
    for step in 0..300 {
        if dice.one_in(8) {
            host.send(id, &vec![7; 1 + dice.below(3_000) as usize]).map_err(|error| format!("{error:?}"))?;
        }
        if dice.one_in(30) {
            while let Ok(Some(data)) = host.read(id) {
                if data.is_empty()
                    || data.iter().any(|byte| {
                        let right = *byte == read as u8;
                        read = read.wrapping_add(1);
                        !right
                    })
                {
                    return Err(format!("step {step}: wrong data before {read}"));
                }
            }
        }
        // So that no answer is left out for being the second within half a second.
        host.pass_ms(600);
        let heard = host.segments();
        model.hear(&peer, &heard);
        let (segment, timestamp) = draw(&mut dice, &model, with_timestamps);
        let told = format!(
            "step {step}: flags {:#04x} {}({}) ack {} win {} ts {timestamp:?} came to {model:?}",
            segment.flags,
            segment.seq,
            segment.payload.len(),
            segment.ack,
            segment.window
        );
        let answer = model.take(&segment, timestamp);
        let real = Tcp {
            ports: (PEER_PORT, PORT),
            seq: peer.isn.wrapping_add(segment.seq),
            ack: if segment.flags & ACK == 0 { 0 } else { peer.iss.wrapping_add(segment.ack) },
            ..segment
        };
        let answers = peer.ask_with(&mut host, &real);
        model.hear(&peer, &answers);
        let acknowledged = answers.iter().any(|sent| peer.shown(sent).2 == model.rcv_nxt);
        let bare = answers.iter().any(|sent| sent.payload.is_empty());
        let right = match answer {
            Answer::Acknowledgment => acknowledged,
            Answer::Silence => !bare,
            Answer::Either => true,
        };
        if !right {
            return Err(format!(
                "{told}\n has to be answered with {answer:?}, and was with {:?}",
                peer.shown_all(&answers)
            ));
        }
        if offer == Offer::Selective
            && let Some(sent) = answers.iter().find(|sent| sent.option(SACK).is_some())
        {
            model.check_report(&peer, sent).map_err(|error| format!("{told}\n {error}"))?;
        }
        let info = host.stack.tcp_info(id).ok_or("gone")?;
        let got = [
            ("RCV.NXT", info.rcv_nxt.wrapping_sub(peer.isn), model.rcv_nxt),
            ("SND.UNA", info.snd_una.wrapping_sub(peer.iss), model.snd_una),
            ("SND.WND", info.snd_wnd_bytes, model.snd_wnd),
            ("bytes behind a gap", info.out_of_order_bytes as u32, model.ahead.len() as u32),
        ];
        if let Some((name, got, wanted)) = got.iter().find(|(_, got, wanted)| got != wanted) {
            return Err(format!("{told}\n {name} is {got}, not {wanted}"));
        }
        if info.state.name() != "ESTABLISHED" {
            return Err(format!("{told}\n is in {}", info.state.name()));
        }
    }
    Ok(())
}

/// Runs of each kind; each is 300 segments.
const SEEDS: u64 = 4;

#[test]
fn segments_are_taken_as_the_rfc_says_it_step_by_step() {
    for seed in 0..SEEDS {
        for family in FAMILIES {
            for offer in [Offer::Nothing, Offer::Timestamps, Offer::Selective] {
                if let Err(surprise) = run(family, seed, offer) {
                    panic!("seed {seed}, {family:?}, {offer:?}: {surprise}");
                }
            }
        }
    }
}
