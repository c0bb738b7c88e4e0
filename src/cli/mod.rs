//! The commands: what was typed becomes one call, and its result an exit code.
//!
//! Results go to standard output, trouble to standard error as `sasld: what, where; what to do`. Exit codes are
//! those of sysexits.h, and the same for every command: see [`Exit`].
#![forbid(unsafe_code)]

mod ask;
mod check;
mod doctor;
mod hash;
mod probe;
pub mod prompt;
mod serve;
mod setup;
mod socket_guard;
mod status;
mod test;
mod user;
mod why;

use crate::config::{Config, ConfigError, DEFAULT_PATH, Passdb};
use crate::sasl::{Mechanism, NameRules};
use crate::secrets::{Names, Trust};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// SASL authentication for Postfix and other mail servers, without Dovecot
///
/// sasld answers mail servers that ask over the Dovecot auth protocol whether a user is who he says. Begin with
/// `sasld user add NAME`, then `sasld check`, then `sasld serve`; `sasld test SOCKET` shows what a mail server would
/// get.
#[derive(Debug, Parser)]
#[command(name = "sasld", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 yes; 1 no; 2 errors (doctor); 64 usage; 65 bad data; 69 unavailable; 74 output; \
                        75 try again; 77 permission; 78 configuration."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Check(check::Arguments),
    Test(test::Arguments),
    Probe(probe::Arguments),
    Doctor(doctor::Arguments),
    Setup(setup::Arguments),
    Hash(hash::Arguments),
    SocketGuard(socket_guard::Arguments),
    Status(status::Arguments),
    Why(why::Arguments),
    /// Manage the users of the secrets file
    User(user::UserArgs),
}

/// How a command ends, as in sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; the answer is yes.
    Yes = 0,
    /// The answer is no: refused, or findings.
    No = 1,
    /// `sasld doctor` alone, which is asked by monitoring systems: something does not work.
    Errors = 2,
    /// The command line makes no sense.
    Usage = 64,
    /// A server's answer or a file's contents make no sense.
    Data = 65,
    /// Something that should be there is not, or is taken.
    Unavailable = 69,
    /// Output could not be written.
    Output = 74,
    /// No verdict; try again.
    TryAgain = 75,
    /// Somebody else may do this, but not this user.
    Permission = 77,
    /// The configuration is wrong.
    Config = 78,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub struct Failure {
    exit: u8,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit: exit as u8, message: message.to_string() }
    }

    /// Tells whoever reads standard error.
    fn print(&self) {
        for line in self.message.lines() {
            let _ = writeln!(io::stderr(), "sasld: {line}");
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            ConfigError::Missing { .. } | ConfigError::Unreadable { .. } | ConfigError::Invalid(_) => {
                Exit::Config
            }
        };
        match error {
            ConfigError::Missing { .. } => {
                let hint = "begin with a copy of packaging/sasld.yaml, or name another file with --config";
                Self::new(exit, format_args!("{error}; {hint}"))
            }
            ConfigError::Unreadable { .. } | ConfigError::Invalid(_) => Self::new(exit, error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Output, format_args!("cannot write the output: {error}"))
    }
}

/// All commands with their arguments and help, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command that these arguments name, the program's own name first.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help that was asked for is an answer, anything else is a mistake.
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let printed = error.print();
            let exit = if !asked {
                Exit::Usage
            } else if printed.is_ok() {
                Exit::Yes
            } else {
                Exit::Output
            };
            return ExitCode::from(exit as u8);
        }
    };
    let mut out = io::stdout().lock();
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments, &mut out),
        Command::Test(arguments) => test::run(&arguments, &mut out, &mut prompt::Terminal),
        Command::Probe(arguments) => probe::run(&arguments, &mut out),
        Command::Doctor(arguments) => doctor::run(arguments, &mut out, &mut prompt::Terminal),
        Command::Setup(arguments) => setup::run(arguments, &mut out),
        Command::Hash(arguments) => hash::run(&arguments, &mut out, &mut prompt::Terminal),
        Command::SocketGuard(arguments) => socket_guard::run(&arguments),
        Command::Status(arguments) => status::run(&arguments, &mut out),
        Command::Why(arguments) => why::run(&arguments, &mut out),
        Command::User(arguments) => edit_users(&arguments, &mut out),
    };
    let flushed = |exit| match out.flush() {
        // Whoever read the output has seen enough: `head`, for one.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::from(error)),
        Ok(()) | Err(_) => Ok(exit),
    };
    match result.and_then(flushed) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit)
        }
    }
}

fn edit_users(arguments: &user::UserArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    // A file named on the command line needs no configuration: what is not configured is as the defaults have it.
    let (path, names, mechanisms, control) = match &arguments.file {
        Some(file) => {
            let control = Some(PathBuf::from(crate::control::DEFAULT_PATH));
            (file.clone(), NameRules::default(), Mechanism::ALL.to_vec(), control)
        }
        None => {
            let config = Config::load_without_accounts(&config_path(arguments.config.as_deref()))?;
            let file = config.passdbs.iter().find_map(|passdb| match passdb {
                Passdb::SecretsFile { path, .. } => Some(path),
                Passdb::Pam { .. } => None,
            });
            let Some(path) = file else {
                return Err(Failure::new(Exit::Config, "passdbs: there is no secrets_file"));
            };
            (path.clone(), config.usernames, config.mechanisms, config.control)
        }
    };
    let allowed = |name: &str| names.canonical(name.as_bytes()).is_ok();
    let settings = user::UserSettings {
        path: &path,
        names: Names { lowercase: names.lowercase(), allowed: &allowed },
        mechanisms: &mechanisms,
        control: control.as_deref(),
        trust: &Trust::of_process(),
    };
    let mut voice = user::Voice { out, err: &mut io::stderr(), json: arguments.json, quiet: arguments.quiet };
    user::run(&arguments.command, &settings, &mut voice, &mut prompt::Terminal)
        .map_err(|error| Failure { exit: error.exit_code(), message: error.to_string() })
}

/// `--config`, or the place where it is looked for.
fn config_path(given: Option<&Path>) -> PathBuf {
    given.unwrap_or(Path::new(DEFAULT_PATH)).to_owned()
}
