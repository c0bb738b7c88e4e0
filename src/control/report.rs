//! Puts the answers together, from what the daemon says about itself and what the server and the passdbs tell.
//!
//! Everything is read while logins go on, so two numbers of one answer may be a moment apart. Asking for a secrets file
//! makes the daemon look at it: a file that was renamed into place is in force in the answer, one that is still being
//! written is waited for, but not longer than [`SETTLING`].

use super::reply::{
    Attempts, Configuration, HashPoolState, ListenerState, Metrics, Numbers, OffenderState, PamCheck,
    PamState, PassdbState, PastAttempt, Problem, Rejected, SecretsState, Status, Version, Why,
};
use super::{Request, explain, metrics};
use crate::passdb::fair_queue::Prefix;
use crate::passdb::secrets_file::{Look, SecretsFile};
use crate::passdb::{HashPool, Link, Source, pam};
use crate::sasl::Mechanism;
use crate::server::{Listener, Server, Service};
use crate::session::Moment;
use crate::tally::counts::Histogram;
use crate::tally::{Remembered, counts::Label};
use crate::wire::Secured;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime};

/// How long a request waits for a secrets file that is being loaded or written.
const SETTLING: Duration = Duration::from_secs(5);

/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Attempts of a user in one answer.
const MAX_ATTEMPTS: usize = 100;

/// Networks in a status.
const MAX_OFFENDERS: usize = 10;

/// Problems of a secrets file in a status.
const MAX_PROBLEMS: usize = 10;

const MINUTE: Duration = Duration::from_secs(60);

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
    pool: Arc<HashPool>,
    facts: Mutex<Facts>,
}

/// What is counted, all of one moment.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) by_label: BTreeMap<Label, u64>,
    pub(super) times: Vec<(Mechanism, Histogram)>,
}

impl Reporter {
    /// Reports about these from now on.
    #[must_use]
    pub fn new(service: Arc<Service>, server: Arc<Server>, pool: Arc<HashPool>) -> Self {
        Self { service, server, pool, facts: Mutex::default() }
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
            Request::Why { user } => json(&self.why(&user)),
            Request::Secrets { path } => match self.secrets(&path).await {
                Some(state) => json(&state),
                None => refusal(&format!("no secrets_file in passdbs is {}", path.display())),
            },
            Request::Pam => match self.pam().await {
                Some(check) => json(&check),
                None => refusal("pam is not in passdbs"),
            },
            Request::Metrics => json(&Metrics { openmetrics: self.metrics() }),
        }
    }

    /// As OpenMetrics has it.
    pub(super) fn metrics(&self) -> String {
        let counted = self.counted();
        metrics::text(&self.status_of(&counted), counted)
    }

    fn status(&self) -> Status {
        self.status_of(&self.counted())
    }

    fn counted(&self) -> Counted {
        let tally = self.service.tally();
        Counted { by_label: tally.counts.by_label(), times: tally.counts.times().to_vec() }
    }

    fn status_of(&self, counted: &Counted) -> Status {
        let now = self.service.now();
        let live = self.service.live.load();
        let (configuration, listeners) = {
            let facts = self.facts();
            (
                facts.configuration.clone(),
                facts.listeners.iter().filter_map(Weak::upgrade).collect::<Vec<_>>(),
            )
        };
        let listener = |listener: &Arc<Listener>| ListenerState {
            name: listener.name().to_owned(),
            in_place: listener.is_in_place(),
        };
        let (within, offenders) = {
            let tally = self.service.tally();
            let within = [1, 5, 15].map(|minutes| tally.rates.within(MINUTE * minutes, now));
            (within, tally.offenders.clone())
        };
        let [last_minute, last_5_minutes, last_15_minutes] = within.map(Numbers::from);
        let mut attempts = Attempts { last_minute, last_5_minutes, last_15_minutes, ..Attempts::default() };
        attempts.add_up(&counted.by_label);
        let offender = |offender: &crate::tally::offenders::Offender| OffenderState {
            network: network(offender.network),
            refusals: offender.refusals,
            last: self.time_of(offender.last),
        };
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since: self.time_of(Moment(Duration::ZERO)),
            uptime_s: now.0.as_secs(),
            wrong: Vec::new(),
            configuration,
            listeners: listeners.iter().map(listener).collect(),
            mechanisms: live.policy.default_service.mechanisms.iter().map(ToString::to_string).collect(),
            passdbs: live.passdbs.links().iter().map(passdb).collect(),
            connections: self.server.connections(),
            exchanges: self.service.open_exchanges(),
            hash_pool: HashPoolState { threads: self.pool.threads(), waiting: self.pool.waiting() },
            attempts,
            offenders: offenders.busiest(MAX_OFFENDERS, now).iter().map(offender).collect(),
        };
        status.wrong = wrong(&status);
        status
    }

    fn why(&self, user: &str) -> Why {
        let canonical = self.service.live.load().policy.names.canonical(user.as_bytes()).ok();
        let canonical = canonical.as_ref().map_or(user, |name| name.as_str());
        let (attempts, (remembered, oldest)) = {
            let tally = self.service.tally();
            (tally.recent.of(&[user, canonical], MAX_ATTEMPTS), tally.recent.reach())
        };
        Why {
            user: explain::text(canonical.as_bytes()),
            attempts: attempts.iter().map(|attempt| self.past(attempt)).collect(),
            remembered,
            remembered_since: oldest.map(|oldest| self.time_of(oldest)),
        }
    }

    fn past(&self, remembered: &Remembered) -> PastAttempt {
        let attempt = &remembered.attempt;
        let (result, why) = attempt.verdict.words();
        PastAttempt {
            at: self.time_of(remembered.at),
            result: result.to_owned(),
            why: why.map(str::to_owned),
            mechanism: attempt.mechanism.map(|mechanism| mechanism.name().to_owned()),
            service: explain::text(&attempt.origin.service),
            remote: attempt.origin.remote.map(|address| address.to_string()),
            tls: attempt.origin.secured == Secured::Yes,
            client_pid: attempt.client_pid,
            ms: attempt.elapsed.as_secs_f64() * 1_000.0,
            trail: explain::trail(remembered),
        }
    }

    /// `None` if no passdb has this file.
    async fn secrets(&self, path: &Path) -> Option<SecretsState> {
        let file =
            self.service.live.load().passdbs.files().find(|file| is_same(file.path(), path)).cloned()?;
        file.forget_failure();
        let settled = async {
            while file.look_now() == Look::Unsettled {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // Without an end, whoever writes to the file all the time would keep the asker waiting.
        let settled = tokio::time::timeout(SETTLING, settled).await;
        let mut state = secrets_file(&file, usize::MAX);
        if settled.is_err() && state.trouble.is_none() {
            state.trouble = Some(format!("still being written or loaded after {SETTLING:?}"));
        }
        Some(state)
    }

    /// `None` if PAM is no passdb.
    async fn pam(&self) -> Option<PamCheck> {
        let pam = self.service.live.load().passdbs.links().iter().find_map(|link| match &link.source {
            Source::Pam(pam) => Some(Arc::clone(pam)),
            Source::SecretsFile(_) => None,
        })?;
        let asked = Instant::now();
        let outcome = pam.ask_about_nobody(self.service.now()).await;
        let ms = asked.elapsed().as_secs_f64() * 1_000.0;
        Some(match outcome {
            Ok(outcome) => PamCheck { answered: true, trouble: pam::trouble(&outcome), ms },
            Err(outage) => {
                let trouble = pam.health().trouble.unwrap_or_else(|| outage.why().to_owned());
                PamCheck { answered: false, trouble: Some(trouble), ms }
            }
        })
    }

    /// By the clock on the wall, as it is set now.
    fn time_of(&self, moment: Moment) -> String {
        time(SystemTime::now() - self.service.now().0.saturating_sub(moment.0))
    }
}

impl From<[u64; 4]> for Numbers {
    /// In the order of [`Kind`](crate::tally::Kind).
    fn from([ok, refused, outage, abandoned]: [u64; 4]) -> Self {
        Self { ok, refused, outage, abandoned }
    }
}

impl Numbers {
    fn add(&mut self, result: &str, count: u64) {
        *match result {
            "ok" => &mut self.ok,
            "refused" => &mut self.refused,
            "outage" => &mut self.outage,
            _ => &mut self.abandoned,
        } += count;
    }
}

impl Attempts {
    fn add_up(&mut self, by_label: &BTreeMap<Label, u64>) {
        for (label, count) in by_label {
            self.total.add(label.result, *count);
            if let Some(mechanism) = label.mechanism {
                self.mechanisms.entry(mechanism.to_owned()).or_default().add(label.result, *count);
            }
            let by_reason = match label.result {
                "refused" => &mut self.refused,
                "outage" => &mut self.outage,
                _ => continue,
            };
            *by_reason.entry(label.why.unwrap_or_default().to_owned()).or_default() += count;
        }
    }
}

/// What somebody should look at.
fn wrong(status: &Status) -> Vec<String> {
    let mut wrong = Vec::new();
    let Configuration { path, last_good, rejected, .. } = &status.configuration;
    if *last_good {
        wrong.push(format!("{path} had mistakes at the start; the copy of the last good one is in force"));
    }
    if let Some(Rejected { at, mistakes }) = rejected {
        let others = match mistakes.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let first = mistakes.first().map_or("", String::as_str);
        wrong.push(format!("the reload of {at} was rejected: {first}{others}"));
    }
    for listener in status.listeners.iter().filter(|listener| !listener.in_place) {
        wrong.push(format!("{}: the socket's file has gone; reload sasld", listener.name));
    }
    for passdb in &status.passdbs {
        match passdb {
            PassdbState::SecretsFile(SecretsState { path, in_force, trouble, .. }) => {
                match (in_force, trouble) {
                    (_, None) if in_force.is_some() => {}
                    (Some(_), Some(trouble)) => wrong.push(format!("not in force: {trouble}")),
                    (_, trouble) => {
                        let trouble = trouble.as_deref().unwrap_or("it has not been loaded yet");
                        wrong.push(format!("{path}: none of its users can log in: {trouble}"));
                    }
                }
            }
            PassdbState::Pam(pam) if !pam.connected => {
                let trouble = pam.trouble.as_deref().unwrap_or("not connected yet");
                wrong.push(format!("pam {}: none of its users can log in: {trouble}", pam.service));
            }
            PassdbState::Pam(_) => {}
        }
    }
    wrong
}

fn passdb(link: &Link) -> PassdbState {
    match &link.source {
        Source::SecretsFile(file) => PassdbState::SecretsFile(secrets_file(file, MAX_PROBLEMS)),
        Source::Pam(pam) => {
            let health = pam.health();
            PassdbState::Pam(PamState {
                service: pam.settings().worker.service.clone(),
                socket: pam.settings().socket.display().to_string(),
                connected: health.connected,
                workers: health.workers,
                waiting: health.waiting,
                trouble: health.trouble,
            })
        }
    }
}

fn secrets_file(file: &SecretsFile, max_problems: usize) -> SecretsState {
    let standing = file.standing();
    let problems = standing.contents.as_ref().map(|contents| contents.problems());
    let listed = problems.map(|problems| problems.listed()).unwrap_or_default();
    let problem = |problem: &crate::secrets::Problem| Problem {
        line: problem.line,
        user: problem.name.clone(),
        reason: problem.reason.clone(),
    };
    SecretsState {
        path: file.path().display().to_string(),
        in_force: standing.version.map(Version::from),
        in_force_since: standing.since.map(time),
        users: standing.contents.as_ref().map_or(0, |contents| contents.len()),
        problems: listed.iter().take(max_problems).map(problem).collect(),
        problems_total: problems.map_or(0, |problems| problems.total()),
        trouble: standing.trouble,
    }
}

/// Whether two paths lead to one file, as far as we may look.
fn is_same(configured: &Path, asked: &Path) -> bool {
    let target = |path: &Path| std::fs::canonicalize(path).ok();
    configured == asked || target(configured).is_some_and(|found| target(asked) == Some(found))
}

fn network(prefix: Prefix) -> String {
    match prefix {
        Prefix::Unknown => "unknown".to_owned(),
        Prefix::V4(octets) => format!("{}/32", Ipv4Addr::from(octets)),
        Prefix::V6(half) => {
            let mut octets = [0; 16];
            octets[..8].copy_from_slice(&half);
            format!("{}/64", Ipv6Addr::from(octets))
        }
    }
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
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
