//! Puts the answers together, from what the daemon says about itself and what the server and the passdbs tell.
//!
//! Everything is read while logins go on, so two numbers of one answer may be a moment apart. Asking for a secrets file
//! makes the daemon look at it: a file that was renamed into place is in force in the answer, one that is still being
//! written is waited for, but not longer than [`SETTLING`].

use super::{
    Configuration, ListenerState, PassdbState, Problem, Rejected, Request, SecretsState, Status, Version,
};
use crate::passdb::secrets_file::{Look, SecretsFile};
use crate::passdb::{Link, Source};
use crate::server::{Listener, Server, Service};
use core::time::Duration;
use serde::Serialize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

/// How long a request waits for a secrets file that is being loaded or written.
const SETTLING: Duration = Duration::from_secs(5);

/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What only the daemon knows.
#[derive(Default)]
pub struct Facts {
    /// The configuration in force.
    pub configuration: Configuration,
    /// Where mail servers connect.
    pub listeners: Vec<Weak<Listener>>,
}

impl Facts {
    /// A configuration came into force just now.
    pub fn in_force(&mut self, path: &Path, last_good: bool) {
        self.configuration = Configuration {
            path: path.display().to_string(),
            in_force_since: time(SystemTime::now()),
            last_good,
            rejected: None,
        };
    }

    /// One that was looked at just now did not; a line for each mistake.
    pub fn rejected(&mut self, mistakes: &str) {
        let mistakes = mistakes.lines().map(str::to_owned).collect();
        self.configuration.rejected = Some(Rejected { at: time(SystemTime::now()), mistakes });
    }
}

/// See the module's head.
pub struct Reporter {
    service: Arc<Service>,
    server: Arc<Server>,
    since: SystemTime,
    facts: Mutex<Facts>,
}

impl Reporter {
    /// Reports about these from now on.
    #[must_use]
    pub fn new(service: Arc<Service>, server: Arc<Server>) -> Self {
        Self { service, server, since: SystemTime::now(), facts: Mutex::default() }
    }

    /// What the daemon says about itself.
    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        // Whatever a panic left there is shown, and does no other harm.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer, as one line of JSON.
    pub(super) async fn answer(&self, request: Request) -> Vec<u8> {
        match request {
            Request::Status => json(&self.status()),
            Request::Secrets { path } => match self.secrets(&path).await {
                Some(state) => json(&state),
                None => refusal(&format!("no secrets_file in passdbs is {}", path.display())),
            },
            Request::Why { .. } | Request::Metrics => refusal("not known yet"),
        }
    }

    fn status(&self) -> Status {
        let live = self.service.live.load();
        let facts = self.facts();
        let listeners = facts.listeners.iter().filter_map(Weak::upgrade);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since: time(self.since),
            configuration: facts.configuration.clone(),
            listeners: listeners
                .map(|listener| ListenerState {
                    name: listener.name().to_owned(),
                    in_place: listener.is_in_place(),
                })
                .collect(),
            mechanisms: live.policy.default_service.mechanisms.iter().map(ToString::to_string).collect(),
            passdbs: live.passdbs.links().iter().map(passdb).collect(),
            connections: self.server.connections(),
        }
    }

    /// `None` if no passdb has this file.
    async fn secrets(&self, path: &Path) -> Option<SecretsState> {
        let file =
            self.service.live.load().passdbs.files().find(|file| is_same(file.path(), path)).cloned()?;
        // Without an end, whoever writes to the file all the time would keep the asker waiting.
        file.forget_failure();
        let settled = async {
            while file.look_now() == Look::Unsettled {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let settled = tokio::time::timeout(SETTLING, settled).await;
        let mut state = secrets_file(&file);
        if settled.is_err() && state.trouble.is_none() {
            state.trouble = Some(format!("still being written or loaded after {SETTLING:?}"));
        }
        Some(state)
    }
}

fn passdb(link: &Link) -> PassdbState {
    match &link.source {
        Source::SecretsFile(file) => PassdbState::SecretsFile(secrets_file(file)),
        Source::Pam(pam) => PassdbState::Pam {
            service: pam.settings().worker.service.clone(),
            socket: pam.settings().socket.display().to_string(),
        },
    }
}

fn secrets_file(file: &SecretsFile) -> SecretsState {
    let (contents, fingerprint, trouble) = file.standing();
    let problems = contents.as_ref().map(|contents| contents.problems());
    let listed = problems.map(|problems| problems.listed()).unwrap_or_default();
    let problem = |problem: &crate::secrets::Problem| Problem {
        line: problem.line,
        user: problem.name.clone(),
        reason: problem.reason.clone(),
    };
    SecretsState {
        path: file.path().display().to_string(),
        in_force: fingerprint.map(Version::from),
        users: contents.as_ref().map_or(0, |contents| contents.len()),
        problems: listed.iter().map(problem).collect(),
        problems_total: problems.map_or(0, |problems| problems.total()),
        trouble,
    }
}

/// Whether two paths lead to one file, as far as we may look.
fn is_same(configured: &Path, asked: &Path) -> bool {
    let target = |path: &Path| std::fs::canonicalize(path).ok();
    configured == asked || target(configured).is_some_and(|found| target(asked) == Some(found))
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The answer to what cannot be answered.
pub(super) fn refusal(error: &str) -> Vec<u8> {
    json(&serde_json::json!({ "error": error }))
}

fn json(reply: &impl Serialize) -> Vec<u8> {
    // The reply types have nothing in them that JSON cannot say.
    let mut line =
        serde_json::to_vec(reply).unwrap_or_else(|_| b"{\"error\":\"cannot be said in JSON\"}".to_vec());
    line.push(b'\n');
    line
}
