//! `sasld hash`: a password as it is stored in a secrets file, for whoever writes that file himself.
//!
//! Needs no configuration and touches no file.

use super::prompt::{PasswordPrompt, PromptError};
use super::{Exit, Failure};
use crate::credential::{self, DeriveError, Scheme, Verifiers};
use clap::Args;
use std::io::Write;

/// Print what is stored for a password
///
/// The password is asked for twice without echo, or read with --password-stdin. The output belongs behind the name
/// and a colon on a line of a secrets file, sasld's or Dovecot's.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How to store it; several schemes side by side if repeated
    ///
    /// From best to worst: ARGON2ID, CRYPT (yescrypt), ARGON2I, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, SSHA512, SSHA256,
    /// CRAM-MD5, PLAIN. Only sasld reads several side by side, Dovecot does not.
    #[arg(long = "scheme", value_name = "SCHEME", default_value = "ARGON2ID")]
    schemes: Vec<Scheme>,
    /// How expensive to make it
    ///
    /// ARGON2ID and ARGON2I count passes, SHA512-CRYPT and SHA256-CRYPT rounds, BLF-CRYPT the logarithm of its rounds
    /// and CRYPT steps from 1 to 9. The others have no cost.
    #[arg(long, value_name = "N")]
    cost: Option<u32>,
    /// Read the password from standard input; one newline at its end is removed, nothing else
    #[arg(long)]
    password_stdin: bool,
    /// Catches a password given as an argument
    #[arg(hide = true)]
    surplus: Vec<String>,
}

pub(super) fn run(
    arguments: &Arguments,
    out: &mut dyn Write,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Exit, Failure> {
    if !arguments.surplus.is_empty() {
        let reason = "no password on the command line, please: every local user can read it there; \
                      it is asked for, or read with --password-stdin";
        return Err(Failure::new(Exit::Usage, reason));
    }
    if arguments.cost.is_some() && arguments.schemes.iter().all(|scheme| scheme.costs().is_none()) {
        return Err(Failure::new(Exit::Usage, "--cost: no scheme given has one"));
    }
    let password = if arguments.password_stdin { prompt.read_stdin()? } else { prompt.ask("Password: ")? };
    if !arguments.password_stdin && password.as_bytes() != prompt.ask("The same again: ")?.as_bytes() {
        return Err(Failure::new(Exit::No, "the two passwords differ"));
    }
    let mut stored: Option<Verifiers> = None;
    for scheme in &arguments.schemes {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| Failure::new(Exit::TryAgain, error))?;
        // Of several schemes, those without a cost have nothing to do with it.
        let cost = arguments.cost.filter(|_| scheme.costs().is_some());
        let verifier = credential::derive(*scheme, &password, &salt, cost)
            .map_err(|error| Failure::new(exit_of(&error), error))?;
        match &mut stored {
            None => stored = Some(verifier.into()),
            Some(stored) => stored.add(verifier).map_err(|error| Failure::new(Exit::Usage, error))?,
        }
    }
    let stored = stored.ok_or_else(|| Failure::new(Exit::Usage, "no scheme"))?;
    writeln!(out, "{}", *stored.encode())?;
    Ok(Exit::Yes)
}

fn exit_of(error: &DeriveError) -> Exit {
    match error {
        DeriveError::EmptyPassword | DeriveError::ImpossiblePassword => Exit::No,
        DeriveError::NoCost { .. } | DeriveError::CostOutOfRange { .. } => Exit::Usage,
    }
}

impl From<PromptError> for Failure {
    fn from(error: PromptError) -> Self {
        let exit = match &error {
            PromptError::NoTerminal(_) | PromptError::NobodyToAsk => Exit::Usage as u8,
            PromptError::TooLong | PromptError::EndOfInput => Exit::No as u8,
            PromptError::Interrupted { signal } => u8::try_from(128 + signal).unwrap_or(Exit::No as u8),
            PromptError::Io(_) => Exit::TryAgain as u8,
        };
        Self { exit, message: error.to_string() }
    }
}
