//! The parent: takes requests from sasld, has the [`Pool`] answer them, and sends the answers back.
//!
//! It runs no module code and never blocks: one loop around poll(2), and a thread beside it that writes the log.
//!
//! Under systemd it says when it is ready, that it is alive (half as often as asked for, from the loop itself), and that
//! it stops. When descriptors run out, whoever wants to connect waits in the backlog.
//!
//! Concurrency is limited here, by the number of children; sasld is told how many there are and sends no more
//! requests than that, so the queue, and who is next in it, are its business.

use crate::child::Launcher;
use crate::client::Client;
use crate::pool::{Job, Line, Pool};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Uid;
use sasld::pam::Settings;
use sasld::pam::request::{Answer, Hello};
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Most children of a lane, unless configured.
const MAX_CHILDREN: u16 = 16;

/// Connections at a time.
const MAX_CLIENTS: usize = 16;

/// How long requests may go on after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How long nobody is accepted after that has failed, and how often it is logged.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
const ACCEPT_COMPLAINTS: Duration = Duration::from_secs(10);

/// Where sasld comes from.
pub enum Entrance {
    /// Whoever connects here, if he is one of these users.
    Listener(UnixListener, Vec<Uid>),
    /// The one who holds the other end; when he goes, so do we.
    Connection(UnixStream),
}

/// See the module's head.
pub struct Supervisor {
    entrance: Option<(UnixListener, Vec<Uid>)>,
    clients: BTreeMap<u64, Client>,
    last_client: u64,
    pool: Pool,
    hello: Hello,
    signals: SignalFd,
    stop_at: Option<Instant>,
    /// Nobody is accepted before.
    accept_after: Instant,
    /// It is not logged before that nobody can be accepted.
    complain_after: Instant,
    watchdog: Option<Watchdog>,
}

/// How often systemd wants to hear from us.
struct Watchdog {
    interval: Duration,
    next: Instant,
}

#[derive(Clone, Copy)]
enum Source {
    Signals,
    Entrance,
    Client(u64),
    Child(Line),
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
        let watched: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
        watched.thread_block()?;
        let now = Instant::now();
        let mut supervisor = Self {
            entrance: None,
            clients: BTreeMap::new(),
            last_client: 0,
            pool: Pool::new(ordinary, express, launcher, now),
            hello: Hello { ordinary, express, settings: settings.to_string() },
            signals: SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            stop_at: None,
            accept_after: now,
            complain_after: now,
            watchdog: sd_notify::watchdog_enabled()
                .map(|patience| Watchdog { interval: patience / 2, next: now }),
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
        self.pool.warm_up(Instant::now());
        notify(&[NotifyState::Ready]);
        while !self.is_over() {
            let now = Instant::now();
            self.pool.keep_time(now);
            self.pool.dispatch(now);
            self.send_answers();
            self.feed_the_watchdog(now);
            for (source, flags) in self.wait(now)? {
                self.attend(source, flags, Instant::now());
            }
        }
        self.pool.stop(Instant::now());
        self.send_answers();
        Ok(())
    }

    fn feed_the_watchdog(&mut self, now: Instant) {
        if let Some(watchdog) = &mut self.watchdog
            && now >= watchdog.next
        {
            watchdog.next = now + watchdog.interval;
            notify(&[NotifyState::Watchdog]);
        }
    }

    fn is_over(&self) -> bool {
        if self.entrance.is_none() && self.clients.is_empty() {
            return true;
        }
        self.stop_at.is_some_and(|stop_at| self.pool.is_idle() || Instant::now() >= stop_at)
    }

    /// Waits until something happens, or until it is time for something.
    fn wait(&self, now: Instant) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some((listener, _)) = &self.entrance
            && self.clients.len() < MAX_CLIENTS
            && now >= self.accept_after
        {
            sources.push(Source::Entrance);
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        for (&number, client) in &self.clients {
            sources.push(Source::Client(number));
            fds.push(PollFd::new(client.as_fd(), client.interest()));
        }
        for (line, descriptor) in self.pool.lines() {
            sources.push(Source::Child(line));
            fds.push(PollFd::new(descriptor, PollFlags::POLLIN));
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
        let accept = (self.accept_after > now).then_some(self.accept_after);
        let watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.next);
        let alarms = self.pool.next_alarm(now).into_iter().chain(self.stop_at).chain(accept).chain(watchdog);
        alarms.fold(now + Duration::from_secs(60), Instant::min)
    }

    fn attend(&mut self, source: Source, flags: PollFlags, now: Instant) {
        match source {
            Source::Signals => self.hear_signals(now),
            Source::Entrance => self.accept(now),
            Source::Client(number) => self.attend_client(number, flags, now),
            Source::Child(line) => self.pool.attend(line, now),
        }
    }

    fn hear_signals(&mut self, now: Instant) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGCHLD as u32 {
                self.pool.look_for_the_dead(now);
            }
            if [Signal::SIGTERM, Signal::SIGINT].iter().any(|stop| signal.ssi_signo == *stop as u32) {
                info!(event = "pam_stopping");
                notify(&[NotifyState::Stopping]);
                self.entrance = None;
                self.stop_at = Some(now + STOP_PATIENCE);
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        let Some((listener, peers)) = &self.entrance else {
            return;
        };
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // Nobody there any more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(reason) => {
                // He waits in the backlog, and poll would say so without pause.
                self.accept_after = now + ACCEPT_PAUSE;
                if now >= self.complain_after {
                    self.complain_after = now + ACCEPT_COMPLAINTS;
                    warn!(event = "pam_not_accepted", %reason);
                }
                return;
            }
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
        self.last_client += 1;
        self.clients.insert(self.last_client, client);
        Ok(())
    }

    fn attend_client(&mut self, number: u64, flags: PollFlags, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        match client.attend(flags) {
            Ok(requests) => {
                for request in requests {
                    self.pool.enqueue(number, request, now);
                }
            }
            Err(reason) => {
                if let Some(reason) = reason {
                    warn!(event = "pam_client_lost", %reason);
                }
                self.clients.remove(&number);
                self.pool.forget(number);
            }
        }
    }

    fn send_answers(&mut self) {
        for (Job { client, id, .. }, outcome) in self.pool.take_answers() {
            // The one who asked may be gone.
            if let Some(client) = self.clients.get_mut(&client) {
                client.send(&Answer { id, outcome, last: false }.encode());
            }
        }
    }
}

/// Tells systemd, where there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(reason) = sd_notify::notify(states) {
        warn!(event = "not_notified", %reason);
    }
}
