//! The limits that instruction counts are held to.

use toml::{Table, Value};

use crate::catalogue::{self, Benchmark};
use crate::scenario::Failure;

const LIMITS: &str = include_str!("../limits.toml");

/// A limit of one benchmark's instruction count.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The benchmark.
    pub benchmark: &'static Benchmark,
    /// What bounds it.
    pub bound: Bound,
}

/// What bounds an instruction count.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// So many instructions.
    Instructions(f64),
    /// So many times what another benchmark takes.
    Multiple(&'static Benchmark, f64),
}

/// The limits in the file.
///
/// # Errors
/// [`Failure`] that names the entry which is not as it should be.
pub fn read() -> Result<Vec<Limit>, Failure> {
    parse(LIMITS)
}

fn parse(text: &str) -> Result<Vec<Limit>, Failure> {
    let file: Table = text.parse()?;
    let mut limits = Vec::new();
    for (section, entries) in &file {
        let entries = entries.as_table().ok_or_else(|| format!("limits.toml: {section} is no table"))?;
        for (name, value) in entries {
            let wrong = || format!("limits.toml: {section}.{name} = {value}");
            let bound = match section.as_str() {
                "instructions" => Bound::Instructions(number(value).ok_or_else(wrong)?),
                "multiple" => {
                    let other = value.get("of").and_then(Value::as_str).and_then(catalogue::find);
                    let limit = value.get("limit").and_then(number);
                    Bound::Multiple(other.ok_or_else(wrong)?, limit.ok_or_else(wrong)?)
                }
                _ => return Err(format!("limits.toml: unknown table {section}").into()),
            };
            let benchmark = catalogue::find(name).ok_or_else(wrong)?;
            limits.push(Limit { benchmark, bound });
        }
    }
    Ok(limits)
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_as_it_should_be() {
        assert!(read().unwrap().len() >= 3);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("[instructions]\nno-such = 1", "no-such"),
            ("[instructions]\ntcp-echo = \"few\"", "tcp-echo"),
            ("[multiple]\ntcp-echo = { of = \"no-such\", limit = 1 }", "tcp-echo"),
            ("[multiple]\ntcp-echo = { of = \"udp-echo\" }", "tcp-echo"),
            ("[other]\ntcp-echo = 1", "other"),
            ("tcp-echo = 1", "tcp-echo"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
