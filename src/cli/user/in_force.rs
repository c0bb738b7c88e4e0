//! After a change: has the running daemon taken it over?
//!
//! The daemon looks at the file when it is asked over the control socket, and says which version answers logins now.
//! Nobody there is no error, because the daemon reads the file when it starts; a file that it does not take is one.

use core::fmt;

use serde_json::{Value, json};

use super::UserSettings;
use crate::control::{self, ControlError, Request, SecretsState, Version};
use crate::secrets::{self, Fingerprint};

/// What became of a change in the running daemon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// Logins are answered from it.
    InForce,
    /// No daemon runs, or it has no control socket.
    NotRunning,
    /// It runs and goes on with the users it had; this is why.
    Rejected(String),
    /// It runs and its configuration does not name this file; in its own words.
    NotUsed(String),
    /// It could not be asked; this is why.
    Unknown(String),
}

impl Followed {
    pub(super) fn json(&self) -> Value {
        let (state, reason) = match self {
            Self::InForce => ("in_force", None),
            Self::NotRunning => ("not_running", None),
            Self::Rejected(reason) => ("rejected", Some(reason)),
            Self::NotUsed(reason) => ("not_used", Some(reason)),
            Self::Unknown(reason) => ("unknown", Some(reason)),
        };
        json!({ "state": state, "reason": reason })
    }
}

impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce => f.write_str("in force in the running sasld"),
            Self::NotRunning => f.write_str("there is no running sasld; this takes effect when it starts"),
            Self::Rejected(reason) => {
                write!(f, "the file was written, but the running sasld does not use it: {reason}")
            }
            Self::NotUsed(reason) => {
                write!(f, "the running sasld has nothing to do with this file: {reason}")
            }
            Self::Unknown(reason) => {
                write!(f, "the running sasld notices this by itself; it could not be asked: {reason}")
            }
        }
    }
}

/// Asks the daemon to look at the file now.
pub(super) fn follow(settings: &UserSettings<'_>, installed: &Fingerprint) -> Followed {
    let Some(socket) = settings.control else {
        return Followed::Unknown("the configuration says `control: off`".to_owned());
    };
    // The daemon knows absolute paths only.
    let path = std::path::absolute(settings.path).unwrap_or_else(|_| settings.path.to_owned());
    match control::ask::<SecretsState>(socket, &Request::Secrets { path: path.clone() }) {
        Ok(state) if state.in_force == Some(Version::from(*installed)) => Followed::InForce,
        Ok(SecretsState { trouble: Some(trouble), .. }) => Followed::Rejected(trouble),
        // Somebody else was faster: his version holds this change, too, as he waited for our lock.
        Ok(state)
            if secrets::fingerprint(&path).is_ok_and(|now| state.in_force == Some(Version::from(now))) =>
        {
            Followed::InForce
        }
        Ok(_) => Followed::Unknown("it has another version of the file and does not say why".to_owned()),
        Err(ControlError::NotRunning(_)) => Followed::NotRunning,
        Err(ControlError::Refused(reason)) => Followed::NotUsed(reason),
        Err(error) => Followed::Unknown(error.to_string()),
    }
}
