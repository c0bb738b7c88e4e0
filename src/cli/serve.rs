//! `sasld serve`: the daemon in the foreground, until a signal.
//!
//! Under systemd a start that fails ends a few seconds later: so the restarts that follow are slow and their messages
//! few, while a daemon that crashed is back at once.

use super::{Exit, Failure, config_path};
use crate::daemon::{self, DaemonError};
use crate::server::BindError;
use clap::Args;
use core::time::Duration;
use sd_notify::NotifyState;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

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
    let state = arguments.state_directory.clone().or_else(|| first(&std::env::var_os("STATE_DIRECTORY")?));
    let failure = match daemon::run(&config_path(arguments.config.as_deref()), state.as_deref()) {
        Ok(()) => return Ok(Exit::Yes),
        Err(error) => failure(error),
    };
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        failure.print();
        let first = failure.message.lines().next().unwrap_or_default();
        // systemd, or nobody.
        let _ = sd_notify::notify(&[NotifyState::Status(first)]);
        std::thread::sleep(BEFORE_THE_NEXT);
        return Err(Failure { message: String::new(), ..failure });
    }
    Err(failure)
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
