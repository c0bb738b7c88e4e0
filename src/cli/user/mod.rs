//! `sasld user add | passwd | remove | list`: the secrets file, one user at a time.
//!
//! Passwords are asked at the terminal or read from standard input, never taken from arguments, which every local user
//! can read in the process list. A change is made under a lock and replaces the file as a whole, and the daemon notices
//! it. Output goes to the writer that is given; what goes wrong is a [`UserError`] that knows its exit code.

mod list;

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use thiserror::Error;

use super::prompt::{PasswordPrompt, PromptError};
use crate::credential::{self, DeriveError, Password, Scheme, Verifiers};
use crate::secrets::{self, EditError, LOCK_WAIT, LoadError, Missing, Names, StoreError, Trust};

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

    /// What to do
    #[command(subcommand)]
    pub command: UserCommand,
}

/// What `sasld user` can do.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user, asking for the password twice
    Add(PasswordArgs),
    /// Give a user another password
    ///
    /// Everything else on the user's line stays as it is.
    Passwd(PasswordArgs),
    /// Remove users
    Remove {
        /// The users to remove
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show who is in the file and what each can use, never a secret
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `add` and `passwd`.
#[derive(Debug, Args)]
pub struct PasswordArgs {
    /// The user
    pub name: String,

    /// Catches a password given as an argument
    #[arg(hide = true)]
    pub surplus: Vec<String>,

    /// How to store the password; several schemes side by side if repeated
    ///
    /// From best to worst: ARGON2ID, CRYPT (yescrypt), ARGON2I, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, SSHA512, SSHA256,
    /// CRAM-MD5, PLAIN. PLAIN and LOGIN logins work with each of them, CRAM-MD5 logins only with CRAM-MD5 and PLAIN.
    /// Default: ARGON2ID, and CRAM-MD5 beside it if the configuration offers that mechanism.
    #[arg(long = "scheme", value_name = "SCHEME")]
    pub schemes: Vec<Scheme>,

    /// Read the password from standard input
    ///
    /// One newline at its end is removed, nothing else.
    #[arg(long)]
    pub password_stdin: bool,
}

/// What the configuration says about users.
#[derive(Debug, Clone, Copy)]
pub struct UserSettings<'a> {
    /// The secrets file.
    pub path: &'a Path,
    /// The rules for user names.
    pub names: Names<'a>,
    /// Whether the mechanism CRAM-MD5 is offered, and so new users should be able to use it.
    pub cram_md5: bool,
}

/// Runs one command. Blocks on the terminal, the lock and the disk.
///
/// # Errors
/// See [`UserError`]. The file is then unchanged, except where the error says that it was written.
pub fn run(
    command: &UserCommand,
    settings: &UserSettings<'_>,
    out: &mut dyn Write,
    prompt: &mut dyn PasswordPrompt,
) -> Result<(), UserError> {
    let printed = match command {
        UserCommand::Add(args) => add(args, settings, out, prompt),
        UserCommand::Passwd(args) => passwd(args, settings, out, prompt),
        UserCommand::Remove { names } => remove(names, settings, out),
        UserCommand::List { json } => list::run(*json, settings, out),
    };
    match printed {
        // Whoever read our output has seen enough.
        Err(UserError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

fn add(
    args: &PasswordArgs,
    settings: &UserSettings<'_>,
    out: &mut dyn Write,
    prompt: &mut dyn PasswordPrompt,
) -> Result<(), UserError> {
    let name = settings.names.canonical(&args.name);
    secrets::check_name(name.as_bytes()).map_err(|error| UserError::Usage(error.to_string()))?;
    if !(settings.names.allowed)(&name) {
        let name = secrets::escape(name.as_bytes());
        return Err(UserError::Usage(format!(
            "the rules for user names (usernames:) do not allow \"{name}\""
        )));
    }
    refuse_surplus(args)?;
    match secrets::has_user(settings.path, settings.names.lowercase, &name) {
        Ok(true) => return Err(UserError::Exists { name }),
        Ok(false) | Err(StoreError::Load(LoadError::Missing { .. })) => {}
        Err(error) => return Err(error.into()),
    }
    let verifiers = new_verifiers(args, settings, &name, prompt)?;
    edit(settings, Missing::Create, |editor| editor.add(&name, verifiers.encode().as_bytes()))?;
    report(out, &format!("user {name} added"), &verifiers, settings)
}

fn passwd(
    args: &PasswordArgs,
    settings: &UserSettings<'_>,
    out: &mut dyn Write,
    prompt: &mut dyn PasswordPrompt,
) -> Result<(), UserError> {
    let name = settings.names.canonical(&args.name);
    refuse_surplus(args)?;
    if !secrets::has_user(settings.path, settings.names.lowercase, &name)? {
        return Err(UserError::Store(EditError::Unknown { name: secrets::escape(name.as_bytes()) }.into()));
    }
    let verifiers = new_verifiers(args, settings, &name, prompt)?;
    edit(settings, Missing::Refuse, |editor| editor.set_password(&name, verifiers.encode().as_bytes()))?;
    let name = secrets::escape(name.as_bytes());
    report(out, &format!("password of {name} changed"), &verifiers, settings)
}

fn remove(names: &[String], settings: &UserSettings<'_>, out: &mut dyn Write) -> Result<(), UserError> {
    let names: Vec<String> = names.iter().map(|name| settings.names.canonical(name)).collect();
    // All or none.
    let removed = edit(settings, Missing::Refuse, |editor| {
        names.iter().map(|name| editor.remove(name)).collect::<Result<Vec<usize>, EditError>>()
    })?;
    for (name, lines) in names.iter().zip(removed) {
        let name = secrets::escape(name.as_bytes());
        let lines = if lines > 1 { format!(" ({lines} lines)") } else { String::new() };
        writeln!(out, "user {name} removed from {}{lines}", settings.path.display())?;
    }
    warn_if_unloadable(out, settings)
}

fn refuse_surplus(args: &PasswordArgs) -> Result<(), UserError> {
    if args.surplus.is_empty() {
        return Ok(());
    }
    let reason = "one name, please, and no password: arguments can be read by every local user in the process list \
                  and stay in the shell's history; the password is asked for, or read with --password-stdin";
    Err(UserError::Usage(reason.to_owned()))
}

fn new_verifiers(
    args: &PasswordArgs,
    settings: &UserSettings<'_>,
    name: &str,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Verifiers, UserError> {
    let schemes = match args.schemes.as_slice() {
        [] if settings.cram_md5 => &[Scheme::Argon2id, Scheme::CramMd5],
        [] => &[Scheme::Argon2id][..],
        chosen => chosen,
    };
    if let Some(twice) = (1..schemes.len()).find(|at| schemes[..*at].contains(&schemes[*at])) {
        return Err(UserError::Usage(format!("--scheme {} is given twice", schemes[twice])));
    }
    let password = if args.password_stdin { prompt.read_stdin()? } else { ask_twice(name, prompt)? };
    if password.is_empty() {
        return Err(UserError::Password("the password is empty"));
    }
    if !password.is_possible() {
        return Err(UserError::Password("the password contains a NUL byte or is longer than 1024 bytes"));
    }
    derive_all(schemes, &password)
}

fn ask_twice(name: &str, prompt: &mut dyn PasswordPrompt) -> Result<Password, UserError> {
    let name = secrets::escape(name.as_bytes());
    let first = prompt.ask(&format!("Password for {name}: "))?;
    let second = prompt.ask("The same again: ")?;
    // Both come from one person at one terminal: the time this takes tells nobody anything.
    if first.as_bytes() != second.as_bytes() {
        return Err(UserError::Password("the two passwords differ"));
    }
    Ok(first)
}

fn derive_all(schemes: &[Scheme], password: &Password) -> Result<Verifiers, UserError> {
    let mut verifiers: Option<Verifiers> = None;
    for scheme in schemes {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| UserError::Random(error.to_string()))?;
        let verifier = credential::derive(*scheme, password, &salt, None)?;
        match &mut verifiers {
            None => verifiers = Some(verifier.into()),
            Some(verifiers) => verifiers.add(verifier).expect("no scheme is in the list twice"),
        }
    }
    Ok(verifiers.expect("there is at least one scheme"))
}

fn edit<T>(
    settings: &UserSettings<'_>,
    missing: Missing,
    change: impl FnOnce(&mut secrets::SecretsEditor) -> Result<T, EditError>,
) -> Result<T, UserError> {
    Ok(secrets::edit(settings.path, settings.names.lowercase, missing, LOCK_WAIT, change)?)
}

/// Says what is stored now, and in plain words what that is worth to a thief.
fn report(
    out: &mut dyn Write,
    what: &str,
    verifiers: &Verifiers,
    settings: &UserSettings<'_>,
) -> Result<(), UserError> {
    let schemes: Vec<Scheme> = verifiers.iter().map(credential::Verifier::scheme).collect();
    let names: Vec<&str> = schemes.iter().map(|scheme| scheme.name()).collect();
    writeln!(out, "{what}, stored as {} in {}", names.join(" and "), settings.path.display())?;
    if schemes.contains(&Scheme::Plain) {
        writeln!(out, "note: PLAIN stores the password itself: whoever reads the file has it")?;
    }
    if schemes.contains(&Scheme::BlfCrypt) {
        writeln!(out, "note: bcrypt looks at the first 72 bytes of a password only")?;
    }
    if schemes.contains(&Scheme::CramMd5) {
        writeln!(
            out,
            "note: for CRAM-MD5 logins the stored CRAM-MD5 state is as good as the password: whoever"
        )?;
        writeln!(
            out,
            "      reads the file can log in with it, without having to guess anything; and guessing the"
        )?;
        writeln!(out, "      password from it is fast, whatever slow hash stands beside it")?;
    }
    if settings.cram_md5 && verifiers.cram_md5().is_none() {
        writeln!(
            out,
            "note: CRAM-MD5 is offered but cannot work for this user; it would with --scheme CRAM-MD5 as well"
        )?;
    }
    warn_if_unloadable(out, settings)
}

fn warn_if_unloadable(out: &mut dyn Write, settings: &UserSettings<'_>) -> Result<(), UserError> {
    if let Err(error) = secrets::check_access(settings.path, &Trust::of_process()) {
        writeln!(out, "warning: the daemon will not load this file: {error}")?;
    }
    Ok(())
}

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
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl UserError {
    /// What the process should exit with, after sysexits.h.
    pub fn exit_code(&self) -> u8 {
        const SIGNAL_BASE: i32 = 128;
        match self {
            Self::Usage(_) | Self::Prompt(PromptError::NoTerminal(_)) => 64,
            Self::Exists { .. } | Self::Password(_) | Self::Derive(_) => 1,
            Self::Prompt(PromptError::TooLong | PromptError::EndOfInput) => 1,
            Self::Prompt(PromptError::Interrupted { signal }) => {
                u8::try_from(SIGNAL_BASE + signal).unwrap_or(1)
            }
            Self::Prompt(PromptError::Io(_)) | Self::Random(_) => 75,
            Self::Output(_) => 74,
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
            Self::Store(_) => 75,
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
