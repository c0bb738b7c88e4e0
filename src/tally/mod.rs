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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::{Claimed, Mechanism, NameRules, Outage, Refusal};
    use crate::session::{Attempt, Origin};
    use crate::wire::Secured;
    use core::time::Duration;
    use std::sync::Arc;

    fn attempt(number: u32, service: &str, verdict: Verdict) -> Remembered {
        let name = NameRules::default().canonical(format!("user{}", number % 3).as_bytes()).unwrap();
        let remote = Some(number.to_be_bytes().into());
        let attempt = Attempt {
            ticket: None,
            verdict,
            claimed: Claimed::Name(name),
            mechanism: Some(Mechanism::Plain),
            origin: Origin { service: Arc::from(service.as_bytes()), remote, secured: Secured::Yes },
            client_pid: 1,
            elapsed: Duration::from_millis(1),
        };
        let rules = Rules { section: true, require_tls: true, allow_nets: false };
        Remembered { at: Moment(Duration::from_secs(u64::from(number))), attempt, rules, trail: None }
    }

    #[test]
    fn whatever_comes_it_stays_bounded_and_the_latest_is_there() {
        let mut tally = Tally::default();
        for number in 0..10_000 {
            let service = format!("service{number}");
            let verdict = Verdict::Refused(Refusal::WrongPassword);
            let forgotten = tally.record(attempt(number, &service, verdict), Moment(Duration::ZERO));
            assert_eq!(forgotten.is_some(), number as usize >= recent::CAPACITY);
        }
        let (remembered, oldest) = tally.recent.reach();
        assert_eq!(remembered, recent::CAPACITY);
        assert_eq!(oldest, Some(Moment(Duration::from_secs(10_000 - recent::CAPACITY as u64))));
        let last = tally.recent.of(&["user0"], 2);
        let times: Vec<u64> = last.iter().map(|attempt| attempt.at.0.as_secs()).collect();
        assert_eq!(times, [9_996, 9_999], "the newest last");
        let counts = tally.counts.by_label();
        assert_eq!(counts.len(), 257, "256 services, and one for all others");
        assert_eq!(counts.values().sum::<u64>(), 10_000);
    }

    #[test]
    fn every_ending_is_counted_under_its_words() {
        let mut tally = Tally::default();
        for verdict in [
            Verdict::Accepted,
            Verdict::Rejected("base64"),
            Verdict::Outage(Outage::Deadline),
            Verdict::Outage(Outage::Deadline),
            Verdict::Abandoned,
        ] {
            let _ = tally.record(attempt(1, "smtp", verdict), Moment(Duration::ZERO));
        }
        let counts: Vec<_> = tally
            .counts
            .by_label()
            .into_iter()
            .map(|(label, count)| (label.result, label.why, count))
            .collect();
        assert_eq!(
            counts,
            [
                ("abandoned", None, 1),
                ("ok", None, 1),
                ("outage", Some("deadline"), 2),
                ("refused", Some("base64"), 1),
            ]
        );
        assert_eq!(tally.rates.within(Duration::from_secs(60), Moment(Duration::ZERO)), [1, 1, 2, 1]);
        assert_eq!(
            tally.offenders.busiest(2, Moment(Duration::ZERO)).len(),
            1,
            "an outage is nobody's offence"
        );
    }
}
