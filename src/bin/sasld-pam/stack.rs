//! A look at the PAM service's file before libpam takes one.
//!
//! libpam has no complaints. A service without a file silently gets the service `other`, and so does the phase of which
//! a file has no line; and where the stack flattens result codes, as Debian's does, a process that may not read password
//! hashes hears "wrong password" for each of them. So the file has to exist and to be complete, and a stack that needs
//! more rights than there are is told from one that refuses.

use nix::unistd::{AccessFlags, access};
use sasld::pam::SERVICE_FOLDERS;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const SHADOW: &str = "/etc/shadow";

/// Where pam_faillock counts, unless its argument or its own file says otherwise.
const TALLIES: &str = "/var/run/faillock";
const FAILLOCK_SETTINGS: &str = "/etc/security/faillock.conf";

/// How deep files may include each other.
const MAX_DEPTH: u8 = 16;

/// What a PAM service calls in the two phases that a login here has.
#[derive(Debug, Default)]
pub struct Stack {
    auth: Vec<Module>,
    account: Vec<Module>,
}

/// One line's module.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    /// Its file's name, such as `pam_unix.so`.
    name: String,
    arguments: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Auth,
    Account,
}

/// Where a service's file is; `folder` stands in for the system's folders.
pub fn file_of(service: &str, folder: Option<&Path>) -> Option<PathBuf> {
    let paths = match folder {
        Some(folder) => vec![folder.join(service)],
        None => SERVICE_FOLDERS.iter().map(|folder| Path::new(folder).join(service)).collect(),
    };
    paths.into_iter().find(|path| path.is_file())
}

impl Stack {
    /// Reads a service's file, and those it includes. What cannot be read is left out; libpam will say so.
    pub fn read(file: &Path) -> Self {
        let mut stack = Self::default();
        stack.add(file, None, 0);
        stack
    }

    /// Adds the lines of a file, or only those of one phase, as `include` and `substack` do.
    fn add(&mut self, file: &Path, only: Option<Phase>, depth: u8) {
        if depth == MAX_DEPTH {
            return;
        }
        let Ok(bytes) = fs::read(file) else {
            return;
        };
        // Comments are written in all sorts of encodings, and libpam does not care.
        let text = String::from_utf8_lossy(&bytes);
        for line in logical_lines(&text) {
            match parse(&line) {
                Some(Line::Whole(service)) => {
                    if let Some(file) = included(file, service) {
                        self.add(&file, only, depth + 1);
                    }
                }
                Some(Line::Phase(phase, service)) if only.is_none_or(|only| only == phase) => {
                    if let Some(file) = included(file, service) {
                        self.add(&file, Some(phase), depth + 1);
                    }
                }
                Some(Line::Module(phase, module)) if only.is_none_or(|only| only == phase) => match phase {
                    Phase::Auth => self.auth.push(module),
                    Phase::Account => self.account.push(module),
                },
                Some(Line::Phase(..) | Line::Module(..)) | None => {}
            }
        }
    }

    fn find(&self, name: &str) -> Option<&Module> {
        self.auth.iter().chain(&self.account).find(|module| module.name == name)
    }

    /// The phase that libpam would take from the service `other`, which may let everybody in.
    pub fn lacks_phase(&self) -> Option<&'static str> {
        match (self.auth.is_empty(), self.account.is_empty()) {
            (true, _) => Some("auth"),
            (false, true) => Some("account"),
            (false, false) => None,
        }
    }

    /// Whether it needs password hashes that this process may not read.
    pub fn lacks_shadow(&self) -> bool {
        self.find("pam_unix.so").is_some() && File::open(SHADOW).is_err()
    }

    /// The folder in which pam_faillock would count, and cannot: it then locks nobody out, and says nothing.
    fn lacks_tallies(&self) -> Option<PathBuf> {
        let module = self.find("pam_faillock.so")?;
        let argument = |name: &str| module.arguments.iter().find_map(|argument| argument.strip_prefix(name));
        let settings = fs::read(argument("conf=").unwrap_or(FAILLOCK_SETTINGS)).unwrap_or_default();
        let settings = String::from_utf8_lossy(&settings);
        let setting = settings.lines().find_map(|line| {
            let (key, value) = line.split('#').next()?.split_once('=')?;
            (key.trim() == "dir").then(|| value.trim())
        });
        let folder = Path::new(argument("dir=").or(setting).unwrap_or(TALLIES));
        // On a file system that is mounted read-only for us, root may not write either.
        access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_err().then(|| folder.to_owned())
    }

    /// What will not work with the rights there are; empty if nothing is known of.
    pub fn complaint(&self) -> String {
        let mut complaints = Vec::new();
        if self.lacks_shadow() {
            complaints.push(
                "pam_unix.so is in the stack, and /etc/shadow may not be read: run with the group shadow"
                    .to_owned(),
            );
        }
        if let Some(folder) = self.lacks_tallies() {
            let folder = folder.display();
            complaints.push(format!(
                "pam_faillock.so is in the stack, and counts nothing: {folder} is missing or may not be written"
            ));
        }
        complaints.join("; ")
    }
}

/// The lines as libpam puts them together. A backslash at the end, blanks behind it or not, means that the line goes on,
/// past empty lines and lines that are comments. A comment ends it. One that does not end is none; libpam then refuses
/// the file.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in text.split('\n') {
        let piece = piece.trim_start_matches([' ', '\t']);
        if piece.is_empty() || piece.starts_with('#') {
            continue;
        }
        let (content, comment) = piece.split_once('#').map_or((piece, None), |(a, b)| (a, Some(b)));
        let content = content.trim_end_matches([' ', '\t']);
        match content.strip_suffix('\\') {
            Some(content) if comment.is_none() => {
                line.push_str(content);
                line.push(' ');
            }
            Some(_) | None => {
                line.push_str(content);
                lines.push(std::mem::take(&mut line));
            }
        }
    }
    lines
}

/// `file`'s neighbour of this name, or another service, or the file at this absolute path.
fn included(file: &Path, service: &str) -> Option<PathBuf> {
    if service.starts_with('/') {
        return Some(service.into());
    }
    let neighbour = file.with_file_name(service);
    if neighbour.is_file() { Some(neighbour) } else { file_of(service, None) }
}

enum Line<'a> {
    /// `@include`: all of another file.
    Whole(&'a str),
    /// `include` or `substack`: the lines of this phase.
    Phase(Phase, &'a str),
    Module(Phase, Module),
}

/// `@include NAME`, or `type control module arguments…` (pam.d(5)); only what authenticates is of interest.
fn parse(line: &str) -> Option<Line<'_>> {
    let (first, rest) = line.trim().split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    // libpam does not care about case here.
    let first = first.to_ascii_lowercase();
    if first == "@include" {
        return rest.split_whitespace().next().map(Line::Whole);
    }
    let phase = match first.trim_start_matches('-') {
        "auth" => Phase::Auth,
        "account" => Phase::Account,
        _ => return None,
    };
    let (control, rest) = if rest.starts_with('[') {
        rest.split_at(rest.find(']')? + 1)
    } else {
        rest.split_once(char::is_whitespace)?
    };
    let mut words = rest.split_whitespace();
    let target = words.next()?;
    if matches!(control.to_ascii_lowercase().as_str(), "include" | "substack") {
        return Some(Line::Phase(phase, target));
    }
    let name = Path::new(target).file_name().unwrap_or_default().to_string_lossy().into_owned();
    // An argument with spaces stands in brackets.
    let arguments = words.map(|word| word.trim_matches(['[', ']']).to_owned()).collect();
    Some(Line::Module(phase, Module { name, arguments }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: AsRef<[u8]>>(files: &[(&str, T)]) -> Stack {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Stack::read(&folder.path().join(files[0].0))
    }

    fn modules(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let Stack { auth, account } = read(files);
        let names = |modules: Vec<Module>| modules.into_iter().map(|module| module.name).collect();
        (names(auth), names(account))
    }

    #[test]
    fn modules_are_found_through_every_kind_of_inclusion() {
        let found = modules(&[
            (
                "sasld",
                "# comment pam_no.so\n@include common\nauth substack sub\n-auth optional /lib/pam_a.so debug\n\
                 account [default=1 \\\n success=ok] pam_b.so\nsession required pam_session.so\n",
            ),
            ("common", "AUTH\t[success=1 default=ignore]\tpam_unix.so nullok\n"),
            ("sub", "auth include sub\nauth requisite pam_deny.so # the end\naccount required pam_no.so\n"),
        ]);
        assert_eq!(found.0[0], "pam_unix.so");
        assert!(found.0[1..found.0.len() - 1].iter().all(|name| name == "pam_deny.so"));
        assert_eq!((found.0.last().unwrap().as_str(), found.1), ("pam_a.so", vec!["pam_b.so".to_owned()]));
    }

    #[test]
    fn lines_are_put_together_as_libpam_does() {
        for (text, expected) in [
            ("auth required a.so\n", vec!["a.so"]),
            // Blanks behind the backslash.
            ("auth required \\ \t\n a.so\nauth required b.so\n", vec!["a.so", "b.so"]),
            // A comment ends the line, with a backslash in it or before it.
            ("auth required a.so # \\\nauth required b.so\n", vec!["a.so", "b.so"]),
            ("# \\\nauth required a.so\n", vec!["a.so"]),
            ("auth required a.so \\ # more\nauth required b.so\n", vec!["a.so", "b.so"]),
            // A line that is nothing but a comment, or empty, does not.
            ("auth \\\n# why\n\nrequired a.so\n", vec!["a.so"]),
            // libpam refuses the file.
            ("auth required a.so \\\n", vec![]),
        ] {
            assert_eq!(modules(&[("sasld", text)]).0, expected, "{text:?}");
        }
    }

    #[test]
    fn a_phase_without_a_module_is_seen_through_every_kind_of_inclusion() {
        let both = ("both", "auth required a.so\naccount required b.so\n");
        for (text, lacks) in [
            ("auth required a.so\naccount required b.so\n", None),
            ("@include both\n", None),
            ("auth include both\naccount substack both\n", None),
            ("", Some("auth")),
            ("# auth required a.so\n", Some("auth")),
            ("account required b.so\nsession required c.so\n", Some("auth")),
            ("auth required a.so\n", Some("account")),
            // Only the lines of its own phase.
            ("auth include both\n", Some("account")),
            ("auth include both\naccount include auth-only\n", Some("account")),
            ("auth required a.so\n@include nowhere\n", Some("account")),
        ] {
            let stack = read(&[("sasld", text), both, ("auth-only", "auth required a.so\n")]);
            assert_eq!(stack.lacks_phase(), lacks, "{text}");
        }
    }

    #[test]
    fn a_comment_in_any_encoding_is_a_comment() {
        let stack = read(&[
            ("sasld", &b"@include common # f\xfcr alle\n"[..]),
            ("common", b"# f\xfcr alle\nauth required a.so\naccount required b.so # \xff\n"),
        ]);
        assert_eq!(stack.lacks_phase(), None);
    }

    #[test]
    fn nonsense_is_no_module() {
        let found = modules(&[("sasld", "auth\nauth [\n@include\nauth required\nauth include nowhere\n")]);
        assert_eq!(found, (vec![], vec![]));
    }

    #[test]
    fn a_stack_that_counts_says_when_it_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().display();
        let complaint = |arguments: &str| {
            read(&[("sasld", &format!("auth required pam_faillock.so preauth {arguments}\n"))]).complaint()
        };
        assert_eq!(complaint(&format!("dir={folder}")), "");
        assert!(complaint(&format!("dir={folder}/nowhere")).contains("/nowhere is missing or may not be"));
        // Read-only for everybody, root too.
        assert!(complaint("dir=/proc/self").contains("/proc/self is missing or may not be written"));
        let settings = read(&[("sasld", "auth required pam_faillock.so conf=/dev/null\n")]);
        assert_eq!(settings.lacks_tallies().is_some(), access(TALLIES, AccessFlags::W_OK).is_err());
    }
}
