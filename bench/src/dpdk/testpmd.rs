//! DPDK's own forwarder on the same device.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use super::{Figures, GENERATOR_CPU, Link, MEASURED_CPU, Started, generate, server_device};
use crate::scenario::Failure;

/// In front of the figure in what testpmd prints.
const FIGURE: &str = "CPU cycles/packet=";

/// What testpmd prints when it forwards.
const STARTED: &str = "Press enter to exit";

pub fn measure(payload_bytes: usize) -> Result<Figures, Failure> {
    let link = Link::new()?;
    // Into a pipe it would print everything at its end.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "dpdk-testpmd"]);
    command.args(["-l", &format!("{GENERATOR_CPU},{MEASURED_CPU}"), "--main-lcore"]);
    command.args([&GENERATOR_CPU.to_string(), "--no-huge", "--no-shconf", "-m", "256", "--no-pci"]);
    command.args(["--iova-mode=va", "--no-telemetry", "--log-level=error"]);
    command.arg(format!("--vdev={}", server_device(&link.socket())));
    command.args(["--", "--nb-cores=1", "--forward-mode=macswap", "--port-topology=loop"]);
    command.args(["--record-core-cycles", "--auto-start", "--total-num-mbufs=16384", "--no-lsc-interrupt"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut started = Started(
        command
            .spawn()
            .map_err(|error| format!("dpdk-testpmd: {error} (the Debian package dpdk-dev has it)"))?,
    );
    // A peer that connects before the port is started is never answered.
    let mut stdout = BufReader::new(started.0.stdout.take().ok_or("testpmd has no output")?);
    let mut text = String::new();
    while !text.contains(STARTED) {
        if stdout.read_line(&mut text)? == 0 {
            return Err(format!("testpmd ended early\n{text}").into());
        }
    }
    let (packets_per_second, _generator) = generate(&link.socket(), payload_bytes)?;
    // Any line ends it, with its figures.
    if let Some(mut stdin) = started.0.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    stdout.read_to_string(&mut text)?;
    let figure = text.rsplit_once(FIGURE).and_then(|(_, rest)| rest.split_whitespace().next());
    let figure = figure.ok_or_else(|| format!("testpmd did not print {FIGURE}\n{text}"))?;
    let digits = figure.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    Ok(Figures { packets_per_second, cycles_per_packet: digits.parse()? })
}
