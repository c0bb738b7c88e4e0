//! What is counted and remembered of attempts: for `sasld status`, `sasld why` and `metrics:`, never for a decision.
//!
//! Everything here is bounded, whoever knocks: [`Counts`] by the words there are, [`Rates`] by 15 minutes,
//! [`Offenders`] by 1,024 networks and [`Recent`] by 4,096 attempts; together less than 4 MiB. It lives in memory and
//! is gone at the end of the process. An attempt holds what its line in the log holds, and no password.
//!
//! Time is passed in. The server keeps one [`Tally`] behind a lock that is held for the moment of [`Tally::record`].
#![forbid(unsafe_code)]

pub mod counts;
pub mod offenders;
pub mod rates;
pub mod recent;

pub use counts::Counts;
pub use offenders::Offenders;
pub use rates::Rates;
pub use recent::{Recent, Remembered, Rules};

use crate::passdb::fair_queue::Prefix;
use crate::session::{Moment, Verdict};

/// See the module's head.
#[derive(Debug, Default)]
pub struct Tally {
    /// Since the start.
    pub counts: Counts,
    /// In the last minutes.
    pub rates: Rates,
    /// Whose attempts are refused.
    pub offenders: Offenders,
    /// The last attempts.
    pub recent: Recent,
}

impl Tally {
    /// Takes an attempt that is over. What it pushes out comes back, to be dropped where nobody waits for it.
    #[must_use = "dropping it takes a while, so do it without the lock"]
    pub fn record(&mut self, attempt: Remembered, now: Moment) -> Option<Remembered> {
        self.counts.add(&attempt);
        self.rates.add(Kind::from(attempt.attempt.verdict), now);
        if Kind::from(attempt.attempt.verdict) == Kind::Refused {
            self.offenders.add(Prefix::from(attempt.attempt.origin.remote), now);
        }
        self.recent.push(attempt)
    }
}

/// The four ways in which an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user is who he says.
    Ok,
    /// He is not, or made no sense.
    Refused,
    /// No verdict.
    Outage,
    /// The mail server left before the verdict.
    Abandoned,
}

impl From<Verdict> for Kind {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accepted => Self::Ok,
            Verdict::Refused(_) | Verdict::Rejected(_) => Self::Refused,
            Verdict::Outage(_) => Self::Outage,
            Verdict::Abandoned => Self::Abandoned,
        }
    }
}
