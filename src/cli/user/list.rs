//! `sasld user list`: who is in the file and what each can use, as a table or as JSON, never a secret.
//!
//! It shows a file that the daemon would refuse, too, and says so. Names come from a file that others may have
//! written, so both forms spell out everything that could mislead a terminal.

use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use super::{UserError, UserSettings, Voice, load};
use crate::cli::Exit;
use crate::credential::Verifiers;
use crate::sasl::Mechanism;
use crate::secrets::{self, Entry, Problem, Secrets};

pub(super) fn run(settings: &UserSettings<'_>, voice: &mut Voice<'_>) -> Result<Exit, UserError> {
    let secrets = load(settings)?;
    if voice.json {
        as_json(&secrets, settings, voice)?;
    } else {
        as_text(&secrets, settings, voice)?;
    }
    Ok(Exit::Yes)
}

fn as_text(secrets: &Secrets, settings: &UserSettings<'_>, voice: &mut Voice<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(&mut *voice.out);
    let name_width = secrets.names().map(|name| name.chars().count()).max().unwrap_or_default().clamp(4, 40);
    if !secrets.is_empty() {
        writeln!(out, "{:name_width$}  {:24}  MECHANISMS", "NAME", "SCHEMES")?;
    }
    for entry in secrets.names().filter_map(|name| secrets.lookup(name)) {
        let usable = match entry.closed {
            Some(closed) => format!("none: {closed}"),
            None => mechanisms(&entry, settings).join(" "),
        };
        let name = secrets::escape(entry.name.as_bytes());
        writeln!(out, "{name:name_width$}  {:24}  {usable}", schemes(&entry).join(" "))?;
    }
    out.flush()?;
    drop(out);
    let problems = secrets.problems();
    for problem in problems.listed() {
        writeln!(voice.err, "{problem}")?;
    }
    match problems.total() - problems.listed().len() {
        0 => {}
        more => writeln!(voice.err, "and {more} problems more")?,
    }
    if let Err(error) = secrets::check_access(settings.path, settings.trust) {
        writeln!(voice.err, "warning: the daemon will not load this file: {error}")?;
    }
    Ok(())
}

fn as_json(secrets: &Secrets, settings: &UserSettings<'_>, voice: &mut Voice<'_>) -> io::Result<()> {
    let users =
        secrets.names().filter_map(|name| secrets.lookup(name)).map(|entry| describe(&entry, settings));
    let problems = secrets.problems().listed().iter();
    let problems = problems
        .map(|Problem { line, name, reason }| json!({ "line": line, "name": name, "reason": reason }));
    let object = json!({
        "file": settings.path.to_string_lossy(),
        "users": users.collect::<Vec<Value>>(),
        "problems": problems.collect::<Vec<Value>>(),
        "problem_count": secrets.problems().total(),
    });
    voice.object(&object)
}

/// What can be told of a user.
pub(super) fn describe(entry: &Entry<'_>, settings: &UserSettings<'_>) -> Value {
    let nets = entry.allow_nets.as_ref();
    json!({
        "name": entry.name,
        "schemes": schemes(entry),
        "mechanisms": mechanisms(entry, settings),
        "allow_nets": nets.map(|nets| nets.iter().map(ToString::to_string).collect::<Vec<String>>()),
        "locked": entry.closed == Some(secrets::Closed::Nologin),
        "closed": entry.closed.map(|closed| closed.to_string()),
    })
}

/// The schemes a user's password is stored in.
pub(super) fn schemes(entry: &Entry<'_>) -> Vec<&'static str> {
    entry.verifiers.iter().flat_map(Verifiers::iter).map(|verifier| verifier.scheme().name()).collect()
}

/// The mechanisms that are offered and let this user in, given the right password.
pub(super) fn mechanisms(entry: &Entry<'_>, settings: &UserSettings<'_>) -> Vec<&'static str> {
    let Some(verifiers) = entry.verifiers.as_ref().filter(|_| entry.closed.is_none()) else {
        return Vec::new();
    };
    let works = |mechanism: &&Mechanism| match mechanism {
        Mechanism::Plain | Mechanism::Login => true,
        Mechanism::CramMd5 => verifiers.cram_md5().is_some(),
    };
    settings.mechanisms.iter().filter(works).map(|mechanism| mechanism.name()).collect()
}

/// The mechanisms that are offered and cannot let this user in, although the entry is open.
pub(super) fn useless_mechanisms(entry: &Entry<'_>, settings: &UserSettings<'_>) -> Vec<&'static str> {
    let usable = mechanisms(entry, settings);
    let offered = settings.mechanisms.iter().map(|mechanism| mechanism.name());
    offered.filter(|name| entry.closed.is_none() && !usable.contains(name)).collect()
}

/// The reason for one of [`useless_mechanisms`].
pub(super) fn why_useless(mechanism: &str) -> String {
    format!("not {mechanism}: nothing is stored that it could use ({mechanism} or PLAIN)")
}
