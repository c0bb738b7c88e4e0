//! A daemon without what it needs: descriptors, a disk for its log, a reader of its log.

use crate::cost::Account;
use crate::load;
use crate::site::{ALICE, RIGHT, Site, WRONG, auth, log_in};
use crate::support::peer::Peer;
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::os::unix::net::UnixStream;

#[test]
fn with_64_descriptors_whoever_is_in_is_served_and_files_are_missed_by_nobody() {
    let site = Site::new(ALICE, "log_level: info\n");
    let daemon = site.start_after("ulimit -n 64");
    daemon.log.wait_for(&["event=ready"]);
    let mut first = daemon.peer();
    let account = Account::open(&daemon);
    let crowd: Vec<Peer> = (0..100).map(|_| Peer::connect(daemon.socket())).collect();
    daemon.log.wait_for(&["event=not_accepted", "Too many open files"]);

    // A secrets file and a configuration that cannot be opened now change nothing.
    site.replace_users("alice:{PLAIN}wonder\nbob:{PLAIN}wonder\n");
    daemon.log.wait_for(&["event=secrets_not_loaded", "Too many open files"]);
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=not_reloaded", "Too many open files"]);
    assert_eq!(log_in(&mut first, 1, "PLAIN", RIGHT), "OK\t1\tuser=alice");
    assert!(log_in(&mut first, 2, "PLAIN", WRONG).starts_with("FAIL\t2\tuser=alice\treason="));

    // With descriptors again, everything happens that could not.
    drop(crowd);
    daemon.log.wait_for(&["event=secrets_loaded", "users=2"]);
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=reloaded"]);
    assert_eq!(log_in(&mut daemon.peer(), 1, "PLAIN", "AGJvYgB3b25kZXI="), "OK\t1\tuser=bob");
    account.close("connections with 64 descriptors", 100, 2_048);
    let complaints = daemon.log.text().matches("event=not_accepted").count();
    assert!(complaints <= 6, "one line in ten seconds, not {complaints}");
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
