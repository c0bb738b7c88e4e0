//! The control socket: what runs, how it is, and whether it has seen the latest change, for root alone.
//!
//! A [`Request`] is one line of words, its answer one JSON object on one line, and then the connection ends;
//! `docs/control.md` has every field. [`ask`] is the commands' side of it and blocks. On the daemon's side [`Door`]s run
//! beside the accepting of connections, never on a thread that serves logins; `serve` is what happens there, `report`
//! puts the answers together, `explain` says what led to a verdict. `metrics:` is the second door, for scrapers.
//!
//! The socket is there for looking. Nothing of the configuration, no user and no verdict can be changed through it, and
//! the daemon starts and serves without it.
#![forbid(unsafe_code)]

mod client;
mod door;
mod explain;
mod metrics;
pub mod reply;
mod report;
mod request;
mod serve;

pub use client::{ControlError, PATIENCE, ask};
pub use door::Door;
pub use reply::{PamCheck, SecretsState, Status, Version, Why};
pub use report::{Facts, Reporter};
pub use request::{MAX_REQUEST_BYTES, Request, RequestError};
pub use serve::{open_control, open_metrics};

/// Where the socket is unless `control:` says otherwise.
pub const DEFAULT_PATH: &str = "/run/sasld/control";
