//! `sasld user …`: the users of the secrets file, for people and for scripts.
//!
//! This file says what can be typed; each command has a file of its own. Passwords are asked at the terminal or read
//! from standard input, never taken from arguments, which every local user can read in the process list. A change is
//! made under a lock, replaces the file as a whole, and is followed up until the daemon has it. What is said about it
//! goes through [`Voice`], for people or as JSON; what goes wrong is a [`UserError`] that knows its exit code.

mod change;
mod edit;
mod error;
mod export;
mod generate;
mod import;
mod in_force;
mod list;
mod lock;
mod password;
mod show;
mod verify;
mod voice;

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Exit;
use super::prompt::PasswordPrompt;
use crate::sasl::Mechanism;
use crate::secrets::{
    self, Edited, LOCK_WAIT, LoadOptions, Missing, Names, Rewrite, Secrets, SecretsEditor, StoreError, Trust,
};
use password::PasswordArgs;

pub use error::UserError;
pub use voice::Voice;

/// Arguments of `sasld user`.
#[derive(Debug, Args)]
pub struct UserArgs {
    /// The secrets file
    ///
    /// Without it, the first `secrets_file` of the configuration is used.
    #[arg(long, global = true, value_name = "SECRETS", conflicts_with = "config")]
    pub file: Option<PathBuf>,

    /// The configuration that names the secrets file, instead of /etc/sasld/sasld.yaml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long, global = true)]
    pub json: bool,

    /// Print nothing but what was asked for and what is wrong
    #[arg(long, global = true)]
    pub quiet: bool,

    /// What to do
    #[command(subcommand)]
    pub command: UserCommand,
}

/// What `sasld user` can do.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user, asking for the password twice
    Add(change::AddArgs),
    /// Give a user another password
    ///
    /// Everything else on the user's line stays as it is.
    Passwd(PasswordArgs),
    /// Remove users
    Remove(change::RemoveArgs),
    /// Show who is in the file and what each can use, never a secret
    List,
    /// Show what the file says about users, never a secret
    Show(lock::NamesArgs),
    /// Let users in no more, and keep their passwords for when they are unlocked
    Lock(lock::NamesArgs),
    /// Let locked users in again, with the passwords they had
    Unlock(lock::NamesArgs),
    /// Check a password against everything that is stored for a user
    ///
    /// No login is made and the daemon is not asked. Exit status 0: the password is right for every verifier that is
    /// stored. Mechanisms that are offered and for which nothing is stored are named. 1: it is not right for all of
    /// them, or nobody can log in with this entry.
    Verify(verify::VerifyArgs),
    /// Edit the file with $VISUAL or $EDITOR
    ///
    /// What was edited is checked, and replaces the file only then. Meanwhile nobody else can change it.
    Edit,
    /// Take over users from other files
    ///
    /// Shows what it would do; --apply does it.
    Import(import::ImportArgs),
    /// Print users' lines, verifiers included, as Dovecot reads them
    Export(export::ExportArgs),
}

/// What the configuration says about users.
#[derive(Debug, Clone, Copy)]
pub struct UserSettings<'a> {
    /// The secrets file.
    pub path: &'a Path,
    /// The rules for user names.
    pub names: Names<'a>,
    /// What is offered.
    pub mechanisms: &'a [Mechanism],
    /// Where the daemon can be asked; `None` if it does not listen.
    pub control: Option<&'a Path>,
    /// Whom the daemon trusts with the file. Looked up before anything is locked, because the user database may be slow.
    pub trust: &'a Trust,
}

/// Runs one command. Blocks on the terminal, the lock and the disk.
///
/// # Errors
/// See [`UserError`]. The file is then unchanged, except where the error says that it was written.
pub fn run(
    command: &UserCommand,
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Exit, UserError> {
    let result = match command {
        UserCommand::Add(args) => change::add(args, settings, voice, prompt),
        UserCommand::Passwd(args) => change::passwd(args, settings, voice, prompt),
        UserCommand::Remove(args) => change::remove(args, settings, voice),
        UserCommand::List => list::run(settings, voice),
        UserCommand::Show(args) => show::run(&args.names, settings, voice),
        UserCommand::Lock(args) => lock::lock(&args.names, settings, voice),
        UserCommand::Unlock(args) => lock::unlock(&args.names, settings, voice),
        UserCommand::Verify(args) => verify::run(args, settings, voice, prompt),
        UserCommand::Edit => edit::run(settings, voice, prompt),
        UserCommand::Import(args) => import::run(args, settings, voice),
        UserCommand::Export(args) => export::run(args, settings, voice),
    };
    let reads = matches!(command, UserCommand::List | UserCommand::Show(_) | UserCommand::Export(_));
    match result {
        // Whoever read our output has seen enough.
        Err(UserError::Output(error)) if reads && error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Yes),
        result => result,
    }
}

/// Changes the file, or waits for whoever does and says so.
fn rewrite<T>(
    settings: &UserSettings<'_>,
    missing: Missing,
    change: impl FnOnce(&mut SecretsEditor) -> Result<T, UserError>,
) -> Result<Edited<T>, UserError> {
    let rewrite = Rewrite {
        path: settings.path,
        lowercase: settings.names.lowercase,
        missing,
        readers: settings.trust.service_group(),
        wait: LOCK_WAIT,
        waiting: &voice::waiting,
    };
    secrets::edit(&rewrite, change)
}

/// The file as it is, whoever can reach it: what is wrong with that is for the daemon and `sasld check` to say.
fn load(settings: &UserSettings<'_>) -> Result<Secrets, UserError> {
    let options = LoadOptions { names: settings.names, trust: None, previous: None };
    Ok(secrets::load(settings.path, &options).map_err(StoreError::from)?.secrets)
}
