//! Calls from where they do not belong.

use std::cell::RefCell;
use std::rc::Rc;

use super::support::*;
use crate::{Domain, Error, LibOs, MemoryQueues, QueueDescriptor, SocketKind, Token};

#[test]
fn every_call_from_inside_a_module_is_refused() {
    let (libos, puppet, _) = Puppet::installed();
    let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let token = libos.pop(queue).unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (inner, results) = (libos.clone(), Rc::clone(&seen));
    puppet.0.borrow_mut().inside = Some(Box::new(move || {
        let results = &mut *results.borrow_mut();
        results.push(("socket", inner.socket(Domain::Ipv4, SocketKind::Stream).err()));
        results.push(("bind", inner.bind(queue, PEER).err()));
        results.push(("pop", inner.pop(queue).err()));
        results.push(("close", inner.close(queue).err()));
        results.push(("wait", inner.wait(token, None).err()));
        results.push(("next_completion", inner.next_completion(None).err()));
        results.push(("wait_next", inner.wait_next(&mut Vec::new(), 1, None).err()));
        results.push(("try_take", inner.try_take(token).err()));
        results.push(("cancel", inner.cancel(token).err()));
        results.push(("operation", inner.operation(token).err()));
        results.push(("poll", inner.poll().err()));
        results.push(("turn", inner.turn().err()));
        results.push(("block_on", inner.block_on(std::future::pending::<()>()).err()));
        results.push(("install", inner.install(MemoryQueues::new(1)).err()));
        results.push(("metrics", inner.metrics().err()));
        assert!(!inner.has_ready());
        assert_eq!(inner.next_deadline(), None);
    }));
    libos.poll().unwrap();
    assert_eq!(seen.borrow().len(), 15);
    for (call, error) in seen.borrow().iter() {
        assert_eq!(*error, Some(Error::Busy), "{call}");
    }
    assert!(libos.cancel(token).is_ok(), "nothing was harmed");
}

#[test]
fn a_future_dropped_inside_a_module_is_given_up_at_the_next_poll() {
    let (libos, puppet, _) = Puppet::installed();
    let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let token = libos.accept(queue).unwrap();
    let mut future = Some(libos.operation(token).unwrap());
    puppet.0.borrow_mut().inside = Some(Box::new(move || drop(future.take())));
    libos.poll().unwrap();
    assert!(puppet.0.borrow().cancelled.is_empty());
    libos.poll().unwrap();
    assert_eq!(puppet.0.borrow().cancelled, [token]);
    assert_eq!(libos.metrics().unwrap().value("libos.operations_held"), 0);
}

#[test]
fn descriptors_and_tokens_from_nowhere_are_errors() {
    let libos = with_queues(1);
    let queue = QueueDescriptor::from_raw(12_345);
    type Call = fn(&LibOs, QueueDescriptor) -> Option<Error>;
    let calls: [(&str, Call); 6] = [
        ("bind", |libos, queue| libos.bind(queue, PEER).err()),
        ("accept", |libos, queue| libos.accept(queue).err()),
        ("pop", |libos, queue| libos.pop(queue).err()),
        ("push", |libos, queue| libos.push(queue, buffer(libos, "x")).err()),
        ("close", |libos, queue| libos.close(queue).err()),
        ("peer_address", |libos, queue| libos.peer_address(queue).err()),
    ];
    for (name, call) in calls {
        assert_eq!(call(&libos, queue), Some(Error::BadDescriptor), "{name}");
    }
    for raw in [0, 1, u64::MAX, 1 << 24] {
        assert_eq!(libos.try_take(Token::from_raw(raw)).unwrap_err(), Error::BadToken, "{raw}");
        assert_eq!(libos.discard(Token::from_raw(raw)).unwrap_err(), Error::BadToken, "{raw}");
    }
}

#[test]
fn a_pop_of_nothing_is_refused() {
    let libos = with_queues(1);
    let queue = libos.queue().unwrap();
    for limit in [crate::PopLimit { segments: 0, bytes: 1 }, crate::PopLimit { segments: 1, bytes: 0 }] {
        assert_eq!(libos.pop_with(queue, limit).unwrap_err(), Error::InvalidArgument);
    }
}
