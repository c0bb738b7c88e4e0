//! `sasld why USER`: the user's last attempts and what led to each verdict, the newest last.
//!
//! The daemon remembers some thousand attempts of all users together; what is older is in its log alone.

use super::ask::Daemon;
use super::{Exit, Failure};
use crate::control::Request;
use crate::control::reply::{PastAttempt, Why};
use clap::Args;
use std::io::{self, Write};

/// Show why a user's last logins succeeded or failed
///
/// Asks the daemon over its control socket, as root, for what it remembers. Exit status 0: it remembers some. 1: none.
/// 69: no daemon answers. 77: only root may ask.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Who tried to log in
    user: String,
    /// How many attempts to show, up to 100
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    last: usize,
    #[command(flatten)]
    daemon: Daemon,
    /// Print the daemon's answer as it is, one line of JSON
    #[arg(long, conflicts_with = "last")]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let request = Request::Why { user: arguments.user.clone() };
    let (json, why) = arguments.daemon.ask::<Why>(&request)?;
    if arguments.json {
        writeln!(out, "{json}")?;
    } else {
        show(&why, arguments.last, out)?;
    }
    Ok(if why.attempts.is_empty() { Exit::No } else { Exit::Yes })
}

fn show(why: &Why, last: usize, out: &mut dyn Write) -> io::Result<()> {
    if why.attempts.is_empty() {
        let (user, remembered) = (&why.user, why.remembered);
        let since = why.remembered_since.as_deref().unwrap_or("the start");
        return writeln!(out, "no attempt of {user} among the {remembered} remembered since {since}");
    }
    for attempt in &why.attempts[why.attempts.len().saturating_sub(last)..] {
        show_attempt(attempt, out)?;
    }
    Ok(())
}

fn show_attempt(attempt: &PastAttempt, out: &mut dyn Write) -> io::Result<()> {
    let PastAttempt { at, result, client_pid, ms, .. } = attempt;
    let verdict = attempt.why.as_ref().map_or_else(|| result.clone(), |why| format!("{result} ({why})"));
    let mechanism = attempt.mechanism.as_deref().unwrap_or("unknown mechanism");
    let from = attempt.remote.as_deref().unwrap_or("an unknown address");
    let tls = if attempt.tls { "over TLS" } else { "without TLS" };
    writeln!(
        out,
        "{at} {verdict}: {mechanism} from {from} {tls}, mail server process {client_pid}, {ms:.1} ms"
    )?;
    let width = attempt.trail.iter().map(|step| step.asked.chars().count()).max().unwrap_or(0);
    for step in &attempt.trail {
        let (asked, said, detail) = (&step.asked, &step.said, &step.detail);
        writeln!(out, "  {asked:<width$}  {said:<9}  {detail}")?;
    }
    Ok(())
}
