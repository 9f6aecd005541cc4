//! Readers that are slower than the writer: windows close, pushes wait, and everything goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::net::TcpListener;
use catnip_os::libos::{Domain, Outcome, SocketKind};
use socket2::SockRef;

use crate::link::{self, Family, PATIENCE};
use crate::namespace;
use crate::noise::{Noise, Summer};

const PORT: u16 = 5004;
const BYTES: usize = 8 << 20;
const PUSH_BYTES: usize = 256 << 10;
/// Long enough for several probes of a closed window.
const NAP: Duration = Duration::from_millis(900);

#[test]
fn pushes_wait_while_the_kernel_does_not_read_and_go_on_when_it_does() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        let client = thread::spawn(|| {
            let mut stream = link::connect(Family::V4.catnip(PORT));
            SockRef::from(&stream).set_recv_buffer_size(64 << 10).unwrap();
            thread::sleep(NAP);
            let mut summer = Summer::default();
            let mut chunk = vec![0; 50_000];
            loop {
                match stream.read(&mut chunk).unwrap() {
                    0 => return summer.sum(),
                    len => summer.add(&chunk[..len]),
                }
            }
        });
        let wait = |token, timeout| libos.wait(token, Some(timeout)).map(|completion| completion.outcome);
        let listener = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        libos.bind(listener, Family::V4.catnip(PORT)).unwrap();
        libos.listen(listener, 1).unwrap();
        let outcome = wait(libos.accept(listener).unwrap(), PATIENCE).unwrap();
        let Outcome::Accepted { queue, .. } = outcome else { panic!("{outcome:?}") };

        let mut noise = Noise::new(1);
        let mut summer = Summer::default();
        let mut tokens = Vec::new();
        for _ in 0..BYTES / PUSH_BYTES {
            let mut buffer = libos.arena().allocate(PUSH_BYTES).unwrap();
            buffer.set_len(PUSH_BYTES);
            noise.fill(&mut buffer);
            summer.add(&buffer);
            tokens.push(libos.push(queue, buffer.freeze()).unwrap());
        }
        // The send queue takes a part of it: the rest waits with its tokens.
        let last = *tokens.last().unwrap();
        assert!(wait(last, NAP / 2).is_err(), "nobody reads, and everything was taken");
        for token in tokens {
            assert!(matches!(wait(token, PATIENCE).unwrap(), Outcome::Pushed));
        }
        libos.close(queue).unwrap();
        assert_eq!(link::drive_until_joined(&libos, client), summer.sum());
        assert!(link::metric(&libos, "catnip.tcp.zero_window_probes") > 0, "the window never closed");
    });
}

#[test]
fn a_window_that_was_closed_for_many_probes_opens_and_everything_goes_on() {
    // Each waits twice as long as the one before. The simulator has windows that are closed for hours.
    const PROBES: u64 = 6;
    namespace::enter("-Urn", || {
        // Frames of one segment: of larger ones the kernel throws away what its buffer has no room for, though its
        // window says that it has.
        let config = link::config().set("tcp.rto_min_ms", 1).set("tap.offload", false);
        for family in Family::BOTH {
            let libos = link::open(&config);
            let probes = || link::metric(&libos, "catnip.tcp.zero_window_probes");
            let (go_on, wait) = mpsc::channel();
            let client = thread::spawn(move || {
                let mut stream = link::connect_with_buffer(family.catnip(PORT), 64 << 10);
                wait.recv().unwrap();
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                bytes
            });
            link::run(&libos, async {
                let mut listener = TcpListener::bind(&libos, family.catnip(PORT)).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let sent = Noise::bytes(3, BYTES);
                let data = libos.arena().copy_from(&sent).unwrap().freeze();
                let push = libos.spawn(async move {
                    stream.push(data).await.unwrap();
                    stream.close().await.unwrap();
                });
                link::until(&libos, "probes are sent", || probes() >= PROBES).await;
                go_on.send(()).unwrap();
                push.await.unwrap();
                let received = link::joined(&libos, client).await;
                assert!(received == sent, "{family:?}: {} other bytes", received.len());
            });
        }
    });
}

#[test]
fn the_kernel_is_held_back_while_catnip_does_not_pop() {
    namespace::enter("-Urn", || {
        let config = link::config()
            .set("tcp.receive_buffer_bytes", 100_000)
            .set("tcp.receive_buffer_max_bytes", 100_000);
        let libos = link::open(&config);
        let client = thread::spawn(|| {
            let mut stream = link::connect(Family::V4.catnip(PORT));
            SockRef::from(&stream).set_send_buffer_size(64 << 10).unwrap();
            let bytes = Noise::bytes(2, BYTES);
            let mut summer = Summer::default();
            summer.add(&bytes);
            // What goes without waiting is what buffers hold.
            stream.set_nonblocking(true).unwrap();
            let stop_at = Instant::now() + NAP;
            let mut sent = 0;
            while Instant::now() < stop_at {
                match stream.write(&bytes[sent..]) {
                    Ok(len) => sent += len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(NAP / 100),
                    Err(error) => panic!("{error}"),
                }
            }
            stream.set_nonblocking(false).unwrap();
            stream.write_all(&bytes[sent..]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            (sent, summer.sum())
        });
        let received = link::run(&libos, async {
            let mut listener = TcpListener::bind(&libos, Family::V4.catnip(PORT)).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            libos.sleep(NAP + NAP / 4).await;
            let mut summer = Summer::default();
            loop {
                let data = stream.pop().await.unwrap();
                if data.is_empty() {
                    return summer.sum();
                }
                data.iter().for_each(|buffer| summer.add(buffer));
            }
        });
        let (sent_early, sent) = link::drive_until_joined(&libos, client);
        assert_eq!(received, sent);
        assert!(sent_early < BYTES / 4, "{sent_early} bytes went though nobody took them");
    });
}

#[test]
fn a_window_that_was_closed_opens_again_without_waiting_for_a_probe() {
    namespace::enter("-Urn", || {
        let libos = link::open(
            &link::config()
                .set("tcp.receive_buffer_bytes", 20_000)
                .set("tcp.receive_buffer_max_bytes", 20_000),
        );
        let rounds = 20;
        let client = thread::spawn(move || {
            let mut stream = link::connect(Family::V4.catnip(PORT));
            stream.write_all(&vec![1; rounds * 40_000]).unwrap();
        });
        let elapsed = link::run(&libos, async {
            let mut listener = TcpListener::bind(&libos, Family::V4.catnip(PORT)).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let start = Instant::now();
            let mut left = rounds * 40_000;
            while left > 0 {
                // Time for the window to close.
                libos.sleep(Duration::from_millis(5)).await;
                left -= stream.pop().await.unwrap().len();
            }
            start.elapsed()
        });
        link::drive_until_joined(&libos, client);
        // A probe comes 200 ms after the window has closed, at the earliest.
        let pauses = Duration::from_millis(200 * rounds as u64);
        assert!(elapsed < pauses, "{elapsed:?}");
    });
}
