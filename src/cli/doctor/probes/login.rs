//! Logging in, when doctor was given a user: at sasld's socket by every mechanism, and at the mail server over SMTP.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::seen::Seen;
use crate::cli::doctor::shell::quote;
use crate::cli::doctor::smtp;
use crate::client::{Client, Outcome};
use crate::credential::Password;
use crate::sasl::Mechanism;
use std::time::Duration;

/// What Postfix waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// As Postfix would ask for somebody on the internet who uses TLS.
const PARAMETERS: &str = "service=smtp\tnologin\trip=192.0.2.1\tsecured";

pub fn login(facts: &Facts) -> Vec<Finding> {
    let Some((user, password)) = &facts.login else {
        return vec![Finding::skipped("give a user with --user")];
    };
    let Some((socket, _)) = facts.listeners.iter().find(|(_, seen)| matches!(seen, Seen::Greeted(_))) else {
        return vec![Finding::skipped("there is no socket of sasld that answers")];
    };
    let outcomes = match log_in_by_each(socket, user, password) {
        Ok(outcomes) => outcomes,
        Err(error) => return vec![Finding::error(error).at(socket)],
    };
    let somehow = outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Accepted { .. }));
    outcomes
        .iter()
        .filter_map(|(mechanism, outcome)| judge(facts, user, *mechanism, outcome, somehow))
        .collect()
}

fn log_in_by_each(
    socket: &str,
    user: &str,
    password: &Password,
) -> Result<Vec<(Mechanism, Outcome)>, crate::client::ClientError> {
    let offered = Client::connect(socket, PATIENCE)?.mechanisms();
    let known = offered.iter().filter_map(|name| Mechanism::from_name(name.as_bytes()));
    known
        .map(|mechanism| {
            // A connection for each: one without a verdict ends with its connection.
            let outcome = Client::connect(socket, PATIENCE)?.log_in(mechanism, PARAMETERS, user, password)?;
            Ok((mechanism, outcome))
        })
        .collect()
}

/// `somehow`: another mechanism let him in, so the password is right.
fn judge(
    facts: &Facts,
    user: &str,
    mechanism: Mechanism,
    outcome: &Outcome,
    somehow: bool,
) -> Option<Finding> {
    let name = user.escape_debug();
    let passwd = facts.sasld(&format!("user passwd {}", quote(user)));
    match outcome {
        Outcome::Accepted { .. } => None,
        Outcome::Refused { temporary: false, .. } if somehow => Some(
            Finding::warning(format!("{name} can log in, but not by {mechanism}"))
                .why("Nothing is stored for this user that serves it, or it is of an older password.")
                .fix(format!("{passwd} --scheme ARGON2ID --scheme CRAM-MD5")),
        ),
        Outcome::Refused { temporary: false, .. } => Some(
            Finding::error(format!("{mechanism}: {name} is refused"))
                .why(
                    "A wrong password, an unknown user, or one who is closed: sasld's log says which (why=).",
                )
                .fix(passwd),
        ),
        Outcome::Refused { temporary: true, .. } | Outcome::Closed => Some(
            Finding::error(format!("{mechanism}: the password of {name} could not be checked"))
                .why("A passdb is out of order. sasld's log says which (event=auth result=outage).")
                .fix(facts.sasld("check")),
        ),
    }
}

pub fn smtp(facts: &Facts) -> Vec<Finding> {
    let Some(address) = &facts.smtp else {
        return vec![Finding::skipped("give a mail server with --smtp")];
    };
    let seen = match smtp::look(address, facts.login.as_ref()) {
        Ok(seen) => seen,
        Err(trouble) => return vec![Finding::error(trouble).at(address)],
    };
    let mut findings = Vec::new();
    let plaintext: Vec<&str> = seen
        .clear
        .iter()
        .map(String::as_str)
        .filter(|name| Mechanism::from_name(name.as_bytes()).is_some_and(Mechanism::is_plaintext))
        .collect();
    if !plaintext.is_empty() {
        findings.push(
            Finding::warning(format!("{} offered without TLS", plaintext.join(", ")))
                .why("Passwords cross the network readable."),
        );
    }
    match seen.tls {
        None if seen.clear.is_empty() => {
            findings
                .push(Finding::error("neither AUTH nor STARTTLS is offered").why("Nobody can log in here."));
        }
        None => {
            findings.push(Finding::warning("STARTTLS is not offered").why("Nothing sent here is encrypted."));
        }
        Some(Err(trouble)) => {
            findings.push(Finding::error(trouble).why("Mail programs that insist on TLS give up."));
        }
        Some(Ok(tls)) => {
            if tls.mechanisms.is_empty() {
                findings
                    .push(Finding::error("AUTH is not offered inside TLS").why("Nobody can log in here."));
            }
            findings.extend(tls.certificate.iter().map(|trouble| {
                Finding::note(format!("the certificate: {trouble}"))
                    .why("Mail programs ask their users whether to trust it.")
            }));
            findings.extend(tls.login.and_then(|reply| {
                match reply.get(..3) {
                    Some("235") => None,
                    Some("535") => Some(Finding::error(format!("refused: {reply}"))),
                    _ => Some(
                        Finding::error(format!("no verdict: {reply}"))
                            .why("Postfix could not ask sasld in time."),
                    ),
                }
            }));
        }
    }
    findings.into_iter().map(|finding| finding.at(address)).collect()
}
