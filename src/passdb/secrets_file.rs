//! The secrets file as a passdb: always the last good contents, and the newest ones as soon as they are good.
//!
//! The file's identity is compared at look-ups, at most every 20 ms, and once a second by the daemon. A new
//! file under the name (`rename`) is loaded at once; one that was written in place may not be finished, so it is
//! loaded when it has held still for 200 ms. Small files load where the change was noticed, so that look-up sees
//! them already; large ones load on a thread of their own while the old contents answer.
//!
//! Trouble with the file as a whole leaves the contents in force and is logged once, not at every check. If there
//! never were any, there is no verdict. Expensive hashes go to the [`HashPool`].

use super::hash_pool::{HashPool, be_nice};
use super::{Finding, fair_queue::Prefix};
use crate::credential::{Cost, CramMd5Key, Proof};
use crate::sasl::{Answer, CramMd5Credential, NameRules, Outage, Question, Refusal};
use crate::secrets::{self, Closed, Entry, Fingerprint, LoadOptions, Loaded, Names, Secrets, Trust};
use crate::session::{Moment, Origin};
use arc_swap::ArcSwapOption;
use core::pin::Pin;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};
use tracing::{error, info, warn};

/// How often look-ups compare the file's identity, at most.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// How long a file that was written in place must have held still.
const SETTLE: Duration = Duration::from_millis(200);

/// How coarse a file's times are, at worst: within it, two changes can look like one.
const TICK: Duration = Duration::from_millis(20);

/// How long a version of the file that could not be loaded is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Up to this size a file is loaded by whoever notices that it changed: some 2 ms.
const LOADED_INLINE_BYTES: u64 = 256 << 10;

/// How many problems of one version of the file are logged with their text.
const PROBLEMS_LOGGED: usize = 10;

/// See the module's head.
pub struct SecretsFile {
    path: PathBuf,
    names: NameRules,
    trust: Trust,
    pool: Arc<HashPool>,
    contents: ArcSwapOption<Secrets>,
    /// When to compare the file's identity again, in milliseconds as [`Moment`]s are counted.
    next_check: AtomicU64,
    watch: Mutex<Watch>,
}

/// How a secrets file is.
#[derive(Debug)]
pub struct Standing {
    /// What is in force; `None` if the file has never been good.
    pub contents: Option<Arc<Secrets>>,
    /// Which version of the file that is.
    pub version: Option<Fingerprint>,
    /// When it was loaded.
    pub since: Option<SystemTime>,
    /// What is wrong with the file that is there now.
    pub trouble: Option<String>,
}

/// What an entry says to a question, or the work that it takes to know: an expensive hash is computed elsewhere.
enum Judgement {
    Now(Answer),
    Later(Pin<Box<dyn Future<Output = Result<Answer, Outage>> + Send>>),
}

/// What came of a look at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What is there is in force, or it is known why not.
    Settled,
    /// It is being loaded, or may not be finished yet: look again.
    Unsettled,
}

/// What is known of the file.
#[derive(Default)]
struct Watch {
    loaded: Option<Fingerprint>,
    /// When that was loaded.
    since: Option<SystemTime>,
    /// It was so fresh when it was loaded that another change may hide behind the same identity.
    in_doubt: bool,
    /// The trouble logged last, so that it is logged once.
    trouble: Option<String>,
    /// The version that is being loaded; `None` if there is no file.
    trying: Option<Fingerprint>,
    /// The version that could not be loaded last, and when that was.
    failed: Option<(Option<Fingerprint>, Instant)>,
    /// The newest version seen that was not loaded at once, and when it was first seen.
    seen: Option<(Fingerprint, Instant)>,
    /// Somebody loads it right now.
    loading: bool,
}

impl Watch {
    /// Whether this version has been there for [`SETTLE`], by a clock that nobody sets back.
    fn has_settled(&mut self, found: Fingerprint) -> bool {
        match self.seen {
            Some((seen, since)) if seen == found => since.elapsed() >= SETTLE,
            _ => {
                self.seen = Some((found, Instant::now()));
                false
            }
        }
    }
}

impl SecretsFile {
    /// Loads the file for the first time. Blocks. Trouble is logged and leaves a passdb that has no verdict yet.
    #[must_use]
    pub fn open(path: PathBuf, names: NameRules, pool: Arc<HashPool>) -> Arc<Self> {
        let file = Arc::new(Self {
            path,
            names,
            trust: Trust::of_process(),
            pool,
            contents: ArcSwapOption::empty(),
            next_check: AtomicU64::new(0),
            watch: Mutex::default(),
        });
        file.load();
        file
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the passdb for that file under those rules.
    #[must_use]
    pub fn is(&self, path: &Path, names: &NameRules) -> bool {
        self.path == path && self.names == *names
    }

    /// The users in force; `None` if the file has never been good.
    #[must_use]
    pub fn users(&self) -> Option<usize> {
        self.contents.load().as_ref().map(|contents| contents.len())
    }

    /// How the passdb is, all of one moment.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let watch = self.lock();
        Standing {
            contents: self.contents.load_full(),
            version: watch.loaded,
            since: watch.since,
            trouble: watch.trouble.clone(),
        }
    }

    pub(super) async fn find(self: &Arc<Self>, question: &Question, origin: &Origin, now: Moment) -> Finding {
        self.check(now);
        let (judgement, closed) = {
            let contents = self.contents.load();
            let Some(contents) = contents.as_ref() else {
                return Finding::Out(Outage::Passdb);
            };
            let Some(entry) = contents.lookup(question.name().as_str()) else {
                return Finding::NotFound;
            };
            let closed = entry.closed;
            (self.judge(entry, question, origin), closed)
        };
        let answer = match judgement {
            Judgement::Now(answer) => answer,
            Judgement::Later(work) => match work.await {
                Ok(answer) => answer,
                Err(outage) => return Finding::Out(outage),
            },
        };
        match closed {
            None => Finding::Found(answer),
            Some(closed) => Finding::Closed(closed, answer),
        }
    }

    pub(super) async fn decoy(&self, question: &Question, origin: &Origin) -> Result<Answer, Outage> {
        let judgement = {
            let contents = self.contents.load();
            let decoy = contents.as_ref().and_then(|contents| contents.decoy(question.name().as_str()));
            decoy.map(|entry| self.judge(entry, question, origin))
        };
        match (judgement, question) {
            (Some(Judgement::Now(answer)), _) => Ok(answer),
            (Some(Judgement::Later(work)), _) => work.await,
            (None, Question::VerifyPassword(..)) => Ok(Answer::Verdict(Err(Refusal::UnknownUser))),
            (None, Question::LookupCramMd5(_)) => Ok(unanswerable(Refusal::UnknownUser)),
        }
    }

    /// Does the work first and looks at the entry's restrictions afterwards, so that refusals look alike.
    fn judge(&self, entry: Entry<'_>, question: &Question, origin: &Origin) -> Judgement {
        let standing = standing(&entry, origin);
        match question {
            Question::VerifyPassword(_, password) => {
                let Some(verifiers) = entry.verifiers else {
                    let refusal = standing.unwrap_or(Refusal::NoVerifier);
                    return Judgement::Now(Answer::Verdict(Err(refusal)));
                };
                let verdict = move |proof: Option<Proof>| {
                    Answer::Verdict(standing.map_or_else(|| proof.ok_or(Refusal::WrongPassword), Err))
                };
                match verifiers.strongest().cost() {
                    Cost::Cheap => Judgement::Now(verdict(verifiers.strongest().verify(password))),
                    Cost::Expensive => {
                        let (pool, password) = (Arc::clone(&self.pool), Arc::clone(password));
                        let prefix = Prefix::from(origin.remote);
                        Judgement::Later(Box::pin(async move {
                            let check = move || verifiers.strongest().verify(&password);
                            pool.run(prefix, check).await.map(verdict)
                        }))
                    }
                }
            }
            Question::LookupCramMd5(_) => {
                let key = entry.verifiers.and_then(|verifiers| verifiers.cram_md5());
                Judgement::Now(match (key, standing) {
                    (Some(key), refusal) => Answer::Credential(CramMd5Credential { key, refusal }),
                    (None, refusal) => unanswerable(refusal.unwrap_or(Refusal::NoVerifier)),
                })
            }
        }
    }

    /// Compares the file's identity if it is time to, and loads the file if it has changed. `now` only grows.
    pub fn check(self: &Arc<Self>, now: Moment) {
        let now = millis(now.0);
        let next = self.next_check.load(Ordering::Relaxed);
        let following = now.saturating_add(millis(CHECK_EVERY));
        let swap =
            |next| self.next_check.compare_exchange(next, following, Ordering::Relaxed, Ordering::Relaxed);
        if now < next || swap(next).is_err() || !self.begin_loading() {
            return;
        }
        self.load_somewhere();
    }

    /// Lets [`look_now`](Self::look_now) try a version again that could not be loaded a moment ago.
    pub fn forget_failure(&self) {
        self.lock().failed = None;
    }

    /// Looks at the file at once.
    pub fn look_now(self: &Arc<Self>) -> Look {
        if self.begin_loading() {
            self.load_somewhere();
        }
        let watch = self.lock();
        let waits = watch.failed.is_none() && secrets::fingerprint(&self.path).ok() != watch.loaded;
        if watch.loading || waits { Look::Unsettled } else { Look::Settled }
    }

    /// Small files are loaded here and now.
    fn load_somewhere(self: &Arc<Self>) {
        let size = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        if size <= LOADED_INLINE_BYTES {
            self.load();
        } else {
            self.load_on_a_thread();
        }
    }

    /// Whether the file is to be loaded now, and by nobody else.
    fn begin_loading(&self) -> bool {
        let mut watch = self.lock();
        let found = secrets::fingerprint(&self.path).ok();
        let failed_lately = |(version, at): (_, Instant)| version == found && at.elapsed() < RETRY_AFTER;
        if watch.loading || watch.failed.is_some_and(failed_lately) {
            return false;
        }
        let changed = match (found, watch.loaded) {
            (Some(found), Some(loaded)) if found == loaded => {
                watch.in_doubt && found.age(SystemTime::now()) > TICK
            }
            (Some(found), Some(loaded)) if !found.is_same_file(&loaded) => true,
            // Written in place, or the first one there is: nobody can be told that he does not exist because the
            // file is half copied.
            (Some(found), _) => watch.has_settled(found),
            (None, _) => true,
        };
        watch.loading = changed;
        watch.trying = found;
        changed
    }

    fn load(&self) {
        let loaded = catch_unwind(AssertUnwindSafe(|| self.read()));
        self.install(loaded.unwrap_or_else(|_| Err("a fault in sasld while reading it".to_owned())));
    }

    fn load_on_a_thread(self: &Arc<Self>) {
        let file = Arc::clone(self);
        let loader = thread::Builder::new().name("secrets".to_owned());
        let load = move || {
            be_nice();
            file.load();
        };
        if let Err(error) = loader.spawn(load) {
            self.install(Err(error.to_string()));
        }
    }

    /// Reads the file. Takes as long as the file is large.
    fn read(&self) -> Result<(Loaded, Duration), String> {
        let start = Instant::now();
        let allowed = |name: &str| self.names.canonical(name.as_bytes()).is_ok();
        let previous = self.contents.load();
        let options = LoadOptions {
            names: Names { lowercase: self.names.lowercase(), allowed: &allowed },
            trust: Some(&self.trust),
            previous: previous.as_deref(),
        };
        let loaded = secrets::load(&self.path, &options).map_err(|error| error.to_string())?;
        Ok((loaded, start.elapsed()))
    }

    /// Puts new contents in force, or logs why they are not. Who began loading is done with it then.
    fn install(&self, loaded: Result<(Loaded, Duration), String>) {
        let path = self.path.display();
        let mut watch = self.lock();
        match loaded {
            Ok((Loaded { secrets, fingerprint }, took)) => {
                let same_again = watch.loaded == Some(fingerprint);
                *watch = Watch {
                    loaded: Some(fingerprint),
                    since: if same_again { watch.since } else { Some(SystemTime::now()) },
                    in_doubt: !same_again && fingerprint.age(SystemTime::now()) <= TICK,
                    ..Watch::default()
                };
                let secrets = Arc::new(secrets);
                let old = self.contents.swap(Some(Arc::clone(&secrets)));
                // Only now may somebody else load a newer version.
                drop(watch);
                if !same_again {
                    let problems = secrets.problems().total();
                    info!(event = "secrets_loaded", %path, users = secrets.len(), problems, ms = millis(took));
                    log_problems(&path, &secrets);
                }
                drop(secrets);
                if let Some(old) = old {
                    retire(old);
                }
            }
            Err(reason) => {
                watch.loading = false;
                watch.failed = Some((watch.trying, Instant::now()));
                if watch.trouble.as_ref() != Some(&reason) {
                    let in_force = if watch.loaded.is_some() {
                        "the last good contents"
                    } else {
                        "nothing: no verdicts"
                    };
                    error!(event = "secrets_not_loaded", %path, reason, in_force);
                    watch.trouble = Some(reason);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        // A panic while it was held leaves nothing half done: the watch is replaced as a whole.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wipes contents that are out of force, here and not on a thread that is looking something up in them just now: a
/// hundred megabytes take a while.
fn retire(mut contents: Arc<Secrets>) {
    while let Err(in_use) = Arc::try_unwrap(contents) {
        contents = in_use;
        thread::yield_now();
    }
}

fn log_problems(path: &impl core::fmt::Display, secrets: &Secrets) {
    let problems = secrets.problems();
    for problem in problems.listed().iter().take(PROBLEMS_LOGGED) {
        let user = problem.name.as_deref();
        warn!(event = "secrets_problem", %path, line = problem.line, user, reason = problem.reason);
    }
    if problems.total() > PROBLEMS_LOGGED {
        warn!(event = "secrets_problems", %path, total = problems.total(), hint = "sasld check lists them");
    }
}

/// Why this user is not let in even with the right password.
fn standing(entry: &Entry<'_>, origin: &Origin) -> Option<Refusal> {
    match entry.closed {
        Some(Closed::Decoy) => Some(Refusal::UnknownUser),
        Some(_) => Some(Refusal::Closed),
        None if !entry.admits(origin.remote) => Some(Refusal::Network),
        None => None,
    }
}

/// An answer for CRAM-MD5 about a user without a verifier for it.
fn unanswerable(refusal: Refusal) -> Answer {
    Answer::Credential(CramMd5Credential { key: CramMd5Key::from_state(&[0; 32]), refusal: Some(refusal) })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
