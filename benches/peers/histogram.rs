//! A histogram of latencies with a fixed size and an error below 1.6 %, whatever the range.
//!
//! Each power of two is divided into 64 equal parts, so recording is a shift and an addition. The smallest and the
//! largest value are kept exactly: the slowest request of a run is a result of its own.

use std::time::Duration;

/// Parts per power of two.
const PARTS: u64 = 64;
/// Enough for 2^40 ns, 18 minutes; slower values count as that.
const BUCKETS: usize = 36 * 64;

#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    slowest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, slowest: Duration::ZERO }
    }
}

impl Histogram {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.slowest = self.slowest.max(latency);
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(ours, theirs)| *ours += theirs);
        self.total += other.total;
        self.slowest = self.slowest.max(other.slowest);
    }

    pub fn slowest(&self) -> Duration {
        self.slowest
    }

    /// The latency that `percent` of all requests did not exceed, rounded up to the end of its bucket. Zero when
    /// nothing was recorded.
    pub fn percentile(&self, percent: f64) -> Duration {
        let mut seen = 0.0;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += count as f64;
            if count > 0 && seen >= self.total as f64 * percent / 100.0 {
                return Duration::from_nanos(upper_end(index)).min(self.slowest);
            }
        }
        self.slowest
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(7);
    let index = u64::from(shift) * PARTS + (nanos >> shift);
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * PARTS {
        return index;
    }
    let shift = index / PARTS - 1;
    ((index % PARTS + PARTS + 1) << shift) - 1
}
