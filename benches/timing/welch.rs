//! Two classes of times, and whether they differ.

use std::time::Duration;

/// What dudect takes for a difference.
pub const LIMIT: f64 = 4.5;

/// Where slow outliers are cut: the times kept, per thousand.
const CUTS: [usize; 6] = [500, 750, 900, 990, 999, 1_000];

/// Times by class.
pub struct Samples(Vec<(bool, f64)>);

impl Samples {
    pub fn with_capacity(samples: usize) -> Self {
        Self(Vec::with_capacity(samples))
    }

    pub fn add(&mut self, class: bool, took: Duration) {
        self.0.push((class, took.as_secs_f64()));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The median of each class, in nanoseconds.
    pub fn median_nanos(&self) -> [f64; 2] {
        [false, true].map(|wanted| {
            let class = self.0.iter().filter(|(class, _)| *class == wanted);
            let mut times: Vec<f64> = class.map(|(_, time)| *time * 1e9).collect();
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or_default()
        })
    }

    /// The largest |t| over all cuts.
    pub fn largest_t(&self) -> f64 {
        let mut times: Vec<f64> = self.0.iter().map(|(_, time)| *time).collect();
        times.sort_by(f64::total_cmp);
        let at = |kept: usize| times[(times.len() * kept / 1_000).min(times.len() - 1)];
        CUTS.iter().map(|kept| self.t(at(*kept)).abs()).fold(0.0, f64::max)
    }

    /// Welch's t of the times up to `limit`.
    fn t(&self, limit: f64) -> f64 {
        let class = |wanted| {
            let times = self.0.iter().filter(move |(class, time)| *class == wanted && *time <= limit);
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for (_, time) in times {
                count += 1.0;
                let off = time - mean;
                mean += off / count;
                squares += off * (time - mean);
            }
            (mean, squares / (count - 1.0) / count)
        };
        let ((one, one_error), (other, other_error)) = (class(false), class(true));
        let error = (one_error + other_error).sqrt();
        if error > 0.0 { (one - other) / error } else { 0.0 }
    }
}

/// Numbers and fair coins, the same in every run (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        Self(1)
    }

    pub fn coin(&mut self) -> bool {
        self.number() >> 63 == 1
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
