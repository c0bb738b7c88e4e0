//! What the daemon does at its limits and when its surroundings fail: floods, exhaustion, a passdb that hangs, a clock
//! that jumps, signals at the worst moment; and that no secret leaves it on any of these ways.
//!
//! Counts are small enough for every test run. `make soak` sets `SASLD_SOAK` to the name of a table: then the counts
//! are those that the threat model promises, and each test adds to the table what it ran and what that cost.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

mod canaries;
mod cost;
mod environment;
mod floods;
mod life;
mod load;
mod outage;
mod site;
mod starved;
