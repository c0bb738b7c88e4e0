//! A private directory with a configuration, and daemons that are started from it in whatever way a test needs.

use crate::support::log::Log;
use crate::support::peer::Peer;
pub use crate::support::peer::{ALICE, RIGHT, WRONG, auth, auth_from};
use crate::support::sasld::listener_for_caller;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

/// Longer than anything takes that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The files of a daemon.
pub struct Site {
    dir: TempDir,
}

impl Site {
    /// These users, and these lines added to a configuration that serves `auth`, without a delay of refusals.
    pub fn new(users: &str, settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sasld-limits-").tempdir().unwrap();
        let site = Self { dir };
        site.replace_users(users);
        let place = site.path("").display().to_string();
        let mut configuration = format!(
            "listeners:\n{}control: {place}control\n{}",
            listener_for_caller(&site.socket()),
            settings.replace("{dir}", place.trim_end_matches('/'))
        );
        for (key, default) in [
            ("passdbs", format!("passdbs:\n  - secrets_file: {place}secrets\n")),
            ("refusal_delay", "refusal_delay: 0s\n".to_owned()),
            ("log_level", "log_level: warn\n".to_owned()),
        ] {
            if !configuration.contains(&format!("{key}:")) {
                configuration += &default;
            }
        }
        fs::write(site.config(), configuration).unwrap();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("sasld.yaml")
    }

    pub fn socket(&self) -> PathBuf {
        self.path("auth")
    }

    /// Puts another secrets file in the place of the one there is, as `sasld user` does.
    pub fn replace_users(&self, users: &str) {
        let new = self.path("secrets.new");
        fs::write(&new, users).unwrap();
        fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(new, self.path("secrets")).unwrap();
    }

    /// A ready daemon.
    pub fn start(&self) -> Daemon {
        self.start_after("")
    }

    /// A ready daemon, of a shell that has done this before it became the daemon.
    pub fn start_after(&self, preparation: &str) -> Daemon {
        self.start_with(preparation, |_| {})
    }

    /// The same, with a changed environment.
    pub fn start_with(&self, preparation: &str, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.command(preparation);
        change(command.stderr(Stdio::piped()));
        let mut child = command.spawn().unwrap();
        let log = Log::follow(child.stderr.take().unwrap());
        let daemon = Daemon { child, log, socket: self.socket() };
        // `event=ready` is only logged from some levels up.
        daemon.wait_for_greeting();
        daemon
    }

    /// A ready daemon whose log goes elsewhere.
    pub fn start_logging_to(&self, log: impl Into<Stdio>) -> Daemon {
        let child = self.command("").stderr(log).spawn().unwrap();
        let daemon = Daemon { child, log: Log::default(), socket: self.socket() };
        daemon.wait_for_greeting();
        daemon
    }

    /// The shell that becomes the daemon.
    pub fn command(&self, preparation: &str) -> Command {
        let mut command = Command::new("/bin/bash");
        let program = format!("{preparation}\nexec {SASLD} serve --config {}", self.config().display());
        command.args(["-c", &program]).stdin(Stdio::null());
        command
    }
}

/// A running daemon; dropping it kills it.
pub struct Daemon {
    pub log: Log,
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn peer(&self) -> Peer {
        Peer::greeted(&self.socket)
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Stops it as an administrator does. It must end well.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    fn wait_for_greeting(&self) {
        let mut peer = Peer::greeted_when_it_is_there(&self.socket);
        assert_eq!(log_in(&mut peer, 1, "NOPE", ""), "FAIL\t1");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log.text();
            eprintln!("the end of the daemon's log:\n{}", &log[log.len().saturating_sub(4_000)..]);
        }
    }
}

/// One request and its answer.
pub fn log_in(peer: &mut Peer, id: u32, mechanism: &str, response: &str) -> String {
    peer.send(&auth(id, mechanism, response));
    peer.line()
}

/// Looks again and again, for things that nobody tells us.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
