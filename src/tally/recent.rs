//! The last attempts, with what led to each verdict: a ring of [`CAPACITY`].
//!
//! Names are as the log has them, so at most 255 bytes of what was typed; an attempt takes some 250 bytes besides, and
//! the ring 2 MiB if all names are that long.

use crate::passdb::trail::Steps;
use crate::policy::Policy;
use crate::sasl::Claimed;
use crate::session::{Attempt, Moment};
use std::collections::VecDeque;

/// Attempts that are remembered.
pub const CAPACITY: usize = 4_096;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Recent {
    attempts: VecDeque<Remembered>,
}

/// An attempt that is over.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// When the verdict fell.
    pub at: Moment,
    /// What the log says about it.
    pub attempt: Attempt,
    /// The rules it was under.
    pub rules: Rules,
    /// What the passdbs said, if any was asked.
    pub trail: Option<Steps>,
}

/// What the configuration demands of one service's logins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The service has a section of its own in `services`.
    pub section: bool,
    /// PLAIN and LOGIN need TLS.
    pub require_tls: bool,
    /// Only some networks may log in.
    pub allow_nets: bool,
}

impl Rules {
    /// Those for this service.
    #[must_use]
    pub fn of(policy: &Policy, service: &[u8]) -> Self {
        let section = policy.section(service);
        let rules = section.unwrap_or(&policy.default_service);
        Self {
            section: section.is_some(),
            require_tls: rules.require_tls,
            allow_nets: rules.allow_nets.is_some(),
        }
    }
}

impl Recent {
    /// Adds one; the oldest comes back when there is no room.
    pub fn push(&mut self, attempt: Remembered) -> Option<Remembered> {
        let oldest = if self.attempts.len() >= CAPACITY { self.attempts.pop_front() } else { None };
        self.attempts.push_back(attempt);
        oldest
    }

    /// The last `count` of a user who goes by one of these names, the oldest first.
    #[must_use]
    pub fn of(&self, names: &[&str], count: usize) -> Vec<Remembered> {
        let is_his = |typed: &[u8]| names.iter().any(|name| name.as_bytes() == typed);
        let his = self.attempts.iter().rev().filter(|remembered| match &remembered.attempt.claimed {
            Claimed::Nobody => false,
            Claimed::Name(name) => is_his(name.as_str().as_bytes()),
            Claimed::Typed(bytes) => is_his(bytes),
        });
        let mut last: Vec<Remembered> = his.take(count).cloned().collect();
        last.reverse();
        last
    }

    /// How many there are, and when the oldest was.
    #[must_use]
    pub fn reach(&self) -> (usize, Option<Moment>) {
        (self.attempts.len(), self.attempts.front().map(|oldest| oldest.at))
    }
}
