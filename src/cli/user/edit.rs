//! `sasld user edit`: the whole file in an editor, as vipw(8) does it.
//!
//! The editor works on a private copy beside the file (`.NAME.edit`, or `.NAME.edit2` and so on) while the lock keeps other writers waiting. What
//! comes back is judged before it replaces the file: a line that was fine or not there and is broken now is an obstacle,
//! one that was broken before is not. At a terminal a person may edit again or keep it as it is; without one it is
//! refused. An editor that fails changes nothing; a rewrite that fails leaves the copy, and the message says where.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::voice::Report;
use super::{UserError, UserSettings, Voice, rewrite};
use crate::cli::Exit;
use crate::cli::prompt::{PasswordPrompt, PromptError};
use crate::secrets::{self, Missing, Names, Secrets, StoreError};

/// Runs the editor of whoever is there, `$1` being the file. What it makes besides is as private as the file.
const DEFAULT_EDITOR: &str = "if command -v editor >/dev/null; then editor \"$1\"; else vi \"$1\"; fi";

/// More than a person reads before deciding.
const OBSTACLES_SHOWN: usize = 1_000;

/// How many copies can be beside the file.
const COPIES: u32 = 1_000;

pub(super) fn run(
    settings: &UserSettings<'_>,
    voice: &mut Voice<'_>,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Exit, UserError> {
    let mut draft = None;
    let edited = rewrite(settings, Missing::Refuse, |editor| {
        let draft = draft.insert(Draft::create(settings.path, editor.contents())?);
        let before = Secrets::parse(Zeroizing::new(editor.contents().to_vec()), &settings.names).len();
        loop {
            draft.open_editor()?;
            let text = draft.read()?;
            if *text == editor.contents() {
                return Ok((before, before));
            }
            let (users, obstacles) = judge(editor.contents(), &text, &settings.names);
            if obstacles.is_empty() || decide(&obstacles, voice, prompt)? == Decision::Keep {
                editor.replace_all(&text);
                return Ok((before, users));
            }
        }
    });
    let edited = edited.map_err(|error| match (error, draft.as_mut()) {
        (UserError::Store(source), Some(draft)) if !matches!(source, StoreError::NotDurable { .. }) => {
            draft.keep = true;
            UserError::Kept { path: draft.path.clone(), source }
        }
        (error, _) => error,
    })?;
    let (before, users) = edited.outcome;
    let path = settings.path.display();
    let sentence = match edited.installed {
        Some(_) => format!("{path}: changed, {users} users ({before} before)"),
        None => format!("{path}: unchanged"),
    };
    let mut report = Report { installed: edited.installed, ..Report::default() };
    report.summary.push(sentence);
    let first = fs::canonicalize(settings.path).map(|target| secrets::beside(&target, ".edit"));
    if let (Some(draft), Ok(first)) = (&draft, first)
        && draft.path != first
    {
        report.notes.push(format!(
            "{} is there from an edit that could not be finished; remove it when you have what you need",
            first.display()
        ));
    }
    report.fields.insert("user_count".into(), users.into());
    report.tell(settings, voice)
}

/// The copy that the editor works on; gone when this is dropped, unless it is to be kept.
struct Draft {
    path: PathBuf,
    keep: bool,
}

impl Draft {
    fn create(file: &Path, contents: &[u8]) -> Result<Self, UserError> {
        let target = fs::canonicalize(file).map_err(|source| failed("realpath", file, source))?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        // A copy that is there is what somebody wrote and could not save.
        let mut names = (2..=COPIES).map(|number| format!(".edit{number}"));
        let mut path = secrets::beside(&target, ".edit");
        let mut copy = loop {
            match (options.open(&path), names.next()) {
                (Err(error), Some(next)) if error.kind() == io::ErrorKind::AlreadyExists => {
                    path = secrets::beside(&target, &next);
                }
                (opened, _) => break opened.map_err(|source| failed("open", &path, source))?,
            }
        };
        let draft = Self { path, keep: false };
        copy.write_all(contents).map_err(|source| failed("write", &draft.path, source))?;
        Ok(draft)
    }

    fn open_editor(&self) -> Result<(), UserError> {
        let chosen = ["VISUAL", "EDITOR"].into_iter().find_map(|name| {
            std::env::var_os(name)
                .and_then(|value| value.into_string().ok())
                .filter(|value| !value.trim().is_empty())
        });
        // A shell, because the variables hold commands with options. It outlives the keys that interrupt, too.
        let script = chosen.map_or(DEFAULT_EDITOR.to_owned(), |editor| format!("{editor} \"$1\""));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("umask 077; trap : INT QUIT; {script}"), "sh"]).arg(&self.path);
        match run_undisturbed(&mut command) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(UserError::No(format!("the editor ended with {status}; nothing was changed"))),
            Err(error) => Err(UserError::Unavailable(format!("cannot run the editor: {error}"))),
        }
    }

    /// The text, with the newline at its end that every line needs.
    fn read(&self) -> Result<Zeroizing<Vec<u8>>, UserError> {
        let read = fs::read(&self.path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                UserError::No("the editor took the file away; nothing was changed".to_owned())
            }
            _ => failed("read", &self.path, source),
        });
        let mut text = Zeroizing::new(read?);
        if text.last().is_some_and(|last| *last != b'\n') {
            text.push(b'\n');
        }
        Ok(text)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.keep {
            // If this fails, it is as private as the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Runs a program that has the terminal: the keys that interrupt are meant for it and not for us.
fn run_undisturbed(command: &mut Command) -> io::Result<ExitStatus> {
    let mut held = SigSet::empty();
    held.add(Signal::SIGINT);
    held.add(Signal::SIGQUIT);
    let signals = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    held.thread_block()?;
    let status = command.status();
    while let Ok(Some(_)) = signals.read_signal() {}
    held.thread_unblock()?;
    status
}

/// How many users the new text has, and what speaks against it: all of it, for one line decides as well as a million.
fn judge(before: &[u8], after: &[u8], names: &Names<'_>) -> (usize, Vec<String>) {
    let parse = |text: &[u8]| Secrets::parse_listing(Zeroizing::new(text.to_vec()), names, usize::MAX);
    let (old, new) = (parse(before), parse(after));
    let old_lines: Vec<&[u8]> = before.split(|byte| *byte == b'\n').collect();
    let new_lines: Vec<&[u8]> = after.split(|byte| *byte == b'\n').collect();
    let known: HashSet<&[u8]> = old
        .problems()
        .listed()
        .iter()
        .filter_map(|problem| old_lines.get(problem.line - 1).copied())
        .collect();
    let is_new = |line: usize| new_lines.get(line - 1).is_none_or(|text| !known.contains(text));
    let mut obstacles: Vec<String> = new
        .problems()
        .listed()
        .iter()
        .filter(|problem| is_new(problem.line))
        .map(ToString::to_string)
        .collect();
    if new.is_empty() && !old.is_empty() {
        obstacles.push(format!("there are no users any more, there were {}", old.len()));
    }
    (new.len(), obstacles)
}

#[derive(PartialEq, Eq)]
enum Decision {
    Again,
    Keep,
}

fn decide(
    obstacles: &[String],
    voice: &mut Voice<'_>,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Decision, UserError> {
    for obstacle in obstacles.iter().take(OBSTACLES_SHOWN) {
        writeln!(voice.err, "{obstacle}")?;
    }
    if obstacles.len() > OBSTACLES_SHOWN {
        writeln!(voice.err, "and {} more like these", obstacles.len() - OBSTACLES_SHOWN)?;
    }
    loop {
        let answer = prompt.question("Edit again (e), quit without changes (q), or keep it as it is (y)? ");
        match answer.as_deref() {
            Ok("e" | "E") => return Ok(Decision::Again),
            Ok("y" | "Y") => return Ok(Decision::Keep),
            Ok("q" | "Q") => return Err(UserError::No("nothing was changed".to_owned())),
            Ok(_) => {}
            Err(PromptError::NobodyToAsk) => {
                let reason = "there is nobody to ask about these problems, so nothing was changed";
                return Err(UserError::Data(reason.to_owned()));
            }
            Err(PromptError::EndOfInput) => {
                return Err(UserError::No("no answer; nothing was changed".to_owned()));
            }
            Err(_) => return Err(answer.map(|_| ()).expect_err("matched above").into()),
        }
    }
}

fn failed(call: &'static str, path: &Path, source: io::Error) -> UserError {
    UserError::File { path: path.display().to_string(), call, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obstacles(before: &str, after: &str) -> Vec<String> {
        let names = Names { lowercase: true, allowed: &|_| true };
        judge(before.as_bytes(), after.as_bytes(), &names).1
    }

    #[test]
    fn only_what_is_newly_broken_is_an_obstacle() {
        let broken = "a:{PLAIN}x\nold:nothing\n";
        assert!(obstacles(broken, "old:nothing\nb:{PLAIN}y\n").is_empty());
        let found = obstacles(broken, "a:{PLAIN}x\nold:other\nb:\n");
        assert!(found[0].starts_with("line 2 (old): no {SCHEME}"), "{found:?}");
        assert!(found[1].starts_with("line 3 (b): "), "{found:?}");
    }

    #[test]
    fn a_name_that_stands_there_twice_now_is_an_obstacle_and_one_that_did_is_not() {
        assert_eq!(obstacles("a:{PLAIN}x\n", "a:{PLAIN}x\na:{PLAIN}y\n").len(), 2);
        assert!(obstacles("a:{PLAIN}x\na:{PLAIN}y\n", "# two\na:{PLAIN}x\na:{PLAIN}y\n").is_empty());
    }

    #[test]
    fn one_new_problem_among_thousands_of_old_ones_is_found() {
        let old: String = (0..3_000).map(|n| format!("u{n}:nothing\ntwice:{{PLAIN}}x\n")).collect();
        let new = format!("{old}new:nothing\nu2999:{{PLAIN}}x\n");
        let found = obstacles(&old, &new);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("line 6001 (new): ") && found[1].starts_with("line 6002 (u2999): the name")
        );
        assert!(obstacles(&old, &format!("# moved\n{old}")).is_empty());
        let all: String = (0..3_000).map(|n| format!("v{n}:nothing\n")).collect();
        assert_eq!(obstacles("a:{PLAIN}x\n", &all).len(), 3_000);
    }

    #[test]
    fn to_lose_every_user_is_an_obstacle() {
        assert_eq!(obstacles("a:{PLAIN}x\n", ""), ["there are no users any more, there were 1"]);
        assert!(obstacles("# nobody\n", "").is_empty());
    }
}
