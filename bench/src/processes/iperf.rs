//! iperf3 with one stream, between two processes on the kernel's loopback and on a veth pair.

use std::process::Command;

use super::stream::TURN;
use crate::scenario::Failure;

/// Both in a network namespace of their own, so that nothing of the machine is touched.
const LOOPBACK: &str = "
ip link set lo up
iperf3 -s -1 >/dev/null 2>&1 & server=$!
trap 'kill $server 2>/dev/null || true' EXIT
tries=0
until out=$(iperf3 -c 127.0.0.1 -t \"$1\" -J 2>&1); case $out in *sum_received*) ;; *) false ;; esac; do
    tries=$((tries + 1)); [ $tries -lt 50 ]; sleep 0.1
done
echo \"$out\"";

/// The server in a namespace behind the other end of a veth pair.
const VETH: &str = "
unshare -n sleep 60 & holder=$!
trap 'kill $holder $server 2>/dev/null || true' EXIT
server=''
tries=0
while [ \"$(readlink /proc/$holder/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do
    tries=$((tries + 1)); [ $tries -lt 50 ]; sleep 0.05
done
ip link add v0 type veth peer name v1 netns $holder
ip addr add 10.9.0.1/24 dev v0
ip link set v0 up
nsenter -t $holder -n ip addr add 10.9.0.2/24 dev v1
nsenter -t $holder -n ip link set v1 up
nsenter -t $holder -n iperf3 -s -1 >/dev/null 2>&1 & server=$!
tries=0
until out=$(iperf3 -c 10.9.0.2 -t \"$1\" -J 2>&1); case $out in *sum_received*) ;; *) false ;; esac; do
    tries=$((tries + 1)); [ $tries -lt 50 ]; sleep 0.1
done
echo \"$out\"";

pub fn loopback() -> Result<f64, Failure> {
    run(LOOPBACK)
}

pub fn veth() -> Result<f64, Failure> {
    run(VETH)
}

/// Bytes in a second that the receiver got.
fn run(script: &str) -> Result<f64, Failure> {
    let output = Command::new("unshare")
        .args(["-Urn", "sh", "-euc", script, "sh", &TURN.as_secs().to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let received = received_bits_per_s(&text);
    received.map(|bits| bits / 8.0).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        format!("iperf3 (Debian package iperf3) in a network namespace: {status}\n{text}{errors}").into()
    })
}

/// What iperf3's JSON says at its end.
fn received_bits_per_s(text: &str) -> Option<f64> {
    let (_, sum) = text.rsplit_once("\"sum_received\"")?;
    let (_, value) = sum.split_once("\"bits_per_second\":")?;
    let end = value.find([',', '\n', '}'])?;
    value.get(..end)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_rate_is_read() {
        let text = "{\"end\": {\"sum_sent\": {\"bits_per_second\":\t5.5e9},\n\"sum_received\":\t{\n\"bytes\": \
                    7,\n\"bits_per_second\":\t4.25e9,\n\"sender\": true}}}";
        assert_eq!(received_bits_per_s(text), Some(4.25e9));
        assert_eq!(received_bits_per_s("{\"error\": \"x\"}"), None);
    }
}
