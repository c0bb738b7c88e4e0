//! The parent: takes requests from sasld, hands each to a child, and enforces the time it may take.
//!
//! It runs no module code and never blocks. One thread, one loop around poll(2).
//!
//! - Children are started when they are needed and stay. There are two lanes with children of their own, so that
//!   those who logged in lately do not wait for strangers; see [`Lane`].
//! - A child that is late is killed, and one that ends, breaks the format or says that it is worn out is replaced. The
//!   request it had has no verdict; the next one goes to another child.
//! - Children that die before they are ready are started again after a pause that grows from 0.1 to 5 seconds.
//!   Meanwhile requests have no verdict at once.
//!
//! Concurrency is limited here, by the number of children; sasld is told how many there are and sends no more
//! requests than that, so the queue, and who is next in it, are its business. The short queue here is for the moments
//! when two daemons are connected, one of which is about to end.

use crate::child::{Child, Dying, Heard, Launcher, START_PATIENCE, State};
use crate::client::Client;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Uid;
use sasld::pam::Settings;
use sasld::pam::request::{Answer, Hello, Lane, Outcome, Ready, Request, Trouble};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Longest time that one request may take, whatever sasld says.
const MAX_PATIENCE: Duration = Duration::from_secs(15);

/// Most children of a lane, unless configured.
const MAX_CHILDREN: u16 = 16;

/// Requests that may wait in a lane, for each child it can have.
const QUEUED_PER_CHILD: usize = 4;

/// Connections at a time.
const MAX_CLIENTS: usize = 16;

/// How long requests may go on after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where sasld comes from.
pub enum Entrance {
    /// Whoever connects here, if he is one of these users.
    Listener(UnixListener, Vec<Uid>),
    /// The one who holds the other end; when he goes, so do we.
    Connection(UnixStream),
}

/// One request on its way.
#[derive(Clone, Copy)]
pub struct Job {
    client: u64,
    id: u64,
    deadline: Instant,
}

/// A lane's children and the requests that wait for one.
struct Crew {
    lane: Lane,
    limit: usize,
    children: Vec<Child>,
    queue: VecDeque<(Job, Request)>,
    pause: Duration,
    no_start_before: Instant,
}

/// See the module's head.
pub struct Supervisor {
    entrance: Option<(UnixListener, Vec<Uid>)>,
    clients: BTreeMap<u64, Client>,
    crews: [Crew; 2],
    dying: Vec<Dying>,
    launcher: Launcher,
    hello: Hello,
    signals: SignalFd,
    last_number: u64,
    stop_at: Option<Instant>,
    complaint: String,
}

#[derive(Clone, Copy)]
enum Source {
    Signals,
    Entrance,
    Client(u64),
    Child(usize, u64),
    Stderr(usize, u64),
}

impl Supervisor {
    pub fn new(settings: &Settings, entrance: Entrance, launcher: Launcher) -> io::Result<Self> {
        let ordinary = match settings.workers {
            0 => {
                let cpus =
                    available_parallelism().map_or(1, |cpus| u16::try_from(cpus.get()).unwrap_or(u16::MAX));
                cpus.saturating_mul(2).min(MAX_CHILDREN)
            }
            workers => workers,
        };
        let express = (ordinary / 2).max(1);
        let now = Instant::now();
        let crew = |lane, limit: u16| Crew {
            lane,
            limit: usize::from(limit),
            children: Vec::new(),
            queue: VecDeque::new(),
            pause: FIRST_PAUSE,
            no_start_before: now,
        };
        let watched: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
        watched.thread_block()?;
        let mut supervisor = Self {
            entrance: None,
            clients: BTreeMap::new(),
            crews: [crew(Lane::Ordinary, ordinary), crew(Lane::Express, express)],
            dying: Vec::new(),
            launcher,
            hello: Hello { ordinary, express, settings: settings.to_string() },
            signals: SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            last_number: 0,
            stop_at: None,
            complaint: String::new(),
        };
        match entrance {
            Entrance::Listener(listener, peers) => {
                listener.set_nonblocking(true)?;
                supervisor.entrance = Some((listener, peers));
            }
            Entrance::Connection(stream) => supervisor.welcome(stream)?,
        }
        Ok(supervisor)
    }

    /// Serves until a signal, or until the only connection there can be has ended.
    pub fn run(mut self) -> io::Result<()> {
        info!(event = "pam_ready", workers = self.hello.ordinary, express = self.hello.express, settings = %self.hello.settings);
        // One child is warm before the first user comes; and what is wrong with the service is known at once.
        self.start_child(0, Instant::now());
        while !self.is_over() {
            let now = Instant::now();
            self.keep_time(now);
            for crew in 0..self.crews.len() {
                self.dispatch(crew, now);
            }
            for (source, flags) in self.wait(now)? {
                self.attend(source, flags, Instant::now());
            }
        }
        for crew in &mut self.crews {
            for child in crew.children.drain(..) {
                child.kill(None);
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        if self.entrance.is_none() && self.clients.is_empty() {
            return true;
        }
        let busy = |child: &Child| matches!(child.state, State::Busy(_));
        let idle = !self.crews.iter().any(|crew| crew.children.iter().any(busy));
        self.stop_at.is_some_and(|stop_at| idle || Instant::now() >= stop_at)
    }

    /// Waits until something happens, or until it is time for something.
    fn wait(&self, now: Instant) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some((listener, _)) = &self.entrance
            && self.clients.len() < MAX_CLIENTS
        {
            sources.push(Source::Entrance);
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        for (&number, client) in &self.clients {
            sources.push(Source::Client(number));
            fds.push(PollFd::new(client.as_fd(), client.interest()));
        }
        for (crew, Crew { children, .. }) in self.crews.iter().enumerate() {
            for child in children {
                sources.push(Source::Child(crew, child.number));
                fds.push(PollFd::new(child.as_fd(), PollFlags::POLLIN));
                if let Some(stderr) = &child.stderr {
                    sources.push(Source::Stderr(crew, child.number));
                    fds.push(PollFd::new(stderr.as_fd(), PollFlags::POLLIN));
                }
            }
        }
        let patience = self.next_alarm(now).saturating_duration_since(now);
        // Rounded up, so that it is time when poll says so.
        let timeout = PollTimeout::try_from(patience + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
        let events = sources.into_iter().zip(fds.iter().map(ready));
        Ok(events.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn next_alarm(&self, now: Instant) -> Instant {
        let mut alarm = now + Duration::from_secs(60);
        for crew in &self.crews {
            for child in &crew.children {
                match &child.state {
                    State::Starting => alarm = alarm.min(child.born + START_PATIENCE),
                    State::Busy(job) => alarm = alarm.min(job.deadline),
                    State::Idle => {}
                }
            }
            alarm = crew.queue.iter().map(|(job, _)| job.deadline).fold(alarm, Instant::min);
            if !crew.queue.is_empty() && crew.no_start_before > now {
                alarm = alarm.min(crew.no_start_before);
            }
        }
        self.stop_at.map_or(alarm, |stop_at| alarm.min(stop_at))
    }

    /// Ends what has taken too long.
    fn keep_time(&mut self, now: Instant) {
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
                self.reply(job, undecided(Trouble::Timeout, "no child was free in time"));
            }
        }
        self.dying.retain_mut(|dying| !dying.is_gone());
    }

    fn attend(&mut self, source: Source, flags: PollFlags, now: Instant) {
        match source {
            Source::Signals => self.hear_signals(now),
            Source::Entrance => self.accept(),
            Source::Client(number) => self.attend_client(number, flags, now),
            Source::Child(crew, number) => self.hear_child(crew, number, now),
            Source::Stderr(crew, number) => {
                if let Some(child) = self.child(crew, number) {
                    child.drain_stderr(now);
                }
            }
        }
    }

    fn hear_signals(&mut self, now: Instant) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGCHLD as u32 {
                self.look_for_the_dead(now);
            }
            if [Signal::SIGTERM, Signal::SIGINT].iter().any(|stop| signal.ssi_signo == *stop as u32) {
                info!(event = "pam_stopping");
                self.entrance = None;
                self.stop_at = Some(now + STOP_PATIENCE);
            }
        }
    }

    /// A dead child's channel may be held open by a process that a module has forked.
    fn look_for_the_dead(&mut self, now: Instant) {
        for index in 0..self.crews.len() {
            let dead = self.crews[index].children.iter().filter(|child| child.has_died());
            for number in dead.map(|child| child.number).collect::<Vec<_>>() {
                // Its last words first.
                self.hear_child(index, number, now);
                self.lose(index, number, Some("ended"), Trouble::Crashed, now);
            }
        }
    }

    fn accept(&mut self) {
        let Some((listener, peers)) = &self.entrance else {
            return;
        };
        let Ok((stream, _)) = listener.accept() else {
            // Nobody there any more; or no descriptors, and then he waits in the backlog.
            return;
        };
        let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials);
        match peer {
            Ok(peer) if peers.contains(&Uid::from_raw(peer.uid())) => {
                if let Err(reason) = self.welcome(stream) {
                    warn!(event = "pam_client_lost", %reason);
                }
            }
            Ok(peer) => warn!(event = "pam_stranger", uid = peer.uid(), pid = peer.pid()),
            Err(reason) => warn!(event = "pam_stranger", %reason),
        }
    }

    fn welcome(&mut self, stream: UnixStream) -> io::Result<()> {
        let mut client = Client::new(stream)?;
        client.send(&self.hello.encode());
        let number = self.number();
        self.clients.insert(number, client);
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn attend_client(&mut self, number: u64, flags: PollFlags, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        match client.attend(flags) {
            Ok(requests) => {
                for request in requests {
                    self.enqueue(number, request, now);
                }
            }
            Err(reason) => {
                if let Some(reason) = reason {
                    warn!(event = "pam_client_lost", %reason);
                }
                self.clients.remove(&number);
                for crew in &mut self.crews {
                    crew.queue.retain(|(job, _)| job.client != number);
                }
            }
        }
    }

    fn enqueue(&mut self, client: u64, request: Request, now: Instant) {
        let job = Job { client, id: request.id, deadline: now + request.patience.min(MAX_PATIENCE) };
        let crew = &mut self.crews[index_of(request.lane)];
        if crew.queue.len() < crew.limit * QUEUED_PER_CHILD {
            crew.queue.push_back((job, request));
        } else {
            self.reply(job, undecided(Trouble::Busy, "too many requests"));
        }
    }

    /// Gives waiting requests to idle children, and starts children for those that are left.
    fn dispatch(&mut self, index: usize, now: Instant) {
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
        for _ in 0..wanted.min(crew.limit - crew.children.len()) {
            self.start_child(index, now);
        }
        let crew = &mut self.crews[index];
        if crew.children.is_empty() {
            for (job, _) in std::mem::take(&mut crew.queue) {
                self.reply(job, undecided(Trouble::NoWorker, "no child can be started"));
            }
        }
    }

    fn start_child(&mut self, index: usize, now: Instant) {
        let number = self.number();
        let crew = &mut self.crews[index];
        if now < crew.no_start_before {
            return;
        }
        match self.launcher.start(number, crew.lane, now) {
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
                    if last || child.is_worn_out(now) {
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
        // What it said last may explain it.
        child.drain_stderr(now);
        self.dying.push(child.kill(why));
        match state {
            State::Busy(job) => self.reply(job, undecided(trouble, why.unwrap_or_default())),
            State::Starting => crew.pause_starting(now),
            State::Idle => {}
        }
    }

    fn reply(&mut self, job: Job, outcome: Outcome) {
        // The one who asked may be gone.
        if let Some(client) = self.clients.get_mut(&job.client) {
            client.send(&Answer { id: job.id, outcome, last: false }.encode());
        }
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
