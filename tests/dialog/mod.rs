//! Dialogs: transcripts of the Dovecot auth protocol that a server is made to repeat.
//!
//! The format is explained in `protocol-fixtures/README.md`. [`parse`] reads a file, [`text`] knows the escapes and
//! placeholders inside a line, [`replay`] plays a dialog against anything that is a [`replay::Server`], and
//! [`socket`] is the client side of a Unix socket. Everything here is test code: a broken dialog panics or fails the
//! test, always with file and line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod daemon;
pub mod memory;
pub mod parse;
pub mod profile;
pub mod replay;
pub mod report;
pub mod socket;
pub mod text;

use text::Line;

/// The folders of `protocol-fixtures/` that hold dialogs. `tests/fixtures.rs` compares this with the disk.
pub const GROUPS: &[&str] = &[
    "handshake",
    "lines",
    "auth",
    "ids",
    "base64",
    "cont",
    "cancel",
    "pipeline",
    "replies",
    "plain",
    "login",
    "cram",
    "clients",
    "secrets",
];

/// What sasld adds to every refusal about credentials, as `reason=`; Dovecot says nothing. Written `{refused}`.
pub const REFUSED: &str = "Invalid user name or password";

/// What sasld adds when a password came without TLS although TLS is required. Written `{needs-tls}`.
pub const NEEDS_TLS: &str = "This login needs an encrypted connection; switch on STARTTLS or SSL/TLS";

/// Dialogs that wait longer than this at a stretch are not worth real time; in virtual time they cost nothing.
pub const LONGEST_REAL_WAIT: Duration = Duration::from_secs(3);

/// Who a step is for. A dialog is replayed against one of them at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Dovecot,
    Sasld,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dovecot => "dovecot",
            Self::Sasld => "sasld",
        })
    }
}

/// One `.dialog` file.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// `cancel/in-progress`
    pub name: String,
    pub title: String,
    pub from: Vec<Origin>,
    pub profile: String,
    /// The deliberate differences it shows: key and reason.
    pub differs: Vec<(String, String)>,
    /// The Dovecot part is about this release, not about the one that can be installed here.
    pub dovecot: Option<String>,
    pub steps: Vec<Step>,
}

/// Where the expectation comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A recorded transcript, by its name without `.txt`.
    Transcript(String),
    /// A row of the list of bad inputs: `W12`.
    BadInput(String),
    /// Anything else, for people: an RFC section, a bug.
    Other(String),
}

/// One step of a dialog.
#[derive(Clone, Debug)]
pub struct Step {
    pub line_number: usize,
    /// Which connection; `""` when the dialog has only one.
    pub connection: String,
    /// Only for this server.
    pub only: Option<Subject>,
    pub action: Action,
}

/// What happens in a step.
#[derive(Clone, Debug)]
pub enum Action {
    /// The client connects; with a minor version, it also introduces itself.
    Connect {
        minor: Option<String>,
    },
    /// One write: lines, and whether the last one lacks its LF.
    Send {
        lines: Vec<Line>,
        unfinished: bool,
    },
    /// The server sends this line next; neighbours with `any_order` may change places.
    Expect {
        line: Line,
        any_order: bool,
    },
    /// The next expected line comes this long after what the client sent last, give or take half.
    After(Duration),
    /// The next expected line comes without any delay.
    AtOnce,
    /// Nothing arrives for this long, and the connection stays open.
    Silence(Duration),
    ClosedByServer,
    Close,
    HalfClose,
    /// A good PLAIN login on this connection succeeds.
    StillWorks,
    /// The secrets file is replaced, or removed.
    Secrets(Option<Line>),
}

impl Dialog {
    /// The steps that concern `subject`.
    pub fn steps_for(&self, subject: Subject) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.only.is_none_or(|only| only == subject))
    }

    /// Whether it leaves the secrets file different from what the profile says.
    pub fn changes_files(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Secrets(_)))
    }

    /// The longest single wait the dialog asks for with `subject`.
    pub fn longest_wait(&self, subject: Subject) -> Duration {
        self.steps_for(subject)
            .map(|step| match step.action {
                Action::After(time) | Action::Silence(time) => time,
                _ => Duration::ZERO,
            })
            .max()
            .unwrap_or_default()
    }

    pub fn path(&self) -> PathBuf {
        fixtures().join(format!("{}.dialog", self.name))
    }
}

/// `protocol-fixtures/`
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-fixtures")
}

/// All dialogs of one group, by name.
pub fn group(group: &str) -> Vec<Dialog> {
    let folder = fixtures().join(group);
    let mut dialogs = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder that opens can be listed").path();
        assert!(
            path.extension().is_some_and(|e| e == "dialog"),
            "{}: only .dialog files belong here",
            path.display()
        );
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = format!("{group}/{stem}");
        let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let dialog = parse::dialog(&name, &source).unwrap_or_else(|e| panic!("{name}.dialog:{e}"));
        dialogs.insert(name, dialog);
    }
    assert!(!dialogs.is_empty(), "{} has no dialogs", folder.display());
    dialogs.into_values().collect()
}

/// All dialogs of all groups.
pub fn all() -> Vec<Dialog> {
    GROUPS.iter().flat_map(|name| group(name)).collect()
}
