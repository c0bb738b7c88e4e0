//! The built daemon on a Unix socket, in a private folder, in real time.

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Group, Pid, Uid, User};
use tempfile::TempDir;

use super::profile::Profile;
use super::replay::{Peer, Server};
use super::socket::Socket;

/// How long the daemon may take to say something in its log.
const PATIENCE: Duration = Duration::from_secs(20);

/// `sasld serve` with the configuration of a profile.
pub struct Daemon {
    dir: TempDir,
    process: Child,
    log: Mutex<Receiver<String>>,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// With its log, when it does not get ready.
    pub fn start(profile: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sasld-").tempdir().expect("a temporary folder");
        let path = dir.path();
        let profile = Profile::named(profile);
        if let Some(secrets) = profile.secrets() {
            write_secrets(path, &secrets).expect("a writable folder");
        }
        let config = configuration(&profile, path);
        let mut process = Command::new(env!("CARGO_BIN_EXE_sasld"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo has built the program");
        let stderr = process.stderr.take().expect("asked for above");
        let (sender, log) = mpsc::channel();
        // Reads to the end, so that the daemon never waits for somebody to read its log.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let daemon = Self { dir, process, log: Mutex::new(log) };
        daemon.wait_for("event=ready");
        daemon
    }

    /// Waits for a line in the log.
    fn wait_for(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        let log = self.log.lock().expect("whoever panicked here has ended the test");
        let mut said = String::new();
        while let Ok(line) = log.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return;
            }
            said.push_str(&line);
            said.push('\n');
        }
        panic!("sasld did not log {text}, but:\n{said}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).expect("a process id");
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

/// Writes the configuration of a profile into a folder: what the profile says, and what depends on the folder and on
/// who runs the test.
pub fn configuration(profile: &Profile, dir: &Path) -> PathBuf {
    let user = User::from_uid(Uid::effective()).ok().flatten().expect("we have a name");
    let group = Group::from_gid(Gid::effective()).ok().flatten().expect("our group has a name");
    let place = dir.display();
    let settings = profile.configuration("sasld.yaml", dir);
    let text = format!(
        "listeners:\n  - unix: {place}/auth\n    owner: {}\n    group: {}\n    mode: \"0600\"\n\
         passdbs:\n  - secrets_file: {place}/secrets\n{settings}",
        user.name, group.name,
    );
    let file = dir.join("sasld.yaml");
    fs::write(&file, text).expect("a writable folder");
    file
}

/// Puts a secrets file in place the way editors should: whole, and readable by its owner alone from the start.
pub fn write_secrets(dir: &Path, contents: &[u8]) -> io::Result<()> {
    let fresh = dir.join("secrets.new");
    fs::write(&fresh, "")?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::write(&fresh, contents)?;
    fs::rename(fresh, dir.join("secrets"))
}

/// Takes the secrets file away. It goes on existing under another name, or a later one could get its inode and would
/// pass for the same file, edited.
pub fn remove_secrets(dir: &Path) -> io::Result<()> {
    fs::rename(dir.join("secrets"), dir.join("secrets.removed"))
}

/// One connection after another to a daemon that others use too.
pub struct Shared {
    pub daemon: Arc<Daemon>,
    pub start: Instant,
}

impl Server for Shared {
    fn connect(&mut self) -> io::Result<Box<dyn Peer>> {
        Ok(Box::new(Socket::connect(&self.daemon.dir.path().join("auth"))?))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn change_secrets(&mut self, contents: Option<&[u8]>) -> io::Result<()> {
        let dir = self.daemon.dir.path();
        match contents {
            Some(contents) => {
                write_secrets(dir, contents)?;
                self.daemon.wait_for("event=secrets_loaded");
            }
            None => {
                remove_secrets(dir)?;
                self.daemon.wait_for("event=secrets_not_loaded");
            }
        }
        Ok(())
    }
}
