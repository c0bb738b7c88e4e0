//! What `sasld serve` does with root when it has it, which is where there is no systemd: start `sasld-pam`, bind the
//! sockets, then become a user without rights for good.
//!
//! Under systemd none of this happens: the units name the users, and `sasld-pam` has a unit of its own.

use crate::passdb::pam::{Entrance, Settings};
use crate::server::listener::is_served;
use nix::unistd::{Uid, User, initgroups, setgid, setuid};
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tracing::{error, info, warn};

/// Who sasld becomes.
const USER: &str = "_sasld";

/// Who `sasld-pam` becomes; it keeps the right to read password hashes.
const PAM_USER: &str = "_sasld-pam";

/// How the PAM passdb is reached: over its socket if somebody listens there, otherwise, with root, by starting
/// `sasld-pam` with a socket of its own. Without root, only an already running one can help, and may still come.
pub fn reach_pam(settings: &Settings) -> Entrance {
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
    match start_pam(settings) {
        Ok(stream) => Entrance::Started(stream),
        Err(reason) => {
            error!(event = "pam_not_started", %reason);
            Entrance::Socket
        }
    }
}

fn start_pam(settings: &Settings) -> io::Result<UnixStream> {
    let program = program()?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(&program);
    command.args(settings.worker.to_arguments());
    if User::from_name(PAM_USER)?.is_some() {
        command.args(["--user", PAM_USER]);
    } else {
        warn!(event = "pam_runs_as_root", hint = "make a user _sasld-pam, and sasld-pam becomes it");
    }
    let child = command
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        // A signal from the terminal is for us; it ends when we do.
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
    info!(event = "pam_started", pid = child.id(), program = %program.display());
    Ok(ours)
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
