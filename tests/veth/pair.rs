//! A veth pair: the kernel's end with addresses, and one for the library OS, which the kernel leaves alone.

use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::runtime::TxOffload;
use catnip_os::libos::{Arena, Config, FrameBatch, Instant, Runtime};
use runtime_linux::packet::{Packet, PacketConfig};

use crate::link::command;

/// The kernel's end.
pub const KERNEL: &str = "veth-kernel";
/// The library OS's end.
pub const OURS: &str = "veth-ours";

/// Makes the pair, with the MTU, both ends up.
pub fn make(mtu: usize) {
    make_with_queues(mtu, 1);
}

/// Makes the pair with so many queues each way. The kernel spreads what it sends to us over them, by a hash of its own.
pub fn make_with_queues(mtu: usize, queues: usize) {
    command("ip link set lo up");
    let end = format!("mtu {mtu} numtxqueues {queues} numrxqueues {queues}");
    command(&format!("ip link add {KERNEL} {end} type veth peer name {OURS} {end}"));
    // Without an address of its own the kernel answers nothing on our end, not even for a link-local address that it
    // would form from the Ethernet address as the library OS does.
    command(&format!("ip link set {OURS} addrgenmode none"));
    command(&format!("ip address add 10.5.0.1/24 dev {KERNEL}"));
    command(&format!("ip address add fd05::1/64 dev {KERNEL} nodad"));
    command(&format!("ip link set {KERNEL} up"));
    command(&format!("ip link set {OURS} up"));
}

/// Has the kernel compute the checksums of what it sends to us: XDP has no place where it could say that it did not.
pub fn compute_checksums() {
    command(&format!("ethtool -K {KERNEL} tx off"));
}

/// The library OS on its end, by the runtime of this name.
pub fn config(kind: &str) -> Config {
    let addresses = ["10.5.0.2/24", "fd05::2/64"].map(str::to_owned).to_vec();
    Config::new()
        .set("runtime.kind", kind)
        .set(&format!("{kind}.interface"), OURS)
        .set("stack.addresses", addresses)
        .set("memory.region_mib", 64)
}

/// Sends any bytes as frames.
pub struct RawSender {
    socket: Packet,
    arena: Arena,
}

impl RawSender {
    pub fn open(interface: &str) -> Self {
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
        let config = PacketConfig { interface: interface.into(), ..PacketConfig::default() };
        let [socket] = <[Packet; 1]>::try_from(Packet::open(&config, &arena).unwrap()).unwrap();
        Self { socket, arena }
    }

    pub fn send(&mut self, frame: &[u8]) {
        let mut batch = FrameBatch::new();
        batch.push(self.arena.copy_from(frame).unwrap().freeze());
        batch.finish(TxOffload::default());
        self.socket.transmit(Instant::ZERO, &mut batch).unwrap();
    }
}
