//! The list of bad inputs and faults is covered: `bad-inputs.txt` says for each row what shows its outcome, and here it
//! is checked that no row is missing, that what is named exists, and that a row with nothing to show says why.
//!
//! That the named tests pass is their own business; here it is noticed when one is renamed or removed.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
mod dialog;

use dialog::Origin;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// How many rows each part of the list has.
const PARTS: [(char, u32); 18] = [
    ('F', 21),
    ('W', 29),
    ('P', 18),
    ('C', 12),
    ('S', 12),
    ('D', 8),
    ('O', 11),
    ('N', 12),
    ('L', 11),
    ('K', 14),
    ('A', 15),
    ('E', 7),
    ('X', 12),
    ('M', 16),
    ('G', 8),
    ('R', 9),
    ('Q', 7),
    ('J', 2),
];

struct Row {
    id: String,
    shown_by: Vec<String>,
    /// Why it is otherwise, or not here.
    reason: Option<String>,
}

fn rows() -> Vec<Row> {
    let lines = include_str!("bad-inputs.txt").lines();
    let rows = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|line| {
        let (id, rest) = line.split_once(' ').unwrap_or((line, ""));
        let reason = ["otherwise:", "not here:"].iter().find_map(|word| rest.split_once(word));
        let (named, reason) =
            reason.map_or((rest, None), |(named, why)| (named, Some(why.trim().to_owned())));
        let shown_by = named.split_whitespace().map(str::to_owned).collect();
        Row { id: id.to_owned(), shown_by, reason }
    })
    .collect()
}

/// Every test function in the sources.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests"] {
        find_sources(&root.join(folder), &mut sources);
    }
    let mut tests = BTreeSet::new();
    for source in sources {
        let text = fs::read_to_string(source).unwrap();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            // Inside proptest! a test looks the same, and its arguments follow.
            let name =
                line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            if let (true, Some(name)) = (is_test, name) {
                tests.insert(name.to_owned());
                is_test = false;
            }
        }
    }
    tests
}

fn find_sources(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

/// The dialogs that say which row they come from.
fn dialogs() -> BTreeMap<String, Vec<String>> {
    let mut dialogs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for dialog in dialog::all() {
        for origin in dialog.from {
            if let Origin::BadInput(row) = origin {
                dialogs.entry(row).or_default().push(dialog.name.clone());
            }
        }
    }
    dialogs
}

#[test]
fn every_row_is_shown_by_tests_that_exist_or_says_why_not() {
    let (tests, dialogs, rows) = (tests(), dialogs(), rows());
    let mut wrong = Vec::new();
    let exists = |name: &str| match name.split_once('/') {
        Some(("rejects", folder)) => {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rejects").join(folder).join("message").exists()
        }
        Some(_) => dialog::fixtures().join(format!("{name}.dialog")).exists(),
        None => tests.contains(name),
    };
    for Row { id, shown_by, reason } in &rows {
        wrong.extend(shown_by.iter().filter(|name| !exists(name)).map(|name| format!("{id}: no {name}")));
        let is_shown = !shown_by.is_empty() || dialogs.contains_key(id);
        if !is_shown && reason.as_ref().is_none_or(String::is_empty) {
            wrong.push(format!("{id}: shown by nothing, and no reason"));
        }
    }
    let listed: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let expected: Vec<String> =
        PARTS.iter().flat_map(|(part, count)| (1..=*count).map(move |row| format!("{part}{row}"))).collect();
    assert_eq!(listed, expected, "each row once, and in order");
    wrong.extend(
        dialogs.keys().filter(|row| !expected.contains(row)).map(|row| format!("{row}: no such row")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
