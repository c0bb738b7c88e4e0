//! The control socket: what runs, how it is, and whether it has seen the latest change, for root alone.
//!
//! A [`Request`] is one line of words, its answer one JSON object on one line, and then the connection ends;
//! `docs/control.md` has every field. [`ask`] is the commands' side of it and blocks. `server` is the daemon's: it runs
//! beside the accepting of connections, never on a thread that serves logins. `report` puts the answers together.
//!
//! The socket is there for looking. Nothing of the configuration, no user and no verdict can be changed through it, and
//! the daemon starts and serves without it.
#![forbid(unsafe_code)]

mod client;
mod reply;
mod report;
mod request;
mod server;

pub use client::{ControlError, PATIENCE, ask};
pub use reply::{
    Configuration, ListenerState, PassdbState, Problem, Rejected, SecretsState, Status, Version,
};
pub use report::{Facts, Reporter};
pub use request::{MAX_REQUEST_BYTES, Request, RequestError};
pub use server::{Control, NotAvailable};

/// Where the socket is unless `control:` says otherwise.
pub const DEFAULT_PATH: &str = "/run/sasld/control";
