//! `sasld serve`: the daemon in the foreground, until a signal.
//!
//! Under systemd a start that fails ends a few seconds later: so the restarts that follow are slow and their messages
//! few, while a daemon that crashed is back at once. A start that finds nothing to serve (without Postfix there is no
//! directory for its socket) ends at once and for good, with exit status 1, which the unit does not take for a failure.
//! That cannot be when a socket was passed: systemd would start us again for whoever waits in it, without a pause.

use super::{Exit, Failure, config_path};
use crate::config::{Config, Listener};
use crate::daemon::{self, DaemonError};
use crate::server::BindError;
use clap::Args;
use core::time::Duration;
use sd_notify::NotifyState;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How long a failed start lasts under systemd.
const BEFORE_THE_NEXT: Duration = Duration::from_secs(5);

/// Answer mail servers until stopped
///
/// Runs in the foreground and logs to standard error. SIGHUP reloads the configuration, SIGTERM ends it after the
/// replies that are due. Sockets passed by systemd are used in place of the configured ones.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration, instead of /etc/sasld/sasld.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where a copy of the last good configuration is kept; systemd's StateDirectory= if there is one
    #[arg(long, value_name = "DIR")]
    state_directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let path = config_path(arguments.config.as_deref());
    let state = arguments.state_directory.clone().or_else(|| first(&std::env::var_os("STATE_DIRECTORY")?));
    let has_systemd = std::env::var_os("NOTIFY_SOCKET").is_some();
    let was_passed_sockets = std::env::var_os("LISTEN_PID").is_some();
    if has_systemd && !was_passed_sockets {
        something_to_serve(&path).inspect_err(|nothing| {
            // Started in peace; what is wrong, if anything is, is not with us.
            tell_systemd(&[NotifyState::Ready, NotifyState::Status(&nothing.message)]);
        })?;
    }
    let failure = match daemon::run(&path, state.as_deref()) {
        Ok(()) => return Ok(Exit::Yes),
        Err(error) => failure(error),
    };
    if has_systemd {
        failure.print();
        tell_systemd(&[NotifyState::Status(failure.message.lines().next().unwrap_or_default())]);
        std::thread::sleep(BEFORE_THE_NEXT);
        return Err(Failure { message: String::new(), ..failure });
    }
    Err(failure)
}

/// systemd hears it, or nobody.
fn tell_systemd(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// systemd separates several directories by colons.
fn first(directories: &OsString) -> Option<PathBuf> {
    std::env::split_paths(directories).next().filter(|path| path.is_absolute())
}

fn failure(error: DaemonError) -> Failure {
    match error {
        DaemonError::Config(error) => error.into(),
        DaemonError::Bind(error) => Failure::new(exit_of(&error), error),
        error @ (DaemonError::Passdb(_)
        | DaemonError::Passed(_)
        | DaemonError::Inherit(_)
        | DaemonError::NothingGood { .. }) => Failure::new(Exit::Config, error),
        error @ DaemonError::System { .. } => Failure::new(Exit::Unavailable, error),
    }
}

fn exit_of(error: &BindError) -> Exit {
    match error {
        BindError::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Exit::Permission
        }
        BindError::AlreadyServed(_) | BindError::System { .. } => Exit::Unavailable,
        BindError::NotASocket(_) => Exit::Config,
    }
}

/// Fails when no configured listener has a directory to be in. Mistakes in the configuration do not matter here: they are
/// for the daemon to say, which may have a good copy.
fn something_to_serve(path: &Path) -> Result<(), Failure> {
    let Ok(config) = Config::load_without_accounts(path) else { return Ok(()) };
    let mut missing = Vec::new();
    for listener in &config.listeners {
        let Listener::Unix(unix) = listener else { return Ok(()) };
        let directory = unix.path.parent().unwrap_or(Path::new("/"));
        match fs::metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(directory.display().to_string());
            }
            // There, or closed to us as Postfix's is.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
    let missing = missing.join(", ");
    let message = format_args!(
        "nothing to serve: {missing} does not exist; install Postfix, then `systemctl start sasld.socket sasld`"
    );
    Err(Failure::new(Exit::No, message))
}
