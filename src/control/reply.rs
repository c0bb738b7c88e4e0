//! The answers, as JSON has them: `docs/control.md` explains every field.
//!
//! Times are RFC 3339 in UTC. Fields may be added, so readers skip what they do not know. Nothing here can hold a
//! password, a response or a verifier.

use crate::secrets::Fingerprint;
use serde::{Deserialize, Serialize};

/// To [`Request::Status`](super::Request::Status).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub since: String,
    /// What it was told.
    pub configuration: Configuration,
    /// Where mail servers connect.
    pub listeners: Vec<ListenerState>,
    /// What is offered to services without a section of their own, in order.
    pub mechanisms: Vec<String>,
    /// Who is asked, in order.
    pub passdbs: Vec<PassdbState>,
    /// Open connections of mail servers.
    pub connections: usize,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The main file.
    pub path: String,
    /// When it came into force.
    pub in_force_since: String,
    /// The daemon found mistakes in it at its start, and runs on the copy of the last one without.
    pub last_good: bool,
    /// What a later look at the files found wrong, so that they are not in force.
    pub rejected: Option<Rejected>,
}

/// A configuration that is not in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// When it was tried.
    pub at: String,
    /// Everything wrong with it.
    pub mistakes: Vec<String>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerState {
    /// Its path or address.
    pub name: String,
    /// Clients still find it there.
    pub in_place: bool,
}

/// One passdb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PassdbState {
    /// A secrets file.
    SecretsFile(SecretsState),
    /// `sasld-pam`.
    Pam {
        /// The PAM service that it asks.
        service: String,
        /// Where it listens.
        socket: String,
    },
}

/// To [`Request::Secrets`](super::Request::Secrets): a secrets file as the daemon has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsState {
    /// As the configuration has it.
    pub path: String,
    /// The version that logins are checked against; `None` if there was never a good one, and nobody can log in.
    pub in_force: Option<Version>,
    /// Users in it.
    pub users: usize,
    /// Its broken lines, the first thousand.
    pub problems: Vec<Problem>,
    /// All of its broken lines.
    pub problems_total: usize,
    /// Why the file that is there now is not in force.
    pub trouble: Option<String>,
}

/// Which version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub inode: u64,
    /// Its size.
    pub bytes: u64,
    /// When its contents last changed, in nanoseconds since 1970.
    pub modified_ns: i64,
}

impl From<Fingerprint> for Version {
    fn from(fingerprint: Fingerprint) -> Self {
        let (dev, inode) = fingerprint.file();
        Self { dev, inode, bytes: fingerprint.size(), modified_ns: fingerprint.modified_ns() }
    }
}

/// A broken line of a secrets file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// The user, if his name can be read.
    pub user: Option<String>,
    /// What is wrong, without any part of a secret.
    pub reason: String,
}
