//! Tens of megabytes over one connection with a kernel socket, compared by hash.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as KernelStream};
use std::thread;
use std::time::Instant;

use catnip_os::libos::net::{TcpListener, TcpStream};
use catnip_os::libos::{self, LibOs};

use crate::link::{self, Family};
use crate::noise::{Noise, Sum, Summer};

const PORT: u16 = 5001;
const BYTES: usize = 24 << 20;
const CHUNK_BYTES: usize = 128 << 10;
const TO_CATNIP: u64 = 1;
const FROM_CATNIP: u64 = 2;

#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Bytes to the library OS.
    pub up: usize,
    /// Bytes from the library OS.
    pub down: usize,
}

/// Each direction, and both.
pub const FLOWS: [Flow; 3] =
    [Flow { up: BYTES, down: 0 }, Flow { up: 0, down: BYTES }, Flow { up: BYTES, down: BYTES }];

fn kernel_sends(mut stream: &KernelStream, bytes: usize) -> Sum {
    let mut noise = Noise::new(TO_CATNIP);
    let mut summer = Summer::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    for start in (0..bytes).step_by(CHUNK_BYTES) {
        let chunk = &mut chunk[..CHUNK_BYTES.min(bytes - start)];
        noise.fill(chunk);
        summer.add(chunk);
        stream.write_all(chunk).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    summer.sum()
}

fn kernel_receives(mut stream: &KernelStream) -> Sum {
    let mut summer = Summer::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut chunk).unwrap() {
            0 => return summer.sum(),
            len => summer.add(&chunk[..len]),
        }
    }
}

async fn catnip_sends(libos: &LibOs, stream: &TcpStream, bytes: usize) -> Sum {
    let mut noise = Noise::new(FROM_CATNIP);
    let mut summer = Summer::default();
    for start in (0..bytes).step_by(CHUNK_BYTES) {
        let len = CHUNK_BYTES.min(bytes - start);
        let mut chunk = libos.arena().allocate(len).unwrap();
        chunk.set_len(len);
        noise.fill(&mut chunk);
        summer.add(&chunk);
        stream.push(chunk.freeze()).await.unwrap();
    }
    stream.shutdown(libos::Shutdown::Write).unwrap();
    summer.sum()
}

async fn catnip_receives(stream: &TcpStream) -> Sum {
    let mut summer = Summer::default();
    loop {
        let data = stream.pop().await.unwrap();
        if data.is_empty() {
            return summer.sum();
        }
        data.iter().for_each(|buffer| summer.add(buffer));
    }
}

/// One connection that carries `flow`; the sums of what each side sent and received have to agree.
pub fn transfer(libos: &LibOs, family: Family, flow: Flow, what: &str) {
    let start = Instant::now();
    let client = thread::spawn(move || {
        let stream = link::connect(family.catnip(PORT));
        thread::scope(|scope| {
            let sender = scope.spawn(|| kernel_sends(&stream, flow.up));
            let received = kernel_receives(&stream);
            (sender.join().unwrap(), received)
        })
    });
    let (catnip_sent, catnip_received) = link::run(libos, async {
        let mut listener = TcpListener::bind(libos, family.catnip(PORT)).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let stream = std::rc::Rc::new(stream);
        let sender = libos.spawn({
            let (libos, stream) = (libos.clone(), stream.clone());
            async move { catnip_sends(&libos, &stream, flow.down).await }
        });
        let received = catnip_receives(&stream).await;
        (sender.await.unwrap(), received)
    });
    let (kernel_sent, kernel_received) = link::drive_until_joined(libos, client);
    assert_eq!((kernel_sent.bytes, catnip_sent.bytes), (flow.up as u64, flow.down as u64));
    assert_eq!(catnip_received, kernel_sent, "to Catnip, {what}, {family:?}, {flow:?}");
    assert_eq!(kernel_received, catnip_sent, "from Catnip, {what}, {family:?}, {flow:?}");
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}, {family:?}, {flow:?}: {:.0} MB/s", (flow.up + flow.down) as f64 / 1e6 / seconds);
}
