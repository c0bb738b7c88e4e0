//! What the operator should know about single lines: kept for the log, `sasld check` and `sasld user list`.
//!
//! A file can have a million broken lines, so only the first thousand keep their text and the others are counted.
//! Names are escaped and reasons never hold any part of a password field.

use core::fmt;

/// How many are kept with their text.
pub(super) const MAX_LISTED: usize = 1_000;

/// Something about one line that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// The user, [escaped](super::escape); `None` when the name itself cannot be read.
    pub name: Option<String>,
    /// What is wrong, without any part of a secret.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "line {} ({name}): {}", self.line, self.reason),
            None => write!(f, "line {}: {}", self.line, self.reason),
        }
    }
}

/// Problems in the order of their lines; as many with text as there is room for.
#[derive(Debug)]
pub struct Problems {
    listed: Vec<Problem>,
    total: usize,
    room: usize,
}

impl Problems {
    pub(super) fn with_room(room: usize) -> Self {
        Self { listed: Vec::new(), total: 0, room }
    }

    /// Those that were kept with their text.
    pub fn listed(&self) -> &[Problem] {
        &self.listed
    }

    /// All, including those that were only counted.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The text is only made if it will be kept.
    pub(super) fn add(&mut self, problem: impl FnOnce() -> Problem) {
        self.total += 1;
        if self.listed.len() < self.room {
            self.listed.push(problem());
        }
    }

    /// Adds problems without a text.
    pub(super) fn count(&mut self, more: usize) {
        self.total += more;
    }

    /// Puts them into the order of the lines.
    pub(super) fn sort(&mut self) {
        self.listed.sort_by_key(|problem| problem.line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_its_line_and_its_user_if_there_is_one() {
        let mut problem =
            Problem { line: 7, name: Some("alice".to_owned()), reason: "no {SCHEME}".to_owned() };
        assert_eq!(problem.to_string(), "line 7 (alice): no {SCHEME}");
        problem.name = None;
        assert_eq!(problem.to_string(), "line 7: no {SCHEME}");
    }
}
