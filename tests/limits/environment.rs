//! Where and how it is started: clocks, locales, variables of systemd's, core files, other users of the machine.

use crate::cost::{Account, count};
use crate::load;
use crate::site::{ALICE, Daemon, RIGHT, SASLD, Site, WRONG, auth, log_in};
use crate::support::peer::Peer;
use crate::support::skip::not_tested;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

/// Every kind of answer that does not depend on chance.
fn answers(daemon: &Daemon) -> Vec<String> {
    let mut peer = daemon.peer();
    let requests = [
        ("PLAIN", RIGHT),
        ("plain", RIGHT),
        ("PLAIN", WRONG),
        ("PLAIN", "AEFMSUNFAHdvbmRlcg=="), // ALICE: in Turkish, the small letter of I is another one
        ("PLAIN", "AGluZm8AaW5m"),         // info
        ("PLAIN", "AElORk8AaW5m"),         // INFO
        ("PLAIN", "!"),
        ("LOGIN", "YWxpY2U="),
        ("CRAM-MD5", "AAAA"),
    ];
    (1..)
        .zip(requests)
        .map(|(id, (mechanism, response))| log_in(&mut peer, id, mechanism, response))
        .collect()
}

const USERS: &str = "alice:{PLAIN}wonder\ninfo:{PLAIN}inf\n";

#[test]
fn the_callers_environment_changes_no_answer() {
    let site = Site::new(USERS, "");
    let expected = answers(&site.start());
    let environments: [&[(&str, &str)]; 4] = [
        &[("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8"), ("TZ", "Nowhere/Ever")],
        &[("LC_ALL", "xx_YY"), ("TZ", ":/etc/passwd"), ("TZDIR", "/nonexistent")],
        &[
            ("RUST_LOG", "trace"),
            ("RUST_BACKTRACE", "full"),
            ("MALLOC_PERTURB_", "165"),
            ("MALLOC_ARENA_MAX", "1"),
        ],
        &[("LD_LIBRARY_PATH", "/nonexistent"), ("PAM_CONFDIR", "/tmp"), ("HOME", ""), ("PATH", "")],
    ];
    for environment in environments {
        let daemon = site.start_with("", |command| {
            command.env_clear().envs(environment.iter().copied());
        });
        assert_eq!(answers(&daemon), expected, "{environment:?}");
    }
}

#[test]
fn sockets_that_nobody_passed_are_not_taken() {
    let site = Site::new(ALICE, "log_level: info\n");
    // Nonsense, somebody else's, and without a recipient: the configured socket is served.
    for variables in [
        "LISTEN_FDS=abc LISTEN_PID=$$",
        "LISTEN_FDS=-1 LISTEN_PID=$$",
        "LISTEN_FDS=1 LISTEN_PID=1",
        "LISTEN_FDS=1",
    ] {
        let daemon = site.start_after(&format!("exec 3</dev/null; export {variables}"));
        daemon.log.wait_for(&["event=ready", "/auth"]);
        assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice", "{variables}");
    }
    // What is no socket, and what is not there at all: nobody would be served, so that is said.
    for preparation in [
        "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$",
        "exec 3>&-; export LISTEN_FDS=1 LISTEN_PID=$$",
        "exec 3>&-; export LISTEN_FDS=100000 LISTEN_PID=$$",
    ] {
        let output = site.command(preparation).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            matches!(output.status.code(), Some(69 | 78)),
            "{preparation}: {:?}: {message}",
            output.status
        );
        assert!(message.contains("LISTEN_FDS"), "{preparation}: {message}");
    }
}

#[test]
fn without_anybody_to_notify_it_warns_and_serves() {
    let site = Site::new(ALICE, "");
    let daemon = site.start_with("", |command| {
        command.env("NOTIFY_SOCKET", "/nonexistent/notify");
    });
    daemon.log.wait_for(&["level=warn event=not_notified"]);
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
}

#[test]
fn a_crash_leaves_no_core_file_whatever_the_limit_was() {
    if !Path::new("/proc/self/coredump_filter").exists() {
        return not_tested("this kernel writes no core files");
    }
    let site = Site::new(ALICE, "");
    // A program that does nothing about it shows that core files are written here.
    let place = site.path("").display().to_string();
    let control = Command::new("/bin/bash")
        .args(["-c", &format!("cd {place} && ulimit -c unlimited && kill -SEGV $$")])
        .status()
        .unwrap();
    let mut daemon = site.start_after(&format!("cd {place} && ulimit -c unlimited"));
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    // Rust's own handler takes the first one for a stack that is full, and steps aside.
    daemon.signal(Signal::SIGSEGV);
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    daemon.signal(Signal::SIGSEGV);
    let status = daemon.wait();
    assert_eq!(status.signal(), Some(Signal::SIGSEGV as i32));
    assert!(!status.core_dumped(), "it left a core file");
    if !control.core_dumped() {
        not_tested("no core file was written for a program that allows it either: the limit is 0 for all");
    }
}

#[test]
fn its_memory_and_environment_are_closed_to_its_own_user() {
    if !nix::unistd::geteuid().is_root() {
        return not_tested("only root can start a daemon as another user, and look at it as that one");
    }
    const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs";
    let site = Site::new(ALICE, "");
    let text = fs::read_to_string(site.config()).unwrap();
    let owners = "owner: root, group: root";
    assert!(text.contains(owners) || text.contains("owner: 0, group: 0"), "{text}");
    let text = text
        .replace(owners, "owner: 65534, group: 65534")
        .replace("owner: 0, group: 0", "owner: 65534, group: 65534");
    fs::write(site.config(), text).unwrap();
    for name in ["", "sasld.yaml", "secrets"] {
        chown(site.path(name), Some(65_534), Some(65_534)).unwrap();
    }
    let daemon =
        site.start_with(&format!("exec {NOBODY} {SASLD} serve --config {}", site.config().display()), |_| {});
    let as_nobody = |command: &str| {
        let output =
            Command::new("/bin/bash").args(["-c", &format!("exec {NOBODY} {command}")]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let pid = daemon.pid();
    assert!(as_nobody(&format!("kill -0 {pid}")).0, "it is that user's process");
    for file in ["mem", "environ", "maps", "fd/0", "auxv"] {
        let (can, error) = as_nobody(&format!("head -c 1 /proc/{pid}/{file}"));
        assert!(!can && error.contains("Permission denied"), "{file}: {error}");
    }
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
}

/// Debian's place for it, and others'.
fn libfaketime() -> Option<&'static str> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
    ];
    places.into_iter().find(|place| Path::new(place).exists())
}

#[test]
fn a_clock_that_jumps_changes_no_answer_and_wakes_nobody() {
    let Some(library) = libfaketime() else { return not_tested("libfaketime is not installed") };
    for start in ["@1970-01-01 00:00:05", "@2040-01-01 00:00:00"] {
        let site = Site::new(ALICE, "log_level: info\nrefusal_delay: 250ms\n");
        let clock = site.path("clock");
        fs::write(&clock, start).unwrap();
        let daemon = site.start_with("", |command| {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", &clock)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        });
        let mut abandoned = daemon.peer();
        abandoned.send("AUTH\t1\tLOGIN\tservice=smtp\tsecured\n");
        assert_eq!(abandoned.line(), "CONT\t1\tVXNlcm5hbWU6");
        let mut peer = daemon.peer();
        load::fill_memory(&daemon);
        let (jumps, account) = (count(30, 5_000), Account::open(&daemon));
        let mut times = ["-10y", "+1d", "+10y", "-1d", "@2100-01-01 00:00:00", "@1980-01-01 00:00:00"]
            .into_iter()
            .cycle();
        let mut jump = |peer: &mut Peer| {
            fs::write(&clock, times.next().unwrap()).unwrap();
            load::right_ones(peer, 64, |id| auth(id, "PLAIN", RIGHT));
        };
        for _ in 0..30 {
            jump(&mut peer);
            // Refusals wait for their time, which no clock on the wall moves.
            peer.send(&format!("{}{}", auth(1, "PLAIN", WRONG), auth(2, "PLAIN", RIGHT)));
            assert_eq!(peer.line(), "OK\t2\tuser=alice");
            assert!(peer.line().starts_with("FAIL\t1\tuser=alice\treason="));
        }
        // An exchange of ten years ago, or of ten years hence, is one of a moment ago.
        abandoned.send("CONT\t1\tYWxpY2U=\n");
        assert_eq!(abandoned.line(), "CONT\t1\tUGFzc3dvcmQ6");
        abandoned.send("CONT\t1\td29uZGVy\n");
        assert_eq!(abandoned.line(), "OK\t1\tuser=alice");
        daemon.log.wait_for(&["time=2100-01-01T", "event=auth result=ok"]);
        daemon.log.wait_for(&["time=1980-01-01T", "event=auth result=ok"]);
        (30..jumps).for_each(|_| jump(&mut peer));
        account.close("jumps of the wall clock", jumps, 2_048);
    }
}
