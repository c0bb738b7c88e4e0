//! sasld itself: its configuration, its units, whether it listens, and the clock it lives by.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::seen::Seen;
use crate::cli::doctor::shell::quote;
use crate::config::{ConfigError, Mistake};
use crate::control::reply::PassdbState;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Clocks of file servers differ by less.
const TOLERANCE: Duration = Duration::from_secs(60);

pub fn configuration(facts: &Facts) -> Vec<Finding> {
    let check = facts.sasld("check");
    match &facts.config {
        Ok(config) => config
            .warnings()
            .iter()
            .map(|warning| {
                Finding::warning(warning).why("Whoever can connect may guess passwords.").fix(check.clone())
            })
            .collect(),
        Err(ConfigError::Missing { path }) => {
            let folder = quote(&path.parent().unwrap_or(Path::new("/")).display().to_string());
            let file = quote(&path.display().to_string());
            let fix = format!("mkdir -p {folder} && echo '# All as the defaults have it.' >{file}");
            vec![
                Finding::error(format!("{}: no such file", path.display()))
                    .why("sasld does not start without a configuration. The defaults are for Postfix and /etc/sasld/secrets.")
                    .fix(fix),
            ]
        }
        Err(ConfigError::Unreadable { path, source }) => {
            vec![
                Finding::error(format!("{}: {source}", path.display()))
                    .why("sasld, and whoever runs doctor, must be able to read it.")
                    .fix(format!("chmod a+r {}", quote(&path.display().to_string()))),
            ]
        }
        Err(ConfigError::Invalid(mistakes)) => mistakes.iter().map(mistake).collect(),
    }
}

fn mistake(mistake: &Mistake) -> Finding {
    let file = quote(&mistake.file.display().to_string());
    let fix = if mistake.what.ends_with("chmod o-w") {
        format!("chmod o-w {file}")
    } else if mistake.what.starts_with("belongs to uid") {
        format!("chown root {file}")
    } else {
        let line = mistake.place.map_or(String::new(), |place| format!("+{} ", place.line));
        format!("${{EDITOR:-editor}} {line}{file}")
    };
    Finding::error(mistake)
        .why("With a mistake in it nothing of the configuration counts: a start fails or falls back, a reload changes nothing.")
        .fix(fix)
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
                    .fix(format!("systemctl unmask {name} && systemctl enable --now {name}")),
            );
        } else if unit.enabled == "disabled" && (!name.starts_with("sasld-pam") || facts.pam().is_some()) {
            findings.push(
                Finding::warning("is disabled, so it is gone after the next boot")
                    .at(name)
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
        findings.push(finding.at(socket).why(why).fix(facts.start_sasld()));
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
    let mend = match facts.config.is_ok() && path == facts.config_path {
        true => reload.clone(),
        false => facts.sasld("check"),
    };
    if configuration.last_good {
        findings.push(
            Finding::warning("sasld runs on the copy of an older configuration")
                .at(path.display())
                .why("It found mistakes at its start, and took the last configuration without any.")
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
            .why("What was in force before still is.")
            .fix(mend),
        );
    } else if changed_after(path, &configuration.in_force_since) {
        findings.push(
            Finding::warning(format!(
                "it has changed since sasld read it at {}",
                configuration.in_force_since
            ))
            .at(path.display())
            .why("Changes of the configuration count from the next reload on.")
            .fix(mend),
        );
    }
    for passdb in &status.passdbs {
        let (place, trouble) = match passdb {
            PassdbState::SecretsFile(file) => (&file.path, &file.trouble),
            PassdbState::Pam(pam) => (&pam.socket, &pam.trouble),
        };
        if let Some(trouble) = trouble {
            findings.push(
                Finding::error(format!("sasld says: {trouble}"))
                    .at(place)
                    .why("Its users hear 454, or are checked against what was there before.")
                    .fix(facts.sasld("check")),
            );
        }
    }
    findings
}

/// Whether the file or one in `conf.d` beside it is younger than this moment.
fn changed_after(path: &Path, moment: &str) -> bool {
    let Ok(moment) = humantime::parse_rfc3339_weak(moment) else { return false };
    let folder = path.with_file_name("conf.d");
    let beside = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let yaml = beside.filter(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    // The folder itself as well: a file may have been taken away.
    let mut files = yaml.chain([path.to_owned(), folder.clone()]);
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
