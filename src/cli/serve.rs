//! `sasld serve`: the daemon in the foreground, until a signal.

use super::{Exit, Failure, config_path};
use crate::daemon::{self, DaemonError};
use crate::server::BindError;
use clap::Args;
use std::io;
use std::path::PathBuf;

/// Answer mail servers until stopped
///
/// Runs in the foreground and logs to standard error. SIGHUP reloads the configuration, SIGTERM ends it after the
/// replies that are due. Sockets passed by systemd are used in place of the configured ones.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration, instead of /etc/sasld/sasld.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match daemon::run(&config_path(arguments.config.as_deref())) {
        Ok(()) => Ok(Exit::Yes),
        Err(DaemonError::Config(error)) => Err(error.into()),
        Err(DaemonError::Bind(error)) => Err(Failure::new(exit_of(&error), error)),
        Err(error @ (DaemonError::Passdb(_) | DaemonError::Inherit(_))) => {
            Err(Failure::new(Exit::Config, error))
        }
        Err(error @ DaemonError::System { .. }) => Err(Failure::new(Exit::Unavailable, error)),
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
