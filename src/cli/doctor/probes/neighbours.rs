//! Other programs on the machine: fail2ban, which reads failed logins in Postfix's log, and saslauthd, which did the job
//! before.
//!
//! fail2ban's files are read as far as it takes to see which jails are on and what their filters look for; one that
//! builds its expression in another way is left alone.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::shell::quote;
use crate::sasl::Mechanism;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What Postfix logs when sasld says "no verdict": nobody's fault, and nothing to ban anybody for.
const OUTAGE: &str = "Connection lost to authentication server";

/// Modes of fail2ban's own filter for Postfix that look for failed logins.
const AUTH_MODES: [&str; 3] = ["auth", "extra", "aggressive"];

pub fn fail2ban(facts: &Facts) -> Vec<Finding> {
    let folder = facts.root.join("etc/fail2ban");
    if !folder.is_dir() {
        return Vec::new();
    }
    let jails = jails(&folder);
    let enabled: Vec<(&String, &Section)> = jails
        .iter()
        .filter(|(_, jail)| jail.get("enabled").is_some_and(|value| value == "true" || value == "yes"))
        .collect();
    let mut reading = 0;
    let mut findings = Vec::new();
    for (name, jail) in enabled {
        let filter = jail.get("filter").cloned().unwrap_or_else(|| name.clone());
        let (filter, mode) = match filter.split_once('[') {
            Some((filter, options)) => (filter.trim().to_owned(), option(options, "mode")),
            None => (filter.trim().to_owned(), jail.get("mode").cloned()),
        };
        if filter.starts_with("sasld") {
            reading += 1;
            continue;
        }
        let text = filter_text(&folder, &filter);
        let patterns: Vec<&str> =
            text.lines().filter(|line| line.contains("authentication failed")).collect();
        let by_mode = filter == "postfix" && text.contains("mdre-");
        if patterns.is_empty() || (by_mode && !AUTH_MODES.contains(&mode.unwrap_or_default().as_str())) {
            continue;
        }
        reading += 1;
        let missed: Vec<&str> = Mechanism::ALL
            .iter()
            .filter(|mechanism| facts.offers(**mechanism))
            .map(|mechanism| mechanism.name())
            .filter(|mechanism| !patterns.iter().any(|pattern| covers(pattern, mechanism)))
            .collect();
        let file = folder.join("filter.d").join(format!("{filter}.conf"));
        if !missed.is_empty() {
            findings.push(
                Finding::warning(format!(
                    "the jail {name} does not see failed logins by {}",
                    missed.join(", ")
                ))
                .at(file.display())
                .why("Guessers who use these are never banned.")
                .fix(stock_filter(facts, &folder, name)),
            );
        }
        if !patterns.iter().any(|pattern| pattern.contains(OUTAGE)) {
            findings.push(
                Finding::warning(format!("the jail {name} takes an outage for a wrong password"))
                    .at(file.display())
                    .why(format!(
                        "Postfix logs \"{OUTAGE}\" when a password could not be checked. Honest users are banned for it."
                    ))
                    .fix(stock_filter(facts, &folder, name)),
            );
        }
    }
    if reading == 0 {
        findings.push(
            Finding::note("fail2ban is installed, and no jail of it reads failed logins")
                .why("It could ban addresses that guess. Its jail postfix-sasl reads what Postfix logs for sasld's refusals.")
                .fix(stock_filter(facts, &folder, "postfix-sasl")),
        );
    }
    findings
}

/// The command that turns a jail on, with fail2ban's own filter.
fn stock_filter(facts: &Facts, folder: &Path, jail: &str) -> String {
    let file = quote(&folder.join("jail.d").join(format!("zz-{jail}.local")).display().to_string());
    let text = quote(&format!("[{jail}]\\nenabled = true\\nfilter = postfix[mode=auth]\\n"));
    let reload = if facts.root.join("run/fail2ban/fail2ban.sock").exists() {
        " && fail2ban-client reload"
    } else {
        ""
    };
    format!("printf {text} >{file}{reload}")
}

/// Whether the part of a pattern between `SASL` and `authentication failed` fits a mechanism, as far as can be told.
fn covers(pattern: &str, mechanism: &str) -> bool {
    let Some(end) = pattern.find("authentication failed") else { return false };
    let start = pattern[..end].rfind("SASL").map_or(0, |at| at + 4);
    let part = &pattern[start..end];
    let folded = part.to_ascii_uppercase();
    let anything = [r"\S", r"\w", "[A-Z", "[^ ]", ".*", ".+"].iter().any(|wide| part.contains(wide));
    anything || mechanism.split('-').all(|word| folded.contains(word))
}

type Section = BTreeMap<String, String>;

/// The jails, later files over earlier ones as fail2ban reads them.
fn jails(folder: &Path) -> BTreeMap<String, Section> {
    let mut files = vec![folder.join("jail.conf")];
    files.extend(in_folder(&folder.join("jail.d"), "conf"));
    files.push(folder.join("jail.local"));
    files.extend(in_folder(&folder.join("jail.d"), "local"));
    let mut jails: BTreeMap<String, Section> = BTreeMap::new();
    for file in files {
        let mut jail = String::new();
        for line in fs::read_to_string(file).unwrap_or_default().lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.trim_end().strip_suffix(']')) {
                name.clone_into(&mut jail);
            } else if let Some((key, value)) = line.split_once('=')
                && !line.starts_with(['#', ';', ' ', '\t'])
            {
                jails.entry(jail.clone()).or_default().insert(key.trim().to_owned(), value.trim().to_owned());
            }
        }
    }
    for special in ["DEFAULT", "INCLUDES"] {
        jails.remove(special);
    }
    jails
}

fn in_folder(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

fn filter_text(folder: &Path, filter: &str) -> String {
    let read = |extension| fs::read_to_string(folder.join("filter.d").join(format!("{filter}.{extension}")));
    read("conf").unwrap_or_default() + &read("local").unwrap_or_default()
}

/// `mode=auth` in `mode=auth, journalmatch=…]`.
fn option(options: &str, name: &str) -> Option<String> {
    options.trim_end_matches(']').split(',').find_map(|option| {
        let (key, value) = option.split_once('=')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

pub fn saslauthd(facts: &Facts) -> Vec<Finding> {
    let cyrus = facts
        .instances
        .iter()
        .any(|instance| instance.with_auth().any(|service| service.get("smtpd_sasl_type") == "cyrus"));
    // Somebody still asks it; `sasl-type` has said so.
    if cyrus {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let why = "Postfix does not ask it any more: a change there changes nothing, and whoever looks for the passwords \
               looks in the wrong place.";
    if facts.runs("saslauthd") {
        let stop = match &facts.units {
            Some(_) => "systemctl disable --now saslauthd",
            None => "service saslauthd stop",
        };
        findings.push(Finding::note("saslauthd runs").why(why).fix(stop));
    }
    let mut files: Vec<PathBuf> = ["etc/sasl2/smtpd.conf", "usr/lib/sasl2/smtpd.conf"]
        .iter()
        .map(|file| facts.root.join(file))
        .collect();
    files.extend(facts.instances.iter().map(|instance| instance.directory.join("sasl/smtpd.conf")));
    for file in files.iter().filter(|file| file.exists()) {
        let path = file.display().to_string();
        let fix = format!("mv {} {}", quote(&path), quote(&format!("{path}.old")));
        findings.push(Finding::note("a configuration for Cyrus SASL is left").at(path).why(why).fix(fix));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_the_mechanisms_it_names() {
        let stock = r"SASL ((?i)LOGIN|PLAIN|(?:CRAM|DIGEST)-MD5) authentication failed:(?! Connection lost";
        let narrow = r"warning: \S+\[<HOST>\]: SASL LOGIN authentication failed";
        let wide = r": SASL \S+ authentication failed";
        for (pattern, mechanism, expected) in [
            (stock, "PLAIN", true),
            (stock, "CRAM-MD5", true),
            (narrow, "LOGIN", true),
            (narrow, "PLAIN", false),
            (narrow, "CRAM-MD5", false),
            (wide, "CRAM-MD5", true),
        ] {
            assert_eq!(covers(pattern, mechanism), expected, "{pattern} {mechanism}");
        }
    }

    #[test]
    fn the_mode_of_a_filter_is_found_among_its_options() {
        assert_eq!(option("mode=auth]", "mode").as_deref(), Some("auth"));
        assert_eq!(option("backend=x, mode = extra]", "mode").as_deref(), Some("extra"));
        assert_eq!(option("backend=x]", "mode"), None);
    }
}
