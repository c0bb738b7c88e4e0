//! `sasld user export`: the entries of the file as they stand there, for other servers and for backups.
//!
//! The output is as precious as the file. It is not shown on a terminal, where it stays in the scroll-back, unless
//! somebody insists. With `--json` it describes the users and holds nothing precious.

use std::collections::HashSet;
use std::io::{self, BufWriter, IsTerminal, Write};

use clap::Args;
use serde_json::{Value, json};

use super::list::describe;
use super::{UserError, UserSettings, Voice, load};
use crate::cli::Exit;
use crate::credential::Verifiers;
use crate::secrets::{self, EditError};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The users; without any, all of them
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Write one verifier for each user, the strongest, because Dovecot cannot read several
    #[arg(long)]
    strongest: bool,

    /// Show verifiers on a terminal
    #[arg(long)]
    force: bool,
}

pub(super) fn run(
    args: &ExportArgs,
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
) -> Result<Exit, UserError> {
    let text = secrets::read_text(settings.path, settings.names.lowercase)?;
    let names: HashSet<String> = args.names.iter().map(|name| settings.names.canonical(name)).collect();
    if let Some(unknown) = names.iter().find(|name| !text.has(name)) {
        return Err(EditError::Unknown { name: secrets::escape(unknown.as_bytes()) }.into());
    }
    let wanted = |name: &str| names.is_empty() || names.contains(&settings.names.canonical(name));
    if voice.json {
        let secrets = load(settings)?;
        let entries = secrets.names().filter(|name| wanted(name)).filter_map(|name| secrets.lookup(name));
        let users: Vec<Value> = entries.map(|entry| describe(&entry, settings)).collect();
        voice.object(&json!({ "file": settings.path.to_string_lossy(), "users": users }))?;
        return Ok(Exit::Yes);
    }
    if io::stdout().is_terminal() && !args.force {
        let reason = "this prints verifiers, and a terminal keeps what it shows; send them to a file that is yours \
                      alone (umask 077), or say --force";
        return Err(UserError::Usage(reason.to_owned()));
    }
    let mut out = BufWriter::new(&mut *voice.out);
    let mut several = 0;
    for (name, line) in text.lines().filter(|(name, _)| wanted(&String::from_utf8_lossy(name))) {
        let (password, rest) = field_of(name, line);
        let verifiers = Verifiers::parse(password).ok().filter(|verifiers| verifiers.iter().count() > 1);
        match verifiers {
            Some(verifiers) if args.strongest => {
                out.write_all(name)?;
                out.write_all(b":")?;
                out.write_all(verifiers.strongest().encode().as_bytes())?;
                out.write_all(rest)?;
            }
            verifiers => {
                several += usize::from(verifiers.is_some());
                out.write_all(line)?;
            }
        }
        out.write_all(b"\n")?;
    }
    out.flush()?;
    drop(out);
    if several > 0 && !voice.quiet {
        writeln!(
            voice.err,
            "note: {several} of these users have several verifiers, which Dovecot cannot read; see --strongest"
        )?;
    }
    Ok(Exit::Yes)
}

/// The password field of a line, and all that stands behind it.
fn field_of<'a>(name: &[u8], line: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let rest = line.get(name.len() + 1..).unwrap_or_default();
    rest.split_at(rest.iter().position(|byte| *byte == b':').unwrap_or(rest.len()))
}
