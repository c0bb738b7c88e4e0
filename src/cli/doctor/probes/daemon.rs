//! sasld itself: its configuration, its units, whether it listens, and the clock it lives by.

use super::listening;
use super::users::is_torn;
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::seen::Seen;
use crate::cli::doctor::shell::quote;
use crate::config::{ConfigError, Mistake};
use crate::control::reply::PassdbState;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Clocks of file servers differ by less.
const TOLERANCE: Duration = Duration::from_secs(60);

pub fn configuration(facts: &Facts) -> Vec<Finding> {
    match &facts.config {
        Ok(config) => {
            let unread = files(&facts.config_path).filter_map(|file| facts.closed_to_service(&file));
            let unread = unread.map(|finding| {
                finding.why("It cannot read its configuration, so it does not start and takes over no change.")
            });
            listening::exposed(facts, config).into_iter().chain(unread).collect()
        }
        Err(ConfigError::Missing { path }) => vec![
            Finding::error(format!("{}: no such file", path.display()))
                .why("sasld does not start without a configuration. The defaults are for Postfix and /etc/sasld/secrets.")
                .fix(default_configuration(path)),
        ],
        Err(ConfigError::Unreadable { path, source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            let finding = facts.closed_to_service(path).map(|finding| {
                finding.why("sasld does not start without a configuration that it can read.")
            });
            vec![finding.unwrap_or_else(|| Finding::skipped(format!("{}: {source}; run doctor as root", path.display())))]
        }
        Err(ConfigError::Unreadable { path, source, .. }) => {
            let aside = quote(&format!("{}.old", path.display()));
            vec![
                Finding::error(format!("{}: {source}", path.display()))
                    .why("What is there is no configuration. It is put aside, and the defaults take its place.")
                    .fix(format!("mv -T {} {aside} && {}", quote(&path.display().to_string()), default_configuration(path))),
            ]
        }
        Err(ConfigError::Invalid(mistakes)) => mistakes.iter().map(|found| mistake(facts, found)).collect(),
    }
}

/// The main file and those of `conf.d`.
fn files(main: &Path) -> impl Iterator<Item = PathBuf> {
    let beside = std::fs::read_dir(main.with_file_name("conf.d")).into_iter().flatten().flatten();
    let yaml = beside
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    std::iter::once(main.to_owned()).chain(yaml)
}

fn default_configuration(path: &Path) -> String {
    let folder = quote(&path.parent().unwrap_or(Path::new("/")).display().to_string());
    format!(
        "mkdir -p {folder} && echo '# All as the defaults have it.' >{}",
        quote(&path.display().to_string())
    )
}

fn mistake(facts: &Facts, mistake: &Mistake) -> Finding {
    let file = quote(&mistake.file.display().to_string());
    let why = "With a mistake in it nothing of the configuration counts: a start fails or falls back, a reload changes nothing.";
    let finding = Finding::error(mistake);
    if mistake.what.ends_with("chmod o-w") {
        return finding.why(why).fix(format!("chmod o-w {file}"));
    }
    if mistake.what.starts_with("belongs to uid") {
        return finding.why(why).fix(format!("chown root {file}"));
    }
    if mistake.what == "not a regular file" {
        let aside = quote(&format!("{}.old", mistake.file.display()));
        return finding.why(format!("{why} What is there is put aside.")).fix(
            match mistake.file == facts.config_path {
                true => format!("mv -T {file} {aside} && {}", default_configuration(&mistake.file)),
                false => format!("mv -T {file} {aside}"),
            },
        );
    }
    if mistake.what.starts_with("the file is empty") {
        return finding.why(why).fix(default_configuration(&mistake.file));
    }
    if let Some(correction) = correction(mistake) {
        return finding
            .why(why)
            .fix(facts.then_reload_sasld(format!("sed -i --follow-symlinks {} {file}", quote(&correction))));
    }
    let line = mistake.place.map_or(String::new(), |place| format!("+{} ", place.line));
    finding
        .why(format!("{why} What it should say is for you to decide; this opens the file at that place:"))
        .fix(facts.then_reload_sasld(format!("${{EDITOR:-editor}} {line}{file}")))
}

/// What sed has to do about a key that is misspelt.
fn correction(mistake: &Mistake) -> Option<String> {
    let right = mistake.what.strip_prefix("unknown key; did you mean ")?.strip_suffix('?')?;
    let wrong = mistake.key.rsplit('.').next()?;
    let line = mistake.place?.line;
    let plain = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    (plain(wrong) && plain(right)).then(|| format!("{line}s/\\b{wrong}\\b/{right}/"))
}

pub fn units(facts: &Facts) -> Vec<Finding> {
    let Some(units) = &facts.units else {
        return vec![Finding::skipped("systemd does not run here")];
    };
    let mut findings = Vec::new();
    for (name, unit) in units.iter() {
        if unit.active == "failed" {
            findings.push(
                Finding::error("has failed")
                    .at(name)
                    .why(format!("journalctl -u {name} says why."))
                    .fix(format!("systemctl reset-failed {name} && systemctl restart {name}")),
            );
        } else if unit.enabled == "masked" {
            findings.push(
                Finding::error("is masked, so nothing can start it")
                    .at(name)
                    .why("Without it, logins end with its process, or at the next boot.")
                    .fix(format!("systemctl unmask {name} && systemctl enable --now {name}")),
            );
        } else if unit.enabled == "disabled" && (!name.starts_with("sasld-pam") || facts.pam().is_some()) {
            findings.push(
                Finding::warning("is disabled, so it is gone after the next boot")
                    .at(name)
                    .why("Logins work until then, and nobody remembers why they stopped.")
                    .fix(format!("systemctl enable --now {name}")),
            );
        }
    }
    findings
}

pub fn running(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (socket, seen) in &facts.listeners {
        let Seen::Not { word, message } = seen else { continue };
        let why =
            "Postfix's smtpd ends when it finds nobody there, and with it whatever else its port is for.";
        let finding = match word.as_str() {
            "missing" => Finding::error("nobody listens: sasld does not run, or not with this configuration"),
            "refused" => Finding::error("nobody listens any more: sasld has died and left its socket"),
            // That is `socket`'s business: what counts is who Postfix is.
            "permission" | "turned_away" if !facts.is_root() || word == "turned_away" => continue,
            "busy" => Finding::error("somebody listens and takes no connections"),
            _ => Finding::error(message),
        };
        let fix = match word.as_str() {
            // It runs, so that starting it changes nothing.
            "busy" | "silent" => facts.restart_sasld(),
            _ => facts.start_sasld(),
        };
        findings.push(finding.at(socket).why(why).fix(fix));
    }
    // One command starts it for all.
    for finding in findings.iter_mut().skip(1) {
        finding.fix.clear();
    }
    findings
}

/// Whether the running daemon goes by what is in the files now.
pub fn in_force(facts: &Facts) -> Vec<Finding> {
    let Some(status) = &facts.status else {
        return vec![Finding::skipped("sasld does not answer on its control socket, or not to this user")];
    };
    let mut findings = Vec::new();
    let reload = facts.reload_sasld().unwrap_or_else(|| facts.start_sasld());
    let configuration = &status.configuration;
    let path = Path::new(&configuration.path);
    let (advice, mend) = match listening::same(path, &facts.config_path) {
        true if facts.config.is_ok() => ("", reload.clone()),
        true => (" When its mistakes are mended, this makes it count:", reload.clone()),
        false => (
            " It is another one than this doctor looked at; that is for you to decide:",
            format!("sasld doctor --config {}", quote(&configuration.path)),
        ),
    };
    if configuration.last_good {
        findings.push(
            Finding::warning("sasld runs on the copy of an older configuration")
                .at(path.display())
                .why(format!(
                    "It found mistakes at its start, and took the last configuration without any.{advice}"
                ))
                .fix(mend),
        );
    } else if let Some(rejected) = &configuration.rejected {
        findings.push(
            Finding::warning(format!(
                "the reload of {} was rejected: {}",
                rejected.at,
                rejected.mistakes.join("; ")
            ))
            .at(path.display())
            .why(format!("What was in force before still is.{advice}"))
            .fix(mend),
        );
    } else if changed_after(path, &configuration.in_force_since) {
        findings.push(
            Finding::warning(format!(
                "it has changed since sasld read it at {}",
                configuration.in_force_since
            ))
            .at(path.display())
            .why(format!("Changes of the configuration count from the next reload on.{advice}"))
            .fix(mend),
        );
    }
    for passdb in &status.passdbs {
        // What is wrong with sasld-pam is for `pam-worker` to say.
        let PassdbState::SecretsFile(file) = passdb else { continue };
        let seen = facts.secrets.iter().find(|seen| seen.path == Path::new(&file.path));
        // And what is wrong with the file as it is, for `secrets-file`.
        let is_good = seen.is_none_or(|seen| seen.loaded.is_ok() && !is_torn(&seen.path));
        if let (Some(trouble), true) = (&file.trouble, is_good) {
            findings.push(
                Finding::error(format!("sasld says: {trouble}"))
                    .at(&file.path)
                    .why("Its users hear 454, or are checked against what was there before. The file is good now:")
                    .fix(reload.clone()),
            );
        }
    }
    findings
}

/// Whether the file or one in `conf.d` beside it is younger than this moment.
fn changed_after(path: &Path, moment: &str) -> bool {
    let Ok(moment) = humantime::parse_rfc3339_weak(moment) else { return false };
    // The folder itself as well: a file may have been taken away.
    let mut files = files(path).chain([path.with_file_name("conf.d")]);
    files.any(|file| {
        std::fs::metadata(file).and_then(|found| found.modified()).is_ok_and(|time| time > moment)
    })
}

pub fn clock(facts: &Facts) -> Vec<Finding> {
    let limit = SystemTime::now() + TOLERANCE;
    let files = std::iter::once(&facts.config_path).chain(facts.secrets.iter().map(|file| &file.path));
    let mut findings: Vec<Finding> = files
        .filter(|path| std::fs::metadata(path).and_then(|found| found.modified()).is_ok_and(|time| time > limit))
        .map(|path| {
            Finding::warning("was changed in the future")
                .at(path.display())
                .why(
                    "Then the clock was wrong, or is. sasld tells versions of a file apart by their times, and logs \
                     and certificates go by the clock.",
                )
                .fix(format!("touch {}", quote(&path.display().to_string())))
        })
        .collect();
    if facts.units.is_some() && !synchronised() {
        findings.push(
            Finding::note("the clock is not synchronised")
                .why("Logs of several machines do not fit together, and certificates may seem expired.")
                .fix("timedatectl set-ntp true"),
        );
    }
    findings
}

/// As systemd knows it; a machine that cannot tell has no problem.
fn synchronised() -> bool {
    let output = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output();
    output.map_or(true, |output| output.stdout != b"no\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    #[test]
    fn a_misspelt_key_is_corrected_and_what_only_its_author_knows_is_not() {
        let mistake = |key: &str, what: &str| Mistake {
            file: "/etc/sasld/sasld.yaml".into(),
            place: Some(Place { line: 7, column: 3 }),
            key: key.into(),
            what: what.into(),
        };
        let corrected = |key, what| correction(&mistake(key, what));
        assert_eq!(
            corrected("usernames.lower_case", "unknown key; did you mean lowercase?").as_deref(),
            Some(r"7s/\blower_case\b/lowercase/")
        );
        assert_eq!(corrected("a/b", "unknown key; did you mean deadline?"), None);
        assert_eq!(corrected("deadline", "expected a duration from 1s to 9s, found `12s`"), None);
    }
}
