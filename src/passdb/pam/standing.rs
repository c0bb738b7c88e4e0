//! Who goes first: what is remembered of users and networks.
//!
//! Whoever logged in from a network lately is served before strangers, and a network from which no wrong password has
//! come lately before one that guesses. So somebody who logs in from a new place waits for nobody but others like him.
//!
//! What costs a worker as much as a wrong password counts like one: an attempt that nobody waited for to the end, that
//! took too long, or that a worker did not survive. And who is refused [`STRIKES`] times in a row is known no longer,
//! and neither is he whose checks took too long twice: somebody with one account could otherwise keep the workers of
//! those who are.
//!
//! Nothing but keyed hashes of names and networks is kept, and of passwords nothing at all; it lives in memory and is
//! gone at the end of the process.

use crate::pam::request::Trouble;
use crate::passdb::fair_queue::Prefix;
use crate::sasl::Name;
use crate::session::Moment;
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};

/// Logins are remembered for one to two weeks, and networks that guess for ten to twenty minutes.
const LOGIN_AGE: Duration = Duration::from_secs(7 * 24 * 3_600);
const REFUSAL_AGE: Duration = Duration::from_secs(600);

/// So many refusals in a row, without a login between them, and a known user is a stranger again until his next login. A
/// hand that mistypes gets it right by then; a program with an old password does not, and has no need to be fast.
const STRIKES: u8 = 5;

/// What a check that takes too long counts for. It keeps a worker a hundred times as long as a refusal, and may be the
/// stack's fault: the second one is the last.
const TIMEOUT_STRIKES: u8 = 3;

/// Things in one generation; two generations take some 2 MiB.
const GENERATION: usize = 50_000;

/// Networks of one user in one generation: more than anybody logs in from in a week, but for those who want to push out
/// what is remembered of others.
const MAX_NETWORKS: u8 = 64;

/// Most users whose refusals are counted: those who can be known.
const MAX_STRUCK: usize = 2 * GENERATION;

/// How somebody is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// He logged in from there lately.
    Known,
    /// Nothing is known of him, and nothing bad of his network.
    Stranger,
    /// A wrong password came from his network lately, or something that cost as much.
    Guesser,
}

/// See the module's head.
pub struct Standings {
    hasher: RandomState,
    logins: Recent,
    refusals: Recent,
    /// Refusals since the last login, of those who are known.
    strikes: HashMap<u64, u8>,
}

impl Default for Standings {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            logins: Recent::new(LOGIN_AGE),
            refusals: Recent::new(REFUSAL_AGE),
            strikes: HashMap::new(),
        }
    }
}

impl Standings {
    /// How to serve this user from this network.
    pub fn of(&mut self, name: &Name, prefix: Prefix, now: Moment) -> Standing {
        if self.logins.contains(self.hash((name, prefix)), now) {
            Standing::Known
        } else if self.refusals.contains(self.hash(prefix), now) {
            Standing::Guesser
        } else {
            Standing::Stranger
        }
    }

    /// He has logged in.
    pub fn logged_in(&mut self, name: &Name, prefix: Prefix, now: Moment) {
        // Without an address everybody could have been it.
        if prefix != Prefix::Unknown {
            let login = self.hash((name, prefix));
            let owner = self.hash(name);
            self.logins.insert_for(owner, login, now);
            self.strikes.remove(&login);
        }
    }

    /// A login was refused, or nobody waited for its end.
    pub fn refused(&mut self, name: &Name, prefix: Prefix, now: Moment) {
        self.kept_a_worker(prefix, now);
        self.strike(1, name, prefix, now);
    }

    /// A login has no verdict. What it cost a worker may be the stack's fault, so a crash costs nobody his good name.
    pub fn came_to_grief(&mut self, trouble: Trouble, name: &Name, prefix: Prefix, now: Moment) {
        match trouble {
            Trouble::Timeout => {
                self.kept_a_worker(prefix, now);
                self.strike(TIMEOUT_STRIKES, name, prefix, now);
            }
            Trouble::Crashed => self.kept_a_worker(prefix, now),
            Trouble::Busy
            | Trouble::NoWorker
            | Trouble::NoService
            | Trouble::UserDatabase
            | Trouble::Rights
            | Trouble::Exhausted => {}
        }
    }

    fn kept_a_worker(&mut self, prefix: Prefix, now: Moment) {
        let network = self.hash(prefix);
        self.refusals.insert(network, now);
    }

    fn strike(&mut self, count: u8, name: &Name, prefix: Prefix, now: Moment) {
        let login = self.hash((name, prefix));
        if !self.logins.contains(login, now) {
            return;
        }
        if self.strikes.len() >= MAX_STRUCK {
            // Those whose logins were forgotten meanwhile are among them. The others begin anew.
            self.strikes.clear();
        }
        let strikes = self.strikes.entry(login).or_default();
        *strikes += count;
        if *strikes >= STRIKES {
            self.strikes.remove(&login);
            self.logins.remove(login);
        }
    }

    fn hash(&self, value: impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }
}

/// A set that forgets. Two generations of bounded size: when the young one is full or old, it becomes the old one, and
/// what the old one held is forgotten. What comes back is never forgotten.
struct Recent {
    young: HashSet<u64>,
    old: HashSet<u64>,
    /// How much of the young one belongs to whom.
    owned: HashMap<u64, u8>,
    since: Moment,
    age: Duration,
}

impl Recent {
    fn new(age: Duration) -> Self {
        let (young, old, owned) = (HashSet::new(), HashSet::new(), HashMap::new());
        Self { young, old, owned, since: Moment(Duration::ZERO), age }
    }

    fn insert(&mut self, hash: u64, now: Moment) {
        self.forget(now);
        self.young.insert(hash);
    }

    /// As [`insert`](Self::insert), unless the owner has had his share.
    fn insert_for(&mut self, owner: u64, hash: u64, now: Moment) {
        self.forget(now);
        let owned = self.owned.entry(owner).or_default();
        if *owned < MAX_NETWORKS && self.young.insert(hash) {
            *owned += 1;
        }
    }

    fn remove(&mut self, hash: u64) {
        self.young.remove(&hash);
        self.old.remove(&hash);
    }

    fn contains(&mut self, hash: u64, now: Moment) -> bool {
        self.forget(now);
        self.young.contains(&hash) || self.old.contains(&hash)
    }

    fn forget(&mut self, now: Moment) {
        if now >= self.since + self.age + self.age {
            self.young.clear();
        }
        if now >= self.since + self.age || self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.owned.clear();
            self.since = now;
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

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    const DAY: u64 = 24 * 3_600;

    #[test]
    fn a_login_counts_for_this_name_from_this_network() {
        let mut standings = Standings::default();
        standings.logged_in(&name("alice"), HOME, at(0));
        assert_eq!(standings.of(&name("alice"), HOME, at(1)), Standing::Known);
        assert_eq!(standings.of(&name("alice"), CAFE, at(1)), Standing::Stranger);
        assert_eq!(standings.of(&name("bob"), HOME, at(1)), Standing::Stranger);
        standings.logged_in(&name("alice"), Prefix::Unknown, at(0));
        assert_eq!(standings.of(&name("alice"), Prefix::Unknown, at(1)), Standing::Stranger);
    }

    #[test]
    fn a_refusal_counts_for_the_network_but_not_for_those_who_are_known_there() {
        let mut standings = Standings::default();
        standings.logged_in(&name("alice"), HOME, at(0));
        standings.refused(&name("alice"), HOME, at(0));
        assert_eq!(standings.of(&name("alice"), HOME, at(1)), Standing::Known);
        assert_eq!(standings.of(&name("bob"), HOME, at(1)), Standing::Guesser);
        assert_eq!(standings.of(&name("bob"), HOME, at(1_300)), Standing::Stranger);
    }

    #[test]
    fn what_a_worker_dies_of_counts_for_the_network_and_against_nobodys_name() {
        let mut standings = Standings::default();
        standings.logged_in(&name("alice"), HOME, at(0));
        for _ in 0..2 * STRIKES {
            standings.came_to_grief(Trouble::Crashed, &name("alice"), HOME, at(0));
        }
        assert_eq!(standings.of(&name("alice"), HOME, at(1)), Standing::Known);
        assert_eq!(standings.of(&name("bob"), HOME, at(1)), Standing::Guesser);
    }

    #[test]
    fn whose_checks_take_too_long_twice_is_known_no_longer_until_his_next_login() {
        let mut standings = Standings::default();
        for seconds in [0, 10] {
            // A login between them is a new beginning.
            standings.logged_in(&name("alice"), HOME, at(seconds));
            standings.came_to_grief(Trouble::Timeout, &name("alice"), HOME, at(seconds));
            assert_eq!(standings.of(&name("alice"), HOME, at(seconds)), Standing::Known);
        }
        assert_eq!(standings.of(&name("bob"), HOME, at(11)), Standing::Guesser);
        standings.came_to_grief(Trouble::Timeout, &name("alice"), HOME, at(12));
        assert_eq!(standings.of(&name("alice"), HOME, at(12)), Standing::Guesser);
        standings.logged_in(&name("alice"), HOME, at(13));
        assert_eq!(standings.of(&name("alice"), HOME, at(13)), Standing::Known);
    }

    #[test]
    fn who_is_refused_again_and_again_is_known_no_longer_until_his_next_login() {
        let mut standings = Standings::default();
        standings.logged_in(&name("alice"), HOME, at(0));
        for _ in 1..STRIKES {
            standings.refused(&name("alice"), HOME, at(0));
        }
        // Somebody else's refusals are his own business.
        standings.refused(&name("bob"), HOME, at(0));
        standings.refused(&name("alice"), CAFE, at(0));
        assert_eq!(standings.of(&name("alice"), HOME, at(1)), Standing::Known);
        standings.logged_in(&name("alice"), HOME, at(2));
        for _ in 0..STRIKES {
            assert_eq!(standings.of(&name("alice"), HOME, at(3)), Standing::Known);
            standings.refused(&name("alice"), HOME, at(3));
        }
        assert_eq!(standings.of(&name("alice"), HOME, at(4)), Standing::Guesser);
        standings.logged_in(&name("alice"), HOME, at(5));
        assert_eq!(standings.of(&name("alice"), HOME, at(6)), Standing::Known);
        assert!(standings.strikes.is_empty());
    }

    #[test]
    fn a_login_is_forgotten_after_one_to_two_weeks() {
        let mut standings = Standings::default();
        standings.logged_in(&name("alice"), HOME, at(DAY));
        assert_eq!(standings.of(&name("alice"), HOME, at(8 * DAY)), Standing::Known);
        standings.logged_in(&name("bob"), HOME, at(9 * DAY));
        assert_eq!(standings.of(&name("alice"), HOME, at(15 * DAY)), Standing::Stranger);
        assert_eq!(standings.of(&name("bob"), HOME, at(15 * DAY)), Standing::Known);
        assert_eq!(standings.of(&name("bob"), HOME, at(40 * DAY)), Standing::Stranger);
    }

    #[test]
    fn one_user_with_many_networks_pushes_nobody_out() {
        let mut standings = Standings::default();
        standings.logged_in(&name("alice"), HOME, at(DAY));
        let network = |number: usize| {
            let [.., a, b, c] = number.to_be_bytes();
            Prefix::V6([0x20, 0x01, 0x0d, 0xb8, 0, a, b, c])
        };
        for number in 0..2 * GENERATION {
            standings.logged_in(&name("bob"), network(number), at(DAY));
        }
        assert_eq!(standings.logins.young.len(), 1 + usize::from(MAX_NETWORKS));
        assert_eq!(standings.of(&name("alice"), HOME, at(DAY)), Standing::Known);
        assert_eq!(standings.of(&name("bob"), network(0), at(DAY)), Standing::Known);
        assert_eq!(standings.of(&name("bob"), network(64), at(DAY)), Standing::Stranger);
        // The next week he has a new share.
        standings.logged_in(&name("bob"), network(64), at(8 * DAY));
        assert_eq!(standings.of(&name("bob"), network(64), at(8 * DAY)), Standing::Known);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_comes_back() {
        let mut recent = Recent::new(LOGIN_AGE);
        for hash in 1..3 * GENERATION as u64 {
            recent.insert(hash, at(0));
            if hash % 10_000 == 0 {
                recent.insert(0, at(0));
            }
        }
        assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION);
        assert!(recent.contains(0, at(0)));
        assert!(!recent.contains(1, at(0)));
    }
}
