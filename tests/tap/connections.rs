//! Ten thousand short connections each way, after which nothing is left.

use std::net::TcpListener as KernelListener;
use std::thread;

use catnip_os::libos::LibOs;
use catnip_os::libos::net::{TcpListener, TcpStream};

use crate::link::{self, Family};
use crate::namespace;

const PORT: u16 = 5003;
const THREADS: usize = 4;
const CONNECTIONS: usize = 10_000;

fn open() -> LibOs {
    // Those that close first are in TIME-WAIT: not for longer than a test waits.
    link::open(&link::config().set("tcp.time_wait_ms", 50))
}

fn assert_nothing_left(libos: &LibOs, live_buffers: u64) {
    link::run(libos, async {
        let over = || link::metric(libos, "catnip.tcp.connections") == 0;
        link::until(libos, "all connections are over", over).await;
        let given_back = || link::metric(libos, "arena.live_buffers") <= live_buffers;
        link::until(libos, "all memory was given back", given_back).await;
    });
    assert_eq!(link::metric(libos, "catnip.tcp.listen_overflows"), 0);
    assert_eq!(link::metric(libos, "catnip.tcp.out_resets"), 0);
}

/// Buffers that wait for the next frames.
fn buffers_at_rest(libos: &LibOs) -> u64 {
    libos.poll().unwrap();
    link::metric(libos, "arena.live_buffers")
}

async fn answer_one(stream: TcpStream) {
    let data = stream.pop().await.unwrap();
    assert_eq!(data.to_vec(), b"request");
    stream.push(data).await.unwrap();
    stream.close().await.unwrap();
}

/// One connection after the other; the server closes first or the client does.
fn clients(family: Family, count: usize, server_closes: bool) {
    for _ in 0..count {
        let stream = link::connect(family.catnip(PORT));
        assert_eq!(link::exchange(&stream, b"request"), b"request");
        if server_closes {
            use std::io::Read;
            assert_eq!((&stream).read(&mut [0; 8]).unwrap(), 0);
        }
    }
}

#[test]
fn ten_thousand_short_connections_from_the_kernel_leave_nothing_behind() {
    namespace::enter("-Urn", || {
        let libos = open();
        let at_rest = buffers_at_rest(&libos);
        let servers = Family::BOTH.map(|family| {
            let mut listener = TcpListener::bind(&libos, family.catnip(PORT)).unwrap();
            let task_libos = libos.clone();
            libos.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    task_libos.spawn(answer_one(stream));
                }
            })
        });
        let threads = thread::spawn(|| {
            thread::scope(|scope| {
                for number in 0..THREADS {
                    let family = Family::BOTH[number / 2];
                    scope.spawn(move || clients(family, CONNECTIONS / THREADS, number % 2 == 0));
                }
            });
        });
        link::drive_until_joined(&libos, threads);
        servers.into_iter().for_each(|server| server.abort());
        assert_eq!(link::metric(&libos, "catnip.tcp.passive_opens"), CONNECTIONS as u64);
        assert_nothing_left(&libos, at_rest);
    });
}

#[test]
fn ten_thousand_short_connections_to_the_kernel_leave_nothing_behind() {
    namespace::enter("-Urn", || {
        let libos = open();
        let at_rest = buffers_at_rest(&libos);
        let servers = Family::BOTH.map(|family| {
            let listener = KernelListener::bind(family.kernel(PORT)).unwrap();
            thread::spawn(move || {
                for _ in 0..CONNECTIONS / Family::BOTH.len() {
                    let stream = link::accept(&listener);
                    assert_eq!(link::exchange(&stream, b"welcome"), b"welcome");
                }
            })
        });
        link::run(&libos, async {
            let mut clients = Vec::new();
            for number in 0..THREADS {
                let address = Family::BOTH[number % Family::BOTH.len()].kernel(PORT);
                let task_libos = libos.clone();
                clients.push(libos.spawn(async move {
                    for _ in 0..CONNECTIONS / THREADS {
                        let stream = TcpStream::connect(&task_libos, address).await.unwrap();
                        let data = stream.pop().await.unwrap();
                        stream.push(data).await.unwrap();
                        assert!(stream.pop().await.unwrap().is_empty());
                        stream.close().await.unwrap();
                    }
                }));
            }
            for client in clients {
                client.await.unwrap();
            }
        });
        servers.into_iter().for_each(|server| link::drive_until_joined(&libos, server));
        assert_eq!(link::metric(&libos, "catnip.tcp.active_opens"), CONNECTIONS as u64);
        assert_nothing_left(&libos, at_rest);
    });
}

#[test]
fn a_thousand_connections_stand_at_once() {
    const AT_ONCE: usize = 1000;
    namespace::enter("-Urn", || {
        // The usual limit of a process, 1024 files, is for the kernel's end.
        let libos = open();
        let mut listener = TcpListener::bind_with_backlog(&libos, Family::V4.catnip(PORT), AT_ONCE).unwrap();
        let clients = thread::spawn(|| {
            let streams: Vec<_> = (0..AT_ONCE).map(|_| link::connect(Family::V4.catnip(PORT))).collect();
            for (number, stream) in streams.iter().enumerate().rev() {
                let message = number.to_le_bytes();
                assert_eq!(link::exchange(stream, &message), message);
            }
        });
        let server = libos.spawn({
            let libos = libos.clone();
            async move {
                let mut streams = Vec::new();
                while streams.len() < AT_ONCE {
                    streams.push(listener.accept().await.unwrap().0);
                }
                let answers = streams.into_iter().map(|stream| {
                    libos.spawn(async move {
                        let data = stream.pop().await.unwrap();
                        stream.push(data).await.unwrap();
                        assert!(stream.pop().await.unwrap().is_empty());
                    })
                });
                for answer in answers.collect::<Vec<_>>() {
                    answer.await.unwrap();
                }
            }
        });
        link::drive_until_joined(&libos, clients);
        link::run(&libos, server).unwrap();
    });
}
