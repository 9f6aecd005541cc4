//! The tables of `docs/congestion.md`: written there, and read back for comparison.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::matrix::{ALGORITHMS, Share, Single, expected_kilobits_per_s};
use super::run::{Outcome, Path};

const BEGIN: &str = "<!-- begin: written by make congestion -->";
const END: &str = "<!-- end: written by make congestion -->";

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/congestion.md")
}

/// A cell of the first table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SingleLine {
    pub utilisation_percent: u64,
}

/// A cell of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLine {
    pub utilisation_percent: u64,
    pub fairness_percent: u64,
}

/// What the document says.
pub struct Tables {
    lines: Vec<Vec<String>>,
}

/// Reads the document's tables.
pub fn documented() -> Tables {
    let text = fs::read_to_string(document()).expect("docs/congestion.md");
    let (_, rest) = text.split_once(BEGIN).expect("the beginning of the tables");
    let (tables, _) = rest.split_once(END).expect("the end of the tables");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    Tables { lines: tables.lines().filter(|line| line.starts_with('|')).map(cells).collect() }
}

impl Tables {
    /// The cell of an algorithm in the line that begins with these cells.
    fn cell(&self, begin: &[String], name: &str) -> Option<&str> {
        let column = ALGORITHMS.iter().position(|known| *known == name)?;
        let line = self.lines.iter().find(|line| line.starts_with(begin))?;
        line.get(begin.len() + column).map(String::as_str)
    }

    pub fn single(&self, single: &Single) -> Option<SingleLine> {
        let cell = self.cell(&single_begin(&single.path), single.name)?;
        Some(SingleLine { utilisation_percent: number(cell, 0)? })
    }

    pub fn share(&self, share: &Share) -> Option<ShareLine> {
        let cell = self.cell(&share_begin(&share.path), share.name)?;
        Some(ShareLine { fairness_percent: number(cell, 0)?, utilisation_percent: number(cell, 1)? })
    }
}

/// The number at a place among those of a cell, whatever stands between them.
fn number(cell: &str, place: usize) -> Option<u64> {
    let numbers = cell.split(|char: char| !char.is_ascii_digit()).filter(|text| !text.is_empty());
    numbers.map(|text| text.parse().ok()).nth(place)?
}

fn single_begin(path: &Path) -> Vec<String> {
    vec![
        format!("{} Mbit/s", path.mbit_per_s),
        format!("{} ms", path.round_trip_ms),
        format!("{} %", f64::from(path.loss_ppm) / 10_000.0),
        format!("{} BDP", path.buffer_percent as f64 / 100.0),
    ]
}

fn share_begin(path: &Path) -> Vec<String> {
    vec![
        format!("2 x on {} Mbit/s", path.mbit_per_s),
        format!("{} ms", path.round_trip_ms),
        format!("{} BDP", path.buffer_percent as f64 / 100.0),
    ]
}

/// Groups results of all algorithms into lines, in the order in which they came.
fn lines<T: Copy>(
    results: &[(T, Outcome)],
    begin: impl Fn(&T) -> Vec<String>,
    cell: impl Fn(&Outcome) -> String,
) -> String {
    let mut text = String::new();
    for line in results.chunks(ALGORITHMS.len()) {
        let cells = line.iter().map(|(_, outcome)| cell(outcome));
        let all: Vec<_> =
            line.first().map(|(first, _)| begin(first)).into_iter().flatten().chain(cells).collect();
        let _ = writeln!(text, "| {} |", all.join(" | "));
    }
    text
}

fn header(begin: &[&str]) -> String {
    let all: Vec<_> = begin.iter().chain(&ALGORITHMS).copied().collect();
    format!("| {} |\n|{}\n", all.join(" | "), "---|".repeat(all.len()))
}

/// Writes the tables into the document.
pub fn write(singles: &[(Single, Outcome)], shares: &[(Share, Outcome)], losses: &[(u32, [Outcome; 3])]) {
    let mut tables =
        String::from("\nUtilisation of the path, and the mean time a frame waited in its queue:\n\n");
    tables += &header(&["bandwidth", "round trip", "loss", "buffer"]);
    tables += &lines(
        singles,
        |single| single_begin(&single.path),
        |outcome| format!("{} %, {:.1} ms", outcome.utilisation_percent, outcome.queue_us as f64 / 1_000.0),
    );
    tables +=
        "\nTwo flows of one algorithm: Jain's index of their shares in hundredths, utilisation, queue:\n\n";
    tables += &header(&["bandwidth", "round trip", "buffer"]);
    tables += &lines(
        shares,
        |share| share_begin(&share.path),
        |outcome| {
            format!(
                "{}, {} %, {:.1} ms",
                outcome.fairness_percent,
                outcome.utilisation_percent,
                outcome.queue_us as f64 / 1_000.0
            )
        },
    );
    tables += "\nThroughput under random loss on 20 Mbit/s with a round trip of 20 ms, beside smoltcp in the same run:\n\n";
    tables += "| loss | Catnip, cubic | Catnip, bbr | smoltcp, Reno | a standard AIMD, by the equation |\n";
    tables += "|---|---|---|---|---|\n";
    for (loss_ppm, [cubic, bbr, smoltcp]) in losses {
        let mbit = |outcome: &Outcome| outcome.kilobits_per_s as f64 / 1_000.0;
        let percent = f64::from(*loss_ppm) / 10_000.0;
        let (cubic, bbr, smoltcp) = (mbit(cubic), mbit(bbr), mbit(smoltcp));
        let equation = expected_kilobits_per_s(*loss_ppm) as f64 / 1_000.0;
        let _ = writeln!(
            tables,
            "| {percent} % | {cubic:.2} Mbit/s | {bbr:.2} Mbit/s | {smoltcp:.2} Mbit/s | {equation:.2} Mbit/s |"
        );
    }
    let text = fs::read_to_string(document()).expect("docs/congestion.md");
    let (before, rest) = text.split_once(BEGIN).expect("the beginning of the tables");
    let (_, after) = rest.split_once(END).expect("the end of the tables");
    fs::write(document(), format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
        .expect("docs/congestion.md written");
}
