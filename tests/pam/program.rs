//! The program around the stacks: its socket, its protocol, its end, and what it links.

use crate::harness::{Folder, Listening, LocalUser, PamServer, can_make_users, module_stack, wait_until};
use sasld::pam::code::Code;
use sasld::pam::request::{Hello, Lane, Outcome, Trouble};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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
fn too_many_requests_are_turned_away() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--workers=1"]);
    let ids: Vec<u64> =
        (0..20).map(|_| pam.send("hang", b"right", Lane::Ordinary, Duration::from_secs(1))).collect();
    let answers: Vec<_> = ids.iter().map(|_| pam.receive().outcome).collect();
    let busy =
        answers.iter().filter(|outcome| matches!(outcome, Outcome::Undecided(Trouble::Busy, _))).count();
    let late =
        answers.iter().filter(|outcome| matches!(outcome, Outcome::Undecided(Trouble::Timeout, _))).count();
    assert!(busy >= 14 && busy + late == 20, "{busy} busy, {late} late");
}

#[test]
fn a_client_that_breaks_the_format_is_closed() {
    for bytes in [&[0, 0, 0, 0][..], &[0, 0, 16, 1], &[0, 0, 0, 2, 9, b'Q'], &[0, 0, 0, 3, 1, b'Q', 0]] {
        let mut pam = PamServer::start(&module_stack(), &["--min-uid=0"]);
        pam.write(bytes);
        assert_eq!(pam.frame(), None);
    }
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
    // What is not dumpable belongs to root in /proc.
    assert_eq!(std::fs::metadata(proc.join("mem")).expect("its memory").uid(), 0);
}

#[test]
fn the_socket_is_for_sasld_alone_and_serves_one_connection_after_the_other() {
    let pam = Listening::start(&module_stack(), &["--min-uid=0", "--peer=nobody"]);
    let socket = std::fs::metadata(pam.socket()).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    for _ in 0..2 {
        let mut stream = pam.connect();
        let mut frame = vec![0; 4];
        stream.read_exact(&mut frame).expect("a length");
        let mut frame = vec![0; usize::from(frame[3])];
        stream.read_exact(&mut frame).expect("a greeting");
        Hello::decode(&frame).expect("a greeting");
    }
}

#[test]
fn a_socket_passed_by_systemd_is_served_and_not_passed_on() {
    let folder = Folder::new();
    folder.write("sasld", &module_stack());
    let path = folder.path().join("sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    let program = env!("CARGO_BIN_EXE_sasld-pam");
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=1 exec {program} --min-uid=0 --pam-dir={} 3<&0 </dev/null",
        folder.path().display()
    );
    let mut process =
        Command::new("sh").args(["-c", &script]).stdin(OwnedFd::from(socket)).spawn().expect("sasld-pam");
    let mut stream = UnixStream::connect(&path).expect("a connection");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a greeting");
    let pid = process.id();
    let mut children = String::new();
    wait_until("a child that has said that it is ready", || {
        children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
        let child = children.trim();
        std::fs::read_link(format!("/proc/{child}/fd/0")).is_ok_and(|fd| fd == Path::new("/dev/null"))
    });
    let fds = std::fs::read_dir(format!("/proc/{}/fd", children.trim())).expect("descriptors").flatten();
    let sockets = fds.filter(|fd| {
        std::fs::read_link(fd.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    assert_eq!(sockets.count(), 1, "its channel and nothing else");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.try_into().expect("a pid")),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("a signal");
    assert!(process.wait().expect("its end").success());
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
    let by_hand =
        Command::new(env!("CARGO_BIN_EXE_sasld-pam")).stdin(Stdio::null()).output().expect("sasld-pam");
    assert_eq!(by_hand.status.code(), Some(71));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("standard input is no connection"));
}
