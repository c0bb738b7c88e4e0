//! The power fails: at every moment of a rewrite, and whatever of it had not reached the disk by then is lost.

use std::fs;
use std::process::Command;

use super::faults::{self, Change, can_trace, put};
use super::place::{Place, code, err};
use super::short;
use super::support::power::{Disk, Node, OPTIONS, Step, after, cut_everywhere, steps};

/// A rewrite, byte by byte, so that there is more to lose.
fn record(place: &Place, change: &Change) -> (Disk, Vec<Step>) {
    put(place, change.old.as_deref());
    let trace = place.directory.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o"]).arg(&trace).args(OPTIONS);
    let output = short::run(place, change, 0, Some(strace));
    assert_eq!(code(&output), 0, "{}", err(&output));
    let mut before = Disk::new(place.directory.path());
    if let Some(old) = &change.old {
        before = before.with(&place.file(), Node::File(0), old.as_bytes());
    }
    let steps = steps(&fs::read_to_string(trace).unwrap(), &before);
    (before, steps)
}

/// Cuts the power everywhere: how often, and how often that left neither the old file nor the new one, or not the new
/// one after the end.
fn cut(place: &Place, change: &Change, before: &Disk, steps: &[Step]) -> (usize, usize) {
    let file = place.file();
    let after = after(before, steps);
    let new = after.file(&file).expect("a new file");
    assert_eq!(new.bytes, change.new.as_bytes());
    let mut bad = 0;
    let cuts = cut_everywhere(before, steps, |done, disk| {
        let found = disk.file(&file);
        let is_old = found == before.file(&file);
        bad += usize::from(found != Some(new) && (!is_old || done == steps.len()));
    });
    (cuts, bad)
}

#[test]
fn no_power_cut_loses_anything_and_what_was_reported_is_on_the_disk() {
    if !can_trace() {
        return;
    }
    let mut all = 0;
    for change in faults::all() {
        let place = Place::empty();
        let (before, steps) = record(&place, &change);
        let (cuts, bad) = cut(&place, &change, &before, &steps);
        assert_eq!(bad, 0, "of {cuts}: {:?}: {steps:?}", change.arguments);
        all += cuts;
    }
    assert!(all > 1_000, "{all}");
    eprintln!("{all} power cuts");
}

#[test]
fn a_rewrite_without_one_of_its_fsyncs_would_lose_something() {
    if !can_trace() {
        return;
    }
    let change = faults::passwd();
    let place = Place::empty();
    let (before, steps) = record(&place, &change);
    let flushes: Vec<usize> = (0..steps.len()).filter(|&index| steps[index].is_flush()).collect();
    assert_eq!(flushes.len(), 2);
    let would_lose = |steps: &[Step]| cut(&place, &change, &before, steps).1 > 0;
    for &flush in &flushes {
        let mut without = steps.clone();
        without.remove(flush);
        assert!(would_lose(&without), "nobody would miss {:?}", steps[flush]);
    }
    // Nor is it enough after the rename.
    let mut late = steps.clone();
    late.swap(flushes[0], flushes[0] + 1);
    assert!(matches!(late[flushes[0]], Step::Rename(..)) && would_lose(&late));
}
