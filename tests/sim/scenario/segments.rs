//! Single segments from a peer that is made by hand.

use std::net::SocketAddr;
use std::time::Duration;

use libos::runtime::Medium;

use super::{PORT, SOON, stream_bytes};
use crate::host::{Failure, HostConfig, Kind, Received, Socket, address};
use crate::raw::{ACK, FIN, RST, RawPeer, SYN, Tcp};
use crate::wire::Segment;
use crate::world::World;

const MSS_1460: [u8; 4] = [2, 4, 5, 180];
const RAW_PORT: u16 = 4000;
/// So that numbers wrap within most tests.
const RAW_SEQUENCE: u32 = u32::MAX - 300;

/// A host of ours with a connection that a hand-made peer has opened.
struct Session {
    world: World,
    raw: RawPeer,
    listener: Socket,
    /// What the peer sends next, and what it expects next.
    next: u32,
    expected: u32,
}

fn world_with_raw() -> (World, RawPeer) {
    let world = World::new(Medium::Ip, 1, &[HostConfig::new(Kind::Catnip, 1)]);
    let raw = RawPeer::new(&world.fabric, Medium::Ip, 9);
    (world, raw)
}

impl Session {
    /// A listener, and nothing else yet.
    fn new() -> Self {
        let (mut world, raw) = world_with_raw();
        let listener = world.host(0).listen(PORT, 4);
        world.settle();
        Self { world, raw, listener, next: RAW_SEQUENCE, expected: 0 }
    }

    /// A connection, and its name.
    fn open(options: &[u8]) -> (Self, Socket) {
        let mut session = Self::new();
        let answers = session.send(SYN, options, &[]);
        assert!(answers.len() == 1 && answers[0].syn, "no SYN-ACK: {answers:?}");
        session.expected = answers[0].sequence.0.cast_unsigned().wrapping_add(1);
        session.next = session.next.wrapping_add(1);
        session.send(ACK, &[], &[]);
        let connection = session.world.host(0).accept(session.listener).expect("an accepted connection");
        (session, connection)
    }

    /// Sends a segment at the peer's present numbers; returns the answers.
    fn send(&mut self, flags: u8, options: &[u8], payload: &[u8]) -> Vec<Segment> {
        self.send_at(self.next, self.expected, flags, options, payload)
    }

    fn send_at(
        &mut self,
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        options: &[u8],
        payload: &[u8],
    ) -> Vec<Segment> {
        self.send_segment(&Tcp {
            to: SocketAddr::new(address(1, false), PORT),
            from_port: RAW_PORT,
            sequence,
            acknowledgement,
            flags,
            window: 10_000,
            options,
            payload,
        })
    }

    fn send_segment(&mut self, segment: &Tcp<'_>) -> Vec<Segment> {
        let packet = self.raw.tcp(segment);
        self.raw.received();
        self.world.fabric.inject(self.raw.port(), &packet);
        self.world.run_for(Duration::from_millis(1));
        self.raw.received()
    }

    fn read(&mut self, connection: Socket, count: usize) -> Vec<u8> {
        self.world.receive_exactly(0, connection, count, SOON)
    }

    fn end(mut self, connection: Socket) {
        self.world.host(0).abort(connection);
        self.world.host(0).close_listener(self.listener);
        self.world.run_for(Duration::from_millis(1));
        self.raw.received();
        self.world.drain();
    }
}

#[test]
fn unknown_tcp_option_is_ignored() {
    let padded: [&[u8]; 5] = [
        // An experimental option (RFC 6994), in front of one that counts.
        &[253, 8, 1, 2, 3, 4, 5, 6, 2, 4, 5, 180],
        &[1, 1, 1, 200, 2, 0, 0, 0],
        // A length that reaches beyond the header, and one that is none: the rest is ignored.
        &[253, 200, 0, 0],
        &[253, 0, 0, 0],
        &[253, 1, 0, 0],
    ];
    for options in padded {
        let (mut session, connection) = Session::open(options);
        session.send(ACK, options, b"hello");
        assert_eq!(session.read(connection, 5), b"hello", "options {options:?}");
        session.end(connection);
    }
}

#[test]
fn a_reset_counts_only_at_the_expected_number() {
    // RFC 5961, section 3: within the window it is challenged, outside it is dropped.
    let cases = [(0, 0, true), (1, 1, false), (5_000, 1, false), (1 << 20, 0, false), (u32::MAX, 0, false)];
    for (offset, challenges, resets) in cases {
        let (mut session, connection) = Session::open(&MSS_1460);
        let sequence = session.next.wrapping_add(offset);
        let answers = session.send_at(sequence, session.expected, RST, &[], &[]);
        let is_challenge = |segment: &Segment| !segment.rst && segment.acknowledgement.is_some();
        assert_eq!(answers.len(), challenges, "offset {offset}: {answers:?}");
        assert!(answers.iter().all(is_challenge), "offset {offset}: {answers:?}");
        let received = session.world.host(0).receive(connection, 10);
        let expected = if resets { Err(Failure::Reset) } else { Ok(Received::Nothing) };
        assert_eq!(received, expected, "offset {offset}");
        session.end(connection);
    }
}

#[test]
fn a_syn_in_a_connection_is_challenged_and_harms_nothing() {
    let (mut session, connection) = Session::open(&MSS_1460);
    for sequence in [session.next, session.next.wrapping_add(100), RAW_SEQUENCE] {
        let answers = session.send_at(sequence, session.expected, SYN, &MSS_1460, &[]);
        assert!(answers.len() == 1 && !answers[0].rst && !answers[0].syn, "{answers:?}");
        // Challenges are few, so that they cannot be used to make traffic.
        session.world.run_for(Duration::from_secs(1));
    }
    session.send(ACK, &[], b"still here");
    assert_eq!(session.read(connection, 10), b"still here");
    session.end(connection);
}

#[test]
fn a_segment_to_a_closed_port_is_reset_with_the_right_numbers() {
    // RFC 9293, section 3.5.2: an ACK is answered at its number, anything else is acknowledged.
    let (mut world, mut raw) = world_with_raw();
    let closed = SocketAddr::new(address(1, false), 9);
    let cases: [(u8, &[u8], u32, Option<u32>); 5] = [
        (ACK, b"", 77, None),
        (SYN, b"", 0, Some(501)),
        (FIN, b"abc", 0, Some(504)),
        (SYN | ACK, b"", 77, None),
        (ACK | FIN, b"abc", 77, None),
    ];
    for (flags, payload, sequence, acknowledgement) in cases {
        let packet = raw.tcp(&Tcp {
            to: closed,
            from_port: RAW_PORT,
            sequence: 500,
            acknowledgement: 77,
            flags,
            window: 100,
            options: &[],
            payload,
        });
        world.fabric.inject(raw.port(), &packet);
        world.run_for(Duration::from_millis(10));
        let answers = raw.received();
        assert_eq!(answers.len(), 1, "flags {flags:#x}");
        let numbers = (answers[0].sequence.0.cast_unsigned(), answers[0].acknowledgement);
        assert!(answers[0].rst);
        assert_eq!(
            (numbers.0, numbers.1.map(|number| number.0.cast_unsigned())),
            (sequence, acknowledgement)
        );
    }
    // A reset is never answered.
    for flags in [RST, RST | ACK] {
        let packet = raw.tcp(&Tcp {
            to: closed,
            from_port: RAW_PORT,
            sequence: 500,
            acknowledgement: 77,
            flags,
            window: 100,
            options: &[],
            payload: &[],
        });
        world.fabric.inject(raw.port(), &packet);
        world.run_for(Duration::from_millis(10));
        assert_eq!(raw.received(), []);
    }
    world.drain();
}

#[test]
fn pieces_that_overlap_in_any_order_make_one_stream() {
    let bytes = stream_bytes(1_000);
    let orders: [&[(usize, usize)]; 4] = [
        &[(500, 1_000), (0, 500)],
        &[(200, 400), (600, 800), (100, 700), (0, 150), (750, 1_000)],
        &[(0, 300), (0, 300), (100, 600), (900, 1_000), (500, 950)],
        &[(999, 1_000), (998, 999), (1, 998), (0, 1)],
    ];
    for order in orders {
        let (mut session, connection) = Session::open(&MSS_1460);
        let start = session.next;
        for &(from, to) in order {
            session.send_at(start.wrapping_add(from as u32), session.expected, ACK, &[], &bytes[from..to]);
        }
        assert_eq!(session.read(connection, 1_000), bytes, "order {order:?}");
        session.end(connection);
    }
}

#[test]
fn data_outside_the_window_is_answered_and_not_taken() {
    let (mut session, connection) = Session::open(&MSS_1460);
    for sequence in [session.next.wrapping_add(1 << 20), session.next.wrapping_sub(100_000)] {
        let answers = session.send_at(sequence, session.expected, ACK, &[], &[9; 100]);
        assert!(answers.len() == 1 && answers[0].acknowledgement.is_some(), "{answers:?}");
    }
    session.send(ACK, &[], b"the stream");
    assert_eq!(session.read(connection, 10), b"the stream");
    session.end(connection);
}

#[test]
fn a_fin_that_overtakes_data_ends_the_stream_after_it() {
    let (mut session, connection) = Session::open(&MSS_1460);
    session.send_at(session.next.wrapping_add(5), session.expected, ACK | FIN, &[], b"world");
    assert_eq!(session.world.host(0).receive(connection, 10), Ok(Received::Nothing));
    let answers = session.send(ACK, &[], b"hello");
    let acknowledged = answers.last().and_then(|segment| segment.acknowledgement);
    assert_eq!(acknowledged.map(|number| number.0.cast_unsigned()), Some(session.next.wrapping_add(11)));
    assert_eq!(session.read(connection, 10), b"helloworld");
    session.world.receive_end(0, connection);
    session.end(connection);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_challenged() {
    let (mut session, connection) = Session::open(&MSS_1460);
    let answers = session.send_at(session.next, session.expected.wrapping_add(1_000), ACK, &[], &[]);
    assert!(answers.len() == 1 && !answers[0].rst, "{answers:?}");
    session.send(ACK, &[], b"fine");
    assert_eq!(session.read(connection, 4), b"fine");
    session.end(connection);
}

#[test]
fn a_reset_in_time_wait_does_not_end_it() {
    // RFC 1337.
    let (mut session, connection) = Session::open(&MSS_1460);
    session.world.host(0).close(connection);
    session.world.run_for(Duration::from_millis(1));
    session.expected = session.expected.wrapping_add(1);
    session.send(ACK | FIN, &[], &[]);
    assert_eq!(session.world.states(0), ["TIME-WAIT"]);
    session.next = session.next.wrapping_add(1);
    session.send(RST, &[], &[]);
    assert_eq!(session.world.states(0), ["TIME-WAIT"]);
    // The peer's FIN again, as its acknowledgement was lost: answered.
    session.next = session.next.wrapping_sub(1);
    let answers = session.send(ACK | FIN, &[], &[]);
    assert_eq!(answers.len(), 1);
    session.end(connection);
}

#[test]
fn a_segment_that_was_overtaken_does_not_bring_back_its_window() {
    // RFC 9293, section 3.10.7.4: SND.WL1 and SND.WL2. The peer's window is closed in its first segment and open in
    // the second, which overtakes it; with the older window, what the program then writes would wait for a probe.
    let (mut session, connection) = Session::open(&MSS_1460);
    let (first, expected) = (session.next, session.expected);
    let with_window = |sequence, window, payload| Tcp {
        to: SocketAddr::new(address(1, false), PORT),
        from_port: RAW_PORT,
        sequence,
        acknowledgement: expected,
        flags: ACK,
        window,
        options: &[],
        payload,
    };
    session.send_segment(&with_window(first.wrapping_add(5), 10_000, b"world"));
    session.send_segment(&with_window(first, 0, b"hello"));
    assert_eq!(session.read(connection, 10), b"helloworld");
    assert_eq!(session.world.host(0).send(connection, b"at once"), Ok(7));
    session.world.run_for(Duration::from_millis(1));
    let sent = session.raw.received();
    assert!(
        sent.iter().any(|segment| segment.payload_bytes == 7),
        "a window that is open was not used: {sent:?}"
    );
    session.end(connection);
}
