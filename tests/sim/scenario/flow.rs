//! Flow control and the rules about when to send: windows, Nagle's algorithm, delayed acknowledgements.

use std::time::Duration;

use runtime_sim::Verdict;

use super::{FAR_KINDS, SOON, latency, pair, pair_with, stream_bytes};
use crate::host::{Kind, Received};
use crate::wire::Seen;

#[test]
fn six_pushes_without_waiting_are_delivered_in_order() {
    for far in FAR_KINDS {
        for nagle in [false, true] {
            let mut world = pair_with(far, |host| host.nagle = nagle);
            let (client, server) = world.connect(0, 1);
            let bytes = stream_bytes(6 * 700);
            for piece in bytes.chunks(700) {
                assert_eq!(world.host(0).send(client, piece), Ok(700));
            }
            assert_eq!(world.receive_exactly(1, server, bytes.len(), SOON), bytes);
            world.close_both([(0, client), (1, server)]);
        }
    }
}

#[test]
fn window_reopens_after_a_zero_window() {
    // With the update delivered, and with it lost, when only a probe can find out.
    for far in FAR_KINDS {
        for (reader, update_is_lost) in [(0, false), (1, false), (0, true), (1, true)] {
            let mut world = pair_with(far, |host| {
                host.receive_buffer_bytes = 8 << 10;
                host.send_buffer_bytes = 64 << 10;
            });
            let (client, server) = world.connect(0, 1);
            let sockets = [client, server];
            let bytes = stream_bytes(40_000);
            let (from, to) = (1 - reader, reader);
            assert_eq!(world.host(from).send(sockets[from], &bytes), Ok(bytes.len()));
            world.run_for(Duration::from_secs(5));
            if update_is_lost {
                let until = world.now() + Duration::from_millis(50);
                world.fabric.set_script(world.port(from), move |now, _| {
                    if now < until { Verdict::Drop } else { Verdict::Pass }
                });
            }
            let start = world.now();
            let limit = if update_is_lost { Duration::from_secs(15) } else { Duration::from_millis(100) };
            let received = world.receive_exactly(to, sockets[to], bytes.len(), SOON * 3);
            assert_eq!(received, bytes);
            assert!(
                world.elapsed_since(start) < limit,
                "{far:?}, reader {reader}: {:?}",
                world.elapsed_since(start)
            );
            world.close_both([(0, client), (1, server)]);
        }
    }
}

#[test]
fn a_zero_window_is_probed_for_as_long_as_it_lasts() {
    for far in FAR_KINDS {
        let mut world = pair_with(far, |host| host.receive_buffer_bytes = 4 << 10);
        let (client, server) = world.connect(0, 1);
        let bytes = stream_bytes(10_000);
        assert_eq!(world.host(0).send(client, &bytes), Ok(bytes.len()));
        world.run_for(Duration::from_secs(1));
        let before = world.sent_by(0).len();
        world.run_for(Duration::from_secs(30 * 60));
        let probes: Vec<Seen> = world.sent_by(0).split_off(before);
        assert!(probes.iter().all(|seen| seen.segment.payload_bytes <= 1), "more than a probe");
        let gaps = probes.windows(2).map(|pair| pair[1].time.saturating_duration_since(pair[0].time));
        let gaps: Vec<Duration> = gaps.collect();
        assert!(gaps.len() >= 15, "{far:?}: {} probes in half an hour", probes.len());
        assert!(gaps.iter().all(|&gap| gap <= Duration::from_secs(121)), "{gaps:?}");
        assert!(gaps[0] < gaps[gaps.len() - 1], "no backoff: {gaps:?}");
        assert_eq!(world.receive_exactly(1, server, bytes.len(), Duration::from_secs(150)), bytes);
        world.close_both([(0, client), (1, server)]);
    }
}

#[test]
fn one_way_push_and_wait_is_not_bound_to_the_delayed_ack() {
    for far in FAR_KINDS {
        let mut world = pair_with(far, latency(Duration::from_micros(50)));
        let (client, server) = world.connect(0, 1);
        let start = world.now();
        for message in stream_bytes(100 * 64).chunks(64) {
            world.send_all(0, client, message);
            // As a program does that pushes, and waits for the push before it goes on.
            world.run_until(SOON, |world| world.host(0).has_sent(client));
            assert_eq!(world.receive_exactly(1, server, 64, SOON), message);
        }
        let elapsed = world.elapsed_since(start);
        assert!(elapsed < Duration::from_millis(20), "{far:?}: 100 messages took {elapsed:?}");
        world.close_both([(0, client), (1, server)]);
    }
}

#[test]
fn nagle_gathers_small_writes_while_one_is_under_way() {
    for (nagle, expected) in [(true, vec![10, 90]), (false, vec![10; 10])] {
        let mut world = pair_with(Kind::Catnip, |host| {
            host.nagle = nagle;
            host.path.latency = Duration::from_millis(5);
        });
        let (client, server) = world.connect(0, 1);
        let bytes = stream_bytes(100);
        let mut sent = 0;
        // As fast as they are taken, and well within a round trip.
        while sent < bytes.len() {
            sent += world.host(0).send(client, &bytes[sent..sent + 10]).expect("an open connection");
            world.settle();
        }
        assert_eq!(world.receive_exactly(1, server, 100, SOON), bytes);
        let sizes = world.sent_by(0).into_iter().map(|seen| seen.segment.payload_bytes);
        assert_eq!(sizes.filter(|&bytes| bytes > 0).collect::<Vec<_>>(), expected);
        world.close_both([(0, client), (1, server)]);
    }
}

/// When the receiver first acknowledges `count` bytes that come in one go, after they have come.
fn acknowledgement_delay(count: usize) -> Duration {
    let mut world = pair(Kind::Catnip);
    let (client, server) = world.connect(0, 1);
    world.run_for(Duration::from_secs(1));
    let bytes = stream_bytes(count);
    let start = world.now();
    let before = world.sent_by(1).len();
    assert_eq!(world.host(0).send(client, &bytes), Ok(count));
    world.run_for(Duration::from_secs(1));
    let answers = world.sent_by(1).split_off(before);
    let elapsed = answers[0].time.saturating_duration_since(start);
    assert_eq!(world.receive_exactly(1, server, count, SOON), bytes);
    world.close_both([(0, client), (1, server)]);
    elapsed
}

#[test]
fn a_small_segment_is_acknowledged_late_and_two_full_ones_at_once() {
    // RFC 9293, section 3.8.6.3: within 500 ms, and at least every second full segment.
    let small = acknowledgement_delay(100);
    assert!((Duration::from_millis(10)..=Duration::from_millis(500)).contains(&small), "{small:?}");
    let full = acknowledgement_delay(2 * 1448);
    assert!(full < Duration::from_millis(1), "{full:?}");
}

#[test]
fn a_reader_that_stops_and_goes_on_gets_everything() {
    for far in FAR_KINDS {
        let mut world = pair_with(far, |host| host.receive_buffer_bytes = 16 << 10);
        let (client, server) = world.connect(0, 1);
        let bytes = stream_bytes(200_000);
        let mut sent = 0;
        let mut received = Vec::new();
        while received.len() < bytes.len() {
            let end = bytes.len().min(sent + 20_000);
            sent += world.host(0).send(client, &bytes[sent..end]).expect("an open connection");
            if let Received::Data(data) = world.host(1).receive(server, 3_000).expect("an open connection") {
                received.extend(data);
            }
            world.run_for(Duration::from_millis(30));
            assert!(world.now() < libos::Instant::from_millis(60_000), "{far:?}: {} bytes", received.len());
        }
        assert_eq!(received, bytes);
        world.close_both([(0, client), (1, server)]);
    }
}
