//! The report: one line for what is in order, a paragraph for what is not; or JSON.
//!
//! Texts are wrapped, commands never: they are there to be copied. What comes from files is escaped, so that nothing
//! in a configuration can steer the terminal.

use super::Probe;
use super::facts::Facts;
use super::finding::{Finding, Level};
use crate::secrets::escape;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The widest line of a text.
const WIDTH: usize = 100;

/// Where texts begin: behind the level and the name.
const INDENT: usize = 10;

/// For people.
pub fn text(
    facts: &Facts,
    results: &[(&Probe, Vec<Finding>)],
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let paint = |level: Level, word: &str| match (colour, level) {
        (false, _) => word.to_owned(),
        (true, Level::Error) => format!("\x1b[1;31m{word}\x1b[0m"),
        (true, Level::Warning) => format!("\x1b[1;33m{word}\x1b[0m"),
        (true, Level::Note) => format!("\x1b[36m{word}\x1b[0m"),
        (true, Level::Skipped) => format!("\x1b[2m{word}\x1b[0m"),
    };
    let names = results.iter().map(|(probe, _)| probe.name.len()).max().unwrap_or_default();
    writeln!(out, "{}", subject(facts))?;
    for (probe, findings) in results {
        if findings.is_empty() {
            let ok = if colour { "\x1b[32mok\x1b[0m" } else { "ok" };
            writeln!(out, "{ok}{:8}{:names$}  {}", "", probe.name, probe.good)?;
        }
        for finding in findings {
            let level = paint(finding.level, finding.level.word());
            let padding = " ".repeat(INDENT - finding.level.word().len());
            let what = match finding.place.is_empty() {
                true => escape(finding.what.as_bytes()),
                false => format!("{}: {}", escape(finding.place.as_bytes()), escape(finding.what.as_bytes())),
            };
            let column = INDENT + names + 2;
            writeln!(out, "{level}{padding}{:names$}  {}", probe.name, wrapped(&what, column))?;
            if !finding.why.is_empty() {
                let why = escape(finding.why.as_bytes());
                writeln!(out, "{:column$}{}", "", wrapped(&why, column))?;
            }
            for command in &finding.fix {
                let command = match colour {
                    true => format!("\x1b[1m{command}\x1b[0m"),
                    false => command.clone(),
                };
                writeln!(out, "{:INDENT$}fix:  {command}", "")?;
            }
        }
    }
    writeln!(out, "{}", summary(results))
}

/// What was looked at.
fn subject(facts: &Facts) -> String {
    let postfixes: Vec<String> =
        facts.instances.iter().map(|instance| instance.directory.display().to_string()).collect();
    let postfixes = if postfixes.is_empty() { "none".to_owned() } else { postfixes.join(", ") };
    format!("sasld: {}; Postfix: {postfixes}", facts.config_path.display())
}

fn summary(results: &[(&Probe, Vec<Finding>)]) -> String {
    let count =
        |level| results.iter().flat_map(|(_, found)| found).filter(|found| found.level == level).count();
    let counted =
        |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    format!(
        "{}, {}, {}",
        counted(count(Level::Error), "error"),
        counted(count(Level::Warning), "warning"),
        counted(count(Level::Note), "note")
    )
}

/// Breaks a text at blanks; further lines begin at `column`.
fn wrapped(text: &str, column: usize) -> String {
    let room = WIDTH.saturating_sub(column).max(40);
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            out.push('\n');
            out.push_str(&" ".repeat(column));
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
    out
}

/// For programs.
pub fn json(facts: &Facts, results: &[(&Probe, Vec<Finding>)], out: &mut dyn Write) -> io::Result<()> {
    let finding = |finding: &Finding| {
        json!({
            "level": match finding.level { Level::Skipped => "skipped", level => level.word() },
            "place": finding.place,
            "what": finding.what,
            "why": finding.why,
            "fix": finding.fix,
        })
    };
    let probes: Vec<Value> = results
        .iter()
        .map(|(probe, findings)| {
            json!({
                "name": probe.name,
                "ok": findings.iter().all(|finding| finding.level <= Level::Note),
                "findings": findings.iter().map(finding).collect::<Vec<_>>(),
            })
        })
        .collect();
    let postfix: Vec<String> =
        facts.instances.iter().map(|instance| instance.directory.display().to_string()).collect();
    let report = json!({
        "configuration": facts.config_path.display().to_string(),
        "postfix": postfix,
        "probes": probes,
    });
    writeln!(out, "{report}")
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn a_long_text_is_broken_at_blanks_and_nothing_of_it_is_lost() {
        let text = "word ".repeat(60);
        let shown = wrapped(text.trim_end(), 30);
        assert!(shown.lines().all(|line| line.len() <= 100), "{shown}");
        assert_eq!(shown.split_whitespace().count(), 60);
    }
}
