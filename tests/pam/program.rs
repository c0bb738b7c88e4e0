//! The program around the stacks: how many it serves, what its children are, its end, and what it links.

use crate::harness::{
    Folder, Listening, LocalUser, PATIENCE, PamServer, can_make_users, module_stack, wait_until,
};
use nix::sys::signal::Signal;
use sasld::pam::code::Code;
use sasld::pam::request::{Lane, Outcome, Trouble};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn links_libpam(program: &str) -> bool {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).contains("libpam")
}

#[test]
fn only_the_worker_links_libpam() {
    assert!(links_libpam(env!("CARGO_BIN_EXE_sasld-pam")));
    assert!(!links_libpam(env!("CARGO_BIN_EXE_sasld")));
}

#[test]
fn several_requests_are_answered_at_a_time_and_by_their_ids() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--workers=4"]);
    assert_eq!((pam.hello.ordinary, pam.hello.express), (4, 2));
    assert_eq!(pam.hello.settings, "--service=sasld --workers=4 --min-uid=0 --prompts=1");
    let slow = pam.send("hang", b"right", Lane::Ordinary, Duration::from_secs(1));
    let ids: Vec<u64> =
        (0..12).map(|_| pam.send("alice", b"right", Lane::Ordinary, Duration::from_secs(9))).collect();
    let mut answered: Vec<u64> = ids.iter().map(|_| pam.receive().id).collect();
    answered.sort_unstable();
    assert_eq!(answered, ids);
    assert_eq!(pam.receive().id, slow);
    assert!(pam.children().len() <= 4);
}

#[test]
fn of_too_many_requests_only_those_that_were_begun_have_kept_a_worker() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--workers=1"]);
    let ids: Vec<u64> =
        (0..20).map(|_| pam.send("hang", b"right", Lane::Ordinary, Duration::from_secs(1))).collect();
    let answers: Vec<_> = ids.iter().map(|_| pam.receive().outcome).collect();
    let busy =
        answers.iter().filter(|outcome| matches!(outcome, Outcome::Undecided(Trouble::Busy, _))).count();
    let late =
        answers.iter().filter(|outcome| matches!(outcome, Outcome::Undecided(Trouble::Timeout, _))).count();
    // One that hangs. Four wait behind it until it is too late for them, and for the others there is no room.
    assert_eq!((busy, late), (19, 1));
}

#[test]
fn a_child_killed_from_outside_is_replaced() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--workers=1"]);
    for _ in 0..3 {
        assert!(matches!(pam.ask("alice", "right"), Outcome::Checked(_)));
        for child in pam.children() {
            let pid = nix::unistd::Pid::from_raw(child.try_into().expect("a pid"));
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("a signal");
        }
        wait_until("its end", || pam.children().is_empty());
    }
}

#[test]
fn children_are_closed_to_others() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--workers=1"]);
    assert!(matches!(pam.ask("alice", "right"), Outcome::Checked(_)));
    let child = pam.children()[0];
    let proc = Path::new("/proc").join(child.to_string());
    let environment =
        std::fs::read_to_string(proc.join("environ")).unwrap_or_else(|_| "LC_ALL=C\0".to_owned());
    assert_eq!(environment, "LC_ALL=C\0");
    let status = std::fs::read_to_string(proc.join("status")).expect("its status");
    assert!(status.contains("\nUmask:\t0077\n"), "{status}");
    assert_eq!(std::fs::read_link(proc.join("cwd")).expect("its folder"), Path::new("/"));
    for fd in [0, 1] {
        assert_eq!(
            std::fs::read_link(proc.join(format!("fd/{fd}"))).expect("a descriptor"),
            Path::new("/dev/null")
        );
    }
    let limits = std::fs::read_to_string(proc.join("limits")).expect("its limits");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("the limit");
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    let stat = std::fs::read_to_string(proc.join("stat")).expect("its numbers");
    // pid (name) state ppid pgrp …
    let group = stat.rsplit(") ").next().unwrap_or_default().split(' ').nth(2);
    assert_eq!(group, Some(child.to_string().as_str()), "a group of its own");
    let score = std::fs::read_to_string(proc.join("oom_score_adj")).expect("its score");
    assert_eq!(score.trim(), "500");
    // What is not dumpable belongs to root in /proc.
    assert_eq!(std::fs::metadata(proc.join("mem")).expect("its memory").uid(), 0);
}

#[test]
fn without_root_and_with_the_group_shadow_it_checks_local_users() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new("S3cret pass");
    let stack = "auth required pam_unix.so\naccount required pam_unix.so\n";
    let mut pam = PamServer::start(stack, &["--user=nobody"]);
    let mut code = |password: &str| pam.result(&user.name, password).1;
    assert_eq!((code("S3cret pass"), code("wrong")), (Code::SUCCESS, Code::AUTH_ERR));
    for process in [vec![pam.pid()], pam.children()].concat() {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
        let uid = status.lines().find(|line| line.starts_with("Uid:")).expect("its user");
        assert!(uid.split_whitespace().skip(1).all(|uid| uid == "65534"), "{uid}");
        assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
    }
}

#[test]
fn a_child_that_may_not_read_hashes_does_not_call_passwords_wrong() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new("S3cret pass");
    let folder = Folder::new();
    // Debian's stack makes code 7 of it, a wrong password.
    folder.write("sasld", "@include common-auth\n@include common-account\n");
    let setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut child =
        PamServer::child_under_with_complaint(&setpriv, folder, &[], "/etc/shadow may not be read");
    let outcome = child.ask(&user.name, "S3cret pass");
    assert!(matches!(outcome, Outcome::Undecided(Trouble::Rights, _)), "{outcome:?}");
    child.end();
}

/// What systemd is told, in the order it is.
struct Manager {
    socket: UnixDatagram,
    _folder: Folder,
}

impl Manager {
    fn new() -> (Self, String) {
        let folder = Folder::new();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        (Self { socket, _folder: folder }, path.display().to_string())
    }

    fn hears(&self) -> String {
        let mut message = [0; 256];
        let length = self.socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }
}

#[test]
fn systemd_hears_that_it_is_ready_alive_and_at_its_end() {
    let (manager, path) = Manager::new();
    let socket = format!("NOTIFY_SOCKET={path}");
    let mut pam =
        PamServer::start_under(&["env", &socket, "WATCHDOG_USEC=200000"], &module_stack(), &["--min-uid=0"]);
    assert_eq!(manager.hears(), "READY=1\n");
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.hears(), "WATCHDOG=1\n");
    }
    // At once, and then every 100 ms.
    assert!((250..2_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    // A child that hangs does not keep it from that, and is none of systemd's business.
    pam.send("hang", b"right", Lane::Ordinary, Duration::from_millis(500));
    for _ in 0..4 {
        assert_eq!(manager.hears(), "WATCHDOG=1\n");
    }
    signal(pam.pid(), Signal::SIGTERM);
    while manager.hears() != "STOPPING=1\n" {}
}

fn signal(pid: u32, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("a signal");
}

#[test]
fn what_waits_at_sigterm_is_answered() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--workers=1"]);
    assert!(matches!(pam.ask("alice", "right"), Outcome::Checked(_)));
    let hangs = pam.send("hang", b"right", Lane::Ordinary, Duration::from_secs(10));
    let waits = pam.send("alice", b"right", Lane::Ordinary, Duration::from_secs(10));
    // Another lane, whose only child is not even started.
    let quick = pam.send("alice", b"right", Lane::Express, Duration::from_secs(10));
    assert_eq!(pam.receive().id, quick);
    signal(pam.pid(), Signal::SIGTERM);
    let mut answers = [pam.receive(), pam.receive()];
    answers.sort_by_key(|answer| answer.id);
    for (answer, id) in answers.into_iter().zip([hangs, waits]) {
        assert_eq!(answer.id, id);
        assert!(matches!(answer.outcome, Outcome::Undecided(Trouble::NoWorker, _)), "{:?}", answer.outcome);
    }
    assert_eq!(pam.frame(), None);
}

#[test]
fn a_request_whose_child_is_just_being_started_at_sigterm_is_answered() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--workers=1"]);
    let id = pam.send("alice", b"right", Lane::Express, Duration::from_secs(10));
    signal(pam.pid(), Signal::SIGTERM);
    assert_eq!(pam.receive().id, id);
}

#[test]
fn it_ends_on_sigterm_and_takes_its_children_with_it() {
    let mut pam = Listening::start(&module_stack(), &["--min-uid=0", "--peer=nobody"]);
    let _connection = pam.connect();
    let pid = nix::unistd::Pid::from_raw(pam.pid().try_into().expect("a pid"));
    let mut children = String::new();
    wait_until("a child", || {
        children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
        !children.is_empty()
    });
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    assert!(pam.wait().success());
    wait_until("its children's end", || {
        children.split_whitespace().all(|child| {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        })
    });
}

#[test]
fn a_wrong_command_line_is_told() {
    for (arguments, expected) in [
        (&["--service=../passwd"][..], "expected 1 to 32 characters of a-z, 0-9, _ and -"),
        (&["--prompts=0"], "1..=8"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_sasld-pam")).args(arguments).output().expect("sasld-pam");
        assert_eq!(output.status.code(), Some(64));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{said}");
    }
    for (option, arguments) in
        [("--peer", &["--peer=sasldt-nobody"][..]), ("--user", &["--peer=root", "--user=sasldt-nobody"])]
    {
        let folder = Folder::new();
        let output = Command::new(env!("CARGO_BIN_EXE_sasld-pam"))
            .arg("--listen")
            .arg(folder.path().join("sock"))
            .args(arguments)
            .output()
            .expect("sasld-pam");
        let said = String::from_utf8_lossy(&output.stderr);
        let expected =
            format!("there is no user sasldt-nobody; make that user, or name another one with {option}\n");
        assert!(said.ends_with(&expected), "{said}");
        assert_eq!(output.status.code(), Some(71));
    }
    let by_hand =
        Command::new(env!("CARGO_BIN_EXE_sasld-pam")).stdin(Stdio::null()).output().expect("sasld-pam");
    assert_eq!(by_hand.status.code(), Some(71));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("standard input is no connection"));
}
