//! `sasld test`: log in through a socket as a mail server would, and say what its user would be told.
//!
//! A client of the Dovecot auth protocol, for any server of it, Dovecot's own included. It introduces itself as
//! Postfix does, so an outage shows here as it would there.

use super::prompt::PasswordPrompt;
use super::{Exit, Failure};
use crate::client::{Client, ClientError, Outcome};
use crate::credential::Password;
use crate::sasl::Mechanism;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// Log in through a socket, as a mail server would
///
/// Tries each mechanism that the server offers and sasld knows, or those given, with one user's password, and prints
/// what Postfix would tell its client. Exit status 0: every login succeeded. 1: one was refused. 75: no verdict. 69:
/// nobody serves the socket.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Path of a Unix socket, or host:port
    socket: String,
    /// Who logs in
    #[arg(long, value_name = "NAME")]
    user: String,
    /// The mechanism to try, PLAIN, LOGIN or CRAM-MD5; may be repeated
    #[arg(long = "mechanism", value_name = "MECHANISM")]
    mechanisms: Vec<String>,
    /// The service that the mail server would name
    #[arg(long, default_value = "smtp")]
    service: String,
    /// Log in as if the user had no TLS
    #[arg(long)]
    no_tls: bool,
    /// The user's address that the mail server would give
    #[arg(long, value_name = "ADDRESS", default_value = "192.0.2.1")]
    remote: std::net::IpAddr,
    /// Read the password from standard input; one newline at its end is removed, nothing else
    #[arg(long)]
    password_stdin: bool,
    /// Print JSON: `socket`, `offers`, and for each of `logins` its `mechanism`, its `result` (accepted, refused or
    /// no_verdict) and what Postfix says, `reply`
    #[arg(long)]
    json: bool,
}

/// What Postfix waits.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(
    arguments: &Arguments,
    out: &mut dyn Write,
    prompt: &mut dyn PasswordPrompt,
) -> Result<Exit, Failure> {
    let password = if arguments.password_stdin {
        prompt.read_stdin()?
    } else {
        prompt.ask(&format!("Password for {}: ", arguments.user.escape_debug()))?
    };
    let mut client = connect(arguments)?;
    let offered: Vec<String> = client.mechanisms().to_vec();
    if !arguments.json {
        writeln!(out, "{} offers {}", arguments.socket, offered.join(" "))?;
    }
    let mut exit = Exit::Yes;
    let mut logins = Vec::new();
    for mechanism in chosen(arguments, &offered)? {
        let outcome = log_in(&mut client, mechanism, arguments, &password);
        if matches!(outcome, Err(_) | Ok(Outcome::Closed)) {
            client = connect(arguments)?;
        }
        let (line, this) = describe(&outcome);
        if arguments.json {
            logins.push(login_json(mechanism, &line, this));
        } else {
            writeln!(out, "{mechanism:<10}{line}")?;
        }
        exit = worse(exit, this);
    }
    if arguments.json {
        writeln!(out, "{}", json!({"socket": arguments.socket, "offers": offered, "logins": logins}))?;
    }
    Ok(exit)
}

fn connect(arguments: &Arguments) -> Result<Client, Failure> {
    Client::connect(&arguments.socket, PATIENCE)
        .map_err(|error| Failure::new(super::probe::exit(&error), error))
}

/// The mechanisms to try: those asked for, or all that both sides know.
fn chosen(arguments: &Arguments, offered: &[String]) -> Result<Vec<Mechanism>, Failure> {
    if arguments.mechanisms.is_empty() {
        let known: Vec<Mechanism> =
            offered.iter().filter_map(|name| Mechanism::from_name(name.as_bytes())).collect();
        if known.is_empty() {
            return Err(Failure::new(Exit::Data, "the server offers no mechanism that sasld knows"));
        }
        return Ok(known);
    }
    let known = |name: &String| {
        Mechanism::from_name(name.as_bytes()).ok_or_else(|| {
            let known: Vec<&str> = Mechanism::ALL.iter().map(|mechanism| mechanism.name()).collect();
            Failure::new(
                Exit::Usage,
                format_args!("unknown mechanism {name}; known are {}", known.join(", ")),
            )
        })
    };
    arguments.mechanisms.iter().map(known).collect()
}

fn log_in(
    client: &mut Client,
    mechanism: Mechanism,
    arguments: &Arguments,
    password: &Password,
) -> Result<Outcome, ClientError> {
    let mut parameters = format!("service={}\tnologin\trip={}", arguments.service, arguments.remote);
    if !arguments.no_tls {
        parameters.push_str("\tsecured");
    }
    client.log_in(mechanism, &parameters, &arguments.user, password)
}

/// What Postfix would say, and what it means here.
fn describe(outcome: &Result<Outcome, ClientError>) -> (String, Exit) {
    match outcome {
        Ok(Outcome::Accepted { user }) => {
            (format!("235 2.7.0 Authentication successful (user {})", user.escape_debug()), Exit::Yes)
        }
        Ok(Outcome::Refused { reason, temporary }) => {
            let reason = reason.as_deref().unwrap_or("(reason unavailable)");
            let line = format!("535 5.7.8 Error: authentication failed: {}", reason.escape_debug());
            match temporary {
                true => (format!("{line} (the server says: a temporary failure)"), Exit::TryAgain),
                false => (line, Exit::No),
            }
        }
        Ok(Outcome::Closed) => {
            let line = "454 4.7.0 Temporary authentication failure: Connection lost to authentication server";
            (line.to_owned(), Exit::TryAgain)
        }
        Err(error) => (format!("454 4.7.0 Temporary authentication failure: {error}"), Exit::TryAgain),
    }
}

fn login_json(mechanism: Mechanism, reply: &str, exit: Exit) -> Value {
    let result = match exit {
        Exit::Yes => "accepted",
        Exit::No => "refused",
        _ => "no_verdict",
    };
    json!({"mechanism": mechanism.name(), "result": result, "reply": reply})
}

/// A refusal outweighs success, and no verdict outweighs both.
fn worse(one: Exit, other: Exit) -> Exit {
    if other as u8 > one as u8 { other } else { one }
}
