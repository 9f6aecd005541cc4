//! What a connection and the stack show of themselves.

use libos::metrics::{Metric, SnapshotWriter};
use libos::{Instant, SocketOption, SocketOptionName, StreamInfo};

use super::script::{MSS, Script};
use super::seg::seg;

#[test]
fn a_snapshot_tells_what_a_connection_has_sent_lost_and_received() {
    let mut t = Script::new();
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS).wscale(2));
    t.expect(seg().syn().seq(0).ack(1));
    t.pass(20);
    t.inject(seg().ack(1).win(5_000));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    t.inject(seg().ack(1).data(700).win(5_000));
    t.inject(seg().seq(2_001).ack(1).data(300).win(5_000));
    t.write(id, 12_000);
    let _ = t.take_sent();
    t.pass(20);
    t.inject(seg().seq(701).ack(4_001).win(5_000));
    // 4,000 bytes in a round trip of 20 ms.
    assert_eq!(t.info(id).delivery_bytes_per_s, Some(200_000));
    t.pass(1_000);
    let info = t.info(id);
    assert_eq!((info.acknowledged_bytes, info.received_bytes), (4_000, 700));
    assert_eq!((info.receive_queue_bytes, info.out_of_order_bytes, info.send_queue_bytes), (700, 300, 8_000));
    assert!(info.retransmitted_segments >= 1 && info.retransmitted_bytes >= 1_000, "{info:?}");
    assert_eq!((info.path_mtu_bytes, info.rcv_mss_bytes), (1_500, 700));
    assert_eq!(info.window_scales.map(|(theirs, _)| theirs), Some(2));
    let Ok(SocketOption::StreamInfo(shown)) = t.stack.tcp_option(id, SocketOptionName::StreamInfo) else {
        panic!("no snapshot");
    };
    assert_eq!(shown, StreamInfo::from(&info));
    assert_eq!((shown.state, shown.rtt_us, shown.send_window_bytes), (1, 20_000, 20_000));
    assert_eq!(shown.least_rtt_us, 20_000);
    let ages =
        [shown.last_data_received, shown.last_acknowledgment_received].map(|at| (t.now - at).as_millis());
    assert_eq!(ages, [1_020, 1_000]);
    assert!(shown.last_data_sent > shown.last_acknowledgment_received);
}

#[test]
fn bytes_are_counted_without_the_ends_of_the_stream() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 500);
    let _ = t.take_sent();
    t.stack.tcp_shutdown(id, libos::Shutdown::Write).unwrap();
    let _ = t.take_sent();
    t.inject(seg().ack(502).data(300).fin());
    let info = t.info(id);
    assert_eq!((info.acknowledged_bytes, info.received_bytes), (500, 300));
}

#[test]
fn counters_have_the_names_of_the_mibs() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().ack(1).data(100));
    let value = |t: &Script, name: &str| {
        let mut writer = SnapshotWriter::new();
        t.stack.metrics(&mut writer);
        writer.finish().get(name).map(Metric::value)
    };
    for (name, expected) in [
        ("tcp.mib.tcpPassiveOpens", 1),
        ("tcp.mib.tcpCurrEstab", 1),
        ("tcp.mib.tcpInSegs", 3),
        ("tcp.mib.SyncookiesSent", 0),
        ("tcp.receive_queue_bytes", 100),
    ] {
        assert_eq!(value(&t, name), Some(expected), "{name}");
    }
    t.stack.tcp_abort(t.now, id);
    assert_eq!(value(&t, "tcp.mib.tcpCurrEstab"), Some(0));
}

#[test]
fn a_snapshot_counts_what_is_reported_lost_and_sent_again() {
    let mut t = Script::new();
    let id = t.open_with(seg().mss(MSS).sack_permitted());
    assert_eq!(t.info(id).last_data_sent, Instant::ZERO);
    t.write(id, 10_000);
    let _ = t.take_sent();
    t.inject(seg().ack(1).sack(&[(1_001, 3_001), (5_001, 9_001)]));
    let info = t.info(id);
    assert_eq!(
        (info.sacked_segments, info.resent_in_flight_segments + info.lost_segments),
        (6, 3),
        "{info:?}"
    );
    assert!(!info.reordering_seen);
    // What was given up for lost was only late.
    t.inject(seg().ack(1).sack(&[(3_001, 4_001), (1_001, 3_001), (5_001, 9_001)]));
    assert_eq!(t.info(id).sacked_segments, 7);
}

#[test]
fn as_many_connections_as_the_configuration_says_are_among_the_metrics() {
    for (limit, shown) in [(0, 0), (1, 1), (9, 2)] {
        let mut t = Script::configured(|config| config.tcp.metrics_connections = limit);
        let _ = t.listen();
        for port in [1, 2] {
            t.inject(seg().seq(0).syn().mss(MSS).with_peer_port(port));
            t.inject(seg().ack(1).with_peer_port(port));
        }
        let mut writer = SnapshotWriter::new();
        t.stack.metrics(&mut writer);
        let metrics = writer.finish();
        let names = [1, 2].map(|port| format!("tcp.connection.192.0.2.1:80-192.0.2.2:{port}.cwnd_bytes"));
        assert_eq!(names.iter().filter(|name| metrics.get(name).is_some()).count(), shown, "{limit}");
    }
}
