//! What a command's manual page says beyond `--help`: files and examples.
//!
//! One entry for each command in `extras.txt`. `tests/manuals.rs` fails when one is missing, and parses every example.

use std::sync::LazyLock;

/// A file that a command reads or writes.
pub struct File {
    pub path: &'static str,
    pub about: &'static str,
}

/// What one would type, and why.
pub struct Example {
    pub about: &'static str,
    pub commands: &'static str,
}

/// The additions to one page.
pub struct Extra {
    /// The command without `sasld`; empty for the program itself.
    pub command: &'static str,
    pub files: &'static [File],
    pub examples: Vec<Example>,
}

/// The same for every command; a command's own description says more.
pub const EXIT_STATUS: [(u8, &str); 10] = [
    (0, "Done; the answer is yes."),
    (1, "The answer is no: refused, or something was found."),
    (2, "Errors were found, where 1 means warnings."),
    (64, "The command line makes no sense."),
    (65, "A server's answer or the contents of a file make no sense."),
    (69, "Something that should be there is not, or is taken."),
    (74, "Output could not be written."),
    (75, "It could not be decided; try again."),
    (77, "This user may not do it; somebody else may."),
    (78, "The configuration is wrong."),
];

const CONFIGURATION: File = File {
    path: "/etc/sasld/sasld.yaml",
    about: "The configuration; every key has a default. See sasld.yaml(5).",
};
const CONF_D: File = File {
    path: "/etc/sasld/conf.d/*.yaml",
    about: "Read after it, in the order of their names; a top-level key there replaces the same key before it.",
};
const SECRETS: File = File {
    path: "/etc/sasld/secrets",
    about: "The users, unless the configuration names another file. See sasld-secrets(5).",
};
const LOCK: File =
    File { path: "/etc/sasld/.secrets.lock", about: "Locked while the file of users is changed." };
const SOCKET: File = File {
    path: "/var/spool/postfix/private/auth",
    about: "The socket that Postfix calls private/auth, unless the configuration names others.",
};

const CONTROL: File = File {
    path: "/run/sasld/control",
    about: "The daemon's control socket, unless the configuration names another.",
};

const POSTFIX: File = File {
    path: "/etc/postfix/main.cf, /etc/postfix/master.cf",
    about: "Postfix's settings, through postconf(1).",
};

/// The files of a command, by the names that extras.txt has for them.
const FILES: [(&str, &[File]); 7] = [
    ("none", &[]),
    ("socket", &[SOCKET]),
    ("running", &[CONFIGURATION, CONTROL]),
    ("read", &[CONFIGURATION, CONF_D, SECRETS]),
    ("edit", &[CONFIGURATION, CONF_D, SECRETS, LOCK]),
    ("serve", &[CONFIGURATION, CONF_D, SECRETS, SOCKET]),
    ("doctor", &[CONFIGURATION, CONF_D, SECRETS, SOCKET, POSTFIX]),
];

/// The commands and their examples; its first lines say how it is written.
const TEXT: &str = include_str!("extras.txt");

/// All of them, in the order of the file.
///
/// # Panics
/// When the file is not as its first lines say.
pub static EXTRAS: LazyLock<Vec<Extra>> = LazyLock::new(|| {
    TEXT.split("\n= ")
        .skip(1)
        .map(|entry| parse(entry).unwrap_or_else(|| panic!("extras.txt: {entry}")))
        .collect()
});

/// The entry of one command.
fn parse(entry: &'static str) -> Option<Extra> {
    let mut parts = entry.trim_end().split("\n- ");
    let (command, files) = parts.next()?.split_once(": ")?;
    let files = FILES.iter().find(|(name, _)| *name == files)?.1;
    let example =
        |part: &'static str| part.split_once('\n').map(|(about, commands)| Example { about, commands });
    let examples = parts.map(example).collect::<Option<Vec<_>>>()?;
    Some(Extra { command: if command == "-" { "" } else { command }, files, examples })
}

/// What there is for the command `path`, such as `user add`.
pub fn of(path: &str) -> Option<&'static Extra> {
    EXTRAS.iter().find(|extra| extra.command == path)
}
