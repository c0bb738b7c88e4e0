//! `sasld status`: one screen about the running daemon.
//!
//! What deserves a look comes last, where the eye is, and makes the exit status 1. Everything is the daemon's own
//! answer ([`Status`]); nothing is read from files here.

use super::ask::Daemon;
use super::{Exit, Failure};
use crate::control::Request;
use crate::control::reply::{Attempts, Numbers, PassdbState, SecretsState, Status};
use clap::Args;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

/// Show how the running daemon is
///
/// Asks the daemon over its control socket, as root. Exit status 0: nothing wrong. 1: something deserves a look. 69:
/// no daemon answers. 77: only root may ask.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    daemon: Daemon,
    /// Print the daemon's answer as it is, one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (json, status) = arguments.daemon.ask::<Status>(&Request::Status)?;
    if arguments.json {
        writeln!(out, "{json}")?;
    } else {
        show(&status, out)?;
    }
    Ok(if status.wrong.is_empty() { Exit::Yes } else { Exit::No })
}

fn show(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_s));
    writeln!(out, "sasld {}, process {}, since {} ({uptime})", status.version, status.pid, status.since)?;
    let configuration = &status.configuration;
    let last_good = if configuration.last_good { ", from the last good copy" } else { "" };
    let since = &configuration.in_force_since;
    entry(out, "configuration", &format!("{}, in force since {since}{last_good}", configuration.path))?;
    if let Some(rejected) = &configuration.rejected {
        entry(out, "last reload", &format!("{}, rejected for", rejected.at))?;
        for mistake in &rejected.mistakes {
            entry(out, "", mistake)?;
        }
    }
    for (position, listener) in status.listeners.iter().enumerate() {
        let gone = if listener.in_place { "" } else { ": its file has gone" };
        entry(out, if position == 0 { "listeners" } else { "" }, &format!("{}{gone}", listener.name))?;
    }
    entry(out, "mechanisms", &status.mechanisms.join(" "))?;
    for (position, passdb) in status.passdbs.iter().enumerate() {
        entry(out, if position == 0 { "passdbs" } else { "" }, &describe(passdb))?;
    }
    entry(out, "connections", &format!("{}, exchanges {}", status.connections, status.exchanges))?;
    let pool = status.hash_pool;
    entry(out, "hash threads", &format!("{}, waiting {}", pool.threads, pool.waiting))?;
    writeln!(out)?;
    rates(&status.attempts, status.uptime_s, out)?;
    for (reasons, of) in
        [("refused for", &status.attempts.refused), ("no verdict for", &status.attempts.outage)]
    {
        if !of.is_empty() {
            writeln!(out)?;
            entry(out, reasons, &by_count(of))?;
        }
    }
    for (position, offender) in status.offenders.iter().enumerate() {
        if position == 0 {
            writeln!(out, "\n{:<40} {:>9}  last", "networks refused most, lately", "refused")?;
        }
        writeln!(out, "{:<40} {:>9}  {}", offender.network, offender.refusals, offender.last)?;
    }
    for (position, wrong) in status.wrong.iter().enumerate() {
        if position == 0 {
            writeln!(out)?;
        }
        writeln!(out, "wrong: {wrong}")?;
    }
    Ok(())
}

fn entry(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<15}{value}")
}

fn describe(passdb: &PassdbState) -> String {
    match passdb {
        PassdbState::SecretsFile(SecretsState { path, in_force: None, .. }) => {
            format!("secrets_file {path}: nothing in force")
        }
        PassdbState::SecretsFile(file) => {
            let (path, users, problems) = (&file.path, file.users, file.problems_total);
            let since = file.in_force_since.as_deref().unwrap_or("ever");
            let newer = if file.trouble.is_some() { "; what is there now is not" } else { "" };
            format!("secrets_file {path}: users {users}, problems {problems}, in force since {since}{newer}")
        }
        PassdbState::Pam(pam) if pam.connected => {
            format!("pam {}: workers {}, waiting {}", pam.service, pam.workers, pam.waiting)
        }
        PassdbState::Pam(pam) => format!("pam {}: not connected to {}", pam.service, pam.socket),
    }
}

/// Averages over windows, but not over time before the start.
fn rates(attempts: &Attempts, uptime_s: u64, out: &mut dyn Write) -> io::Result<()> {
    type Pick = fn(&Numbers) -> u64;
    let rows: [(&str, Pick); 4] = [
        ("let in", |numbers| numbers.ok),
        ("refused", |numbers| numbers.refused),
        ("no verdict", |numbers| numbers.outage),
        ("abandoned", |numbers| numbers.abandoned),
    ];
    let windows =
        [(1, &attempts.last_minute), (5, &attempts.last_5_minutes), (15, &attempts.last_15_minutes)];
    writeln!(
        out,
        "{:<15}{:>9}{:>9}{:>9}{:>15}",
        "logins a minute", "1 min", "5 min", "15 min", "all so far"
    )?;
    for (name, pick) in rows {
        write!(out, "{name:<15}")?;
        for (minutes, numbers) in windows {
            let seconds = uptime_s.clamp(60, minutes * 60);
            let tenths = pick(numbers) * 600 / seconds;
            write!(out, "{:>9}", format!("{}.{}", tenths / 10, tenths % 10))?;
        }
        writeln!(out, "{:>15}", pick(&attempts.total))?;
    }
    Ok(())
}

/// `wrong_password 12, unknown_user 3`: the most frequent first.
fn by_count(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<(&String, &u64)> = counts.iter().collect();
    counts.sort_by(|(_, one), (_, other)| other.cmp(one));
    counts.iter().map(|(why, count)| format!("{why} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_average_since_the_start_at_most() {
        let five = Numbers { ok: 30, ..Numbers::default() };
        let attempts =
            Attempts { last_5_minutes: five, last_15_minutes: five, total: five, ..Attempts::default() };
        let row = |uptime| {
            let mut out = Vec::new();
            rates(&attempts, uptime, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let row = text.lines().nth(1).unwrap().strip_prefix("let in").unwrap().split_whitespace();
            row.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row(3_600), ["0.0", "6.0", "2.0", "30"]);
        assert_eq!(row(120), ["0.0", "15.0", "15.0", "30"]);
        assert_eq!(row(1), ["0.0", "30.0", "30.0", "30"], "a minute at least");
    }

    #[test]
    fn the_most_frequent_reason_is_first() {
        let counts = [("closed", 2), ("wrong_password", 30)].map(|(why, count)| (why.to_owned(), count));
        assert_eq!(by_count(&counts.into()), "wrong_password 30, closed 2");
    }
}
