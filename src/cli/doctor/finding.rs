//! What a probe found: how bad it is, where, what, why that matters, and what to type.

use std::fmt::Display;

/// How bad it is, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Could not look, or was not asked to.
    Skipped,
    /// Works, and could be better or is worth knowing.
    Note,
    /// Works for some, or not safely.
    Warning,
    /// Does not work, or lets the wrong people in.
    Error,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// The service or file; empty if it is about everything.
    pub place: String,
    /// What is the case.
    pub what: String,
    /// What comes of it.
    pub why: String,
    /// What mends it: commands for a shell, in this order.
    pub fix: Vec<String>,
}

impl Level {
    /// In the report and in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Skipped => "-",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Finding {
    fn new(level: Level, what: impl Display) -> Self {
        let what = what.to_string();
        Self { level, place: String::new(), what, why: String::new(), fix: Vec::new() }
    }

    /// It does not work, or lets the wrong people in.
    pub fn error(what: impl Display) -> Self {
        Self::new(Level::Error, what)
    }

    /// It works for some, or not safely.
    pub fn warning(what: impl Display) -> Self {
        Self::new(Level::Warning, what)
    }

    /// It works, and could be better.
    pub fn note(what: impl Display) -> Self {
        Self::new(Level::Note, what)
    }

    /// The probe could not look.
    pub fn skipped(what: impl Display) -> Self {
        Self::new(Level::Skipped, what)
    }

    /// Where.
    pub fn at(mut self, place: impl Display) -> Self {
        self.place = place.to_string();
        self
    }

    /// What comes of it.
    pub fn why(mut self, why: impl Display) -> Self {
        self.why = why.to_string();
        self
    }

    /// A command that mends it; several, if called again.
    pub fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix.push(command.into());
        self
    }
}
