//! Every key that `docs/catnip.toml` describes, with values that it cannot have: each is refused in one line that says where the
//! value stands, what it is and what is allowed, and nothing is opened.
#![cfg(all(feature = "tap", feature = "packet", feature = "xdp", feature = "vhost"))]
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use catnip_os::libos::{Config, SetupError};
use catnip_os::runtime_linux::packet::PacketConfig;
use catnip_os::runtime_linux::tap::TapConfig;
use catnip_os::runtime_linux::xdp::XdpConfig;
use catnip_os::runtime_vhost::VhostConfig;

const DOCUMENT: &str = include_str!("../docs/catnip.toml");

/// A key of the document, and what it has there.
struct Key {
    table: String,
    name: String,
    value: String,
}

/// All keys, those that are commented out because they have no default included.
fn keys() -> Vec<Key> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in DOCUMENT.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.to_owned();
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((name, value)) = line.split_once(" = ")
            && name
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        {
            keys.push(Key { table: table.clone(), name: name.to_owned(), value: value.to_owned() });
        }
    }
    keys
}

/// Reads the table as whoever has it does. Nothing is opened but the loopback device.
fn read(table: &str, config: &Config) -> Result<(), SetupError> {
    match table {
        "tap" => TapConfig::from_config(config).map(drop),
        "packet" => PacketConfig::from_config(config).map(drop),
        "xdp" => XdpConfig::from_config(config).map(drop),
        "vhost" => VhostConfig::from_config(config).map(drop),
        _ => catnip_os::open(config).map(drop),
    }
}

/// Values of another kind than the key's, and of its kind beyond every range.
fn senseless_values(value: &str) -> &'static [&'static str] {
    match value.as_bytes() {
        [b'"', ..] => &["5", "true", "1.5", "[\"a\"]", "{ a = 1 }", "1979-05-27"],
        [b'[', ..] => &["5", "true", "\"a\"", "[[\"a\"]]", "[true]", "{ a = 1 }"],
        b"true" | b"false" => &["1", "\"true\"", "\"\"", "[true]", "{ a = 1 }", "1.0"],
        _ => &["-2", "99999999999999999", "\"5\"", "true", "1.5", "[1]", "{ a = 1 }", "nan", "07:32:00"],
    }
}

fn assert_told(error: &SetupError, place: &str, key: &Key, value: &str) {
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    let expected = format!("{place}: {}.{} = ", key.table, key.name);
    assert!(line.starts_with(&expected), "{expected}{value} was told as: {line}");
    let allowed = line.split_once(": allowed is ").map(|(_, allowed)| allowed);
    assert!(allowed.is_some_and(|allowed| allowed.len() > 3), "{line}");
}

/// DPDK's table is read where DPDK is.
fn keys_read_here() -> impl Iterator<Item = Key> {
    keys().into_iter().filter(|key| key.table != "dpdk")
}

#[test]
fn the_document_is_understood() {
    assert!(keys().len() > 140, "{}", keys().len());
    for table in
        ["libos", "cores", "tap", "packet", "xdp", "dpdk", "vhost", "stack", "neighbor", "udp", "tcp"]
    {
        assert!(keys().iter().any(|key| key.table == table), "{table}");
    }
}

#[test]
fn no_key_takes_a_value_of_another_kind_or_beyond_its_range() {
    for key in keys_read_here() {
        for value in senseless_values(&key.value) {
            let text = format!("[{}]\n{} = {value}\n", key.table, key.name);
            let read = Config::from_toml_str("t.toml", &text).and_then(|config| read(&key.table, &config));
            match read {
                Ok(()) => panic!("taken: {text}"),
                Err(error) => assert_told(&error, "t.toml", &key, value),
            }
        }
    }
}

#[test]
fn no_key_takes_nonsense_from_the_environment() {
    for key in keys_read_here().filter(|key| !key.value.starts_with('"')) {
        let variable = format!("CATNIP_{}__{}", key.table, key.name).to_uppercase();
        let config = Config::new().with_variables([(variable.clone(), "a b".to_owned())]);
        match read(&key.table, &config) {
            Ok(()) => panic!("taken: {variable}"),
            Err(error) => assert_told(&error, &format!("environment ({variable})"), &key, "a b"),
        }
    }
}

#[test]
fn a_key_that_is_misspelt_or_said_twice_is_named() {
    for key in keys_read_here() {
        let Key { table, name, value } = &key;
        let misspelt = format!("[{table}]\n{name}s_ = {value}\n");
        let config = Config::from_toml_str("t.toml", &misspelt).unwrap();
        let line = read(table, &config).unwrap_err().to_string();
        assert!(line.starts_with(&format!("t.toml: {table}.{name}s_ = ")), "{line}");
        assert!(line.contains("allowed is the keys "), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");

        let twice = format!("[{table}]\n{name} = {value}\n{name} = {value}\n");
        let line = Config::from_toml_str("t.toml", &twice).unwrap_err().to_string();
        assert!(
            line.starts_with(&format!("t.toml: line 3, column 1: duplicate key; the line is: {name} = ")),
            "{line}"
        );
    }
}
