//! TCP as scripts: data files that say which segments come, which must be sent, what the program calls and how time
//! passes. The format is described in `docs/segment-scripts.md`; whoever adds a file to `scripts/` adds a test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod packet;
mod player;
mod script;

use std::fs;
use std::path::Path;

use player::{Family, Player};
use script::Script;

/// Plays a script's text over one family; an error names `file` and the line.
fn play(file: &str, text: &str, family: Family) -> Result<(), String> {
    let script = Script::parse(text).map_err(|error| format!("{file}:{error}"))?;
    if script.only.is_some_and(|only| only != family) {
        return Ok(());
    }
    let mut player =
        Player::new(&script, family).map_err(|error| format!("{file}: the settings: {error}"))?;
    for step in &script.steps {
        player
            .play(&step.action, step.after)
            .map_err(|error| format!("{file}:{} ({family:?}): `{}`\n{error}", step.line, step.text))?;
    }
    player.end().map_err(|error| format!("{file}: at the end ({family:?}): {error}"))
}

#[test]
fn every_script_plays_over_both_families() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/segments/scripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let scripts: Vec<_> =
        files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "pkt")).collect();
    assert!(scripts.len() >= 25, "only {} scripts were found", scripts.len());
    let mut failures = Vec::new();
    for path in scripts {
        let text = fs::read_to_string(path).unwrap();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for family in [Family::V4, Family::V6] {
            failures.extend(play(&name, &text, family).err());
        }
    }
    assert!(failures.is_empty(), "{} failed:\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn what_does_not_hold_is_reported_with_its_line_and_what_was_sent() {
    let opening = "listen\n< S 0:0(0) win 1000 <mss 1000>\n";
    for (wrong, said) in [
        ("> S. 0:0(0) ack 2", "t.pkt:3 (V4): `> S. 0:0(0) ack 2`\nexpected ack 2, got 1 in: S. 0:0(0) ack 1"),
        ("> . 1:1(0) ack 1", "expected flags ., got S."),
        ("> nothing", "expected nothing, got: S. 0:0(0) ack 1"),
        ("> S. 0:0(0) ack 1\n> . 1:1(0)", "t.pkt:4 (V4): `> . 1:1(0)`\nnothing was sent"),
        ("+10ms > S. 0:0(0) ack 1", "expected at 10.000 ms, got at 0.000 ms"),
        ("> S. 0:0(0) ack 1 <mss 7>", "expected option mss 7"),
        ("expect state CLOSED", "there is no connection"),
        ("> S. 0:0(0) ack 1\n+1s", "at the end (V4): not expected: S. 0:0(0) ack 1"),
        ("accept", "no connection waits"),
        ("< Q 0:0(0)", "t.pkt:3: no flag is called Q"),
        ("< . 0:0(1)", "t.pkt:3: 0:0(1) is no range"),
        ("< S 0:0(0) to nowhere", "t.pkt:3: nobody is called nowhere"),
        ("> S. 0:0(0) ack 1\nexpect isn step 1", "no SYN went to this port before"),
        ("expect isn of @40000 far from @40000", "are 0 apart"),
        ("jump", "t.pkt:3: no line begins with jump"),
        ("set tcp.sack = false", "t.pkt:3: settings come first"),
    ] {
        let error = play("t.pkt", &format!("{opening}{wrong}\n"), Family::V4).expect_err(wrong);
        assert!(error.contains(said), "for {wrong}:\n{error}");
    }
    let error = play("t.pkt", "set tcp.sack = 7\n", Family::V4).expect_err("a number is no truth value");
    assert!(error.contains("true or false"), "{error}");
}
