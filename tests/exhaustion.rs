//! What runs out gives an error to who asked for one more, harms no connection that stands, and is there again when some of it
//! was given back.
#![cfg(feature = "catnip")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test reports")]

use std::net::SocketAddr;
use std::time::Duration;

use catnip_os::libos::net::{TcpListener, TcpStream};
use catnip_os::libos::{Buffer, Config, Domain, Error, LibOs, QueueDescriptor, SocketKind, Token};

/// More than any limit here.
const TRIES: usize = 10_000;
const LONG: Duration = Duration::from_secs(10);

/// What a case took, so that it can be given back.
#[derive(Default)]
struct Taken {
    queues: Vec<QueueDescriptor>,
    tokens: Vec<Token>,
    streams: Vec<TcpStream>,
    buffers: Vec<Buffer>,
}

/// Takes one more.
type Take = fn(&LibOs, SocketAddr, &mut Taken) -> Result<(), Error>;

fn socket(libos: &LibOs, _: SocketAddr, taken: &mut Taken) -> Result<(), Error> {
    libos.socket(Domain::Ipv4, SocketKind::Stream).map(|queue| taken.queues.push(queue))
}

fn memory_queue(libos: &LibOs, _: SocketAddr, taken: &mut Taken) -> Result<(), Error> {
    libos.queue().map(|queue| taken.queues.push(queue))
}

fn port(libos: &LibOs, _: SocketAddr, taken: &mut Taken) -> Result<(), Error> {
    taken.queues.push(libos.socket(Domain::Ipv4, SocketKind::Datagram)?);
    libos.bind(taken.queues[taken.queues.len() - 1], "127.0.0.1:0".parse().unwrap())
}

fn listener(libos: &LibOs, _: SocketAddr, taken: &mut Taken) -> Result<(), Error> {
    taken.queues.push(libos.socket(Domain::Ipv4, SocketKind::Stream)?);
    libos.listen(taken.queues[taken.queues.len() - 1], 1)
}

fn connection(libos: &LibOs, server: SocketAddr, taken: &mut Taken) -> Result<(), Error> {
    let stream = libos.block_on(libos.timeout(LONG, TcpStream::connect(libos, server))).unwrap();
    stream.expect("an answer in time").map(|stream| taken.streams.push(stream))
}

fn operation(libos: &LibOs, _: SocketAddr, taken: &mut Taken) -> Result<(), Error> {
    if taken.queues.is_empty() {
        taken.queues.push(libos.queue()?);
    }
    libos.pop(taken.queues[0]).map(|token| taken.tokens.push(token))
}

fn memory(libos: &LibOs, _: SocketAddr, taken: &mut Taken) -> Result<(), Error> {
    let buffer = libos.arena().allocate(4_000).ok_or(Error::NoBuffers)?;
    taken.buffers.push(buffer.freeze());
    Ok(())
}

/// The connection carries `data` to the server and back.
fn assert_echoed(libos: &LibOs, stream: &TcpStream, data: &Buffer, when: &str) {
    let exchange = async {
        stream.push(data.clone()).await?;
        let mut came = Vec::new();
        while came.len() < data.len() {
            came.extend(stream.pop().await?.to_vec());
        }
        Ok::<_, Error>(came)
    };
    let came = libos.block_on(libos.timeout(LONG, exchange)).unwrap();
    assert_eq!(came.expect("an echo in time").as_deref(), Ok(&data[..]), "{when}");
}

#[test]
fn what_runs_out_is_told_and_harms_no_connection_that_stands() {
    use Error::{AddressNotAvailable, NoBuffers, TooManyConnections, TooManyDescriptors, TooManyOperations};
    /// What runs out, the keys that limit it, what takes one more, and what that is told.
    type Case = (&'static str, &'static [(&'static str, i64)], Take, Error);
    let cases: [Case; 7] = [
        ("descriptors, for sockets", &[("libos.max_descriptors", 16)], socket, TooManyDescriptors),
        ("descriptors, for queues", &[("libos.max_descriptors", 16)], memory_queue, TooManyDescriptors),
        (
            "ports",
            &[("udp.ephemeral_low", 50_000), ("udp.ephemeral_high", 50_007)],
            port,
            AddressNotAvailable,
        ),
        ("listeners", &[("tcp.max_listeners", 8)], listener, TooManyConnections),
        ("connections", &[("tcp.max_connections", 16)], connection, TooManyConnections),
        ("operations", &[("libos.max_operations", 32)], operation, TooManyOperations),
        ("memory", &[("memory.region_mib", 4)], memory, NoBuffers),
    ];
    for (what, limits, take, error) in cases {
        let config = limits.iter().fold(Config::new(), |config, (key, limit)| config.set(key, *limit));
        let libos = catnip_os::open(&config).unwrap();
        let mut listener = TcpListener::bind(&libos, "127.0.0.1:7".parse().unwrap()).unwrap();
        let server = listener.local_addr().unwrap();
        let handle = libos.clone();
        libos.spawn(async move {
            // When there is nothing for one more the listener goes on with the next that there is something for.
            loop {
                let Ok((stream, _peer)) = listener.accept().await else { continue };
                handle.spawn(async move {
                    while let Ok(data) = stream.pop().await
                        && !data.is_empty()
                        && stream.push(data).await.is_ok()
                    {}
                });
            }
        });
        let stream = libos.block_on(TcpStream::connect(&libos, server)).unwrap().unwrap();
        let data = libos.arena().copy_from(&[b'x'; 3_000]).unwrap().freeze();
        assert_echoed(&libos, &stream, &data, what);

        let mut taken = Taken::default();
        let refused = (0..TRIES).find_map(|_| take(&libos, server, &mut taken).err());
        assert_eq!(refused, Some(error), "{what}");
        for again in 0..3 {
            assert_eq!(take(&libos, server, &mut taken), Err(error), "{what}: asked once more");
            if error != TooManyOperations {
                assert_echoed(&libos, &stream, &data, &format!("{what} ran out, {again}"));
            }
        }

        let Taken { queues, tokens, streams, buffers } = std::mem::take(&mut taken);
        tokens.into_iter().for_each(|token| libos.discard(token).unwrap());
        queues
            .into_iter()
            .for_each(|queue| drop(libos.close(queue).and_then(|token| libos.wait(token, Some(LONG)))));
        drop((streams, buffers));
        assert_echoed(&libos, &stream, &data, &format!("{what} are there again"));
        if error != TooManyConnections {
            assert_eq!(take(&libos, server, &mut taken), Ok(()), "{what} are there again");
        }
        libos.abort_tasks();
    }
}
