//! Several cores on one device of the kernel's, each with a stack, against kernel clients.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::catnip::steering::{CoreShare, HashKey};
use catnip_os::libos::net::{TcpListener, UdpSocket};
use catnip_os::libos::{Config, LibOs};

use crate::link::{self, Family};

pub const CORES: usize = 2;
/// Of each family.
pub const CONNECTIONS: usize = 60;
/// Frames that a core without a queue sent through another one.
pub const THROUGH: &str = "catnip.device.steering.sent_through";

/// What cores handed over because the device had put it into another core's queue.
pub const HANDED_OVER: &str = "catnip.device.steering.handed_over";
/// Longest time of a connection that nothing disturbs: less than a lost segment takes to be sent again (RFC 6298).
const UNDISTURBED: Duration = Duration::from_millis(900);

/// The same with two cores. They need not run beside each other: the machine may have one processor.
pub fn on_cores(config: &Config) -> Config {
    config.clone().set("cores.count", CORES as i64).set("cores.pin", false)
}

/// Serves echo on one core until told to stop, and tells which peers it served.
pub fn serve(libos: &LibOs, core: usize, served: &mpsc::Sender<(SocketAddr, usize)>, stop: &AtomicBool) {
    spawn_servers(libos, core, served);
    poll_until(libos, stop);
    libos.abort_tasks();
}

/// Runs what was spawned until told to stop.
fn poll_until(libos: &LibOs, stop: &AtomicBool) {
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            libos.sleep(Duration::from_millis(1)).await;
        }
    };
    libos.block_on(stopped).unwrap();
}

fn spawn_servers(libos: &LibOs, core: usize, served: &mpsc::Sender<(SocketAddr, usize)>) {
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

/// Runs the clients against all cores; returns which core served whom, and what each counted under these names.
pub fn run(config: &Config, counts: &[&str]) -> (HashMap<SocketAddr, usize>, Vec<Vec<u64>>) {
    run_with(config, counts, clients)
}

/// Runs these clients, as [`run`].
pub fn run_with(
    config: &Config,
    counts: &[&str],
    clients: impl FnOnce() + Send + std::panic::UnwindSafe,
) -> (HashMap<SocketAddr, usize>, Vec<Vec<u64>>) {
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

/// Ports of the kernel's from which packets to port 7 of the library OS belong to this core.
pub fn ports_of(family: Family, core: usize) -> Vec<u16> {
    let share = CoreShare::split(CORES, HashKey::SYMMETRIC).remove(core);
    let is_home = |port: &u16| share.is_home(family.catnip(7), family.kernel(*port));
    (20_000..30_000).filter(is_home).collect()
}

/// Serves on two cores, runs `before`, has core 1 stop polling, floods it, and runs `during` on what `before` left.
pub fn while_a_core_stays_away<T>(
    config: &Config,
    before: impl FnOnce() -> T + Send,
    during: impl FnOnce(T) + Send,
) {
    let (away, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let clients = || {
        let left = before();
        away.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20));
        for family in Family::BOTH {
            let flood = link::datagrams(family.kernel(ports_of(family, 1)[1]), family.catnip(7));
            (0..5000).for_each(|_| drop(flood.send(&[0; 1000])));
            flood.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            assert!(flood.recv(&mut [0]).is_err(), "core 1 is away");
        }
        during(left);
    };
    let (sender, _served) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(clients));
            stop.store(true, Ordering::Relaxed);
            away.store(true, Ordering::Relaxed);
            ended.unwrap();
        });
        catnip_os::open_cores(&on_cores(config), |libos, core| {
            spawn_servers(&libos, core, &sender.clone());
            poll_until(&libos, if core == 0 { &stop } else { &away });
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            libos.abort_tasks();
        })
        .unwrap();
    });
}

/// The device puts each flow into its own core's queue: while core 1 stays away and is flooded, connections to core 0 are made
/// and served as if nothing were.
pub fn a_core_that_stops_polling_keeps_no_flow_of_another_waiting(config: &Config) {
    let connect = |family: Family, core: usize, index: usize| {
        link::connect_from(family.kernel(ports_of(family, core)[index]), family.catnip(7)).unwrap()
    };
    // While both poll the kernel asks for the library OS's address, which any of them answers.
    let before = || {
        for (family, core) in Family::BOTH.into_iter().flat_map(|family| [(family, 0), (family, 1)]) {
            assert_eq!(link::exchange(&connect(family, core, 0), b"hello"), b"hello");
        }
    };
    while_a_core_stays_away(config, before, |()| {
        let mut late = Vec::new();
        for (family, index) in Family::BOTH.into_iter().flat_map(|family| (1..40).map(move |n| (family, n))) {
            let begun = Instant::now();
            let message = vec![index as u8; 1 + index * 500];
            assert!(link::exchange(&connect(family, 0, index), &message) == message);
            if begun.elapsed() >= UNDISTURBED {
                late.push((family, index, begun.elapsed()));
            }
        }
        // The machine may have something else to do now and then.
        assert!(late.len() <= 3, "{late:?}");
    });
}

/// Cores that sleep: a packet wakes the core that its flow belongs to, and no other.
pub fn a_packet_wakes_its_own_core_alone(config: &Config) {
    const PACKETS: u64 = 50;
    const QUESTION: &[u8] = b"?";
    const LAST_WORD: &[u8] = b"!";
    // Sends to a core and waits for the answer, which is how often the core has slept.
    let ask = |core: usize, words: &[u8]| {
        let socket = link::datagrams(Family::V4.kernel(ports_of(Family::V4, core)[0]), Family::V4.catnip(7));
        let mut answer = [0; 8];
        socket.send(words).unwrap();
        assert_eq!(socket.recv(&mut answer).unwrap(), 8, "core {core}");
        u64::from_le_bytes(answer)
    };
    let sleeps = |core| ask(core, QUESTION);
    let clients = || {
        // The neighbour's address, and what the kernel says when a link comes up, pass first.
        for core in 0..CORES {
            sleeps(core);
        }
        thread::sleep(Duration::from_millis(300));
        for awake in 0..CORES {
            let asleep = 1 - awake;
            let before = (sleeps(awake), sleeps(asleep));
            for _ in 0..PACKETS {
                thread::sleep(Duration::from_millis(2));
                sleeps(awake);
            }
            let woken = (sleeps(awake) - before.0, sleeps(asleep) - before.1);
            assert!(woken.0 >= PACKETS, "core {awake} slept {} times", woken.0);
            // Its own question, and a look after the device or a timer.
            assert!(woken.1 <= PACKETS / 10, "core {asleep} was woken {} times", woken.1);
        }
        for core in 0..CORES {
            ask(core, LAST_WORD);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            clients();
        });
        catnip_os::open_cores(&on_cores(config).set("libos.idle", "sleep"), |libos, _| {
            let answers = async {
                let socket = UdpSocket::bind(&libos, Family::V4.catnip(7)).unwrap();
                loop {
                    let (words, from) = socket.pop().await.unwrap();
                    let sleeps = link::metric(&libos, "libos.sleeps").to_le_bytes();
                    socket.send_to(&sleeps, from.unwrap()).await.unwrap();
                    if words.to_vec() == LAST_WORD {
                        break;
                    }
                }
                // The answer is on its way.
                libos.sleep(Duration::from_millis(10)).await;
            };
            libos.block_on(libos.timeout(link::PATIENCE, answers)).unwrap().unwrap();
        })
        .unwrap();
    });
}
