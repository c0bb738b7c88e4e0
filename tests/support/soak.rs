//! How often a test does what it does: for every test run, and for `make soak`, whose table it fills.
//!
//! `SASLD_SOAK` is the name of the table. With it the counts are those that the threat model promises, and each test
//! that does something often adds a row about what it did and what that cost.

use std::fs::OpenOptions;
use std::io::Write;

/// One of two counts.
pub fn count(usual: usize, soak: usize) -> usize {
    if std::env::var_os("SASLD_SOAK").is_some() { soak } else { usual }
}

/// Adds a row to the table: what, how often, for how long; then resident memory, its peak and descriptors, or dashes.
pub fn note(row: &str) {
    let Some(table) = std::env::var_os("SASLD_SOAK") else { return };
    let mut table = OpenOptions::new().append(true).create(true).open(table).unwrap();
    if table.metadata().unwrap().len() == 0 {
        let head = "| what | times | time | resident | peak | descriptors |\n|---|--:|--:|---|--:|---|\n";
        table.write_all(head.as_bytes()).unwrap();
    }
    writeln!(table, "{row}").unwrap();
}
