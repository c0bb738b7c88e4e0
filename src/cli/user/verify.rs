//! `sasld user verify`: is this the password, asked of every verifier on the user's line.
//!
//! It says yes only if the user could log in with it by every mechanism that his verifiers serve, so that a script may
//! rely on the exit code; mechanisms that are offered and that none of them serves are named. A wrong password, an unknown user and a closed entry are all a no; who asks can read the file
//! and need not be kept from telling them apart.

use clap::Args;
use serde_json::{Map, Value, json};

use super::list::{useless_mechanisms, why_useless};
use super::{UserError, UserSettings, Voice, load};
use crate::cli::Exit;
use crate::cli::prompt::PasswordPrompt;
use crate::credential::Verifiers;
use crate::secrets;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The user
    name: String,

    /// Catches a password given as an argument
    #[arg(hide = true)]
    surplus: Vec<String>,

    /// Read the password from standard input; one newline at its end is removed, nothing else
    #[arg(long)]
    password_stdin: bool,
}

pub(super) fn run(
    args: &VerifyArgs,
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Exit, UserError> {
    let name = settings.names.canonical(&args.name);
    let shown = secrets::escape(name.as_bytes());
    if !args.surplus.is_empty() {
        let reason = "one name, please, and no password: arguments can be read by every local user in the process list; \
                      it is asked for, or read with --password-stdin";
        return Err(UserError::Usage(reason.to_owned()));
    }
    let Some(entry) = load(settings)?.lookup(&name) else {
        return Err(secrets::EditError::Unknown { name: shown }.into());
    };
    let password = if args.password_stdin {
        prompt.read_stdin()?
    } else {
        prompt.ask(&format!("Password for {shown}: "))?
    };
    let checks: Vec<(&str, bool)> = entry
        .verifiers
        .iter()
        .flat_map(Verifiers::iter)
        .map(|verifier| (verifier.scheme().name(), verifier.verify(&password).is_some()))
        .collect();
    let right = checks.iter().filter(|(_, right)| *right).count();
    let exit =
        if right > 0 && right == checks.len() && entry.closed.is_none() { Exit::Yes } else { Exit::No };
    let useless = useless_mechanisms(&entry, settings);
    if voice.json {
        let schemes: Map<String, Value> =
            checks.iter().map(|(scheme, right)| ((*scheme).to_owned(), (*right).into())).collect();
        let closed = entry.closed.map(|closed| closed.to_string());
        voice.object(&json!({
            "name": name,
            "right": exit == Exit::Yes,
            "schemes": schemes,
            "closed": closed,
            "useless_mechanisms": useless,
        }))?;
    } else if !voice.quiet {
        for (scheme, right) in &checks {
            writeln!(voice.out, "{shown}: {scheme}: {}", if *right { "right" } else { "wrong" })?;
        }
        if right > 0 && right < checks.len() {
            writeln!(
                voice.out,
                "{shown}: the verifiers are not of one password; `sasld user passwd {shown}` makes new ones"
            )?;
        }
        for mechanism in useless {
            writeln!(voice.out, "{shown}: {}", why_useless(mechanism))?;
        }
        if let Some(closed) = entry.closed {
            writeln!(voice.out, "{shown}: nobody can log in with this entry: {closed}")?;
        }
    }
    Ok(exit)
}
