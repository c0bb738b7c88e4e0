//! A private Postfix, started and stopped by `packaging/dev/postfix-private`, whose head says what it is.

use crate::support::log::Log;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/dev/postfix-private");

/// A running Postfix; dropping it stops it.
pub struct Postfix {
    /// The port where everything is offered, and no TLS.
    pub smtp: u16,
    /// The port where STARTTLS is offered, and PLAIN and LOGIN only after it.
    pub submission: u16,
    /// What all its processes log.
    pub log: Log,
    tail: Child,
    dir: PathBuf,
}

/// Whether this machine and this user can have one, and swaks to talk to it.
///
/// # Errors
/// What is missing.
pub fn available() -> Result<(), String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err("Postfix only runs when it is started by root".to_owned());
    }
    for program in ["postconf", "swaks", "openssl", "doveadm"] {
        let found =
            Command::new("sh").args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{program} is missing; packaging/dev/need test installs it"));
        }
    }
    Ok(())
}

impl Postfix {
    /// A Postfix in `dir` with this `smtpd_sasl_path`, ready for clients.
    pub fn start(dir: &Path, sasl_path: &str) -> Self {
        let dir = dir.join("postfix");
        std::fs::create_dir(&dir).unwrap();
        let started = Command::new(SCRIPT).arg("start").arg(&dir).arg(sasl_path).output().unwrap();
        let ports = String::from_utf8(started.stdout).unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let port = |name: &str| {
            let value = ports.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}= in {ports}"))
        };
        let mut tail = Command::new("tail")
            .args(["-n", "+1", "-f"])
            .arg(dir.join("maillog"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::follow(tail.stdout.take().unwrap());
        Self { smtp: port("smtp"), submission: port("submission"), log, tail, dir }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Never panics: the test may be failing already.
        let _ = Command::new(SCRIPT).arg("stop").arg(&self.dir).status();
        let _ = self.tail.kill();
        let _ = self.tail.wait();
    }
}
