//! Every test, script and file that COMPLIANCE.md names is there, and every item and script has a row; TCP's have scripts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot read the sources has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names of all tests in the Rust files under `folder`.
fn tests_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden && !path.ends_with("target") && !path.ends_with("build") {
            tests_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let called = text.split("#[test]").skip(1).filter_map(|rest| {
                let (_, named) = rest.split_once("fn ")?;
                named.split(['(', '<']).next()
            });
            names.extend(called.map(str::to_owned));
        }
    }
}

/// The texts between backquotes in `cell`.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The folder of the segment scripts, whose names begin with the number of the item they show.
const SCRIPTS: &str = "catnip/tests/segments/scripts";
/// The items of the checklist, the last one's number.
const ITEMS: u32 = 84;

/// The last of them that is TCP's.
const TCP_ITEMS: u32 = 61;

/// The RFCs of the checklist.
const RFCS: [u32; 53] = [
    768, 791, 792, 815, 826, 896, 1112, 1122, 1191, 1337, 1812, 2018, 2131, 2883, 3042, 3168, 3376, 3810,
    4443, 4821, 4861, 4862, 4987, 5227, 5482, 5681, 5682, 5722, 5961, 6056, 6191, 6298, 6429, 6528, 6582,
    6675, 6864, 6928, 6936, 6980, 7323, 7413, 8200, 8201, 8257, 8899, 8985, 9293, 9406, 9438, 9768, 9937,
    6724,
];

/// What a name that stands for a script ends with.
const SCRIPT_EXTENSION: &str = ".pkt";

/// The rows of the page: their four cells.
fn rows(page: &str) -> impl Iterator<Item = [&str; 4]> {
    page.lines().filter(|line| line.starts_with("| ") && line.contains('`')).map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        cells.try_into().unwrap_or_else(|_| panic!("not four cells: {row}"))
    })
}

/// The numbers in a row's first cell.
fn numbers(cell: &str) -> impl Iterator<Item = u32> {
    cell.split(',').filter_map(|number| number.trim().parse().ok())
}

/// True when a requirement names the RFC. Sections without a name are RFC 9293's.
fn mentions(requirement: &str, rfc: u32) -> bool {
    let number = format!("RFC {rfc}");
    let named = requirement.match_indices(&number);
    let is_whole =
        |at: usize| !requirement[at + number.len()..].starts_with(|next: char| next.is_ascii_digit());
    rfc == 9293 || named.into_iter().any(|(at, _)| is_whole(at))
}

#[test]
fn every_item_rfc_and_script_has_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("COMPLIANCE.md")).unwrap();
    let items: BTreeSet<u32> = rows(&page).flat_map(|[number, ..]| numbers(number)).collect();
    let missing: Vec<u32> = (1..=ITEMS).filter(|item| !items.contains(item)).collect();
    assert!(missing.is_empty(), "items without a row: {missing:?}");
    let missing: Vec<u32> =
        RFCS.into_iter().filter(|rfc| !rows(&page).any(|row| mentions(row[1], *rfc))).collect();
    assert!(missing.is_empty(), "RFCs without a row: {missing:?}");
    let mut scripted = BTreeSet::new();
    for entry in fs::read_dir(root.join(SCRIPTS)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let item: u32 = name.split('-').next().and_then(|number| number.parse().ok()).unwrap();
        scripted.insert(item);
        let is_shown = rows(&page).any(|[number, _, _, tests]| {
            numbers(number).any(|number| number == item) && quoted(tests).any(|test| test == name)
        });
        assert!(is_shown, "no row of item {item} names {name}");
    }
    let missing: Vec<u32> = (1..=TCP_ITEMS).filter(|item| !scripted.contains(item)).collect();
    assert!(missing.is_empty(), "items of TCP without a script: {missing:?}");
}

#[test]
fn every_row_names_files_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    tests_in(root, &mut names);
    let page = fs::read_to_string(root.join("COMPLIANCE.md")).unwrap();
    let mut rows = 0;
    let mut missing = Vec::new();
    for [_, _, places, tests] in self::rows(&page) {
        rows += 1;
        missing.extend(quoted(places).filter(|place| !root.join(place).is_file()));
        missing.extend(quoted(tests).filter(|test| match test.ends_with(SCRIPT_EXTENSION) {
            true => !root.join(SCRIPTS).join(test).is_file(),
            false => !names.contains(*test),
        }));
    }
    assert!(rows > 60, "only {rows} rows were read");
    assert!(missing.is_empty(), "COMPLIANCE.md names what is not there: {missing:#?}");
}
