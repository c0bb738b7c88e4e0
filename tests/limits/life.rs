//! Signals, reloads and replaced files while logins go on.

use crate::cost::{Account, count};
use crate::load;
use crate::site::{ALICE, Daemon, RIGHT, Site, WRONG, auth, log_in};
use crate::support::peer::Peer;
use nix::sys::signal::Signal;
use sasld::control::{Request, SecretsState, ask};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// `NUL bob NUL first` and `NUL bob NUL second`.
const FIRST: &str = "AGJvYgBmaXJzdA==";
const SECOND: &str = "AGJvYgBzZWNvbmQ=";

/// Logs alice in, rightly and wrongly, until it is told to stop.
fn judge_alice(daemon: &Daemon, stop: &AtomicBool) {
    let mut peer = daemon.peer();
    let request = |id, number: usize| auth(id, "PLAIN", if number.is_multiple_of(4) { WRONG } else { RIGHT });
    while !stop.load(Ordering::Relaxed) {
        load::run(&mut peer, 256, request, |number, answer| {
            assert_eq!(answer.starts_with("OK\t"), !number.is_multiple_of(4), "{answer}");
        });
    }
}

/// Stops what judges, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_storm_of_reloads_gives_no_wrong_answer_and_the_last_one_counts() {
    let site = Site::new(ALICE, "log_level: info\n");
    let daemon = site.start();
    let good = fs::read_to_string(site.config()).unwrap();
    load::fill_memory(&daemon);
    let account = Account::open(&daemon);
    let stop = AtomicBool::new(false);
    let reloads = count(100, 10_000);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| judge_alice(&daemon, &stop));
        let mut peer = daemon.peer();
        for round in 0..reloads {
            // Now and then there is a mistake in it.
            let broken = if round % 5 == 1 { "refusal_dleay: 1s\n" } else { "" };
            fs::write(site.path("new.yaml"), format!("{good}{broken}")).unwrap();
            fs::rename(site.path("new.yaml"), site.config()).unwrap();
            daemon.signal(Signal::SIGHUP);
            assert_eq!(log_in(&mut peer, 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
        }
    });
    fs::write(site.config(), format!("{good}mechanisms: [LOGIN]\n")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=reloaded", "mechanisms=LOGIN"]);
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "FAIL\t1");
    account.close("reloads under load", reloads, 2_048);
}

#[test]
fn a_secrets_file_replaced_again_and_again_is_the_old_or_the_new_one_and_never_a_third() {
    let site = Site::new(ALICE, "");
    let daemon = site.start();
    let stop = AtomicBool::new(false);
    let renames = count(200, 5_000);
    load::fill_memory(&daemon);
    let account = Account::open(&daemon);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| judge_alice(&daemon, &stop));
        let mut peer = daemon.peer();
        for round in 0..renames {
            let (password, right, wrong) = match round % 2 {
                0 => ("first", FIRST, SECOND),
                _ => ("second", SECOND, FIRST),
            };
            site.replace_users(&format!("{ALICE}bob:{{PLAIN}}{password}\n"));
            let request = Request::Secrets { path: site.path("secrets") };
            let state: SecretsState = ask(&site.path("control"), &request).unwrap();
            assert_eq!((state.users, state.trouble), (2, None));
            // Once it is said to be in force there is no other.
            assert_eq!(log_in(&mut peer, 1, "PLAIN", right), "OK\t1\tuser=bob");
            assert!(log_in(&mut peer, 2, "PLAIN", wrong).starts_with("FAIL\t2\tuser=bob"));
        }
    });
    account.close("secrets files under load", renames, 2_048);
}

#[test]
fn sigterm_ends_it_while_it_loads_a_hundred_thousands_of_users() {
    let site = Site::new(ALICE, "log_level: info\n");
    let mut daemon = site.start();
    let mut peer = daemon.peer();
    let users: String = (0..count(300_000, 1_000_000)).map(|n| format!("user{n}:{{PLAIN}}pw{n}\n")).collect();
    site.replace_users(&users);
    daemon.signal(Signal::SIGHUP);
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(peer.is_closed());
}

#[test]
fn nobody_waits_while_a_hundred_thousands_of_users_are_loaded() {
    let site = Site::new(ALICE, "log_level: info\n");
    let daemon = site.start();
    let mut peer = daemon.peer();
    let users = count(100_000, 1_000_000);
    let text: String = (0..users).map(|n| format!("user{n}:{{PLAIN}}pw{n}\n")).collect();
    site.replace_users(&format!("{text}{ALICE}"));
    let loading = AtomicBool::new(true);
    let mut meanwhile = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let request = Request::Secrets { path: site.path("secrets") };
            // Asking makes it look. A load that takes longer than an answer may is waited for in the log.
            let _: Result<SecretsState, _> = ask(&site.path("control"), &request);
            loading.store(false, Ordering::Relaxed);
        });
        while loading.load(Ordering::Relaxed) {
            assert_eq!(log_in(&mut peer, 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
            meanwhile += 1;
        }
    });
    assert!(meanwhile > 0);
    daemon.log.wait_for(&["event=secrets_loaded", &format!("users={}", users + 1)]);
    assert_eq!(log_in(&mut peer, 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
}

#[test]
fn who_leaves_while_answers_are_written_to_him_ends_nobody_else() {
    let site = Site::new(ALICE, "");
    let daemon = site.start();
    let mut honest = daemon.peer();
    for _ in 0..count(200, 10_000) {
        let mut leaver: Peer = daemon.peer();
        leaver.send(&(1..=20).map(|id| auth(id, "PLAIN", RIGHT)).collect::<String>());
        drop(leaver);
        assert_eq!(log_in(&mut honest, 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    }
}
