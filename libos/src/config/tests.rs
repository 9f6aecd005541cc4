//! Where values come from, and what is said about wrong ones.

use std::time::Duration;

use super::Config;
use crate::SetupError;

fn parse(text: &str) -> Config {
    Config::from_toml_str("test.toml", text).unwrap()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_environment_overrides_the_program_which_overrides_the_file_which_overrides_the_default() {
    let file = parse("[tcp]\nrto_min_ms = 1");
    let builder = file.clone().set("tcp.rto_min_ms", 2);
    let environment = builder.clone().with_variables(variables(&[("CATNIP_TCP__RTO_MIN_MS", "3")]));
    let early = file.clone().with_variables(variables(&[("CATNIP_TCP__RTO_MIN_MS", "3")]));
    let cases = [
        (Config::new(), 200),
        (file, 1),
        (builder, 2),
        (environment, 3),
        (early.set("tcp.rto_min_ms", 2), 3),
    ];
    for (config, expected) in cases {
        let mut section = config.section("tcp");
        assert_eq!(section.u64("rto_min_ms", 1..=1000, 200), Ok(expected));
        section.finish().unwrap();
    }
}

#[test]
fn every_type_is_read_from_a_file_and_from_the_environment() {
    let file = parse(
        r#"[t]
        number = 1_000
        yes = true
        word = "sleep"
        text = "5"
        list = ["10.0.0.1/24", "fe80::1/64"]
        address = "10.0.0.1"
        pause_us = 7"#,
    );
    let environment = Config::new().with_variables(variables(&[
        ("CATNIP_T__NUMBER", "1_000"),
        ("CATNIP_T__YES", "1"),
        ("CATNIP_T__WORD", "sleep"),
        ("CATNIP_T__TEXT", "5"),
        ("CATNIP_T__LIST", "10.0.0.1/24, fe80::1/64"),
        ("CATNIP_T__ADDRESS", "10.0.0.1"),
        ("CATNIP_T__PAUSE_US", "7"),
        ("CATNIP_LOG", "no table, so not ours"),
        ("PATH", "/bin"),
    ]));
    for config in [file, environment] {
        let mut section = config.section("t");
        assert_eq!(section.integer::<u16>("number", 0..=2_000, 0), Ok(1_000));
        assert_eq!(section.bool("yes", false), Ok(true));
        assert_eq!(section.choice("word", &["spin", "sleep"], "spin"), Ok("sleep"));
        assert_eq!(section.string("text", "").as_deref(), Ok("5"));
        assert_eq!(section.strings("list").unwrap(), ["10.0.0.1/24", "fe80::1/64"]);
        let address = section.parsed::<std::net::IpAddr>("address", "an address").unwrap();
        assert_eq!(address, Some([10, 0, 0, 1].into()));
        assert_eq!(section.duration_us("pause_us", 0..=10, 0), Ok(Duration::from_micros(7)));
        section.finish().unwrap();
        config.check_sections(&["t"]).unwrap();
    }
}

/// Reads a table `[t]` with one key of each type.
fn read(config: &Config) -> Result<(), SetupError> {
    let mut section = config.section("t");
    section.u64("number", 1..=10, 5)?;
    section.bool("yes", false)?;
    section.choice("word", &["spin", "sleep"], "spin")?;
    section.string("text", "")?;
    section.strings("list")?;
    section.parsed::<std::net::IpAddr>("address", "an IPv4 or IPv6 address")?;
    section.finish()?;
    config.check_sections(&["t"])
}

#[test]
fn every_mistake_is_told_in_one_line_with_its_place_the_key_the_value_and_what_is_allowed() {
    let cases = [
        ("[t]\nnumber = 11", "test.toml: t.number = 11: allowed is an integer from 1 to 10"),
        ("[t]\nnumber = -1", "test.toml: t.number = -1: allowed is an integer from 1 to 10"),
        ("[t]\nnumber = \"5\"", "test.toml: t.number = \"5\": allowed is an integer from 1 to 10"),
        ("[t]\nyes = 1", "test.toml: t.yes = 1: allowed is true or false"),
        ("[t]\nword = \"nap\"", "test.toml: t.word = \"nap\": allowed is one of spin, sleep"),
        ("[t]\ntext = 5", "test.toml: t.text = 5: allowed is a text in quotes"),
        (
            "[t]\nlist = \"a\"",
            "test.toml: t.list = \"a\": allowed is texts in quotes; a list stands in brackets: [\"one\", \"two\"]",
        ),
        ("[t]\nlist = [1]", "test.toml: t.list = [1]: allowed is texts in quotes"),
        ("[t]\naddress = \"x\"", "test.toml: t.address = \"x\": allowed is an IPv4 or IPv6 address"),
        (
            "[t]\nnumbr = 5",
            "test.toml: t.numbr = 5: allowed is the keys address, list, number, text, word, yes",
        ),
        ("[u]\nx = 1", "test.toml: [u] = a table that nothing reads: allowed is [t]"),
        ("x = 1", "test.toml: x = 1: allowed is tables such as [libos] with the keys in them"),
        (
            "[t]\nnumber = 1\nnumber = 2",
            "test.toml: line 3, column 1: duplicate key; the line is: number = 2",
        ),
        (
            "[t]\nnumber =",
            "test.toml: line 2, column 9: string values must be quoted, expected literal string; the line is: number =",
        ),
    ];
    for (text, expected) in cases {
        let error = Config::from_toml_str("test.toml", text).and_then(|config| read(&config)).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn mistakes_outside_the_file_name_their_source_too() {
    let environment = Config::new().with_variables(variables(&[("CATNIP_T__NUMBER", "many")]));
    let cases = [
        (environment, "environment (CATNIP_T__NUMBER): t.number = many: allowed is an integer from 1 to 10"),
        (Config::new().set("t.word", "nap"), "builder: t.word = \"nap\": allowed is one of spin, sleep"),
        (Config::new().set("number", 5), "builder: [] = a table that nothing reads: allowed is [t]"),
    ];
    for (config, expected) in cases {
        assert_eq!(read(&config).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::from_file("/no/such/catnip.toml").unwrap_err();
    assert_eq!(error.to_string(), "/no/such/catnip.toml: No such file or directory (os error 2)");
}

#[test]
fn a_value_that_is_missing_is_looked_for_in_the_file() {
    for (config, source) in [
        (Config::from_toml_str("c.toml", "[tcp]\nno_delay = true").unwrap(), "c.toml"),
        (Config::new().set("tcp.no_delay", true), "configuration"),
    ] {
        let line = config.section("packet").reject("interface", "a name").to_string();
        assert_eq!(line, format!("{source}: packet.interface = not set: allowed is a name"));
    }
}

#[test]
fn a_value_that_clashes_with_another_is_rejected_with_its_source() {
    let config = parse("[tcp]\nrto_min_ms = 900");
    let mut section = config.section("tcp");
    section.u64("rto_min_ms", 1..=1_000, 200).unwrap();
    let error = section.reject("rto_min_ms", "at most rto_max_ms, which is 500");
    assert_eq!(
        error.to_string(),
        "test.toml: tcp.rto_min_ms = 900: allowed is at most rto_max_ms, which is 500"
    );
}

#[test]
fn lists_of_integers_are_read_from_files_and_from_the_environment() {
    let config =
        Config::from_toml_str("t.toml", "[cores]\ncpus = [3, 1]\nbad = [\"x\"]\nlarge = [9]").unwrap();
    let mut section = config.section("cores");
    assert_eq!(section.integers("cpus", 0..=8), Ok(vec![3, 1]));
    assert_eq!(section.integers("none", 0..=8), Ok(Vec::new()));
    for key in ["bad", "large"] {
        let said = section.integers(key, 0..=8).unwrap_err().to_string();
        assert!(said.ends_with("allowed is a list of integers from 0 to 8"), "{said}");
    }
    let config = config.with_variables([("CATNIP_CORES__CPUS".to_owned(), "0, 2".to_owned())]);
    assert_eq!(config.section("cores").integers("cpus", 0..=8), Ok(vec![0, 2]));
}

#[test]
fn who_wrote_no_list_is_told_how_one_is_written() {
    let config = Config::from_toml_str("t.toml", "[t]\none = \"1\"\nwrong = [\"x\"]").unwrap();
    let config = config.with_variables([("CATNIP_T__BRACKETS".to_owned(), "[\"1\"]".to_owned())]);
    let config = config.set("t.two", ["1", "2"]);
    let mut section = config.section("t");
    assert_eq!(section.parsed_list::<u8>("two", "numbers"), Ok(vec![1, 2]));
    for (key, end) in [
        ("one", "allowed is numbers; a list stands in brackets: [\"one\", \"two\"]"),
        (
            "brackets",
            "allowed is numbers; in the environment a list has commas, and neither brackets nor quotes",
        ),
        ("wrong", "allowed is numbers"),
    ] {
        let said = section.parsed_list::<u8>(key, "numbers").unwrap_err().to_string();
        assert!(said.ends_with(end), "{said}");
    }
}

#[test]
fn a_word_without_quotes_is_said_to_need_them() {
    let said = Config::from_toml_str("t.toml", "[t]\nword = spin\n").unwrap_err().to_string();
    assert!(said.starts_with("t.toml: line 2, column 8: "), "{said}");
    assert!(said.ends_with("; a text stands in double quotes; the line is: word = spin"), "{said}");
    let said = Config::from_toml_str("t.toml", "[t]\nnumber = 5 5\n").unwrap_err().to_string();
    assert!(!said.contains("quotes"), "{said}");
}

#[test]
fn a_variable_with_one_underscore_behind_its_table_is_a_mistake_and_others_are_not_ours() {
    let variable = |name: &str| Config::new().with_variables([(name.to_owned(), "spin".to_owned())]);
    let known = ["libos", "memory", "memory_queue"];
    for (name, right) in [
        ("CATNIP_LIBOS_IDLE", "CATNIP_LIBOS__IDLE"),
        ("CATNIP_MEMORY_REGION_MIB", "CATNIP_MEMORY__REGION_MIB"),
    ] {
        let said = variable(name).check_sections(&known).unwrap_err().to_string();
        assert!(said.starts_with(&format!("environment: {name} = spin: allowed is {right}: two")), "{said}");
    }
    for name in ["CATNIP_CONFIG", "CATNIP_LOG", "CATNIP_GLOBAL_REGION_MIB", "CATNIP_LIBOS", "LIBOS_IDLE"] {
        assert_eq!(variable(name).check_sections(&known), Ok(()), "{name}");
    }
}

#[test]
fn a_main_that_returns_the_error_prints_the_line() {
    let error = Config::from_toml_str("t.toml", "number = 5").unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
}
