//! The kernel speaks TCP with other options: both sides settle on what both know.

use std::fs;

use crate::echo;
use crate::link::{self, Family};
use crate::namespace;

const PORT: u16 = 5007;
const BYTES: usize = 2 << 20;

fn set(name: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv4/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// What the kernel is set to, beside its defaults. The last setting of a name holds.
const KERNELS: [(&str, &[(&str, &str)]); 6] = [
    ("its defaults", &[]),
    ("no timestamps", &[("tcp_timestamps", "0")]),
    ("no window scaling", &[("tcp_window_scaling", "0")]),
    ("no selective acknowledgments", &[("tcp_sack", "0")]),
    ("asking for ECN", &[("tcp_ecn", "1")]),
    (
        "none of them, and small buffers",
        &[
            ("tcp_timestamps", "0"),
            ("tcp_window_scaling", "0"),
            ("tcp_sack", "0"),
            ("tcp_rmem", "4096 8192 16384"),
            ("tcp_wmem", "4096 8192 16384"),
        ],
    ),
];

/// What the library OS is set to, beside its defaults.
const CATNIPS: [(&str, &[&str]); 4] = [
    ("its defaults", &[]),
    ("no timestamps", &["tcp.timestamps"]),
    ("no window scaling", &["tcp.window_scaling"]),
    ("neither", &["tcp.timestamps", "tcp.window_scaling"]),
];

/// Goes back to the kernel's defaults.
fn reset(name: &str) {
    set(
        name,
        match name {
            "tcp_ecn" => "2",
            "tcp_rmem" => "4096 131072 6291456",
            "tcp_wmem" => "4096 16384 4194304",
            _ => "1",
        },
    );
}

#[test]
fn whatever_each_side_offers_they_understand_each_other() {
    namespace::enter("-Urn", || {
        for (kernel, settings) in KERNELS {
            settings.iter().for_each(|(name, value)| set(name, value));
            for (catnip, switched_off) in CATNIPS {
                let config = switched_off.iter().fold(link::config(), |config, key| config.set(key, false));
                let libos = link::open(&config);
                for family in Family::BOTH {
                    let what = format!("the kernel with {kernel}, Catnip with {catnip}, {family:?}");
                    echo::exchange(&libos, family.catnip(PORT), BYTES, &what);
                }
            }
            settings.iter().for_each(|(name, _)| reset(name));
        }
    });
}
