//! Reading one table of the configuration, key by key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::Config;
use super::value::{Found, Value};
use crate::SetupError;

/// One table of the configuration while it is read.
///
/// Each method reads one key: its value if there is one, else the default. When all keys were asked
/// for, [`Section::finish`] rejects those that nobody asked for.
///
/// ```
/// # fn main() -> Result<(), libos::SetupError> {
/// let config = libos::Config::from_toml_str("example.toml", "[tcp]\nrto_min_ms = 5")?;
/// let mut tcp = config.section("tcp");
/// let rto_min = tcp.duration_ms("rto_min_ms", 1..=60_000, 200)?;
/// let congestion = tcp.choice("congestion", &["reno", "cubic"], "reno")?;
/// tcp.finish()?;
/// assert_eq!((rto_min.as_millis(), congestion), (5, "reno"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Section<'a> {
    config: &'a Config,
    name: &'a str,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(config: &'a Config, name: &'a str) -> Self {
        Self { config, name, known: Vec::new() }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Found> {
        self.known.push(key);
        self.config.find(self.name, key)
    }

    fn wrong(&self, key: &str, found: &Found, allowed: impl Into<String>) -> SetupError {
        SetupError::Config {
            source: found.source.to_string(),
            key: format!("{}.{key}", self.name),
            value: found.value.to_string(),
            allowed: allowed.into(),
        }
    }

    /// The error for a value that was read well and then turned out to be wrong, for instance beside
    /// another key's. `allowed` says what would be right.
    #[must_use]
    pub fn reject(&self, key: &str, allowed: impl Into<String>) -> SetupError {
        match self.config.find(self.name, key) {
            Some(found) => self.wrong(key, found, allowed),
            None => SetupError::Config {
                source: self.config.file_name().unwrap_or("configuration").to_owned(),
                key: format!("{}.{key}", self.name),
                value: "not set".to_owned(),
                allowed: allowed.into(),
            },
        }
    }

    /// An integer within a range.
    ///
    /// # Errors
    /// [`SetupError::Config`] for what is no integer or not within `allowed`.
    pub fn integer<T>(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<T>,
        default: T,
    ) -> Result<T, SetupError>
    where
        T: Copy + PartialOrd + Display + FromStr + TryFrom<i64>,
    {
        let Some(found) = self.find(key) else { return Ok(default) };
        let value = match &found.value {
            Value::Toml(toml::Value::Integer(value)) => T::try_from(*value).ok(),
            Value::Toml(_) => None,
            Value::Text(text) => text.trim().replace('_', "").parse().ok(),
        };
        value.filter(|value| allowed.contains(value)).ok_or_else(|| {
            self.wrong(key, found, format!("an integer from {} to {}", allowed.start(), allowed.end()))
        })
    }

    /// [`Self::integer`] for `u64`.
    ///
    /// # Errors
    /// As [`Self::integer`].
    pub fn u64(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, SetupError> {
        self.integer(key, allowed, default)
    }

    /// [`Self::integer`] for `usize`.
    ///
    /// # Errors
    /// As [`Self::integer`].
    pub fn usize(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize, SetupError> {
        self.integer(key, allowed, default)
    }

    /// A duration given in whole milliseconds; the key's name should end in `_ms`.
    ///
    /// # Errors
    /// As [`Self::integer`].
    pub fn duration_ms(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<u64>,
        default: u64,
    ) -> Result<Duration, SetupError> {
        self.integer(key, allowed, default).map(Duration::from_millis)
    }

    /// A duration given in whole microseconds; the key's name should end in `_us`.
    ///
    /// # Errors
    /// As [`Self::integer`].
    pub fn duration_us(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<u64>,
        default: u64,
    ) -> Result<Duration, SetupError> {
        self.integer(key, allowed, default).map(Duration::from_micros)
    }

    /// A truth value; in the environment also `0` and `1`.
    ///
    /// # Errors
    /// [`SetupError::Config`] for anything else.
    pub fn bool(&mut self, key: &'static str, default: bool) -> Result<bool, SetupError> {
        let Some(found) = self.find(key) else { return Ok(default) };
        let value = match &found.value {
            Value::Toml(toml::Value::Boolean(value)) => Some(*value),
            Value::Toml(_) => None,
            Value::Text(text) => match text.trim() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
        };
        value.ok_or_else(|| self.wrong(key, found, "true or false"))
    }

    /// A text, `None` when it is not set.
    ///
    /// # Errors
    /// [`SetupError::Config`] for what is not a text.
    pub fn optional_string(&mut self, key: &'static str) -> Result<Option<&'a str>, SetupError> {
        let Some(found) = self.find(key) else { return Ok(None) };
        text(&found.value).map(Some).ok_or_else(|| self.wrong(key, found, "a text in quotes"))
    }

    /// A text.
    ///
    /// # Errors
    /// As [`Self::optional_string`].
    pub fn string(&mut self, key: &'static str, default: &str) -> Result<String, SetupError> {
        Ok(self.optional_string(key)?.unwrap_or(default).to_owned())
    }

    /// One of several words.
    ///
    /// # Errors
    /// [`SetupError::Config`] for anything else.
    pub fn choice(
        &mut self,
        key: &'static str,
        allowed: &[&'static str],
        default: &'static str,
    ) -> Result<&'static str, SetupError> {
        let Some(found) = self.find(key) else { return Ok(default) };
        let chosen = text(&found.value).and_then(|text| allowed.iter().find(|word| **word == text.trim()));
        chosen.copied().ok_or_else(|| self.wrong(key, found, format!("one of {}", allowed.join(", "))))
    }

    /// A list of integers within a range; empty when it is not set.
    ///
    /// # Errors
    /// [`SetupError::Config`] for what is not a list of integers within `allowed`.
    pub fn integers(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<usize>,
    ) -> Result<Vec<usize>, SetupError> {
        let Some(found) = self.find(key) else { return Ok(Vec::new()) };
        let integers: Option<Vec<usize>> = match &found.value {
            Value::Toml(toml::Value::Array(values)) => {
                values.iter().map(|value| usize::try_from(value.as_integer()?).ok()).collect()
            }
            Value::Toml(_) => None,
            Value::Text(text) => {
                let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
                elements.map(|element| element.parse().ok()).collect()
            }
        };
        integers.filter(|integers| integers.iter().all(|integer| allowed.contains(integer))).ok_or_else(
            || {
                let allowed = format!("a list of integers from {} to {}", allowed.start(), allowed.end());
                self.wrong(key, found, allowed)
            },
        )
    }

    /// A list of texts; empty when it is not set.
    ///
    /// # Errors
    /// [`SetupError::Config`] for what is not a list of texts.
    pub fn strings(&mut self, key: &'static str) -> Result<Vec<String>, SetupError> {
        self.parsed_list(key, "texts in quotes")
    }

    /// A text that stands for something else, such as an address; `None` when it is not set.
    /// `allowed` describes what such a text looks like.
    ///
    /// # Errors
    /// [`SetupError::Config`] for a text that cannot be parsed.
    pub fn parsed<T: FromStr>(&mut self, key: &'static str, allowed: &str) -> Result<Option<T>, SetupError> {
        let Some(found) = self.find(key) else { return Ok(None) };
        let parsed = text(&found.value).and_then(|text| text.trim().parse().ok());
        parsed.map(Some).ok_or_else(|| self.wrong(key, found, allowed))
    }

    /// A list of such texts; empty when it is not set.
    ///
    /// # Errors
    /// [`SetupError::Config`] for what is not a list, or an element that cannot be parsed.
    pub fn parsed_list<T: FromStr>(
        &mut self,
        key: &'static str,
        allowed: &str,
    ) -> Result<Vec<T>, SetupError> {
        let Some(found) = self.find(key) else { return Ok(Vec::new()) };
        let parsed: Option<Vec<T>> = match &found.value {
            Value::Toml(toml::Value::Array(values)) => {
                values.iter().map(|value| value.as_str()?.trim().parse().ok()).collect()
            }
            Value::Toml(_) => None,
            Value::Text(text) => {
                let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
                elements.map(|element| element.parse().ok()).collect()
            }
        };
        parsed.ok_or_else(|| self.wrong(key, found, format!("{allowed}{}", list_hint(&found.value))))
    }

    /// Ends reading.
    ///
    /// # Errors
    /// [`SetupError::Config`] for a key in the table that was not asked for.
    pub fn finish(self) -> Result<(), SetupError> {
        let mut unknown = self.config.keys(self.name).filter(|(key, _)| !self.known.contains(key));
        let Some((key, found)) = unknown.next() else { return Ok(()) };
        let mut known = self.known.clone();
        known.sort_unstable();
        Err(self.wrong(key, found, format!("the keys {}", known.join(", "))))
    }
}

/// How a list is written where the value is: what its elements may be does not help who wrote no list.
fn list_hint(value: &Value) -> &'static str {
    match value {
        Value::Toml(toml::Value::Array(_)) => "",
        Value::Toml(_) => "; a list stands in brackets: [\"one\", \"two\"]",
        Value::Text(text) if text.contains(['[', '"']) => {
            "; in the environment a list has commas, and neither brackets nor quotes"
        }
        Value::Text(_) => "",
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Toml(value) => value.as_str(),
        Value::Text(text) => Some(text),
    }
}
