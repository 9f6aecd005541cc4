//! What tshark's expert information says of whole runs: no host of ours sends anything malformed or with a wrong checksum.

use std::path::PathBuf;

use libos::runtime::{Medium, TxChecksum};

use crate::coverage::Coverage;
use crate::host::Kind;
use crate::seeds::Setup;
use crate::tshark;

/// Runs of each kind that are looked at.
const RUNS: usize = 4;

/// Runs the first seeds between hosts of these kinds whose frames have checksums, and looks at what ours sent.
fn look_at_runs(kinds: [Kind; 2]) {
    let setups = (0..).map(|seed| (seed, Setup::draw(seed, kinds)));
    let with_checksums = setups.filter(|(_, setup)| {
        // What a device neither completes nor cuts is on the wire as memory between two machines is.
        setup.hosts().iter().map(|host| host.transmitting).all(|sending| {
            let cut = sending.cuts_segments || sending.tcp_segmentation_bytes == 0;
            sending.checksum != TxChecksum::Unneeded && cut
        })
    });
    for (seed, setup) in with_checksums.take(RUNS) {
        let name = format!("captured-{kinds:?}-{seed}").replace(['[', ']', ',', ' '], "");
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        setup.run(Some(&path), &mut Coverage::default());
        for (port, host) in setup.hosts().iter().enumerate().filter(|(_, host)| host.kind == Kind::Catnip) {
            let sender = match setup.medium() {
                Medium::Ethernet => {
                    format!(
                        "eth.src == {}",
                        host.hardware_address().map(|byte| format!("{byte:02x}")).join(":")
                    )
                }
                Medium::Ip if host.ipv6 => format!("ipv6.src == {}", host.address()),
                Medium::Ip => format!("ip.src == {}", host.address()),
            };
            let capture = path.with_extension(format!("{port}.pcap"));
            assert_ne!(
                tshark::counts(&capture, std::slice::from_ref(&sender)),
                [0],
                "{}: {sender} sent nothing",
                capture.display()
            );
            let wrong = tshark::wrong_frames(&capture, &sender);
            assert!(wrong.is_empty(), "{}:\n{}", capture.display(), wrong.join("\n"));
        }
    }
}

#[test]
fn tshark_finds_nothing_wrong_in_runs_between_catnips() {
    look_at_runs([Kind::Catnip; 2]);
}

#[test]
fn tshark_finds_nothing_wrong_in_runs_with_smoltcp() {
    look_at_runs([Kind::Catnip, Kind::Smoltcp]);
}
