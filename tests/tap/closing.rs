//! The ways in which a connection ends, each side once as the one who begins.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream as KernelStream};
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::net::{TcpListener, TcpStream};
use catnip_os::libos::{self, Error, LibOs, SocketOption};
use socket2::SockRef;

use crate::link::{self, Family};
use crate::namespace;
use crate::noise::Noise;

const PORT: u16 = 5002;
const BYTES: usize = 300_000;

fn open() -> LibOs {
    link::open(&link::config().set("tcp.time_wait_ms", 20))
}

/// Runs both ends of one connection, and then checks that nothing of it is left.
fn with_connection<T: Send + 'static, F: Future<Output = ()>>(
    libos: &LibOs,
    family: Family,
    kernel: impl FnOnce(KernelStream) -> T + Send + 'static,
    catnip: impl FnOnce(TcpStream) -> F,
) -> T {
    let thread = thread::spawn(move || kernel(link::connect(family.catnip(PORT))));
    link::run(libos, async {
        let mut listener = TcpListener::bind(libos, family.catnip(PORT)).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        catnip(stream).await;
        let result = link::joined(libos, thread).await;
        let over = || link::metric(libos, "catnip.tcp.connections") == 0;
        link::until(libos, "the connection is over", over).await;
        result
    })
}

async fn read_to_end(stream: &TcpStream) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    loop {
        let data = stream.pop().await?;
        if data.is_empty() {
            return Ok(bytes);
        }
        bytes.extend(data.to_vec());
    }
}

async fn push(libos: &LibOs, stream: &TcpStream, bytes: &[u8]) -> Result<(), Error> {
    let data = libos.arena().copy_from(bytes).unwrap().freeze();
    stream.push(data).await
}

/// Waits, as long as it takes, for what a read of the kernel's end fails with.
fn read_error(mut stream: KernelStream) -> ErrorKind {
    let mut chunk = vec![0; 64 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => panic!("the stream ended without an error"),
            Ok(_) => {}
            Err(error) => return error.kind(),
        }
    }
}

#[test]
fn after_the_kernels_half_close_catnip_still_sends() {
    namespace::enter("-Urn", || {
        let libos = open();
        for family in Family::BOTH {
            let kernel = |mut stream: KernelStream| {
                stream.shutdown(Shutdown::Write).unwrap();
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                bytes
            };
            let sent = Noise::bytes(1, BYTES);
            let received = with_connection(&libos, family, kernel, async |stream| {
                assert_eq!(read_to_end(&stream).await, Ok(Vec::new()));
                libos.sleep(Duration::from_millis(10)).await;
                push(&libos, &stream, &sent).await.unwrap();
                stream.close().await.unwrap();
            });
            assert!(received == sent, "{family:?}: {} other bytes", received.len());
        }
    });
}

#[test]
fn after_catnips_half_close_the_kernel_still_sends() {
    namespace::enter("-Urn", || {
        let libos = open();
        for family in Family::BOTH {
            let kernel = |mut stream: KernelStream| {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                stream.write_all(&Noise::bytes(2, BYTES)).unwrap();
                bytes
            };
            let received = with_connection(&libos, family, kernel, async |stream| {
                push(&libos, &stream, b"request").await.unwrap();
                stream.shutdown(libos::Shutdown::Write).unwrap();
                assert_eq!(push(&libos, &stream, b"more").await, Err(Error::Closed));
                let answer = read_to_end(&stream).await.unwrap();
                assert!(answer == Noise::bytes(2, BYTES), "{family:?}: {} other bytes", answer.len());
            });
            assert_eq!(received, b"request");
        }
    });
}

#[test]
fn both_sides_may_close_at_once() {
    namespace::enter("-Urn", || {
        let libos = open();
        for _ in 0..50 {
            with_connection(&libos, Family::V4, drop, async |stream| drop(stream));
        }
        assert_eq!(link::metric(&libos, "catnip.tcp.out_resets"), 0);
    });
}

#[test]
fn a_reset_from_the_kernel_ends_pops_and_pushes_with_an_error() {
    namespace::enter("-Urn", || {
        let libos = open();
        for family in Family::BOTH {
            let kernel = |stream: KernelStream| {
                let mut byte = [0];
                (&stream).read_exact(&mut byte).unwrap();
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            };
            with_connection(&libos, family, kernel, async |stream| {
                push(&libos, &stream, b"x").await.unwrap();
                assert_eq!(read_to_end(&stream).await, Err(Error::ConnectionReset));
                assert_eq!(push(&libos, &stream, b"y").await, Err(Error::ConnectionReset));
            });
        }
    });
}

#[test]
fn the_kernel_closing_with_unread_data_is_a_reset() {
    namespace::enter("-Urn", || {
        let libos = open();
        let kernel = |stream: KernelStream| {
            let mut byte = [0];
            (&stream).read_exact(&mut byte).unwrap();
        };
        with_connection(&libos, Family::V4, kernel, async |stream| {
            push(&libos, &stream, &[7; 1000]).await.unwrap();
            assert_eq!(read_to_end(&stream).await, Err(Error::ConnectionReset));
        });
    });
}

#[test]
fn catnip_closing_with_unread_data_or_without_lingering_resets_the_kernels_end() {
    namespace::enter("-Urn", || {
        let libos = open();
        for family in Family::BOTH {
            for linger in [None, Some(Duration::ZERO)] {
                let kernel = move |stream: KernelStream| {
                    if linger.is_none() {
                        (&stream).write_all(&[7; 100_000]).unwrap();
                    }
                    read_error(stream)
                };
                let error = with_connection(&libos, family, kernel, async |stream| {
                    match linger {
                        None => drop(stream.pop().await.unwrap()),
                        Some(_) => stream.set_option(SocketOption::Linger(linger)).unwrap(),
                    }
                    libos.sleep(Duration::from_millis(10)).await;
                    stream.close().await.unwrap();
                });
                assert_eq!(error, ErrorKind::ConnectionReset, "{family:?}, linger {linger:?}");
            }
        }
    });
}

#[test]
fn a_listener_that_closes_resets_those_it_never_accepted() {
    namespace::enter("-Urn", || {
        let libos = open();
        let listener = TcpListener::bind(&libos, Family::V4.catnip(PORT)).unwrap();
        let kernel = thread::spawn(|| read_error(link::connect(Family::V4.catnip(PORT))));
        let waits = || link::metric(&libos, "catnip.tcp.connections") == 1;
        link::run(&libos, async {
            link::until(&libos, "the connection waits", waits).await;
            libos.sleep(Duration::from_millis(20)).await;
        });
        drop(listener);
        assert_eq!(link::drive_until_joined(&libos, kernel), ErrorKind::ConnectionReset);
    });
}

/// An accepted connection, for what is done when the library OS itself ends.
fn accepted(libos: &LibOs) -> TcpStream {
    link::run(libos, async {
        let mut listener = TcpListener::bind(libos, Family::V4.catnip(PORT)).unwrap();
        listener.accept().await.unwrap().0
    })
}

#[test]
fn a_library_os_that_shuts_down_delivers_what_was_pushed_and_ends_in_order() {
    namespace::enter("-Urn", || {
        let libos = open();
        let kernel = thread::spawn(|| {
            let mut bytes = Vec::new();
            link::connect(Family::V4.catnip(PORT)).read_to_end(&mut bytes).map(|_| bytes)
        });
        let stream = accepted(&libos);
        let sent = Noise::bytes(3, BYTES);
        link::run(&libos, push(&libos, &stream, &sent)).unwrap();
        let begun = Instant::now();
        libos.shut_down(Duration::from_secs(10)).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "it waits for no longer than it has to");
        assert!(kernel.join().unwrap().unwrap() == sent);
        assert_eq!(link::metric(&libos, "catnip.tcp.out_resets"), 0);
        assert_eq!(link::run(&libos, stream.pop()).err(), Some(Error::BadDescriptor));
    });
}

#[test]
fn peers_that_do_not_end_are_reset_when_the_time_to_shut_down_is_over() {
    namespace::enter("-Urn", || {
        let libos = open();
        let kernel = thread::spawn(|| {
            let mut stream = link::connect(Family::V4.catnip(PORT));
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "first the end of the stream");
            // It says nothing, and ends nothing, until it finds that the connection is no more.
            let socket = SockRef::from(&stream);
            (0..500).find_map(|_| {
                thread::sleep(Duration::from_millis(10));
                socket.take_error().unwrap()
            })
        });
        let _stream = accepted(&libos);
        let begun = Instant::now();
        libos.shut_down(Duration::from_millis(200)).unwrap();
        let took = begun.elapsed();
        assert!((190..2_000).contains(&took.as_millis()), "{took:?}");
        let error = kernel.join().unwrap().expect("the kernel's end was reset");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert_eq!(link::metric(&libos, "catnip.tcp.connections"), 0);
    });
}
