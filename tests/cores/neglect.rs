//! A core whose program stays away: what it costs the others.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use catnip_os::libos::net::{TcpStream, UdpSocket};
use catnip_os::runtime_sim::Faults;

use crate::device::Spreading;
use crate::host::{RING_FRAMES, Shape, World};
use crate::steering::serve;

#[test]
fn a_core_that_stops_polling_harms_no_other() {
    let world = World::new(2, Shape::Queues(Spreading::ToTheLast), 1, Faults::default());
    let served = Rc::default();
    (0..2).for_each(|core| serve(&world.cores[core], core, "10.0.0.1:7", &served));
    // Core 1 receives everything; core 0 sleeps on what it is handed.
    let rounds = Rc::new(Cell::new(0));
    for _ in 0..20 {
        let (libos, rounds) = (world.client.clone(), Rc::clone(&rounds));
        world.client.spawn(async move {
            let Ok(stream) = TcpStream::connect(&libos, "10.0.0.1:7".parse().unwrap()).await else { return };
            for _ in 0..50 {
                let message = libos.arena().copy_from(&[7; 1000]).unwrap().freeze();
                if stream.push(message).await.is_err() || stream.pop().await.is_err() {
                    return;
                }
                rounds.set(rounds.get() + 1);
            }
        });
    }
    // A flood for the core that does not look, beside.
    let socket = UdpSocket::bind(&world.client, "0.0.0.0:0".parse().unwrap()).unwrap();
    let libos = world.client.clone();
    world.client.spawn(async move {
        for port in 0..20_000_u16 {
            let to = SocketAddr::from(([10, 0, 0, 1], port % 1000 + 1000));
            let _ = socket.send_to(&[0; 500], to).await;
            if port % 64 == 0 {
                libos.sleep(std::time::Duration::from_micros(100)).await;
            }
        }
    });
    for _ in 0..3000 {
        world.turn(&[0]);
    }
    let alone = rounds.get();
    assert!(alone >= 5 * 50, "core 1's clients were served: {alone} rounds");
    assert!(world.count(1, "device.steering.dropped_ring_full") > 1000);
    // What the sleeper does not take is bounded: a ring of frames, and no more.
    let held = world.cores[1].arena().stats().lent_bytes;
    assert!(held <= RING_FRAMES * 2048 * 2, "{held} bytes are lent");
    // And when it comes back, its own clients are served.
    world.run_until(&[], || rounds.get() >= alone + 50);
}

#[test]
fn a_core_that_goes_leaves_its_ports_to_nobody_and_the_others_go_on() {
    let mut world = World::new(2, Shape::Queues(Spreading::ToTheLast), 2, Faults::default());
    let served = Rc::default();
    (0..2).for_each(|core| serve(&world.cores[core], core, "10.0.0.1:7", &served));
    let gone = world.cores.remove(0);
    gone.abort_tasks();
    drop(gone);
    let connected = Rc::new(Cell::new(0));
    for _ in 0..20 {
        let (libos, connected) = (world.client.clone(), Rc::clone(&connected));
        world.client.spawn(async move {
            let Ok(stream) = TcpStream::connect(&libos, "10.0.0.1:7".parse().unwrap()).await else { return };
            let message = libos.arena().copy_from(b"hello").unwrap().freeze();
            stream.push(message).await.unwrap();
            assert_eq!(stream.pop().await.unwrap().to_vec(), b"hello");
            connected.set(connected.get() + 1);
        });
    }
    world.run_until(&[], || connected.get() >= 5);
    assert!(world.count(0, "device.steering.dropped_ring_full") > 0, "what was the other core's is dropped");
}
