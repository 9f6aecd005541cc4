//! What a connection and the stack show of themselves.

use libos::metrics::{Metric, SnapshotWriter};
use libos::{SocketOption, SocketOptionName, StreamInfo};

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
