//! System passwords as a passdb: a client of the program `sasld-pam` (see [`crate::pam`]).
//!
//! Questions wait here, in turn by the network they come from ([`FairQueue`]), and go out over one connection as fast
//! as `sasld-pam` has workers. Users who logged in from the same network lately have workers of their own, and a network
//! from which wrong passwords came lately waits behind those from which none came (`standing`).
//!
//! Found and right is yes, found and wrong is no; `verdict` says what is what. A password not checked within the
//! deadline, by a worker that died, or because `sasld-pam` is gone, has no verdict ([`Outage`]). The connection is made
//! again by itself; what is wrong with it is logged when it begins and when it ends. [`Pam::ask_about_nobody`] shows
//! whether all that works, at nobody's cost.

mod connection;
mod standing;
mod verdict;

use super::Finding;
use super::fair_queue::{FairQueue, Prefix};
use super::trail::Passed;
use crate::credential::Password;
use crate::pam::request::{Lane, Outcome, Trouble, is_tty, is_user};
use crate::pam::{self, MAX_PASSWORD_BYTES};
use crate::sasl::{Name, NameRules, Outage, Question};
use crate::session::{Moment, Origin};
use crate::wire::Secured;
use core::time::Duration;
use standing::{Standing, Standings};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

pub use verdict::trouble;

/// Questions that may wait in each of the queues.
const QUEUE_CAPACITY: usize = 1_024;

/// How many strangers are served, at most, between two guessers.
const SERVED_BEFORE_GUESSERS: u8 = 3;

/// How many others the ordinary workers serve, at most, between two known users who wait. The workers of known users may
/// be a single one, and somebody whose check hangs keeps it.
const SERVED_BEFORE_KNOWN: u8 = 3;

/// The share of a question's time in which its check is not begun any more: the child would be killed in the middle of
/// it, and those behind it in line would come too late for the same reason.
const TOO_LATE: u32 = 20;

/// Whom doctor asks about: a name that `useradd` would not make.
pub const NOBODY: &str = "sasld.doctor.asks";

/// How long after the deadline an answer about nobody is waited for. `sasld-pam` ends a check at its deadline and says
/// so, and an answer that nobody waits for would count against those who come from the same place.
const LATE_ANSWER: Duration = Duration::from_secs(1);

/// `PAM_TTY` for a mail server that names no service.
const DEFAULT_TTY: &str = "sasld";

/// What the configuration says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where `sasld-pam` listens; absolute, at most 107 bytes.
    pub socket: PathBuf,
    /// A module may change the user's name, and the new one is who has logged in.
    pub allow_user_change: bool,
    /// What `sasld-pam` is started with, by sasld or by its unit.
    pub worker: pam::Settings,
}

/// How `sasld-pam` is reached.
pub enum Entrance {
    /// At [`Settings::socket`].
    Socket,
    /// We started it, this is the connection, and this may start another one when it has ended.
    Started(UnixStream, Start),
}

/// Starts `sasld-pam` anew.
pub type Start = Box<dyn FnMut() -> io::Result<UnixStream> + Send>;

/// See the module's head.
pub struct Pam {
    shared: Arc<Shared>,
    connection: AbortHandle,
}

struct Shared {
    settings: Settings,
    names: NameRules,
    state: Mutex<State>,
    /// Milliseconds that a question may wait for its answer.
    patience: AtomicU64,
    /// There is something to send.
    wake: Notify,
    /// Started by us, who may not be able to do so again.
    started: AtomicBool,
}

struct State {
    known: FairQueue<Job>,
    strangers: FairQueue<Job>,
    guessers: FairQueue<Job>,
    /// Since somebody from the guessers' queue was served.
    served_before_guessers: u8,
    /// Since an ordinary worker served somebody from the known users' queue.
    served_before_known: u8,
    standings: Standings,
    /// There is no connection, and will be none for a while.
    down: bool,
    health: Health,
}

/// How the connection to `sasld-pam` is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It is there.
    pub connected: bool,
    /// Workers of both lanes, as it said last.
    pub workers: usize,
    /// Questions that wait for a worker.
    pub waiting: usize,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// A question on its way.
struct Job {
    user: Name,
    /// Where it comes from, and when it came.
    from: (Prefix, Moment),
    password: Arc<Password>,
    rhost: String,
    tty: String,
    /// After this it is not worth a check any more.
    begin_by: Instant,
    /// Nobody waits for the answer any longer.
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
}

/// Whether somebody still waited for an answer when it came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InTime {
    Yes,
    /// He gave up, or it is too late; it has kept a worker all the same.
    No,
}

impl Pam {
    /// Begins to connect; questions without an answer after `deadline` have no verdict. Needs a runtime's context, and
    /// the connection lives there.
    #[must_use]
    pub fn open(settings: Settings, names: NameRules, deadline: Duration, entrance: Entrance) -> Self {
        let state = State {
            known: FairQueue::new(QUEUE_CAPACITY),
            strangers: FairQueue::new(QUEUE_CAPACITY),
            guessers: FairQueue::new(QUEUE_CAPACITY),
            served_before_guessers: 0,
            served_before_known: 0,
            standings: Standings::default(),
            down: false,
            health: Health::default(),
        };
        let patience = AtomicU64::new(millis(deadline));
        let started = AtomicBool::new(matches!(entrance, Entrance::Started(..)));
        let state = Mutex::new(state);
        let shared = Arc::new(Shared { settings, names, state, patience, wake: Notify::new(), started });
        let connection = tokio::spawn(connection::run(Arc::clone(&shared), entrance)).abort_handle();
        Self { shared, connection }
    }

    /// What the configuration says about it.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// How it is now.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = self.shared.lock();
        let waiting = [&state.known, &state.strangers, &state.guessers].map(FairQueue::len).iter().sum();
        Health { waiting, ..state.health.clone() }
    }

    /// Whether this is the passdb for these settings and rules.
    #[must_use]
    pub fn is(&self, settings: &Settings, names: &NameRules) -> bool {
        self.shared.settings == *settings && self.shared.names == *names
    }

    /// Whether it cannot be replaced by one with these settings while we run: its `sasld-pam` would be gone for good.
    #[must_use]
    pub fn must_stay(&self, settings: &Settings) -> bool {
        self.shared.started.load(Ordering::Relaxed) && self.shared.settings.socket == settings.socket
    }

    /// Changes the time after which a question has no verdict.
    pub fn set_deadline(&self, deadline: Duration) {
        self.shared.patience.store(millis(deadline), Ordering::Relaxed);
    }

    pub(super) async fn find(&self, question: &Question, origin: &Origin, now: Moment) -> Finding {
        let Question::VerifyPassword(name, password) = question else {
            // PAM never tells a password, so it cannot say what a response should be.
            return Finding::Passed(Passed::Mechanism);
        };
        if !is_user(name.as_str()) {
            return Finding::NotFound;
        }
        if password.len() > MAX_PASSWORD_BYTES || !password.is_possible() {
            // Nobody's here. Another passdb may have room for it.
            return Finding::Passed(Passed::Password);
        }
        let prefix = Prefix::from(origin.remote);
        match self.ask(name, password, origin, prefix, now).await {
            Ok(outcome) => self.shared.judge(outcome, name, (prefix, now), InTime::Yes),
            Err(outage) => Finding::Out(outage),
        }
    }

    /// Asks about [`NOBODY`], in turn like anybody, which takes a worker and no password of anybody, and changes nothing
    /// for those who log in.
    ///
    /// # Errors
    /// [`Outage`]: `sasld-pam` has not answered.
    pub async fn ask_about_nobody(&self, now: Moment) -> Result<Outcome, Outage> {
        // Whatever the rules for users are, this is a name.
        let Ok(name) = NameRules::default().canonical(NOBODY.as_bytes()) else {
            return Err(Outage::Internal);
        };
        let origin = Origin { service: Arc::from(&b"doctor"[..]), remote: None, secured: Secured::No };
        let password = Arc::new(Password::new(b"none"));
        let (deadline, answer) = self.wait_in_line(&name, &password, &origin, Prefix::Unknown, now)?;
        answered(deadline + LATE_ANSWER, answer).await
    }

    /// Waits for its turn and for the answer.
    async fn ask(
        &self,
        name: &Name,
        password: &Arc<Password>,
        origin: &Origin,
        prefix: Prefix,
        now: Moment,
    ) -> Result<Outcome, Outage> {
        let (deadline, answer) = self.wait_in_line(name, password, origin, prefix, now)?;
        answered(deadline, answer).await
    }

    /// Puts a question into its queue: when there is no time left for it, and where its answer comes.
    fn wait_in_line(
        &self,
        name: &Name,
        password: &Arc<Password>,
        origin: &Origin,
        prefix: Prefix,
        now: Moment,
    ) -> Result<(Instant, oneshot::Receiver<Outcome>), Outage> {
        let patience = Duration::from_millis(self.shared.patience.load(Ordering::Relaxed));
        let deadline = Instant::now() + patience;
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.down {
                return Err(Outage::Passdb);
            }
            let standing = state.standings.of(name, prefix, now);
            let job = Job {
                user: name.clone(),
                from: (prefix, now),
                password: Arc::clone(password),
                rhost: origin.remote.map(|address| address.to_canonical().to_string()).unwrap_or_default(),
                tty: tty(&origin.service),
                begin_by: deadline - patience / TOO_LATE,
                deadline,
                reply,
            };
            if let Some(gives_way) = state.queue(standing).push(prefix, job) {
                // Whoever waits for it hears that the queue is full.
                gives_way.give_up(Trouble::Busy);
            }
        }
        self.shared.wake.notify_one();
        Ok((deadline, answer))
    }
}

async fn answered(until: Instant, answer: oneshot::Receiver<Outcome>) -> Result<Outcome, Outage> {
    match timeout_at(until, answer).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(_)) => Err(Outage::Passdb),
        Err(_) => Err(Outage::Deadline),
    }
}

impl Drop for Pam {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an answer means, and what is remembered of it.
    fn judge(
        &self,
        outcome: Outcome,
        user: &Name,
        (prefix, asked): (Prefix, Moment),
        in_time: InTime,
    ) -> Finding {
        let trouble = if let Outcome::Undecided(trouble, _) = &outcome { Some(*trouble) } else { None };
        let finding = verdict::finding(outcome, user, &self.settings, &self.names);
        let standings = &mut self.lock().standings;
        match &finding {
            finding if verdict::is_yes(finding) => {
                if in_time == InTime::Yes {
                    standings.logged_in(user, prefix, asked);
                }
            }
            Finding::Found(_) => standings.refused(user, prefix, asked),
            // Cost no hash, and may be right for the next passdb; or says nothing.
            Finding::Closed(..) | Finding::NotFound | Finding::Passed(_) | Finding::Out(_) => {
                if let Some(trouble) = trouble {
                    standings.came_to_grief(trouble, user, prefix, asked);
                }
            }
        }
        finding
    }
}

impl State {
    fn queue(&mut self, standing: Standing) -> &mut FairQueue<Job> {
        match standing {
            Standing::Known => &mut self.known,
            Standing::Stranger => &mut self.strangers,
            Standing::Guesser => &mut self.guessers,
        }
    }

    /// The next job for a worker of this lane. Ordinary workers help out with known users, never the other way round.
    fn next(&mut self, lane: Lane) -> Option<Job> {
        if lane == Lane::Express {
            return self.take(Standing::Known);
        }
        if self.served_before_known < SERVED_BEFORE_KNOWN
            && let Some(job) = self.next_stranger()
        {
            self.served_before_known += 1;
            return Some(job);
        }
        let Some(job) = self.take(Standing::Known) else {
            // Whoever of them comes next has the next turn.
            return self.next_stranger();
        };
        self.served_before_known = 0;
        Some(job)
    }

    /// Guessers come last, but they do come: somebody behind the same address may be honest.
    fn next_stranger(&mut self) -> Option<Job> {
        if self.served_before_guessers < SERVED_BEFORE_GUESSERS
            && let Some(job) = self.take(Standing::Stranger)
        {
            self.served_before_guessers += 1;
            return Some(job);
        }
        let job = self.take(Standing::Guesser).or_else(|| self.take(Standing::Stranger))?;
        self.served_before_guessers = 0;
        Some(job)
    }

    /// The next job of this queue for which somebody still waits and there is time.
    fn take(&mut self, standing: Standing) -> Option<Job> {
        loop {
            let job = self.queue(standing).pop()?;
            if job.reply.is_closed() {
                continue;
            }
            if Instant::now() <= job.begin_by {
                return Some(job);
            }
            job.give_up(Trouble::Busy);
        }
    }

    /// From now on nobody waits, and everybody who does hears that there is no verdict.
    fn go_down(&mut self) {
        self.down = true;
        for queue in [&mut self.known, &mut self.strangers, &mut self.guessers] {
            while queue.pop().is_some() {}
        }
    }
}

impl Job {
    fn give_up(self, trouble: Trouble) {
        // He may have given up himself.
        let _ = self.reply.send(Outcome::Undecided(trouble, String::new()));
    }
}

/// The mail server's service as a terminal's name, which modules compare and log.
fn tty(service: &[u8]) -> String {
    let name = if is_tty(service) { service } else { DEFAULT_TTY.as_bytes() };
    String::from_utf8_lossy(name).into_owned()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
