//! iperf3 between two network namespaces, over a veth pair.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::Direction;
use super::pair::{Ended, FAR, KernelPair, Offloads, until};
use crate::scenario::Failure;

/// iperf3 and the pair that it runs over.
pub struct Iperf(KernelPair);

impl Iperf {
    /// Makes the pair.
    ///
    /// # Errors
    /// [`Failure`] with the command that failed.
    pub fn new(offloads: Offloads) -> Result<Self, Failure> {
        Ok(Self(KernelPair::new(offloads)?))
    }

    /// Bytes in a second of one stream.
    ///
    /// # Errors
    /// [`Failure`] when iperf3 fails.
    pub fn bytes_per_second(&self, direction: Direction, duration: Duration) -> Result<f64, Failure> {
        let id = self.0.far_process().to_string();
        let server = Command::new("nsenter")
            .args(["-t", &id, "-n", "iperf3", "--server", "--one-off"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("nsenter: {error}"))?;
        let mut server = Ended(server);
        until("iperf3's server", || listens(&id))?;
        let seconds = duration.as_secs_f64().ceil().to_string();
        let mut client = Command::new("iperf3");
        client.args(["--client", FAR, "--time", &seconds, "--json"]);
        if direction == Direction::FromKernel {
            client.arg("--reverse");
        }
        let output = client.output().map_err(|error| format!("iperf3: {error}"))?;
        server.0.wait()?;
        let text = String::from_utf8_lossy(&output.stdout);
        received_bits_per_second(&text)
            .map(|bits| bits / 8.0)
            .ok_or_else(|| format!("iperf3: {text}{}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// True when a process in that network namespace listens on iperf3's port, 5201.
fn listens(process: &str) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        std::fs::read_to_string(format!("/proc/{process}/net/{table}"))
            .is_ok_and(|sockets| sockets.lines().any(|line| line.contains(":1451 ") && line.contains(" 0A ")))
    })
}

/// The rate of all that was received, in iperf3's report.
fn received_bits_per_second(report: &str) -> Option<f64> {
    let (_, sum) = report.split_once("\"sum_received\"")?;
    let (_, rate) = sum.split_once("\"bits_per_second\":")?;
    rate.split([',', '}']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_report() {
        let report = r#"{"end": {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {
            "seconds": 1.0, "bits_per_second":	8523456789.5, "sender": true}}}"#;
        assert_eq!(received_bits_per_second(report), Some(8_523_456_789.5));
        assert_eq!(received_bits_per_second("{\"error\": \"unable to connect\"}"), None);
    }
}
