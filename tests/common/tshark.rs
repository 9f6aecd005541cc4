//! What tshark's expert information says of a capture.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot run has failed")]

use std::path::Path;
use std::process::Command;

/// Checksums that tshark leaves alone unless it is asked.
const CHECKED: [&str; 3] = ["tcp.check_checksum", "udp.check_checksum", "ip.check_checksum"];
/// What is above TCP and UDP is noise, which looks like some protocol or other by chance.
const NOT_LOOKED_INTO: [&str; 2] = ["tcp.port==0-65535,data", "udp.port==1024-65535,data"];
/// What no packet of ours may be: malformed, with a wrong checksum, or in error in the eyes of any dissector.
const WRONG: &str = "_ws.malformed || _ws.expert.severity == error || ip.checksum.status == Bad \
                     || tcp.checksum.status == Bad || udp.checksum.status == Bad || icmp.checksum.status == Bad \
                     || icmpv6.checksum.status == Bad || igmp.checksum.status == Bad";

/// Runs tshark on the capture at `path` with these arguments and returns what it prints.
fn tshark(path: &Path, arguments: &[&str]) -> String {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(path);
    for name in CHECKED {
        tshark.args(["-o", &format!("{name}:TRUE")]);
    }
    for ports in NOT_LOOKED_INTO {
        tshark.args(["-d", ports]);
    }
    let output = tshark.args(arguments).output().unwrap_or_else(|error| {
        panic!("this test needs the program `tshark` (Debian package tshark, `make setup`): {error}")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark {}: {errors}", path.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How many frames of the capture each display filter matches.
pub fn counts(path: &Path, filters: &[String]) -> Vec<usize> {
    let table = tshark(path, &["-q", "-z", &format!("io,stat,0,{}", filters.join(","))]);
    let row = table.lines().rfind(|line| line.contains(" <> ")).expect("tshark's table has a row");
    // An interval, then frames and bytes of each.
    let cells = row.split('|').map(str::trim).filter(|cell| !cell.is_empty());
    let frames: Vec<usize> = cells.skip(1).step_by(2).map(|cell| cell.parse().expect("a number")).collect();
    assert_eq!(frames.len(), filters.len(), "{table}");
    frames
}

/// The frames from `sender`, a display filter, with which something is wrong, a line each.
pub fn wrong_frames(path: &Path, sender: &str) -> Vec<String> {
    let mut arguments = vec!["-T", "fields", "-E", "separator=/s"];
    for field in ["frame.number", "_ws.col.Protocol", "_ws.col.Info", "_ws.expert.message"] {
        arguments.extend(["-e", field]);
    }
    let filter = format!("({sender}) && ({WRONG})");
    arguments.extend(["-Y", &filter]);
    tshark(path, &arguments).lines().map(str::to_owned).collect()
}
