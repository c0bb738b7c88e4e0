//! The built `sasld` with the built `sasld-pam`: one login after the other, and what becomes of it when workers hang,
//! die or are gone.

use crate::harness::{Folder, Listening, LocalUser, can_make_users, module_stack, wait_until};
use crate::machine::{Machine, can_make_machines};
use crate::support::peer::Peer;
use crate::support::sasld::Sasld;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};
use std::path::Path;
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
fn sasld(socket: &Path, arguments: &[&str], settings: &str) -> (Folder, Sasld) {
    let folder = Folder::new();
    let us = (Uid::effective(), Gid::effective());
    let sasld = sasld_under(&[], &folder, us, socket, arguments, settings);
    (folder, sasld)
}

/// The same in this folder, as this user, started by another program.
pub fn sasld_under(
    program: &[&str],
    folder: &Folder,
    (user, group): (Uid, Gid),
    socket: &Path,
    arguments: &[&str],
    settings: &str,
) -> Sasld {
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
    Sasld::start_under(program, &listener, folder.path(), SECRETS, &passdbs)
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
fn a_rule_about_places_or_times_refuses_and_is_no_outage() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new("S3cret pass");
    let name = &user.name;
    let rules = Folder::new();
    // The logins below come from 192.0.2.7.
    let access = |from: &str| {
        let file = rules
            .write(&format!("from-{}", from.replace('/', "-")), &format!("-:{name}:{from}\n+:ALL:ALL\n"));
        format!("account required pam_access.so nodefgroup accessfile={}\n", file.display())
    };
    let time = |user: &str| {
        let file = rules.write(&format!("never-{user}"), &format!("*;*;{user};!Al0000-2400\n"));
        format!("account required pam_time.so conffile={}\n", file.display())
    };
    let site = |rule: &str| {
        let stack = format!("auth required pam_unix.so\naccount required pam_unix.so\n{rule}");
        Site::start(&stack, &["--min-uid=1000"], "")
    };
    for (rule, is_right) in [
        (access("192.0.2.0/24"), false),
        (access("198.51.100.0/24"), true),
        (time(name), false),
        (time("somebody-else"), true),
    ] {
        let site = site(&rule);
        let mut peer = site.peer();
        let answer = log_in(&mut peer, 1, name, "S3cret pass");
        if is_right {
            assert_eq!(answer, format!("OK\t1\tuser={name}"), "{rule}");
        } else {
            assert!(answer.starts_with(&format!("FAIL\t1\tuser={name}\treason=")), "{rule}: {answer}");
            assert!(!answer.contains("temp_fail"), "{rule}: {answer}");
            site.sasld.log.wait_for(&["result=refused", "why=denied", &format!("user={name}")]);
        }
        assert!(log_in(&mut peer, 2, name, "wrong").starts_with("FAIL\t2"));
        site.sasld.log.wait_for(&["result=refused", "why=wrong_password"]);
    }
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
    // Its service is not smtp, so it is told, and the connection stays.
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
        // A second prompt that nobody answers: the module takes the login for a success, and for a failure.
        // The last one fails as the conversation did.
        (3, "twice0", "pam_asked_more"),
        (4, "twice7", "pam_asked_more"),
        (5, "twice", "pam_asked_more"),
        (6, "asks-later", "pam_not_asked"),
    ] {
        let answer = log_in(&mut peer, id, user, "right");
        assert!(answer.starts_with(&format!("FAIL\t{id}\tuser={user}\treason=")), "{answer}");
        site.sasld.log.wait_for(&["result=refused", &format!("why={why}"), &format!("user={user}")]);
    }
}

#[test]
fn a_second_prompt_in_an_outage_is_no_refusal() {
    let site = Site::start(&module_stack(), &["--min-uid=0"], "");
    let mut peer = site.peer();
    // A directory that cannot be reached.
    let answer = log_in(&mut peer, 1, "twice9", "right");
    assert!(answer.contains("\tcode=temp_fail"), "{answer}");
    site.sasld.log.wait_for(&["result=outage", "why=passdb_unavailable", "user=twice9"]);
    site.sasld.log.wait_for(&[
        "event=pam_undecided",
        "user=twice9",
        "trouble=PAM_AUTHINFO_UNAVAIL",
        "prompts",
    ]);
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
    if !can_make_machines() {
        return;
    }
    let machine = Machine::new(&[]);
    let mut sasld = machine.start();
    sasld.log.wait_for(&["event=pam_started"]);
    let mut peer = Peer::greeted(&sasld.socket());
    let name = machine.user();
    assert_eq!(log_in(&mut peer, 1, name, machine.password()), format!("OK\t1\tuser={name}"));
    assert!(log_in(&mut peer, 2, name, "wrong").starts_with("FAIL\t2"));
    let first = worker_of(&sasld);
    // A session of its own, so that no terminal's signals reach it.
    assert_eq!(nix::unistd::getsid(Some(first)), Ok(first));

    // On this machine sasld has nobody to become, and as root it can start another one.
    sasld.log.wait_for(&["event=running_as_root"]);
    sasld.log.forget();
    kill(first, Signal::SIGKILL).expect("a signal");
    sasld.log.wait_for(&["event=pam_connected"]);
    assert_eq!(log_in(&mut peer, 3, name, machine.password()), format!("OK\t3\tuser={name}"));
    let second = worker_of(&sasld);
    assert_ne!(second, first);
    sasld.stop();
    wait_until("the end of sasld-pam", || !Path::new("/proc").join(second.to_string()).exists());
}

#[test]
fn started_as_root_both_programs_become_users_of_their_own() {
    if !can_make_machines() {
        return;
    }
    let machine = Machine::new(&["_sasld", "_sasld-pam"]);
    let sasld = machine.start();
    sasld.log.wait_for(&["event=pam_started"]);
    sasld.log.wait_for(&["event=root_given_away", "user=_sasld"]);
    let mut peer = Peer::greeted(&sasld.socket());
    let name = machine.user();
    assert_eq!(log_in(&mut peer, 1, name, machine.password()), format!("OK\t1\tuser={name}"));
    assert!(log_in(&mut peer, 2, name, "wrong").starts_with("FAIL\t2"));
    assert_eq!(log_in(&mut peer, 3, "carol", "secret"), "OK\t3\tuser=carol");
    let pam = worker_of(&sasld);
    for (pid, user) in [(sasld.pid().to_string(), "_sasld"), (pam.to_string(), "_sasld-pam")] {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let ids = |key: &str| -> Vec<String> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("its ids");
            line.split_whitespace().map(str::to_owned).collect()
        };
        let uid = machine.uid(user).to_string();
        // Real, effective, saved, and that of the file system: there is no way back.
        assert_eq!(ids("Uid:"), [uid.as_str(); 4], "{user}");
        assert_eq!(ids("Gid:"), [uid.as_str(); 4], "{user}");
        assert_eq!(ids("CapEff:"), ["0000000000000000"], "{user}");
        let shadow = nix::unistd::Group::from_name("shadow").expect("groups").expect("the group shadow");
        let may_read_hashes = ids("Groups:").contains(&shadow.gid.to_string());
        assert_eq!(may_read_hashes, user == "_sasld-pam", "{user}");
    }

    // It cannot start another one any more, and says so.
    kill(pam, Signal::SIGKILL).expect("a signal");
    sasld.log.wait_for(&["event=pam_gone", "hint="]);
    assert_eq!(log_in(&mut peer, 4, "carol", "secret"), "OK\t4\tuser=carol");
}

#[test]
fn started_as_an_ordinary_user_it_says_what_cannot_work_and_serves_the_others() {
    let folder = Folder::new();
    let mut user = (Uid::effective(), Gid::effective());
    let mut program = Vec::new();
    if Uid::effective().is_root() {
        user = (Uid::from_raw(65_534), Gid::from_raw(65_534));
        // The folder with everything that is in it by now becomes the user's.
        let script =
            "chown -R 65534:65534 \"$0\" && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
        program = vec!["sh", "-c", script, folder.path().to_str().expect("a plain path")];
    }
    let nobody_listens = folder.path().join("nobody-listens");
    let sasld = sasld_under(&program, &folder, user, &nobody_listens, &["--min-uid=1000"], "");
    sasld.log.wait_for(&[
        "event=pam_not_started",
        &format!("socket={}", nobody_listens.display()),
        "only root can start sasld-pam; no system user can log in until it runs",
    ]);
    sasld.log.wait_for(&["event=pam_unavailable"]);
    let mut peer = Peer::greeted(&sasld.socket());
    assert_eq!(log_in(&mut peer, 1, "carol", "secret"), "OK\t1\tuser=carol");
    assert!(log_in(&mut peer, 2, "carol", "wrong").starts_with("FAIL\t2\tuser=carol\treason="));
    assert!(log_in(&mut peer, 3, "alice", "right").contains("\tcode=temp_fail"));
}

/// The `sasld-pam` that this sasld has started.
fn worker_of(sasld: &Sasld) -> Pid {
    let path = format!("/proc/{0}/task/{0}/children", sasld.pid());
    let children = std::fs::read_to_string(path).expect("its children");
    Pid::from_raw(children.trim().parse().expect("one child"))
}
