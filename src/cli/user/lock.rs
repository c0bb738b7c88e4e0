//! `sasld user lock` and `unlock`: the extra field `nologin`, put on users' lines and taken away again.
//!
//! What is stored for their passwords stays as it is. Whoever is locked already, or is not, is no error.

use clap::Args;
use zeroize::Zeroizing;

use super::voice::{Report, user};
use super::{UserError, UserSettings, Voice, rewrite};
use crate::cli::Exit;
use crate::secrets::{self, EditError, Missing, Secrets, SecretsEditor};

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
    let words = ["locked", "was locked already"];
    change(names, settings, SecretsEditor::lock, words, |_, _| Vec::new())?.tell(settings, voice)
}

pub(super) fn unlock(
    names: &[String],
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
) -> Result<Exit, UserError> {
    // There are other reasons why somebody cannot log in.
    let still_closed = |contents: &[u8], names: &[String]| {
        let secrets = Secrets::parse(Zeroizing::new(contents.to_vec()), &settings.names);
        let closed = names.iter().filter_map(|name| {
            let closed = secrets.lookup(name)?.closed?;
            Some(format!("{} still cannot log in: {closed}", secrets::escape(name.as_bytes())))
        });
        closed.collect()
    };
    let words = ["unlocked", "was not locked"];
    change(names, settings, SecretsEditor::unlock, words, still_closed)?.tell(settings, voice)
}

/// All or none. The words are for those who were changed and those who were not; `notes` sees the new contents.
fn change(
    names: &[String],
    settings: &UserSettings<'_>,
    change: fn(&mut SecretsEditor, &str) -> Result<bool, EditError>,
    [done, needless]: [&str; 2],
    notes: impl FnOnce(&[u8], &[String]) -> Vec<String>,
) -> Result<Report, UserError> {
    let mut names: Vec<String> = names.iter().map(|name| settings.names.canonical(name)).collect();
    names.sort_unstable();
    names.dedup();
    let edited = rewrite(settings, Missing::Refuse, |editor| {
        let changed = names.iter().map(|name| Ok(change(editor, name)?));
        let changed = changed.collect::<Result<Vec<bool>, UserError>>()?;
        Ok((changed, notes(editor.contents(), &names)))
    })?;
    let (changed, notes) = edited.outcome;
    let users = names.iter().zip(changed).map(|(name, changed)| {
        let shown = secrets::escape(name.as_bytes());
        match changed {
            true => (format!("user {shown} {done}"), user(name, done)),
            false => (format!("user {shown} {needless}, nothing was changed"), user(name, "unchanged")),
        }
    });
    Ok(Report { installed: edited.installed, users: users.collect(), notes, ..Report::default() })
}
