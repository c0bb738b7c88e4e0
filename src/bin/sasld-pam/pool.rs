//! The children of both lanes, and the requests that wait for one.
//!
//! - Children are started when they are needed and stay. There are two lanes with children of their own, so that
//!   those who logged in lately do not wait for strangers; see [`Lane`].
//! - A child that is late is killed, and one that ends, breaks the format or says that it is worn out is replaced. The
//!   request it had has no verdict; the next one goes to another child.
//! - A killed child counts until it is gone, so that those that cannot be killed do not multiply.
//! - Children that die before they are ready are started again after a pause that grows from 0.1 to 5 seconds.
//!   Meanwhile requests have no verdict at once.
//!
//! The short queue is for the moments when two daemons are connected, one of which is about to end. Answers are
//! collected for the supervisor.

use crate::child::{Child, Dying, Heard, Launcher, START_PATIENCE, State};
use sasld::pam::request::{Answer, Lane, Outcome, Ready, Request, Trouble};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use tracing::{error, info};

/// Longest time that one request may take, whatever sasld says.
const MAX_PATIENCE: Duration = Duration::from_secs(15);

/// Requests that may wait in a lane, for each child it can have.
const QUEUED_PER_CHILD: usize = 4;

/// How long a killed child may take to be gone before nobody waits for its place any more.
const DEATH_PATIENCE: Duration = Duration::from_secs(1);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One request on its way.
#[derive(Clone, Copy)]
pub struct Job {
    pub client: u64,
    pub id: u64,
    pub deadline: Instant,
}

/// A descriptor of a child.
#[derive(Clone, Copy)]
pub struct Line {
    crew: usize,
    child: u64,
    is_stderr: bool,
}

/// See the module's head.
pub struct Pool {
    crews: [Crew; 2],
    launcher: Launcher,
    last_child: u64,
    complaint: String,
    answers: Vec<(Job, Outcome)>,
}

/// A lane's children and the requests that wait for one.
struct Crew {
    lane: Lane,
    limit: usize,
    children: Vec<Child>,
    /// Killed, and not gone yet.
    dying: Vec<Dying>,
    queue: VecDeque<(Job, Request)>,
    pause: Duration,
    no_start_before: Instant,
}

impl Pool {
    /// No children yet; at most so many in each lane.
    pub fn new(ordinary: u16, express: u16, launcher: Launcher, now: Instant) -> Self {
        let crew = |lane, limit: u16| Crew {
            lane,
            limit: usize::from(limit),
            children: Vec::new(),
            dying: Vec::new(),
            queue: VecDeque::new(),
            pause: FIRST_PAUSE,
            no_start_before: now,
        };
        Self {
            crews: [crew(Lane::Ordinary, ordinary), crew(Lane::Express, express)],
            launcher,
            last_child: 0,
            complaint: String::new(),
            answers: Vec::new(),
        }
    }

    /// One child is ready before the first user comes; and what is wrong with the service is known at once.
    pub fn warm_up(&mut self, now: Instant) {
        self.start_child(0, now);
    }

    /// Nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        let busy = |child: &Child| matches!(child.state, State::Busy(_));
        self.crews.iter().all(|crew| crew.queue.is_empty() && !crew.children.iter().any(busy))
    }

    /// What there is to listen to.
    pub fn lines(&self) -> impl Iterator<Item = (Line, BorrowedFd<'_>)> {
        self.crews.iter().enumerate().flat_map(|(crew, Crew { children, .. })| {
            children.iter().flat_map(move |child| {
                let line = |is_stderr| Line { crew, child: child.number, is_stderr };
                let stderr = child.stderr.as_ref().map(|stderr| (line(true), stderr.as_fd()));
                [(line(false), child.as_fd())].into_iter().chain(stderr)
            })
        })
    }

    /// What has become of requests since the last call.
    pub fn take_answers(&mut self) -> Vec<(Job, Outcome)> {
        std::mem::take(&mut self.answers)
    }

    /// Kills every child. What was not answered has no verdict.
    pub fn stop(&mut self, now: Instant) {
        for crew in &mut self.crews {
            let waiting = crew.queue.drain(..).map(|(job, _)| job);
            let busy = crew.children.drain(..).filter_map(|mut child| {
                let state = std::mem::replace(&mut child.state, State::Idle);
                child.kill(None, now);
                if let State::Busy(job) = state { Some(job) } else { None }
            });
            let unanswered = busy.chain(waiting);
            self.answers.extend(unanswered.map(|job| (job, undecided(Trouble::NoWorker, "sasld-pam stops"))));
        }
    }

    /// When it will be time for something.
    pub fn next_alarm(&self, now: Instant) -> Option<Instant> {
        let alarms = self.crews.iter().flat_map(|crew| {
            let children = crew.children.iter().filter_map(|child| match &child.state {
                State::Starting => Some(child.born + START_PATIENCE),
                State::Busy(job) => Some(job.deadline),
                State::Idle => None,
            });
            let paused = !crew.queue.is_empty() && crew.no_start_before > now;
            let deaths = crew.dying.iter().map(|dying| dying.since + DEATH_PATIENCE);
            let deaths = deaths.filter(|death| !crew.queue.is_empty() && *death > now);
            children
                .chain(crew.queue.iter().map(|(job, _)| job.deadline))
                .chain(paused.then_some(crew.no_start_before))
                .chain(deaths)
        });
        alarms.min()
    }

    /// Ends what has taken too long.
    pub fn keep_time(&mut self, now: Instant) {
        for index in 0..self.crews.len() {
            let late: Vec<(u64, Option<&'static str>)> = self.crews[index]
                .children
                .iter()
                .filter_map(|child| match &child.state {
                    State::Starting if now >= child.born + START_PATIENCE => {
                        Some((child.number, Some("not ready in time")))
                    }
                    State::Busy(job) if now >= job.deadline => Some((child.number, Some("deadline"))),
                    State::Idle if child.is_worn_out(now) => Some((child.number, None)),
                    State::Starting | State::Idle | State::Busy(_) => None,
                })
                .collect();
            for (number, why) in late {
                self.lose(index, number, why, Trouble::Timeout, now);
            }
            let queue = &mut self.crews[index].queue;
            let expired: Vec<Job> =
                queue.iter().filter(|(job, _)| now >= job.deadline).map(|(job, _)| *job).collect();
            queue.retain(|(job, _)| now < job.deadline);
            for job in expired {
                // Nobody's fault who waited: no child has begun with it.
                self.reply(
                    job,
                    undecided(Trouble::Busy, "no worker was free in time; see `workers` in docs/pam.md"),
                );
            }
        }
        for crew in &mut self.crews {
            crew.dying.retain_mut(|dying| !dying.is_gone());
        }
    }

    /// Hears what a child has to say.
    pub fn attend(&mut self, line: Line, now: Instant) {
        if !line.is_stderr {
            self.hear_child(line.crew, line.child, now);
        } else if let Some(child) = self.child(line.crew, line.child) {
            child.drain_stderr(now);
            if child.floods() {
                self.lose(line.crew, line.child, Some("floods standard error"), Trouble::Crashed, now);
            }
        }
    }

    /// A dead child's channel may be held open by a process that a module has forked.
    pub fn look_for_the_dead(&mut self, now: Instant) {
        for index in 0..self.crews.len() {
            let dead = self.crews[index].children.iter().filter(|child| child.has_died());
            for number in dead.map(|child| child.number).collect::<Vec<_>>() {
                // Its last words first.
                self.hear_child(index, number, now);
                self.lose(index, number, Some("ended"), Trouble::Crashed, now);
            }
        }
    }

    /// The requests of this client are answered no more.
    pub fn forget(&mut self, client: u64) {
        for crew in &mut self.crews {
            crew.queue.retain(|(job, _)| job.client != client);
        }
    }

    /// Takes a request, or answers that there are too many.
    pub fn enqueue(&mut self, client: u64, request: Request, now: Instant) {
        let job = Job { client, id: request.id, deadline: now + request.patience.min(MAX_PATIENCE) };
        let crew = &mut self.crews[index_of(request.lane)];
        if crew.queue.len() < crew.limit * QUEUED_PER_CHILD {
            crew.queue.push_back((job, request));
        } else {
            self.reply(
                job,
                undecided(Trouble::Busy, "more requests than there are workers and places to wait"),
            );
        }
    }

    /// Gives waiting requests to idle children, and starts children for those that are left.
    pub fn dispatch(&mut self, now: Instant) {
        for crew in 0..self.crews.len() {
            self.dispatch_crew(crew, now);
        }
    }

    fn dispatch_crew(&mut self, index: usize, now: Instant) {
        loop {
            let Crew { children, queue, .. } = &mut self.crews[index];
            let idle = |child: &&mut Child| matches!(child.state, State::Idle);
            let Some(child) = children.iter_mut().find(idle) else {
                break;
            };
            let Some((job, request)) = queue.pop_front() else {
                return;
            };
            let number = child.number;
            if child.send(&request).is_ok() {
                child.state = State::Busy(job);
            } else {
                // It has died, and the request has not been heard.
                queue.push_front((job, request));
                self.lose(index, number, Some("takes no request"), Trouble::Crashed, now);
            }
        }
        let crew = &self.crews[index];
        let starting = crew.children.iter().filter(|child| matches!(child.state, State::Starting)).count();
        let wanted = crew.queue.len().saturating_sub(starting);
        let places = crew.limit.saturating_sub(crew.children.len() + crew.dying.len());
        for _ in 0..wanted.min(places) {
            self.start_child(index, now);
        }
        let crew = &mut self.crews[index];
        let will_be_gone = |dying: &Dying| now < dying.since + DEATH_PATIENCE;
        if crew.children.is_empty() && !crew.dying.iter().any(will_be_gone) {
            for (job, _) in std::mem::take(&mut crew.queue) {
                self.reply(
                    job,
                    undecided(Trouble::NoWorker, "no worker can be started; the log of sasld-pam says why"),
                );
            }
        }
    }

    fn start_child(&mut self, index: usize, now: Instant) {
        let crew = &mut self.crews[index];
        if now < crew.no_start_before {
            return;
        }
        self.last_child += 1;
        match self.launcher.start(self.last_child, crew.lane, now) {
            Ok(child) => crew.children.push(child),
            Err(reason) => {
                error!(event = "pam_worker_not_started", %reason);
                crew.pause_starting(now);
            }
        }
    }

    fn child(&mut self, index: usize, number: u64) -> Option<&mut Child> {
        self.crews[index].children.iter_mut().find(|child| child.number == number)
    }

    fn hear_child(&mut self, index: usize, number: u64, now: Instant) {
        let Some(child) = self.child(index, number) else {
            return;
        };
        if matches!(child.hear(), Heard::End) {
            return self.lose(index, number, Some("ended"), Trouble::Crashed, now);
        }
        loop {
            let Some(child) = self.child(index, number) else {
                return;
            };
            match child.buffer.next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => self.on_frame(index, number, &frame, now),
                Err(_) => self.lose(index, number, Some("broke the format"), Trouble::Crashed, now),
            }
        }
    }

    fn on_frame(&mut self, index: usize, number: u64, frame: &[u8], now: Instant) {
        let Some(child) = self.child(index, number) else {
            return;
        };
        match child.state {
            State::Starting => {
                if let Ok(Ready { complaint }) = Ready::decode(frame) {
                    child.state = State::Idle;
                    self.crews[index].pause = FIRST_PAUSE;
                    self.note(complaint);
                    return;
                }
            }
            State::Busy(job) => {
                if let Ok(Answer { id, outcome, last }) = Answer::decode(frame)
                    && id == job.id
                {
                    child.state = State::Idle;
                    let is_last = last || child.is_worn_out(now);
                    if let Outcome::Undecided(Trouble::NoService, reason) = &outcome {
                        self.note(reason.clone());
                    }
                    if is_last {
                        self.lose(index, number, None, Trouble::Crashed, now);
                    }
                    return self.reply(job, outcome);
                }
            }
            State::Idle => {}
        }
        self.lose(index, number, Some("broke the format"), Trouble::Crashed, now);
    }

    /// Logs what is wrong with the service or our rights when it begins, changes and ends.
    fn note(&mut self, complaint: String) {
        if complaint == self.complaint {
            return;
        }
        if complaint.is_empty() {
            info!(event = "pam_service_good");
        } else {
            error!(event = "pam_service_bad", reason = complaint);
        }
        self.complaint = complaint;
    }

    /// Kills a child. Its request, if it has one, has no verdict because of `trouble`; `why` is for the log.
    fn lose(&mut self, index: usize, number: u64, why: Option<&'static str>, trouble: Trouble, now: Instant) {
        let crew = &mut self.crews[index];
        let Some(position) = crew.children.iter().position(|child| child.number == number) else {
            return;
        };
        let mut child = crew.children.swap_remove(position);
        let state = std::mem::replace(&mut child.state, State::Idle);
        crew.dying.push(child.kill(why, now));
        match state {
            State::Busy(job) => self.reply(job, undecided(trouble, why.unwrap_or_default())),
            State::Starting => crew.pause_starting(now),
            State::Idle => {}
        }
    }

    fn reply(&mut self, job: Job, outcome: Outcome) {
        self.answers.push((job, outcome));
    }
}

impl Crew {
    fn pause_starting(&mut self, now: Instant) {
        self.no_start_before = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

fn index_of(lane: Lane) -> usize {
    match lane {
        Lane::Ordinary => 0,
        Lane::Express => 1,
    }
}

fn undecided(trouble: Trouble, text: &str) -> Outcome {
    Outcome::Undecided(trouble, text.to_owned())
}
