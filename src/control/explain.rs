//! An attempt that is over → the steps that led to its verdict, in the order in which they were taken.
//!
//! Rules come first (service, mechanism, TLS, network), then what the user's response was if it never got to a passdb,
//! then the passdbs, and what happened after them. Pure: everything is in what was remembered.

use super::reply::TrailStep;
use crate::passdb::trail::{Passed, Said};
use crate::sasl::{Mechanism, Outage, Refusal};
use crate::session::Verdict;
use crate::tally::Remembered;
use crate::wire::Secured;

/// The steps.
pub(super) fn trail(remembered: &Remembered) -> Vec<TrailStep> {
    let verdict = remembered.attempt.verdict;
    let mut steps = vec![service(remembered)];
    let Some(mechanism) = remembered.attempt.mechanism else {
        steps.push(step("mechanism", "refused", "not on offer here, see mechanisms and services"));
        return steps;
    };
    steps.push(step("mechanism", "ok", mechanism.name()));
    steps.push(tls(remembered, mechanism));
    match verdict {
        Verdict::Rejected("needs_tls") => return steps,
        Verdict::Rejected("base64") => {
            steps.push(step("response", "refused", "it is not base64"));
            return steps;
        }
        _ => {}
    }
    let asked: Option<Vec<_>> = remembered.trail.as_ref().map(|trail| trail.iter().collect());
    match (&asked, verdict) {
        (None, Verdict::Outage(Outage::QueueFull)) => {
            steps.push(step("exchanges", "out", "too many wait on this connection, see limits"));
            return steps;
        }
        (None, Verdict::Refused(Refusal::Network)) => {
            steps.push(step("network", "refused", "outside allow_nets of the service"));
            return steps;
        }
        _ => {}
    }
    let network = if remembered.rules.allow_nets { "inside allow_nets of the service" } else { "any may" };
    steps.push(step("network", "ok", network));
    let Some(asked) = asked else {
        if let (_, Some(why)) = verdict.words() {
            steps.push(step("response", "refused", response(why)));
        }
        return steps;
    };
    let verifier = asked.iter().any(|(_, said)| *said == Said::Verifier);
    steps.extend(asked.iter().map(|(passdb, said)| passdb_step(passdb, *said)));
    match verdict {
        Verdict::Accepted if verifier => steps.push(step("response", "yes", "it is right for the verifier")),
        Verdict::Refused(Refusal::WrongPassword) if verifier => {
            steps.push(step("response", "refused", "it is not right for the verifier"));
        }
        Verdict::Rejected(why) => steps.push(step("response", "refused", response(why))),
        Verdict::Outage(Outage::Deadline) => steps.push(step("deadline", "out", "it passed")),
        Verdict::Abandoned => {
            steps.push(step("mail server", "left", "it closed the connection or cancelled"));
        }
        Verdict::Accepted | Verdict::Refused(_) | Verdict::Outage(_) => {}
    }
    steps
}

fn service(remembered: &Remembered) -> TrailStep {
    let name = text(&remembered.attempt.origin.service);
    let rules = if remembered.rules.section {
        format!("the rules of services.{name}")
    } else {
        "the rules of the top level".to_owned()
    };
    step(&format!("service {name}"), "ok", &rules)
}

fn tls(remembered: &Remembered, mechanism: Mechanism) -> TrailStep {
    let secured = remembered.attempt.origin.secured == Secured::Yes;
    let (said, detail) = match (mechanism.is_plaintext(), remembered.rules.require_tls, secured) {
        (false, ..) => ("ok", "not required, the password is not sent"),
        (true, false, _) => ("ok", "not required"),
        (true, true, true) => ("ok", "required, and it is there"),
        (true, true, false) if remembered.attempt.verdict == Verdict::Rejected("needs_tls") => {
            ("refused", "required, and the mail server did not say that it is there")
        }
        (true, true, false) => ("ok", "required, and this machine itself needs none"),
    };
    step("tls", said, detail)
}

fn passdb_step(passdb: &str, said: Said) -> TrailStep {
    match said {
        Said::Nothing => step(passdb, "no_answer", "it had not answered by then"),
        Said::Yes => step(passdb, "yes", "the password is right"),
        Said::Verifier => step(passdb, "verifier", "it has a verifier for this mechanism"),
        Said::NotFound => step(passdb, "not_found", "it does not have this user"),
        Said::Refused(refusal) => step(passdb, "refused", refused(refusal)),
        Said::Closed(closed) => {
            step(passdb, "closed", &format!("nobody can log in with the entry: {closed}"))
        }
        Said::Passed(Passed::Mechanism) => step(passdb, "passed", "it cannot serve this mechanism"),
        Said::Passed(Passed::Password) => step(passdb, "passed", "no password there looks like this one"),
        Said::Passed(Passed::Rail(rail)) => {
            step(passdb, "passed", &format!("the guard rail {} keeps this user from it", rail.word()))
        }
        Said::Out(outage) => step(passdb, "out", out(outage)),
    }
}

/// What a passdb means by it.
fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::WrongPassword => "the password is wrong",
        Refusal::NoVerifier => "the user has no verifier for this mechanism",
        Refusal::Network => "the address is outside the user's allow_nets",
        Refusal::PasswordExpired => "the password has expired",
        Refusal::AccountExpired => "the account has expired",
        Refusal::Denied => "a rule of the PAM stack keeps the user out",
        Refusal::NotAsked => "the PAM stack says yes without asking for the password",
        Refusal::AskedMore => "a PAM module asked for more than the password",
        Refusal::UserChanged => "the PAM stack changed the user's name",
        other => response(other.why()),
    }
}

/// What was wrong with a response that no passdb judged, by its word in the log.
fn response(why: &'static str) -> &'static str {
    match why {
        "empty_password" => "the password is empty",
        "long_password" => "the password has more than 1,024 bytes",
        "bad_name" => "the name has a character that usernames does not allow, or too many",
        "authzid" => "it asks to act as somebody else",
        "malformed" => "it is not one of this mechanism",
        "initial_response" => "it came before the challenge",
        "unexpected_response" => "there was more of it than anybody asked for",
        other => other,
    }
}

fn out(outage: Outage) -> &'static str {
    match outage {
        Outage::Passdb => "it does not work, see its trouble in the status",
        Outage::QueueFull => "too many passwords wait for it",
        Outage::Deadline => "it did not answer before the deadline",
        Outage::Internal => "a fault in sasld, see event=panic in the log",
    }
}

fn step(asked: &str, said: &str, detail: &str) -> TrailStep {
    TrailStep { asked: asked.to_owned(), said: said.to_owned(), detail: detail.to_owned() }
}

/// What a stranger calls something, fit for a terminal.
pub(super) fn text(bytes: &[u8]) -> String {
    crate::secrets::escape(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passdb::Trail;
    use crate::sasl::{Claimed, NameRules};
    use crate::secrets::Closed;
    use crate::session::{Attempt, Moment, Origin};
    use crate::tally::Rules;
    use core::time::Duration;
    use std::sync::Arc;

    fn attempt(verdict: Verdict, mechanism: Option<Mechanism>, said: Option<&[Said]>) -> Remembered {
        let names = ["secrets_file /etc/sasld/secrets".into(), "pam sasld".into()];
        let trail = said.map(|said| {
            let trail = Trail::new(Arc::new(names));
            said.iter().enumerate().for_each(|(place, said)| trail.note(place, *said));
            trail.steps()
        });
        let origin = Origin {
            service: Arc::from(&b"smtp"[..]),
            remote: Some([192, 0, 2, 7].into()),
            secured: Secured::No,
        };
        let alice = Claimed::Name(NameRules::default().canonical(b"alice").unwrap());
        let (client_pid, elapsed) = (7, Duration::from_millis(1));
        let attempt =
            Attempt { ticket: None, verdict, claimed: alice, mechanism, origin, client_pid, elapsed };
        let rules = Rules { section: false, require_tls: true, allow_nets: false };
        Remembered { at: Moment(Duration::ZERO), attempt, rules, trail }
    }

    fn told(verdict: Verdict, mechanism: Option<Mechanism>, said: Option<&[Said]>) -> Vec<String> {
        let steps = trail(&attempt(verdict, mechanism, said));
        steps.iter().skip(1).map(|step| format!("{}: {}", step.asked, step.said)).collect()
    }

    #[test]
    fn what_stopped_an_attempt_is_its_last_step() {
        let cram = Some(Mechanism::CramMd5);
        for (verdict, mechanism, last) in [
            (Verdict::Rejected("mechanism"), None, "mechanism: refused"),
            (Verdict::Rejected("needs_tls"), Some(Mechanism::Plain), "tls: refused"),
            (Verdict::Rejected("base64"), cram, "response: refused"),
            (Verdict::Outage(Outage::QueueFull), cram, "exchanges: out"),
            (Verdict::Refused(Refusal::Network), cram, "network: refused"),
            (Verdict::Refused(Refusal::Malformed), cram, "response: refused"),
        ] {
            let steps = told(verdict, mechanism, None);
            assert_eq!(steps.last().map(String::as_str), Some(last), "{verdict:?}");
            assert_eq!(steps.iter().filter(|step| !step.ends_with(": ok")).count(), 1, "{steps:?}");
        }
    }

    #[test]
    fn every_reason_is_a_sentence_and_not_only_the_word_of_the_log() {
        let by_a_passdb = [
            Refusal::WrongPassword,
            Refusal::NoVerifier,
            Refusal::Network,
            Refusal::PasswordExpired,
            Refusal::AccountExpired,
            Refusal::Denied,
            Refusal::NotAsked,
            Refusal::AskedMore,
            Refusal::UserChanged,
        ];
        let name = NameRules::default().canonical(b"a b").unwrap_err();
        let by_the_response = [
            Refusal::EmptyPassword,
            Refusal::LongPassword,
            Refusal::Name(name),
            Refusal::Authzid,
            Refusal::Malformed,
            Refusal::InitialResponse,
        ];
        let sentences =
            by_a_passdb.map(refused).into_iter().chain(by_the_response.map(|no| response(no.why())));
        for sentence in sentences {
            assert!(sentence.contains(' '), "{sentence}");
        }
    }

    #[test]
    fn the_passdbs_follow_the_rules_and_the_response_follows_a_verifier() {
        let rules = ["mechanism: ok", "tls: ok", "network: ok"];
        let wrong = Verdict::Refused(Refusal::WrongPassword);
        let (secrets, pam, response) = ("secrets_file /etc/sasld/secrets", "pam sasld", "response");
        type Case<'a> = (Verdict, &'a [Said], &'a [(&'a str, &'a str)]);
        let cases: [Case<'_>; 6] = [
            (Verdict::Accepted, &[Said::Verifier], &[(secrets, "verifier"), (response, "yes")]),
            (wrong, &[Said::Verifier], &[(secrets, "verifier"), (response, "refused")]),
            (
                wrong,
                &[Said::NotFound, Said::Refused(Refusal::WrongPassword)],
                &[(secrets, "not_found"), (pam, "refused")],
            ),
            (Verdict::Refused(Refusal::Closed), &[Said::Closed(Closed::Nologin)], &[(secrets, "closed")]),
            (
                Verdict::Outage(Outage::Deadline),
                &[Said::NotFound, Said::Nothing],
                &[(secrets, "not_found"), (pam, "no_answer"), ("deadline", "out")],
            ),
            (Verdict::Abandoned, &[Said::Nothing], &[(secrets, "no_answer"), ("mail server", "left")]),
        ];
        for (verdict, said, expected) in cases {
            let expected: Vec<String> = rules
                .iter()
                .map(|rule| (*rule).to_owned())
                .chain(expected.iter().map(|(asked, said)| format!("{asked}: {said}")))
                .collect();
            assert_eq!(told(verdict, Some(Mechanism::CramMd5), Some(said)), expected, "{verdict:?}");
        }
    }
}
