//! Waits: what they return, when they poll, and when they give up.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::support::*;
use crate::time::ManualClock;
use crate::{Domain, Error, Instant, LibOs, Outcome, QueueDescriptor, SocketKind, Token};

fn socket_with_pops(libos: &LibOs, count: usize) -> (QueueDescriptor, Vec<Token>) {
    let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    (queue, (0..count).map(|_| libos.pop(queue).unwrap()).collect())
}

#[test]
fn wait_next_returns_completions_in_order_and_at_most_as_many_as_asked() {
    let (libos, puppet, _) = Puppet::installed();
    let (_, tokens) = socket_with_pops(&libos, 5);
    for place in [3, 0, 4, 1] {
        puppet.complete(tokens[place], Outcome::Connected);
    }
    let mut completions = Vec::new();
    assert_eq!(libos.wait_next(&mut completions, 3, SECOND), Ok(3));
    assert_eq!(libos.wait_next(&mut completions, 3, SECOND), Ok(1));
    let order: Vec<Token> = completions.iter().map(|completion| completion.token).collect();
    assert_eq!(order, [tokens[3], tokens[0], tokens[4], tokens[1]]);
    assert_eq!(libos.wait_next(&mut completions, 3, AT_ONCE), Err(Error::TimedOut));
    assert_eq!(libos.wait_next(&mut completions, 0, AT_ONCE), Err(Error::InvalidArgument));
}

#[test]
fn the_next_completion_is_the_one_that_is_ready_for_longest() {
    let (libos, puppet, _) = Puppet::installed();
    assert_eq!(libos.next_completion(None).unwrap_err(), Error::WouldBlock);
    let (_, tokens) = socket_with_pops(&libos, 3);
    assert_eq!(libos.next_completion(AT_ONCE).unwrap_err(), Error::TimedOut);
    for place in [2, 0] {
        puppet.complete(tokens[place], Outcome::Connected);
    }
    for place in [2, 0] {
        assert_eq!(libos.next_completion(SECOND).unwrap().token, tokens[place]);
    }
    assert_eq!(libos.next_completion(AT_ONCE).unwrap_err(), Error::TimedOut);
}

#[test]
fn wait_next_says_when_there_is_nothing_to_wait_for() {
    let (libos, _, _) = Puppet::installed();
    assert_eq!(libos.wait_next(&mut Vec::new(), 1, None), Err(Error::WouldBlock));
}

#[test]
fn wait_any_picks_the_earliest_completion_wherever_it_is_in_the_list() {
    let (libos, puppet, _) = Puppet::installed();
    let (_, tokens) = socket_with_pops(&libos, 4);
    for place in [2, 0] {
        puppet.complete(tokens[place], Outcome::Connected);
    }
    let (place, completion) = libos.wait_any(&tokens, SECOND).unwrap();
    assert_eq!((place, completion.token), (2, tokens[2]));
    let rest = [tokens[0], tokens[1], tokens[3]];
    assert_eq!(libos.wait_any(&rest, SECOND).unwrap().0, 0);
    assert_eq!(libos.wait_any(&[], SECOND).unwrap_err(), Error::InvalidArgument);
    assert_eq!(libos.wait_any(&tokens, SECOND).unwrap_err(), Error::BadToken);
}

#[test]
fn a_wait_for_all_that_times_out_takes_nothing() {
    let (libos, puppet, _) = Puppet::installed();
    let (_, tokens) = socket_with_pops(&libos, 2);
    puppet.complete(tokens[1], Outcome::Connected);
    assert_eq!(libos.wait_all(&tokens, AT_ONCE).unwrap_err(), Error::TimedOut);
    puppet.complete(tokens[0], Outcome::Pushed);
    let completions = libos.wait_all(&tokens, AT_ONCE).unwrap();
    assert!(matches!(completions[0].outcome, Outcome::Pushed));
    assert!(matches!(completions[1].outcome, Outcome::Connected));
    assert!(libos.wait_all(&[], AT_ONCE).unwrap().is_empty());
    assert_eq!(libos.wait_all(&[tokens[0], tokens[0]], AT_ONCE).unwrap_err(), Error::InvalidArgument);
}

#[test]
fn a_timeout_leaves_the_token_outstanding() {
    let (libos, puppet, _) = Puppet::installed();
    let (_, tokens) = socket_with_pops(&libos, 1);
    assert_eq!(libos.wait(tokens[0], AT_ONCE).unwrap_err(), Error::TimedOut);
    puppet.complete(tokens[0], Outcome::Connected);
    assert!(libos.wait(tokens[0], AT_ONCE).is_ok());
}

#[test]
fn a_timeout_is_over_at_the_first_poll_that_is_not_before_it() {
    let clock = ManualClock::new();
    let moved = clock.clone();
    let libos = LibOs::builder()
        .arena(arena())
        .clock(clock)
        .on_idle(move |_| {
            moved.advance(Duration::from_micros(400));
            true
        })
        .build()
        .unwrap();
    let puppet = Puppet::default();
    libos.install(puppet.clone()).unwrap();
    let (_, tokens) = socket_with_pops(&libos, 1);
    assert_eq!(libos.wait(tokens[0], Some(Duration::from_millis(1))).unwrap_err(), Error::TimedOut);
    let micros: Vec<u64> = puppet.0.borrow().polls.iter().map(|poll| poll.as_nanos() / 1_000).collect();
    assert_eq!(micros, [0, 400, 800, 1_200], "one poll each time the clock moved");
}

#[test]
fn a_real_timeout_is_kept_asleep_and_awake() {
    for idle in ["spin", "adaptive", "sleep"] {
        let config = crate::Config::new().set("libos.idle", idle);
        let libos = with_queues_and(1, &config);
        let queue = libos.queue().unwrap();
        let token = libos.pop(queue).unwrap();
        let before = std::time::Instant::now();
        assert_eq!(libos.wait(token, Some(Duration::from_millis(20))).unwrap_err(), Error::TimedOut);
        assert!(before.elapsed() >= Duration::from_millis(20), "{idle}");
        let metrics = libos.metrics().unwrap();
        assert_eq!(metrics.value("libos.sleeps") > 0, idle != "spin", "{idle}");
    }
}

#[test]
fn the_idle_hook_learns_what_happens_next_and_ends_a_wait_that_nothing_else_can_end() {
    let asked = Rc::new(Cell::new(None));
    let asked_by_hook = Rc::clone(&asked);
    let libos = LibOs::builder()
        .arena(arena())
        .clock(ManualClock::new())
        .on_idle(move |next| {
            asked_by_hook.set(Some(next));
            false
        })
        .build()
        .unwrap();
    let puppet = Puppet::default();
    libos.install(puppet.clone()).unwrap();
    let (_, tokens) = socket_with_pops(&libos, 1);
    assert_eq!(libos.wait(tokens[0], None).unwrap_err(), Error::TimedOut);
    assert_eq!(asked.get(), Some(None));
    puppet.0.borrow_mut().deadline = Some(Instant::from_millis(3));
    assert_eq!(libos.wait(tokens[0], None).unwrap_err(), Error::TimedOut);
    assert_eq!(asked.get(), Some(Some(Instant::from_millis(3))));
    assert_eq!(libos.wait(tokens[0], Some(Duration::from_millis(2))).unwrap_err(), Error::TimedOut);
    assert_eq!(asked.get(), Some(Some(Instant::from_millis(2))));
}

#[test]
fn a_virtual_clock_that_nobody_moves_ends_the_wait() {
    let (libos, puppet, _) = Puppet::installed();
    let (_, tokens) = socket_with_pops(&libos, 1);
    assert_eq!(libos.wait(tokens[0], None).unwrap_err(), Error::TimedOut);
    // A module that always asks for one more poll, and one whose deadline has passed, do not hang it.
    puppet.0.borrow_mut().needs_poll = true;
    puppet.0.borrow_mut().deadline = Some(Instant::ZERO);
    assert_eq!(libos.wait(tokens[0], None).unwrap_err(), Error::TimedOut);
}

#[test]
fn a_completion_that_is_there_is_taken_without_a_poll_but_not_forever() {
    let (libos, puppet, _) = Puppet::installed();
    let (_, tokens) = socket_with_pops(&libos, 100);
    for token in &tokens {
        puppet.complete(*token, Outcome::Connected);
    }
    libos.poll().unwrap();
    assert_eq!(puppet.0.borrow().polls.len(), 1);
    for token in &tokens[..16] {
        libos.wait(*token, None).unwrap();
    }
    assert_eq!(puppet.0.borrow().polls.len(), 1);
    for token in &tokens[16..] {
        libos.wait(*token, None).unwrap();
    }
    // 84 more waits, of which every seventeenth polls.
    assert_eq!(puppet.0.borrow().polls.len(), 1 + 5);
}

#[test]
fn a_module_with_something_to_send_is_polled_even_if_the_completion_is_there() {
    let (libos, puppet, _) = Puppet::installed();
    let (_, tokens) = socket_with_pops(&libos, 1);
    puppet.complete(tokens[0], Outcome::Connected);
    libos.poll().unwrap();
    puppet.0.borrow_mut().needs_poll = true;
    libos.wait(tokens[0], None).unwrap();
    assert_eq!(puppet.0.borrow().polls.len(), 2);
}

/// A push is flushed at once, but what a close or a shutdown leaves to be sent waits for a poll: the program may
/// have nothing else to wait for.
#[test]
fn what_a_close_or_a_shutdown_leaves_to_be_sent_goes_out_with_the_next_wait() {
    for closes in [true, false] {
        let (libos, puppet, _) = Puppet::installed();
        let (queue, tokens) = socket_with_pops(&libos, 1);
        libos.poll().unwrap();
        let push = libos.push(queue, buffer(&libos, "last words")).unwrap();
        puppet.0.borrow_mut().needs_poll = true;
        let token = if closes {
            libos.close(queue).unwrap()
        } else {
            // A puppet refuses it; a module that does it may have something to send afterwards.
            let _ = libos.shutdown(queue, crate::Shutdown::Write);
            libos.cancel(tokens[0]).unwrap();
            tokens[0]
        };
        assert_ne!(token, push);
        libos.wait(token, None).unwrap();
        assert_eq!(puppet.0.borrow().polls.len(), 2, "closes: {closes}");
    }
}

#[test]
fn a_program_that_stays_away_while_peers_wait_is_counted() {
    let config = crate::Config::new().set("libos.late_poll_ms", 5);
    let libos = LibOs::builder().arena(arena()).config(&config).build().unwrap();
    let puppet = Puppet::default();
    libos.install(puppet.clone()).unwrap();
    for pending_work in [false, true] {
        puppet.0.borrow_mut().pending_work = pending_work;
        libos.poll().unwrap();
        std::thread::sleep(Duration::from_millis(10));
        libos.poll().unwrap();
        let metrics = libos.metrics().unwrap();
        assert_eq!(metrics.value("libos.late_polls"), u64::from(pending_work));
        assert_eq!(metrics.value("libos.longest_late_poll_ns") >= 10_000_000, pending_work);
    }
}

#[test]
fn time_asleep_in_a_wait_is_not_the_programs() {
    let config = crate::Config::new().set("libos.late_poll_ms", 5).set("libos.idle", "sleep");
    let libos = LibOs::builder().arena(arena()).config(&config).build().unwrap();
    let puppet = Puppet::default();
    libos.install(puppet.clone()).unwrap();
    puppet.0.borrow_mut().pending_work = true;
    let (_, tokens) = socket_with_pops(&libos, 1);
    let wait = libos.wait(tokens[0], Some(Duration::from_millis(20)));
    assert_eq!(wait.unwrap_err(), Error::TimedOut);
    let metrics = libos.metrics().unwrap();
    assert!(metrics.value("libos.sleeps") > 0);
    assert_eq!(metrics.value("libos.late_polls"), 0);
}
