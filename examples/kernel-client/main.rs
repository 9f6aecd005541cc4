//! A client on the kernel's own sockets that puts an echo server to the test and takes its times.
//!
//! ```text
//! kernel-client TCP-ADDRESS UDP-ADDRESS [MEGABYTES [ROUND-TRIPS]]
//! kernel-client loopback [ROUND-TRIPS]
//! ```
//!
//! TCP and UDP echoes of many sizes are compared byte for byte, and a long TCP transfer (100 MB) by its
//! SHA-256. Then round trips of 64 bytes are timed, and the same client is timed against an echo server
//! on the kernel's loopback; with `loopback` nothing else is. The first difference or silence ends the program with a line that says
//! what it was, and exit status 1. `make demo` runs it against the C examples over TAP, `make test-vm`
//! from a guest over vhost.
#![allow(clippy::print_stdout, reason = "a program's output")]

mod datagrams;
mod kernel_echo;
mod latency;
mod report;
mod stream;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use catnip_os::libos::affinity;
use kernel_echo::KernelEcho;
use latency::{tcp_round_trips, udp_round_trips};
use report::{Row, print_table};

/// Nothing on one machine takes that long: who is silent for longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What went wrong, for a person.
type Outcome<T> = Result<T, String>;

struct Options {
    tcp: SocketAddr,
    udp: SocketAddr,
    megabytes: u64,
    round_trips: u32,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = if let Some(round_trips) = parse_loopback(&arguments) {
        loopback(round_trips)
    } else if let Some(options) = parse(&arguments) {
        run(&options)
    } else {
        eprintln!(
            "usage: kernel-client TCP-ADDRESS UDP-ADDRESS [MEGABYTES [ROUND-TRIPS]] | loopback [ROUND-TRIPS]"
        );
        return ExitCode::from(2);
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("FAILED: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<Options> {
    let [tcp, udp, numbers @ ..] = arguments else { return None };
    let (megabytes, round_trips) = match numbers {
        [] => (100, 20_000),
        [megabytes] => (megabytes.parse().ok()?, 20_000),
        [megabytes, round_trips] => (megabytes.parse().ok()?, round_trips.parse().ok()?),
        _ => return None,
    };
    Some(Options { tcp: tcp.parse().ok()?, udp: udp.parse().ok()?, megabytes, round_trips })
}

fn parse_loopback(arguments: &[String]) -> Option<u32> {
    match arguments {
        [word] if word == "loopback" => Some(20_000),
        [word, round_trips] if word == "loopback" => round_trips.parse().ok(),
        _ => None,
    }
}

/// One line for each protocol, as the C examples print theirs.
/// Client and server each have a processor of their own where there are two.
fn loopback(round_trips: u32) -> Outcome<()> {
    let processors = affinity::allowed_cpus();
    let kernel = KernelEcho::start_on(processors.get(1).copied());
    if let Some(first) = processors.first() {
        affinity::pin_to(*first).map_err(|error| error.to_string())?;
    }
    let kernel = kernel.map_err(|error| format!("echo server on the loopback: {error}"))?;
    for (protocol, times) in [
        ("TCP", tcp_round_trips(kernel.tcp_address(), round_trips)?),
        ("UDP", udp_round_trips(kernel.udp_address(), round_trips)?),
    ] {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|at| times.value_at_quantile(at) as f64 / 1e3);
        println!(
            "{protocol} loopback: {round_trips} round trips, p50 {p50:.1} us, p99 {p99:.1} us, p99.9 {p999:.1} us"
        );
    }
    Ok(())
}

fn run(options: &Options) -> Outcome<()> {
    let &Options { tcp, udp, megabytes, round_trips } = options;
    for bytes in [0, 1, 64, 1460, 1461, 65_536, 1_000_000] {
        stream::echo(tcp, bytes)?;
    }
    println!("TCP echo        ok: 7 connections, 0 to 1,000,000 bytes each, both directions closed in order");
    let datagrams = datagrams::echo(udp)?;
    println!("UDP echo        ok: {datagrams} datagrams of 1 to 1,472 bytes");
    let transfer = stream::echo(tcp, megabytes * 1_000_000)?;
    println!(
        "TCP transfer    ok: {megabytes} MB there and back in {:.2} s ({:.0} MB/s each way)",
        transfer.elapsed.as_secs_f64(),
        transfer.bytes as f64 / 1e6 / transfer.elapsed.as_secs_f64()
    );
    println!("                    SHA-256 {} both ways", transfer.hash);

    let tcp_catnip = tcp_round_trips(tcp, round_trips)?;
    let udp_catnip = udp_round_trips(udp, round_trips)?;
    let kernel = KernelEcho::start().map_err(|error| format!("echo server on the loopback: {error}"))?;
    let tcp_kernel = tcp_round_trips(kernel.tcp_address(), round_trips)?;
    let udp_kernel = udp_round_trips(kernel.udp_address(), round_trips)?;
    print_table(
        &format!("{round_trips} round trips of 64 bytes, microseconds; kernel-socket client, all sides poll"),
        &[
            Row { protocol: "TCP", path: "Catnip", times: &tcp_catnip },
            Row { protocol: "TCP", path: "kernel loopback", times: &tcp_kernel },
            Row { protocol: "UDP", path: "Catnip", times: &udp_catnip },
            Row { protocol: "UDP", path: "kernel loopback", times: &udp_kernel },
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_holds_against_the_kernels_own_echo() {
        let kernel = KernelEcho::start().unwrap();
        let options =
            Options { tcp: kernel.tcp_address(), udp: kernel.udp_address(), megabytes: 3, round_trips: 100 };
        run(&options).unwrap();
    }

    #[test]
    fn round_trips_take_time_and_all_are_counted() {
        let kernel = KernelEcho::start().unwrap();
        for times in [tcp_round_trips(kernel.tcp_address(), 50), udp_round_trips(kernel.udp_address(), 50)] {
            let times = times.unwrap();
            assert_eq!(times.len(), 50);
            assert!(times.min() > 100, "{} ns", times.min());
        }
    }

    #[test]
    fn nobody_at_the_address_is_a_failure() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(stream::echo(unused, 10).unwrap_err().contains("connect"));
        assert!(datagrams::echo(unused).is_err());
    }
}
