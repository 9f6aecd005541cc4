//! A peer that dies, at any moment.

use std::time::Duration;

use catnip_os::libos::Error;
use catnip_os::libos::net::UdpSocket;

use crate::pair::{self, End};

/// The other end is killed while packets pass: an error, soon, and for good.
#[test]
fn a_killed_peer_is_an_error_for_whoever_waits() {
    for (index, end) in [End::Front, End::Back].into_iter().enumerate() {
        for (idle_index, idle) in ["spin", "sleep"].into_iter().enumerate() {
            let further = [("libos.idle", idle)];
            pair::run(
                &format!("{index}{idle_index}"),
                |socket, other| {
                    let libos = pair::open(socket, end, &further);
                    let datagrams = UdpSocket::bind(&libos, end.address(9)).unwrap();
                    let peer = end.other().address(9);
                    let exchange = async {
                        for _ in 0..100 {
                            datagrams.push_to(vec![1; 200], peer).await?;
                            datagrams.pop().await?;
                        }
                        other.kill();
                        // Nobody answers any more: this ends by the device's failure alone.
                        datagrams.pop().await.map(drop)
                    };
                    let result = libos.block_on(libos.timeout(Duration::from_secs(20), exchange)).unwrap();
                    assert_eq!(result, Ok(Err(Error::DeviceFailed)), "{end:?} {idle}");
                    assert_eq!(
                        libos.block_on(datagrams.push_to(vec![1; 200], peer)).unwrap(),
                        Err(Error::DeviceFailed)
                    );
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
