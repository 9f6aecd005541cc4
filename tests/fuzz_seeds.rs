//! The fuzz targets' kept inputs as ordinary tests, on any toolchain: what was found once stays mended, and what the
//! targets call stays there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::cast_lossless, clippy::needless_pass_by_value, reason = "shared with the fuzz crate")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use arbitrary::{Arbitrary, Unstructured};
use libos::metrics::MetricsSink;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// The kept inputs of a target.
fn seeds(target: &str) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|file| {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    })
}

/// Runs a target on its inputs; a failing one's name is the last that is printed.
fn run_bytes(target: &str, run: impl Fn(&[u8])) {
    for (path, bytes) in seeds(target) {
        println!("{}", path.display());
        run(&bytes);
    }
}

/// As [`run_bytes`], for structured inputs. An input made for an earlier structure may fit no more.
fn run_structured<T: for<'a> Arbitrary<'a>>(target: &str, run: impl Fn(T)) {
    run_bytes(target, |bytes| {
        if let Ok(input) = T::arbitrary_take_rest(Unstructured::new(bytes)) {
            run(input);
        }
    });
}

#[test]
fn parsers_read_every_kept_input() {
    run_bytes("ethernet", fuzz::parsers::ethernet);
    run_bytes("arp", fuzz::parsers::arp);
    run_bytes("ipv4", fuzz::parsers::ipv4);
    run_bytes("ipv6", fuzz::parsers::ipv6);
    run_bytes("icmp", fuzz::parsers::icmp);
    run_bytes("ndp", fuzz::parsers::ndp);
    run_bytes("router", fuzz::parsers::router);
    run_bytes("dhcp", fuzz::parsers::dhcp);
    run_bytes("udp", fuzz::parsers::udp);
    run_bytes("tcp_segment", fuzz::parsers::tcp_segment);
}

#[test]
fn every_kept_configuration_makes_a_stack_or_one_line_of_complaint() {
    run_bytes("configuration", fuzz::parsers::configuration);
}

#[test]
fn reassembly_agrees_with_its_model_on_every_kept_input() {
    run_structured("reassembly", |inserts: Vec<fuzz::reassembly::Insert>| {
        fuzz::reassembly::run(&inserts);
    });
}

/// Sums counters up by their names.
#[derive(Default)]
struct Sums(BTreeMap<String, u64>);

impl MetricsSink for Sums {
    fn counter(&mut self, name: &str, value: u64) {
        *self.0.entry(name.to_owned()).or_default() += value;
    }

    fn gauge(&mut self, _name: &str, _value: u64) {}
    fn enter(&mut self, _name: &str) {}
    fn leave(&mut self) {}
}

/// What the kept inputs have to get to: the repair of losses in all its forms, what refuses attacks, and what
/// only peers reach that agreed to it before.
const REACHED: [&str; 25] = [
    "challenge_acks",
    "congestion_echoes",
    "congestion_marks",
    "delayed_acks",
    "dsacks_received",
    "fast_open_active",
    "fast_open_active_fails",
    "fast_open_cookies_asked",
    "fast_open_listen_overflows",
    "fast_open_passive",
    "fast_open_passive_fails",
    "fast_retransmits",
    "listen_overflows",
    "malformed_options",
    "out_of_order",
    "out_of_order_drops",
    "out_of_window",
    "paws_rejected",
    "recoveries_undone",
    "retransmission_timeouts",
    "syn_cookies_failed",
    "syn_cookies_received",
    "syn_cookies_sent",
    "tail_loss_probes",
    "zero_window_probes",
];

#[test]
fn the_stack_bears_every_kept_ingress_and_these_reach_the_repair_of_losses() {
    let sums = RefCell::new(Sums::default());
    run_structured("ingress", |input| fuzz::ingress::run(input).write(&mut *sums.borrow_mut()));
    let sums = sums.into_inner().0;
    let missed: Vec<_> =
        REACHED.into_iter().filter(|name| sums.get(*name).is_none_or(|&sum| sum == 0)).collect();
    assert!(missed.is_empty(), "no kept input of ingress reaches {missed:?}");
}
