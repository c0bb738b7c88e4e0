//! A server under measurement: started privately, bound to cores, ended with all its processes.
//!
//! Every server lives in a temporary directory of its own that goes with it. Only processes started here are signalled,
//! through descriptors (pidfd) taken while they were known to be ours. A server that ends before it greets, or does
//! not greet within half a minute, is an error with the end of its log.

use std::{
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, chown},
        unix::net::UnixStream,
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::wait::waitpid;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};
use tempfile::TempDir;

use crate::{
    Outcome,
    connection::Connection,
    dovecot::{self, Passdbs, Penalty},
    echo, interrupt,
    measure::{self, Processes},
    sasld,
};

/// Longest time to a server's first greeting, and to its end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Sasld,
    Dovecot,
    /// Dovecot without its count of failures per address, which costs it a question to another process per login.
    DovecotNoPenalty,
    /// Cyrus SASL's daemon, which has a protocol of its own.
    Saslauthd,
    /// The server that parses nothing.
    Floor,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sasld => "sasld",
            Self::Dovecot => "Dovecot",
            Self::DovecotNoPenalty => "Dovecot, no penalty",
            Self::Saslauthd => "saslauthd",
            Self::Floor => "floor",
        }
    }

    /// Starts it on `cores` with `secrets` as the contents of its secrets file. `challenges` is for the floor, which
    /// must be told what it plays. saslauthd has no secrets file.
    pub fn start(self, secrets: &[u8], cores: &[usize], challenges: u8) -> Outcome<Server> {
        let dir = TempDir::with_prefix("sasld-bench-")?;
        let plan = match self {
            Self::Sasld => sasld::plan(dir.path(), secrets)?,
            Self::Dovecot => dovecot::plan(dir.path(), secrets, Penalty::On, Passdbs::File)?,
            Self::DovecotNoPenalty => dovecot::plan(dir.path(), secrets, Penalty::Off, Passdbs::File)?,
            Self::Saslauthd => return Err("saslauthd has no users but those of PAM".into()),
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
    /// For its end after SIGTERM.
    patience: Duration,
}

impl Server {
    /// Runs the plan until the server greets.
    pub fn launch(kind: Kind, dir: TempDir, mut plan: Plan, cores: &[usize]) -> Outcome<Self> {
        let log = File::create(dir.path().join("log"))?;
        plan.command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: a signal from the terminal is for us, and saslauthd signals its whole group when it ends.
        plan.command.process_group(0);
        let started = Instant::now();
        let child = measure::bound_to(cores, || Ok(plan.command.spawn()?))?;
        let greeted_after = Duration::ZERO;
        let patience = PATIENCE;
        let mut server = Self { kind, socket: plan.socket, greeted_after, started, dir, child, patience };
        server.wait_for_greeting()?;
        server.greeted_after = started.elapsed();
        Ok(server)
    }

    /// Asks until somebody answers: nothing else would tell the moment precisely for every kind.
    fn wait_for_greeting(&mut self) -> Outcome<()> {
        loop {
            interrupt::check()?;
            let greeting: Outcome<()> = match self.kind {
                // Says nothing until it is asked.
                Kind::Saslauthd => UnixStream::connect(&self.socket).map(drop).map_err(Into::into),
                _ => Connection::open(&self.socket, process::id()).map(drop),
            };
            let Err(error) = greeting else {
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
        let secrets = secrets_file(self.dir.path());
        // Kept, for to let go of a large file keeps a core busy for a while.
        fs::hard_link(&secrets, self.dir.path().join("replaced"))?;
        fs::rename(self.next_secrets(), secrets)?;
        if self.kind == Kind::Sasld {
            let pid = Pid::from_raw(i32::try_from(self.child.id())?).ok_or("process 0")?;
            kill_process(pid, Signal::HUP)?;
        }
        Ok(())
    }

    /// Ends it whatever it is doing, which may be a lot that nobody waits for.
    pub fn end_at_once(mut self) {
        self.patience = Duration::ZERO;
    }

    /// SIGTERM for the first process, which ends the others; SIGKILL for whatever is left when patience ends.
    fn stop(&mut self) -> Outcome<()> {
        let processes = self.processes()?;
        let handles: Vec<OwnedFd> = processes
            .pids()
            .iter()
            .filter_map(|pid| pidfd_open(Pid::from_raw(pid.as_raw())?, PidfdFlags::empty()).ok())
            .collect();
        if let Some(first) = handles.first() {
            pidfd_send_signal(first, Signal::TERM)?;
        }
        let deadline = Instant::now() + self.patience;
        for handle in &handles {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
            let ended = retry_on_intr(|| poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&left)))?;
            if ended == 0
                && let Err(error) = pidfd_send_signal(handle, Signal::KILL)
                && error != Errno::SRCH
            {
                return Err(error.into());
            }
        }
        self.child.wait()?;
        for &pid in processes.pids().iter().skip(1) {
            // Ours since its parent was killed; an error says that its parent has seen to it.
            let _ = waitpid(pid, None);
        }
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
