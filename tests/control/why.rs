//! `sasld why`: each way in which a login of a known name can end leaves the trail that explains it.

use super::{ALICE, Peer, RIGHT, WRONG, auth, command, directory, start};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sasld::control::{Request, Why, ask};
use std::fs;
use support::sasld::Sasld;

use super::support;

fn why(sasld: &Sasld, user: &str) -> Why {
    ask(&sasld.control(), &Request::Why { user: user.to_owned() }).unwrap()
}

/// The last attempt of a user: its result and reason, and the last step of its trail.
fn last(sasld: &Sasld, user: &str) -> (String, String, String) {
    let why = why(sasld, user);
    let attempt = why.attempts.last().unwrap_or_else(|| panic!("no attempt of {user}"));
    let step = attempt.trail.last().unwrap();
    let reason = attempt.why.clone().unwrap_or_default();
    (attempt.result.clone(), reason, format!("{}: {}", step.asked, step.said))
}

fn plain(authzid: &str, user: &str, password: &str) -> String {
    BASE64_STANDARD.encode(format!("{authzid}\0{user}\0{password}"))
}

#[test]
fn every_refusal_of_a_named_user_is_explained() {
    let dir = directory();
    let users = "alice:{PLAIN}wonder\nbob:{SSHA256}rOq+LkGnbJX1mFb4qnjKOhsYjLVAScRMenPjdWnXb6tUdcz0HxvhCaJlVhWsfbec\n\
                 carol:{PLAIN}x::::::nologin\ndave:{PLAIN}x::::::allow_nets=198.51.100.0/24\n";
    let services = "services:\n  inside: {allow_nets: [198.51.100.0/24]}\n";
    let sasld = start(&dir, users, services);
    let mut peer = Peer::greeted(&sasld.socket());
    let file = format!("secrets_file {}", dir.path().join("secrets").display());
    let long = "x".repeat(1_025);
    for (number, (user, response, reason, step)) in [
        ("alice", plain("", "alice", "wrong"), "wrong_password", format!("{file}: refused")),
        ("nobody", plain("", "nobody", "x"), "unknown_user", format!("{file}: not_found")),
        ("carol", plain("", "carol", "x"), "closed", format!("{file}: closed")),
        ("dave", plain("", "dave", "x"), "network", format!("{file}: refused")),
        ("alice", plain("", "alice", ""), "empty_password", "response: refused".to_owned()),
        ("alice", plain("", "alice", &long), "long_password", "response: refused".to_owned()),
        ("alice smith", plain("", "alice smith", "x"), "bad_name", "response: refused".to_owned()),
        ("alice", plain("bob", "alice", "wonder"), "authzid", "response: refused".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        peer.send(&auth(u32::try_from(number).unwrap() + 1, "PLAIN", &response));
        peer.line();
        let expected = ("refused".to_owned(), reason.to_owned(), step);
        assert_eq!(last(&sasld, user), expected);
    }
    // A user who is found, and a response that is judged after the passdb.
    for (id, user, reason, step) in [
        (100, "bob", "no_verifier", format!("{file}: refused")),
        (101, "alice", "wrong_password", "response: refused".to_owned()),
    ] {
        peer.send(&format!("AUTH\t{id}\tCRAM-MD5\tservice=smtp\trip=192.0.2.7\n"));
        peer.line();
        let response = BASE64_STANDARD.encode(format!("{user} {}", "0".repeat(32)));
        peer.send(&format!("CONT\t{id}\t{response}\n"));
        peer.line();
        assert_eq!(last(&sasld, user), ("refused".to_owned(), reason.to_owned(), step));
    }
    let closed = why(&sasld, "carol");
    assert!(closed.attempts[0].trail.last().unwrap().detail.contains("nologin"));
}

#[test]
fn a_success_tells_the_rules_it_met_and_where_it_came_from() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "services:\n  smtp: {allow_nets: [192.0.2.0/24]}\n");
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&auth(1, "PLAIN", RIGHT));
    peer.line();
    let why = why(&sasld, "ALICE");
    assert_eq!((why.user.as_str(), why.remembered), ("alice", 1));
    let attempt = &why.attempts[0];
    assert_eq!((attempt.result.as_str(), attempt.why.as_deref()), ("ok", None));
    assert_eq!((attempt.mechanism.as_deref(), attempt.remote.as_deref()), (Some("PLAIN"), Some("192.0.2.7")));
    assert!(attempt.tls && attempt.client_pid == 4711 && attempt.ms < 10_000.0);
    let steps: Vec<String> =
        attempt.trail.iter().map(|step| format!("{} {}, {}", step.asked, step.said, step.detail)).collect();
    let file = dir.path().join("secrets");
    assert_eq!(
        steps,
        [
            "service smtp ok, the rules of services.smtp".to_owned(),
            "mechanism ok, PLAIN".to_owned(),
            "tls ok, required, and it is there".to_owned(),
            "network ok, inside allow_nets of the service".to_owned(),
            format!("secrets_file {} yes, the password is right", file.display()),
        ]
    );
}

#[test]
fn each_passdb_of_a_chain_is_in_the_trail_and_an_outage_says_whose_it_was() {
    let dir = directory();
    let (first, second) = (dir.path().join("secrets"), dir.path().join("more"));
    let passdbs = format!(
        "passdbs:\n  - secrets_file: {}\n    continue_on_refusal: true\n  - secrets_file: {}\n",
        first.display(),
        second.display()
    );
    let sasld = start(&dir, ALICE, &passdbs);
    let mut peer = Peer::greeted_as(&sasld.socket(), "VERSION\t1\t2\nCPID\t4711\n");
    peer.send(&auth(1, "PLAIN", WRONG));
    peer.line();
    let attempt = &why(&sasld, "alice").attempts[0];
    assert_eq!(attempt.why.as_deref(), Some("passdb_unavailable"), "who is not in one may be in the other");
    let said: Vec<&str> = attempt.trail.iter().skip(4).map(|step| step.said.as_str()).collect();
    assert_eq!(said, ["refused", "out"]);
    assert!(!fs::exists(second).unwrap());
}

#[test]
fn the_command_shows_the_newest_last_and_says_so_when_there_is_nothing() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let mut peer = Peer::greeted(&sasld.socket());
    for (id, response) in [(1, WRONG), (2, RIGHT)] {
        peer.send(&auth(id, "PLAIN", response));
        peer.line();
    }
    let (exit, shown) = command(&sasld, &["why", "alice"]);
    assert_eq!(exit, 0);
    let (refused, ok) =
        (shown.find("refused (wrong_password): PLAIN from 192.0.2.7 over TLS"), shown.find(" ok: PLAIN"));
    assert!(refused.unwrap() < ok.unwrap(), "{shown}");
    assert_eq!(command(&sasld, &["why", "alice", "--last", "1"]).1.matches("PLAIN from").count(), 1);
    let (exit, shown) = command(&sasld, &["why", "bob"]);
    assert!(exit == 1 && shown.starts_with("no attempt of bob among the 2 remembered since "), "{shown}");
}

#[test]
fn no_password_is_remembered() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let mut peer = Peer::greeted(&sasld.socket());
    for (id, user) in [(1, "alice"), (2, "nobody"), (3, "alice smith")] {
        peer.send(&auth(id, "PLAIN", &plain("", user, "s3cr3t-of-mine")));
        peer.line();
        let (_, json) = command(&sasld, &["why", user, "--json"]);
        assert!(json.contains("\"result\":\"refused\""), "{json}");
        assert!(!json.contains("s3cr3t"), "{json}");
    }
    assert!(!command(&sasld, &["status", "--json"]).1.contains("s3cr3t"));
}
