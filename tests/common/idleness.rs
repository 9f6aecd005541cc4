//! A library OS that has nothing to do, and what wakes it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream as KernelStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use catnip_os::libos::LibOs;
use catnip_os::libos::net::{TcpListener, TcpStream};

use crate::link::{self, Family};

const PORT: u16 = 5012;
/// Established, used once and then idle, each with a pop outstanding.
const CONNECTIONS: usize = 20;
const MEASURED: Duration = Duration::from_secs(2);
/// Of a core.
const GOAL_PERCENT: u32 = 1;

/// Processor time that this thread has used.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// With idle connections, waiting takes less than a hundredth of a core, and a packet that ends it costs one wake-up.
pub fn costs_next_to_nothing_and_a_packet_costs_one_wake_up(libos: &LibOs, what: &str) {
    let address = Family::V4.catnip(PORT);
    let (send, go) = mpsc::channel::<Duration>();
    let client = thread::spawn(move || {
        let mut streams: Vec<KernelStream> = (0..CONNECTIONS)
            .map(|_| {
                let mut stream = link::connect(address);
                stream.write_all(b"hello").unwrap();
                stream.read_exact(&mut [0; 5]).unwrap();
                stream
            })
            .collect();
        while let Ok(later) = go.recv() {
            thread::sleep(later);
            streams[0].write_all(b"again").unwrap();
        }
    });
    link::run(libos, async {
        let mut listener = TcpListener::bind(libos, address).unwrap();
        let mut streams: Vec<TcpStream> = Vec::new();
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await.unwrap();
            let hello = stream.pop().await.unwrap();
            stream.push(hello).await.unwrap();
            streams.push(stream);
        }
        let woken = streams.swap_remove(0);
        for stream in streams {
            libos.spawn(async move { stream.pop().await.map(drop) });
        }
        // Acknowledgments, and what the kernel says when a link comes up, pass first.
        libos.sleep(Duration::from_millis(500)).await;

        let before = (processor_time(), link::metric(libos, "libos.sleeps"));
        libos.sleep(MEASURED).await;
        let used = processor_time() - before.0;
        let sleeps = link::metric(libos, "libos.sleeps") - before.1;
        println!("{what}: {used:?} of {MEASURED:?}, asleep {sleeps} times");
        assert!(used < MEASURED * GOAL_PERCENT / 100, "{what} used {used:?} of {MEASURED:?}");

        let mut wakeups = Vec::new();
        for _ in 0..5 {
            let before = link::metric(libos, "libos.sleeps");
            send.send(Duration::from_millis(100)).unwrap();
            assert_eq!(woken.pop().await.unwrap().to_vec(), b"again");
            wakeups.push(link::metric(libos, "libos.sleeps") - before);
            // The acknowledgment goes, and everything is quiet again.
            libos.sleep(Duration::from_millis(100)).await;
        }
        drop(send);
        println!("{what}: wake-ups for each packet: {wakeups:?}");
        // A look after the device or a timer may fall between.
        assert!(wakeups.iter().filter(|count| **count == 1).count() >= 4, "{what}: {wakeups:?}");
    });
    client.join().unwrap();
    libos.abort_tasks();
}
