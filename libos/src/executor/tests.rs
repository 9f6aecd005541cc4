//! Tasks, timers and wakers.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::library_os::test_support::{Puppet, SECOND, arena, buffer, popped, with_queues, with_queues_and};
use crate::time::ManualClock;
use crate::{Config, Domain, Error, Instant, LibOs, Outcome, SocketKind};

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Counts how often it is woken.
#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn operations_of_several_tasks_meet() {
    let libos = with_queues(4);
    let queue = libos.queue().unwrap();
    let (sender, receiver) = (libos.clone(), libos.clone());
    let receiving = libos.spawn(async move {
        let mut text = String::new();
        for _ in 0..100 {
            text += &String::from_utf8(receiver.pop_async(queue).await.unwrap().0.to_vec()).unwrap();
        }
        text
    });
    libos.spawn(async move {
        for number in 0..100 {
            sender.push_async(queue, buffer(&sender, &format!("{number},"))).await.unwrap();
        }
    });
    let expected: String = (0..100).map(|number| format!("{number},")).collect();
    assert_eq!(libos.block_on(receiving).unwrap(), Ok(expected));
}

#[test]
fn an_operation_future_alone_gets_the_completion() {
    let libos = with_queues(4);
    let queue = libos.queue().unwrap();
    let (claimed, free) = (libos.pop(queue).unwrap(), libos.pop(queue).unwrap());
    let future = libos.operation(claimed).unwrap();
    assert_eq!(libos.operation(claimed).unwrap_err(), Error::BadToken);
    for text in ["first", "second"] {
        let push = libos.push(queue, buffer(&libos, text)).unwrap();
        libos.wait(push, SECOND).unwrap();
    }
    assert_eq!(libos.wait(claimed, SECOND).unwrap_err(), Error::BadToken);
    assert_eq!(libos.discard(claimed).unwrap_err(), Error::BadToken);
    let mut completions = Vec::new();
    assert_eq!(libos.wait_next(&mut completions, 10, SECOND), Ok(1));
    assert_eq!((completions[0].token, popped(&completions[0])), (free, "second".to_owned()));
    assert_eq!(popped(&libos.block_on(future).unwrap()), "first");
}

#[test]
fn a_completed_token_can_still_become_a_future() {
    let libos = with_queues(4);
    let queue = libos.queue().unwrap();
    let token = libos.push(queue, buffer(&libos, "x")).unwrap();
    let future = libos.operation(token).unwrap();
    assert!(!libos.has_ready());
    assert!(matches!(libos.block_on(future).unwrap().outcome, Outcome::Pushed));
}

#[test]
fn dropping_a_future_cancels_the_operation_and_frees_its_slot() {
    let (libos, puppet, _) = Puppet::installed();
    let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
    let token = libos.accept(queue).unwrap();
    drop(libos.operation(token).unwrap());
    assert_eq!(puppet.0.borrow().cancelled, [token]);
    assert_eq!(libos.metrics().unwrap().value("libos.operations_held"), 0);
    // A completion that comes too late drops its data.
    let data = buffer(&libos, "late");
    puppet.complete(token, Outcome::Popped { data: data.clone().into(), from: None });
    libos.poll().unwrap();
    assert!(data.is_unique());
}

#[test]
fn closing_a_queue_ends_the_futures_on_it() {
    let libos = with_queues(4);
    let queue = libos.queue().unwrap();
    let inner = libos.clone();
    let task = libos.spawn(async move { inner.pop_async(queue).await.map(drop) });
    libos.turn().unwrap();
    assert!(!task.is_finished());
    libos.block_on(libos.close_async(queue)).unwrap().unwrap();
    assert_eq!(libos.block_on(task).unwrap(), Ok(Err(Error::Cancelled)));
}

#[test]
fn a_task_that_never_waits_does_not_keep_the_others_from_running() {
    let libos = with_queues(4);
    let queue = libos.queue().unwrap();
    let (greedy, rounds) = (libos.clone(), Rc::new(Cell::new(0_u32)));
    let counted = Rc::clone(&rounds);
    // Every one of its operations is complete as soon as it is submitted.
    libos.spawn(async move {
        loop {
            greedy.push_async(queue, buffer(&greedy, "x")).await.unwrap();
            greedy.pop_async(queue).await.unwrap();
            counted.set(counted.get() + 1);
        }
    });
    libos.block_on(libos.sleep(Duration::from_millis(5))).unwrap();
    assert!(rounds.get() > 64);
    libos.abort_tasks();
}

#[test]
fn tasks_take_turns_and_the_library_os_is_polled_in_between() {
    let (libos, puppet, _) = Puppet::installed();
    let order = Rc::new(RefCell::new(String::new()));
    for name in ['a', 'b', 'c'] {
        let order = Rc::clone(&order);
        libos.spawn(async move {
            for _ in 0..3 {
                order.borrow_mut().push(name);
                yield_now().await;
            }
        });
    }
    let turns: Vec<usize> = (0..5).map(|_| libos.turn().unwrap()).collect();
    assert_eq!(turns, [3, 3, 3, 3, 0]);
    assert_eq!(*order.borrow(), "abcabcabc");
    assert_eq!(puppet.0.borrow().polls.len(), 5);
}

#[test]
fn sleeps_end_in_order_and_not_before_their_time() {
    let clock = ManualClock::new();
    let hook = clock.clone();
    let libos = LibOs::builder()
        .arena(arena())
        .clock(clock)
        .on_idle(move |next| {
            // Nothing but timers happens here, so there always is a next one.
            next.inspect(|next| hook.set(*next)).is_some()
        })
        .build()
        .unwrap();
    let ended = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = [30, 10, 20, 10]
        .map(|ms| {
            let (inner, ended) = (libos.clone(), Rc::clone(&ended));
            libos.spawn(async move {
                inner.sleep(Duration::from_millis(ms)).await;
                assert_eq!(inner.now(), Instant::from_millis(ms));
                ended.borrow_mut().push(ms);
            })
        })
        .into_iter()
        .collect();
    libos.block_on(async { futures_util::future::join_all(tasks).await }).unwrap();
    assert_eq!(*ended.borrow(), [10, 10, 20, 30]);
    assert_eq!(libos.next_deadline(), None);
    assert_eq!(libos.block_on(pending::<()>()), Err(Error::TimedOut), "nothing can ever end this");
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let libos = with_queues(1);
    let long = libos.block_on(libos.timeout(Duration::from_secs(3600), async { 5 })).unwrap();
    assert_eq!(long, Ok(5));
    let mut sleep = libos.sleep(Duration::from_secs(3600));
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut sleep).poll(&mut context).is_pending());
    assert!(libos.next_deadline().is_some());
    drop(sleep);
    assert_eq!(libos.next_deadline(), None);
}

#[test]
fn a_waker_wakes_a_sleeping_executor_from_another_thread() {
    for idle in ["sleep", "adaptive", "spin"] {
        let config = Config::new().set("libos.idle", idle);
        let libos = with_queues_and(1, &config);
        let (send, receive) = mpsc::channel::<Waker>();
        let done = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            for waker in receive {
                // Long enough that a sleeping executor does sleep.
                std::thread::sleep(Duration::from_millis(2));
                counter.fetch_add(1, Ordering::SeqCst);
                waker.wake();
            }
        });
        for round in 0..20 {
            let mut asked = false;
            let wait = poll_fn(|context| {
                if done.load(Ordering::SeqCst) > round {
                    return Poll::Ready(());
                }
                if !std::mem::replace(&mut asked, true) {
                    send.send(context.waker().clone()).unwrap();
                }
                Poll::Pending
            });
            assert_eq!(libos.block_on(wait), Ok(()), "{idle}");
        }
        drop(send);
        thread.join().unwrap();
    }
}

#[test]
fn wake_ups_from_several_threads_lose_nothing_and_do_not_pile_up() {
    const THREADS: usize = 3;
    const ROUNDS: usize = 2_000;
    let config = Config::new().set("libos.idle", "sleep");
    let libos = with_queues_and(1, &config);
    let count = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    let turns = Cell::new(0);
    let mut started = false;
    let wait = poll_fn(|context| {
        turns.set(turns.get() + 1);
        if !std::mem::replace(&mut started, true) {
            for _ in 0..THREADS {
                let (count, waker) = (Arc::clone(&count), context.waker().clone());
                threads.push(std::thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        count.fetch_add(1, Ordering::SeqCst);
                        waker.wake_by_ref();
                    }
                }));
            }
        }
        if count.load(Ordering::SeqCst) == THREADS * ROUNDS { Poll::Ready(()) } else { Poll::Pending }
    });
    libos.block_on(wait).unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(turns.get() <= 1 + THREADS * ROUNDS);
}

#[test]
fn wakers_outlive_tasks_and_the_library_os() {
    let libos = with_queues(1);
    let kept = Rc::new(RefCell::new(None));
    let keep = Rc::clone(&kept);
    let task = libos.spawn(poll_fn(move |context| {
        keep.replace(Some(context.waker().clone()));
        Poll::Ready(())
    }));
    libos.block_on(task).unwrap().unwrap();
    let waker = kept.take().unwrap();
    waker.wake_by_ref();
    // The finished task's place goes to one of these, which the old waker does not wake.
    let turns = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let counted = Rc::clone(&turns);
        libos.spawn(poll_fn(move |_| {
            counted.set(counted.get() + 1);
            Poll::<()>::Pending
        }));
    }
    libos.turn().unwrap();
    waker.wake_by_ref();
    assert_eq!(libos.turn(), Ok(0));
    assert_eq!(turns.get(), 3);
    drop(libos);
    std::thread::spawn(move || waker.wake()).join().unwrap();
}

#[test]
fn futures_polled_by_foreign_wakers_work_too() {
    let libos = with_queues(4);
    let queues: Vec<_> = (0..10).map(|_| libos.queue().unwrap()).collect();
    let texts = libos.block_on(async {
        // `join_all` of many futures polls each with a waker of its own.
        let pops = queues.iter().map(|queue| libos.pop_async(*queue));
        let pushes = async {
            for queue in queues.iter().rev() {
                yield_now().await;
                libos.push_async(*queue, buffer(&libos, &queue.to_string())).await.unwrap();
            }
        };
        // More than 30 futures, so that `join_all` has them in a set with wakers of its own.
        let many = pops.map(futures_util::future::Either::Left);
        let fill = (0..40).map(|_| futures_util::future::Either::Right(pending_once()));
        let all = futures_util::future::join_all(many.chain(fill));
        futures_util::join!(all, pushes).0
    });
    let texts: Vec<String> = texts
        .unwrap()
        .into_iter()
        .flatten()
        .map(|(data, _)| String::from_utf8(data.to_vec()).unwrap())
        .filter(|text| !text.is_empty())
        .collect();
    assert_eq!(texts, queues.iter().map(ToString::to_string).collect::<Vec<_>>());
}

async fn pending_once() -> Result<(crate::ScatterGather, Option<std::net::SocketAddr>), Error> {
    yield_now().await;
    Ok((crate::ScatterGather::new(), None))
}

#[test]
fn a_foreign_waker_may_call_the_library_os() {
    struct Calling(AtomicBool);
    thread_local! {
        static LIBOS: RefCell<Option<LibOs>> = const { RefCell::new(None) };
    }
    impl Wake for Calling {
        fn wake(self: Arc<Self>) {
            let polled = LIBOS.with_borrow(|libos| libos.as_ref().unwrap().poll());
            self.0.store(polled.is_ok(), Ordering::SeqCst);
        }
    }
    let libos = with_queues(1);
    LIBOS.set(Some(libos.clone()));
    let queue = libos.queue().unwrap();
    let calling = Arc::new(Calling(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&calling));
    let mut pop = pin!(libos.pop_async(queue));
    assert!(pop.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    libos.push(queue, buffer(&libos, "x")).unwrap();
    assert!(calling.0.load(Ordering::SeqCst));
    assert!(pop.poll(&mut Context::from_waker(&waker)).is_ready());
    LIBOS.set(None);
}

#[test]
fn a_foreign_waker_is_called_once_for_each_completion() {
    let libos = with_queues(1);
    let queue = libos.queue().unwrap();
    let counting = Arc::new(CountingWaker::default());
    let waker = Waker::from(Arc::clone(&counting));
    let mut context = Context::from_waker(&waker);
    let mut pop = pin!(libos.pop_async(queue));
    for _ in 0..3 {
        assert!(pop.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(Arc::strong_count(&counting), 3, "polling again replaces the waker");
    libos.push(queue, buffer(&libos, "x")).unwrap();
    libos.poll().unwrap();
    assert_eq!(counting.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_blocked_task_lets_the_others_run() {
    let libos = with_queues(1);
    let queue = libos.queue().unwrap();
    let (outer, other) = (libos.clone(), libos.clone());
    let task = libos.spawn(async move {
        let inner = outer.clone();
        outer.block_on(async move { inner.pop_async(queue).await }).unwrap().unwrap().0.to_vec()
    });
    libos.spawn(async move {
        yield_now().await;
        other.push_async(queue, buffer(&other, "x")).await.unwrap();
    });
    assert_eq!(libos.block_on(task).unwrap().unwrap(), b"x");
}

#[test]
fn an_aborted_task_is_dropped_and_its_handle_says_so() {
    let libos = with_queues(1);
    let alive = Rc::new(());
    let held = Rc::clone(&alive);
    let task = libos.spawn(async move {
        pending::<()>().await;
        drop(held);
    });
    libos.turn().unwrap();
    task.abort();
    assert_eq!(Rc::strong_count(&alive), 1);
    assert_eq!(libos.block_on(task).unwrap(), Err(Error::Cancelled));
}

#[test]
fn a_task_that_panics_is_gone_and_harms_no_other() {
    let libos = with_queues(1);
    let fine = libos.spawn(async {
        yield_now().await;
        7
    });
    let faulty = libos.spawn(async { panic!("on purpose") });
    let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| libos.turn()));
    assert!(turn.is_err());
    assert_eq!(libos.block_on(faulty).unwrap(), Err::<(), _>(Error::Cancelled));
    assert_eq!(libos.block_on(fine).unwrap(), Ok(7));
    assert_eq!(libos.metrics().unwrap().value("libos.tasks"), 0);
}

#[test]
fn tasks_go_with_the_library_os() {
    let libos = with_queues(1);
    let alive = Rc::new(());
    let held = Rc::clone(&alive);
    libos.spawn(async move {
        pending::<()>().await;
        drop(held);
    });
    libos.turn().unwrap();
    drop(libos);
    assert_eq!(Rc::strong_count(&alive), 1);
    // A task with a handle of its own keeps the library OS, until it is aborted.
    let libos = with_queues(1);
    let (held, inner) = (Rc::clone(&alive), libos.clone());
    libos.spawn(async move {
        inner.sleep(Duration::from_secs(3600)).await;
        drop(held);
    });
    libos.turn().unwrap();
    libos.abort_tasks();
    assert_eq!(Rc::strong_count(&alive), 1);
}
