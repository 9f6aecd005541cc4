//! `docs/metrics.md` has every number that a library OS tells of itself, with its kind, and none that there is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/namespace.rs"]
mod namespace;

use std::collections::BTreeMap;

use catnip_os::libos::Config;
use catnip_os::libos::metrics::{Metric, Snapshot};

const PAGE: &str = include_str!("../docs/metrics.md");

/// A row about a metric of its own has three cells. One of the MIB's names has two, and is a counter unless it is the
/// one that says how many there are.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let mut kinds = BTreeMap::new();
    for row in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let kind = match cells[..] {
            [_, kind @ ("counter" | "gauge"), _] => kind,
            [name, _] if name.contains("Curr") => "gauge",
            [_, _] => "counter",
            _ => panic!("not two or three cells: {row}"),
        };
        for name in cells[0].split(", ").map(|name| name.trim_matches('`')) {
            assert_eq!(kinds.insert(name, kind), None, "{name} has two rows");
        }
    }
    kinds
}

/// What the page has in groups: names of connections, states and the like are among them.
fn is_of_a_group(name: &str) -> bool {
    ["catnip.tcp.connection.", "catnip.tcp.transitions."].iter().any(|group| name.starts_with(group))
}

fn assert_documented(snapshot: &Snapshot) {
    let documented = documented();
    let wrong: Vec<String> = snapshot
        .iter()
        .filter(|(name, _)| !is_of_a_group(name))
        .filter_map(|(name, metric)| {
            let kind = match metric {
                Metric::Counter(_) => "counter",
                Metric::Gauge(_) => "gauge",
            };
            (documented.get(name) != Some(&kind)).then(|| format!("{name} ({kind})"))
        })
        .collect();
    assert!(wrong.is_empty(), "docs/metrics.md does not have: {wrong:#?}");
}

#[test]
fn the_page_has_what_there_is_without_a_device_and_nothing_else() {
    let libos = catnip_os::open(&Config::new()).unwrap();
    let snapshot = libos.metrics().unwrap();
    assert_documented(&snapshot);
    let gone: Vec<&str> = documented()
        .into_keys()
        .filter(|name| !name.contains('*') && !name.contains("FROM") && !name.starts_with("catnip.device."))
        .filter(|name| snapshot.get(name).is_none())
        .collect();
    assert!(gone.is_empty(), "docs/metrics.md has what there is not: {gone:#?}");
}

#[test]
fn the_page_has_what_a_device_of_the_kernel_adds() {
    namespace::enter("-Urn", || {
        let config = Config::new()
            .set("runtime.kind", "tap")
            .set("tap.name", "metrics")
            .set("stack.addresses", ["10.1.0.2/24"]);
        let snapshot = catnip_os::open(&config).unwrap().metrics().unwrap();
        assert_documented(&snapshot);
        assert_eq!(snapshot.get("catnip.device.zero_copy").unwrap().value(), 0);
        for way in ["rx", "tx"] {
            let [all, copied] = ["frames", "copied_frames"]
                .map(|name| snapshot.get(&format!("catnip.device.{way}_{name}")).unwrap().value());
            assert_eq!(copied, all, "the kernel copies: {way}");
        }
    });
}
