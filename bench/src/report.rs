//! The results: one table for people, and the same as JSON.

use std::fmt::{self, Write as _};

/// One line of the report.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// The benchmark.
    pub name: &'static str,
    /// Who was measured.
    pub subject: &'static str,
    /// Whom `ratio` compares with.
    pub peer: Option<&'static str>,
    /// What the figures are for.
    pub unit: &'static str,
    /// Nanoseconds.
    pub ns: Option<f64>,
    /// Instructions.
    pub instructions: Option<f64>,
    /// Payload bytes in a second.
    pub bytes_per_s: Option<f64>,
    /// How many times as fast as the peer the subject is.
    pub ratio: Option<f64>,
    /// Bytes of memory.
    pub bytes: Option<f64>,
}

/// All lines.
#[derive(Debug, Default)]
pub struct Report {
    entries: Vec<Entry>,
}

impl Report {
    /// Adds a line.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// A list of objects; keys without a value are left out.
    pub fn to_json(&self) -> String {
        let objects: Vec<String> = self.entries.iter().map(Entry::to_json).collect();
        format!("[\n{}\n]\n", objects.join(",\n"))
    }
}

impl Entry {
    fn to_json(&self) -> String {
        let mut object = format!("  {{\"name\": \"{}\", \"subject\": \"{}\"", self.name, self.subject);
        // Writing to a string does not fail.
        if let Some(peer) = self.peer {
            let _ = write!(object, ", \"peer\": \"{peer}\"");
        }
        if !self.unit.is_empty() {
            let _ = write!(object, ", \"unit\": \"{}\"", self.unit);
        }
        let numbers = [
            ("ns", self.ns, 1),
            ("instructions", self.instructions, 1),
            ("bytes_per_s", self.bytes_per_s, 0),
            ("ratio", self.ratio, 3),
            ("bytes", self.bytes, 0),
        ];
        for (key, number, decimals) in numbers {
            if let Some(number) = number.filter(|number| number.is_finite()) {
                let _ = write!(object, ", \"{key}\": {number:.decimals$}");
            }
        }
        object.push('}');
        object
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = |value: Option<f64>, decimals: usize, scale: f64| {
            value.map_or_else(String::new, |value| format!("{:.decimals$}", value / scale))
        };
        writeln!(
            f,
            "{:<26} {:<8} {:<12} {:>10} {:>13} {:>7} {:>6} {:>7}  vs",
            "benchmark", "who", "per", "ns", "instructions", "GB/s", "bytes", "ratio"
        )?;
        for entry in &self.entries {
            writeln!(
                f,
                "{:<26} {:<8} {:<12} {:>10} {:>13} {:>7} {:>6} {:>7}  {}",
                entry.name,
                entry.subject,
                entry.unit,
                column(entry.ns, 1, 1.0),
                column(entry.instructions, 0, 1.0),
                column(entry.bytes_per_s, 2, 1e9),
                column(entry.bytes, 0, 1.0),
                column(entry.ratio, 2, 1.0),
                entry.peer.unwrap_or_default(),
            )?;
        }
        write!(f, "ratio: how many times as fast as the peer, from the times of this run; above 1 is ahead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_leaves_absent_keys_out() {
        let mut report = Report::default();
        report.push(Entry { name: "a", subject: "catnip", ns: Some(12.34), ..Entry::default() });
        report.push(Entry {
            name: "b",
            subject: "catnip",
            peer: Some("smoltcp"),
            instructions: Some(7.0),
            bytes_per_s: Some(2.5e9),
            ratio: Some(1.5),
            bytes: Some(f64::NAN),
            ..Entry::default()
        });
        let expected = "[\n  {\"name\": \"a\", \"subject\": \"catnip\", \"ns\": 12.3},\n  {\"name\": \"b\", \
            \"subject\": \"catnip\", \"peer\": \"smoltcp\", \"instructions\": 7.0, \"bytes_per_s\": \
            2500000000, \"ratio\": 1.500}\n]\n";
        assert_eq!(report.to_json(), expected);
    }

    #[test]
    fn the_table_has_a_line_for_each_entry() {
        let mut report = Report::default();
        report.push(Entry { name: "echo", subject: "catnip", ns: Some(99.5), ..Entry::default() });
        let table = report.to_string();
        assert!(table.lines().nth(1).is_some_and(|line| line.contains("echo") && line.contains("99.5")));
    }
}
