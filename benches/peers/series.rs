//! The same number measured in several rounds, and what a table says of it: the median and the range.
//!
//! Ratios are taken round by round, between neighbours in time, so that a machine that slows down for a while slows
//! both sides. A server that was left out has empty series, which print as a dash and meet no goal.

use std::{collections::BTreeMap, time::Duration};

use crate::server::Kind;

#[derive(Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
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

    /// This divided by `other`, round by round.
    pub fn ratio(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours / theirs).collect())
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
        judged(&self.cell(decimals), &format!("≤ {goal}"), self.median().map(|median| median <= goal))
    }

    pub fn at_least(&self, goal: f64, decimals: usize) -> String {
        judged(&self.cell(decimals), &format!("≥ {goal}"), self.median().map(|median| median >= goal))
    }
}

/// A result and its goal: `7.1, goal ≥ 6: met`. Without a judgement, the result alone.
pub fn judged(result: &str, goal: &str, met: Option<bool>) -> String {
    let separator = if result.is_empty() { "" } else { ", goal " };
    match met {
        Some(true) => format!("{result}{separator}{goal}: met"),
        Some(false) => format!("{result}{separator}{goal}: **missed**"),
        None => result.to_owned(),
    }
}

/// One series per server.
#[derive(Default)]
pub struct Results(BTreeMap<Kind, Series>);

impl Results {
    pub fn push(&mut self, kind: Kind, value: f64) {
        self.0.entry(kind).or_default().0.push(value);
    }

    pub fn push_micros(&mut self, kind: Kind, value: Duration) {
        self.push(kind, value.as_secs_f64() * 1e6);
    }

    pub fn push_millis(&mut self, kind: Kind, value: Duration) {
        self.push(kind, value.as_secs_f64() * 1e3);
    }

    /// Empty if that server was not measured.
    pub fn of(&self, kind: Kind) -> Series {
        self.0.get(&kind).cloned().unwrap_or_default()
    }
}
