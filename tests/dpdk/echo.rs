//! An echo server on the library OS, and clients of it on either side, which compare what comes back.

use std::cell::Cell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use catnip_os::libos::{Buffer, BufferMut, Config, Error, LibOs, Shutdown};

/// Nothing on one machine takes that long; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub const PORT: u16 = 7;

/// Bytes of the transfer over TCP: many times what the device has descriptors for.
pub const TRANSFER_BYTES: usize = 6_000_000;

/// Payloads from the smallest to several fragments.
pub const DATAGRAM_BYTES: [usize; 9] = [1, 2, 63, 64, 65, 1000, 1472, 1473, 8000];

pub const RETRY_EVERY: Duration = Duration::from_millis(200);

/// What a client sends last.
const FAREWELL: &[u8] = b"farewell";

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// A configuration for a port of the given device, with one address.
pub fn config(device: &str, address: &str) -> Config {
    Config::new()
        .set("runtime.kind", "dpdk")
        .set("dpdk.device", device)
        .set("stack.addresses", vec![address.to_owned()])
        .set("memory.region_mib", 64)
}

/// A number among the library OS's metrics.
pub fn metric(libos: &LibOs, name: &str) -> u64 {
    let metrics = libos.metrics().unwrap();
    metrics.get(name).unwrap_or_else(|| panic!("there is no metric {name} in\n{metrics}")).value()
}

/// Checks that the port was given, and gave, the library OS's own memory, and took every frame.
pub fn nothing_is_copied(libos: &LibOs) {
    for counter in ["rx_copied_frames", "tx_copied_frames", "tx_refused", "rx_no_buffers"] {
        assert_eq!(metric(libos, &format!("catnip.device.{counter}")), 0, "{counter}");
    }
    assert_eq!(metric(libos, "catnip.device.zero_copy"), 1);
}

/// Echoes datagrams and streams until `done` is; says in `over` that a client has said farewell.
pub fn serve<T>(libos: &LibOs, local: IpAddr, over: Rc<Cell<bool>>, done: impl Future<Output = T>) -> T {
    serve_datagrams(libos, local, over);
    serve_streams(libos, local, |_| {});
    let served = libos.block_on(libos.timeout(2 * PATIENCE, done)).unwrap();
    served.unwrap_or_else(|_| panic!("the client hangs\n{}", libos.metrics().unwrap()))
}

/// Echoes until a client of [`talk`] says farewell.
pub fn serve_until_farewell(libos: &LibOs, local: IpAddr) {
    let over = Rc::new(Cell::new(false));
    let heard = over.clone();
    serve(libos, local, over, async {
        while !heard.get() {
            libos.sleep(Duration::from_millis(1)).await;
        }
        // The answer to the farewell is under way.
        libos.sleep(RETRY_EVERY).await;
    });
}

fn serve_datagrams(libos: &LibOs, local: IpAddr, over: Rc<Cell<bool>>) {
    let socket = UdpSocket::bind(libos, SocketAddr::new(local, PORT)).unwrap();
    libos.spawn(async move {
        while let Ok((data, Some(from))) = socket.pop().await {
            over.set(over.get() || data.to_vec() == FAREWELL);
            // What cannot be sent is lost, as datagrams are.
            let _ = socket.push_to(data, from).await;
        }
    });
}

/// Echoes streams, and says of each that has ended whose it was.
pub fn serve_streams(libos: &LibOs, local: IpAddr, ended: impl Fn(SocketAddr) + 'static) {
    let mut listener = TcpListener::bind(libos, SocketAddr::new(local, PORT)).unwrap();
    let (spawner, ended) = (libos.clone(), Rc::new(ended));
    libos.spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let ended = ended.clone();
            spawner.spawn(async move {
                echo(&stream).await.unwrap();
                ended(peer);
            });
        }
    });
}

async fn echo(stream: &TcpStream) -> Result<(), Error> {
    loop {
        let data = stream.pop().await?;
        if data.is_empty() {
            return Ok(());
        }
        stream.push(data).await?;
    }
}

/// The client on the library OS. Everything it sends is written to memory that it frees at once and writes over: what
/// arrives is right only if that memory was not free yet.
pub fn talk(libos: &LibOs, local: IpAddr, server: IpAddr) {
    let talking = async {
        let socket = UdpSocket::bind(libos, SocketAddr::new(local, PORT + 1)).unwrap();
        let server = SocketAddr::new(server, PORT);
        for (seed, bytes) in DATAGRAM_BYTES.into_iter().enumerate() {
            exchange(libos, &socket, server, &pattern(bytes, seed as u64)).await;
        }
        transfer(libos, server, TRANSFER_BYTES).await;
        exchange(libos, &socket, server, FAREWELL).await;
    };
    let talked = libos.block_on(libos.timeout(2 * PATIENCE, talking)).unwrap();
    talked.unwrap_or_else(|_| panic!("the server hangs\n{}", libos.metrics().unwrap()));
}

/// Sends a datagram until it comes back.
async fn exchange(libos: &LibOs, socket: &UdpSocket, server: SocketAddr, sent: &[u8]) {
    loop {
        socket.push_to(registered(libos, sent), server).await.unwrap();
        // What comes late of an earlier try is not what was sent.
        let answer = async {
            loop {
                let (data, _) = socket.pop().await.unwrap();
                if data.to_vec() == sent {
                    return;
                }
            }
        };
        if libos.timeout(RETRY_EVERY, answer).await.is_ok() {
            return;
        }
    }
}

/// Sends a stream and compares what comes back with it.
pub async fn transfer(libos: &LibOs, server: SocketAddr, bytes: usize) {
    let sent = pattern(bytes, 77);
    let stream = Rc::new(TcpStream::connect(libos, server).await.unwrap());
    let (writer, in_libos, data) = (stream.clone(), libos.clone(), sent.clone());
    let writing = libos.spawn(async move {
        let mut left = &data[..];
        // Pieces of every size, up to some that are cut into many segments.
        for bytes in (0..17).map(|power| (1_usize << power) + power).cycle() {
            let (piece, rest) = left.split_at(left.len().min(bytes));
            writer.push(registered(&in_libos, piece)).await.unwrap();
            drop(scribbled(&in_libos, piece.len()));
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::with_capacity(sent.len());
    loop {
        let data = stream.pop().await.unwrap();
        if data.is_empty() {
            break;
        }
        data.iter().for_each(|part| received.extend_from_slice(part));
    }
    writing.await.unwrap();
    assert!(received == sent, "{} bytes came back, of {bytes}, or others", received.len());
}

/// A copy in the library OS's memory.
fn registered(libos: &LibOs, bytes: &[u8]) -> Buffer {
    libos.arena().copy_from(bytes).unwrap().freeze()
}

/// Memory of the same size as what was just freed, if it was, and written over.
fn scribbled(libos: &LibOs, bytes: usize) -> Option<BufferMut> {
    let mut buffer = libos.arena().allocate(bytes)?;
    buffer.set_len(bytes);
    buffer.fill(0xee);
    Some(buffer)
}
