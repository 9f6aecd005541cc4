//! What a program that has nothing to do costs.

use std::time::{Duration, Instant};

use catnip_os::libos::net::UdpSocket;

use crate::pair::{self, End};

/// Processor time that this thread has used.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Both ends idle for a while, each under a hundredth of a core; then the first datagram wakes each once.
#[test]
fn an_idle_link_costs_next_to_nothing_and_the_first_packet_wakes_it() {
    for (index, end) in [End::Front, End::Back].into_iter().enumerate() {
        for (ring_index, ring) in ["split", "packed"].into_iter().enumerate() {
            let further = [("libos.idle", "adaptive"), ("vhost.ring", ring)];
            pair::run(
                &format!("{index}{ring_index}"),
                |socket, other| {
                    let libos = pair::open(socket, end, &further);
                    let datagrams = UdpSocket::bind(&libos, end.address(9)).unwrap();
                    let peer = end.other().address(9);
                    let exchange = async {
                        // The neighbour is known from here on.
                        datagrams.push_to(vec![1; 64], peer).await.unwrap();
                        datagrams.pop().await.unwrap();
                        let (before, sleeps) = (cpu_time(), libos.metrics().unwrap().value("libos.sleeps"));
                        libos.sleep(Duration::from_millis(500)).await;
                        let used = cpu_time() - before;
                        assert!(used < Duration::from_millis(5), "{used:?} of half a second");
                        assert!(libos.metrics().unwrap().value("libos.sleeps") - sleeps < 50);
                        let mut fastest = Duration::MAX;
                        for _ in 0..50 {
                            libos.sleep(Duration::from_millis(2)).await;
                            let start = Instant::now();
                            datagrams.push_to(vec![2; 64], peer).await.unwrap();
                            datagrams.pop().await.unwrap();
                            fastest = fastest.min(start.elapsed());
                        }
                        assert!(fastest < Duration::from_millis(2), "{fastest:?} for a wake-up at each end");
                    };
                    libos.block_on(libos.timeout(Duration::from_secs(20), exchange)).unwrap().unwrap();
                    other.kill();
                },
                |socket| {
                    let libos = pair::open(socket, end.other(), &further);
                    let datagrams = UdpSocket::bind(&libos, end.other().address(9)).unwrap();
                    let echo = async {
                        while let Ok((data, Some(from))) = datagrams.pop().await {
                            datagrams.push_to(data, from).await.unwrap();
                        }
                    };
                    libos.block_on(echo).unwrap();
                },
            );
        }
    }
}
