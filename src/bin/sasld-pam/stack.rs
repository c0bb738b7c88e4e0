//! A look at the PAM service's file before libpam takes one.
//!
//! libpam has no complaints. A service without a file silently gets the service `other`; and where the stack flattens
//! result codes, as Debian's does, a process that may not read password hashes hears "wrong password" for each of
//! them. So the file has to exist, and a stack that needs more rights than there are is told from one that refuses.

use sasld::pam::SERVICE_FOLDERS;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const SHADOW: &str = "/etc/shadow";

/// How deep files may include each other.
const MAX_DEPTH: u8 = 16;

/// A PAM service as it is configured.
#[derive(Debug, Default)]
pub struct Stack {
    /// File names of the modules, such as `pam_unix.so`.
    modules: BTreeSet<String>,
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
        stack.add(file, 0);
        stack
    }

    fn add(&mut self, file: &Path, depth: u8) {
        let Ok(text) = fs::read_to_string(file) else {
            return;
        };
        if depth == MAX_DEPTH {
            return;
        }
        // A line ends with a backslash when it goes on.
        for line in text.replace("\\\n", " ").lines() {
            let line = line.split('#').next().unwrap_or_default();
            match parse(line) {
                Some(Line::Include(service)) => {
                    if let Some(file) = included(file, service) {
                        self.add(&file, depth + 1);
                    }
                }
                Some(Line::Module(path)) => {
                    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
                    self.modules.insert(name.into_owned());
                }
                None => {}
            }
        }
    }

    /// Whether it needs password hashes that this process may not read.
    pub fn lacks_shadow(&self) -> bool {
        self.modules.contains("pam_unix.so") && File::open(SHADOW).is_err()
    }

    /// What will not work with the rights there are; empty if nothing is known of.
    pub fn complaint(&self, is_root: bool) -> String {
        let mut complaints = Vec::new();
        if self.lacks_shadow() {
            complaints.push(
                "pam_unix.so is in the stack, and /etc/shadow may not be read: run with the group shadow",
            );
        }
        if self.modules.contains("pam_faillock.so") && !is_root {
            complaints.push("pam_faillock.so is in the stack, and counts nothing unless it runs as root");
        }
        complaints.join("; ")
    }
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
    Include(&'a str),
    Module(&'a str),
}

/// `@include NAME`, or `type control module arguments…` (pam.d(5)); only what authenticates is of interest.
fn parse(line: &str) -> Option<Line<'_>> {
    let (first, rest) = line.trim().split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    if first == "@include" {
        return rest.split_whitespace().next().map(Line::Include);
    }
    if !matches!(first.trim_start_matches('-'), "auth" | "account") {
        return None;
    }
    let (control, rest) = if rest.starts_with('[') {
        rest.split_at(rest.find(']')? + 1)
    } else {
        rest.split_once(char::is_whitespace)?
    };
    let target = rest.split_whitespace().next()?;
    match control {
        "include" | "substack" => Some(Line::Include(target)),
        _ => Some(Line::Module(target)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Stack::read(&folder.path().join(files[0].0)).modules.into_iter().collect()
    }

    #[test]
    fn modules_are_found_through_every_kind_of_inclusion() {
        let found = modules(&[
            (
                "sasld",
                "# comment pam_no.so\n@include common\nauth substack sub\n-auth optional /lib/pam_a.so debug\n\
                 account [default=1 \\\n success=ok] pam_b.so\nsession required pam_session.so\n",
            ),
            ("common", "auth\t[success=1 default=ignore]\tpam_unix.so nullok\n"),
            ("sub", "auth include sub\nauth requisite pam_deny.so # the end\n"),
        ]);
        assert_eq!(found, ["pam_a.so", "pam_b.so", "pam_deny.so", "pam_unix.so"]);
    }

    #[test]
    fn nonsense_is_libpams_business() {
        assert_eq!(
            modules(&[("sasld", "auth\nauth [\n@include\nauth required\nauth include nowhere\n")]),
            [""; 0]
        );
    }
}
