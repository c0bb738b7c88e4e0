//! The filter for fail2ban on sasld's own log: who is counted in which mode, and that nobody else is.

use super::support::peer::{Peer, auth_from};
use super::support::sasld::Sasld;
use super::support::skip::not_tested;
use super::world::{output, repository};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const GUESSES: &str = "wrong_password unknown_user no_verifier closed long_password bad_name authzid denied";
const NOISE: &str = "malformed initial_response base64 unexpected_response mechanism needs_tls network";
/// Who was right and too late, who sent nothing, a stack with mistakes, and what is nobody's fault.
const NOT_COUNTED: &str = "empty_password password_expired account_expired pam_not_asked pam_asked_more pam_user_changed \
    passdb_unavailable deadline queue_full internal_error";

const USERS: &str = "alice:{PLAIN}wonder\nbob:{SSHA256}rOq+LkGnbJX1mFb4qnjKOhsYjLVAScRMenPjdWnXb6tUdcz0HxvhCaJlVhWsfbec\n\
    carol:{PLAIN}x::::::nologin\ndave:{PLAIN}x::::::allow_nets=198.51.100.0/24\n";

/// Whose address the filter finds in a log, as often as it finds it. `None` where there is no fail2ban, said aloud.
pub fn found(log: &Path, mode: &str) -> Option<Vec<String>> {
    if Command::new("fail2ban-regex").arg("--version").stdout(Stdio::null()).status().is_err() {
        not_tested("the filter needs fail2ban (packaging/dev/need package)");
        return None;
    }
    let filter = format!("{}[mode={mode}]", repository("packaging/fail2ban/filter.conf").display());
    let said = output(Command::new("fail2ban-regex").args(["--out", "ip"]).arg(log).arg(filter));
    let mut found: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
    found.sort();
    Some(found)
}

/// What a daemon logs about one login for each reason that needs no PAM and no trouble, each from an address of its own.
fn real_lines() -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let sasld = Sasld::start_for_caller(dir.path(), USERS, "");
    let mut peer = Peer::greeted(&sasld.socket());
    let long = "x".repeat(1_025);
    for (number, (why, mechanism, response)) in [
        ("wrong_password", "PLAIN", "\0alice\0wrong"),
        ("unknown_user", "PLAIN", "\0nobody\0x"),
        ("closed", "PLAIN", "\0carol\0x"),
        ("network", "PLAIN", "\0dave\0x"),
        ("empty_password", "PLAIN", "\0alice\0"),
        ("long_password", "PLAIN", &format!("\0alice\0{long}")),
        // Names that would like to be addresses.
        ("bad_name", "PLAIN", "\0x rip=203.0.113.66 tls=yes\0x"),
        ("bad_name", "PLAIN", "\0x\" rip=203.0.113.66 tls=yes y=\"\0x"),
        ("authzid", "PLAIN", "bob\0alice\0wonder"),
        ("malformed", "PLAIN", "alice"),
        ("initial_response", "CRAM-MD5", "alice"),
        ("base64", "PLAIN", "alice"),
        ("mechanism", "XOAUTH2", "alice"),
        ("needs_tls", "PLAIN", "\0alice\0wonder"),
        ("no_verifier", "CRAM-MD5", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let (id, address) = (u32::try_from(number).unwrap() + 1, format!("192.0.2.{}", number + 1));
        let request = auth_from(&address, id, mechanism, &BASE64_STANDARD.encode(response));
        match why {
            "base64" => peer.send(&auth_from(&address, id, mechanism, "!")),
            "needs_tls" => peer.send(&request.replace("\tsecured", "")),
            "no_verifier" => {
                peer.send(&request);
                peer.line();
                let response = BASE64_STANDARD.encode(format!("bob {}", "0".repeat(32)));
                peer.send(&format!("CONT\t{id}\t{response}\n"));
            }
            _ => peer.send(&request),
        }
        peer.line();
        sasld.log.wait_for(&[&format!(" result=refused why={why} "), &format!(" rip={address} ")]);
    }
    sasld.log.text().lines().filter(|line| line.contains("event=auth")).map(str::to_owned).collect()
}

/// The word behind `key=` in a line.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    line.split(&format!(" {key}=")).last().and_then(|rest| rest.split(' ').next()).unwrap()
}

#[test]
fn each_reason_counts_in_the_modes_that_say_so_and_for_the_address_it_came_from() {
    let listed = |words: &str| -> BTreeSet<String> { words.split_whitespace().map(str::to_owned).collect() };
    let (guesses, noise) = (listed(GUESSES), listed(NOISE));
    let all: BTreeSet<String> =
        [&guesses, &noise, &listed(NOT_COUNTED)].into_iter().flatten().cloned().collect();
    let page = fs::read_to_string(repository("docs/log.md")).unwrap();
    let word =
        |rest: &str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned();
    assert_eq!(
        page.split("why=").skip(1).map(word).filter(|word| !word.is_empty()).collect::<BTreeSet<_>>(),
        all
    );

    let mut lines = real_lines();
    // The others look the same but for the word.
    let seen: BTreeSet<String> = lines.iter().map(|line| value(line, "why").to_owned()).collect();
    let model = lines[0].clone();
    for (number, why) in all.difference(&seen).enumerate() {
        let outage =
            ["passdb_unavailable", "deadline", "queue_full", "internal_error"].contains(&why.as_str());
        let result = if outage { "outage" } else { "refused" };
        let address = format!("198.51.100.{}", number + 1);
        let line = model.replace("result=refused why=wrong_password", &format!("result={result} why={why}"));
        lines.push(line.replace("rip=192.0.2.1 ", &format!("rip={address} ")));
    }
    let expected = |words: &[&BTreeSet<String>]| {
        let counted = |line: &&String| words.iter().any(|words| words.contains(value(line, "why")));
        let mut expected: Vec<String> =
            lines.iter().filter(counted).map(|line| value(line, "rip").to_owned()).collect();
        expected.sort();
        expected
    };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    // Written by itself, and by syslog in both of its forms.
    for head in ["", "Nov 22 18:51:57 vm sasld[12]: ", "2026-11-22T18:51:57.219326+00:00 vm sasld[12]: "] {
        let text: String = lines.iter().map(|line| format!("{head}{line}\n")).collect();
        fs::write(&log, &text).unwrap();
        for (mode, words) in
            [("normal", &[&guesses][..]), ("aggressive", &[&guesses, &noise]), ("postfix", &[])]
        {
            let Some(found) = found(&log, mode) else { return };
            assert_eq!(found, expected(words), "{mode}:\n{text}");
        }
    }
}

/// Postfix repeats what it does not understand, up to a hundred bytes of it.
#[test]
fn what_a_client_says_to_postfix_shuts_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("mail.log");
    let head = "Nov 22 18:50:30 vm postfix/smtpd[146]: warning: ";
    let text: String = [
        "unknown[192.0.2.1]: SASL PLAIN authentication failed: Invalid user name or password, sasl_username=alice",
        "unknown[192.0.2.2]: SASL PLAIN authentication failed: Connection lost to authentication server, sasl_username=(unavailable)",
        "non-SMTP command from x[192.0.2.3]: :postfix/a[1]: warning: x[203.0.113.66]: SASL P authentication failed: Invalid user name or password",
        "non-SMTP command from x[192.0.2.3]: :time= level=info event=auth result=refused why=denied rip=203.0.113.66 tls=",
        "non-SMTP command from x[192.0.2.3]: :sasld[1]: time= level=info event=auth result=refused why=denied rip=203.0.113.66 tls=",
    ]
    .map(|line| format!("{head}{line}\n"))
    .concat();
    fs::write(&log, text).unwrap();
    for (mode, expected) in [("normal", &[][..]), ("aggressive", &[]), ("postfix", &["192.0.2.1"])] {
        let Some(found) = found(&log, mode) else { return };
        assert_eq!(found, expected, "{mode}");
    }
}
