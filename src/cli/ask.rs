//! How commands reach the running daemon: which socket, and what it means when nobody answers.

use super::{Exit, Failure, config_path};
use crate::config::Config;
use crate::control::{self, ControlError, Request};
use clap::Args;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// Which daemon.
#[derive(Debug, Args)]
pub struct Daemon {
    /// The configuration that the daemon runs with, instead of /etc/sasld/sasld.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its control socket, instead of the one that the configuration names
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
}

impl Daemon {
    /// Its answer: as JSON for programs, and understood.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<(serde_json::Value, T), Failure> {
        let socket = self.socket()?;
        let reply: serde_json::Value = control::ask(&socket, request)?;
        let understood = T::deserialize(&reply).map_err(|error| {
            Failure::new(Exit::Data, format_args!("{}: another version's answer: {error}", socket.display()))
        })?;
        Ok((reply, understood))
    }

    fn socket(&self) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let path = config_path(self.config.as_deref());
        match Config::load(&path) {
            Ok(Config { control: Some(socket), .. }) => Ok(socket),
            Ok(Config { control: None, .. }) => Err(Failure::new(
                Exit::Unavailable,
                format_args!("{}: control: is off, so the daemon answers no questions", path.display()),
            )),
            // The daemon may well run, with what was there before the mistakes.
            Err(_) => Ok(control::DEFAULT_PATH.into()),
        }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let exit = match &error {
            ControlError::NotPermitted(_) => Exit::Permission,
            ControlError::Nonsense { .. } | ControlError::Refused(_) | ControlError::Unsayable(_) => {
                Exit::Data
            }
            ControlError::NotRunning(_) | ControlError::TimedOut(_) | ControlError::Failed { .. } => {
                Exit::Unavailable
            }
        };
        Self::new(exit, error)
    }
}
