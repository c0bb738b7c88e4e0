//! The same number measured in several rounds, and what a table says of it: the median and the range.
//!
//! Ratios are taken round by round, between neighbours in time, so that a machine that slows down for a while slows
//! both sides. A server that was left out has empty series, which print as a dash and meet no goal.

use std::time::Duration;

use crate::server::Kind;

#[derive(Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn push_micros(&mut self, value: Duration) {
        self.push(value.as_secs_f64() * 1e6);
    }

    pub fn push_millis(&mut self, value: Duration) {
        self.push(value.as_secs_f64() * 1e3);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = sorted[(sorted.len() - 1) / 2];
        Some(f64::midpoint(lower, upper))
    }

    pub fn max(&self) -> Option<f64> {
        self.sorted().last().copied()
    }

    /// This divided by `other`, round by round.
    pub fn ratio(&self, other: &Self) -> Self {
        Self(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(ours, theirs)| ours / theirs)
                .collect(),
        )
    }

    /// `median (lowest–highest)`.
    pub fn cell(&self, decimals: usize) -> String {
        let sorted = self.sorted();
        match (self.median(), sorted.as_slice()) {
            (Some(median), [low, .., high]) => {
                format!("{median:.decimals$} ({low:.decimals$}–{high:.decimals$})")
            }
            (Some(only), _) => format!("{only:.decimals$}"),
            (None, _) => "–".to_owned(),
        }
    }

    /// [`Self::cell`] with its goal and whether the median meets it.
    pub fn at_most(&self, goal: f64, decimals: usize) -> String {
        judged(
            self.cell(decimals),
            &format!("≤ {goal}"),
            self.median().map(|median| median <= goal),
        )
    }

    pub fn at_least(&self, goal: f64, decimals: usize) -> String {
        judged(
            self.cell(decimals),
            &format!("≥ {goal}"),
            self.median().map(|median| median >= goal),
        )
    }
}

/// A result beside its goal: `7.1; goal ≥ 6: met`.
pub fn judged(result: String, goal: &str, met: Option<bool>) -> String {
    match met {
        Some(true) => format!("{result}; goal {goal}: met"),
        Some(false) => format!("{result}; goal {goal}: **missed**"),
        None => result,
    }
}

/// One series per server.
#[derive(Default)]
pub struct Results {
    pub sasld: Series,
    pub dovecot: Series,
    pub floor: Series,
}

impl Results {
    pub fn of(&mut self, kind: Kind) -> &mut Series {
        match kind {
            Kind::Sasld => &mut self.sasld,
            Kind::Dovecot => &mut self.dovecot,
            Kind::Floor => &mut self.floor,
        }
    }
}
