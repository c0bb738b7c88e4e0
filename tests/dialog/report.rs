//! Runs many dialogs at once and reports each one's fate.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Dialog;

/// Dialogs mostly wait, so many run beside each other.
const AT_ONCE: usize = 16;

/// What became of one dialog.
pub enum Fate {
    Passed,
    /// Not replayed, and why.
    Skipped(String),
    Failed(String),
}

/// Calls `play` for every dialog.
///
/// # Panics
/// When at least one failed; with all the reports.
pub fn all(title: &str, dialogs: &[Dialog], play: impl Fn(&Dialog) -> Fate + Sync) {
    let next = AtomicUsize::new(0);
    let fates = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(dialogs.len()) {
            scope.spawn(|| {
                while let Some(dialog) = dialogs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let fate = play(dialog);
                    fates.lock().expect("no report panics").push((dialog, fate));
                }
            });
        }
    });
    let mut failed = Vec::new();
    let mut skipped = Vec::new();
    for (dialog, fate) in fates.into_inner().expect("no report panics") {
        match fate {
            Fate::Passed => {}
            Fate::Skipped(why) => skipped.push(format!("{} ({why})", dialog.name)),
            Fate::Failed(report) => failed.push(report),
        }
    }
    aloud(&format!(
        "{title}: {} dialogs, {} replayed, {} skipped{}{}",
        dialogs.len(),
        dialogs.len() - skipped.len(),
        skipped.len(),
        if skipped.is_empty() { "" } else { ": " },
        skipped.join(", "),
    ));
    assert!(
        failed.is_empty(),
        "{} of {} dialogs failed\n\n{}",
        failed.len(),
        dialogs.len(),
        failed.join("\n")
    );
}

/// Says something on standard error that the test harness does not swallow when the test passes.
pub fn aloud(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
