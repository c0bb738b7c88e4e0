//! What `sasld serve` does with root when it has it, which is where there is no systemd: start `sasld-pam`, bind the
//! sockets, then become a user without rights for good.
//!
//! Under systemd none of this happens: the units name the users, and `sasld-pam` has a unit of its own.

use crate::pam;
use crate::passdb::pam::{Entrance, Settings};
use crate::server::listener::is_served;
use nix::unistd::{Uid, User, initgroups, setgid, setuid};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tracing::{Level, error, info, warn};

/// Who sasld becomes.
const USER: &str = "_sasld";

/// Who `sasld-pam` becomes; it keeps the right to read password hashes.
const PAM_USER: &str = "_sasld-pam";

/// How the PAM passdb is reached: over its socket if somebody listens there, otherwise, with root, by starting
/// `sasld-pam` with a socket of its own. Without root, only an already running one can help, and may still come.
pub fn reach_pam(settings: &Settings, log_level: Level) -> Entrance {
    if is_served(&settings.socket).unwrap_or(true) {
        return Entrance::Socket;
    }
    if !Uid::effective().is_root() {
        warn!(
            event = "pam_not_started",
            socket = %settings.socket.display(),
            hint = "nobody listens there, and only root can start sasld-pam; no system user can log in until it runs"
        );
        return Entrance::Socket;
    }
    let mut starter = Starter { settings: settings.worker.clone(), log_level, processes: Vec::new() };
    match starter.start() {
        Ok(stream) => Entrance::Started(stream, Box::new(move || starter.start())),
        Err(reason) => {
            error!(event = "pam_not_started", %reason);
            Entrance::Socket
        }
    }
}

/// Starts one `sasld-pam` after the other.
struct Starter {
    settings: pam::Settings,
    log_level: Level,
    /// Those that were started and not yet waited for. The last one may serve; the others are dying.
    processes: Vec<Child>,
}

impl Starter {
    fn start(&mut self) -> io::Result<UnixStream> {
        self.end_old_ones();
        if !Uid::effective().is_root() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "only root can start sasld-pam"));
        }
        let program = program()?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program);
        command.args(self.settings.to_arguments());
        command.arg(format!("--log-level={}", self.log_level.as_str().to_ascii_lowercase()));
        if User::from_name(PAM_USER)?.is_some() {
            command.args(["--user", PAM_USER]);
        } else {
            warn!(event = "pam_runs_as_root", hint = "make a user _sasld-pam, and sasld-pam becomes it");
        }
        let process = command
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
        info!(event = "pam_started", pid = process.id(), program = %program.display());
        self.processes.push(process);
        Ok(ours)
    }

    /// Kills what has been started before. One that hangs in its end is waited for the next time.
    fn end_old_ones(&mut self) {
        self.processes.retain_mut(|process| {
            let pid = process.id();
            if let Err(reason) = process.kill() {
                error!(event = "pam_not_killed", pid, %reason, hint = "an old sasld-pam may still run; end it");
            }
            matches!(process.try_wait(), Ok(None))
        });
    }
}

/// `sasld-pam` lies beside `sasld`.
fn program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("sasld-pam"))
}

/// Whom [`give_away`] makes of us: nobody else without root, or without that user.
///
/// # Errors
/// When the user database does not answer.
pub fn becomes() -> io::Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    Ok(User::from_name(USER)?)
}

/// Gives root away, if there is a user to become. Says so if there is none; the daemon then goes on as root.
///
/// # Errors
/// When the user is there and the operating system lets us not become him.
pub fn give_away() -> io::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let Some(user) = becomes()? else {
        warn!(event = "running_as_root", hint = "make a user _sasld, and sasld becomes it after its start");
        return Ok(());
    };
    initgroups(&CString::new(USER)?, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)?;
    info!(event = "root_given_away", user = USER);
    Ok(())
}
