//! Every test and every file that COMPLIANCE.md names is there.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names of all functions in the Rust files under `folder`.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("target") && !path.ends_with("build") {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let called = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            names.extend(called.map(str::to_owned));
        }
    }
}

/// The texts between backquotes in `cell`.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_row_names_files_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    functions(root, &mut names);
    let page = fs::read_to_string(root.join("COMPLIANCE.md")).unwrap();
    let mut rows = 0;
    let mut missing = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [_, _, places, tests] = cells[..] else { panic!("not four cells: {row}") };
        rows += 1;
        missing.extend(quoted(places).filter(|place| !root.join(place).is_file()));
        missing.extend(quoted(tests).filter(|test| !names.contains(*test)));
    }
    assert!(rows > 60, "only {rows} rows were read");
    assert!(missing.is_empty(), "COMPLIANCE.md names what is not there: {missing:#?}");
}
