//! What `docs/control.md` shows of `sasld status` and `sasld why` is what they print about a daemon with a few logins.
//!
//! With `SASLD_WRITE_DOCS=1` the page is rewritten with what came out.

use super::support::peer::Peer;
use super::support::sasld::Sasld;
use super::{read, repository, sasld, text};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sasld::control::{Request, SecretsState, ask};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const PAGE: &str = "docs/control.md";

const USERS: &str = "alice:{PLAIN}wonderland\nbob:{PLAIN}builder\ncarol:wonderland\n";

/// Users, passwords and addresses, in order.
const LOGINS: [(&str, &str, &str); 9] = [
    ("alice", "wonderland", "192.0.2.7"),
    ("alice", "wonderland", "192.0.2.7"),
    ("bob", "builder", "192.0.2.7"),
    ("admin", "admin", "198.51.100.9"),
    ("test", "test", "198.51.100.9"),
    ("bob", "bob", "198.51.100.9"),
    ("bob", "123456", "198.51.100.9"),
    ("alice", "wonderland", "192.0.2.7"),
    ("alice", "wonderland", "192.0.2.7"),
];

#[test]
fn status_and_why_print_what_the_page_shows() {
    // As long as `/etc/sasld`, for columns are as wide as paths.
    let dir = tempfile::Builder::new().prefix("").rand_bytes(5).tempdir_in("/tmp").unwrap();
    let settings = "mechanisms: [PLAIN, LOGIN, CRAM-MD5]\nhash_threads: 2\n";
    let daemon = Sasld::start_for_caller(dir.path(), USERS, settings);
    let mut server = Peer::greeted(&daemon.socket());
    for (number, (user, password, address)) in LOGINS.iter().enumerate() {
        let response = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
        let options = format!("service=smtp\trip={address}\tsecured\tresp={response}");
        server.send(&format!("AUTH\t{}\tPLAIN\t{options}\n", number + 1));
        server.line();
    }
    drop(server);
    let file = dir.path().join("secrets");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let looked: SecretsState = ask(&daemon.control(), &Request::Secrets { path: file }).unwrap();
    assert!(looked.trouble.is_some());
    // The connection is gone when the daemon says so.
    let socket = daemon.control().display().to_string();
    let status = loop {
        let output = sasld(&["status", "--socket", &socket], "");
        assert_eq!(output.status.code(), Some(1));
        let status = packaged(text(&output.stdout), dir.path());
        if status.contains("\nconnections    0") {
            break status;
        }
    };
    let why = sasld(&["why", "bob", "--socket", &socket], "");
    compare(&status, "<!-- tests/docs/captures.rs runs this and compares. -->");
    compare(&packaged(text(&why.stdout), dir.path()), "<!-- tests/docs/captures.rs compares this, too. -->");
}

fn packaged(text: &str, dir: &std::path::Path) -> String {
    text.replace(&format!("{}/auth", dir.display()), "/var/spool/postfix/private/auth")
        .replace(dir.to_str().unwrap(), "/etc/sasld")
}

/// The words of an output without what differs from one run to the next: times, process ids, durations.
fn stable(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        let before = words.last().copied().unwrap_or_default();
        let is_time = word.starts_with("20") && word.contains('T') && word.contains('Z');
        let of_this_run = before == "process" || word.starts_with('(') && before == "TIME";
        words.push(if is_time {
            "TIME"
        } else if of_this_run {
            "-"
        } else {
            word
        });
        if word == "ms" {
            *words.iter_mut().nth_back(1).expect("a number before it") = "-";
        }
    }
    words
}

fn compare(shown: &str, marker: &str) {
    let page = read(&repository(PAGE));
    let after = page.split_once(marker).unwrap_or_else(|| panic!("{marker}")).1;
    let block = after.split("```").nth(1).unwrap();
    if std::env::var_os("SASLD_WRITE_DOCS").is_some() {
        let new = page.replacen(&format!("```{block}```"), &format!("```\n{}\n```", shown.trim_end()), 1);
        fs::write(repository(PAGE), new).unwrap();
        return;
    }
    assert_eq!(stable(block), stable(shown), "{PAGE} shows\n{block}\ninstead of\n{shown}");
}
