//! What the units promise: a socket that never goes away, a configuration that always works, and a service without
//! rights.
//!
//! `launcher` is systemd's part, as far as sasld sees it: it keeps a listening socket and passes it to one daemon after
//! the other. A real systemd does it in `tests/boot`.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

mod files;
mod last_good;
mod launcher;
mod passing;
mod reload_faults;
mod restart;
