//! iperf3 between two network namespaces, over a veth pair.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::bulk::Direction;
use super::link::run;
use crate::scenario::Failure;

const NEAR: &str = "10.7.0.1";
const FAR: &str = "10.7.0.2";
/// Nothing on one machine takes that long.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that is ended with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Neither fails but for a process that is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the pair carries large frames without checksums, as between two ends of one machine, or whole packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offloads {
    On,
    Off,
}

/// The pair, with its far end in a namespace of its own.
pub struct Iperf {
    /// Keeps the far namespace.
    keeper: Ended,
}

impl Iperf {
    /// Makes the pair.
    ///
    /// # Errors
    /// [`Failure`] with the command that failed.
    pub fn new(offloads: Offloads) -> Result<Self, Failure> {
        let keeper = Ended(Command::new("unshare").args(["-n", "sleep", "600"]).spawn()?);
        let id = keeper.0.id();
        until("a second network namespace", || {
            let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
            network(&id.to_string()).is_some_and(|other| Some(other) != network("self"))
        })?;
        run("ip link set lo up")?;
        run(&format!("ip link add iperf-near type veth peer name iperf-far netns {id}"))?;
        run(&format!("ip address add {NEAR}/24 dev iperf-near"))?;
        run("ip link set iperf-near up")?;
        run(&format!("nsenter -t {id} -n ip address add {FAR}/24 dev iperf-far"))?;
        run(&format!("nsenter -t {id} -n ip link set iperf-far up"))?;
        if offloads == Offloads::Off {
            run("ethtool -K iperf-near tx off")?;
            run(&format!("nsenter -t {id} -n ethtool -K iperf-far tx off"))?;
        }
        Ok(Self { keeper })
    }

    /// Bytes in a second of one stream.
    ///
    /// # Errors
    /// [`Failure`] when iperf3 fails.
    pub fn bytes_per_second(&self, direction: Direction, duration: Duration) -> Result<f64, Failure> {
        let id = self.keeper.0.id().to_string();
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

fn until(what: &str, condition: impl Fn() -> bool) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > end {
            return Err(format!("{what} does not come").into());
        }
        sleep(LOOK_EVERY);
    }
    Ok(())
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
