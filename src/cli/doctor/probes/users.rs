//! Who can log in: the secrets file, its lines, and what is stored for each user.

use crate::cli::doctor::facts::{Facts, SecretsFile};
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::shell::quote;
use crate::config::Passdb;
use crate::credential::Verifiers;
use crate::sasl::Mechanism;
use crate::secrets::{Closed, Entry, Insecurity, LoadError, SERVICE_ACCOUNT, Secrets};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// How many users or lines a finding names.
const NAMED: usize = 5;

pub fn secrets_file(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &facts.secrets {
        let path = quote(&file.path.display().to_string());
        let why = "Until it loads, users in it hear 454, or are checked against what sasld read last.";
        let finding = match &file.loaded {
            Err(LoadError::Missing { .. }) => Finding::error("there is no such file")
                .at(file.path.display())
                .why(why)
                .fix(create(facts, &file.path)),
            Err(error @ LoadError::Insecure { fault, .. }) => {
                let what = error.to_string();
                let what = what.split("; mend it with").next().unwrap_or_default();
                Finding::error(what).why(why).fix(mend(facts, fault, &file.path))
            }
            Err(error @ LoadError::Unreadable { .. }) if !facts.is_root() => Finding::skipped(error),
            Err(error @ LoadError::NotAFile { .. }) => {
                let aside = quote(&format!("{}.old", file.path.display()));
                Finding::error(error)
                    .why(format!("{why} What is there is put aside, and a file without users takes its place."))
                    .fix(format!("mv -T {path} {aside} && {}", create(facts, &file.path)))
            }
            Err(error) => Finding::error(error)
                .why(format!("{why} What to do about it is for you to decide; this looks at the file again:"))
                .fix(facts.sasld("check")),
            Ok(_) => match facts.closed_to_service(&file.path) {
                Some(finding) => finding.why("Every user in it hears 454."),
                None if is_torn(&file.path) => Finding::warning("its last line has no end")
                    .at(file.path.display())
                    .why(
                        "It looks as if somebody were still writing it, so a running sasld does not take it, and `sasld \
                         user` does not change it. If that line is whole, which is for you to see, this ends it:",
                    )
                    .fix(end_last_line(&path)),
                None => continue,
            },
        };
        findings.push(finding);
    }
    findings
}

/// The package's directory has the right group already, a file made by hand may have none. Not an empty file: that is
/// what one looks like that somebody is about to write, and a running sasld would not take it.
fn create(facts: &Facts, path: &Path) -> String {
    let file = quote(&path.display().to_string());
    let installed = match facts.service_account() {
        Some(_) => format!("install -D -m 0640 -o root -g {SERVICE_ACCOUNT} /dev/null {file}"),
        None => format!("install -D -m 0600 -o root /dev/null {file}"),
    };
    format!("{installed} && echo '# no users' >{file}")
}

/// The command that takes a fault away and leaves no other.
fn mend(facts: &Facts, fault: &Insecurity, path: &Path) -> String {
    let file = quote(&path.display().to_string());
    let group = std::fs::metadata(path).map_or(0, |found| found.gid());
    match (fault, facts.service_account()) {
        (Insecurity::Owner { .. }, _) => format!("chown root {file}"),
        (Insecurity::Directory { directory, .. }, _) => {
            format!("chmod go-w {}", quote(&directory.display().to_string()))
        }
        (_, Some(account)) if group != account.gid.as_raw() => {
            format!("chgrp {SERVICE_ACCOUNT} {file} && chmod 0640 {file}")
        }
        (Insecurity::Group { .. }, None) => format!("chmod 0600 {file}"),
        _ => format!("chmod 0640 {file}"),
    }
}

/// Whether the last line has no end; an empty file has no lines.
pub(super) fn is_torn(path: &Path) -> bool {
    let last = || -> std::io::Result<u8> {
        let file = File::open(path)?;
        let mut byte = [b'\n'];
        if let Some(at) = file.metadata()?.len().checked_sub(1) {
            file.read_exact_at(&mut byte, at)?;
        }
        Ok(byte[0])
    };
    last().is_ok_and(|byte| byte != b'\n')
}

fn end_last_line(quoted_path: &str) -> String {
    format!("echo >>{quoted_path}")
}

pub fn secrets_lines(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, secrets) in loaded(facts) {
        let path = quote(&file.path.display().to_string());
        // Nothing else can be changed in it before.
        let torn = is_torn(&file.path);
        let ended = if torn { format!("{} && ", end_last_line(&path)) } else { String::new() };
        let problems = secrets.problems();
        // A line without an end is left out, which `secrets-file` has said.
        let left_out = problems.listed().last().filter(|last| torn && last.name.is_none());
        let listed = &problems.listed()[..problems.listed().len() - usize::from(left_out.is_some())];
        let mut twice = Vec::new();
        for problem in listed.iter().take(NAMED) {
            let finding = Finding::warning(problem).at(file.path.display());
            let why = "Whoever this is for cannot log in, whatever the password.";
            // A comment: nothing is lost, and the numbers of the other lines stay true.
            let silence = format!("{ended}sed -i --follow-symlinks '{}s/^/#/' {path}", problem.line);
            let name = problem.name.as_ref().and_then(|escaped| real_name(secrets, escaped));
            findings.push(match name.and_then(|name| Some((name, secrets.lookup(name)?.closed?))) {
                Some((name, Closed::BrokenLine)) => {
                    finding.why(why).fix(format!("{ended}{}", facts.sasld_user("passwd", name, &file.path)))
                }
                // One of the lines has to stay.
                Some((name, Closed::Duplicate)) if twice.contains(&name) => finding.why(why),
                Some((name, Closed::Duplicate)) => {
                    twice.push(name);
                    finding
                        .why(format!("{why} Which line is to stay is for you to decide; this makes a comment of the first:"))
                        .fix(silence)
                }
                _ => finding
                    .why(format!("{why} What it should say is for you to decide; this makes a comment of the line:"))
                    .fix(silence),
            });
        }
        let more = (problems.total() - usize::from(left_out.is_some())).saturating_sub(NAMED);
        if more > 0 {
            findings.push(
                Finding::warning(format!("{more} more such lines"))
                    .at(file.path.display())
                    .why("Doctor shows the next ones when these are mended; this lists all of them:")
                    .fix(facts.sasld("check")),
            );
        }
    }
    findings
}

/// The name that is shown like this.
fn real_name<'a>(secrets: &'a Secrets, escaped: &str) -> Option<&'a str> {
    secrets.names().find(|name| crate::secrets::escape(name.as_bytes()) == escaped)
}

pub fn users(facts: &Facts) -> Vec<Finding> {
    fn entries(secrets: &Secrets) -> Vec<Entry<'_>> {
        secrets.names().filter_map(|name| secrets.lookup(name)).collect()
    }
    let somewhere_else = facts.pam().is_some();
    let files: Vec<_> = loaded(facts).map(|(file, secrets)| (file, entries(secrets))).collect();
    let usable = |entries: &[Entry<'_>]| entries.iter().any(|entry| entry.closed.is_none());
    // A file that does not load is another finding.
    if somewhere_else || files.is_empty() || files.iter().any(|(_, entries)| usable(entries)) {
        return Vec::new();
    }
    let (file, entries) = &files[0];
    let closed = |wanted: Closed| entries.iter().find(|entry| entry.closed == Some(wanted));
    let command = match (closed(Closed::NoPassword), closed(Closed::Nologin)) {
        (Some(entry), _) => facts.sasld_user("passwd", entry.name, &file.path),
        (None, Some(entry)) => facts.sasld_user("unlock", entry.name, &file.path),
        (None, None) => facts.sasld_user("add", "alice", &file.path),
    };
    vec![
        Finding::warning("no user of it can log in")
            .at(file.path.display())
            .why("Every login is refused. Who is to log in, and by which name, is for you to decide; for instance:")
            .fix(command),
    ]
}

pub fn verifiers(facts: &Facts) -> Vec<Finding> {
    if !facts.users_meet(Mechanism::CramMd5) {
        return Vec::new();
    }
    let mut without = Vec::new();
    let mut users = 0;
    for (file, secrets) in loaded(facts) {
        let entries = secrets.names().filter_map(|name| secrets.lookup(name));
        for entry in entries.filter(|entry| entry.closed.is_none()) {
            users += 1;
            if entry.verifiers.as_ref().and_then(Verifiers::cram_md5).is_none() {
                without.push((&file.path, entry.name));
            }
        }
    }
    if without.is_empty() {
        return Vec::new();
    }
    let shown = without.iter().take(NAMED);
    let named: Vec<String> = shown.clone().map(|(_, name)| crate::secrets::escape(name.as_bytes())).collect();
    let more = if without.len() > NAMED { ", …" } else { "" };
    let finding = Finding::warning(format!(
        "CRAM-MD5 is offered, and {} of {users} users have no verifier for it: {}{more}",
        without.len(),
        named.join(", ")
    ))
    .why(
        "Many mail programs take CRAM-MD5 whenever they see it and then try nothing else, so these users cannot log in. \
         Each of them needs his password stored for it as well, which takes the password:",
    );
    vec![shown.fold(finding, |finding, (path, name)| {
        finding.fix(facts.sasld_user("passwd --scheme ARGON2ID --scheme CRAM-MD5", name, path))
    })]
}

fn loaded(facts: &Facts) -> impl Iterator<Item = (&SecretsFile, &Secrets)> {
    facts.secrets.iter().filter_map(|file| Some((file, file.loaded.as_ref().ok()?)))
}

/// Whether a secrets file is asked at all.
pub(super) fn has_secrets_file(facts: &Facts) -> bool {
    let passdbs = facts.config.as_ref().map_or(&[][..], |config| &config.passdbs);
    passdbs.iter().any(|passdb| matches!(passdb, Passdb::SecretsFile { .. }))
}
