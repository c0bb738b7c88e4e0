//! `sasld user` as it is typed: the program runs as it was built, on files in private temporary directories. Terminals
//! are pseudo-terminals that setsid(1) makes the controlling ones.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

mod add;
mod daemon;
mod edit;
mod faults;
mod import;
mod list;
mod lock;
mod manual;
mod place;
mod power;
mod rewrites;
mod short;
mod terminal;
