//! The answers, as JSON has them: `docs/control.md` explains every field.
//!
//! Times are RFC 3339 in UTC. Fields may be added, so readers skip what they do not know. Nothing here can hold a
//! password, a response or a verifier.

use crate::secrets::Fingerprint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// To [`Request::Status`](super::Request::Status).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub since: String,
    /// Seconds since then.
    pub uptime_s: u64,
    /// What somebody should look at, a sentence each; empty if nothing is wrong.
    pub wrong: Vec<String>,
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
    /// Exchanges without a final reply, on all of them.
    pub exchanges: usize,
    /// The threads for expensive hashes.
    pub hash_pool: HashPoolState,
    /// What became of logins.
    pub attempts: Attempts,
    /// Networks whose attempts are refused most, lately, the busiest first.
    pub offenders: Vec<OffenderState>,
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
    /// What the last look at the files found wrong, so that they are not in force.
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
    /// A secrets file; in a status with its first ten problems.
    SecretsFile(SecretsState),
    /// `sasld-pam`.
    Pam(PamState),
}

/// To [`Request::Secrets`](super::Request::Secrets): a secrets file as the daemon has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsState {
    /// As the configuration has it.
    pub path: String,
    /// The version that logins are checked against; `None` if there was never a good one, and nobody can log in.
    pub in_force: Option<Version>,
    /// When it was loaded.
    pub in_force_since: Option<String>,
    /// Users in it.
    pub users: usize,
    /// Its broken lines, the first thousand.
    pub problems: Vec<Problem>,
    /// How many broken lines there are.
    pub problems_total: usize,
    /// Why the file that is there now is not in force.
    pub trouble: Option<String>,
}

/// The PAM passdb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PamState {
    /// The PAM service that is asked.
    pub service: String,
    /// Where `sasld-pam` listens.
    pub socket: String,
    /// There is a connection to it.
    pub connected: bool,
    /// Its workers.
    pub workers: usize,
    /// Passwords that wait for a worker.
    pub waiting: usize,
    /// What is wrong with it.
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

/// The threads for expensive hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashPoolState {
    /// How many there are.
    pub threads: usize,
    /// Passwords that wait for one.
    pub waiting: usize,
}

/// How many attempts ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Let in.
    pub ok: u64,
    /// Refused.
    pub refused: u64,
    /// Without a verdict.
    pub outage: u64,
    /// Left by the mail server before the verdict.
    pub abandoned: u64,
}

/// What became of logins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// In the last minute.
    pub last_minute: Numbers,
    /// In the last 5 minutes.
    pub last_5_minutes: Numbers,
    /// In the last 15 minutes.
    pub last_15_minutes: Numbers,
    /// Since the start.
    pub total: Numbers,
    /// Since the start, the refused ones by `why`.
    pub refused: BTreeMap<String, u64>,
    /// Since the start, those without a verdict by `why`.
    pub outage: BTreeMap<String, u64>,
    /// Since the start, by mechanism; those whose mechanism is not on offer are not in it.
    pub mechanisms: BTreeMap<String, Numbers>,
}

/// A network whose attempts are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffenderState {
    /// `192.0.2.7/32`, or an IPv6 /64.
    pub network: String,
    /// Refused attempts since it was noticed.
    pub refusals: u64,
    /// The last of them.
    pub last: String,
}

/// To [`Request::Why`](super::Request::Why).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Who was asked about, as the daemon looks him up.
    pub user: String,
    /// His attempts that are remembered, the last hundred at most, the newest last.
    pub attempts: Vec<PastAttempt>,
    /// How many attempts of all users are remembered.
    pub remembered: usize,
    /// When the oldest of them was.
    pub remembered_since: Option<String>,
}

/// An attempt that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastAttempt {
    /// When the verdict fell.
    pub at: String,
    /// `ok`, `refused`, `outage` or `abandoned`, as in the log.
    pub result: String,
    /// As in the log.
    pub why: Option<String>,
    /// Missing if it is not on offer.
    pub mechanism: Option<String>,
    /// As the mail server calls itself.
    pub service: String,
    /// The user's address, if the mail server told it.
    pub remote: Option<String>,
    /// The mail server said that he came over TLS.
    pub tls: bool,
    /// The mail server's process.
    pub client_pid: u64,
    /// Milliseconds from his last message to the verdict, without the delay of a refusal.
    pub ms: f64,
    /// What led to the verdict, in order.
    pub trail: Vec<TrailStep>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailStep {
    /// A rule of the configuration, a passdb, or the user's response.
    pub asked: String,
    /// One word: `ok`, `refused`, `yes`, `verifier`, `not_found`, `passed`, `closed`, `out`, `no_answer`.
    pub said: String,
    /// The same for people.
    pub detail: String,
}

/// To [`Request::Pam`](super::Request::Pam): what came of asking `sasld-pam` about nobody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PamCheck {
    /// It has answered.
    pub answered: bool,
    /// Why users like this one hear no verdict; `None` if they do.
    pub trouble: Option<String>,
    /// Milliseconds until then, with the wait for a worker.
    pub ms: f64,
}

/// To [`Request::Metrics`](super::Request::Metrics).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// What `metrics:` serves.
    pub openmetrics: String,
}
