//! The runs of the tables.

use catnip::tcp::congestion::Algorithm;

use super::run::{Outcome, Path, measure};
use crate::host::Kind;

/// The algorithms, by name.
pub const ALGORITHMS: [&str; 4] = ["cubic", "reno", "dctcp", "bbr"];

/// Losses at which throughput is compared with smoltcp's, in parts per million.
pub const LOSS_PPM: [u32; 4] = [0, 1_000, 10_000, 50_000];

fn algorithm(name: &str) -> Algorithm {
    Algorithm::from_name(name).expect("a built-in algorithm")
}

/// One flow alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Single {
    pub name: &'static str,
    pub path: Path,
}

impl Single {
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for mbit_per_s in [10, 100] {
            for round_trip_ms in [10, 100] {
                for loss_ppm in [0, 1_000, 10_000] {
                    for buffer_percent in [50, 200] {
                        let path = Path::new(mbit_per_s, round_trip_ms, loss_ppm, buffer_percent);
                        all.extend(ALGORITHMS.map(|name| Self { name, path }));
                    }
                }
            }
        }
        all
    }

    /// The runs that are repeated with every test.
    pub fn is_quick(&self) -> bool {
        self.path.mbit_per_s == 10 && self.path.round_trip_ms == 10 && self.path.loss_ppm != 1_000
    }

    pub fn measure(&self) -> Outcome {
        measure(Kind::Catnip, algorithm(self.name), &self.path, 1)
    }
}

/// Two flows of one algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub name: &'static str,
    pub path: Path,
}

impl Share {
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (mbit_per_s, round_trip_ms) in [(10, 10), (10, 100), (100, 10)] {
            for buffer_percent in [50, 200] {
                let path = Path::new(mbit_per_s, round_trip_ms, 0, buffer_percent);
                all.extend(ALGORITHMS.map(|name| Self { name, path }));
            }
        }
        all
    }

    pub fn is_quick(&self) -> bool {
        self.path.mbit_per_s == 10 && self.path.round_trip_ms == 100 && self.path.buffer_percent == 50
    }

    pub fn measure(&self) -> Outcome {
        measure(Kind::Catnip, algorithm(self.name), &self.path, 2)
    }
}

/// The path on which throughput is compared under loss.
fn lossy_path(loss_ppm: u32) -> Path {
    Path::new(20, 20, loss_ppm, 200)
}

/// The same path with our sender, as it is by default and with BBR, and with smoltcp's; ours receives.
pub fn beside_smoltcp(loss_ppm: u32) -> [Outcome; 3] {
    let path = lossy_path(loss_ppm);
    [(Kind::Catnip, Algorithm::Cubic), (Kind::Catnip, Algorithm::Bbr), (Kind::Smoltcp, Algorithm::Cubic)]
        .map(|(kind, algorithm)| measure(kind, algorithm, &path, 1))
}

/// What CUBIC is held to where losses and not the path are its limit: as much as the standard's AIMD of the same
/// friendliness has, MSS / RTT * sqrt(3/2 / p) (RFC 9438, section 4.3), and what a sender can have of a path at all.
pub fn expected_kilobits_per_s(loss_ppm: u32) -> u64 {
    let path = lossy_path(loss_ppm);
    let most = path.mbit_per_s as f64 * 1_000.0 * 0.95;
    let loss = f64::from(loss_ppm) / 1e6;
    if loss == 0.0 {
        return most as u64;
    }
    // Above a few hundredths, timeouts count as well (Padhye and others, 1998).
    let round_trip_s = path.round_trip_ms as f64 / 1e3;
    let timeouts = 0.2 * (3.0 * (3.0 * loss / 8.0).sqrt()).min(1.0) * loss * (1.0 + 32.0 * loss * loss);
    let segments_per_s = 1.0 / (round_trip_s * (2.0 * loss / 3.0).sqrt() + timeouts);
    (segments_per_s * 1_448.0 * 8.0 / 1e3).min(most) as u64
}
