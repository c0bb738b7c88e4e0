//! What becomes of each user of a foreign file: added, replaced, there already, or left out with a reason.
//!
//! Nobody is left out silently and nothing is guessed: a name that stands in the file twice is taken from neither line,
//! and somebody who is there already keeps what he has unless that is what the file says, too, or `--replace` is given.
//! Whoever is locked stays so, for only `unlock` undoes `lock`; a restriction that goes is named. With `--replace` a password that is the same is stored again if it is not stored in the schemes that are asked for.

use std::collections::HashMap;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Foreign, Stored, schemes_in_words};
use crate::cli::user::UserSettings;
use crate::cli::user::password::{are_for, are_of};
use crate::credential::{Scheme, Verifiers};
use crate::secrets::{self, Closed, Net, OldLine, Secrets, SecretsEditor};

/// What becomes of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Added,
    Replaced,
    Unchanged,
    LeftOut,
}

impl Fate {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
            Self::LeftOut => "left_out",
        }
    }

    /// Whether the file changes for him.
    pub(super) fn writes(self) -> bool {
        matches!(self, Self::Added | Self::Replaced)
    }
}

/// A user and what becomes of him.
#[derive(Debug)]
pub(super) struct Planned {
    /// The canonical name, or what can be shown of one that cannot be.
    pub(super) name: String,
    line: Option<usize>,
    pub(super) fate: Fate,
    /// Why he is left out, or what else is to be said.
    remark: Option<String>,
    /// `None` for those who are left out.
    pub(super) stored: Option<Stored>,
    pub(super) rest: Option<Vec<u8>>,
}

impl Planned {
    /// For a person.
    pub(super) fn sentence(&self, applied: bool, schemes: &[Scheme]) -> String {
        let name = secrets::escape(self.name.as_bytes());
        let line = self.line.map_or(String::new(), |line| format!(" (line {line})"));
        let remark = self.remark.as_deref().unwrap_or_default();
        if self.fate == Fate::LeftOut {
            return format!("{name}{line}: left out: {remark}");
        }
        let stored = self.stored.as_ref().map(|stored| schemes_in_words(stored, schemes).join(" and "));
        let stored = stored.unwrap_or_default();
        let remark = if remark.is_empty() { String::new() } else { format!("; {remark}") };
        match (self.fate, applied) {
            (Fate::Added, true) => format!("{name}: added as {stored}{remark}"),
            (Fate::Added, false) => format!("{name}: would be added as {stored}{remark}"),
            (Fate::Replaced, true) => format!("{name}: replaced, now {stored}{remark}"),
            (Fate::Replaced, false) => format!("{name}: would be replaced with {stored}{remark}"),
            (Fate::Unchanged | Fate::LeftOut, _) => format!("{name}: there already{remark}"),
        }
    }

    /// For a program.
    pub(super) fn json(&self, schemes: &[Scheme]) -> Value {
        json!({
            "name": self.name,
            "line": self.line,
            "result": self.fate.name(),
            "reason": self.remark,
            "schemes": self.stored.as_ref().map(|stored| schemes_in_words(stored, schemes)),
        })
    }
}

/// Decides about everybody, in the order of the foreign file. `file` is the secrets file, if there is one; `replace`
/// has the schemes for passwords if users who are there already are to be replaced.
pub(super) fn plan(
    users: Vec<Foreign>,
    file: Option<&SecretsEditor>,
    replace: Option<&[Scheme]>,
    settings: &UserSettings<'_>,
) -> Vec<Planned> {
    let present = file.map(SecretsEditor::users).unwrap_or_default();
    let mut lines_of: HashMap<String, Vec<Option<usize>>> = HashMap::new();
    let canonical =
        |user: &Foreign| str::from_utf8(&user.name).ok().map(|name| settings.names.canonical(name));
    for user in &users {
        if let Some(name) = canonical(user) {
            lines_of.entry(name).or_default().push(user.line);
        }
    }
    let plan_one = |user: Foreign| {
        let name = canonical(&user);
        let others = name.as_ref().map_or(&[][..], |name| lines_of[name].as_slice());
        let twice = others.len() > 1;
        let other = others.iter().find(|line| **line != user.line).copied().flatten();
        let line = user.line;
        let shown = name.clone().unwrap_or_else(|| secrets::escape(&user.name));
        let decided = match name {
            Some(_) if twice => Err(match other {
                Some(line) => format!("the name stands on line {line}, too"),
                None => "the name stands there more than once".to_owned(),
            }),
            Some(name) => {
                let old = present.get(name.as_bytes());
                decide(&name, user, old, replace, settings)
            }
            None => Err("the user name is not UTF-8".to_owned()),
        };
        match decided {
            Ok((fate, remark, stored, rest)) => {
                Planned { name: shown, line, fate, remark, stored: Some(stored), rest }
            }
            Err(reason) => {
                let remark = Some(reason);
                Planned { name: shown, line, fate: Fate::LeftOut, remark, stored: None, rest: None }
            }
        }
    };
    users.into_iter().map(plan_one).collect()
}

type Decided = (Fate, Option<String>, Stored, Option<Vec<u8>>);

fn decide(
    name: &str,
    user: Foreign,
    old: Option<&OldLine<'_>>,
    replace: Option<&[Scheme]>,
    settings: &UserSettings<'_>,
) -> Result<Decided, String> {
    secrets::check_name(name.as_bytes()).map_err(|error| error.to_string())?;
    if !(settings.names.allowed)(name) {
        return Err("the rules for user names (usernames:) do not allow this name".to_owned());
    }
    let stored = user.stored?;
    let remark = remark(name, user.rest.as_deref(), settings)?;
    let Some(old) = old else {
        return Ok((Fate::Added, remark, stored, user.rest));
    };
    if old.twice {
        return Err(format!("the name stands in {} more than once", settings.path.display()));
    }
    let stays_locked = old.is_locked().then(|| user.rest.as_deref().map(secrets::lock_rest));
    let (rest, remark) = match stays_locked {
        // The file has a lock of its own, and its remark.
        None | Some(Some(None)) => (user.rest, remark),
        Some(locked) => {
            (locked.flatten(), Some("stays locked; `sasld user unlock` lets the user in".to_owned()))
        }
    };
    if is_same(old, &stored, rest.as_deref(), replace) {
        return Ok((Fate::Unchanged, remark, stored, None));
    }
    if replace.is_some() {
        let gone = rest.as_deref().and_then(|rest| gone(name, old.rest, rest, settings));
        let remarks: Vec<String> = remark.into_iter().chain(gone).collect();
        let remark = (!remarks.is_empty()).then(|| remarks.join("; "));
        return Ok((Fate::Replaced, remark, stored, rest));
    }
    Err(format!("exists already on line {} and is different; --replace takes this one", old.number))
}

/// What the extra fields of a passwd-file line do to its user; an error if they are broken.
fn remark(name: &str, rest: Option<&[u8]>, settings: &UserSettings<'_>) -> Result<Option<String>, String> {
    let Some(rest) = rest else { return Ok(None) };
    let secrets = with_rest(name, rest, settings);
    match secrets.lookup(name).and_then(|entry| entry.closed) {
        None => Ok(None),
        Some(Closed::Nologin) => Ok(Some("locked (nologin)".to_owned())),
        Some(Closed::BrokenLine) => {
            let problem = secrets.problems().listed().first();
            Err(problem.map_or("the line is broken".to_owned(), |problem| problem.reason.clone()))
        }
        Some(closed) => Ok(Some(format!("nobody can log in with this entry: {closed}"))),
    }
}

/// The restriction of a user that no longer holds with the new rest of his line.
fn gone(name: &str, old: &[u8], new: &[u8], settings: &UserSettings<'_>) -> Option<String> {
    let [old, new] = [old, new].map(|rest| with_rest(name, rest, settings).lookup(name));
    let (old, new) = (old?, new?);
    let nets = |nets: &[Net]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match (old.closed, &old.allow_nets) {
        (Some(closed), _) if new.closed.is_none() => {
            Some(format!("nobody could log in with the entry before: {closed}"))
        }
        (_, Some(old)) if new.allow_nets.is_none() => {
            Some(format!("allow_nets={} goes: logins from anywhere", nets(old)))
        }
        (_, Some(old)) if new.allow_nets.as_ref() != Some(old) => {
            let new = new.allow_nets.as_deref().map(nets).unwrap_or_default();
            Some(format!("allow_nets={new} instead of {}", nets(old)))
        }
        _ => None,
    }
}

/// A file with nobody but this user, who has a good password.
fn with_rest(name: &str, rest: &[u8], settings: &UserSettings<'_>) -> Secrets {
    let mut line = [name.as_bytes(), b":{PLAIN.b64}eA==", rest, b"\n"].concat();
    line.retain(|byte| *byte != b'\r');
    Secrets::parse(Zeroizing::new(line), &settings.names)
}

/// Whether the secrets file says the same of a user already, and with `schemes` in just these.
fn is_same(old: &OldLine<'_>, stored: &Stored, rest: Option<&[u8]>, schemes: Option<&[Scheme]>) -> bool {
    if rest.is_some_and(|rest| rest != old.rest) {
        return false;
    }
    match (stored, old.field) {
        (_, None) => false,
        (Stored::Field(field), Some(old)) => old == field.as_slice(),
        (Stored::Plain(password), Some(old)) => Verifiers::parse(old).is_ok_and(|verifiers| {
            schemes.is_none_or(|schemes| are_of(&verifiers, schemes)) && are_for(&verifiers, password)
        }),
    }
}
