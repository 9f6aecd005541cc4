//! The choice of the congestion-control algorithm, and what each makes of a connection: `TCP_CONGESTION`.

use libos::{CongestionName, Error, SocketOption, SocketOptionName};

use super::script::Script;
use super::seg::seg;
use crate::events::ConnectionId;
use crate::tcp::congestion::Algorithm;

fn named(name: &str) -> SocketOption {
    SocketOption::Congestion(CongestionName::new(name).unwrap())
}

fn chosen(t: &mut Script, id: ConnectionId) -> Result<SocketOption, Error> {
    t.stack.tcp_option(id, SocketOptionName::Congestion)
}

/// A connection of that algorithm with the initial window of ten segments in flight and more waiting.
fn in_flight(algorithm: Algorithm) -> (Script, ConnectionId) {
    let mut t = Script::configured(|config| config.tcp.options.congestion = algorithm);
    let id = t.open();
    t.write(id, 100_000);
    assert_eq!(t.take_sent().len(), 10);
    (t, id)
}

#[test]
fn a_listener_hands_its_algorithm_to_what_it_accepts() {
    for name in Algorithm::NAMES {
        let mut t = Script::new();
        let listener = t.listen();
        t.stack.tcp_set_listener_option(listener, named(name)).unwrap();
        assert_eq!(t.stack.tcp_listener_option(listener, SocketOptionName::Congestion), Ok(named(name)));
        let id = t.open_on(listener, seg().mss(1_000));
        assert_eq!(chosen(&mut t, id), Ok(named(name)));
    }
}

#[test]
fn a_connection_that_stands_may_change_its_algorithm_and_starts_over() {
    let (mut t, id) = in_flight(Algorithm::Cubic);
    t.inject(seg().ack(2_001));
    assert_eq!(t.info(id).cwnd_bytes, 12_000);
    assert_eq!(t.stack.tcp_set_option(id, named("vegas")), Err(Error::InvalidArgument));
    assert_eq!((chosen(&mut t, id), t.info(id).cwnd_bytes), (Ok(named("cubic")), 12_000));
    // The name that it has already changes nothing.
    t.stack.tcp_set_option(id, named("cubic")).unwrap();
    assert_eq!(t.info(id).cwnd_bytes, 12_000);
    t.stack.tcp_set_option(id, named("reno")).unwrap();
    assert_eq!((chosen(&mut t, id), t.info(id).cwnd_bytes), (Ok(named("reno")), 10_000));
}

#[test]
fn a_timeout_leaves_each_algorithm_its_own_threshold() {
    for (algorithm, ssthresh_bytes) in [(Algorithm::Cubic, 7_000), (Algorithm::NewReno, 5_000)] {
        let (mut t, id) = in_flight(algorithm);
        t.pass(200);
        assert_eq!((t.info(id).ssthresh_bytes, t.info(id).cwnd_bytes), (ssthresh_bytes, 1_000));
    }
}
