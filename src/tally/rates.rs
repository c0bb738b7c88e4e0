//! How many attempts ended how, in each of the last 15 minutes' 5-second slots.
//!
//! A slot is reused when its time comes round again; one that is too old counts as empty, so nothing has to happen
//! while nobody logs in.

use super::Kind;
use crate::session::Moment;
use core::time::Duration;

const SLOT: Duration = Duration::from_secs(5);

const SLOTS: usize = 180;

/// The longest window.
pub const LONGEST: Duration = Duration::from_secs(SLOT.as_secs() * SLOTS as u64);

/// See the module's head.
#[derive(Debug)]
pub struct Rates {
    slots: Box<[Slot; SLOTS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Which 5 seconds since the start, counted from 1; 0 is none.
    number: u64,
    counts: [u32; 4],
}

impl Default for Rates {
    fn default() -> Self {
        Self { slots: Box::new([Slot::default(); SLOTS]) }
    }
}

impl Rates {
    /// One more, now.
    pub fn add(&mut self, kind: Kind, now: Moment) {
        let number = number(now);
        let slot = &mut self.slots[place(number)];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        let count = &mut slot.counts[kind as usize];
        *count = count.saturating_add(1);
    }

    /// How many there were in this window until now, at most [`LONGEST`], in the order of [`Kind`]. The slot of now is
    /// not over, so up to 5 seconds more or less are in it.
    #[must_use]
    pub fn within(&self, window: Duration, now: Moment) -> [u64; 4] {
        let last = number(now);
        let slots = window.min(LONGEST).as_secs() / SLOT.as_secs();
        let first = last.saturating_sub(slots.saturating_sub(1));
        let mut sum = [0; 4];
        for slot in self.slots.iter().filter(|slot| (first..=last).contains(&slot.number)) {
            for (sum, count) in sum.iter_mut().zip(slot.counts) {
                *sum += u64::from(count);
            }
        }
        sum
    }
}

fn number(now: Moment) -> u64 {
    now.0.as_secs() / SLOT.as_secs() + 1
}

fn place(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).expect("less than SLOTS, which is a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn a_window_has_what_happened_in_it_and_nothing_older() {
        let mut rates = Rates::default();
        rates.add(Kind::Ok, at(0));
        rates.add(Kind::Refused, at(30));
        rates.add(Kind::Refused, at(59));
        assert_eq!(rates.within(MINUTE, at(59)), [1, 2, 0, 0]);
        assert_eq!(rates.within(MINUTE, at(61)), [0, 2, 0, 0]);
        assert_eq!(rates.within(MINUTE * 5, at(61)), [1, 2, 0, 0]);
        assert_eq!(rates.within(MINUTE, at(3_600)), [0; 4]);
    }

    #[test]
    fn a_day_later_an_old_slot_is_not_mistaken_for_a_new_one() {
        let mut rates = Rates::default();
        rates.add(Kind::Outage, at(7));
        rates.add(Kind::Outage, at(7 + LONGEST.as_secs() * 96));
        assert_eq!(rates.within(LONGEST, at(8 + LONGEST.as_secs() * 96)), [0, 0, 1, 0]);
    }
}
