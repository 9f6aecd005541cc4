//! The yardstick: a TCP and a UDP echo server on the kernel's loopback, which poll like the client.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, yield_now};

use catnip_os::libos::affinity;

/// Tries between two offers of the processor to others.
const TRIES_PER_TURN: u32 = 256;

/// Both servers, until it is dropped.
pub struct KernelEcho {
    tcp_address: SocketAddr,
    udp_address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KernelEcho {
    pub fn start() -> io::Result<Self> {
        Self::start_on(None)
    }

    /// Starts the servers' thread, bound to a processor or to none.
    pub fn start_on(cpu: Option<usize>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let (tcp_address, udp_address) = (listener.local_addr()?, socket.local_addr()?);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            if let Some(Err(error)) = cpu.map(affinity::pin_to) {
                eprintln!("the echo server runs on any processor: {error}");
            }
            serve(&listener, &socket, &told);
        });
        Ok(Self { tcp_address, udp_address, stop, thread: Some(thread) })
    }

    pub fn tcp_address(&self) -> SocketAddr {
        self.tcp_address
    }

    pub fn udp_address(&self) -> SocketAddr {
        self.udp_address
    }
}

impl Drop for KernelEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Serves one TCP connection at a time, and datagrams while there is none.
fn serve(listener: &TcpListener, socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..TRIES_PER_TURN {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // A datagram that cannot be sent is lost, as datagrams are.
                drop(socket.send_to(&buffer[..length], from));
            }
        }
        if let Ok((stream, _)) = listener.accept() {
            // A client that breaks off has ended its connection; the next one is served.
            drop(serve_connection(stream, &mut buffer, stop));
        }
        yield_now();
    }
}

fn serve_connection(mut stream: TcpStream, buffer: &mut [u8], stop: &AtomicBool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..TRIES_PER_TURN {
            match stream.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => write_all(&mut stream, &buffer[..length], stop)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => return Err(error),
            }
        }
        yield_now();
    }
    Ok(())
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8], stop: &AtomicBool) -> io::Result<()> {
    while !bytes.is_empty() && !stop.load(Ordering::Relaxed) {
        match stream.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
