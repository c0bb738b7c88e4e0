//! `sasld user lock` and `unlock`: the extra field `nologin`, put on users' lines and taken away again.
//!
//! What is stored for their passwords stays as it is. Whoever is locked already, or is not, is no error.

use clap::Args;

use super::voice::{Report, user};
use super::{UserError, UserSettings, Voice, load, rewrite};
use crate::cli::Exit;
use crate::secrets::{self, EditError, Missing, SecretsEditor};

/// Arguments of commands about users who are there.
#[derive(Debug, Args)]
pub struct NamesArgs {
    /// The users
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

pub(super) fn lock(
    names: &[String],
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
) -> Result<Exit, UserError> {
    change(names, settings, SecretsEditor::lock, ["locked", "was locked already"])?.tell(settings, voice)
}

pub(super) fn unlock(
    names: &[String],
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
) -> Result<Exit, UserError> {
    let mut report = change(names, settings, SecretsEditor::unlock, ["unlocked", "was not locked"])?;
    // There are other reasons why somebody cannot log in.
    let secrets = load(settings)?;
    for name in names.iter().map(|name| settings.names.canonical(name)) {
        if let Some(closed) = secrets.lookup(&name).and_then(|entry| entry.closed) {
            let name = secrets::escape(name.as_bytes());
            report.notes.push(format!("{name} still cannot log in: {closed}"));
        }
    }
    report.tell(settings, voice)
}

/// All or none. The words are for those who were changed and those who were not.
fn change(
    names: &[String],
    settings: &UserSettings<'_>,
    change: fn(&mut SecretsEditor, &str) -> Result<bool, EditError>,
    [done, needless]: [&str; 2],
) -> Result<Report, UserError> {
    let mut names: Vec<String> = names.iter().map(|name| settings.names.canonical(name)).collect();
    names.sort_unstable();
    names.dedup();
    let edited = rewrite(settings, Missing::Refuse, |editor| {
        let changed = names.iter().map(|name| Ok(change(editor, name)?));
        changed.collect::<Result<Vec<bool>, UserError>>()
    })?;
    let users = names.iter().zip(edited.outcome).map(|(name, changed)| {
        let shown = secrets::escape(name.as_bytes());
        match changed {
            true => (format!("user {shown} {done}"), user(name, done)),
            false => (format!("user {shown} {needless}, nothing was changed"), user(name, "unchanged")),
        }
    });
    Ok(Report { installed: edited.installed, users: users.collect(), ..Report::default() })
}
