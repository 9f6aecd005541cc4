//! Configuration: one TOML file, values set by the program, and environment variables on top.
//!
//! A [`Config`] only collects values. Whoever is configured reads its own table through a
//! [`Section`], which knows the key's type, what is allowed and the default, and turns every mistake
//! into one line: where the value comes from, the key, the value, what is allowed.
//!
//! The layers, each overriding the one before: defaults, file, [`Config::set`], environment.
//! In the environment the key `rto_min_ms` of the table `[tcp]` is `CATNIP_TCP__RTO_MIN_MS`: `CATNIP_`, the
//! table, two underscores, the key, all in capitals. Text needs no quotes there and list elements
//! are separated by commas. `CATNIP_CONFIG` names the file that [`Config::load`] reads.

mod section;
mod value;

use std::collections::BTreeMap;
use std::path::Path;

pub use section::Section;
pub use value::Value;
use value::{Found, Source};

use crate::SetupError;

const PREFIX: &str = "CATNIP_";
const FILE_VARIABLE: &str = "CATNIP_CONFIG";

type Keys = BTreeMap<String, Found>;

/// Configuration values from all sources, by table and key.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// From the weakest to the strongest.
    layers: [BTreeMap<String, Keys>; Source::LAYERS],
    /// Variables of the environment with our prefix that name no table, and their values: ours for other purposes, or
    /// mistaken.
    other_variables: BTreeMap<String, String>,
}

impl Config {
    /// A configuration in which everything has its default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What programs start from: the file that the environment variable `CATNIP_CONFIG` names, if it is
    /// set, and the values in the environment.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn load() -> Result<Self, SetupError> {
        // Empty means unset, as with other variables of the environment.
        let config = match std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => Self::from_file(path)?,
            None => Self::new(),
        };
        Ok(config.with_environment())
    }

    /// The values in a TOML file.
    ///
    /// # Errors
    /// [`SetupError::File`] when the file cannot be read or is not TOML, [`SetupError::Config`] for a
    /// key outside a table.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SetupError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| SetupError::File { path: name.clone(), reason: error.to_string() })?;
        Self::from_toml_str(&name, &text)
    }

    /// The values in a TOML text; `name` says in messages where they come from.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn from_toml_str(name: &str, text: &str) -> Result<Self, SetupError> {
        let tables: toml::Table = text
            .parse()
            .map_err(|error| SetupError::File { path: name.to_owned(), reason: describe(text, &error) })?;
        let mut config = Self::new();
        for (table, content) in tables {
            let toml::Value::Table(content) = content else {
                return Err(SetupError::Config {
                    source: name.to_owned(),
                    key: table,
                    value: content.to_string(),
                    allowed: "tables such as [libos] with the keys in them".to_owned(),
                });
            };
            for (key, value) in content {
                config.insert(&table, &key, Found::new(Source::File(name.into()), value.into()));
            }
        }
        Ok(config)
    }

    /// Sets one value, over the file and under the environment. `key` is `table.key`. A key that
    /// nobody knows is found out when its table is read.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        // A name without a table goes to the table without a name, which `check_sections` rejects.
        let (table, key) = key.split_once('.').unwrap_or(("", key));
        self.insert(table, key, Found::new(Source::Builder, value.into()));
        self
    }

    /// Adds the values in the program's environment.
    #[must_use]
    pub fn with_environment(self) -> Self {
        self.with_variables(std::env::vars_os().filter_map(|(name, value)| {
            // Names and values that are not text cannot be ours.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// Adds the values among `variables`, as if they were the environment.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if let Some((table, key)) = rest.split_once("__") {
                let (table, key) = (table.to_ascii_lowercase(), key.to_ascii_lowercase());
                let found = Found::new(Source::Environment(name.as_str().into()), Value::Text(text));
                self.insert(&table, &key, found);
            } else {
                self.other_variables.insert(name, text);
            }
        }
        self
    }

    fn insert(&mut self, table: &str, key: &str, found: Found) {
        let layer = &mut self.layers[found.source.layer()];
        layer.entry(table.to_owned()).or_default().insert(key.to_owned(), found);
    }

    /// The file that there are values from, which is where one that is missing would be looked for.
    fn file_name(&self) -> Option<&str> {
        self.layers.iter().flat_map(BTreeMap::values).flat_map(Keys::values).find_map(|found| {
            match &found.source {
                Source::File(name) => Some(&**name),
                Source::Builder | Source::Environment(_) => None,
            }
        })
    }

    /// One table, to be read by whoever it configures. A table that is not there reads as defaults.
    #[must_use]
    pub fn section<'a>(&'a self, name: &'a str) -> Section<'a> {
        Section::new(self, name)
    }

    /// Rejects tables that nobody reads, and variables of the environment that name a table without two underscores behind
    /// it. Called by whoever puts the library OS together and so knows which tables its parts read.
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first variable, or else the first table that is not among `known`.
    pub fn check_sections(&self, known: &[&str]) -> Result<(), SetupError> {
        for (name, value) in &self.other_variables {
            let rest = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
            let key_of = |table: &&str| rest.strip_prefix(table)?.strip_prefix('_').map(str::to_owned);
            if let Some((table, key)) = known.iter().find_map(|table| Some((table, key_of(table)?))) {
                return Err(SetupError::Config {
                    source: "environment".to_owned(),
                    key: name.clone(),
                    value: value.clone(),
                    allowed: format!("{PREFIX}{table}__{key}").to_ascii_uppercase()
                        + ": two underscores behind the table",
                });
            }
        }
        let tables = self.layers.iter().flatten();
        let mut unknown = tables.filter(|(table, _)| !known.contains(&table.as_str()));
        let Some((table, keys)) = unknown.next() else { return Ok(()) };
        let source = keys.values().next().map_or_else(String::new, |found| found.source.to_string());
        Err(SetupError::Config {
            source,
            key: format!("[{table}]"),
            value: "a table that nothing reads".to_owned(),
            allowed: known.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", "),
        })
    }

    fn find(&self, table: &str, key: &str) -> Option<&Found> {
        self.layers.iter().rev().find_map(|layer| layer.get(table)?.get(key))
    }

    fn keys<'a>(&'a self, table: &'a str) -> impl Iterator<Item = (&'a str, &'a Found)> {
        let tables = self.layers.iter().filter_map(move |layer| layer.get(table));
        tables.flatten().map(|(key, found)| (key.as_str(), found))
    }
}

/// Most characters of a line of the file that a message repeats.
const MAX_SHOWN: usize = 80;

/// What is wrong with a TOML text, in one line with the place and what stands there.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().lines().collect::<Vec<_>>().join(" ");
    let before = error.span().and_then(|span| text.get(..span.start));
    let Some(before) = before else { return reason };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    // The parser takes a bare word for a number or a boolean that is mistaken.
    let is_value = before.trim_end().ends_with('=');
    let is_word = text[before.len()..].starts_with(|first: char| first.is_ascii_alphabetic() || first == '/');
    let hint = if is_value && is_word { "; a text stands in double quotes" } else { "" };
    let written: String =
        text.lines().nth(line - 1).unwrap_or_default().trim().chars().take(MAX_SHOWN).collect();
    format!("line {line}, column {column}: {reason}{hint}; the line is: {}", written.escape_debug())
}

#[cfg(test)]
mod tests;
