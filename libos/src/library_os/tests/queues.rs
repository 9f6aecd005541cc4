//! What happens to operations on queues.

use super::support::*;
use crate::{
    Config, Domain, Error, Handle, OperationKind, Outcome, QueueDescriptor, Shutdown, SocketKind, Token,
};

#[test]
fn what_is_pushed_is_popped_in_order_and_not_copied() {
    let libos = with_queues(8);
    let queue = libos.queue().unwrap();
    let first = buffer(&libos, "one");
    let address = first.as_ptr();
    let pushes = [libos.push(queue, first), libos.push(queue, buffer(&libos, "two"))].map(Result::unwrap);
    for completion in libos.wait_all(&pushes, SECOND).unwrap() {
        assert!(matches!(completion.outcome, Outcome::Pushed));
        assert_eq!((completion.queue, completion.kind), (queue, OperationKind::Push));
    }
    let pops = [libos.pop(queue), libos.pop(queue)].map(Result::unwrap);
    let completions = libos.wait_all(&pops, SECOND).unwrap();
    assert_eq!(completions.iter().map(popped).collect::<Vec<_>>(), ["one", "two"]);
    let Outcome::Popped { data, .. } = &completions[0].outcome else { unreachable!() };
    assert_eq!(data.iter().next().unwrap().as_ptr(), address);
}

#[test]
fn pops_submitted_first_get_what_is_pushed_first() {
    let libos = with_queues(8);
    let queue = libos.queue().unwrap();
    let pops: Vec<Token> = (0..6).map(|_| libos.pop(queue).unwrap()).collect();
    for text in ["a", "b", "c", "d", "e", "f"] {
        libos.push(queue, buffer(&libos, text)).unwrap();
    }
    let completions = libos.wait_all(&pops, SECOND).unwrap();
    assert_eq!(completions.iter().map(popped).collect::<String>(), "abcdef");
}

#[test]
fn a_full_queue_leaves_the_push_outstanding_until_a_pop_makes_room() {
    let libos = with_queues(2);
    let queue = libos.queue().unwrap();
    let pushes: Vec<Token> =
        ["a", "b", "c"].iter().map(|text| libos.push(queue, buffer(&libos, text)).unwrap()).collect();
    assert!(libos.try_take(pushes[1]).unwrap().is_some());
    assert!(libos.try_take(pushes[2]).unwrap().is_none());
    let pop = libos.pop(queue).unwrap();
    assert_eq!(popped(&libos.wait(pop, SECOND).unwrap()), "a");
    assert!(matches!(libos.try_take(pushes[2]).unwrap().unwrap().outcome, Outcome::Pushed));
}

#[test]
fn each_token_has_one_completion() {
    let libos = with_queues(8);
    let queue = libos.queue().unwrap();
    let token = libos.push(queue, buffer(&libos, "x")).unwrap();
    assert_ne!(token.raw(), 0);
    assert!(libos.wait(token, SECOND).is_ok());
    assert_eq!(libos.wait(token, SECOND).unwrap_err(), Error::BadToken);
    assert_eq!(libos.try_take(token).unwrap_err(), Error::BadToken);
    assert_eq!(libos.cancel(token).unwrap_err(), Error::BadToken);
    // The slot is used again, under another token.
    let next = libos.push(queue, buffer(&libos, "y")).unwrap();
    assert_ne!(next, token);
    assert_eq!(libos.try_take(token).unwrap_err(), Error::BadToken);
}

#[test]
fn a_module_that_completes_a_token_twice_is_heard_once() {
    let (libos, puppet, _) = Puppet::installed();
    let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let token = libos.connect(queue, PEER).unwrap();
    puppet.complete(token, Outcome::Connected);
    puppet.complete(token, Outcome::Failed(Error::ConnectionReset));
    assert!(matches!(libos.wait(token, SECOND).unwrap().outcome, Outcome::Connected));
    puppet.complete(token, Outcome::Connected);
    libos.poll().unwrap();
    assert!(!libos.has_ready());
    assert_eq!(libos.metrics().unwrap().value("libos.completed.connect"), 1);
}

#[test]
fn close_cancels_what_is_outstanding_in_order_and_then_completes() {
    let (libos, puppet, _) = Puppet::installed();
    let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let other = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let untouched = libos.pop(other).unwrap();
    let start = |kind| match kind {
        OperationKind::Pop => libos.pop(queue).unwrap(),
        OperationKind::Push => libos.push(queue, buffer(&libos, "x")).unwrap(),
        _ => libos.accept(queue).unwrap(),
    };
    let (pop, push, accept) = (OperationKind::Pop, OperationKind::Push, OperationKind::Accept);
    let tokens: Vec<Token> = [pop, push, accept, pop, pop, push].map(start).into();
    let close = libos.close(queue).unwrap();
    assert_eq!(puppet.0.borrow().closed, [Handle(1)]);

    let mut completions = Vec::new();
    assert_eq!(libos.wait_next(&mut completions, 100, SECOND), Ok(7));
    let order: Vec<Token> = completions.iter().map(|completion| completion.token).collect();
    assert_eq!(order, [tokens, vec![close]].concat());
    let (last, cancelled) = completions.split_last().unwrap();
    assert!(matches!(last.outcome, Outcome::Closed));
    assert_eq!((last.kind, last.queue), (OperationKind::Close, queue));
    for completion in cancelled {
        assert!(matches!(completion.outcome, Outcome::Failed(Error::Cancelled)));
    }
    assert!(libos.try_take(untouched).unwrap().is_none());
    assert_eq!(libos.pop(queue).unwrap_err(), Error::BadDescriptor);
    assert_eq!(libos.close(queue).unwrap_err(), Error::BadDescriptor);
    // The descriptor is free, and its next owner has nothing to do with the former one.
    assert_eq!(libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap(), queue);
}

#[test]
fn a_cancelled_operation_completes_as_cancelled_and_the_module_is_told() {
    let (libos, puppet, _) = Puppet::installed();
    let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let token = libos.accept(queue).unwrap();
    libos.cancel(token).unwrap();
    assert_eq!(puppet.0.borrow().cancelled, [token]);
    libos.cancel(token).unwrap();
    assert_eq!(puppet.0.borrow().cancelled, [token], "told once");
    let completion = libos.wait(token, SECOND).unwrap();
    assert!(matches!(completion.outcome, Outcome::Failed(Error::Cancelled)));
}

#[test]
fn pops_that_wait_are_kept_until_the_module_has_something_and_it_is_asked_once() {
    let (libos, puppet, _) = Puppet::installed();
    let queue = libos.socket(Domain::Ipv4, SocketKind::Datagram).unwrap();
    let [first, cancelled, second] = [0; 3].map(|_| libos.pop(queue).unwrap());
    libos.cancel(cancelled).unwrap();
    assert_eq!(puppet.0.borrow().asked, 1);
    for text in ["one", "two", "three"] {
        puppet.0.borrow_mut().arrived.push_back(buffer(&libos, text));
    }
    for (token, text) in [(first, "one"), (second, "two")] {
        assert_eq!(popped(&libos.wait(token, SECOND).unwrap()), text);
    }
    // Nobody waited for the third: whether there is more is the module's to say.
    assert_eq!(puppet.0.borrow().asked, 1);
    let third = libos.pop(queue).unwrap();
    assert_eq!(popped(&libos.try_take(third).unwrap().unwrap()), "three");
    assert_eq!(puppet.0.borrow().asked, 2);
}

#[test]
fn a_call_that_may_change_what_a_pop_gets_has_the_module_asked_again() {
    let (libos, puppet, _) = Puppet::installed();
    let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    for asked in 1..3 {
        libos.cancel(libos.pop(queue).unwrap()).unwrap();
        libos.cancel(libos.pop(queue).unwrap()).unwrap();
        assert_eq!(puppet.0.borrow().asked, asked);
        assert_eq!(libos.shutdown(queue, Shutdown::Read), Err(Error::NotSupported));
    }
}

#[test]
fn a_cancelled_pop_leaves_its_data_to_the_next_one() {
    let libos = with_queues(8);
    let queue = libos.queue().unwrap();
    let (first, second) = (libos.pop(queue).unwrap(), libos.pop(queue).unwrap());
    libos.cancel(first).unwrap();
    libos.push(queue, buffer(&libos, "x")).unwrap();
    assert_eq!(popped(&libos.wait(second, SECOND).unwrap()), "x");
}

#[test]
fn an_accepted_connection_gets_a_descriptor() {
    let (libos, puppet, _) = Puppet::installed();
    let listener = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let token = libos.accept(listener).unwrap();
    puppet.0.borrow_mut().to_accept.push_back((token, Handle(77)));
    let completion = libos.wait(token, SECOND).unwrap();
    let Outcome::Accepted { queue, peer } = completion.outcome else { panic!("{completion:?}") };
    assert_eq!((queue, peer), (QueueDescriptor::from_raw(1), PEER));
    libos.close(queue).unwrap();
    assert_eq!(puppet.0.borrow().closed, [Handle(77)]);
}

#[test]
fn an_accept_without_a_descriptor_or_without_an_owner_leaves_the_connection_with_the_module() {
    let config = Config::new().set("libos.max_descriptors", 1);
    let (libos, puppet, _) = Puppet::installed_with(&config);
    let listener = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    assert_eq!(libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap_err(), Error::TooManyDescriptors);
    let (full, cancelled) = (libos.accept(listener).unwrap(), libos.accept(listener).unwrap());
    libos.discard(cancelled).unwrap();
    puppet.0.borrow_mut().to_accept.extend([(full, Handle(1)), (cancelled, Handle(2))]);
    let completion = libos.wait(full, SECOND).unwrap();
    assert!(matches!(completion.outcome, Outcome::Failed(Error::TooManyDescriptors)));
    let results = puppet.0.borrow().accept_results.clone();
    assert_eq!(results, [Err(Error::TooManyDescriptors), Err(Error::BadToken)]);
}

#[test]
fn discarding_gives_back_what_the_operation_brought() {
    let (libos, puppet, _) = Puppet::installed();
    let listener = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let (accept, pop) = (libos.accept(listener).unwrap(), libos.pop(listener).unwrap());
    puppet.0.borrow_mut().to_accept.push_back((accept, Handle(77)));
    let data = buffer(&libos, "data");
    puppet.complete(pop, Outcome::Popped { data: data.clone().into(), from: None });
    libos.poll().unwrap();
    assert!(!data.is_unique());
    libos.discard(pop).unwrap();
    assert!(data.is_unique());
    libos.discard(accept).unwrap();
    assert_eq!(puppet.0.borrow().closed, [Handle(77)]);
    let metrics = libos.metrics().unwrap();
    assert_eq!(metrics.value("libos.operations_held"), 0);
    assert_eq!(metrics.value("libos.descriptors_open"), 1);
}

#[test]
fn the_limit_of_operations_counts_completions_that_nobody_took() {
    let config = Config::new().set("libos.max_operations", 3);
    let libos = with_queues_and(8, &config);
    let queue = libos.queue().unwrap();
    let pushed: Vec<Token> = (0..2).map(|_| libos.push(queue, buffer(&libos, "x")).unwrap()).collect();
    let popped = libos.pop(queue).unwrap();
    assert_eq!(libos.pop(queue).unwrap_err(), Error::TooManyOperations);
    assert_eq!(libos.close(queue).unwrap_err(), Error::TooManyOperations);
    libos.wait(popped, SECOND).unwrap();
    let again = libos.pop(queue).expect("one slot is free again");
    libos.wait_all(&[pushed[0], pushed[1], again], SECOND).unwrap();
    let close = libos.close(queue).expect("a failed close left the queue as it was");
    assert!(matches!(libos.wait(close, SECOND).unwrap().outcome, Outcome::Closed));
}

#[test]
fn a_queue_is_made_by_the_first_module_that_has_them() {
    let (libos, _, _) = Puppet::installed();
    assert_eq!(libos.queue().unwrap_err(), Error::NotSupported);
    libos.install(crate::MemoryQueues::new(1)).unwrap();
    let queue = libos.queue().unwrap();
    let accept = libos.accept(queue).unwrap();
    let completion = libos.wait(accept, SECOND).unwrap();
    assert!(matches!(completion.outcome, Outcome::Failed(Error::NotSupported)));
    assert_eq!(libos.bind(queue, PEER).unwrap_err(), Error::NotSupported);
}

#[test]
fn metrics_count_operations_by_kind_and_ask_every_module() {
    let libos = with_queues(8);
    let queue = libos.queue().unwrap();
    let before = libos.metrics().unwrap();
    libos.push(queue, buffer(&libos, "x")).unwrap();
    let cancelled = libos.pop(queue).and_then(|_| libos.pop(queue)).unwrap();
    libos.cancel(cancelled).unwrap();
    let metrics = libos.metrics().unwrap().since(&before);
    let expected = [
        ("libos.submitted.push", 1),
        ("libos.completed.push", 1),
        ("libos.submitted.pop", 2),
        ("libos.failed.pop", 1),
        ("libos.operations_held", 3),
        ("memory_queue.pushed", 1),
        ("memory_queue.popped", 1),
        ("memory_queue.queues", 1),
    ];
    for (name, value) in expected {
        assert!(metrics.get(name).is_some(), "{name} is there");
        assert_eq!(metrics.value(name), value, "{name}");
    }
}
