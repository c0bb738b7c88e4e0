//! A session beside a second, plainer account of the protocol (`model`), under random schedules (`schedule`).
//!
//! A schedule mixes lines in any chunks, answers of the passdbs in any order, outages, time, changed passwords, new
//! configurations and lost connections. After every event the session must have done exactly what the model says: the
//! same bytes, the same questions, one log entry per decided request. From that follow the promises: one verdict per
//! id and none after CANCEL, OK only with the right secret for that name, refusals on their schedule, an outage never
//! a refusal.
//!
//! `SASLD_SCHEDULES` is how many schedules are played, `SASLD_SEED` where they begin: what a failure prints is the
//! seed that plays it alone.

#![allow(missing_docs, reason = "a test program has no readers of its documentation")]

use schedule::Dice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Tally, World};

mod corpus;
#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../dialog/mod.rs"]
mod dialog;
mod model;
mod schedule;
#[path = "../../fuzz/targets.rs"]
mod targets;
mod world;

/// How many schedules are played, unless told otherwise.
const SCHEDULES: u64 = 100_000;

/// Plays every fourth schedule from `first` on, so that the tests share the work.
fn play(first: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let schedules = number("SASLD_SCHEDULES").unwrap_or(SCHEDULES).saturating_sub(first).div_ceil(4);
    let begin = number("SASLD_SEED").unwrap_or(1);
    let mut tally = Tally::new();
    for seed in (0..schedules).map(|schedule| begin + first + schedule * 4) {
        let played = catch_unwind(AssertUnwindSafe(|| World::new(Dice::Seeded(seed)).play()));
        let counts = played.unwrap_or_else(|panic| {
            eprintln!("to play it alone: SASLD_SCHEDULES=1 SASLD_SEED={seed}");
            std::panic::resume_unwind(panic)
        });
        for (what, count) in counts {
            *tally.entry(what).or_default() += count;
        }
    }
    println!("{schedules} schedules: {tally:?}");
    // Schedules that never get anywhere would prove nothing.
    if schedules >= 1_000 {
        for what in REACHED {
            assert!(tally.get(what).is_some_and(|&count| count >= schedules / 100), "{what} in {tally:?}");
        }
    }
}

/// What happens in one schedule of a hundred, at least.
const REACHED: &[&str] = &[
    "PLAIN",
    "LOGIN",
    "CRAM-MD5",
    "CRAM-MD5 challenges",
    "prompts",
    "questions",
    "refused",
    "outage",
    "abandoned",
    "responses to nothing",
    "second early responses",
    "protocol errors",
    "delayed refusals",
    "deadlines",
    "ends for a reason of time",
];

#[test]
fn a_session_does_what_the_model_says_1() {
    play(0);
}

#[test]
fn a_session_does_what_the_model_says_2() {
    play(1);
}

#[test]
fn a_session_does_what_the_model_says_3() {
    play(2);
}

#[test]
fn a_session_does_what_the_model_says_4() {
    play(3);
}
