//! Buffers that grow with what a connection carries.

use libos::{SocketOption, SocketOptionName};

use super::script::{MSS, Script};
use super::seg::seg;
use crate::events::ConnectionId;
use crate::stack::StackConfig;

const RTT_MS: u64 = 20;

/// A connection over a path of [`RTT_MS`], with window scaling and buffers of 40,000 bytes that may grow to 400,000.
fn open() -> (Script, ConnectionId) {
    let mut t = Script::configured(|config: &mut StackConfig| {
        let options = &mut config.tcp.options;
        options.receive_buffer_bytes = 40_000;
        options.receive_buffer_max_bytes = 400_000;
        options.send_buffer_bytes = 40_000;
        options.send_buffer_max_bytes = 400_000;
    });
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS).wscale(7));
    t.expect(seg().syn().seq(0).ack(1));
    t.pass(RTT_MS);
    t.inject(seg().ack(1));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    (t, id)
}

/// The peer fills the window once a round trip, of which the program reads `percent` in a hundred. Returns the
/// limit of the receive buffer afterwards.
fn stream(t: &mut Script, id: ConnectionId, round_trips: u32, percent: usize) -> usize {
    let mut at = 1;
    for _ in 0..round_trips {
        let window = t.info(id).rcv_wnd_bytes;
        let burst: Vec<_> =
            (0..window / 1_000).map(|n| seg().seq(at + n * 1_000).ack(1).data(1_000)).collect();
        at += burst.len() as u32 * 1_000;
        let bytes = burst.len() * 1_000;
        // Spread over the round trip, as by a path of limited bandwidth.
        let parts = burst.chunks(burst.len().div_ceil(10).max(1)).map(<[_]>::to_vec).collect::<Vec<_>>();
        for part in parts {
            t.inject_burst(part);
            t.pass(RTT_MS / 10);
            if percent == 100 {
                t.read(id);
            }
        }
        if percent < 100 {
            t.read_at_most(id, bytes * percent / 100);
        }
        let _ = t.take_sent();
    }
    receive_limit(t, id)
}

fn receive_limit(t: &mut Script, id: ConnectionId) -> usize {
    match t.stack.tcp_option(id, SocketOptionName::ReceiveBuffer) {
        Ok(SocketOption::ReceiveBuffer(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_receive_buffer_grows_while_the_program_keeps_up() {
    let (mut t, id) = open();
    assert_eq!(receive_limit(&mut t, id), 40_000);
    let limit = stream(&mut t, id, 3, 100);
    assert!((60_000..400_000).contains(&limit), "{limit}");
}

#[test]
fn the_receive_buffer_reaches_its_maximum_and_stays_there() {
    let (mut t, id) = open();
    assert_eq!(stream(&mut t, id, 14, 100), 400_000);
    t.pass(40);
    assert!(t.info(id).rcv_wnd_bytes > 350_000, "{:?}", t.info(id));
}

#[test]
fn a_program_that_reads_slowly_gets_no_larger_receive_buffer() {
    let (mut t, id) = open();
    assert_eq!(stream(&mut t, id, 20, 30), 40_000);
}

#[test]
fn a_named_size_stays_as_it_is() {
    let (mut t, id) = open();
    t.stack.tcp_set_option(id, SocketOption::ReceiveBuffer(50_000)).unwrap();
    assert_eq!(stream(&mut t, id, 10, 100), 50_000);
    t.stack.tcp_set_option(id, SocketOption::SendBuffer(50_000)).unwrap();
    assert_eq!(t.try_write(id, 500_000), Ok(50_000));
}

#[test]
fn the_send_buffer_follows_the_congestion_window() {
    let (mut t, id) = open();
    t.window = 4_000;
    t.inject(seg().ack(1));
    assert_eq!(t.try_write(id, 500_000), Ok(40_000), "the window is ten segments as yet");
    let mut most_queued = 0;
    for _ in 0..8 {
        t.pass(RTT_MS);
        for sent in t.take_sent() {
            t.inject(seg().ack(t.relative_seq(&sent) + sent.payload.len() as u32));
        }
        t.try_write(id, 500_000).unwrap();
        most_queued = most_queued.max(t.info(id).send_queue_bytes);
    }
    assert!((100_000..=400_000).contains(&most_queued), "{most_queued}");
}
