//! A daemon without what it needs: descriptors, a disk for its log, a reader of its log.

use crate::cost::{Account, count, descriptors};
use crate::load;
use crate::site::{ALICE, RIGHT, Site, WRONG, auth, log_in, wait_until};
use crate::support::peer::Peer;
use crate::support::skip::not_tested;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

#[test]
fn with_64_descriptors_whoever_is_in_is_served_and_files_are_missed_by_nobody() {
    let site = Site::new(ALICE, "log_level: info\n");
    let daemon = site.start_after("ulimit -n 64");
    daemon.log.wait_for(&["event=ready"]);
    let mut first = daemon.peer();
    let (account, start) = (Account::open(&daemon), Instant::now());
    let crowd = || -> Vec<Peer> { (0..100).map(|_| Peer::connect(daemon.socket())).collect() };
    let first_crowd = crowd();
    daemon.log.wait_for(&["event=not_accepted", "Too many open files"]);

    // A secrets file and a configuration that cannot be opened now change nothing.
    site.replace_users("alice:{PLAIN}wonder\nbob:{PLAIN}wonder\n");
    daemon.log.wait_for(&["event=secrets_not_loaded", "Too many open files"]);
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=not_reloaded", "Too many open files"]);
    assert_eq!(log_in(&mut first, 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    assert!(log_in(&mut first, 2, "PLAIN", WRONG).starts_with("FAIL\t2\tuser=alice\treason="));

    // With descriptors again, everything happens that could not.
    drop(first_crowd);
    daemon.log.wait_for(&["event=secrets_loaded", "users=2"]);
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=reloaded"]);
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", "AGJvYgB3b25kZXI="), "OK\t1\tuser=bob");
    let crowds = count(2, 3_000);
    for _ in 1..crowds {
        let _crowd = crowd();
        wait_until("all descriptors are in use", || descriptors(&daemon) >= 63);
        assert_eq!(log_in(&mut first, 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    }
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    account.close("connections with 64 descriptors", crowds * 100, 2_048);
    let complaints = daemon.log.text().matches("event=not_accepted").count() as u64;
    let allowed = 2 + start.elapsed().as_secs() / 10;
    assert!(complaints <= allowed, "one line in ten seconds, not {complaints}");
}

#[test]
fn a_slow_disk_under_a_new_secrets_file_keeps_nobody_waiting() {
    let site = Site::new(ALICE, "log_level: info\n");
    let daemon = site.start();
    let (new, tracer) = (site.path("new"), site.path("tracer"));
    fs::write(&new, "bob:{PLAIN}wonder\n").unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
    let config = fs::read_to_string(site.config()).unwrap();
    let passdbs = format!("{}\n  - secrets_file: {}", site.path("secrets").display(), new.display());
    fs::write(site.config(), config.replace(site.path("secrets").to_str().unwrap(), &passdbs)).unwrap();
    // Whoever opens the file waits for five seconds.
    let strace = Command::new("strace")
        .args(["-f", "-e", "trace=openat", "-e", "inject=openat:delay_enter=5000000", "-P"])
        .args([&new, Path::new("-o"), Path::new("/dev/null"), Path::new("-p")])
        .arg(daemon.pid().to_string())
        .stderr(File::create(&tracer).unwrap())
        .spawn();
    let Ok(mut strace) = strace else { return not_tested("strace is missing") };
    wait_until("strace has attached", || fs::read_to_string(&tracer).unwrap().contains("attached"));
    let opens_it = || {
        let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        let mut names = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("comm")));
        names.any(|name| name.is_ok_and(|name| name == "files\n"))
    };
    daemon.signal(Signal::SIGHUP);
    wait_until("the file is being opened", opens_it);
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    assert!(opens_it(), "the login has not waited for the file");
    daemon.log.wait_for(&["event=reloaded"]);
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", "AGJvYgB3b25kZXI="), "OK\t1\tuser=bob");
    kill(Pid::from_raw(i32::try_from(strace.id()).unwrap()), Signal::SIGTERM).unwrap();
    strace.wait().unwrap();
}

#[test]
fn a_full_disk_under_the_log_keeps_nobody_from_logging_in() {
    let site = Site::new(ALICE, "log_level: trace\n");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut daemon = site.start_logging_to(full);
    load::right_ones(&mut daemon.peer(), 5_000, |id| auth(id, "PLAIN", RIGHT));
    daemon.stop();
}

#[test]
fn a_log_that_nobody_reads_keeps_nobody_from_logging_in() {
    let site = Site::new(ALICE, "log_level: trace\n");
    let (unread, ours) = UnixStream::pair().unwrap();
    let mut daemon = site.start_logging_to(std::os::fd::OwnedFd::from(ours));
    let mut peer = daemon.peer();
    // More than the socket and the buffer hold.
    load::right_ones(&mut peer, 20_000, |id| auth(id, "PLAIN", RIGHT));
    drop(unread);
    load::right_ones(&mut peer, 1_000, |id| auth(id, "PLAIN", RIGHT));
    daemon.stop();
}
