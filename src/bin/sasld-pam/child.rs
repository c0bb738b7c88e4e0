//! One child as the supervisor sees it: started by running this program anew, spoken to over a socket that is its
//! standard input, ended by SIGKILL.
//!
//! A child leads a process group of its own, so what its modules start dies with it. What it writes to standard error
//! goes to the log in whole lines, a few at a time; the rest is read and counted, so that no module ever blocks on it.

use crate::pool::Job;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use sasld::pam::request::{FrameBuffer, Lane, MAX_FRAME_BYTES, Request};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tracing::{debug, error, warn};
use zeroize::Zeroizing;

/// How long a child may take until it is ready.
pub const START_PATIENCE: Duration = Duration::from_secs(5);

/// After so many requests a child is replaced: modules leak.
const MAX_REQUESTS: u32 = 500;

/// After this time a child is replaced.
const MAX_AGE: Duration = Duration::from_secs(3_600);

/// Lines of a child's standard error that are logged in [`STDERR_PERIOD`].
const STDERR_LINES: u32 = 10;
const STDERR_PERIOD: Duration = Duration::from_secs(10);

/// Longest line of standard error that is logged, in bytes.
const STDERR_LINE_BYTES: usize = 256;

/// How much is read at a time, and what a pipe holds; see pipe(7).
const STDERR_CHUNK_BYTES: usize = 16_384;
const PIPE_BYTES: usize = 65_536;

/// Who writes more than this to standard error during one request is killed.
const MAX_STDERR_BYTES: u64 = 1 << 20;

/// How children are started.
pub struct Launcher {
    /// What a child is told besides its lane.
    pub arguments: Vec<OsString>,
}

/// A running child.
pub struct Child {
    pub number: u64,
    pub state: State,
    pub born: Instant,
    channel: UnixStream,
    pub stderr: Option<ChildStderr>,
    pub buffer: FrameBuffer,
    process: std::process::Child,
    served: u32,
    /// Bytes of standard error since the last request was sent.
    written: u64,
    chatter: Chatter,
}

/// What a child does.
pub enum State {
    /// It has not said that it is ready.
    Starting,
    /// It waits for a request.
    Idle,
    /// It answers this one.
    Busy(Job),
}

/// What came of reading from a child.
pub enum Heard {
    /// Some bytes are in the buffer, or none yet.
    Bytes,
    /// There will be no more.
    End,
}

impl Launcher {
    /// Starts a child.
    pub fn start(&self, number: u64, lane: Lane, now: Instant) -> io::Result<Child> {
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_nonblocking(true)?;
        let lane = match lane {
            Lane::Ordinary => "--child=ordinary",
            Lane::Express => "--child=express",
        };
        // The running program, even if the file has been replaced by another version meanwhile.
        let mut process = Command::new("/proc/self/exe")
            .arg0("sasld-pam")
            .arg(lane)
            .args(&self.arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = process.stderr.take();
        if let Some(stderr) = &stderr {
            fcntl(stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        debug!(event = "pam_worker_started", worker = process.id(), lane);
        Ok(Child {
            number,
            state: State::Starting,
            born: now,
            channel,
            stderr,
            buffer: FrameBuffer::default(),
            process,
            served: 0,
            written: 0,
            chatter: Chatter::new(now),
        })
    }
}

impl Child {
    /// Hands over a request. A child whose socket does not take it is broken.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        self.served += 1;
        self.written = 0;
        self.channel.write_all(&request.encode().map_err(io::Error::other)?)
    }

    /// Reads what there is, at most one frame's worth.
    pub fn hear(&mut self) -> Heard {
        let mut chunk = Zeroizing::new([0; MAX_FRAME_BYTES]);
        match self.channel.read(&mut chunk[..]) {
            Ok(0) => Heard::End,
            Ok(read) => {
                self.buffer.extend(&chunk[..read]);
                Heard::Bytes
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Heard::Bytes
            }
            Err(_) => Heard::End,
        }
    }

    /// Whether it has served its time.
    pub fn is_worn_out(&self, now: Instant) -> bool {
        is_worn_out(self.served, now.saturating_duration_since(self.born))
    }

    /// Reads its standard error into the log; whether there may be more at once.
    pub fn drain_stderr(&mut self, now: Instant) -> bool {
        let Some(stderr) = &mut self.stderr else {
            return false;
        };
        let worker = self.process.id();
        let mut chunk = [0; STDERR_CHUNK_BYTES];
        match stderr.read(&mut chunk) {
            Ok(read @ 1..) => {
                self.written += read as u64;
                self.chatter.add(&chunk[..read], worker, now);
                true
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                false
            }
            Ok(0) | Err(_) => {
                self.stderr = None;
                self.chatter.end(worker);
                false
            }
        }
    }

    /// Logs what it has written last, which may explain its end: as much as a pipe holds, and the line it did not finish.
    fn log_last_words(&mut self, now: Instant) {
        for _ in 0..PIPE_BYTES / STDERR_CHUNK_BYTES {
            if !self.drain_stderr(now) {
                break;
            }
        }
        self.chatter.end(self.process.id());
    }

    /// Whether it writes without end.
    pub fn floods(&self) -> bool {
        self.written > MAX_STDERR_BYTES
    }

    /// Whether its process has ended. It stays a zombie, so that its number is nobody else's when it is killed.
    pub fn has_died(&self) -> bool {
        let id = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        id.is_some_and(|id| matches!(waitid(WaitId::Pid(id), options), Ok(Some(_))))
    }

    /// Kills it, with everything it started. `why` goes to the log, unless the end was planned.
    pub fn kill(mut self, why: Option<&'static str>, now: Instant) -> Dying {
        self.log_last_words(now);
        let mut dying = Dying { process: self.process, why, since: now };
        dying.kill();
        dying
    }
}

fn is_worn_out(served: u32, age: Duration) -> bool {
    served >= MAX_REQUESTS || age >= MAX_AGE
}

/// A child that has been killed and is still to be waited for.
pub struct Dying {
    process: std::process::Child,
    why: Option<&'static str>,
    pub since: Instant,
}

impl Dying {
    fn kill(&mut self) {
        let worker = self.process.id();
        // A module may have left the group, or become somebody else with it.
        let group = i32::try_from(worker).map(Pid::from_raw);
        let _ = group.map(|group| killpg(group, Signal::SIGKILL));
        if let Err(reason) = self.process.kill() {
            // Its channel is closed; more cannot be done with the rights there are.
            error!(event = "pam_worker_not_killed", worker, %reason);
        }
    }

    /// Whether it is gone for good; the first call that sees it logs how it ended.
    pub fn is_gone(&mut self) -> bool {
        match self.process.try_wait() {
            Ok(None) => false,
            Ok(Some(status)) => {
                if let Some(why) = self.why {
                    warn!(event = "pam_worker_lost", worker = self.process.id(), why, status = %ended(status));
                }
                true
            }
            Err(_) => true,
        }
    }
}

/// `exit 1` or `signal 11`; SIGKILL is ours.
fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// What a child writes to standard error.
struct Chatter {
    line: Vec<u8>,
    lines_left: u32,
    unlogged: u64,
    since: Instant,
}

impl Chatter {
    fn new(now: Instant) -> Self {
        Self { line: Vec::new(), lines_left: STDERR_LINES, unlogged: 0, since: now }
    }

    fn add(&mut self, bytes: &[u8], worker: u32, now: Instant) {
        if now >= self.since + STDERR_PERIOD {
            self.tell_unlogged(worker);
            (self.lines_left, self.since) = (STDERR_LINES, now);
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = STDERR_LINE_BYTES - self.line.len();
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.unlogged += text.len().saturating_sub(room) as u64;
            if piece.ends_with(b"\n") {
                self.end_line(worker);
            }
        }
    }

    /// There will be no more.
    fn end(&mut self, worker: u32) {
        if !self.line.is_empty() {
            self.end_line(worker);
        }
        self.tell_unlogged(worker);
    }

    fn tell_unlogged(&mut self, worker: u32) {
        if self.unlogged > 0 {
            warn!(event = "pam_stderr_unlogged", worker, bytes = self.unlogged);
            self.unlogged = 0;
        }
    }

    fn end_line(&mut self, worker: u32) {
        if self.lines_left > 0 && !self.line.is_empty() {
            self.lines_left -= 1;
            warn!(event = "pam_stderr", worker, text = %String::from_utf8_lossy(&self.line));
        } else {
            self.unlogged += self.line.len() as u64;
        }
        self.line.clear();
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundred_requests_or_an_hour_are_enough_for_a_child() {
        let second = Duration::from_secs(1);
        assert!(!is_worn_out(499, 3_599 * second));
        assert!(is_worn_out(500, second));
        assert!(is_worn_out(0, 3_600 * second));
    }
}
