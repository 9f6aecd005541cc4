//! Several cores on one device of the kernel's, each with a stack, against kernel clients.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use catnip_os::libos::net::{TcpListener, UdpSocket};
use catnip_os::libos::{Config, LibOs};

use crate::link::{self, Family};

pub const CORES: usize = 2;
/// Of each family.
pub const CONNECTIONS: usize = 60;
/// Frames that a core without a queue sent through another one.
pub const THROUGH: &str = "catnip.device.steering.sent_through";

/// The same with two cores. They need not run beside each other: the machine may have one processor.
pub fn on_cores(config: &Config) -> Config {
    config.clone().set("cores.count", CORES as i64).set("cores.pin", false)
}

/// Serves echo on one core until told to stop, and tells which peers it served.
pub fn serve(libos: &LibOs, core: usize, served: &mpsc::Sender<(SocketAddr, usize)>, stop: &AtomicBool) {
    for family in Family::BOTH {
        let mut listener = TcpListener::bind(libos, family.catnip(7)).unwrap();
        let (own, served) = (libos.clone(), served.clone());
        libos.spawn(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                served.send((peer, core)).unwrap();
                own.spawn(async move {
                    while let Ok(data) = stream.pop().await
                        && !data.is_empty()
                        && stream.push(data).await.is_ok()
                    {}
                });
            }
        });
        let socket = UdpSocket::bind(libos, family.catnip(7)).unwrap();
        libos.spawn(async move {
            loop {
                let (data, from) = socket.pop().await.unwrap();
                socket.push_to(data, from.unwrap()).await.unwrap();
            }
        });
    }
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            libos.sleep(Duration::from_millis(1)).await;
        }
    };
    libos.block_on(stopped).unwrap();
    libos.abort_tasks();
}

/// Echoes over many connections of both families, several at a time, and over datagrams.
pub fn clients() {
    thread::scope(|scope| {
        for family in Family::BOTH {
            for worker in 0..4_usize {
                scope.spawn(move || {
                    for round in 0..CONNECTIONS / 4 {
                        let message = vec![worker as u8; 1 + round * 5000];
                        assert!(link::exchange(&link::connect(family.catnip(7)), &message) == message);
                        let datagrams = link::datagrams(family.kernel(0), family.catnip(7));
                        let mut answer = [0; 2048];
                        datagrams.send(&message[..1]).unwrap();
                        assert_eq!(datagrams.recv(&mut answer).unwrap(), 1);
                    }
                });
            }
        }
    });
}

/// Runs the clients against all cores; returns what each core counted under these names.
pub fn run(config: &Config, counts: &[&str]) -> (HashMap<SocketAddr, usize>, Vec<Vec<u64>>) {
    let stop = AtomicBool::new(false);
    let (sender, served) = mpsc::channel();
    let counted = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            let ended = std::panic::catch_unwind(clients);
            stop.store(true, Ordering::Relaxed);
            ended.unwrap();
        });
        catnip_os::open_cores(config, |libos, core| {
            serve(&libos, core, &sender.clone(), &stop);
            counts.iter().map(|name| link::metric(&libos, name)).collect()
        })
        .unwrap()
    });
    drop(sender);
    let mut by_peer = HashMap::new();
    for (peer, core) in served {
        assert_eq!(by_peer.insert(peer, core), None, "{peer} was served twice");
    }
    (by_peer, counted)
}

/// Runs the clients against two cores with a queue each: both serve, each connection on one of them, and each sends through
/// its own queue.
pub fn each_serves_its_connections_through_its_own_queue(config: &Config) {
    let (served, counted) = run(&on_cores(config), &[THROUGH]);
    assert_eq!(served.len(), 2 * CONNECTIONS);
    for (core, counted) in counted.iter().enumerate() {
        let connections = served.values().filter(|&&by| by == core).count();
        assert!(connections >= CONNECTIONS / 2, "core {core} served {connections}");
        assert_eq!(counted[..], [0], "frames through another core");
    }
}

/// One library OS serves all queues of a device by itself.
pub fn one_library_os_serves_all_queues(config: &Config) {
    let libos = link::open(config);
    let (sender, served) = mpsc::channel();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let ended = std::panic::catch_unwind(clients);
            stop.store(true, Ordering::Relaxed);
            ended.unwrap();
        });
        serve(&libos, 0, &sender, &stop);
    });
    drop((libos, sender));
    assert_eq!(served.into_iter().count(), 2 * CONNECTIONS);
}
