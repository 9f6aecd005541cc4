//! Bulk through the kernel's own packet filter, which drops packets at random, both ways.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::link::{self, Family};
use crate::namespace;
use crate::transfer::{Flow, transfer};

const BYTES: usize = 2 << 20;

/// Gives the kernel of this namespace its rules, in the language of `nft`.
fn filter(rules: &str) {
    let nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn();
    let mut nft = nft.unwrap_or_else(|error| {
        panic!("this test needs the program `nft` (Debian package nftables, `make setup`): {error}")
    });
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "this test needs a kernel with nf_tables:\n{rules}");
}

/// How many packets a counter of the rules has seen.
fn counted(name: &str) -> u64 {
    let output = Command::new("nft").args(["list", "counter", "inet", "faults", name]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let packets = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    packets.and_then(|packets| packets.parse().ok()).unwrap_or_else(|| panic!("no counter {name}: {text}"))
}

/// Of the packets in one direction, those that are dropped.
enum Dropped {
    /// So many of a thousand, at random.
    AtRandom(u32),
    /// The first of so many, over and over.
    EachOf(u32),
}

impl Dropped {
    /// The condition in the language of `nft`.
    fn rule(&self) -> String {
        match self {
            Self::AtRandom(permille) => format!("numgen random mod 1000 < {permille}"),
            Self::EachOf(packets) => format!("numgen inc mod {packets} == 0"),
        }
    }
}

/// Drops packets in front of the kernel's stack, and behind it.
fn drop_both_ways(dropped: &Dropped) {
    let rule = dropped.rule();
    filter(&format!(
        "table inet faults {{
            counter from_us {{}}
            counter to_us {{}}
            chain arriving {{
                type filter hook prerouting priority raw;
                iifname tap-test meta l4proto tcp {rule} counter name from_us drop
            }}
            chain leaving {{
                type filter hook postrouting priority srcnat;
                oifname tap-test meta l4proto tcp {rule} counter name to_us drop
            }}
        }}\n"
    ));
}

#[test]
fn bulk_survives_what_the_kernels_packet_filter_drops() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config().set("tap.offload", false));
        drop_both_ways(&Dropped::AtRandom(10));
        for family in Family::BOTH {
            for flow in [Flow { up: BYTES, down: 0 }, Flow { up: 0, down: BYTES }] {
                transfer(&libos, family, flow, "packet filter");
            }
        }
        assert!(counted("from_us") > 0 && counted("to_us") > 0, "nothing was dropped");
        assert!(link::metric(&libos, "catnip.tcp.retransmitted_segments") > 0, "nothing was sent again");
    });
}

#[test]
fn a_connection_opens_and_closes_though_the_packet_filter_drops_a_fifth_of_everything() {
    namespace::enter("-Urn", || {
        let config = link::config().set("tap.offload", false).set("tcp.rto_initial_ms", 50);
        let libos = link::open(&config);
        // In turn: at random, one connection in fifty meets so many losses in a row that the kernel, whose timeout
        // doubles from a second, is not through within half a minute.
        drop_both_ways(&Dropped::EachOf(5));
        for family in Family::BOTH {
            transfer(&libos, family, Flow { up: 20_000, down: 20_000 }, "a fifth is dropped");
        }
        assert!(counted("from_us") > 0 && counted("to_us") > 0, "nothing was dropped");
    });
}
