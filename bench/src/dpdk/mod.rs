//! What the stack costs per packet on DPDK: a UDP echo beside testpmd, which swaps two Ethernet addresses and sends the
//! frame back, each on one end of the same kind of device. The same program at the other end keeps either busy.

mod echo;
mod generator;
mod testpmd;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs, process};

use catnip_os::libos::Config;
use catnip_os::runtime_dpdk::{DpdkConfig, DpdkPort};

use crate::scenario::Failure;

/// The processor of who is measured, and that of the generator.
const MEASURED_CPU: usize = 1;
const GENERATOR_CPU: usize = 0;

/// Bytes of the datagrams.
const PAYLOAD_BYTES: [usize; 2] = [18, 1458];

/// What one side did.
#[derive(Debug, Clone, Copy)]
struct Figures {
    packets_per_second: f64,
    /// Of the polls that brought packets, receiving and sending each.
    cycles_per_packet: f64,
}

/// Devices of both ends, by a socket in a folder of their own.
struct Link {
    folder: PathBuf,
}

impl Link {
    fn new() -> Result<Self, Failure> {
        let folder = env::temp_dir().join(format!("catnip-bench-{}", process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn server_device(socket: &Path) -> String {
    format!("net_memif0,role=server,socket={},socket-abstract=no,rsize=10", socket.display())
}

fn client_device(socket: &Path) -> String {
    format!("net_memif0,role=client,socket={},socket-abstract=no,rsize=10", socket.display())
}

/// A started program, ended when dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures both and prints a table.
pub fn run() -> Result<(), Failure> {
    println!("UDP echo over memif, one processor each; cycles of a packet received and sent back");
    println!("payload | who     | packets/s  | cycles/packet");
    for payload_bytes in PAYLOAD_BYTES {
        let forwarding = testpmd::measure(payload_bytes)?;
        let echoing = echo::measure(payload_bytes)?;
        for (who, figures) in [("testpmd", forwarding), ("catnip", echoing)] {
            let Figures { packets_per_second, cycles_per_packet } = figures;
            println!("{payload_bytes:5} B | {who:7} | {packets_per_second:10.0} | {cycles_per_packet:10.0}");
        }
        let cost = echoing.cycles_per_packet - forwarding.cycles_per_packet;
        println!("{payload_bytes:5} B | the stack and its application cost {cost:.0} cycles a packet");
    }
    Ok(())
}

/// The child processes' own commands.
pub fn run_part(part: &str, socket: &str, payload_bytes: &str) -> Result<(), Failure> {
    let socket = Path::new(socket);
    match part {
        "echo" => echo::serve(socket),
        "generate" => generator::generate(socket, payload_bytes.parse()?),
        _ => Err(format!("there is no part {part}").into()),
    }
}

/// Starts this program again for a part.
fn start_part(part: &str, socket: &Path, payload_bytes: usize) -> Result<Started, Failure> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["dpdk-part", part]).arg(socket).arg(payload_bytes.to_string());
    Ok(Started(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
}

/// Runs the generator; returns packets per second, and the program, whose end of the link stays until it is dropped:
/// drivers forget what they counted when their peer leaves.
fn generate(socket: &Path, payload_bytes: usize) -> Result<(f64, Started), Failure> {
    let mut started = start_part("generate", socket, payload_bytes)?;
    let mut line = String::new();
    if let Some(stdout) = started.0.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    Ok((line.trim().parse()?, started))
}

/// What the program printed, once it has ended.
fn output(mut started: Started) -> Result<String, Failure> {
    let mut text = String::new();
    if let Some(mut stdout) = started.0.stdout.take() {
        std::io::Read::read_to_string(&mut stdout, &mut text)?;
    }
    let status = started.0.wait()?;
    if status.success() { Ok(text) } else { Err(format!("a part ended with {status}").into()) }
}

/// Keeps the calling thread on one processor.
fn pin(cpu: usize) -> Result<(), Failure> {
    // SAFETY: a set of bits, for which zeros are a value; the processor's number is within it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err("this benchmark needs two processors".into()) }
}

/// The processor's time-stamp counter.
fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

fn config(device: &str, address: &str) -> Config {
    Config::new()
        .set("runtime.kind", "dpdk")
        .set("dpdk.device", device)
        .set("stack.addresses", vec![address.to_owned()])
        .set("libos.idle", "spin")
}

fn open_port(device: &str) -> Result<DpdkPort, Failure> {
    let config = DpdkConfig { device: device.to_owned(), ..DpdkConfig::default() };
    Ok(DpdkPort::open(&config, generator::REGION_BYTES)?)
}
