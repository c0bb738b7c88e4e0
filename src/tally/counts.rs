//! Attempts since the start: how many ended how, by which mechanism, of which service; and how long verdicts took.
//!
//! Services are counted apart if the configuration has a section for them, all others together, so that nobody can
//! make the table grow. A lookup compares a handful of words, the most frequent ones first in practice.

use super::recent::Remembered;
use crate::sasl::Mechanism;
use crate::session::Verdict;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Services that are counted apart, however many the configuration has had since the start.
const MAX_SERVICES: usize = 256;

/// Upper bounds of the histogram's buckets, in seconds; the last one has none.
pub const BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.001, 0.0025, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 9.0];

/// See the module's head.
#[derive(Debug, Default)]
pub struct Counts {
    /// Attempts of services with a section of their own.
    sections: BTreeMap<Arc<[u8]>, Vec<Count>>,
    others: Vec<Count>,
    times: Vec<(Mechanism, Histogram)>,
}

#[derive(Debug)]
struct Count {
    verdict: Verdict,
    mechanism: Option<Mechanism>,
    count: u64,
}

/// How long verdicts took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Histogram {
    /// In each bucket alone, those beyond all bounds last.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// Of all together.
    pub sum: Duration,
}

/// The words that attempts are counted by: those of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// `ok`, `refused`, `outage` or `abandoned`.
    pub result: &'static str,
    /// Why, if the result has a reason.
    pub why: Option<&'static str>,
    /// The mechanism, if one was on offer.
    pub mechanism: Option<&'static str>,
    /// The section of `services`, if it has one.
    pub service: Option<String>,
}

impl Counts {
    /// One more.
    pub(super) fn add(&mut self, remembered: &Remembered) {
        let attempt = &remembered.attempt;
        if let (Some(mechanism), true) = (attempt.mechanism, remembered.trail.is_some()) {
            self.time(mechanism, attempt.elapsed);
        }
        let service = &attempt.origin.service;
        let has_room = || self.sections.len() < MAX_SERVICES || self.sections.contains_key(service);
        let counts = if remembered.rules.section && has_room() {
            self.sections.entry(Arc::clone(service)).or_default()
        } else {
            &mut self.others
        };
        let (verdict, mechanism) = (attempt.verdict, attempt.mechanism);
        match counts.iter_mut().find(|count| count.verdict == verdict && count.mechanism == mechanism) {
            Some(count) => count.count += 1,
            None => counts.push(Count { verdict, mechanism, count: 1 }),
        }
    }

    fn time(&mut self, mechanism: Mechanism, elapsed: Duration) {
        let place = self.times.iter().position(|(of, _)| *of == mechanism).unwrap_or_else(|| {
            self.times.push((mechanism, Histogram::default()));
            self.times.len() - 1
        });
        let histogram = &mut self.times[place].1;
        let seconds = elapsed.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        histogram.buckets[bucket] += 1;
        histogram.sum += elapsed;
    }

    /// Every count, under its words.
    #[must_use]
    pub fn by_label(&self) -> BTreeMap<Label, u64> {
        let name = |section: &[u8]| String::from_utf8_lossy(section).into_owned();
        let sections = self.sections.iter().map(|(section, counts)| (Some(name(section)), counts));
        let mut labelled = BTreeMap::new();
        for (service, counts) in sections.chain([(None, &self.others)]) {
            for count in counts {
                let (result, why) = count.verdict.words();
                let mechanism = count.mechanism.map(Mechanism::name);
                let label = Label { result, why, mechanism, service: service.clone() };
                // Several reasons for a bad name are one word.
                *labelled.entry(label).or_default() += count.count;
            }
        }
        labelled
    }

    /// How long attempts took of which a passdb was asked, by mechanism.
    #[must_use]
    pub fn times(&self) -> &[(Mechanism, Histogram)] {
        &self.times
    }
}
