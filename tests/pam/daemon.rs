//! The built `sasld` with the built `sasld-pam`: one login after the other, and what becomes of it when workers hang,
//! die or are gone.

use crate::harness::{Folder, Listening, LocalUser, can_make_users, module_stack, wait_until};
use crate::support::peer::Peer;
use crate::support::sasld::Sasld;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SECRETS: &str = "carol:{PLAIN}secret\n";

/// A daemon whose passdbs are a secrets file with carol, and PAM.
struct Site {
    pam: Listening,
    sasld: Sasld,
    _folder: Folder,
}

impl Site {
    fn start(stack: &str, arguments: &[&str], settings: &str) -> Self {
        let pam = Listening::start(stack, arguments);
        let (folder, sasld) = sasld(&pam.socket(), arguments, settings);
        sasld.log.wait_for(&["event=pam_connected"]);
        Self { pam, sasld, _folder: folder }
    }

    fn peer(&self) -> Peer {
        Peer::greeted(&self.sasld.socket())
    }
}

/// sasld in a folder of its own, configured as `sasld-pam` was with these arguments.
fn sasld(socket: &std::path::Path, arguments: &[&str], settings: &str) -> (Folder, Sasld) {
    let folder = Folder::new();
    let (user, group) = (Uid::effective(), Gid::effective());
    let listener = format!(
        "  - {{unix: {}, owner: {user}, group: {group}, mode: \"0600\"}}\n",
        folder.path().join("auth").display()
    );
    let worker: Vec<String> = arguments
        .iter()
        .map(|argument| argument.trim_start_matches("--").replace('-', "_").replace('=', ": "))
        .collect();
    let passdbs = format!(
        "passdbs:\n  - secrets_file: {}\n  - pam: {{socket: {}, {}}}\n{settings}",
        folder.path().join("secrets").display(),
        socket.display(),
        worker.join(", ")
    );
    let sasld = Sasld::start_on(&listener, folder.path(), SECRETS, &passdbs);
    (folder, sasld)
}

fn auth(id: u32, user: &str, password: &str) -> String {
    let response = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
    format!("AUTH\t{id}\tPLAIN\tservice=submission\trip=192.0.2.7\tsecured\tresp={response}\n")
}

fn log_in(peer: &mut Peer, id: u32, user: &str, password: &str) -> String {
    peer.send(&auth(id, user, password));
    peer.line()
}

#[test]
fn users_of_both_passdbs_log_in_and_each_refusal_has_its_code() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new("S3cret pass");
    let site = Site::start("@include common-auth\n@include common-account\n", &["--min-uid=1000"], "");
    let mut peer = site.peer();
    let name = &user.name;
    assert_eq!(log_in(&mut peer, 1, name, "S3cret pass"), format!("OK\t1\tuser={name}"));
    assert_eq!(log_in(&mut peer, 2, "carol", "secret"), "OK\t2\tuser=carol");
    assert!(log_in(&mut peer, 3, name, "wrong").starts_with(&format!("FAIL\t3\tuser={name}\treason=")));
    assert!(log_in(&mut peer, 4, "carol", "wrong").starts_with("FAIL\t4\tuser=carol\treason="));
    assert!(log_in(&mut peer, 5, "nobody-here", "wrong").starts_with("FAIL\t5\tuser=nobody-here\treason="));
    assert!(log_in(&mut peer, 6, "root", "wrong").starts_with("FAIL\t6\tuser=root\treason="));
    site.sasld.log.wait_for(&["result=refused", "why=wrong_password", &format!("user={name}")]);
    site.sasld.log.wait_for(&["result=refused", "why=unknown_user", "user=root"]);

    user.change("chage", &["--lastday", "0"]);
    let expired = log_in(&mut peer, 7, name, "S3cret pass");
    assert!(expired.contains("\tcode=pass_expired"), "{expired}");
}

#[test]
fn an_expired_account_has_its_code_where_the_stack_keeps_it() {
    let site = Site::start(&module_stack(), &["--min-uid=0"], "");
    let mut peer = site.peer();
    let expired = log_in(&mut peer, 1, "account13", "right");
    assert!(expired.contains("\tcode=user_disabled"), "{expired}");
    site.sasld.log.wait_for(&["result=refused", "why=account_expired", "user=account13"]);
}

#[test]
fn a_stuck_stack_is_no_verdict_at_the_deadline_and_delays_nobody_else() {
    let site = Site::start(&module_stack(), &["--min-uid=0", "--workers=1"], "deadline: 1s\n");
    let mut stuck = site.peer();
    let start = Instant::now();
    stuck.send(&auth(1, "hang", "right"));
    let mut peer = site.peer();
    assert_eq!(log_in(&mut peer, 1, "carol", "secret"), "OK\t1\tuser=carol");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // No FAIL with temp_fail would do for this client, whose service is not smtp.
    let answer = stuck.line();
    assert!(answer.contains("\tcode=temp_fail"), "{answer}");
    assert!((900..3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    site.sasld.log.wait_for(&["result=outage", "why=deadline", "user=hang"]);
    assert_eq!(log_in(&mut peer, 2, "alice", "right"), "OK\t2\tuser=alice");
}

#[test]
fn a_dead_worker_costs_one_verdict() {
    let site = Site::start(&module_stack(), &["--min-uid=0", "--workers=1"], "");
    let mut peer = site.peer();
    for (id, calamity) in (1..).step_by(2).zip(["abort", "exit", "close"]) {
        let answer = log_in(&mut peer, id, calamity, "right");
        assert!(answer.contains("\tcode=temp_fail"), "{answer}");
        let next = id + 1;
        assert_eq!(log_in(&mut peer, next, "alice", "right"), format!("OK\t{next}\tuser=alice"));
    }
}

#[test]
fn success_without_a_question_and_another_name_are_refused() {
    let site = Site::start(&module_stack(), &["--min-uid=0"], "");
    let mut peer = site.peer();
    for (id, user, why) in [
        (1, "yes", "pam_not_asked"),
        (2, "rename", "pam_user_changed"),
        (3, "twice", "pam_asked_more"),
        (4, "asks-later", "pam_not_asked"),
    ] {
        let answer = log_in(&mut peer, id, user, "right");
        assert!(answer.starts_with(&format!("FAIL\t{id}\tuser={user}\treason=")), "{answer}");
        site.sasld.log.wait_for(&["result=refused", &format!("why={why}"), &format!("user={user}")]);
    }
}

#[test]
fn without_sasld_pam_users_of_the_secrets_file_log_in_as_ever() {
    let mut site = Site::start(&module_stack(), &["--min-uid=0"], "");
    let mut peer = site.peer();
    assert_eq!(log_in(&mut peer, 1, "alice", "right"), "OK\t1\tuser=alice");
    site.pam.kill();
    site.sasld.log.wait_for(&["event=pam_unavailable"]);
    assert!(log_in(&mut peer, 2, "alice", "right").contains("\tcode=temp_fail"));
    assert_eq!(log_in(&mut peer, 3, "carol", "secret"), "OK\t3\tuser=carol");
    assert!(log_in(&mut peer, 4, "carol", "wrong").starts_with("FAIL\t4\tuser=carol\treason="));
    site.sasld.log.forget();
    site.pam.start_again();
    site.sasld.log.wait_for(&["event=pam_connected"]);
    assert_eq!(log_in(&mut peer, 5, "alice", "right"), "OK\t5\tuser=alice");
}

#[test]
fn started_as_root_sasld_starts_its_own_again_and_again_and_takes_it_with_it() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new("S3cret pass");
    // Its service lies in /etc/pam.d, under a name of our own.
    let service = user.name.clone();
    let file = PathBuf::from("/etc/pam.d").join(&service);
    std::fs::write(&file, "auth required pam_unix.so\naccount required pam_unix.so\n").expect("a service");
    let _remove = Remove(file);
    let folder = Folder::new();
    let service = format!("--service={service}");
    let (_folder, mut sasld) = sasld(&folder.path().join("nobody-listens"), &[&service], "");
    sasld.log.wait_for(&["event=pam_started"]);
    let mut peer = Peer::greeted(&sasld.socket());
    let name = &user.name;
    assert_eq!(log_in(&mut peer, 1, name, "S3cret pass"), format!("OK\t1\tuser={name}"));
    assert!(log_in(&mut peer, 2, name, "wrong").starts_with("FAIL\t2"));
    let path = format!("/proc/{0}/task/{0}/children", sasld.pid());
    let worker = || std::fs::read_to_string(&path).expect("its children").trim().to_owned();
    let first = worker();
    let pid = Pid::from_raw(first.parse().expect("one child"));
    // A session of its own, so that no terminal's signals reach it.
    assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));

    // Here sasld has nobody to become, and as root it can start another one.
    sasld.log.forget();
    kill(pid, Signal::SIGKILL).expect("a signal");
    sasld.log.wait_for(&["event=pam_connected"]);
    assert_eq!(log_in(&mut peer, 3, name, "S3cret pass"), format!("OK\t3\tuser={name}"));
    let worker = worker();
    assert_ne!(worker, first);
    sasld.stop();
    wait_until("the end of sasld-pam", || !std::path::Path::new("/proc").join(&worker).exists());
}

/// Removes a file in the end.
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
