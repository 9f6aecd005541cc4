//! Several cores at an end of the link, each with a queue pair and a stack.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use catnip_os::libos::{Error, LibOs};
use futures_util::AsyncReadExt;

use crate::pair::{self, End};

const CORES: usize = 2;
const PORT: u16 = 7;
/// Connections that each core opens.
const CONNECTIONS: usize = 20;
/// The bytes of a message.
const MESSAGE_BYTES: usize = 20_000;
const LONGEST: Duration = Duration::from_secs(60);
/// For how long a core that stops polling does so.
const ABSENCE: Duration = Duration::from_millis(1500);
/// The first byte of a message: to be sent back, or to have the core stop polling before that.
const ECHO: u8 = 1;
const STAY_AWAY: u8 = 2;

type Further<'a> = &'a [(&'a str, &'a str)];

/// Two cores, which need not run beside each other: the machine may have one processor.
const TWO_CORES: Further<'_> = &[("cores.count", "2"), ("cores.pin", "false")];
const LONE: Further<'_> = &[("vhost.queues", "2")];

/// What all queues of an end have counted.
fn metric(libos: &LibOs, name: &str) -> u64 {
    libos.metrics().unwrap().value(&format!("catnip.device.{name}"))
}

/// Sends messages and datagrams back, with this core's number as their first byte, until the process is killed.
async fn serve(libos: LibOs, core: usize, address: SocketAddr) {
    let datagrams = UdpSocket::bind(&libos, address).unwrap();
    libos.spawn(async move {
        while let Ok((data, Some(from))) = datagrams.pop().await {
            let mut answer = data.to_vec();
            answer[0] = core as u8;
            datagrams.push_to(answer, from).await.unwrap();
        }
    });
    let mut listener = TcpListener::bind(&libos, address).unwrap();
    // Fails when the other end leaves.
    while let Ok((mut stream, _)) = listener.accept().await {
        libos.spawn(async move {
            let mut message = vec![0; MESSAGE_BYTES];
            while stream.read_exact(&mut message).await.is_ok() {
                if message[0] == STAY_AWAY {
                    thread::sleep(ABSENCE);
                }
                message[0] = core as u8;
                if stream.push(message.clone()).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Serves on as many cores as the configuration has, which is one without a word of them.
fn serve_forever(socket: &Path, end: End, further: Further<'_>) {
    let address = end.address(PORT);
    let main = |libos: LibOs, core: usize| libos.block_on(serve(libos.clone(), core, address)).unwrap();
    if further.iter().any(|(key, _)| *key == "cores.count") {
        catnip_os::open_cores(&pair::config(socket, end, further), main).unwrap();
    } else {
        main(pair::open(socket, end, further), 0);
    }
}

/// Sends a message and waits for it to come back; the core that answered.
async fn exchange(stream: &mut TcpStream, seed: usize, kind: u8) -> Result<u8, Error> {
    let mut message: Vec<u8> = (0..MESSAGE_BYTES).map(|at| (at * 7 + seed * 13 + (at >> 8)) as u8).collect();
    message[0] = kind;
    stream.push(message.clone()).await?;
    let mut answer = vec![0; MESSAGE_BYTES];
    stream.read_exact(&mut answer).await.map_err(|_| Error::ConnectionReset)?;
    assert!(answer[1..] == message[1..], "message {seed} came back changed");
    Ok(answer[0])
}

/// Many connections and datagram sockets from one core; for each, the core at the other end that served it from first to last.
async fn ask(libos: &LibOs, peer: SocketAddr) -> Vec<u8> {
    let mut served_by = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(libos, peer).await.unwrap();
        let first = exchange(&mut stream, connection, ECHO).await.unwrap();
        for round in 1..10 {
            assert_eq!(
                exchange(&mut stream, connection * 100 + round, ECHO).await,
                Ok(first),
                "the flow moved"
            );
        }
        stream.close().await.unwrap();
        served_by.push(first);

        let datagrams = UdpSocket::bind(libos, "0.0.0.0:0".parse().unwrap()).unwrap();
        datagrams.connect(peer).await.unwrap();
        let mut answers = Vec::new();
        for round in 0..10_u8 {
            datagrams.push(vec![round; 700]).await.unwrap();
            let (data, _) = datagrams.pop().await.unwrap();
            let data = data.to_vec();
            assert_eq!(data[1..], [round; 699]);
            answers.push(data[0]);
        }
        assert!(answers.iter().all(|core| *core == answers[0]), "a flow moved: {answers:?}");
    }
    served_by
}

/// The device is the cores' together: one that left would be a core that hands over nothing more.
fn stay_until_all_are_done(libos: &LibOs, done: &AtomicUsize) {
    done.fetch_add(1, Ordering::Relaxed);
    let others = async {
        while done.load(Ordering::Relaxed) < CORES {
            libos.sleep(Duration::from_millis(1)).await;
        }
    };
    libos.block_on(libos.timeout(LONGEST, others)).unwrap().unwrap();
}

/// What a core of the asking end saw.
struct Seen {
    core: usize,
    served_by: Vec<u8>,
    handed_over: u64,
    taken_over: u64,
    sent: u64,
}

fn ask_on_cores(socket: &Path, end: End, further: Further<'_>) -> Vec<Seen> {
    let further = [TWO_CORES, further].concat();
    let done = AtomicUsize::new(0);
    let peer = end.other().address(PORT);
    catnip_os::open_cores(&pair::config(socket, end, &further), |libos, core| {
        let served_by = libos.block_on(libos.timeout(LONGEST, ask(&libos, peer))).unwrap().unwrap();
        stay_until_all_are_done(&libos, &done);
        Seen {
            core,
            served_by,
            handed_over: metric(&libos, "steering.handed_over"),
            taken_over: metric(&libos, "steering.taken_over"),
            sent: metric(&libos, "tx_frames"),
        }
    })
    .unwrap()
}

const SPLIT: Further<'_> = &[("vhost.ring", "split")];
const PACKED: Further<'_> = &[("vhost.ring", "packed")];

#[test]
fn with_two_cores_at_both_ends_each_flow_has_one_pair_and_one_core_at_each() {
    for (case, end, ring) in [("0", End::Front, PACKED), ("1", End::Back, SPLIT)] {
        pair::run(
            case,
            |socket, other| {
                let seen = ask_on_cores(socket, end, ring);
                assert_eq!(seen.len(), CORES);
                for core in seen {
                    // The hash is symmetric, and there are as many cores at either end.
                    assert_eq!(core.served_by, vec![core.core as u8; CONNECTIONS]);
                    assert_eq!((core.handed_over, core.taken_over), (0, 0), "frames came in another pair");
                    assert!(core.sent > 0, "each core has a pair of its own");
                }
                other.kill();
            },
            |socket| serve_forever(socket, end.other(), &[TWO_CORES, ring].concat()),
        );
    }
}

#[test]
fn an_end_that_answers_through_one_pair_alone_serves_two_cores() {
    for (case, end) in [("0", End::Front), ("1", End::Back)] {
        pair::run(
            case,
            |socket, other| {
                let seen = ask_on_cores(socket, end, &[]);
                // All answers come to core 0.
                assert!(seen[0].handed_over > 100 && seen[0].taken_over == 0, "{}", seen[0].handed_over);
                assert!(seen[1].taken_over > 100 && seen[1].handed_over == 0, "{}", seen[1].taken_over);
                other.kill();
            },
            |socket| serve_forever(socket, end.other(), LONE),
        );
    }
}

#[test]
fn two_cores_share_one_queue_pair() {
    for (case, end) in [("0", End::Front), ("1", End::Back)] {
        pair::run(
            case,
            |socket, other| {
                let seen = ask_on_cores(socket, end, &[("vhost.queues", "1")]);
                assert!(seen[1].taken_over > 100, "{}", seen[1].taken_over);
                assert_eq!(seen[1].sent, 0, "it sends through the core that has the pair");
                other.kill();
            },
            |socket| serve_forever(socket, end.other(), &[]),
        );
    }
}

#[test]
fn a_core_that_stops_polling_at_either_end_harms_no_other() {
    for (case, end) in [("0", End::Front), ("1", End::Back)] {
        pair::run(
            case,
            |socket, other| {
                let (away, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
                let done = AtomicUsize::new(0);
                let peer = end.other().address(PORT);
                catnip_os::open_cores(&pair::config(socket, end, TWO_CORES), |libos, core| {
                    let work = async {
                        let mut stream = TcpStream::connect(&libos, peer).await.unwrap();
                        exchange(&mut stream, 0, ECHO).await.unwrap();
                        if core == 0 {
                            while !away.load(Ordering::Relaxed) {
                                libos.sleep(Duration::from_millis(1)).await;
                            }
                            while away.load(Ordering::Relaxed) {
                                exchange(&mut stream, 1, ECHO).await.unwrap();
                                rounds.fetch_add(1, Ordering::Relaxed);
                            }
                            return;
                        }
                        away.store(true, Ordering::Relaxed);
                        // The other end's core, while this one waits for it; then this one.
                        let start = Instant::now();
                        exchange(&mut stream, 2, STAY_AWAY).await.unwrap();
                        assert!(start.elapsed() >= ABSENCE);
                        let while_theirs_was = rounds.load(Ordering::Relaxed);
                        thread::sleep(ABSENCE);
                        let while_ours_was = rounds.load(Ordering::Relaxed) - while_theirs_was;
                        away.store(false, Ordering::Relaxed);
                        assert!(
                            while_theirs_was > 50 && while_ours_was > 50,
                            "{while_theirs_was}, {while_ours_was}"
                        );
                        // And it goes on where it was.
                        exchange(&mut stream, 3, ECHO).await.unwrap();
                    };
                    libos.block_on(libos.timeout(LONGEST, work)).unwrap().unwrap();
                    stay_until_all_are_done(&libos, &done);
                })
                .unwrap();
                other.kill();
            },
            |socket| serve_forever(socket, end.other(), TWO_CORES),
        );
    }
}
