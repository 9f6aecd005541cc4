//! Where frames go: to the core that their flow belongs to, or to the one that has the socket.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use catnip_os::libos::{Error, LibOs, Shutdown};
use catnip_os::runtime_sim::{Faults, Ppm};

use crate::device::Spreading;
use crate::host::{Shape, World};

const SHAPES: [Shape; 3] =
    [Shape::Queues(Spreading::InTurn), Shape::Queues(Spreading::ToTheLast), Shape::OneQueue];

/// Which core accepted the connections of which peers.
type Served = Rc<RefCell<HashMap<SocketAddr, usize>>>;

/// Echoes on every connection to `address`, on one core.
pub fn serve(libos: &LibOs, core: usize, address: &str, served: &Served) {
    let mut listener = TcpListener::bind(libos, address.parse().unwrap()).unwrap();
    let (libos, served) = (libos.clone(), Rc::clone(served));
    libos.clone().spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            assert_eq!(served.borrow_mut().insert(peer, core), None, "{peer} was served twice");
            libos.spawn(async move {
                while let Ok(data) = stream.pop().await
                    && !data.is_empty()
                    && stream.push(data).await.is_ok()
                {}
            });
        }
    });
}

/// Connects, sends so many bytes, and expects them back to the end of the stream. Returns its own end.
async fn exchange(libos: LibOs, server: SocketAddr, bytes: usize) -> Result<SocketAddr, Error> {
    let stream = TcpStream::connect(&libos, server).await?;
    let message: Vec<u8> = (0..bytes).map(|at| (at * 7 + bytes) as u8).collect();
    stream.push(libos.arena().copy_from(&message).unwrap().freeze()).await?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    loop {
        let data = stream.pop().await?;
        if data.is_empty() {
            break;
        }
        answer.extend(data.to_vec());
    }
    assert!(answer == message, "{} of {bytes} bytes came back", answer.len());
    stream.local_addr()
}

/// Runs so many clients of one server at once, until all are done.
fn clients(world: &World, server: &str, count: usize, bytes: usize, stalled: &[usize]) {
    let done = Rc::new(Cell::new(0));
    for _ in 0..count {
        let (libos, done) = (world.client.clone(), Rc::clone(&done));
        let server = server.parse().unwrap();
        world.client.spawn(async move {
            exchange(libos, server, bytes).await.unwrap();
            done.set(done.get() + 1);
        });
    }
    world.run_until(stalled, || done.get() == count);
}

fn faults() -> Faults {
    let per_cent = Ppm::percent;
    Faults { loss: per_cent(1), duplication: per_cent(1), reordering: per_cent(1), ..Faults::default() }
}

#[test]
fn however_the_device_spreads_frames_every_connection_is_served_by_one_core() {
    for shape in SHAPES {
        for (seed, faults) in [(1, Faults::default()), (2, faults()), (3, faults())] {
            let in_order = faults == Faults::default() && shape != SHAPES[0];
            let world = World::new(3, shape, seed, faults);
            let served = Served::default();
            for (core, libos) in world.cores.iter().enumerate() {
                serve(libos, core, "10.0.0.1:7", &served);
                serve(libos, core, "[fd00::1]:7", &served);
            }
            for server in ["10.0.0.1:7", "[fd00::1]:7"] {
                clients(&world, server, 40, 20_000, &[]);
            }
            let served = served.borrow();
            assert_eq!(served.len(), 80);
            let of = |core| served.values().filter(|&&by| by == core).count();
            assert!((0..3).all(|core| of(core) > 8), "{:?}", [of(0), of(1), of(2)]);
            assert!(world.sum("device.steering.handed_over") > 100);
            assert_eq!(world.sum("device.steering.dropped_ring_full"), 0);
            // A segment that comes late or twice may find its connection over.
            assert!(!in_order || world.sum("tcp.out_resets") == 0);
        }
    }
}

#[test]
fn a_listener_on_one_core_alone_gets_all_its_connections() {
    for shape in SHAPES {
        for listening in 0..3 {
            let world = World::new(3, shape, 4, Faults::default());
            let served = Served::default();
            serve(&world.cores[listening], listening, "10.0.0.1:7", &served);
            clients(&world, "10.0.0.1:7", 30, 5000, &[]);
            assert_eq!(served.borrow().len(), 30);
            assert!(world.sum("device.steering.passed_on") > 30);
        }
    }
}

#[test]
fn connections_stay_where_they_are_when_a_further_core_begins_to_listen() {
    let world = World::new(2, Shape::Queues(Spreading::InTurn), 5, Faults::default());
    let served = Served::default();
    serve(&world.cores[1], 1, "10.0.0.1:7", &served);
    // Some of these belong to core 0 by their hash, and are at core 1 for their lives.
    let streams = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..10 {
        let (libos, streams) = (world.client.clone(), Rc::clone(&streams));
        world.client.spawn(async move {
            let stream = TcpStream::connect(&libos, "10.0.0.1:7".parse().unwrap()).await.unwrap();
            streams.borrow_mut().push(stream);
        });
    }
    world.run_until(&[], || streams.borrow().len() == 10 && served.borrow().len() == 10);
    serve(&world.cores[0], 0, "10.0.0.1:7", &served);
    let done = Rc::new(Cell::new(0));
    for stream in streams.take() {
        let (libos, done) = (world.client.clone(), Rc::clone(&done));
        world.client.spawn(async move {
            stream.push(libos.arena().copy_from(b"still there?").unwrap().freeze()).await.unwrap();
            assert_eq!(stream.pop().await.unwrap().to_vec(), b"still there?");
            done.set(done.get() + 1);
        });
    }
    world.run_until(&[], || done.get() == 10);
    clients(&world, "10.0.0.1:7", 20, 1000, &[]);
    assert!(served.borrow().values().any(|&core| core == 0), "the new listener has its part");
}

#[test]
fn a_port_that_no_core_has_is_refused_once() {
    for shape in SHAPES {
        let world = World::new(3, shape, 6, Faults::default());
        let refused = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let (libos, refused) = (world.client.clone(), Rc::clone(&refused));
            world.client.spawn(async move {
                let failed = TcpStream::connect(&libos, "10.0.0.1:9".parse().unwrap()).await;
                assert_eq!(failed.err(), Some(Error::ConnectionRefused));
                refused.set(refused.get() + 1);
            });
        }
        world.run_until(&[], || refused.get() == 10);
        assert_eq!(world.sum("tcp.out_resets"), 10);
    }
}

#[test]
fn connections_from_every_core_come_back_to_it() {
    for shape in SHAPES {
        let world = World::new(3, shape, 7, faults());
        serve(&world.client, 0, "10.0.0.2:7", &Served::default());
        let done = Rc::new(Cell::new(0));
        for libos in &world.cores {
            for _ in 0..10 {
                let (own, done) = (libos.clone(), Rc::clone(&done));
                libos.spawn(async move {
                    exchange(own, "10.0.0.2:7".parse().unwrap(), 20_000).await.unwrap();
                    done.set(done.get() + 1);
                });
            }
        }
        world.run_until(&[], || done.get() == 30);
        assert_eq!(world.sum("device.steering.passed_on"), 0, "each port is its own core's");
    }
}

/// Answers every datagram with the core's number in front.
fn answer(libos: &LibOs, core: usize, address: &str) {
    let socket = UdpSocket::bind(libos, address.parse().unwrap()).unwrap();
    libos.spawn(async move {
        let mut datagram = [0; 2048];
        loop {
            let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
            let answer = [&[core as u8], &datagram[..len]].concat();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
}

#[test]
fn datagrams_come_to_the_core_of_their_flow_or_to_the_one_that_has_the_port() {
    for shape in SHAPES {
        let world = World::new(3, shape, 8, Faults::default());
        (0..3).for_each(|core| answer(&world.cores[core], core, "0.0.0.0:53"));
        answer(&world.cores[2], 2, "0.0.0.0:54");
        let answers = Rc::new(RefCell::new(Vec::new()));
        for (port, expected) in [(53, 12), (54, 24)] {
            // Fewer than the packets that wait for a neighbour at most.
            for _ in 0..12 {
                let (libos, answers) = (world.client.clone(), Rc::clone(&answers));
                world.client.spawn(async move {
                    let socket = UdpSocket::bind(&libos, "0.0.0.0:0".parse().unwrap()).unwrap();
                    socket.connect(([10, 0, 0, 1], port).into()).await.unwrap();
                    let mut cores = Vec::new();
                    for round in 0..5 {
                        let mut answer = [0; 8];
                        socket.send(&[round]).await.unwrap();
                        assert_eq!(socket.recv(&mut answer).await.unwrap(), 2);
                        assert_eq!(answer[1], round);
                        cores.push(answer[0]);
                    }
                    assert!(cores.iter().all(|core| *core == cores[0]), "{cores:?}");
                    answers.borrow_mut().push((port, cores[0]));
                });
            }
            world.run_until(&[], || answers.borrow().len() == expected);
        }
        let answers = answers.borrow();
        let of = |port, core| answers.iter().filter(|&&answer| answer == (port, core)).count();
        assert!((0..3).all(|core| of(53, core) > 0));
        assert_eq!(of(54, 2), 12);
    }
}

#[test]
fn a_broadcast_comes_to_every_core_that_has_the_port() {
    for shape in SHAPES {
        let world = World::new(3, shape, 9, Faults::default());
        [0, 2].into_iter().for_each(|core| answer(&world.cores[core], core, "0.0.0.0:53"));
        let cores = Rc::new(RefCell::new(Vec::new()));
        let (libos, answers) = (world.client.clone(), Rc::clone(&cores));
        world.client.spawn(async move {
            use catnip_os::libos::SocketOption;
            let socket = UdpSocket::bind(&libos, "10.0.0.2:5000".parse().unwrap()).unwrap();
            socket.set_option(SocketOption::Broadcast(true)).unwrap();
            socket.send_to(b"?", "255.255.255.255:53".parse().unwrap()).await.unwrap();
            loop {
                let mut answer = [0; 8];
                socket.recv(&mut answer).await.unwrap();
                answers.borrow_mut().push(answer[0]);
            }
        });
        world.run_until(&[], || cores.borrow().len() >= 2);
        (0..50).for_each(|_| world.turn(&[]));
        cores.borrow_mut().sort_unstable();
        assert_eq!(*cores.borrow(), [0, 2]);
    }
}

#[test]
fn what_a_neighbour_says_is_known_to_all_cores() {
    // All answers come into the last core's queue, also those to what the others asked.
    let world = World::new(3, Shape::Queues(Spreading::ToTheLast), 10, Faults::default());
    serve(&world.client, 0, "10.0.0.2:7", &Served::default());
    serve(&world.client, 0, "[fd00::2]:7", &Served::default());
    let done = Rc::new(Cell::new(0));
    for server in ["10.0.0.2:7", "[fd00::2]:7"] {
        let (own, count) = (world.cores[0].clone(), Rc::clone(&done));
        world.cores[0].spawn(async move {
            exchange(own, server.parse().unwrap(), 100).await.unwrap();
            count.set(count.get() + 1);
        });
    }
    world.run_until(&[], || done.get() == 2);
    assert!(world.count(0, "device.steering.copies_in") >= 2);
}
