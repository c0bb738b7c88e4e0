//! Logging in, when doctor was given a user: at sasld's socket by every mechanism, and at the mail server over SMTP.
//!
//! Whoever holds a socket learns every password that PLAIN and LOGIN send there. So they are used only where root, sasld,
//! Dovecot or whoever runs this made the socket listen, which the kernel tells; it tells nothing of a TCP port.

use crate::cli::doctor::facts::{Facts, SecretsFile};
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::seen::Seen;
use crate::cli::doctor::shell::quote;
use crate::cli::doctor::smtp::{self, Login};
use crate::client::{Client, Outcome};
use crate::config::Config;
use crate::credential::Password;
use crate::sasl::Mechanism;
use nix::unistd::{Uid, User};
use std::time::Duration;

/// What Postfix waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// As Postfix would ask for somebody on the internet who uses TLS.
const PARAMETERS: &str = "service=smtp\tnologin\trip=192.0.2.1\tsecured";

pub fn login(facts: &Facts) -> Vec<Finding> {
    let Some((user, password)) = &facts.login else {
        return vec![Finding::skipped("give a user with --user")];
    };
    let answers = |listener: &&(String, Seen)| matches!(listener.1, Seen::Greeted(_));
    let unix = facts.listeners.iter().filter(answers).find(|(socket, _)| socket.starts_with('/'));
    let Some((socket, _)) = unix.or_else(|| facts.listeners.iter().find(answers)) else {
        return vec![Finding::skipped("there is no socket of sasld that answers")];
    };
    let attempts = match log_in_by_each(facts, socket, user, password) {
        Ok(attempts) => attempts,
        Err(error) => return vec![Finding::error(error).at(socket)],
    };
    let somehow =
        attempts.iter().any(|(_, attempt)| matches!(attempt, Attempt::Made(Outcome::Accepted { .. })));
    let mut findings: Vec<Finding> = attempts
        .iter()
        .filter_map(|(mechanism, attempt)| match attempt {
            Attempt::Made(outcome) => judge(facts, user, *mechanism, outcome, somehow),
            Attempt::NotSafe(_) => None,
        })
        .collect();
    let withheld: Vec<&str> = attempts
        .iter()
        .filter(|(_, attempt)| matches!(attempt, Attempt::NotSafe(_)))
        .map(|(mechanism, _)| mechanism.name())
        .collect();
    let stranger = attempts.iter().find_map(|(_, attempt)| match attempt {
        Attempt::NotSafe(stranger) => Some(*stranger),
        Attempt::Made(_) => None,
    });
    let withheld = withheld.join(" and ");
    let finding = stranger.map(|uid| match uid {
        Some(uid) => Finding::error(format!("uid {uid} listens there; {withheld} would tell it the password, and were not tried"))
            .why(
                "It is neither root's nor sasld's nor Dovecot's. Whether it may be there is for you to decide; this shows \
                 who it is:",
            )
            .fix(format!("sasld probe {}", quote(socket))),
        None => Finding::skipped(format!(
            "who listens on a TCP port cannot be told, so {withheld} were not tried; `sasld test` does"
        )),
    });
    findings.extend(finding.map(|finding| finding.at(socket)));
    findings
}

/// A login by one mechanism.
enum Attempt {
    Made(Outcome),
    /// It would have told the password to this user, or to whoever it is.
    NotSafe(Option<u32>),
}

fn log_in_by_each(
    facts: &Facts,
    socket: &str,
    user: &str,
    password: &Password,
) -> Result<Vec<(Mechanism, Attempt)>, crate::client::ClientError> {
    let offered = Client::connect(socket, PATIENCE)?.mechanisms();
    let known = offered.iter().filter_map(|name| Mechanism::from_name(name.as_bytes()));
    known
        .map(|mechanism| {
            // A connection for each: one without a verdict ends with its connection.
            let mut client = Client::connect(socket, PATIENCE)?;
            let listener = client.listener().map(|listener| listener.uid);
            if mechanism.is_plaintext() && !listener.is_some_and(|uid| is_trusted(facts, uid)) {
                return Ok((mechanism, Attempt::NotSafe(listener)));
            }
            Ok((mechanism, Attempt::Made(client.log_in(mechanism, PARAMETERS, user, password)?)))
        })
        .collect()
}

/// Whether whoever this is may hear passwords.
fn is_trusted(facts: &Facts, uid: u32) -> bool {
    let dovecot = User::from_name("dovecot").ok().flatten();
    let accounts = facts.service_account().into_iter().chain(dovecot).map(|account| account.uid.as_raw());
    [0, Uid::effective().as_raw()].into_iter().chain(accounts).any(|trusted| trusted == uid)
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
    match outcome {
        Outcome::Accepted { .. } => None,
        Outcome::Refused { temporary: false, .. } if somehow => Some(
            Finding::warning(format!("{name} can log in, but not by {mechanism}"))
                .why("Nothing is stored for this user that serves it, or it is of an older password.")
                .fix(stored_anew(facts, user, "passwd --scheme ARGON2ID --scheme CRAM-MD5")),
        ),
        Outcome::Refused { temporary: false, .. } => Some(
            Finding::error(format!("{mechanism}: {name} is refused"))
                .why(
                    "A wrong password, an unknown user, or one who is closed: sasld's log says which (why=).",
                )
                .fix(stored_anew(facts, user, "passwd")),
        ),
        Outcome::Refused { temporary: true, .. } | Outcome::Closed => Some(
            Finding::error(format!("{mechanism}: the password of {name} could not be checked"))
                .why("A passdb is out of order. The other probes say what they found; this shows which one it is:")
                .fix(facts.sasld(&format!("why {}", quote(user)))),
        ),
    }
}

/// The command that gives a user a new password where he has one, or makes him a user.
fn stored_anew(facts: &Facts, user: &str, passwd: &str) -> String {
    let canonical =
        |config: &Config| Some(config.usernames.canonical(user.as_bytes()).ok()?.as_str().to_owned());
    let name = facts.config.as_ref().ok().and_then(canonical).unwrap_or_else(|| user.to_owned());
    let has = |file: &&SecretsFile| file.loaded.as_ref().is_ok_and(|secrets| secrets.lookup(&name).is_some());
    match (facts.secrets.iter().find(has), facts.secrets.first()) {
        (Some(file), _) => facts.sasld_user(passwd, &name, &file.path),
        (None, _) if facts.pam().is_some() && User::from_name(&name).is_ok_and(|found| found.is_some()) => {
            format!("passwd {}", quote(&name))
        }
        (None, Some(file)) => facts.sasld_user("add", &name, &file.path),
        (None, None) => format!("adduser {}", quote(&name)),
    }
}

/// Of an address nobody can tell whether it is this machine's.
const THERE: &str = "On that machine, this says what is set how:";

pub fn smtp(facts: &Facts) -> Vec<Finding> {
    let Some(address) = &facts.smtp else {
        return vec![Finding::skipped("give a mail server with --smtp")];
    };
    let seen = match smtp::look(address, facts.login.as_ref()) {
        Ok(seen) => seen,
        Err(trouble) => {
            return vec![
                Finding::error(trouble)
                    .at(address)
                    .why(format!("Mail programs come no further either. {THERE}"))
                    .fix("sasld doctor"),
            ];
        }
    };
    let why = facts.login.as_ref().map_or(String::new(), |(user, _)| format!("why {}", quote(user)));
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
                .why(format!("Passwords cross the network readable. {THERE}"))
                .fix("sasld doctor"),
        );
    }
    match seen.tls {
        None if seen.clear.is_empty() => {
            findings.push(
                Finding::error("neither AUTH nor STARTTLS is offered")
                    .why(format!("Nobody can log in here. {THERE}"))
                    .fix("sasld doctor"),
            );
        }
        None => {
            findings.push(
                Finding::warning("STARTTLS is not offered")
                    .why(format!("Nothing sent here is encrypted. {THERE}"))
                    .fix("sasld doctor"),
            );
        }
        Some(Err(trouble)) => {
            findings.push(
                Finding::error(trouble)
                    .why(format!("Mail programs that insist on TLS give up. {THERE}"))
                    .fix("sasld doctor"),
            );
        }
        Some(Ok(tls)) => {
            if tls.mechanisms.is_empty() {
                findings.push(
                    Finding::error("AUTH is not offered inside TLS")
                        .why(format!("Nobody can log in here. {THERE}"))
                        .fix("sasld doctor"),
                );
            }
            findings.extend(tls.certificate.iter().map(|trouble| {
                Finding::note(format!("the certificate: {trouble}"))
                    .why("Mail programs ask their users whether to trust it.")
            }));
            findings.extend(tls.login.and_then(|login| match login {
                Login::Withheld(trouble) => Some(
                    Finding::warning(format!("the password was not sent: {trouble}"))
                        .why("Whoever answers there without a certificate for this name may be anybody. Mail programs ask their users."),
                ),
                Login::Made(reply) if reply.starts_with("235") => None,
                Login::Made(reply) if reply.starts_with("535") => Some(
                    Finding::error(format!("refused: {reply}")).why(
                        "A wrong password, an unknown user, one who is closed, or another server's users: where sasld runs, \
                         this says which.",
                    ).fix(facts.sasld(&why)),
                ),
                Login::Made(reply) if reply.starts_with("454") || reply.starts_with("421") => Some(
                    Finding::error(format!("no verdict: {reply}"))
                        .why(format!("Postfix had no answer of sasld. {THERE}"))
                        .fix("sasld doctor"),
                ),
                Login::Made(reply) => Some(
                    Finding::error(reply)
                        .why(format!("The mail server says so, before sasld has a word in it. {THERE}"))
                        .fix("sasld doctor"),
                ),
            }));
        }
    }
    findings.into_iter().map(|finding| finding.at(address)).collect()
}
