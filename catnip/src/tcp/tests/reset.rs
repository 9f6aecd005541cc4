//! Resets: those we send (RFC 9293, section 3.5.2) and those we believe (RFC 5961).

use libos::Error;

use super::script::{MSS, Script, fix_receive_buffer};
use super::seg::{Number, Seg, seg};
use crate::tcp::State;

#[test]
fn a_closed_port_answers_with_the_numbers_of_the_rfc() {
    // An acknowledgment's number is taken over; else all of the segment is acknowledged.
    let with_ack = |segment: Seg| (segment.ack(77), Some(seg().rst().raw_seq(77)));
    let without = |segment: Seg, end: u32| (segment, Some(seg().rst().raw_seq(0).ack(end)));
    let cases = [
        without(seg().seq(0).syn(), 1),
        without(seg().seq(0).syn().mss(MSS).wscale(7), 1),
        without(seg().seq(10).data(100), 110),
        without(seg().seq(10).fin().data(100), 111),
        without(seg().seq(0).syn().fin().bytes(b"xyz"), 5),
        without(seg().seq(500), 500),
        with_ack(seg().seq(0)),
        with_ack(seg().seq(0).data(10)),
        with_ack(seg().seq(0).syn()),
        with_ack(seg().seq(0).fin()),
        (seg().seq(0).rst(), None),
        (seg().seq(0).rst().ack(1), None),
    ];
    for (mut segment, answer) in cases {
        let mut t = Script::new();
        if let Some(Number::Relative(ack)) = segment.ack {
            segment = segment.raw_ack(ack);
        }
        t.inject(segment);
        match answer {
            Some(answer) => drop(t.expect(answer)),
            None => t.expect_nothing(),
        }
        t.expect_nothing();
    }
}

#[test]
fn an_acknowledgment_to_a_listener_is_reset_and_a_reset_is_not_answered() {
    let mut t = Script::new();
    t.listen();
    for segment in [seg().raw_ack(77), seg().syn().raw_ack(77), seg().fin().raw_ack(77).data(10)] {
        t.inject(segment);
        t.expect(seg().rst().raw_seq(77));
    }
    for segment in [seg().rst(), seg().rst().ack(1), seg().rst().syn()] {
        t.inject(segment);
        t.expect_nothing();
    }
}

#[test]
fn a_reset_with_exactly_the_next_number_ends_the_connection() {
    for reset in [seg().rst(), seg().rst().ack(1), seg().rst().ack(50_000)] {
        let mut t = Script::new();
        let id = t.open();
        t.inject(reset);
        t.expect_nothing();
        assert_eq!(t.state(id), State::Closed);
        assert_eq!(t.read_outcome(id), Err(Error::ConnectionReset));
        assert_eq!(t.try_write(id, 1), Err(Error::ConnectionReset));
        // The slot goes with the program's close, and later segments are answered as at a closed port.
        t.close(id);
        assert_eq!(t.stack.tcp_connections(), 0);
    }
}

#[test]
fn a_reset_elsewhere_in_the_window_is_challenged_and_one_outside_ignored() {
    let mut t = Script::new();
    let id = t.open();
    for seq in [2, 1_000, 60_000] {
        t.inject(seg().rst().seq(seq));
        t.expect(seg().seq(1).ack(1));
        t.pass(1_000);
    }
    for seq in [0, 100_000_000] {
        t.inject(seg().rst().seq(seq));
        t.expect_nothing();
    }
    assert_eq!(t.state(id), State::Established);
}

#[test]
fn what_was_received_before_a_reset_is_read_before_the_error() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().ack(1).data(500));
    t.inject(seg().rst().seq(501));
    assert_eq!(t.read_at_most(id, 200), 200);
    assert_eq!(t.read(id), 300);
    assert_eq!(t.read_outcome(id), Err(Error::ConnectionReset));
}

#[test]
fn a_reset_is_an_error_unless_both_sides_had_closed() {
    let half_closed = |t: &mut Script, id| {
        t.stack.tcp_shutdown(id, libos::Shutdown::Write).unwrap();
        t.expect(seg().fin().seq(1).ack(1));
    };
    // (the peer's segments after our FIN, the state they lead to, the error)
    let cases: [(&[Seg], State, Option<Error>); 4] = [
        (&[], State::FinWait1, Some(Error::ConnectionReset)),
        (&[seg().ack(2)], State::FinWait2, Some(Error::ConnectionReset)),
        (&[seg().fin().ack(1)], State::Closing, None),
        (&[seg().fin().ack(2)], State::TimeWait, None),
    ];
    for (segments, state, error) in cases {
        let mut t = Script::new();
        let id = t.open();
        half_closed(&mut t, id);
        segments.iter().for_each(|segment| t.inject(segment.clone()));
        let _ = t.take_sent();
        assert_eq!(t.state(id), state);
        let next = if matches!(state, State::Closing | State::TimeWait) { 2 } else { 1 };
        t.inject(seg().rst().seq(next));
        assert_eq!(t.stack.tcp_error(id), error, "{state}");
        let after = if state == State::TimeWait { State::TimeWait } else { State::Closed };
        assert_eq!(t.state(id), after, "{state}");
    }
}

#[test]
fn a_reset_in_close_wait_is_an_error_and_in_last_ack_the_end() {
    for (close, error) in [(false, Some(Error::ConnectionReset)), (true, None)] {
        let mut t = Script::new();
        let id = t.open();
        t.inject(seg().fin().ack(1));
        t.expect(seg().seq(1).ack(2));
        if close {
            t.stack.tcp_shutdown(id, libos::Shutdown::Write).unwrap();
            t.expect(seg().fin().seq(1).ack(2));
        }
        t.inject(seg().rst().seq(2));
        assert_eq!((t.state(id), t.stack.tcp_error(id)), (State::Closed, error));
    }
}

#[test]
fn a_syn_in_a_synchronised_state_is_challenged_wherever_it_is() {
    for seq in [0, 1, 5_000, 100_000_000] {
        for segment in [seg().syn().seq(seq), seg().syn().seq(seq).ack(1)] {
            let mut t = Script::new();
            let id = t.open();
            t.inject(segment);
            t.expect(seg().seq(1).ack(1));
            t.expect_nothing();
            assert_eq!(t.state(id), State::Established);
        }
    }
}

#[test]
fn a_peer_that_lost_its_state_gets_through_by_way_of_the_challenge() {
    let mut t = Script::new();
    let listener = t.listen();
    let id = t.open_on(listener, seg().mss(MSS));
    let old_isn = t.peer_isn;
    t.peer_isn = old_isn.wrapping_add(500_000_000);
    t.inject(seg().syn().seq(0));
    let challenge = t.take_sent().pop().unwrap();
    assert_eq!(challenge.segment.acknowledgment.raw(), old_isn.wrapping_add(1));
    // In SYN-SENT the peer answers a bad acknowledgment with a reset at that number.
    t.inject(seg().rst().raw_seq(challenge.segment.acknowledgment.raw()));
    assert_eq!(t.stack.tcp_error(id), Some(Error::ConnectionReset));
    t.open_on(listener, seg().mss(MSS));
}

#[test]
fn challenges_are_sent_at_most_every_half_second() {
    let mut t = Script::new();
    let id = t.open();
    for round in 0..3 {
        for _ in 0..50 {
            t.inject(seg().syn().seq(1_000));
            t.inject(seg().rst().seq(1_000));
            t.inject(seg().ack(9_999));
        }
        t.expect(seg().seq(1).ack(1));
        t.expect_nothing();
        t.pass(500);
        assert_eq!(t.state(id), State::Established, "round {round}");
    }
    assert_eq!(t.counters().challenge_acks, 450);
}

#[test]
fn a_reset_counts_while_the_window_is_closed() {
    for reset in [seg().rst().seq(1_001), seg().rst().seq(1_001).data(10)] {
        let mut t = Script::configured(|config| fix_receive_buffer(config, 1_000));
        let id = t.open();
        t.inject(seg().ack(1).data(1_000));
        t.pass(40);
        t.expect(seg().seq(1).ack(1_001).win(0));
        t.inject(seg().rst().seq(1_002));
        t.expect_nothing();
        t.inject(reset);
        assert_eq!(t.stack.tcp_error(id), Some(Error::ConnectionReset));
    }
}

#[test]
fn an_abort_sends_a_reset_with_the_next_number_and_leaves_nothing() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 100);
    t.expect(seg().seq(1).ack(1).data(100));
    t.stack.tcp_abort(t.now, id);
    t.expect(seg().rst().seq(101).ack(1));
    assert_eq!(t.stack.tcp_connections(), 0);
    t.inject(seg().ack(101));
    t.expect(seg().rst().seq(101));
}
