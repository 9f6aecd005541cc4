//! Closing: every way from ESTABLISHED to CLOSED (RFC 9293, section 3.6), and what an impolite end does.

use libos::{Error, Shutdown, SocketOption};

use super::script::{MSS, Script};
use super::seg::{Seg, seg};
use crate::events::ConnectionId;
use crate::tcp::State;

fn shut_write(t: &mut Script, id: ConnectionId) {
    t.stack.tcp_shutdown(id, Shutdown::Write).unwrap();
    t.turn();
}

#[test]
fn an_active_close_goes_through_fin_wait_to_time_wait() {
    let mut t = Script::new();
    let id = t.open();
    shut_write(&mut t, id);
    t.expect(seg().fin().seq(1).ack(1));
    assert_eq!(t.state(id), State::FinWait1);
    t.inject(seg().ack(2));
    assert_eq!(t.state(id), State::FinWait2);
    t.inject(seg().fin().ack(2));
    t.expect(seg().seq(2).ack(2));
    assert_eq!(t.state(id), State::TimeWait);
}

#[test]
fn a_passive_close_goes_through_close_wait_and_last_ack_to_the_end() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().fin().ack(1));
    t.expect(seg().seq(1).ack(2));
    assert_eq!((t.state(id), t.read_outcome(id)), (State::CloseWait, Ok(Some(0))));
    t.write(id, 100);
    t.expect(seg().seq(1).ack(2).data(100));
    t.inject(seg().seq(2).ack(101));
    t.close(id);
    t.expect(seg().fin().seq(101).ack(2));
    assert_eq!(t.stack.tcp_connections(), 1);
    t.inject(seg().seq(2).ack(102));
    t.expect_nothing();
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn both_sides_may_close_at_once() {
    let mut t = Script::new();
    let id = t.open();
    shut_write(&mut t, id);
    t.expect(seg().fin().seq(1).ack(1));
    t.inject(seg().fin().ack(1));
    t.expect(seg().seq(2).ack(2));
    assert_eq!(t.state(id), State::Closing);
    t.inject(seg().seq(2).ack(2));
    assert_eq!(t.state(id), State::TimeWait);
}

#[test]
fn a_fin_that_acknowledges_ours_leads_to_time_wait_at_once() {
    let mut t = Script::new();
    let id = t.open();
    shut_write(&mut t, id);
    t.expect(seg().fin().seq(1).ack(1));
    t.inject(seg().fin().ack(2));
    t.expect(seg().seq(2).ack(2));
    assert_eq!(t.state(id), State::TimeWait);
}

#[test]
fn what_was_written_is_sent_and_acknowledged_before_the_end_and_the_fin_rides_on_it() {
    let mut t = Script::new();
    let id = t.open();
    t.window = 1_000;
    t.inject(seg().ack(1));
    t.write(id, 2_500);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.close(id);
    t.inject(seg().ack(1_001));
    t.expect(seg().seq(1_001).ack(1).data(1_000));
    t.inject(seg().ack(2_001));
    t.expect(seg().fin().psh().seq(2_001).ack(1).data(500));
    t.inject(seg().fin().ack(2_502));
    t.expect(seg().seq(2_502).ack(2));
}

#[test]
fn a_fin_is_sent_again_until_it_is_acknowledged_or_the_peer_given_up() {
    let mut t = Script::new();
    let id = t.open();
    t.close(id);
    t.expect(seg().fin().seq(1).ack(1));
    t.pass(200);
    t.expect(seg().fin().seq(1).ack(1));
    t.pass(400);
    t.expect(seg().fin().seq(1).ack(1));
    t.pass(3_600_000);
    assert_eq!(t.take_sent().len(), 13);
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn a_fin_ahead_of_a_gap_waits_for_the_data_before_it() {
    let orders: [&[Seg]; 3] = [
        &[seg().seq(101).fin().ack(1), seg().ack(1).data(100)],
        &[seg().seq(51).fin().ack(1).data(50), seg().ack(1).data(50)],
        &[seg().seq(101).fin().ack(1), seg().seq(51).ack(1).data(50), seg().ack(1).data(60)],
    ];
    for order in orders {
        let mut t = Script::new();
        let id = t.open();
        t.inject(order[0].clone());
        t.expect(seg().seq(1).ack(1));
        assert_eq!((t.state(id), t.read_outcome(id)), (State::Established, Ok(None)));
        order[1..].iter().for_each(|segment| t.inject(segment.clone()));
        assert_eq!(t.state(id), State::CloseWait);
        let last = t.take_sent().pop().unwrap();
        assert_eq!(last.segment.acknowledgment.raw(), t.peer_isn.wrapping_add(102));
        assert_eq!((t.read(id), t.read_outcome(id)), (100, Ok(Some(0))));
    }
}

#[test]
fn a_fin_that_comes_again_is_acknowledged_again() {
    let mut t = Script::new();
    let id = t.open();
    for _ in 0..3 {
        t.inject(seg().fin().ack(1).data(100));
        t.expect(seg().seq(1).ack(102));
    }
    assert_eq!((t.state(id), t.read(id)), (State::CloseWait, 100));
}

#[test]
fn nothing_behind_a_fin_is_data() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().fin().ack(1).data(100));
    t.expect(seg().seq(1).ack(102));
    t.inject(seg().seq(102).ack(1).data(100));
    t.expect(seg().seq(1).ack(102));
    assert_eq!((t.read(id), t.read_outcome(id)), (100, Ok(Some(0))));
}

#[test]
fn after_a_half_close_data_still_comes_in() {
    let mut t = Script::new();
    let id = t.open();
    shut_write(&mut t, id);
    t.expect(seg().fin().seq(1).ack(1));
    assert_eq!(t.try_write(id, 1), Err(Error::Closed));
    t.inject(seg().ack(2).data(1_000));
    t.inject(seg().seq(1_001).ack(2).data(1_000));
    t.expect(seg().seq(2).ack(2_001));
    assert_eq!(t.read(id), 2_000);
    t.pass(3_600_000);
    t.inject(seg().seq(2_001).fin().ack(2).data(10));
    t.expect(seg().seq(2).ack(2_012));
    assert_eq!((t.read(id), t.read_outcome(id)), (10, Ok(Some(0))));
}

#[test]
fn a_peer_that_never_closes_is_waited_for_a_minute_once_the_program_has_gone() {
    for close_first in [true, false] {
        let mut t = Script::new();
        let id = t.open();
        if close_first {
            t.close(id);
            t.inject(seg().ack(2));
        } else {
            shut_write(&mut t, id);
            t.inject(seg().ack(2));
            t.pass(600_000);
            t.close(id);
        }
        let _ = t.take_sent();
        t.pass(59_999);
        assert_eq!(t.stack.tcp_connections(), 1);
        t.pass(1);
        assert_eq!(t.stack.tcp_connections(), 0);
        t.expect_nothing();
    }
}

#[test]
fn closing_with_unread_data_resets() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().ack(1).data(100));
    t.close(id);
    t.expect(seg().rst().seq(1).ack(101));
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn closing_with_linger_zero_resets_whatever_waits_to_be_sent() {
    let mut t = Script::new();
    let id = t.open();
    t.stack.tcp_set_option(id, SocketOption::Linger(Some(std::time::Duration::ZERO))).unwrap();
    t.write(id, 100);
    t.expect(seg().seq(1).ack(1).data(100));
    t.close(id);
    t.expect(seg().rst().seq(101).ack(1));
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn data_for_a_program_that_has_gone_is_reset_in_every_state() {
    // (the window that keeps our FIN back or not, the acknowledgment that comes with the data)
    for (window, ack, state) in
        [(0, 1, State::Established), (30_000, 1, State::FinWait1), (30_000, 2, State::FinWait2)]
    {
        let mut t = Script::new();
        let id = t.open();
        t.inject(seg().ack(1).win(window));
        if window == 0 {
            t.write(id, 10);
        }
        t.close(id);
        if ack == 2 {
            t.inject(seg().ack(2));
        }
        assert_eq!(t.stack.tcp_infos().next().unwrap().state, state);
        let _ = t.take_sent();
        t.inject(seg().ack(ack).data(100).win(window));
        let sent = t.take_sent();
        assert!(sent.last().unwrap().segment.flags.contains(crate::tcp::segment::Flags::RST), "{state}");
        assert_eq!(t.stack.tcp_connections(), 0, "{state}");
    }
}

#[test]
fn closing_during_a_simultaneous_open_sends_the_fin_once_it_stands() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.write(id, 10);
    t.inject(seg().syn().seq(0).mss(MSS));
    t.expect(seg().syn().seq(0).ack(1));
    t.close(id);
    t.expect_nothing();
    t.inject(seg().ack(1));
    t.expect(seg().fin().seq(1).ack(1).data(10));
    t.inject(seg().fin().ack(12));
    t.expect(seg().seq(12).ack(2));
    t.pass(60_000);
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn a_connection_that_ended_keeps_its_slot_for_the_program_but_not_its_ends() {
    let mut t = Script::new();
    let listener = t.listen();
    let old = t.open_on(listener, seg().mss(MSS));
    t.inject(seg().rst());
    assert_eq!((t.state(old), t.stack.tcp_connections()), (State::Closed, 1));
    let new = t.open_on(listener, seg().mss(MSS));
    // Letting go of the old one does not touch the new one between the same ends.
    t.close(old);
    t.inject(seg().ack(1).data(100));
    assert_eq!(t.read(new), 100);
    assert_eq!(t.stack.tcp_connections(), 1);
}
