//! Several cores on one port, each with a queue pair and a stack of its own.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::catnip::steering::{CoreShare, HashKey};
use catnip_os::libos::net::UdpSocket;
use catnip_os::libos::{Config, LibOs};

use crate::echo::{self, PATIENCE, PORT, metric, nothing_is_copied};
use crate::kernel::{run, stream_from_kernel};
use crate::namespace;
use crate::processes::{Link, run_ends};

const CORES: usize = 2;
/// Kernel clients at a time, and streams of each.
const WORKERS: usize = 4;
const STREAMS: usize = 8;
/// Streams that each core of a library OS opens.
const OWN_STREAMS: usize = 6;
const STREAM_BYTES: usize = 300_000;

/// Two cores. They need not run beside each other: the machine may have one processor.
fn on_cores(config: Config) -> Config {
    config.set("cores.count", CORES as i64).set("cores.pin", false).set("memory.region_mib", 32)
}

/// Turns the library OS until something becomes true.
fn turn_until(libos: &LibOs, done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    let waiting = async {
        while !done() {
            assert!(Instant::now() < end, "the other end hangs\n{}", libos.metrics().unwrap());
            libos.sleep(Duration::from_millis(1)).await;
        }
    };
    libos.block_on(waiting).unwrap();
}

/// Streams of the kernel's sockets to port 7 of the server, several at a time.
fn kernel_streams(server: SocketAddr) {
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for stream in 0..STREAMS {
                    stream_from_kernel(server, STREAM_BYTES >> (stream % 4));
                }
            });
        }
    });
}

fn bring_tap_up() {
    run("ip address add 10.6.0.1/24 dev dtap0");
    run("ip link set dtap0 up");
}

/// Serves kernel clients until they are done; returns which core has served each. `check` looks at each core's
/// metrics in the end.
fn serve_kernel_streams(config: &Config, check: impl Fn(&LibOs, usize) + Sync) -> HashMap<SocketAddr, usize> {
    let server: SocketAddr = "10.6.0.2:7".parse().unwrap();
    let stop = AtomicBool::new(false);
    let (sender, served) = mpsc::channel();
    thread::scope(|scope| {
        let cores = catnip_os::Cores::open(config).unwrap();
        bring_tap_up();
        scope.spawn(|| {
            let ended = std::panic::catch_unwind(|| kernel_streams(server));
            stop.store(true, Ordering::Relaxed);
            ended.unwrap();
        });
        cores
            .run(|libos, core| {
                let sender = sender.clone();
                echo::serve_streams(&libos, server.ip(), move |peer| sender.send((peer, core)).unwrap());
                turn_until(&libos, || stop.load(Ordering::Relaxed));
                check(&libos, core);
                libos.abort_tasks();
            })
            .unwrap();
    });
    drop(sender);
    let mut by_peer = HashMap::new();
    for (peer, core) in served {
        assert_eq!(by_peer.insert(peer, core), None, "{peer} was served twice");
    }
    by_peer
}

#[test]
fn two_cores_with_a_queue_each_of_a_tap_port_serve_each_stream_on_one() {
    namespace::enter("-Urn", || {
        let config = echo::config("net_tap0,iface=dtap0", "10.6.0.2/24");
        let served = serve_kernel_streams(&on_cores(config), |libos, _| nothing_is_copied(libos));
        assert_eq!(served.len(), WORKERS * STREAMS);
        for core in 0..CORES {
            let streams = served.values().filter(|&&by| by == core).count();
            assert!(streams >= WORKERS * STREAMS / 8, "core {core} served {streams}");
        }
    });
}

#[test]
fn two_cores_share_a_port_of_one_queue() {
    namespace::enter("-Urn", || {
        let config = echo::config("net_tap0,iface=dtap0", "10.6.0.2/24").set("dpdk.queues", 1);
        let served = serve_kernel_streams(&on_cores(config), |libos, core| {
            let through = metric(libos, "catnip.device.steering.sent_through");
            assert_eq!(through > 100, core == 1, "core {core} sent {through} frames through the other");
            if core == 0 {
                nothing_is_copied(libos);
            }
        });
        assert_eq!(served.len(), WORKERS * STREAMS);
    });
}

#[test]
fn one_library_os_serves_all_queues_of_a_port() {
    namespace::enter("-Urn", || {
        let config = echo::config("net_tap0,iface=dtap0", "10.6.0.2/24").set("dpdk.queues", 3);
        let libos = catnip_os::open(&config).unwrap();
        bring_tap_up();
        let ended = Rc::new(Cell::new(0));
        let count = ended.clone();
        let server: SocketAddr = "10.6.0.2:7".parse().unwrap();
        echo::serve_streams(&libos, server.ip(), move |_| count.set(count.get() + 1));
        let clients = thread::spawn(move || kernel_streams(server));
        turn_until(&libos, || clients.is_finished());
        clients.join().unwrap();
        assert_eq!(ended.get(), WORKERS * STREAMS);
        nothing_is_copied(&libos);
    });
}

/// The cores of the same number at both ends have the queues of the same number, and with the symmetric hash the same
/// flows. Core 1 of the server has served its streams and stays away then, while core 1 of the client fills the ring
/// between them: core 0's streams know nothing of it.
#[test]
fn flows_stay_on_their_cores_and_a_core_that_stops_polling_harms_no_other() {
    namespace::enter("-Urn", || {
        let link = Link {
            server: "net_vhost0,iface=SOCKET,queues=2",
            client: "virtio_user0,path=SOCKET,queues=2,packed_vq=1",
        };
        run_cores(&link);
    });
}

#[test]
fn flows_stay_on_their_cores_over_memif_too() {
    namespace::enter("-Urn", || {
        let link = Link {
            server: "net_memif0,role=server,socket=SOCKET,socket-abstract=no",
            client: "net_memif0,role=client,socket=SOCKET,socket-abstract=no",
        };
        run_cores(&link);
    });
}

fn run_cores(link: &Link) {
    run_ends(
        link,
        |config, own, _| serve_on_cores(&config, own),
        |config, own, server| talk_on_cores(&config, own, server),
    );
}

/// No frame was handed to another core, nor sent by one, nor copied.
fn all_was_at_home(libos: &LibOs) {
    nothing_is_copied(libos);
    for counter in ["handed_over", "passed_on", "sent_through"] {
        assert_eq!(metric(libos, &format!("catnip.device.steering.{counter}")), 0, "{counter}");
    }
}

fn serve_on_cores(config: &Config, own: IpAddr) {
    let over = AtomicBool::new(false);
    catnip_os::open_cores(&on_cores(config.clone()), |libos, core| {
        let ended = Rc::new(Cell::new(0));
        let count = ended.clone();
        echo::serve_streams(&libos, own, move |_| count.set(count.get() + 1));
        turn_until(&libos, || ended.get() == OWN_STREAMS);
        // The last answers are under way.
        let _ = libos.block_on(libos.sleep(echo::RETRY_EVERY));
        all_was_at_home(&libos);
        if core == 0 {
            over.store(true, Ordering::Relaxed);
        }
        let end = Instant::now() + PATIENCE;
        while !over.load(Ordering::Relaxed) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        libos.abort_tasks();
    })
    .unwrap();
}

fn talk_on_cores(config: &Config, own: IpAddr, server: IpAddr) {
    let (flooded, over) = (AtomicBool::new(false), AtomicBool::new(false));
    catnip_os::open_cores(&on_cores(config.clone()), |libos, core| {
        let talking = async {
            for _ in 0..OWN_STREAMS {
                echo::transfer(&libos, SocketAddr::new(server, PORT), STREAM_BYTES).await;
            }
        };
        if core == 0 {
            turn_until(&libos, || flooded.load(Ordering::Relaxed));
            libos.block_on(talking).unwrap();
            over.store(true, Ordering::Relaxed);
            all_was_at_home(&libos);
        } else {
            libos.block_on(talking).unwrap();
            all_was_at_home(&libos);
            flood(&libos, own, server, &flooded, &over);
            assert!(metric(&libos, "catnip.device.tx_would_block") > 0, "the ring was full");
        }
    })
    .unwrap();
}

/// Sends core 1 datagrams for nobody in particular until it is over.
fn flood(libos: &LibOs, own: IpAddr, server: IpAddr, flooded: &AtomicBool, over: &AtomicBool) {
    let socket = UdpSocket::bind(libos, SocketAddr::new(own, 0)).unwrap();
    let from = socket.local_addr().unwrap();
    let share = &CoreShare::split(CORES, HashKey::SYMMETRIC)[1];
    let targets = (1000..2000).map(|port| SocketAddr::new(server, port));
    let targets: Vec<_> = targets.filter(|to| share.is_home(*to, from)).collect();
    let flooding = async {
        for (round, to) in targets.into_iter().cycle().enumerate() {
            let _ = libos.timeout(Duration::from_millis(1), socket.send_to(&[0; 500], to)).await;
            // The ring has 1024 places at most.
            flooded.fetch_or(round > 4000, Ordering::Relaxed);
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    libos.block_on(libos.timeout(PATIENCE, flooding)).unwrap().unwrap();
}
