//! Streams and listeners.

use std::rc::Rc;
use std::time::Duration;

use futures_util::io::{AsyncReadExt, AsyncWriteExt};

use super::{address, libos};
use crate::net::{TcpListener, TcpStream};
use crate::{Error, LibOs};

async fn pair(libos: &LibOs, port: u16) -> (TcpStream, TcpStream) {
    let mut listener = TcpListener::bind(libos, address(port)).unwrap();
    let client = TcpStream::connect(libos, address(port)).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    assert_eq!(client.local_addr(), Ok(peer));
    assert_eq!((client.peer_addr(), server.local_addr()), (Ok(address(port)), Ok(address(port))));
    (client, server)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 % 251) as u8).collect()
}

#[test]
fn an_echo_server_returns_what_many_clients_sent() {
    let libos = libos(1000);
    libos
        .block_on(async {
            let mut listener = TcpListener::bind(&libos, address(7)).unwrap();
            let spawner = libos.clone();
            let server = libos.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    spawner.spawn(async move { futures_util::io::copy(&stream, &mut &stream).await });
                }
            });
            let clients: Vec<_> = (1..=10)
                .map(|client| {
                    let inner = libos.clone();
                    libos.spawn(async move {
                        let stream = TcpStream::connect(&inner, address(7)).await.unwrap();
                        let sent = pattern(client * 1_777);
                        let mut received = vec![0; sent.len()];
                        let (mut reader, mut writer) = (&stream, &stream);
                        let (written, read) =
                            futures_util::join!(writer.write_all(&sent), reader.read_exact(&mut received));
                        written.and(read).unwrap();
                        assert_eq!(received, sent);
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
            server.abort();
            assert_eq!(server.await, Err(Error::Cancelled));
        })
        .unwrap();
    libos.abort_tasks();
    libos.poll().unwrap();
    let metrics = libos.metrics().unwrap();
    for name in ["libos.descriptors_open", "libos.operations_held", "libos.tasks", "arena.live_buffers"] {
        assert_eq!(metrics.value(name), 0, "{name}");
    }
}

#[test]
fn a_write_larger_than_the_pipe_waits_for_the_reader_and_arrives_whole() {
    let libos = libos(700);
    libos
        .block_on(async {
            let (mut client, mut server) = pair(&libos, 7).await;
            let sent = pattern(300_000);
            let expected = sent.clone();
            let writer = libos.spawn(async move {
                client.write_all(&sent).await.unwrap();
                client.close().await.unwrap();
            });
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            writer.await.unwrap();
            assert!(received == expected);
        })
        .unwrap();
}

#[test]
fn a_read_that_timed_out_loses_nothing() {
    let libos = libos(1000);
    libos
        .block_on(async {
            let (mut client, mut server) = pair(&libos, 7).await;
            let mut bytes = [0; 3];
            for _ in 0..3 {
                let read = libos.timeout(Duration::from_millis(2), server.read(&mut bytes)).await;
                assert_eq!(read.map(drop), Err(Error::TimedOut));
            }
            client.write_all(b"abcdef").await.unwrap();
            server.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"abc");
            // What a read left over comes before what is popped later.
            assert_eq!(server.pop().await.unwrap().to_vec(), b"def");
        })
        .unwrap();
}

#[test]
fn an_accept_that_timed_out_loses_no_connection() {
    let libos = libos(1000);
    libos
        .block_on(async {
            let mut listener = TcpListener::bind(&libos, address(7)).unwrap();
            let accept = libos.timeout(Duration::from_millis(2), listener.accept()).await;
            assert_eq!(accept.map(drop), Err(Error::TimedOut));
            let client = TcpStream::connect(&libos, address(7)).await.unwrap();
            // The connection came while nobody was waiting.
            libos.sleep(Duration::from_millis(1)).await;
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(client.local_addr(), Ok(peer));
        })
        .unwrap();
}

#[test]
fn closing_the_writing_side_leaves_the_reading_side_open() {
    let libos = libos(1000);
    libos
        .block_on(async {
            let (mut client, mut server) = pair(&libos, 7).await;
            client.write_all(b"question").await.unwrap();
            AsyncWriteExt::close(&mut client).await.unwrap();
            AsyncWriteExt::close(&mut client).await.expect("a second time changes nothing");
            let mut text = String::new();
            server.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "question");
            server.write_all(b"answer").await.unwrap();
            server.close().await.unwrap();
            text.clear();
            client.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "answer");
        })
        .unwrap();
}

#[test]
fn buffers_are_pushed_and_popped_without_copying() {
    let libos = libos(1000);
    libos
        .block_on(async {
            let (client, server) = pair(&libos, 7).await;
            let buffer = libos.arena().copy_from(b"data").unwrap().freeze();
            client.push(buffer.clone()).await.unwrap();
            let data = server.pop().await.unwrap();
            assert_eq!(data.iter().next().unwrap().as_ptr(), buffer.as_ptr());
        })
        .unwrap();
}

#[test]
fn an_error_of_data_written_earlier_is_told_by_the_next_call() {
    let libos = libos(10);
    libos
        .block_on(async {
            let (mut client, server) = pair(&libos, 7).await;
            assert_eq!(client.write(&[0; 100]).await.unwrap(), 100);
            drop(server);
            let error = client.flush().await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        })
        .unwrap();
}

#[test]
fn nobody_listening_refuses() {
    let libos = libos(10);
    let connected = libos.block_on(TcpStream::connect(&libos, address(9))).unwrap();
    assert_eq!(connected.unwrap_err(), Error::ConnectionRefused);
    let _listener = TcpListener::bind(&libos, address(7)).unwrap();
    assert_eq!(TcpListener::bind(&libos, address(7)).unwrap_err(), Error::AddressInUse);
    assert_eq!(libos.metrics().unwrap().value("libos.descriptors_open"), 1, "failures leave nothing open");
}

#[test]
fn one_task_reads_while_another_writes() {
    let libos = libos(1000);
    libos
        .block_on(async {
            let (client, server) = pair(&libos, 7).await;
            let client = Rc::new(client);
            let reading = Rc::clone(&client);
            let read = libos.spawn(async move {
                let mut bytes = [0; 4];
                (&*reading).read_exact(&mut bytes).await.unwrap();
                bytes
            });
            // The reader waits already when the writer writes on the same stream.
            libos.sleep(Duration::from_millis(1)).await;
            (&*client).write_all(b"ping").await.unwrap();
            let mut bytes = [0; 4];
            (&server).read_exact(&mut bytes).await.unwrap();
            (&server).write_all(b"pong").await.unwrap();
            assert_eq!((&bytes, &read.await.unwrap()), (b"ping", b"pong"));
        })
        .unwrap();
}
