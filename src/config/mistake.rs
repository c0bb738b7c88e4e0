//! What can be wrong with a configuration, and how it is told.
//!
//! A [`Mistake`] names file, line, column and key, says what is wrong and what is expected, and fits
//! on one line. A [`ConfigError`] separates the three ways of having no configuration, because they
//! end in different exit codes: not there (78), not allowed to read it (77), wrong (78). The
//! operator hears of all mistakes at once, from `sasld check`, at start, or in the log at a reload.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A position in a file; both numbers start at 1, columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

/// One thing to mend. `Display` is `file:line:column: key: what`, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file to edit.
    pub file: PathBuf,
    /// Where in it; `None` when it is about the whole file or about a default.
    pub place: Option<Place>,
    /// The key, with the ones it lies in: `listeners[0].mode`; empty when it is about the file.
    pub key: String,
    /// What is wrong and what is expected instead.
    pub what: String,
}

impl Mistake {
    /// A mistake about a file as a whole.
    pub(super) fn of_file(file: &Path, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, key: String::new(), what: what.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("{}: no such file", path.display())]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// A file or the folder `conf.d` is there and cannot be read.
    #[error("{}: {call}: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system call.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Everything that is wrong, in the order of files and lines; never empty. `Display` has one
    /// line for each.
    #[error("{}", one_per_line(.0))]
    Invalid(Vec<Mistake>),
}

fn one_per_line(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    lines.join("\n")
}

/// `text` as it is shown in a message: between backquotes, without control characters, not long.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 64;
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let shown: String = text.chars().take(MOST).map(visible).collect();
    let more = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    format!("`{shown}{more}`")
}
