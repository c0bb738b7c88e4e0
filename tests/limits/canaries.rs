//! Passwords and verifiers are marked, everything is logged at the finest level, and every way through the program is
//! taken, wrong ones above all. Then the marks are looked for: in the log, in what commands print, in what the control
//! socket tells, and in what `/proc` shows of the process.

use crate::site::{Daemon, SASLD, Site, auth};
use crate::support::feed;
use crate::support::peer::Peer;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// In every password that a client sends, right or wrong, and in every one that is stored.
const TYPED: &str = "c4nary-typed";
const STORED: &str = "c4nary-stored";

/// A state as CRAM-MD5 needs it, and a hash; what they are of does not matter here.
const STATE: &str = "cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56";
const HASH: &str = "$5$rounds=5000$c4narysalt$7nRS1LhoJgRN3/pk0LsL40tYiPrtLbcSfwBbX8o6VQ5";

fn users() -> String {
    format!(
        "alice:{{PLAIN}}{STORED}\nbob:{{CRAM-MD5}}{STATE}\ncarol:{HASH}\nbroken:{{NOSUCH}}{STORED}\n\
         open:{STORED}\nlong:{{PLAIN}}{}\nalso:{{CRAM-MD5}}{STATE}0\ntwice:{{PLAIN}}{STORED}\n\
         twice:{{PLAIN}}{STORED}\nclosed:{{PLAIN}}{STORED}::::::nologin\n",
        STORED.repeat(100)
    )
}

/// The marks in clear, in hexadecimal, and in base64 at each of its three alignments.
fn marks() -> Vec<String> {
    let mut marks = vec![STATE[..16].to_owned(), "c4narysalt".to_owned(), "7nRS1LhoJgRN3".to_owned()];
    for word in [TYPED, STORED] {
        marks.push(word.to_owned());
        marks.push(word.bytes().map(|byte| format!("{byte:02x}")).collect());
        for offset in 0..3 {
            let shifted = format!("{}{word}", "x".repeat(offset));
            // Without the characters that neighbours have a part in.
            marks.push(BASE64_STANDARD.encode(shifted)[4..14].to_owned());
        }
    }
    marks
}

fn assert_unmarked(what: &str, text: &str) {
    for mark in marks() {
        assert!(!text.contains(&mark), "{mark} in {what}:\n{text}");
    }
}

/// Everything that a mail server can say with a password in it.
fn say_everything(daemon: &Daemon) {
    let base64 = |text: &str| BASE64_STANDARD.encode(text);
    let users =
        ["alice", "bob", "carol", "broken", "open", "long", "twice", "closed", "nobody", "a\nb", "", "-x"];
    let mut peer = daemon.peer();
    for user in users {
        for password in [TYPED.to_owned(), STORED.to_owned(), TYPED.repeat(90), format!("{TYPED}\0{TYPED}")] {
            for authzid in ["", "alice", TYPED] {
                peer.send(&auth(1, "PLAIN", &base64(&format!("{authzid}\0{user}\0{password}"))));
                peer.line();
            }
            converse(&mut peer, "LOGIN", &[user, &password]);
            converse(&mut peer, "CRAM-MD5", &[&format!("{user} {password}")]);
            converse(&mut peer, "PLAIN", &[&format!("\0{user}\0{password}")]);
        }
    }
    // Where no password belongs, and where nobody expects one.
    for (id, mechanism) in (10..).zip(["NOPE", TYPED, "LOGIN", "CRAM-MD5"]) {
        peer.send(&auth(id, mechanism, &base64(TYPED)));
        peer.line();
    }
    let escaped = format!("\x01{}", base64(&format!("\0alice\0{TYPED}")));
    peer.send(&format!("AUTH\t2\tPLAIN\tservice=smtp\tsecured\tresp={escaped}\n"));
    peer.line();
    peer.send(&format!("AUTH\t3\tPLAIN\tservice=smtp\tresp=!{}\n", base64(TYPED)));
    peer.line();
    peer.send("AUTH\t4\tLOGIN\tservice=smtp\tsecured\n");
    peer.line();
    peer.send(&format!("CONT\t4\t!{}\n", base64(TYPED)));
    peer.line();
    peer.send(&format!("CONT\t99\t{}\nCANCEL\t99\n", base64(TYPED)));
    peer.line();
    let response = base64(&format!("\0alice\0{TYPED}"));
    for bad in [
        format!("AUTH\t0\tPLAIN\tservice=smtp\tresp={response}\n"),
        format!("AUTH\t1\tPLAIN\tresp={response}\n"),
        format!("AUTH\t1\tPLAIN\tservice=smtp\tresp={response}\tresp={response}\n"),
        format!("AUTH\t{response}\n"),
        format!("CONT\t{response}\n"),
        format!("CONT\tx\t{response}\n"),
        format!("CANCEL\t{response}\n"),
        format!("\0AUTH\t1\tPLAIN\tservice=smtp\tresp={response}\n"),
        format!("AUTH\t1\tPLAIN\tservice=smtp\tresp={}\n", response.repeat(700)),
    ] {
        let mut peer = daemon.peer();
        peer.send(&bad);
        assert!(peer.is_closed(), "{}", &bad[..40]);
    }
    // In the middle of a line, of a handshake, of an exchange.
    daemon.peer().send(&format!("AUTH\t1\tPLAIN\tservice=smtp\tresp={response}"));
    Peer::connect(daemon.socket()).send(&format!("VERSION\t1\t1\nAUTH\t1\tPLAIN\tresp={response}\n"));
    let mut peer = daemon.peer();
    peer.send("AUTH\t1\tLOGIN\tservice=smtp\tsecured\n");
    peer.send(&format!("CONT\t1\t{}\n", base64("alice")));
    peer.skip_lines(2);
    peer.send(&format!("CONT\t1\t{}", base64(TYPED)));
}

fn converse(peer: &mut Peer, mechanism: &str, responses: &[&str]) {
    peer.send(&format!("AUTH\t1\t{mechanism}\tservice=smtp\tsecured\trip=192.0.2.7\n"));
    let mut answer = peer.line();
    for response in responses {
        if answer.starts_with("CONT\t") {
            peer.send(&format!("CONT\t1\t{}\n", BASE64_STANDARD.encode(response)));
            answer = peer.line();
        }
    }
    assert!(!answer.starts_with("CONT\t"), "{answer}");
}

/// What a command prints, with a password on its standard input.
fn printed(words: &[&str], input: &str) -> String {
    let mut command = Command::new(SASLD);
    command.args(words).env("RUST_BACKTRACE", "full").env("RUST_LOG", "trace");
    let output = feed(command, input.as_bytes());
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn no_password_and_no_verifier_is_in_the_log_or_in_what_anybody_is_told() {
    let site = Site::new(&users(), "log_level: trace\nmetrics: {unix: \"{dir}/metrics\", mode: \"0600\"}\n");
    let daemon = site.start_with("", |command| {
        command.env("RUST_BACKTRACE", "full").env("RUST_LOG", "trace");
    });
    say_everything(&daemon);

    // Reloads: a good one, one with the password where a key belongs, one with a broken secrets file.
    let good = fs::read_to_string(site.config()).unwrap();
    daemon.log.forget();
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=reloaded"]);
    for mistake in [
        format!("{STORED}: 1\n"),
        format!("deadline: {STORED}\n"),
        format!("services:\n  smtp: {{password: {STORED}}}\n"),
        format!("mechanisms: [PLAIN\nalice: {STORED}\n"),
    ] {
        fs::write(site.config(), format!("{good}{mistake}")).unwrap();
        daemon.log.forget();
        daemon.signal(Signal::SIGHUP);
        daemon.log.wait_for(&["event=not_reloaded"]);
    }
    fs::write(site.config(), &good).unwrap();
    let log = daemon.log.text();
    // What stands in a configuration is not secret, and is quoted in the mistakes about it; nowhere else.
    let log: String =
        log.lines().filter(|line| !line.contains("event=not_reloaded")).collect::<Vec<_>>().join("\n");
    assert!(log.contains("event=auth result=refused why=wrong_password user=alice"), "{log}");
    assert!(log.contains("event=auth result=ok"), "{log}");
    assert!(log.contains("event=protocol_error"), "{log}");

    let (secrets, control) = (site.path("secrets"), site.path("control"));
    let (secrets, control) = (secrets.to_str().unwrap(), control.to_str().unwrap());
    let (config, socket) = (site.config(), site.socket());
    let (config, socket) = (config.to_str().unwrap(), socket.to_str().unwrap());
    let commands: [&[&str]; 17] = [
        &["check", "--config", config],
        &["status", "--socket", control],
        &["status", "--json", "--socket", control],
        &["why", "alice", "--socket", control],
        &["why", "alice", "--json", "--socket", control],
        &["test", socket, "--user", "alice", "--password-stdin"],
        &["test", socket, "--user", "bob", "--mechanism", "CRAM-MD5", "--password-stdin"],
        &["test", "/nonexistent", "--user", "alice", "--password-stdin"],
        &["user", "list", "--file", secrets],
        &["user", "list", "--json", "--file", secrets],
        &["user", "show", "alice", "--file", secrets],
        &["user", "verify", "alice", "--file", secrets, "--password-stdin"],
        &["user", "add", "dave", "--file", secrets, "--password-stdin"],
        &["user", "add", "alice", "--file", secrets, "--password-stdin"],
        &["user", "passwd", "nobody", "--file", secrets, "--password-stdin"],
        &["user", "passwd", "alice", "--file", secrets, "--scheme", "NOPE", "--password-stdin"],
        &["hash", "--scheme", "SHA512-CRYPT", "--password-stdin"],
    ];
    for words in commands {
        let text = printed(words, TYPED);
        assert!(!text.is_empty(), "{words:?}");
        assert_unmarked(&words.join(" "), &text);
    }
    // A password among the arguments is visible to everybody; at least it is not repeated.
    for words in [&["hash", TYPED][..], &["user", "add", "erin", TYPED, "--file", secrets]] {
        assert_unmarked("a refused command", &printed(words, ""));
    }

    let mut scraper = UnixStream::connect(site.path("metrics")).unwrap();
    scraper.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut metrics = String::new();
    scraper.read_to_string(&mut metrics).unwrap();
    assert!(metrics.contains("sasld_"), "{metrics}");
    assert_unmarked("the metrics", &metrics);

    for file in ["cmdline", "environ", "status", "comm"] {
        let text = fs::read(format!("/proc/{}/{file}", daemon.pid())).unwrap();
        assert_unmarked(file, &String::from_utf8_lossy(&text));
    }
    assert_unmarked("the log", &log);
}
