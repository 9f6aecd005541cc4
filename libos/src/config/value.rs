//! A configuration value and where it was found.

use std::fmt;
use std::sync::Arc;

/// A value given in a file, by the program or in the environment.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// As TOML has it.
    Toml(toml::Value),
    /// As the environment has it: its type is that of the key it is for.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml(value) => value.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<toml::Value> for Value {
    fn from(value: toml::Value) -> Self {
        Self::Toml(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Toml(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Toml(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Toml(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Toml(value.into())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Toml(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Toml(value.into())
    }
}

impl From<u64> for Value {
    /// TOML has no integers above `i64::MAX`; the text keeps such a value as it is.
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or_else(|_| Self::Text(value.to_string()), Self::from)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}

impl From<Vec<String>> for Value {
    fn from(values: Vec<String>) -> Self {
        Self::Toml(values.into())
    }
}

impl From<&[&str]> for Value {
    fn from(values: &[&str]) -> Self {
        Self::Toml(values.to_vec().into())
    }
}

impl<const COUNT: usize> From<[&str; COUNT]> for Value {
    fn from(values: [&str; COUNT]) -> Self {
        Self::from(values.as_slice())
    }
}

/// Where a value was found.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(Arc<str>),
    Builder,
    Environment(Arc<str>),
}

impl Source {
    pub(super) const LAYERS: usize = 3;

    /// Sources with a higher number override those with a lower one.
    pub(super) fn layer(&self) -> usize {
        match self {
            Self::File(_) => 0,
            Self::Builder => 1,
            Self::Environment(_) => 2,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => f.write_str(name),
            Self::Builder => f.write_str("builder"),
            Self::Environment(name) => write!(f, "environment ({name})"),
        }
    }
}

/// A value with its source.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) value: Value,
}

impl Found {
    pub(super) fn new(source: Source, value: Value) -> Self {
        Self { source, value }
    }
}
