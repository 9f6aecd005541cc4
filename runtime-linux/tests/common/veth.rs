//! A veth pair with a runtime on each end, and frames that the kernel has nothing to do with.

use std::process::Command;
use std::time::Duration;

use libos::memory::ArenaConfig;
use libos::{Arena, RxFrame};

/// Far more than a frame takes; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(5);
pub const NEAR: &str = "near";
pub const FAR: &str = "far";
/// A type of frame that is for experiments (802), which the kernel sends to nobody.
pub const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// Runs `ip` of iproute2 with these words.
pub fn run(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// A pair of so many queues each way.
pub fn pair(queues: usize, mtu: usize) {
    let end = |name: &str| format!("{name} mtu {mtu} numrxqueues {queues} numtxqueues {queues}");
    run(&format!("link add {} type veth peer name {}", end(NEAR), end(FAR)));
    for end in [NEAR, FAR] {
        run(&format!("link set {end} addrgenmode none"));
        run(&format!("link set {end} up"));
    }
}

pub fn arena(mib: usize) -> Arena {
    Arena::new(&ArenaConfig { region_bytes: mib << 20, hugepages: false }).unwrap()
}

/// A frame for everybody.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &EXPERIMENT, payload].concat()
}

pub fn bytes(frame: &RxFrame) -> Vec<u8> {
    frame.rest.iter().fold(frame.head.to_vec(), |all, piece| [&all[..], piece].concat())
}
