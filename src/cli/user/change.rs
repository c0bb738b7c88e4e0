//! `sasld user add`, `passwd` and `remove`.
//!
//! Whether there is anything to do is looked up before somebody types a password in vain, and again under the lock.

use clap::Args;
use serde_json::Value;

use super::password::{PasswordArgs, are_for, are_of, derive_all, in_words, notes, schemes_of};
use super::voice::{Generated, Report, user};
use super::{UserError, UserSettings, Voice, load, rewrite};
use crate::cli::Exit;
use crate::cli::prompt::PasswordPrompt;
use crate::credential::{Password, Scheme, Verifiers};
use crate::secrets::{self, Edited, LoadError, Missing, StoreError};

/// Arguments of `add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    #[command(flatten)]
    password: PasswordArgs,

    /// Leave a user alone who is there already, and call that a success
    #[arg(long, conflicts_with = "update")]
    if_missing: bool,

    /// Give a user who is there already this password, unless it is the one he has
    #[arg(long, conflicts_with = "generate")]
    update: bool,
}

/// Arguments of `remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The users to remove
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Call it a success if a user is not there
    #[arg(long)]
    if_exists: bool,
}

pub(super) fn add(
    args: &AddArgs,
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Exit, UserError> {
    let name = new_name(&args.password.name, settings)?;
    args.password.refuse_surplus()?;
    let schemes = args.password.schemes.chosen(settings)?;
    let exists = match secrets::read_text(settings.path, settings.names.lowercase) {
        Err(StoreError::Load(LoadError::Missing { .. })) => false,
        text => text?.has(&name),
    };
    if exists && args.if_missing {
        return unchanged(&name, "exists already, nothing was changed").tell(settings, voice);
    }
    if exists && !args.update {
        return Err(UserError::Exists { name });
    }
    let (password, generated) = args.password.obtain(&name, prompt)?;
    if exists && fits(settings, &name, &schemes, &password)? {
        return unchanged(&name, "has this password already, nothing was changed").tell(settings, voice);
    }
    let verifiers = derive_all(&schemes, &password)?;
    let field = verifiers.encode();
    let edited = rewrite(settings, Missing::Create, |editor| {
        // Somebody may have been faster.
        let exists = editor.has(&name);
        match exists {
            true if args.update => editor.set_password(&name, field.as_bytes())?,
            true if args.if_missing => return Ok(None),
            _ => editor.add(&name, field.as_bytes())?,
        }
        Ok(Some(exists))
    })?;
    match edited.outcome {
        None => unchanged(&name, "exists already, nothing was changed").tell(settings, voice),
        Some(existed) => {
            let result = if existed { "updated" } else { "added" };
            let generated = generated.map(|password| Generated { name: name.clone(), password });
            stored(
                &format!("user {name} {result}"),
                user(&name, result),
                &verifiers,
                &edited,
                settings,
                generated,
            )
            .tell(settings, voice)
        }
    }
}

pub(super) fn passwd(
    args: &PasswordArgs,
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Exit, UserError> {
    let name = settings.names.canonical(&args.name);
    args.refuse_surplus()?;
    let schemes = args.schemes.chosen(settings)?;
    if !secrets::read_text(settings.path, settings.names.lowercase)?.has(&name) {
        return Err(secrets::EditError::Unknown { name: secrets::escape(name.as_bytes()) }.into());
    }
    let (password, generated) = args.obtain(&name, prompt)?;
    let verifiers = derive_all(&schemes, &password)?;
    let field = verifiers.encode();
    let edited =
        rewrite(settings, Missing::Refuse, |editor| Ok(editor.set_password(&name, field.as_bytes())?))?;
    if edited.installed.is_none() {
        return unchanged(&name, "has this password already, nothing was changed").tell(settings, voice);
    }
    let shown = secrets::escape(name.as_bytes());
    let generated = generated.map(|password| Generated { name: shown.clone(), password });
    let what = format!("password of {shown} changed");
    stored(&what, user(&name, "updated"), &verifiers, &edited, settings, generated).tell(settings, voice)
}

pub(super) fn remove(
    args: &RemoveArgs,
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
) -> Result<Exit, UserError> {
    let mut names: Vec<String> = args.names.iter().map(|name| settings.names.canonical(name)).collect();
    names.sort_unstable();
    names.dedup();
    // All or none.
    let removed = rewrite(settings, Missing::Refuse, |editor| {
        let remove = |name: &String| match editor.has(name) {
            false if args.if_exists => Ok(0),
            _ => Ok(editor.remove(name)?),
        };
        names.iter().map(remove).collect::<Result<Vec<usize>, UserError>>()
    });
    let removed = match removed {
        // Without a file nobody is there, either.
        Err(UserError::Store(StoreError::Load(LoadError::Missing { .. }))) if args.if_exists => {
            Edited { outcome: vec![0; names.len()], installed: None }
        }
        removed => removed?,
    };
    let mut report = Report { installed: removed.installed, ..Report::default() };
    for (name, lines) in names.iter().zip(removed.outcome) {
        let shown = secrets::escape(name.as_bytes());
        let path = settings.path.display();
        report.users.push(match lines {
            0 => (format!("there is no user {shown}, nothing was changed"), user(name, "absent")),
            1 => (format!("user {shown} removed from {path}"), user(name, "removed")),
            lines => (format!("user {shown} removed from {path} ({lines} lines)"), user(name, "removed")),
        });
    }
    report.tell(settings, voice)
}

/// The canonical form of a name that somebody could log in with.
fn new_name(given: &str, settings: &UserSettings<'_>) -> Result<String, UserError> {
    let name = settings.names.canonical(given);
    secrets::check_name(name.as_bytes()).map_err(|error| UserError::Usage(error.to_string()))?;
    if (settings.names.allowed)(&name) {
        return Ok(name);
    }
    let name = secrets::escape(name.as_bytes());
    Err(UserError::Usage(format!("the rules for user names (usernames:) do not allow \"{name}\"")))
}

/// Whether this user has exactly these schemes, and this password in each.
fn fits(
    settings: &UserSettings<'_>,
    name: &str,
    schemes: &[Scheme],
    password: &Password,
) -> Result<bool, UserError> {
    let Some(verifiers) = load(settings)?.lookup(name).and_then(|entry| entry.verifiers) else {
        return Ok(false);
    };
    Ok(are_of(&verifiers, schemes) && are_for(&verifiers, password))
}

fn unchanged(name: &str, why: &str) -> Report {
    let sentence = format!("user {} {why}", secrets::escape(name.as_bytes()));
    Report { users: vec![(sentence, user(name, "unchanged"))], ..Report::default() }
}

/// The report about a new password.
fn stored<T>(
    what: &str,
    mut json: Value,
    verifiers: &Verifiers,
    edited: &Edited<T>,
    settings: &UserSettings<'_>,
    generated: Option<Generated>,
) -> Report {
    let schemes = schemes_of(verifiers);
    json["schemes"] = schemes.iter().map(|scheme| scheme.name()).collect();
    let sentence = format!("{what}, stored as {} in {}", in_words(&schemes), settings.path.display());
    Report {
        installed: edited.installed,
        users: vec![(sentence, json)],
        notes: notes(&schemes, settings),
        generated,
        ..Report::default()
    }
}
