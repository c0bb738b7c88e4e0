//! Who can log in: the secrets file, its lines, and what is stored for each user.

use crate::cli::doctor::facts::{Facts, SecretsFile};
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::shell::quote;
use crate::config::Passdb;
use crate::credential::Verifiers;
use crate::sasl::Mechanism;
use crate::secrets::{Closed, LoadError, SERVICE_ACCOUNT, Secrets};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How many users or lines a finding names.
const NAMED: usize = 5;

pub fn secrets_file(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &facts.secrets {
        let path = quote(&file.path.display().to_string());
        let why = "Until it loads, users in it hear 454, or are checked against what sasld read last.";
        match &file.loaded {
            Err(LoadError::Missing { .. }) => {
                findings.push(
                    Finding::error("there is no such file")
                        .at(file.path.display())
                        .why(why)
                        .fix(create(facts, &file.path)),
                );
            }
            Err(error @ LoadError::Insecure { fault, .. }) => {
                let fix = fault.mend(&file.path);
                let what = error.to_string();
                let what = what.split("; mend it with").next().unwrap_or_default();
                findings.push(Finding::error(what).why(why).fix(fix));
            }
            Err(error @ LoadError::Unreadable { .. }) if !facts.is_root() => {
                findings.push(Finding::skipped(error));
            }
            Err(error) => {
                findings.push(Finding::error(error).why(why).fix(facts.sasld("check")));
            }
            Ok(_) => findings.extend(readable_by_service(facts, file, &path)),
        }
    }
    findings
}

/// The package's directory has the right group already, a file made by hand may have none.
fn create(facts: &Facts, path: &Path) -> String {
    let file = quote(&path.display().to_string());
    match facts.service_account() {
        Some(_) => format!("install -D -m 0640 -o root -g {SERVICE_ACCOUNT} /dev/null {file}"),
        None => format!("install -D -m 0600 -o root /dev/null {file}"),
    }
}

fn readable_by_service(facts: &Facts, file: &SecretsFile, path: &str) -> Option<Finding> {
    let account = facts.service_account()?;
    let metadata = std::fs::metadata(&file.path).ok()?;
    let owner = metadata.uid() == account.uid.as_raw() && metadata.mode() & 0o400 != 0;
    let group = metadata.gid() == account.gid.as_raw() && metadata.mode() & 0o040 != 0;
    if owner || group {
        return None;
    }
    Some(
        Finding::error(format!("{SERVICE_ACCOUNT}, as whom sasld runs, cannot read it"))
            .at(file.path.display())
            .why("Every user in it hears 454.")
            .fix(format!("chgrp {SERVICE_ACCOUNT} {path} && chmod 0640 {path}")),
    )
}

pub fn secrets_lines(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, secrets) in loaded(facts) {
        let problems = secrets.problems();
        let mut twice = Vec::new();
        for problem in problems.listed().iter().take(NAMED) {
            let finding = Finding::warning(problem).at(file.path.display());
            let finding = finding.why("Whoever this is for cannot log in, whatever the password.");
            let path = quote(&file.path.display().to_string());
            // A comment: nothing is lost, and the numbers of the other lines stay true.
            let silence = format!("sed -i --follow-symlinks '{}s/^/#/' {path}", problem.line);
            findings.push(
                match (&problem.name, problem.name.as_ref().and_then(|name| closed_by(secrets, name))) {
                    (Some(name), Some(Closed::BrokenLine)) => {
                        finding.fix(format!("sasld user passwd {} --file {path}", quote(name)))
                    }
                    // One of the lines has to stay.
                    (Some(name), Some(Closed::Duplicate)) if twice.contains(&name) => finding,
                    (Some(name), Some(Closed::Duplicate)) => {
                        twice.push(name);
                        finding.fix(silence)
                    }
                    _ => finding.fix(silence),
                },
            );
        }
        let more = problems.total().saturating_sub(NAMED);
        if more > 0 {
            findings.push(
                Finding::warning(format!("{more} more such lines"))
                    .at(file.path.display())
                    .fix(facts.sasld("check")),
            );
        }
    }
    findings
}

fn closed_by(secrets: &Secrets, name: &str) -> Option<Closed> {
    secrets.lookup(name)?.closed
}

pub fn users(facts: &Facts) -> Vec<Finding> {
    let somewhere_else = facts.pam().is_some();
    let usable = |secrets: &Secrets| {
        secrets.names().filter_map(|name| secrets.lookup(name)).any(|entry| entry.closed.is_none())
    };
    let files: Vec<_> = loaded(facts).collect();
    // A file that does not load is another finding.
    if somewhere_else || files.is_empty() || files.iter().any(|(_, secrets)| usable(secrets)) {
        return Vec::new();
    }
    let (file, _) = files[0];
    vec![
        Finding::warning("no user of it can log in")
            .at(file.path.display())
            .why("Every login is refused.")
            .fix(format!("sasld user add alice --file {}", quote(&file.path.display().to_string()))),
    ]
}

pub fn verifiers(facts: &Facts) -> Vec<Finding> {
    if !facts.offers(Mechanism::CramMd5) {
        return Vec::new();
    }
    let mut without = Vec::new();
    let mut users = 0;
    for (_, secrets) in loaded(facts) {
        for entry in
            secrets.names().filter_map(|name| secrets.lookup(name)).filter(|entry| entry.closed.is_none())
        {
            users += 1;
            if entry.verifiers.as_ref().and_then(Verifiers::cram_md5).is_none() {
                without.push(crate::secrets::escape(entry.name.as_bytes()));
            }
        }
    }
    if without.is_empty() {
        return Vec::new();
    }
    let named = without.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if without.len() > NAMED { ", …" } else { "" };
    vec![
        Finding::warning(format!(
            "CRAM-MD5 is offered, and {} of {users} users have no verifier for it: {named}{more}",
            without.len()
        ))
        .why(
            "Many mail programs take CRAM-MD5 whenever they see it and then try nothing else, so these users cannot log \
             in. Either give each of them one with `sasld user passwd`, or stop offering it:",
        )
        .fix(facts.configure("mechanisms", "[PLAIN, LOGIN]")),
    ]
}

fn loaded(facts: &Facts) -> impl Iterator<Item = (&SecretsFile, &Secrets)> {
    facts.secrets.iter().filter_map(|file| Some((file, file.loaded.as_ref().ok()?)))
}

/// Whether a secrets file is asked at all.
pub(super) fn has_secrets_file(facts: &Facts) -> bool {
    let passdbs = facts.config.as_ref().map_or(&[][..], |config| &config.passdbs);
    passdbs.iter().any(|passdb| matches!(passdb, Passdb::SecretsFile { .. }))
}
