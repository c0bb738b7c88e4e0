//! What a daemon uses, before and after something that is done often.

use crate::site::{Daemon, wait_until};
use crate::support::soak::note;
use std::fs;
use std::time::Instant;

pub use crate::support::soak::count;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub resident_kib: u64,
    pub peak_kib: u64,
    pub descriptors: usize,
}

impl Cost {
    pub fn of(daemon: &Daemon) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Self { resident_kib: kib("VmRSS:"), peak_kib: kib("VmHWM:"), descriptors: descriptors(daemon) }
    }
}

pub fn descriptors(daemon: &Daemon) -> usize {
    // Its descriptors belong to root, for it is not dumpable: others can only ask itself.
    match fs::read_dir(format!("/proc/{}/fd", daemon.pid())) {
        Ok(entries) => entries.count(),
        Err(_) => 0,
    }
}

/// What something costs that is done `times` times: begins now.
pub struct Account<'a> {
    daemon: &'a Daemon,
    before: Cost,
    start: Instant,
}

impl<'a> Account<'a> {
    pub fn open(daemon: &'a Daemon) -> Self {
        Self { daemon, before: Cost::of(daemon), start: Instant::now() }
    }

    /// Everything is as it was before, but for so much memory.
    pub fn close(self, what: &str, times: usize, growth_kib: u64) {
        let seconds = self.start.elapsed().as_secs_f64();
        let before = self.before;
        // It hears of a client's leaving a moment later; at the beginning it may not have heard of somebody's yet.
        wait_until("no more descriptors than before", || descriptors(self.daemon) <= before.descriptors);
        let after = Cost::of(self.daemon);
        note(&format!(
            "| {what} | {times} | {seconds:.1} s | {} → {} KiB | {} KiB | {} → {} |",
            before.resident_kib, after.resident_kib, after.peak_kib, before.descriptors, after.descriptors
        ));
        let limit = before.resident_kib + growth_kib;
        assert!(after.resident_kib <= limit, "{what}: {before:?} became {after:?}");
    }
}
