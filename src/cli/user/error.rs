//! `UserError`: why a `sasld user` command did not do what it should, and the exit code for that.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use thiserror::Error;

use crate::cli::prompt::PromptError;
use crate::credential::DeriveError;
use crate::secrets::{self, EditError, LoadError, StoreError};

/// Why a command did not do what it should.
#[derive(Debug, Error)]
pub enum UserError {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// `add` with a name that is taken.
    #[error("user {} exists already; `sasld user passwd` changes the password", secrets::escape(name.as_bytes()))]
    Exists {
        /// The canonical name.
        name: String,
    },
    /// The password is none.
    #[error("{0}; nothing was changed")]
    Password(&'static str),
    /// The answer is no.
    #[error("{0}")]
    No(String),
    /// What was edited or is to be imported makes no sense.
    #[error("{0}")]
    Data(String),
    /// A program that is needed is missing, or failed.
    #[error("{0}")]
    Unavailable(String),
    /// Asking for it failed.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The scheme cannot store this password.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The system gave no random salt.
    #[error("no random numbers from the system: {0}")]
    Random(String),
    /// The file could not be read or rewritten.
    #[error("{0}{hint}", hint = hint(.0))]
    Store(#[from] StoreError),
    /// What somebody has written in an editor could not be put in place.
    #[error("{source}; what you wrote is in {}; remove it when you have what you need", path.display())]
    Kept {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// A file other than the secrets file failed.
    #[error("{path}: {call}: {source}")]
    File {
        /// Which one.
        path: String,
        /// What was tried.
        call: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The file is changed, and nobody could be told.
    #[error("the file was changed, but the report about it cannot be written: {0}")]
    Unreported(io::Error),
}

impl From<EditError> for UserError {
    fn from(error: EditError) -> Self {
        Self::Store(error.into())
    }
}

impl UserError {
    /// What the process should exit with, after sysexits.h.
    pub fn exit_code(&self) -> u8 {
        const SIGNAL_BASE: i32 = 128;
        match self {
            Self::Usage(_) | Self::Prompt(PromptError::NoTerminal(_) | PromptError::NobodyToAsk) => 64,
            Self::Exists { .. } | Self::Password(_) | Self::No(_) | Self::Derive(_) => 1,
            Self::Prompt(PromptError::TooLong | PromptError::EndOfInput) => 1,
            Self::Prompt(PromptError::Interrupted { signal }) => {
                u8::try_from(SIGNAL_BASE + signal).unwrap_or(1)
            }
            Self::Prompt(PromptError::Io(_)) | Self::Random(_) => 75,
            Self::Data(_) => 65,
            Self::Unavailable(_) => 69,
            Self::Output(_) | Self::Unreported(_) => 74,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => 77,
                io::ErrorKind::NotFound => 64,
                _ => 75,
            },
            Self::Store(error) if denied(error) => 77,
            Self::Store(StoreError::Edit(error)) => match error {
                EditError::Exists { .. } | EditError::Unknown { .. } | EditError::Twice { .. } => 1,
                EditError::Name(_) | EditError::NameSyntax => 64,
                EditError::Field => 65,
                EditError::Torn => 75,
            },
            Self::Store(StoreError::Load(error)) => match error {
                LoadError::Missing { .. } | LoadError::NotAFile { .. } | LoadError::TooLarge { .. } => 78,
                _ => 75,
            },
            Self::Store(_) | Self::Kept { .. } => 75,
        }
    }
}

/// Whether it is for want of permission.
fn denied(error: &StoreError) -> bool {
    match error {
        StoreError::Failed { source, .. } | StoreError::Load(LoadError::Unreadable { source, .. }) => {
            source.kind() == io::ErrorKind::PermissionDenied
        }
        _ => false,
    }
}

/// Who would be permitted: the owner of the directory.
fn hint(error: &StoreError) -> String {
    let path = match error {
        StoreError::Failed { path, .. } | StoreError::Load(LoadError::Unreadable { path, .. })
            if denied(error) =>
        {
            path
        }
        _ => return String::new(),
    };
    let owner = path
        .ancestors()
        .skip(1)
        .find_map(|directory| directory.metadata().ok())
        .map(|metadata| metadata.uid());
    let name = owner.map(|uid| match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => format!("user id {uid}"),
    });
    format!("; run this as {}", name.as_deref().unwrap_or("root"))
}
