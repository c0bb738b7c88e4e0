//! A server under measurement: started privately, bound to cores, ended with all its processes.
//!
//! Every server lives in a temporary directory of its own that goes with it. Only processes started here are signalled,
//! through descriptors (pidfd) taken while they were known to be ours. A server that ends before it greets, or does
//! not greet within ten seconds, is an error with the end of its log.

use std::{
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, chown},
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};
use tempfile::TempDir;

use crate::{
    Outcome,
    connection::Connection,
    dovecot::{self, Penalty},
    echo, interrupt,
    measure::{self, Processes},
    sasld,
};

/// Longest time to a server's first greeting, and to its end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Sasld,
    Dovecot,
    /// Dovecot without its count of failures per address, which costs it a question to another process per login.
    DovecotNoPenalty,
    /// The server that parses nothing.
    Floor,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sasld => "sasld",
            Self::Dovecot => "Dovecot",
            Self::DovecotNoPenalty => "Dovecot, no penalty",
            Self::Floor => "floor",
        }
    }

    /// Starts it on `cores` with `secrets` as the contents of its secrets file. `challenges` is for the floor, which
    /// must be told what it plays.
    pub fn start(self, secrets: &[u8], cores: &[usize], challenges: u8) -> Outcome<Server> {
        let dir = TempDir::with_prefix("sasld-bench-")?;
        let plan = match self {
            Self::Sasld => sasld::plan(dir.path(), secrets)?,
            Self::Dovecot => dovecot::plan(dir.path(), secrets, Penalty::On)?,
            Self::DovecotNoPenalty => dovecot::plan(dir.path(), secrets, Penalty::Off)?,
            Self::Floor => echo::plan(dir.path(), challenges)?,
        };
        Server::launch(self, dir, plan, cores)
    }
}

/// How to run a server inside its directory.
pub struct Plan {
    pub command: Command,
    pub socket: PathBuf,
}

pub struct Server {
    pub kind: Kind,
    pub socket: PathBuf,
    /// From exec to the end of the first greeting.
    pub greeted_after: Duration,
    pub started: Instant,
    dir: TempDir,
    child: Child,
}

impl Server {
    fn launch(kind: Kind, dir: TempDir, mut plan: Plan, cores: &[usize]) -> Outcome<Self> {
        let log = File::create(dir.path().join("log"))?;
        plan.command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let child = measure::bound_to(cores, || Ok(plan.command.spawn()?))?;
        let greeted_after = Duration::ZERO;
        let mut server = Self { kind, socket: plan.socket, greeted_after, started, dir, child };
        server.wait_for_greeting()?;
        server.greeted_after = started.elapsed();
        Ok(server)
    }

    /// Asks until somebody answers: nothing else would tell the moment precisely for every kind.
    fn wait_for_greeting(&mut self) -> Outcome<()> {
        loop {
            interrupt::check()?;
            let Err(error) = Connection::open(&self.socket, process::id()) else {
                return Ok(());
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(self.complaint(&format!("ended with {status}")));
            }
            if self.started.elapsed() > PATIENCE {
                return Err(self.complaint(&format!("does not greet: {error}")));
            }
            thread::yield_now();
        }
    }

    fn complaint(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned();
        format!("{} {what}\n{tail}", self.kind.name()).into()
    }

    /// The user name in every OK, if the server knows no users.
    pub fn canned_user(&self) -> Option<&'static str> {
        (self.kind == Kind::Floor).then_some(echo::CANNED_USER)
    }

    pub fn processes(&self) -> Outcome<Processes> {
        Processes::below(self.child.id())
    }

    /// Writes new contents beside the secrets file, with its owner and mode, ready for [`Self::reload`].
    pub fn prepare_secrets(&self, secrets: &[u8]) -> Outcome<()> {
        let (current, next) = (secrets_file(self.dir.path()), self.next_secrets());
        fs::write(&next, secrets)?;
        let metadata = fs::metadata(current)?;
        chown(&next, Some(metadata.uid()), Some(metadata.gid()))?;
        Ok(fs::set_permissions(&next, metadata.permissions())?)
    }

    fn next_secrets(&self) -> PathBuf {
        self.dir.path().join("users.next")
    }

    /// Puts the prepared contents in place and tells sasld; Dovecot looks by itself.
    pub fn reload(&self) -> Outcome<()> {
        fs::rename(self.next_secrets(), secrets_file(self.dir.path()))?;
        if self.kind == Kind::Sasld {
            let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("process 0")?;
            kill_process(pid, Signal::HUP)?;
        }
        Ok(())
    }

    /// SIGTERM for the first process, which ends the others; SIGKILL for whatever is left when patience ends.
    fn stop(&mut self) -> Outcome<()> {
        let handles: Vec<OwnedFd> = self
            .processes()?
            .pids()
            .iter()
            .filter_map(|pid| pidfd_open(Pid::from_raw(pid.as_raw())?, PidfdFlags::empty()).ok())
            .collect();
        if let Some(first) = handles.first() {
            pidfd_send_signal(first, Signal::TERM)?;
        }
        let patience = Timespec { tv_sec: i64::try_from(PATIENCE.as_secs())?, tv_nsec: 0 };
        for handle in &handles {
            let ended = retry_on_intr(|| poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&patience)))?;
            if ended == 0 {
                pidfd_send_signal(handle, Signal::KILL)?;
            }
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{} did not stop: {error}", self.kind.name());
        }
    }
}

/// Where a server's secrets file lies inside its directory.
pub fn secrets_file(dir: &Path) -> PathBuf {
    dir.join("users")
}
