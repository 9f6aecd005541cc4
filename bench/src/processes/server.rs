//! The other process: it serves as it is told, one turn after the other.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use catnip_os::libos::{LibOs, QueueDescriptor, SocketKind};

use super::kernel::Sockets;
use super::shared::{self, Role};
use super::{Path, TURNS, Turn, pin};
use crate::scenario::Failure;

/// The other process, as this one sees it. Ends with it.
pub struct Server {
    child: Child,
    socket: PathBuf,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    addresses: [SocketAddr; 2],
}

impl Server {
    pub fn start(socket: &FilePath) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(answers)) = (orders, answers) else { return Err("no pipes".into()) };
        let mut answers = BufReader::new(answers);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut address = || words.next().ok_or("the server says no address")?.parse().map_err(Failure::from);
        let addresses = [address()?, address()?];
        Ok(Self { child, socket: socket.to_owned(), orders, answers, addresses })
    }

    pub fn socket(&self) -> &FilePath {
        &self.socket
    }

    /// Of the kernel's sockets: for streams, and for datagrams.
    pub fn kernel_addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    /// Begins a turn.
    pub fn begin(&mut self, turn: Turn, path: Path) -> Result<(), Failure> {
        let order = TURNS.iter().find(|order| order.1 == turn && order.2 == path);
        let (order, ..) = order.ok_or("nobody serves that")?;
        writeln!(self.orders, "{order}")?;
        Ok(())
    }

    /// Waits until the turn has ended; says what was counted.
    pub fn end(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let counted = line.strip_prefix("done").ok_or("the server ended")?;
        Ok(counted.trim().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What the other process does.
///
/// # Errors
/// [`Failure`] of the link or of a turn.
pub fn serve(socket: &FilePath) -> Result<(), Failure> {
    let kernel = Sockets::new()?;
    let [tcp, udp] = kernel.addresses()?;
    println!("{tcp} {udp}");
    let libos = shared::open(Role::Server, socket)?;
    let _pinned = pin::to(pin::SERVER)?;
    let listener = shared::socket(&libos, SocketKind::Stream)?;
    libos.bind(listener, Role::Server.address())?;
    libos.listen(listener, 16)?;
    let datagrams = shared::socket(&libos, SocketKind::Datagram)?;
    libos.bind(datagrams, Role::Server.address())?;
    for line in io::stdin().lines() {
        let line = line?;
        let order = TURNS.iter().find(|order| order.0 == line).ok_or("an unknown order")?;
        let counted = match (order.1, order.2) {
            (Turn::Tcp, Path::Shared) => echo_stream(&libos, listener).map(|()| String::new()),
            (Turn::Udp, Path::Shared) => echo_datagrams(&libos, datagrams).map(|()| String::new()),
            (Turn::Stream, Path::Shared) => sink(&libos, listener),
            (Turn::Udp, Path::Kernel) => kernel.serve_datagrams().map(|()| String::new()),
            (Turn::Tcp | Turn::Stream, Path::Kernel) => kernel.serve_connection().map(|()| String::new()),
        }?;
        println!("done {counted}");
    }
    Ok(())
}

fn echo_stream(libos: &LibOs, listener: QueueDescriptor) -> Result<(), Failure> {
    let queue = shared::accepted(libos, listener)?;
    loop {
        let (data, _) = shared::popped(libos, libos.pop(queue)?)?;
        if data.is_empty() {
            return shared::done(libos, libos.close(queue)?);
        }
        shared::done(libos, libos.push(queue, data)?)?;
    }
}

fn echo_datagrams(libos: &LibOs, queue: QueueDescriptor) -> Result<(), Failure> {
    loop {
        let (data, from) = shared::popped(libos, libos.pop(queue)?)?;
        if data.is_empty() {
            return Ok(());
        }
        let from = from.ok_or("a datagram came from nobody")?;
        shared::done(libos, libos.pushto(queue, data, from)?)?;
    }
}

/// Takes one stream to its end, and says how many bytes it had and how many nanoseconds it took.
fn sink(libos: &LibOs, listener: QueueDescriptor) -> Result<String, Failure> {
    let queue = shared::accepted(libos, listener)?;
    let start = Instant::now();
    let mut bytes = 0;
    loop {
        let (data, _) = shared::popped(libos, libos.pop(queue)?)?;
        if data.is_empty() {
            break;
        }
        bytes += data.len();
    }
    let ns = start.elapsed().as_nanos();
    shared::done(libos, libos.close(queue)?)?;
    Ok(format!("{bytes} {ns}"))
}
