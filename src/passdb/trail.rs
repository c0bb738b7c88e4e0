//! What each passdb said on the way to one answer: for `sasld why`, never for a decision.
//!
//! A trail travels beside its question and is written to as the passdbs are asked, so what is known is there even if
//! the login is given up while one of them still thinks. It holds words, no names but the passdbs' own, and nothing of
//! a password or a verifier. Beyond [`MAX_STEPS`] passdbs the later ones leave no trace in it.

use super::Finding;
use crate::pam::request::Exclusion;
use crate::sasl::{Answer, Outage, Refusal};
use crate::secrets::Closed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Passdbs that a trail has room for.
pub const MAX_STEPS: usize = 8;

/// What one passdb said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has not answered, or not yet.
    Nothing,
    /// The password is right.
    Yes,
    /// It has a verifier, with which the response is checked.
    Verifier,
    /// The user is not let in.
    Refused(Refusal),
    /// The user's entry is closed to everybody.
    Closed(Closed),
    /// It does not have the user.
    NotFound,
    /// This is not for it to say.
    Passed(Passed),
    /// It does not work.
    Out(Outage),
}

/// Why a passdb leaves a question to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It cannot serve the mechanism.
    Mechanism,
    /// No password of its users looks like this one: too long, or with a NUL.
    Password,
    /// A guard rail keeps the user from it.
    Rail(Exclusion),
}

impl Passed {
    /// The word for it: the setting it comes from, if it is one.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mechanism => "mechanism",
            Self::Password => "password",
            Self::Rail(exclusion) => exclusion.word(),
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Trail {
    /// What the passdbs of the chain are called, in order.
    passdbs: Arc<[Box<str>]>,
    said: Mutex<[Option<Said>; MAX_STEPS]>,
}

impl Trail {
    /// An empty one, for passdbs of these names.
    #[must_use]
    pub fn new(passdbs: Arc<[Box<str>]>) -> Self {
        Self { passdbs, said: Mutex::new([None; MAX_STEPS]) }
    }

    /// The passdb at this place of the chain said this.
    pub fn note(&self, place: usize, said: Said) {
        if let Some(step) = self.lock().get_mut(place) {
            *step = Some(said);
        }
    }

    /// What has been said so far.
    #[must_use]
    pub fn steps(&self) -> Steps {
        Steps { passdbs: Arc::clone(&self.passdbs), said: *self.lock() }
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Said>; MAX_STEPS]> {
        // Nothing that can panic runs under the lock.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A trail as it was at one moment.
#[derive(Clone, Debug)]
pub struct Steps {
    passdbs: Arc<[Box<str>]>,
    said: [Option<Said>; MAX_STEPS],
}

impl Steps {
    /// The passdbs that were asked, by name and in order, and what they said.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Said)> {
        self.passdbs.iter().zip(self.said).filter_map(|(passdb, said)| Some((&**passdb, said?)))
    }
}

impl From<&Finding> for Said {
    fn from(finding: &Finding) -> Self {
        match finding {
            Finding::Found(Answer::Verdict(Ok(_)) | Answer::VouchedAs(..)) => Self::Yes,
            Finding::Found(Answer::Verdict(Err(refusal))) => Self::Refused(*refusal),
            Finding::Found(Answer::Credential(credential)) => {
                credential.refusal.map_or(Self::Verifier, Self::Refused)
            }
            Finding::Closed(closed, _) => Self::Closed(*closed),
            Finding::NotFound => Self::NotFound,
            Finding::Passed(why) => Self::Passed(*why),
            Finding::Out(outage) => Self::Out(*outage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_were_asked_are_in_it_in_the_order_of_the_chain() {
        let names = ["a", "b", "c"].map(Into::into);
        let trail = Trail::new(Arc::new(names));
        trail.note(2, Said::Nothing);
        trail.note(0, Said::Nothing);
        trail.note(0, Said::NotFound);
        let steps = trail.steps();
        trail.note(1, Said::Yes);
        assert_eq!(steps.iter().collect::<Vec<_>>(), [("a", Said::NotFound), ("c", Said::Nothing)]);
    }

    #[test]
    fn a_chain_longer_than_the_trail_loses_only_its_end() {
        let names: Vec<Box<str>> = (0..10).map(|number| number.to_string().into()).collect();
        let trail = Trail::new(names.into());
        for place in 0..10 {
            trail.note(place, Said::NotFound);
        }
        assert_eq!(trail.steps().iter().count(), MAX_STEPS);
    }
}
