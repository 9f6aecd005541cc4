//! Two library OSes on two links, with the kernel as the router between them.

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use catnip_os::libos::net::TcpStream;
use catnip_os::libos::{Config, LibOs, Shutdown};

use crate::echo;
use crate::link::{self, Family};
use crate::namespace;
use crate::noise::{Noise, Sum, Summer};

const PORT: u16 = 5009;
const BYTES: usize = 4 << 20;

/// The second link's library OS.
fn far(family: Family) -> SocketAddr {
    match family {
        Family::V4 => "10.6.0.2:5009".parse().unwrap(),
        Family::V6 => "[fd06::2]:5009".parse().unwrap(),
    }
}

fn near_config() -> Config {
    link::config().set("stack.gateway_v4", "10.5.0.1").set("stack.gateway_v6", "fd05::1")
}

fn far_config(offload: bool) -> Config {
    let list = |text: &[&str]| text.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    link::config()
        .set("tap.name", "tap-far")
        .set("tap.host_addresses", list(&["10.6.0.1/24", "fd06::1/64"]))
        .set("stack.addresses", list(&["10.6.0.2/24", "fd06::2/64"]))
        .set("stack.routes", list(&["10.5.0.0/24 via 10.6.0.1", "fd05::/64 via fd06::1"]))
        .set("tap.offload", offload)
}

fn make_kernel_a_router() {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
}

/// Runs an echo server on the far link's library OS, on a thread of its own, until the returned sender is dropped.
fn serve_far(offload: bool) -> (mpsc::Sender<()>, thread::JoinHandle<()>) {
    let (listening, is_listening) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let libos = link::open(&far_config(offload));
        for family in Family::BOTH {
            drop(echo::spawn_server(&libos, far(family)));
        }
        listening.send(()).unwrap();
        let over = || stopped.try_recv() == Err(mpsc::TryRecvError::Disconnected);
        libos.block_on(link::until(&libos, "the far server is to stop", over)).unwrap();
        libos.abort_tasks();
    });
    is_listening.recv().unwrap();
    (stop, server)
}

/// Sends noise from the near library OS to the far one and returns the sums of what went and what came back.
async fn exchange(libos: &LibOs, peer: SocketAddr) -> (Sum, Sum) {
    let stream = std::rc::Rc::new(TcpStream::connect(libos, peer).await.unwrap());
    let receiver = libos.spawn({
        let stream = stream.clone();
        async move {
            let mut summer = Summer::default();
            loop {
                let data = stream.pop().await.unwrap();
                if data.is_empty() {
                    return summer.sum();
                }
                data.iter().for_each(|buffer| summer.add(buffer));
            }
        }
    });
    let bytes = Noise::bytes(3, BYTES);
    let mut summer = Summer::default();
    for chunk in bytes.chunks(100_000) {
        summer.add(chunk);
        stream.push(libos.arena().copy_from(chunk).unwrap().freeze()).await.unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    (summer.sum(), receiver.await.unwrap())
}

#[test]
fn two_library_oses_reach_each_other_through_the_kernel_as_a_router() {
    namespace::enter("-Urn", || {
        make_kernel_a_router();
        for offload in [true, false] {
            let (stop, server) = serve_far(offload);
            let libos = link::open(&near_config().set("tap.offload", offload));
            for family in Family::BOTH {
                let (sent, received) = link::run(&libos, exchange(&libos, far(family)));
                assert_eq!(received, sent, "{family:?}, offload {offload}");
            }
            drop(stop);
            link::drive_until_joined(&libos, server);
        }
    });
}

#[test]
fn a_router_with_a_smaller_mtu_behind_it_is_learned_from() {
    namespace::enter("-Urn", || {
        make_kernel_a_router();
        for offload in [true, false] {
            let (stop, server) = serve_far(offload);
            // Both ends think that 1500 bytes go through.
            link::command("ip link set tap-far mtu 1300");
            let libos = link::open(&near_config().set("tap.offload", offload));
            for family in Family::BOTH {
                let (sent, received) = link::run(&libos, exchange(&libos, far(family)));
                assert_eq!(received, sent, "{family:?}, offload {offload}");
            }
            let errors = link::metric(&libos, "catnip.network.icmp_in_destination_errors");
            assert!(errors > 0, "the router never complained, offload {offload}");
            drop(stop);
            link::drive_until_joined(&libos, server);
        }
    });
}

#[test]
fn a_host_without_a_route_back_times_out_and_others_go_on() {
    namespace::enter("-Urn", || {
        let libos =
            link::open(&near_config().set("tcp.rto_initial_ms", 20).set("tcp.max_syn_retransmissions", 2));
        link::run(&libos, async {
            // Nobody forwards: the kernel drops what is not for itself, and says nothing.
            let lost = TcpStream::connect(&libos, "192.0.2.7:80".parse().unwrap()).await.map(drop);
            assert!(lost.is_err());
        });
        echo::exchange(&libos, Family::V4.catnip(PORT), 1000, "the link's own host");
    });
}
