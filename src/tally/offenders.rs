//! Which networks' attempts are refused most, lately: an IPv4 address or an IPv6 /64 each, 1,024 at most.
//!
//! A refusal weighs one and half as much ten minutes later. When the table is full, a newcomer takes the place of
//! the lightest of the next few entries, so a flood of networks that try once each pushes out its like and hardly
//! anybody who tries a hundred times. Attempts without an address are nobody's.

use crate::passdb::fair_queue::Prefix;
use crate::session::Moment;
use core::time::Duration;
use std::collections::HashMap;

/// Networks in the table: some 100 KiB.
pub const CAPACITY: usize = 1_024;

/// When a refusal weighs half.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// How many entries are compared when one has to go.
const COMPARED: usize = 16;

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Offenders {
    entries: Vec<Offender>,
    places: HashMap<Prefix, usize>,
    /// Where the next comparison begins.
    hand: usize,
}

/// One network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offender {
    /// Which.
    pub network: Prefix,
    /// Refused attempts since it came into the table.
    pub refusals: u64,
    /// The last of them.
    pub last: Moment,
    /// The weight of all of them at the time of the last.
    weight: f64,
}

impl Offender {
    /// What its refusals weigh now.
    #[must_use]
    pub fn weight(&self, now: Moment) -> f64 {
        let age = now.0.saturating_sub(self.last.0);
        self.weight * (-(age.as_secs_f64() / HALF_LIFE.as_secs_f64())).exp2()
    }
}

impl Offenders {
    /// An attempt from there was refused.
    pub fn add(&mut self, network: Prefix, now: Moment) {
        if network == Prefix::Unknown {
            return;
        }
        let new = Offender { network, refusals: 1, last: now, weight: 1.0 };
        if let Some(&place) = self.places.get(&network) {
            let entry = &mut self.entries[place];
            let weight = entry.weight(now) + 1.0;
            *entry = Offender { refusals: entry.refusals + 1, weight, ..new };
        } else if self.entries.len() < CAPACITY {
            self.places.insert(network, self.entries.len());
            self.entries.push(new);
        } else {
            let place = self.lightest(now);
            self.places.remove(&self.entries[place].network);
            self.places.insert(network, place);
            self.entries[place] = new;
        }
    }

    /// Those whose refusals weigh most now, the heaviest first. Takes a while: ask a clone.
    #[must_use]
    pub fn busiest(&self, count: usize, now: Moment) -> Vec<Offender> {
        let mut busiest = self.entries.clone();
        busiest.sort_by(|one, other| other.weight(now).total_cmp(&one.weight(now)));
        busiest.truncate(count);
        busiest
    }

    /// The place of the lightest of the next [`COMPARED`] entries of a full table.
    fn lightest(&mut self, now: Moment) -> usize {
        let candidates = (0..COMPARED).map(|step| (self.hand + step) % CAPACITY);
        let weight = |place: &usize| self.entries[*place].weight(now);
        let lightest = candidates.min_by(|one, other| weight(one).total_cmp(&weight(other)));
        self.hand = (self.hand + COMPARED) % CAPACITY;
        lightest.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> Prefix {
        Prefix::V4(number.to_be_bytes())
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn who_offends_now_is_before_who_offended_more_an_hour_ago() {
        let mut offenders = Offenders::default();
        for _ in 0..100 {
            offenders.add(v4(1), at(0));
        }
        for _ in 0..5 {
            offenders.add(v4(2), at(3_600));
        }
        let networks = |now| offenders.busiest(2, now).iter().map(|entry| entry.network).collect::<Vec<_>>();
        assert_eq!(networks(at(3_600)), [v4(2), v4(1)], "100 weigh less than 2 after six half-lives");
        assert_eq!(offenders.busiest(1, at(3_600))[0].refusals, 5);
    }

    #[test]
    fn a_flood_of_networks_that_try_once_pushes_out_no_busy_one() {
        let mut offenders = Offenders::default();
        for busy in 0..8 {
            for _ in 0..50 {
                offenders.add(v4(busy), at(1));
            }
        }
        for network in 100..100_000 {
            offenders.add(v4(network), at(2));
        }
        assert_eq!(offenders.entries.len(), CAPACITY);
        assert_eq!(offenders.places.len(), CAPACITY);
        let mut busiest: Vec<_> = offenders.busiest(8, at(2)).iter().map(|entry| entry.network).collect();
        busiest.sort_by_key(|network| format!("{network:?}"));
        assert_eq!(busiest, (0..8).map(v4).collect::<Vec<_>>());
    }

    #[test]
    fn an_attempt_without_an_address_is_nobodys() {
        let mut offenders = Offenders::default();
        offenders.add(Prefix::Unknown, at(0));
        assert!(offenders.busiest(1, at(0)).is_empty());
    }
}
