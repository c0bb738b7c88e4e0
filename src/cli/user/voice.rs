//! `Voice`: what the commands say, to a person, to a script that wants JSON, or to one that wants silence.
//!
//! Results go to standard output; notes about them, which nobody parses, to standard error. With `--json` both are in
//! one object on one line, in ASCII, so that no terminal and no log is misled by names others chose. A change that was
//! made is not undone because its report cannot be written, so that is an error of its own.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::in_force::Followed;
use super::{UserError, UserSettings, in_force};
use crate::cli::Exit;
use crate::secrets::{self, Fingerprint};

/// Where output goes, and in which form.
pub struct Voice<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Notes.
    pub err: &'a mut dyn Write,
    /// One JSON object instead of sentences.
    pub json: bool,
    /// No sentences unless something is wrong.
    pub quiet: bool,
}

impl Voice<'_> {
    /// Whether sentences are wanted.
    pub(super) fn is_talkative(&self) -> bool {
        !self.json && !self.quiet
    }

    /// One JSON object and a newline.
    pub(super) fn object(&mut self, value: &Value) -> io::Result<()> {
        let mut line = String::new();
        for character in value.to_string().chars() {
            if character.is_ascii() && character != '\x7f' {
                line.push(character);
            } else {
                // Only strings hold such characters.
                let units = character
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect::<String>();
                line.push_str(&units);
            }
        }
        writeln!(self.out, "{line}")
    }
}

/// What a command did to the file, to be told when it is done.
#[derive(Default)]
pub(super) struct Report {
    /// `None` if nothing had to be changed.
    pub(super) installed: Option<Fingerprint>,
    /// One sentence about each user, and the same in JSON.
    pub(super) users: Vec<(String, Value)>,
    /// What follows from that, for a person.
    pub(super) summary: Vec<String>,
    /// What a person should know besides.
    pub(super) notes: Vec<String>,
    /// A password that nobody knows yet.
    pub(super) generated: Option<Generated>,
    /// What else a script may want to know.
    pub(super) fields: Map<String, Value>,
}

pub(super) struct Generated {
    pub(super) name: String,
    pub(super) password: zeroize::Zeroizing<String>,
}

impl Report {
    /// Says it, and whether the running daemon has it.
    pub(super) fn tell(self, settings: &UserSettings<'_>, voice: &mut Voice<'_>) -> Result<Exit, UserError> {
        let changed = self.installed.is_some();
        let followed = self.installed.map(|installed| in_force::follow(settings, &installed));
        let exit = match &followed {
            Some(Followed::Rejected(_)) => Exit::No,
            _ => Exit::Yes,
        };
        self.write(settings, voice, followed).map_err(|source| match changed {
            true => UserError::Unreported(source),
            false => UserError::Output(source),
        })?;
        Ok(exit)
    }

    fn write(
        mut self,
        settings: &UserSettings<'_>,
        voice: &mut Voice<'_>,
        followed: Option<Followed>,
    ) -> io::Result<()> {
        let unloadable = secrets::check_access(settings.path, settings.trust)
            .err()
            .map(|error| format!("warning: the daemon will not load this file: {error}"));
        if voice.json {
            let mut object = self.fields;
            object.insert("changed".into(), self.installed.is_some().into());
            object.insert("file".into(), settings.path.to_string_lossy().into());
            if let (Some(generated), Some((_, user))) = (&self.generated, self.users.first_mut()) {
                user["password"] = generated.password.as_str().into();
            }
            object.insert("users".into(), self.users.into_iter().map(|(_, json)| json).collect());
            self.notes.extend(unloadable);
            object.insert("notes".into(), self.notes.into());
            object.insert("daemon".into(), followed.map_or(Value::Null, |followed| followed.json()));
            return voice.object(&object.into());
        }
        if let Some(Generated { name, password }) = &self.generated {
            match voice.quiet {
                true => writeln!(voice.out, "{}", password.as_str())?,
                false => writeln!(voice.out, "password of {name}: {}", password.as_str())?,
            }
        }
        if voice.is_talkative() {
            for sentence in self.users.iter().map(|(sentence, _)| sentence).chain(&self.summary) {
                writeln!(voice.out, "{sentence}")?;
            }
        }
        match &followed {
            Some(followed @ Followed::Rejected(_)) => writeln!(voice.err, "sasld: {followed}")?,
            Some(followed) if voice.is_talkative() => writeln!(voice.out, "{followed}")?,
            _ => {}
        }
        if voice.is_talkative() {
            // Everything to this point before everything from here, also where both end up in one place.
            voice.out.flush()?;
            let notes: String =
                self.notes.iter().map(|note| format!("note: {}\n", note.replace('\n', "\n      "))).collect();
            voice.err.write_all(notes.as_bytes())?;
        }
        if let Some(warning) = unloadable {
            writeln!(voice.err, "{warning}")?;
        }
        Ok(())
    }
}

/// One user and what became of him.
pub(super) fn user(name: &str, result: &str) -> Value {
    json!({ "name": name, "result": result })
}

/// Somebody else holds the lock. This is said with --quiet, too: a script that hangs should say why.
pub(super) fn waiting(holder: Option<u32>) {
    let holder = holder.map_or("another program".to_owned(), |process| {
        let command = std::fs::read(format!("/proc/{process}/comm")).unwrap_or_default();
        match command.trim_ascii_end() {
            [] => format!("PID {process}"),
            command => format!("PID {process} ({})", secrets::escape(command)),
        }
    });
    let _ = writeln!(io::stderr(), "sasld: waiting for {holder} to finish with the file …");
}
