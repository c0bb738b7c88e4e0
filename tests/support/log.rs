//! A log as it is written: collected line by line, and a place to wait for a line.
//!
//! Waiting ends with the line, with the log, or after a time that only a broken test needs; then the whole log is
//! part of the message.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// The lines so far, shared with the thread that reads them.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    passed: usize,
    ended: bool,
}

impl Log {
    /// Collects what comes from `source` until it ends.
    pub fn follow(source: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let writer = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                writer.change(|log| log.lines.push(String::from_utf8_lossy(&line).into_owned()));
            }
            writer.change(|log| log.ended = true);
        });
        log
    }

    /// From now on only lines that are still to come count.
    pub fn forget(&self) {
        self.change(|log| log.passed = log.lines.len());
    }

    /// Blocks until some line, old or new, contains all of these.
    pub fn wait_for(&self, parts: &[&str]) {
        let (lines, changed) = &*self.0;
        let fits = |line: &String| parts.iter().all(|part| line.contains(part));
        let found = |log: &Lines| log.lines[log.passed..].iter().any(fits);
        let (log, _) = changed
            .wait_timeout_while(lines.lock().unwrap(), PATIENCE, |log| !found(log) && !log.ended)
            .unwrap();
        assert!(found(&log), "no line with {parts:?} in this log:\n{}", log.lines.join("\n"));
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        let (lines, changed) = &*self.0;
        change(&mut lines.lock().unwrap());
        changed.notify_all();
    }
}
