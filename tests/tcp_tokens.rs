//! TCP behind queues and tokens: every token completes once, in order, with the right outcome. Two library
//! OSes on one wire, in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/virtual_time.rs"]
mod virtual_time;

use std::net::SocketAddr;
use std::time::Duration;

use catnip::{Stack, StackConfig, StackModule};
use libos::memory::ArenaConfig;
use libos::time::ManualClock;
use libos::{
    Arena, Clock, Domain, Error, Instant, LibOs, OperationKind, Outcome, PopLimit, QueueDescriptor, Runtime,
    SocketKind, SocketOption, Token,
};
use runtime_sim::{PipeConfig, pipe};

const SERVER: &str = "10.0.0.2:80";
const SEND_BUFFER_BYTES: usize = 4_000;
const RECEIVE_BUFFER_BYTES: usize = 6_000;

struct Pair {
    client: LibOs,
    server: LibOs,
    clock: ManualClock,
    arena: Arena,
}

impl Pair {
    fn new() -> Self {
        let arena = Arena::new(&ArenaConfig { region_bytes: 32 << 20, hugepages: false }).unwrap();
        let clock = ManualClock::new();
        let (a, b) = pipe(PipeConfig::default(), [&arena, &arena]);
        let mut ends = [(a, "10.0.0.1/24"), (b, "10.0.0.2/24")].map(|(end, address)| {
            let mut config =
                StackConfig::new(end.capabilities()).with_address(address.parse().expect("an address"));
            let options = &mut config.tcp.options;
            options.set(SocketOption::SendBuffer(SEND_BUFFER_BYTES)).unwrap();
            options.set(SocketOption::ReceiveBuffer(RECEIVE_BUFFER_BYTES)).unwrap();
            let stack = Stack::new(&config, arena.clone(), 1, clock.now()).unwrap();
            let library = LibOs::builder().clock(clock.clone()).arena(arena.clone()).build().unwrap();
            library.install(StackModule::new(stack, end)).unwrap();
            Some(library)
        });
        let [client, server] = ends.each_mut().map(|end| end.take().expect("made above"));
        Self { client, server, clock, arena }
    }

    /// `millis` milliseconds pass, and both sides do what they want to do meanwhile.
    fn pass(&self, millis: u64) {
        virtual_time::pass(&self.clock, &[&self.client, &self.server], Duration::from_millis(millis));
    }

    fn listen(&self, backlog: usize) -> QueueDescriptor {
        let listener = self.server.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        self.server.bind(listener, SERVER.parse().unwrap()).unwrap();
        self.server.listen(listener, backlog).unwrap();
        listener
    }

    fn connect(&self) -> (QueueDescriptor, Token) {
        let client = self.client.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        let token = self.client.connect(client, SERVER.parse::<SocketAddr>().unwrap()).unwrap();
        (client, token)
    }

    /// A connection: the client's and the server's descriptors.
    fn connection(&self) -> (QueueDescriptor, QueueDescriptor) {
        let listener = self.listen(4);
        let accept = self.server.accept(listener).unwrap();
        let (client, connect) = self.connect();
        self.pass(10);
        assert!(matches!(take(&self.client, connect), Outcome::Connected));
        match take(&self.server, accept) {
            Outcome::Accepted { queue, .. } => (client, queue),
            other => panic!("{other:?}"),
        }
    }

    fn push(&self, side: &LibOs, queue: QueueDescriptor, bytes: &[u8]) -> Token {
        side.push(queue, self.arena.copy_from(bytes).unwrap().freeze()).unwrap()
    }

    /// Everything the server reads up to the end of the stream, an error, or nothing for a second.
    fn drain(&self, queue: QueueDescriptor) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let pop = self.server.pop(queue).unwrap();
            self.pass(1_000);
            match self.server.try_take(pop).unwrap().map(|completion| completion.outcome) {
                Some(Outcome::Popped { data, .. }) if !data.is_empty() => bytes.extend(data.to_vec()),
                Some(_) => return bytes,
                None => {
                    self.server.discard(pop).unwrap();
                    return bytes;
                }
            }
        }
    }
}

/// The outcome of a token that has completed. It can be taken once.
#[track_caller]
fn take(side: &LibOs, token: Token) -> Outcome {
    let completion = side.try_take(token).unwrap().expect("the token has completed");
    assert_eq!(completion.token, token);
    assert_eq!(side.try_take(token).err(), Some(Error::BadToken));
    completion.outcome
}

#[track_caller]
fn is_outstanding(side: &LibOs, token: Token) -> bool {
    let outstanding = side.try_take(token);
    matches!(outstanding, Ok(None))
}

#[track_caller]
fn popped(side: &LibOs, token: Token) -> Vec<u8> {
    match take(side, token) {
        Outcome::Popped { data, from: None } => data.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn six_pushes_without_waiting_arrive_in_order() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    let pushes: Vec<Token> =
        (0..6).map(|at| pair.push(&pair.client, client, format!("message {at};").as_bytes())).collect();
    let received = pair.drain(server);
    assert_eq!(
        String::from_utf8(received).unwrap(),
        "message 0;message 1;message 2;message 3;message 4;message 5;"
    );
    for push in pushes {
        assert!(matches!(take(&pair.client, push), Outcome::Pushed));
    }
}

#[test]
fn pops_that_wait_are_served_in_the_order_of_their_submission() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    let limit = PopLimit { segments: 1, bytes: 3 };
    let pops: Vec<Token> = (0..4).map(|_| pair.server.pop_with(server, limit).unwrap()).collect();
    pair.push(&pair.client, client, b"aaabbbccc");
    pair.pass(100);
    for (pop, expected) in pops.iter().zip([b"aaa", b"bbb", b"ccc"]) {
        assert_eq!(popped(&pair.server, *pop), expected);
    }
    assert!(is_outstanding(&pair.server, pops[3]));
}

#[test]
fn a_push_waits_while_the_send_queue_is_full_and_all_complete_in_order_later() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    // More than both queues hold together, and nobody reads.
    let pushes: Vec<Token> = (0..8).map(|at| pair.push(&pair.client, client, &[at; 2_000])).collect();
    pair.pass(5_000);
    let completed: Vec<bool> =
        pushes.iter().map(|&push| !is_outstanding_or_take(&pair.client, push)).collect();
    let first_waiting = completed.iter().position(|done| !done).unwrap();
    assert!((2..8).contains(&first_waiting), "{completed:?}");
    assert!(completed[first_waiting..].iter().all(|done| !done), "{completed:?}");
    let received = pair.drain(server);
    let expected: Vec<u8> = (0..8).flat_map(|at| [at; 2_000]).collect();
    assert!(received == expected);
    for &push in &pushes[first_waiting..] {
        assert!(matches!(take(&pair.client, push), Outcome::Pushed));
    }
}

/// True when the token is outstanding; else its completion is taken, which must be that of a push.
fn is_outstanding_or_take(side: &LibOs, token: Token) -> bool {
    match side.try_take(token).unwrap() {
        None => true,
        Some(completion) => {
            assert!(matches!(completion.outcome, Outcome::Pushed));
            false
        }
    }
}

#[test]
fn closing_cancels_what_is_outstanding_and_sends_what_was_taken() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    let pops = [(); 2].map(|()| pair.client.pop(client).unwrap());
    let pushes: Vec<Token> = (0..8).map(|at| pair.push(&pair.client, client, &[at; 2_000])).collect();
    pair.pass(5_000);
    let taken = pushes.iter().take_while(|&&push| !is_outstanding_or_take(&pair.client, push)).count();
    assert!(taken < pushes.len());
    let close = pair.client.close(client).unwrap();
    for token in pops.iter().chain(&pushes[taken..]) {
        assert!(matches!(take(&pair.client, *token), Outcome::Failed(Error::Cancelled)));
    }
    assert!(matches!(take(&pair.client, close), Outcome::Closed));
    // Completed pushes arrive whole, and then the end of the stream, not a reset.
    let received = pair.drain(server);
    assert!(received.len() >= taken * 2_000);
    assert!(received.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at / 2_000));
    let pop = pair.server.pop(server).unwrap();
    pair.pass(10);
    assert_eq!(popped(&pair.server, pop), b"");
}

#[test]
fn after_a_reset_a_pop_gives_the_data_first_and_then_the_error() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    pair.push(&pair.client, client, b"last words");
    pair.pass(100);
    pair.client.set_option(client, SocketOption::Linger(Some(Duration::ZERO))).unwrap();
    pair.client.close(client).unwrap();
    pair.pass(100);
    let limit = PopLimit { segments: 1, bytes: 5 };
    for expected in [&b"last "[..], b"words"] {
        let pop = pair.server.pop_with(server, limit).unwrap();
        assert_eq!(popped(&pair.server, pop), expected);
    }
    for _ in 0..2 {
        let pop = pair.server.pop(server).unwrap();
        assert!(matches!(take(&pair.server, pop), Outcome::Failed(Error::ConnectionReset)));
    }
    let push = pair.push(&pair.server, server, b"too late");
    assert!(matches!(take(&pair.server, push), Outcome::Failed(Error::ConnectionReset)));
}

#[test]
fn a_reset_fails_everything_that_waits_once() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    let pops = [(); 3].map(|()| pair.server.pop(server).unwrap());
    let pushes: Vec<Token> = (0..8).map(|_| pair.push(&pair.server, server, &[0; 2_000])).collect();
    pair.pass(1_000);
    let taken = pushes.iter().take_while(|&&push| !is_outstanding_or_take(&pair.server, push)).count();
    // Closing with unread data resets (RFC 1122, section 4.2.2.13).
    pair.client.close(client).unwrap();
    pair.pass(1_000);
    for token in pops.iter().chain(&pushes[taken..]) {
        assert!(matches!(take(&pair.server, *token), Outcome::Failed(Error::ConnectionReset)));
    }
}

#[test]
fn every_pop_at_the_end_of_the_stream_gives_nothing() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    let waiting = pair.server.pop(server).unwrap();
    pair.client.close(client).unwrap();
    pair.pass(100);
    assert_eq!(popped(&pair.server, waiting), b"");
    let pop = pair.server.pop(server).unwrap();
    assert_eq!(popped(&pair.server, pop), b"");
}

#[test]
fn connecting_where_nobody_listens_fails_and_so_does_what_was_pushed_before() {
    let pair = Pair::new();
    let (client, connect) = pair.connect();
    // Taken, as the send queue has room, and lost with the connection.
    let push = pair.push(&pair.client, client, b"hello?");
    let pop = pair.client.pop(client).unwrap();
    assert!(matches!(take(&pair.client, push), Outcome::Pushed));
    pair.pass(100);
    assert!(matches!(take(&pair.client, connect), Outcome::Failed(Error::ConnectionRefused)));
    assert!(matches!(take(&pair.client, pop), Outcome::Failed(Error::ConnectionRefused)));
}

#[test]
fn accepts_are_served_in_order_and_a_cancelled_one_takes_no_connection() {
    let pair = Pair::new();
    let listener = pair.listen(8);
    let accepts = [(); 3].map(|()| pair.server.accept(listener).unwrap());
    pair.server.cancel(accepts[0]).unwrap();
    let (first, _) = pair.connect();
    pair.pass(10);
    let (second, _) = pair.connect();
    pair.pass(10);
    assert!(matches!(take(&pair.server, accepts[0]), Outcome::Failed(Error::Cancelled)));
    for (accept, client) in [(accepts[1], first), (accepts[2], second)] {
        let expected = pair.client.local_address(client).unwrap();
        assert!(matches!(take(&pair.server, accept), Outcome::Accepted { peer, .. } if peer == expected));
    }
}

#[test]
fn a_socket_that_may_not_listen_yet_keeps_its_port_and_may_later() {
    let pair = Pair::new();
    let [first, second] = [(); 2].map(|()| {
        let queue = pair.server.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        pair.server.set_option(queue, SocketOption::ReuseAddress(true)).unwrap();
        pair.server.bind(queue, SERVER.parse().unwrap()).unwrap();
        queue
    });
    pair.server.listen(first, 4).unwrap();
    for _ in 0..2 {
        assert_eq!(pair.server.listen(second, 4), Err(Error::AddressInUse));
        assert_eq!(pair.server.local_address(second), Ok(SERVER.parse().unwrap()));
    }
    let close = pair.server.close(first).unwrap();
    assert!(matches!(take(&pair.server, close), Outcome::Closed));
    pair.server.listen(second, 4).unwrap();
    assert_eq!(pair.server.local_address(second), Ok(SERVER.parse().unwrap()));
    // Given back in the end.
    let close = pair.server.close(second).unwrap();
    assert!(matches!(take(&pair.server, close), Outcome::Closed));
    pair.listen(4);
}

#[test]
fn closing_a_listener_cancels_its_accepts_and_resets_who_waits() {
    let pair = Pair::new();
    let listener = pair.listen(8);
    let (client, connect) = pair.connect();
    pair.pass(10);
    assert!(matches!(take(&pair.client, connect), Outcome::Connected));
    let pop = pair.client.pop(client).unwrap();
    let accept = pair.server.accept(listener).unwrap();
    assert!(matches!(take(&pair.server, accept), Outcome::Accepted { .. }));
    let (other, _) = pair.connect();
    pair.pass(10);
    let unread = pair.client.pop(other).unwrap();
    pair.server.close(listener).unwrap();
    pair.pass(10);
    assert!(is_outstanding(&pair.client, pop), "what was accepted goes on");
    assert!(matches!(take(&pair.client, unread), Outcome::Failed(Error::ConnectionReset)));
}

#[test]
fn a_push_that_is_cancelled_while_it_waits_does_not_hold_up_the_next() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    let pushes: Vec<Token> = (0..8).map(|at| pair.push(&pair.client, client, &[at; 2_000])).collect();
    pair.pass(1_000);
    let waiting =
        pushes.iter().position(|&push| is_outstanding_or_take(&pair.client, push)).expect("one waits");
    pair.client.cancel(pushes[waiting]).unwrap();
    let received = pair.drain(server);
    for &push in &pushes[waiting + 1..] {
        assert!(matches!(take(&pair.client, push), Outcome::Pushed));
    }
    // All but what was left of the cancelled one, in order.
    assert!(received.is_sorted());
    assert!(received.len() >= 7 * 2_000);
}

#[test]
fn each_completion_says_what_it_belongs_to() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    let push = pair.push(&pair.client, client, b"x");
    let completion = pair.client.try_take(push).unwrap().unwrap();
    assert_eq!((completion.queue, completion.kind), (client, OperationKind::Push));
    let pop = pair.server.pop(server).unwrap();
    pair.pass(10);
    let completion = pair.server.try_take(pop).unwrap().unwrap();
    assert_eq!((completion.queue, completion.kind), (server, OperationKind::Pop));
    assert!(pair.clock.now() > Instant::ZERO);
}

#[test]
fn what_is_pushed_with_a_connect_rides_on_the_syn_once_the_server_is_known() {
    let pair = Pair::new();
    let listener = pair.listen(4);
    pair.server.set_option(listener, SocketOption::FastOpenQueue(4)).unwrap();
    let (mut on_syns, mut taken) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let client = pair.client.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        pair.client.set_option(client, SocketOption::FastOpenConnect(true)).unwrap();
        let accept = pair.server.accept(listener).unwrap();
        let connect = pair.client.connect(client, SERVER.parse::<SocketAddr>().unwrap()).unwrap();
        let push = pair.push(&pair.client, client, b"question");
        pair.pass(50);
        assert!(matches!(take(&pair.client, connect), Outcome::Connected));
        assert!(matches!(take(&pair.client, push), Outcome::Pushed));
        let Outcome::Accepted { queue, .. } = take(&pair.server, accept) else { panic!("not accepted") };
        let pop = pair.server.pop(queue).unwrap();
        assert_eq!(popped(&pair.server, pop), b"question");
        pair.push(&pair.server, queue, b"answer");
        let pop = pair.client.pop(client).unwrap();
        pair.pass(50);
        assert_eq!(popped(&pair.client, pop), b"answer");
        let number = |side: &LibOs, name: &str| side.metrics().unwrap().get(name).unwrap().value();
        on_syns.push(number(&pair.client, "catnip.tcp.fast_open_active"));
        taken.push(number(&pair.server, "catnip.tcp.fast_open_passive"));
        pair.client.close(client).unwrap();
        pair.server.close(queue).unwrap();
    }
    assert_eq!((on_syns, taken), (vec![0, 1, 2], vec![0, 1, 2]));
}

/// Closes with a linger time; the close's token.
fn close_lingering(pair: &Pair, queue: QueueDescriptor, seconds: u64) -> Token {
    let linger = SocketOption::Linger(Some(Duration::from_secs(seconds)));
    pair.client.set_option(queue, linger).unwrap();
    pair.client.close(queue).unwrap()
}

#[test]
fn a_close_that_lingers_completes_when_what_was_sent_is_acknowledged() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    pair.push(&pair.client, client, b"the end");
    let close = close_lingering(&pair, client, 10);
    assert!(is_outstanding(&pair.client, close));
    // The descriptor is gone all the same.
    assert_eq!(pair.client.pop(client).unwrap_err(), Error::BadDescriptor);
    pair.pass(100);
    assert!(matches!(take(&pair.client, close), Outcome::Closed));
    assert_eq!(pair.drain(server), b"the end");
}

#[test]
fn a_close_that_lingers_fails_and_resets_when_its_time_is_over() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    // More than the peer takes without reading.
    pair.push(&pair.client, client, &[1; SEND_BUFFER_BYTES]);
    pair.pass(1_000);
    pair.push(&pair.client, client, &[2; SEND_BUFFER_BYTES]);
    let close = close_lingering(&pair, client, 2);
    pair.pass(1_900);
    assert!(is_outstanding(&pair.client, close));
    pair.pass(200);
    assert!(matches!(take(&pair.client, close), Outcome::Failed(Error::TimedOut)));
    let received = pair.drain(server);
    assert!((SEND_BUFFER_BYTES..2 * SEND_BUFFER_BYTES).contains(&received.len()));
    let pop = pair.server.pop(server).unwrap();
    assert!(matches!(take(&pair.server, pop), Outcome::Failed(Error::ConnectionReset)));
}

#[test]
fn a_close_that_lingers_tells_of_a_reset_and_may_be_given_up() {
    let pair = Pair::new();
    let (client, server) = pair.connection();
    pair.push(&pair.client, client, &[1; SEND_BUFFER_BYTES]);
    pair.pass(1_000);
    pair.push(&pair.client, client, &[2; SEND_BUFFER_BYTES]);
    let close = close_lingering(&pair, client, 20);
    pair.pass(100);
    // With unread data the peer's close resets.
    pair.server.close(server).unwrap();
    pair.pass(100);
    assert!(matches!(take(&pair.client, close), Outcome::Failed(Error::ConnectionReset)));

    let (client, connect) = pair.connect();
    pair.pass(10);
    assert!(matches!(take(&pair.client, connect), Outcome::Connected));
    let close = close_lingering(&pair, client, 20);
    pair.client.cancel(close).unwrap();
    assert!(matches!(take(&pair.client, close), Outcome::Failed(Error::Cancelled)));
    let (client, connect) = pair.connect();
    pair.pass(10);
    assert!(matches!(take(&pair.client, connect), Outcome::Connected));
    let close = close_lingering(&pair, client, 20);
    pair.client.discard(close).unwrap();
    pair.pass(100);
}
