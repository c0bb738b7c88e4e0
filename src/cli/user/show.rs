//! `sasld user show`: everything about single users but what is stored for their passwords.

use std::io;

use serde_json::{Value, json};

use super::list::{describe, mechanisms, schemes, useless_mechanisms, why_useless};
use super::{UserError, UserSettings, Voice, load};
use crate::cli::Exit;
use crate::secrets::{self, Closed, Entry, Problem, Secrets};

pub(super) fn run(
    names: &[String],
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
) -> Result<Exit, UserError> {
    let secrets = load(settings)?;
    let names: Vec<String> = names.iter().map(|name| settings.names.canonical(name)).collect();
    let found = names.iter().map(|name| {
        let unknown = || secrets::EditError::Unknown { name: secrets::escape(name.as_bytes()) };
        secrets.lookup(name).ok_or_else(unknown)
    });
    let entries = found.collect::<Result<Vec<Entry<'_>>, _>>()?;
    if voice.json {
        let users = entries.iter().map(|entry| {
            let mut user = describe(entry, settings);
            let problems = problems(&secrets, entry);
            user["problems"] = problems
                .map(|Problem { line, reason, .. }| json!({ "line": line, "reason": reason }))
                .collect();
            user
        });
        voice.object(
            &json!({ "file": settings.path.to_string_lossy(), "users": users.collect::<Vec<Value>>() }),
        )?;
        return Ok(Exit::Yes);
    }
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            writeln!(voice.out)?;
        }
        as_text(entry, &secrets, settings, voice)?;
    }
    Ok(Exit::Yes)
}

fn as_text(
    entry: &Entry<'_>,
    secrets: &Secrets,
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
) -> io::Result<()> {
    let or_none =
        |words: Vec<&'static str>| if words.is_empty() { "none".to_owned() } else { words.join(" ") };
    writeln!(voice.out, "name        {}", secrets::escape(entry.name.as_bytes()))?;
    writeln!(voice.out, "schemes     {}", or_none(schemes(entry)))?;
    writeln!(voice.out, "mechanisms  {}", or_none(mechanisms(entry, settings)))?;
    for mechanism in useless_mechanisms(entry, settings) {
        writeln!(voice.out, "            {}", why_useless(mechanism))?;
    }
    let from = match entry.allow_nets.as_deref() {
        None => "anywhere".to_owned(),
        Some([]) => "nowhere: allow_nets is empty".to_owned(),
        Some(nets) => nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    };
    writeln!(voice.out, "from        {from}")?;
    match entry.closed {
        None => writeln!(voice.out, "locked      no")?,
        Some(Closed::Nologin) => {
            let name = secrets::escape(entry.name.as_bytes());
            writeln!(voice.out, "locked      yes (`sasld user unlock {name}` lets the user in again)")?;
        }
        Some(closed) => writeln!(voice.out, "closed      {closed}")?,
    }
    for problem in problems(secrets, entry) {
        writeln!(voice.out, "problem     line {}: {}", problem.line, problem.reason)?;
    }
    Ok(())
}

/// What is wrong with this user's lines.
fn problems<'a>(secrets: &'a Secrets, entry: &Entry<'_>) -> impl Iterator<Item = &'a Problem> {
    let name = secrets::escape(entry.name.as_bytes());
    secrets.problems().listed().iter().filter(move |problem| problem.name.as_ref() == Some(&name))
}
