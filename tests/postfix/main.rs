//! A real Postfix, and real mail clients behind it, log in through the built `sasld`.
//!
//! Each test has a [`Site`] of its own: a private directory with sasld, its files and its socket, and a private
//! Postfix on ports of 127.0.0.1 that asks this socket. They run beside each other and leave nothing behind. Needs
//! root, for Postfix does; where a site cannot be had the test fails, or with `SASLD_ALLOW_SKIP=1` says so and passes.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

mod life;
mod postfix;
mod smtp;

use postfix::Postfix;
use smtp::{Session, swaks};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use support::sasld::Sasld;
use tempfile::TempDir;

const MECHANISMS: [&str; 3] = ["PLAIN", "LOGIN", "CRAM-MD5"];
const REFUSED: &str = "Error: authentication failed: Invalid user name or password";

/// Postfix, the sasld it asks, and the directory both live in. Ends in this order.
struct Site {
    postfix: Postfix,
    sasld: Sasld,
    dir: TempDir,
}

impl Site {
    /// With the user `alice`, password `secret`, and these lines added to the configuration.
    fn start(settings: &str) -> Option<Self> {
        Self::with_secrets("alice:{PLAIN}secret\n", settings)
    }

    fn with_secrets(secrets: &str, settings: &str) -> Option<Self> {
        let dir = private_directory()?;
        let sasld = Sasld::start(dir.path(), secrets, settings);
        let postfix = Postfix::start(dir.path(), sasld.socket().to_str().unwrap());
        Some(Self { postfix, sasld, dir })
    }

    /// An SMTP session without TLS, greeted.
    fn connect(&self) -> Session {
        Session::connect(self.postfix.smtp)
    }

    fn secrets(&self) -> PathBuf {
        self.dir.path().join("secrets")
    }
}

/// A directory that Postfix's daemons can walk into, unless this machine cannot have a site.
fn private_directory() -> Option<TempDir> {
    if let Err(reason) = postfix::available() {
        support::skip::not_tested(&format!("cannot test with Postfix: {reason}"));
        return None;
    }
    let dir = tempfile::Builder::new().prefix("sasld-postfix-").tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    Some(dir)
}

#[test]
fn what_postfix_offers_follows_its_own_options_and_tls() {
    let Some(site) = Site::start("") else { return };
    assert_eq!(site.connect().offered(), MECHANISMS);
    assert_eq!(Session::connect(site.postfix.submission).offered(), ["CRAM-MD5"]);
    let tls = swaks(site.postfix.submission, &["--tls", "--quit-after", "EHLO"]);
    assert!(tls.contains("<~  250-AUTH PLAIN LOGIN CRAM-MD5\n"), "{tls}");
}

#[test]
fn each_mechanism_lets_a_message_through() {
    let Some(site) = Site::start("") else { return };
    for mechanism in MECHANISMS {
        for (port, tls) in [(site.postfix.smtp, "no"), (site.postfix.submission, "yes")] {
            let mut arguments =
                vec!["--auth", mechanism, "--auth-user", "alice", "--auth-password", "secret"];
            arguments.extend(["--from", "alice@sasld.test", "--to", "bob@example.com"]);
            if tls == "yes" {
                arguments.push("--tls");
            }
            let dialog = swaks(port, &arguments);
            assert!(dialog.contains(" 235 2.7.0 Authentication successful\n"), "{dialog}");
            assert!(dialog.contains(" 250 2.0.0 Ok: queued as "), "{dialog}");
            let (mech, tls) = (format!("mech={mechanism} "), format!("tls={tls} "));
            site.sasld.log.wait_for(&["event=auth result=ok user=alice", &mech, &tls, "rip=127.0.0.1"]);
        }
        site.postfix.log.wait_for(&[&format!("sasl_method={mechanism}, sasl_username=alice")]);
    }
}

#[test]
fn a_wrong_password_is_535_in_our_words_and_names_the_user_in_postfix_log() {
    let Some(site) = Site::start("") else { return };
    let mut session = site.connect();
    for mechanism in MECHANISMS {
        let reply = session.log_in(mechanism, "alice", "wrong");
        assert_eq!((reply.code, reply.text.as_str()), (535, format!("5.7.8 {REFUSED}").as_str()));
        let failed = format!(
            "SASL {mechanism} authentication failed: Invalid user name or password, sasl_username=alice"
        );
        site.postfix.log.wait_for(&[&failed]);
        let mech = format!("mech={mechanism} ");
        site.sasld.log.wait_for(&["event=auth result=refused why=wrong_password user=alice", &mech]);
    }
    let unknown = session.log_in("PLAIN", "nobody", "secret");
    assert_eq!((unknown.code, unknown.text.as_str()), (535, format!("5.7.8 {REFUSED}").as_str()));
    assert_eq!(session.log_in("PLAIN", "alice", "secret").code, 235);
}

#[test]
fn without_tls_plain_and_login_are_refused_with_advice_and_cram_md5_is_not() {
    let Some(site) = Site::start("") else { return };
    let mut session = site.connect();
    session.come_from(Ipv4Addr::new(192, 0, 2, 7)); // a loopback address would count as secured
    for mechanism in ["PLAIN", "LOGIN"] {
        let reply = session.log_in(mechanism, "alice", "secret");
        assert_eq!(reply.code, 535);
        assert!(reply.text.ends_with("switch on STARTTLS or SSL/TLS"), "{}", reply.text);
        site.sasld.log.wait_for(&["why=needs_tls", &format!("mech={mechanism} "), "rip=192.0.2.7"]);
    }
    assert_eq!(session.log_in("CRAM-MD5", "alice", "secret").code, 235);
}

#[test]
fn without_require_tls_plain_is_taken_in_the_clear() {
    let Some(site) = Site::start("require_tls: false\n") else { return };
    let mut session = site.connect();
    session.come_from(Ipv4Addr::new(192, 0, 2, 7));
    assert_eq!(session.log_in("PLAIN", "alice", "secret").code, 235);
}

#[test]
fn a_secrets_file_that_was_never_there_is_454_and_works_once_it_is() {
    let Some(mut site) = Site::start("") else { return };
    let parked = site.dir.path().join("parked");
    fs::rename(site.secrets(), &parked).unwrap();
    site.sasld.stop();
    site.sasld.start_again();
    let mut session = site.connect();
    for mechanism in MECHANISMS {
        assert_eq!(session.log_in(mechanism, "alice", "secret").code, 454, "{mechanism}");
    }
    site.sasld.log.wait_for(&["event=auth result=outage why=passdb_unavailable", "mech=PLAIN "]);
    fs::rename(&parked, site.secrets()).unwrap();
    site.sasld.log.wait_for(&["event=secrets_loaded"]);
    assert_eq!(session.log_in("PLAIN", "alice", "secret").code, 235);
}

#[test]
fn a_running_smtpd_says_454_while_sasld_is_stopped_and_235_after_it_is_back() {
    let Some(mut site) = Site::start("") else { return };
    let (mut before, mut during, mut after) = (site.connect(), site.connect(), site.connect());
    for session in [&mut before, &mut during, &mut after] {
        assert_eq!(session.offered(), MECHANISMS); // their smtpd processes are connected to sasld now
    }
    assert_eq!(before.log_in("PLAIN", "alice", "secret").code, 235);
    site.sasld.stop();
    assert_eq!(during.log_in("PLAIN", "alice", "secret").code, 454);
    assert_eq!(during.log_in("CRAM-MD5", "alice", "wrong").code, 454);
    site.sasld.start_again();
    assert_eq!(during.log_in("LOGIN", "alice", "secret").code, 235);
    assert_eq!(after.log_in("PLAIN", "alice", "secret").code, 235);
}

#[test]
fn the_next_login_after_sasld_was_killed_and_restarted_succeeds() {
    let Some(mut site) = Site::start("") else { return };
    for mechanism in MECHANISMS {
        let mut session = site.connect();
        assert_eq!(session.offered(), MECHANISMS);
        site.sasld.kill(); // its socket file stays behind
        site.sasld.start_again();
        assert_eq!(session.log_in(mechanism, "alice", "secret").code, 235, "{mechanism}");
    }
}

#[test]
fn a_login_under_way_when_sasld_dies_is_454() {
    let Some(mut site) = Site::start("") else { return };
    let mut session = site.connect();
    assert_eq!(session.command("AUTH LOGIN").code, 334);
    site.sasld.kill();
    assert_eq!(session.command("YWxpY2U=").code, 454);
}

#[test]
fn fifty_sessions_at_once_each_get_their_own_verdict() {
    const SESSIONS: usize = 50;
    let users: String = (0..SESSIONS).map(|n| format!("user{n}:{{PLAIN}}secret{n}\n")).collect();
    let Some(site) = Site::with_secrets(&users, "") else { return };
    let sessions: Vec<Session> = (0..SESSIONS).map(|_| site.connect()).collect();
    std::thread::scope(|scope| {
        for (n, mut session) in sessions.into_iter().enumerate() {
            let site = &site;
            scope.spawn(move || {
                let (user, password) = (format!("user{n}"), format!("secret{n}"));
                let neighbours = format!("secret{}", (n + 1) % SESSIONS);
                let mechanism = MECHANISMS[n % MECHANISMS.len()];
                assert_eq!(session.log_in(mechanism, &user, &neighbours).code, 535);
                assert_eq!(session.log_in(mechanism, &user, &password).code, 235);
                let failed = format!("SASL {mechanism} authentication failed: ");
                site.postfix.log.wait_for(&[&failed, &format!("sasl_username={user}")]);
                site.sasld.log.wait_for(&[&format!("result=ok user={user} ")]);
            });
        }
    });
}

#[test]
fn taking_the_secrets_file_away_under_load_hurts_nobody() {
    const CLIENTS: usize = 6;
    let Some(site) = Site::start("") else { return };
    let enough = AtomicBool::new(false);
    let (codes, logins) = mpsc::channel();
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (site, enough, codes) = (&site, &enough, codes.clone());
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    let reply = site.connect().log_in(MECHANISMS[n % MECHANISMS.len()], "alice", "secret");
                    codes.send(reply.code).unwrap();
                }
            });
        }
        let taken_away = scope.spawn(|| {
            let mut secrets = fs::read_to_string(site.secrets()).unwrap();
            let replacement = site.dir.path().join("replacement");
            for users in 2..5 {
                site.sasld.log.forget();
                fs::remove_file(site.secrets()).unwrap();
                site.sasld.log.wait_for(&["event=secrets_not_loaded"]);
                secrets += &format!("user{users}:{{PLAIN}}secret\n");
                fs::write(&replacement, &secrets).unwrap();
                fs::set_permissions(&replacement, PermissionsExt::from_mode(0o600)).unwrap();
                fs::rename(&replacement, site.secrets()).unwrap();
                site.sasld.log.wait_for(&["event=secrets_loaded", &format!("users={users}")]);
            }
        });
        // Joined by hand, so that the clients end when a wait fails.
        let taken_away = taken_away.join();
        enough.store(true, Ordering::Relaxed);
        taken_away.unwrap();
    });
    drop(codes);
    let codes: Vec<u16> = logins.iter().collect();
    assert!(codes.len() >= 10 * CLIENTS, "hardly a load: {} logins", codes.len());
    assert!(codes.iter().all(|code| *code == 235), "{codes:?}");
}

#[test]
fn aborting_again_and_again_leaves_the_session_able_to_log_in() {
    let Some(site) = Site::start("limits: {exchanges_per_connection: 16}\n") else { return };
    let mut session = site.connect();
    for round in 0..100 {
        let mechanism = ["LOGIN", "CRAM-MD5"][round % 2];
        assert_eq!(session.command(&format!("AUTH {mechanism}")).code, 334);
        assert_eq!(session.command("*").code, 501);
    }
    assert_eq!(session.log_in("CRAM-MD5", "alice", "secret").code, 235);
}

#[test]
fn users_made_and_changed_by_the_commands_log_in_at_once() {
    let Some(site) = Site::start("") else { return };
    let user = |words: &[&str], password: &str| site.sasld.user_command(words, password);
    user(&["add", "bob", "--scheme", "SHA512-CRYPT", "--scheme", "CRAM-MD5"], "first");
    site.sasld.log.wait_for(&["event=secrets_loaded", "users=2"]);
    for mechanism in MECHANISMS {
        assert_eq!(site.connect().log_in(mechanism, "bob", "first").code, 235, "{mechanism}");
    }
    user(&["remove", "alice"], "");
    user(&["passwd", "bob", "--scheme", "CRAM-MD5"], "second");
    user(&["add", "carol"], "third");
    user(&["add", "dora"], "third");
    site.sasld.log.wait_for(&["event=secrets_loaded", "users=3"]);
    let mut session = site.connect();
    assert_eq!(session.log_in("PLAIN", "bob", "first").code, 535);
    assert_eq!(session.log_in("PLAIN", "alice", "secret").code, 535);
    assert_eq!(session.log_in("CRAM-MD5", "bob", "second").code, 235);
}

#[test]
fn postfix_can_ask_over_tcp() {
    let Some(dir) = private_directory() else { return };
    // An address of our own in 127/8, so that nobody else is on the port.
    let [_, b, c, d] = (std::process::id() | 0x0040_0000).to_be_bytes();
    let address = format!("127.{b}.{c}.{d}:12345");
    let _sasld = Sasld::start_on(&format!("  - tcp: {address}\n"), dir.path(), "alice:{PLAIN}secret\n", "");
    let postfix = Postfix::start(dir.path(), &format!("inet:{address}"));
    let mut session = Session::connect(postfix.smtp);
    assert_eq!(session.log_in("PLAIN", "alice", "wrong").code, 535);
    assert_eq!(session.log_in("CRAM-MD5", "alice", "secret").code, 235);
}

#[test]
fn doveadm_auth_test_says_0_and_77() {
    let Some(site) = Site::start("services: {doveadm: {require_tls: false}}\n") else { return };
    let configuration = site.dir.path().join("doveadm.conf");
    fs::write(&configuration, "ssl = no\n").unwrap();
    let auth_test = |user: &str, password: &str| {
        let output = Command::new("doveadm")
            .arg("-c")
            .arg(&configuration)
            .args(["auth", "test", "-a"])
            .arg(site.sasld.socket())
            .args([user, password])
            .output()
            .expect("doveadm runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(
        auth_test("alice", "secret"),
        (Some(0), "passdb: alice auth succeeded\nextra fields:\n  user=alice\n".into())
    );
    assert_eq!(auth_test("alice", "wrong").0, Some(77));
    assert_eq!(auth_test("nobody", "secret").0, Some(77));
}
