use std::thread;
use std::time::Duration;

use super::*;
use crate::library_os::test_support::{AT_ONCE, SECOND, arena, buffer, popped};
use crate::{Config, Error, LibOs, Outcome, QueueDescriptor, ScatterGather};

fn library_os() -> LibOs {
    LibOs::builder().arena(arena()).build().unwrap()
}

fn pop(libos: &LibOs, queue: QueueDescriptor) -> String {
    let token = libos.pop(queue).unwrap();
    popped(&libos.wait(token, SECOND).unwrap())
}

fn push(libos: &LibOs, queue: QueueDescriptor, text: &str) -> Outcome {
    let token = libos.push(queue, buffer(libos, text)).unwrap();
    libos.wait(token, AT_ONCE).unwrap().outcome
}

#[test]
fn messages_cross_in_order_and_a_full_channel_lets_pushes_wait() {
    let (one, other) = (library_os(), library_os());
    let (sender, receiver) = channel(2);
    let (outbox, inbox) = (one.attach(sender).unwrap(), other.attach(receiver).unwrap());
    for text in ["a", "b"] {
        assert!(matches!(push(&one, outbox, text), Outcome::Pushed));
    }
    let waits = one.push(outbox, buffer(&one, "c")).unwrap();
    assert_eq!(one.wait(waits, AT_ONCE).unwrap_err(), Error::TimedOut);
    assert_eq!(pop(&other, inbox), "a");
    assert!(matches!(one.wait(waits, SECOND).unwrap().outcome, Outcome::Pushed));
    assert_eq!([pop(&other, inbox), pop(&other, inbox)], ["b", "c"]);
}

#[test]
fn a_message_has_all_its_segments_and_a_large_one_is_not_copied() {
    let (one, other) = (library_os(), library_os());
    let (sender, receiver) = channel(2);
    let (outbox, inbox) = (one.attach(sender).unwrap(), other.attach(receiver).unwrap());
    let mut data = ScatterGather::from(buffer(&one, "small, "));
    data.push(buffer(&one, &"large".repeat(1000)));
    let addresses: Vec<_> = data.iter().map(|segment| segment.as_ptr()).collect();
    let token = one.push(outbox, data).unwrap();
    assert!(matches!(one.wait(token, AT_ONCE).unwrap().outcome, Outcome::Pushed));
    let token = other.pop(inbox).unwrap();
    let Outcome::Popped { data, from: None } = other.wait(token, SECOND).unwrap().outcome else {
        panic!("not a pop")
    };
    assert_eq!(data.to_vec(), format!("small, {}", "large".repeat(1000)).into_bytes());
    let arrived: Vec<_> = data.iter().map(|segment| segment.as_ptr()).collect();
    assert!(other.arena().contains(arrived[0]), "a small segment is in the receiver's memory");
    assert_eq!(arrived[1], addresses[1], "a large one is where it was");
    drop(data);
    one.poll().unwrap();
    assert_eq!((one.arena().stats().live_buffers, other.arena().stats().live_buffers), (0, 0));
}

#[test]
fn the_end_of_the_senders_is_empty_data_and_the_end_of_the_receiver_a_reset() {
    let (one, other) = (library_os(), library_os());
    let (sender, receiver) = channel(2);
    let (outbox, inbox) = (one.attach(sender).unwrap(), other.attach(receiver).unwrap());
    push(&one, outbox, "last");
    one.close(outbox).unwrap();
    assert_eq!([pop(&other, inbox), pop(&other, inbox)], ["last", ""]);

    let (sender, receiver) = channel(1);
    let (outbox, inbox) = (one.attach(sender).unwrap(), other.attach(receiver).unwrap());
    push(&one, outbox, "unread");
    let waits = one.push(outbox, buffer(&one, "waits")).unwrap();
    other.close(inbox).unwrap();
    assert!(matches!(one.wait(waits, SECOND).unwrap().outcome, Outcome::Failed(Error::ConnectionReset)));
    assert!(matches!(push(&one, outbox, "more"), Outcome::Failed(Error::ConnectionReset)));
    one.poll().unwrap();
    assert_eq!(one.arena().stats().live_buffers, 0);
}

#[test]
fn each_end_goes_one_way_and_empty_messages_are_refused() {
    let (one, other) = (library_os(), library_os());
    let (sender, receiver) = channel(2);
    let (outbox, inbox) = (one.attach(sender).unwrap(), other.attach(receiver).unwrap());
    let failure = |libos: &LibOs, token| match libos.wait(token, AT_ONCE).unwrap().outcome {
        Outcome::Failed(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(failure(&one, one.pop(outbox).unwrap()), Error::NotSupported);
    assert_eq!(failure(&other, other.push(inbox, buffer(&other, "x")).unwrap()), Error::NotSupported);
    assert_eq!(failure(&one, one.push(outbox, ScatterGather::new()).unwrap()), Error::InvalidArgument);
}

#[test]
fn cancelled_operations_take_no_message() {
    let (one, other) = (library_os(), library_os());
    let (sender, receiver) = channel(1);
    let (outbox, inbox) = (one.attach(sender).unwrap(), other.attach(receiver).unwrap());
    let waits = other.pop(inbox).unwrap();
    other.cancel(waits).unwrap();
    push(&one, outbox, "first");
    let cancelled = one.push(outbox, buffer(&one, "never")).unwrap();
    one.cancel(cancelled).unwrap();
    assert_eq!(pop(&other, inbox), "first");
    push(&one, outbox, "second");
    assert_eq!(pop(&other, inbox), "second");
}

#[test]
fn every_sender_gets_its_turn() {
    let libos = library_os();
    let (senders, receiver) = channel_from(3, 8);
    let inbox = libos.attach(receiver).unwrap();
    for (name, sender) in ["a", "b", "c"].into_iter().zip(senders) {
        let outbox = libos.attach(sender).unwrap();
        push(&libos, outbox, &format!("{name}1"));
        push(&libos, outbox, &format!("{name}2"));
    }
    let all: Vec<_> = (0..6).map(|_| pop(&libos, inbox)).collect();
    assert_eq!(all, ["a1", "b1", "c1", "a2", "b2", "c2"]);
}

/// Sends messages there and back between two sleeping library OSes.
#[test]
fn a_message_wakes_a_core_that_sleeps_and_so_does_room() {
    const ROUNDS: usize = 200;
    let config = Config::new().set("libos.idle", "sleep");
    let asleep = move || LibOs::builder().arena(arena()).config(&config).build().unwrap();
    let ((to, inbox), (back, answers)) = (channel(1), channel(1));
    let make = asleep.clone();
    let echo = thread::spawn(move || {
        let libos = make();
        let (inbox, back) = (libos.attach(inbox).unwrap(), libos.attach(back).unwrap());
        loop {
            let token = libos.pop(inbox).unwrap();
            match libos.wait(token, Some(Duration::from_secs(20))).unwrap().outcome {
                Outcome::Popped { data, .. } if data.is_empty() => return,
                Outcome::Popped { data, .. } => {
                    let token = libos.push(back, data).unwrap();
                    libos.wait(token, Some(Duration::from_secs(20))).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let libos = asleep();
    let (to, answers) = (libos.attach(to).unwrap(), libos.attach(answers).unwrap());
    for round in 0..ROUNDS {
        // Two, where there is room for one: the second waits for the receiver.
        let texts = [format!("{round}"), "x".repeat(2000)];
        let tokens: Vec<_> = texts.iter().map(|text| libos.push(to, buffer(&libos, text)).unwrap()).collect();
        for text in &texts {
            let token = libos.pop(answers).unwrap();
            assert_eq!(&popped(&libos.wait(token, Some(Duration::from_secs(20))).unwrap()), text);
        }
        libos.wait_all(&tokens, SECOND).unwrap();
    }
    libos.close(to).unwrap();
    echo.join().unwrap();
}
