//! Who logged in lately, and from which network.
//!
//! Nothing but a keyed hash of name and network is kept, and of passwords nothing at all; it lives in memory and is
//! gone at the end of the process. Two generations of bounded size: when the young one is full or old, it becomes the
//! old one, and what the old one held is forgotten. Whoever logs in now and then is never forgotten.

use crate::passdb::fair_queue::Prefix;
use crate::sasl::Name;
use crate::session::Moment;
use core::time::Duration;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Logins in one generation; both together take some 2 MiB.
const GENERATION: usize = 50_000;

/// After so long a generation is old: logins are remembered for one to two weeks.
const GENERATION_AGE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// See the module's head.
#[derive(Default)]
pub struct Lately {
    hasher: RandomState,
    young: HashSet<u64>,
    old: HashSet<u64>,
    young_since: Option<Moment>,
}

impl Lately {
    /// Somebody logged in.
    pub fn remember(&mut self, name: &Name, prefix: Prefix, now: Moment) {
        if prefix == Prefix::Unknown {
            // Everybody could be there.
            return;
        }
        self.age(now);
        let login = self.hasher.hash_one((name, prefix));
        self.young.insert(login);
    }

    /// Whether he logged in from there lately.
    pub fn knows(&mut self, name: &Name, prefix: Prefix, now: Moment) -> bool {
        self.age(now);
        let login = self.hasher.hash_one((name, prefix));
        self.young.contains(&login) || self.old.contains(&login)
    }

    fn age(&mut self, now: Moment) {
        let since = *self.young_since.get_or_insert(now);
        if self.young.len() >= GENERATION || now >= since + GENERATION_AGE {
            self.old = std::mem::take(&mut self.young);
            self.young_since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::NameRules;

    fn name(text: &str) -> Name {
        NameRules::default().canonical(text.as_bytes()).unwrap()
    }

    const HOME: Prefix = Prefix::V4([192, 0, 2, 1]);
    const CAFE: Prefix = Prefix::V4([198, 51, 100, 1]);

    fn day(day: u64) -> Moment {
        Moment(Duration::from_secs(day * 24 * 3_600))
    }

    #[test]
    fn a_login_counts_for_this_name_from_this_network() {
        let mut lately = Lately::default();
        lately.remember(&name("alice"), HOME, day(0));
        assert!(lately.knows(&name("alice"), HOME, day(0)));
        assert!(!lately.knows(&name("alice"), CAFE, day(0)));
        assert!(!lately.knows(&name("bob"), HOME, day(0)));
        lately.remember(&name("alice"), Prefix::Unknown, day(0));
        assert!(!lately.knows(&name("alice"), Prefix::Unknown, day(0)));
    }

    #[test]
    fn it_is_forgotten_after_one_to_two_weeks() {
        let mut lately = Lately::default();
        lately.remember(&name("alice"), HOME, day(0));
        assert!(lately.knows(&name("alice"), HOME, day(7)));
        lately.remember(&name("bob"), HOME, day(8));
        assert!(!lately.knows(&name("alice"), HOME, day(14)));
        assert!(lately.knows(&name("bob"), HOME, day(14)));
    }

    #[test]
    fn it_is_bounded_and_keeps_who_comes_back() {
        let mut lately = Lately::default();
        for user in 0..3 * GENERATION {
            lately.remember(&name(&format!("user{user}")), HOME, day(0));
            if user % 10_000 == 0 {
                lately.remember(&name("alice"), HOME, day(0));
            }
        }
        assert!(lately.young.len() + lately.old.len() <= 2 * GENERATION + 1);
        assert!(lately.knows(&name("alice"), HOME, day(0)));
        assert!(!lately.knows(&name("user0"), HOME, day(0)));
    }
}
