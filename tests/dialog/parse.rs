//! A `.dialog` file → [`Dialog`]. Strict: what is not understood is an error with its line number, for a
//! misspelt step that is skipped would prove nothing.

use std::time::Duration;

use super::text::Line;
use super::{Action, Dialog, Origin, Step, Subject};

/// Silence long enough to say that nothing more is coming.
const NOTHING_MORE: Duration = Duration::from_millis(200);

/// Reads a dialog.
///
/// # Errors
/// `LINE: what is wrong`.
pub fn dialog(name: &str, source: &str) -> Result<Dialog, String> {
    let mut lines = source.lines().enumerate().map(|(index, line)| (index + 1, line));
    let (_, title) = lines.next().ok_or("1: the file is empty")?;
    let mut dialog = Dialog {
        name: name.to_owned(),
        title: title.to_owned(),
        from: Vec::new(),
        profile: String::new(),
        differs: Vec::new(),
        dovecot: None,
        steps: Vec::new(),
    };
    for (number, line) in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        head(&mut dialog, line).map_err(|e| format!("{number}: {e}"))?;
    }
    let mut new_write = true;
    for (number, line) in lines {
        if line.is_empty() {
            new_write = true;
        } else if !line.starts_with('#') {
            for step in steps(number, line).map_err(|e| format!("{number}: {e}"))? {
                push(&mut dialog.steps, step, new_write);
                new_write = false;
            }
        }
    }
    whole(&dialog).map_err(|e| format!("1: {e}"))?;
    Ok(dialog)
}

/// One head line: `key: value`.
fn head(dialog: &mut Dialog, line: &str) -> Result<(), String> {
    let (key, value) = line.split_once(": ").ok_or("a head line is `key: value`")?;
    match key {
        "from" => dialog.from.push(origin(value)),
        "profile" if dialog.profile.is_empty() => dialog.profile = value.to_owned(),
        "dovecot" if dialog.dovecot.is_none() => dialog.dovecot = Some(value.to_owned()),
        "differs" => {
            let (key, reason) = value.split_once(" - ").ok_or("`differs: key - reason`")?;
            dialog.differs.push((key.to_owned(), reason.to_owned()));
        }
        _ => return Err(format!("unknown or repeated head line `{key}`")),
    }
    Ok(())
}

fn origin(value: &str) -> Origin {
    let first_word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    if let Some(rest) = value.strip_prefix("transcript ") {
        Origin::Transcript(first_word(rest))
    } else if let Some(rest) = value.strip_prefix("bad input ") {
        Origin::BadInput(first_word(rest))
    } else {
        Origin::Other(value.to_owned())
    }
}

/// What can only be said about the dialog as a whole.
fn whole(dialog: &Dialog) -> Result<(), &'static str> {
    let tagged = dialog.steps.iter().any(|step| step.only.is_some());
    if dialog.from.is_empty() {
        return Err("`from:` is missing");
    }
    if dialog.profile.is_empty() {
        return Err("`profile:` is missing");
    }
    if dialog.steps.is_empty() {
        return Err("there are no steps after the head");
    }
    if tagged && dialog.differs.is_empty() {
        return Err("steps for one server only need a `differs:` line with the reason");
    }
    if !tagged && !dialog.differs.is_empty() {
        return Err("`differs:`, but every step is for both servers");
    }
    Ok(())
}

/// Appends a step; consecutive `C:` lines of one connection become one write.
fn push(steps: &mut Vec<Step>, step: Step, new_write: bool) {
    if let (Action::Send { lines: more, unfinished }, Some(last), false) =
        (&step.action, steps.last_mut(), new_write)
        && last.connection == step.connection
        && last.only == step.only
        && let Action::Send { lines, unfinished: earlier @ false } = &mut last.action
    {
        lines.extend_from_slice(more);
        *earlier = *unfinished;
        return;
    }
    steps.push(step);
}

/// The step or, for a `{1..3}` in a server line, the steps on one line.
fn steps(number: usize, line: &str) -> Result<Vec<Step>, String> {
    if line.ends_with([' ', '\t']) {
        return Err("a blank at the end cannot be seen; write it `\\x20`".into());
    }
    let (who, rest) = match line.as_bytes()[0] {
        who @ (b'C' | b'S') if line.contains(':') => (Some(who), &line[1..]),
        _ => (None, line),
    };
    let (connection, rest) = bracket(rest, '[', ']');
    let (only, rest) = bracket(rest, '(', ')');
    let only = match only {
        None => None,
        Some("dovecot") => Some(Subject::Dovecot),
        Some("sasld") => Some(Subject::Sasld),
        Some(other) => return Err(format!("unknown server `{other}`")),
    };
    let actions = match who {
        None => vec![event(rest.trim_start())?],
        Some(b'C') => vec![sent(rest)?],
        Some(_) => expected(rest)?,
    };
    let step = |action| Step {
        line_number: number,
        connection: connection.unwrap_or_default().to_owned(),
        only,
        action,
    };
    Ok(actions.into_iter().map(step).collect())
}

/// Takes `[name]` or `(name)` from the front.
fn bracket(text: &str, open: char, close: char) -> (Option<&str>, &str) {
    match text.strip_prefix(open).and_then(|inner| inner.split_once(close)) {
        Some((inside, rest)) => (Some(inside), rest),
        None => (None, text),
    }
}

/// What follows `C`.
fn sent(rest: &str) -> Result<Action, String> {
    let (unfinished, rest) = match rest.strip_prefix(" without LF") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let lines = Line::parse(after_colon(rest)?)?.unrolled();
    Ok(Action::Send { lines, unfinished })
}

/// What follows `S`.
fn expected(rest: &str) -> Result<Vec<Action>, String> {
    let (any_order, rest) = match rest.strip_prefix(" any order") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let lines = Line::parse(after_colon(rest)?)?.unrolled();
    Ok(lines.into_iter().map(|line| Action::Expect { line, any_order }).collect())
}

fn after_colon(rest: &str) -> Result<&str, String> {
    match rest {
        ":" => Ok(""),
        _ => rest.strip_prefix(": ").ok_or_else(|| format!("expected `: ` instead of `{rest}`")),
    }
}

/// A line that is neither the client's nor the server's.
fn event(text: &str) -> Result<Action, String> {
    Ok(match text {
        "connect" => Action::Connect { minor: None },
        "close" => Action::Close,
        "half close" => Action::HalfClose,
        "closed by server" => Action::ClosedByServer,
        "nothing more" => Action::Silence(NOTHING_MORE),
        "at once" => Action::AtOnce,
        "still works" => Action::StillWorks,
        "secrets file removed" => Action::Secrets(None),
        _ => {
            if let Some(minor) = text.strip_prefix("connect 1.") {
                Action::Connect { minor: Some(minor.to_owned()) }
            } else if let Some(time) = text.strip_prefix("after ") {
                Action::After(seconds(time)?)
            } else if let Some(time) = text.strip_prefix("nothing for ") {
                Action::Silence(seconds(time)?)
            } else if let Some(contents) = text.strip_prefix("secrets file: ") {
                Action::Secrets(Some(Line::parse(contents)?))
            } else {
                return Err(format!("unknown step `{text}`"));
            }
        }
    })
}

/// `150s`
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').and_then(|n| n.parse().ok());
    number.map(Duration::from_secs).ok_or_else(|| format!("`{text}` is not a time like `2s`"))
}
