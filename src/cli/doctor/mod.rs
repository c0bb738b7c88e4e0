//! `sasld doctor`: everything between a mail server and a password that can be wrong, what it means, and the command
//! that mends it.
//!
//! Facts are gathered first ([`facts`]), then each probe of the list ([`probes::PROBES`]) reads them and says what it
//! found, and the [`report`] prints that. A new probe is a function and a line in the list. Doctor changes nothing: it
//! reads files, asks `postconf` and `systemctl`, and connects to sockets as a mail server does; with `--user` it logs in.
//!
//! A probe that cannot look says so ([`Finding::skipped`]). Its exit codes are its own, 0, 1 and 2, as those of other
//! programs that monitoring systems run.

mod facts;
mod finding;
pub(super) mod postfix;
mod probes;
mod report;
mod seen;
pub(super) mod shell;
mod smtp;
mod units;

pub(super) use probes::access::{LISTS as RESTRICTIONS, holding_users, permitting, refuses_users};

use super::prompt::PasswordPrompt;
use super::{Exit, Failure};
use clap::Args;
use facts::{Facts, Scope};
use finding::{Finding, Level};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// Find what keeps users from logging in, and the command that mends it
///
/// Looks at every Postfix, at sasld's configuration, files, sockets and units, and connects as Postfix does; changes
/// nothing. Best run as root. Exit status 0: nothing is wrong. 1: warnings. 2: errors.
#[derive(Debug, Args)]
pub struct Arguments {
    /// sasld's configuration, instead of /etc/sasld/sasld.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log this user in as well, by every mechanism that is offered
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Read the password from standard input; one newline at its end is removed, nothing else
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// Look at a mail server from outside, over SMTP and STARTTLS; with --user, log in there
    #[arg(long, value_name = "HOST:PORT")]
    smtp: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A directory with main.cf and master.cf, instead of every Postfix there is; may be repeated
    #[arg(long = "postfix-config", value_name = "DIRECTORY")]
    postfix: Vec<PathBuf>,
    /// Look for the files of other packages below this directory
    #[arg(long, default_value = "/", hide = true)]
    root: PathBuf,
}

/// One thing to look at.
pub struct Probe {
    /// Its name in the report and in the documentation.
    pub name: &'static str,
    /// What is in order when it finds nothing.
    pub good: &'static str,
    /// Without which it has nothing to look at.
    pub needs: Needs,
    /// Looks.
    pub look: fn(&Facts) -> Vec<Finding>,
}

/// What a probe looks at.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// What is always there.
    Nothing,
    /// sasld's configuration.
    Configuration,
    /// PAM as a passdb.
    Pam,
    /// A Postfix.
    Postfix,
    /// A service of Postfix where users can log in.
    Logins,
}

impl Probe {
    /// What it finds, or why it cannot look.
    fn findings(&self, facts: &Facts) -> Vec<Finding> {
        let lacking = match self.needs {
            Needs::Nothing => None,
            Needs::Configuration => facts.config.is_err().then_some("there is no configuration"),
            Needs::Pam => facts.pam().is_none().then_some("PAM is not asked"),
            Needs::Postfix => facts.instances.is_empty().then_some("there is no Postfix"),
            Needs::Logins => {
                let logins = facts.instances.iter().any(|instance| instance.with_auth().next().is_some());
                (!logins).then_some("no service of Postfix lets users log in")
            }
        };
        lacking.map_or_else(|| (self.look)(facts), |lacking| vec![Finding::skipped(lacking)])
    }
}

pub(super) fn run(
    arguments: Arguments,
    out: &mut dyn Write,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Exit, Failure> {
    let login = match arguments.user {
        Some(user) if arguments.password_stdin => Some((user, prompt.read_stdin()?)),
        Some(user) => {
            let password = prompt.ask(&format!("Password for {}: ", user.escape_debug()))?;
            Some((user, password))
        }
        None => None,
    };
    let scope = Scope {
        config: arguments.config,
        postfix: arguments.postfix,
        root: arguments.root,
        login,
        smtp: arguments.smtp,
    };
    examine(scope, arguments.json, out)
}

/// What `sasld setup` ends with.
pub(super) fn after_setup(
    config: Option<PathBuf>,
    postfix: Vec<PathBuf>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    examine(Scope { config, postfix, root: "/".into(), login: None, smtp: None }, false, out)
}

fn examine(scope: Scope, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let facts = Facts::gather(scope);
    let results: Vec<(&Probe, Vec<Finding>)> =
        probes::PROBES.iter().map(|probe| (probe, probe.findings(&facts))).collect();
    if json {
        report::json(&facts, &results, out)?;
    } else {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        report::text(&facts, &results, colour, out)?;
    }
    let worst = results.iter().flat_map(|(_, findings)| findings).map(|finding| finding.level).max();
    Ok(match worst {
        Some(Level::Error) => Exit::Errors,
        Some(Level::Warning) => Exit::No,
        Some(Level::Note | Level::Skipped) | None => Exit::Yes,
    })
}
