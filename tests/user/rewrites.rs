//! Rewrites that are killed, out of space, waiting for each other, or fifty at once.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::fs::FlockOperation;

use super::place::{ALICE, Place, SASLD, code, err, feed, shell};
use super::support::soak::{count, note};

#[test]
fn fifty_commands_at_once_are_all_applied() {
    let place = Place::with(ALICE);
    let children: Vec<Child> = (0..50)
        .map(|n| {
            let name = format!("user{n}");
            let mut command = place.command(&["add", &name, "--password-stdin", "--scheme", "PLAIN"]);
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(name.as_bytes()).unwrap();
            child
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", err(&output));
    }
    assert!((0..50).all(|n| place.accepts(&format!("user{n}"), format!("user{n}"))));
    assert_eq!(place.secrets().len(), 51);
}

#[test]
fn commands_of_all_kinds_at_once_are_all_applied() {
    let there: String = (0..5).map(|n| format!("old{n}:{{PLAIN}}x\n")).collect();
    let place = Place::with(&there);
    let start = |arguments: &[&str], editor: String, input: String| {
        let mut command = place.command(arguments);
        command.env("VISUAL", "").env("EDITOR", editor);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child
    };
    let children: Vec<Child> = (0..5)
        .flat_map(|n| {
            let (old, added) = (format!("old{n}"), format!("added{n}"));
            let (imported, edited) = (format!("imported{n}:i\n"), format!("echo 'edited{n}:{{PLAIN}}e' >>"));
            let import =
                ["import", "-", "--format=list", "--default-scheme=PLAIN", "--scheme=PLAIN", "--apply"];
            [
                start(&["add", &added, "--password-stdin", "--scheme", "PLAIN"], String::new(), "a".into()),
                start(&["passwd", &old, "--password-stdin", "--scheme", "PLAIN"], String::new(), "p".into()),
                start(&["lock", &old], String::new(), String::new()),
                start(&import, String::new(), imported),
                start(&["edit"], edited, String::new()),
            ]
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", err(&output));
    }
    let text = place.text();
    for n in 0..5 {
        for (name, password) in [("added", "a"), ("imported", "i"), ("edited", "e")] {
            assert!(text.contains(&format!("{name}{n}:{{PLAIN}}{password}\n")), "{name}{n}: {text}");
        }
        assert!(text.contains(&format!("old{n}:{{PLAIN}}p::::::      nologin\n")), "{text}");
    }
    assert_eq!(text.lines().count(), 20);
    assert!(place.has_no_temporary());
}

#[test]
fn a_killed_rewrite_leaves_the_old_file_or_the_new_one() {
    let many: String = (0..20_000).map(|n| format!("user{n}:{{PLAIN}}x\n")).collect();
    let place = Place::with(&many);
    let before = fs::metadata(place.file()).unwrap();
    let (rounds, mut kills, start) = (count(20, 10_000), 0, Instant::now());
    for round in 0..rounds {
        let name = format!("new{round}");
        let mut command = place.command(&["add", &name, "--password-stdin", "--scheme", "PLAIN"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        // Killed as soon as it writes, or a little later in each round until it has ended by then.
        while place.has_no_temporary() && child.try_wait().unwrap().is_none() {}
        for _ in 0..round % 100 {
            let _ = place.has_no_temporary();
        }
        child.kill().unwrap();
        let killed = child.wait().unwrap().signal().is_some();
        kills += usize::from(killed);
        let secrets = place.secrets();
        let added = secrets.lookup(&name).is_some();
        assert!(added || killed);
        assert!(place.text().ends_with('\n') && secrets.problems().total() == 0);
        let after = fs::metadata(place.file()).unwrap();
        assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
    }
    let next = place.run(&["add", "last", "--password-stdin", "--scheme", "PLAIN"], b"x");
    assert_eq!(code(&next), 0, "{}", err(&next));
    assert!(place.has_no_temporary() && place.accepts("last", "x"));
    assert!(kills > 0, "every one of {rounds} commands had ended before it was killed");
    let seconds = start.elapsed().as_secs_f64();
    note(&format!(
        "| rewrites of 20,000 users, {kills} of them killed | {rounds} | {seconds:.1} s | – | – | – |"
    ));
}

#[test]
fn a_full_disk_is_named_and_the_old_file_stays() {
    let place = Place::with(&(ALICE.to_owned() + &"# filler\n".repeat(1_000)));
    let before = place.text();
    // A limit of one block, and no signal about it, makes write(2) fail as a full disk does.
    let program = place.command(&["add", "bob", "--password-stdin", "--scheme", "PLAIN"]);
    let output = feed(shell("trap '' XFSZ; ulimit -f 1; exec \"$@\"", &program), b"b");
    assert_eq!(code(&output), 75, "{}", err(&output));
    assert!(err(&output).contains(".secrets.new: write: "), "{}", err(&output));
    assert_eq!(place.text(), before);
    assert!(place.has_no_temporary());
}

#[test]
fn the_umask_changes_nothing() {
    for umask in ["000", "777"] {
        let place = Place::with(ALICE);
        let program = place.command(&["add", "bob", "--password-stdin", "--scheme", "PLAIN"]);
        let script = format!("umask {umask}; exec \"$@\"");
        let output = feed(shell(&script, &program), b"b");
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert_eq!(fs::metadata(place.file()).unwrap().mode() & 0o7777, 0o640);

        let place = Place::empty();
        let program = place.command(&["add", "bob", "--password-stdin", "--scheme", "PLAIN"]);
        for name in ["bob", "kate"] {
            let mut arguments: Vec<_> = program.get_args().map(OsStr::to_owned).collect();
            arguments[4] = name.into();
            let mut command = Command::new(SASLD);
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
            let output = feed(shell(&script, &command), b"b");
            assert_eq!(code(&output), 0, "{}", err(&output));
        }
        let mode = fs::metadata(place.file()).unwrap().mode() & 0o7777;
        assert!([0o600, 0o640].contains(&mode), "{mode:o}");
        let lock = fs::metadata(place.directory.path().join(".secrets.lock")).unwrap();
        assert_eq!(lock.mode() & 0o7777, 0o600);
    }
}

#[test]
fn who_may_not_write_is_told_who_may() {
    const NOBODY: u32 = 65534;
    let place = Place::with(ALICE);
    let mut command = place.command(&["add", "bob", "--password-stdin", "--scheme", "PLAIN"]);
    let root = rustix::process::geteuid().is_root();
    if root {
        // The program may lie where nobody else can go.
        let copy = place.directory.path().join("sasld");
        fs::copy(SASLD, &copy).unwrap();
        let mut copied = Command::new(&copy);
        copied.args(command.get_args()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command = copied;
        command.uid(NOBODY).gid(NOBODY);
        fs::set_permissions(place.file(), Permissions::from_mode(0o644)).unwrap();
    } else {
        fs::set_permissions(place.directory.path(), Permissions::from_mode(0o555)).unwrap();
    }
    let output = feed(command, b"b");
    fs::set_permissions(place.directory.path(), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(code(&output), 77, "{}", err(&output));
    let directory = place.directory.path().to_str().unwrap();
    assert!(err(&output).contains(directory), "{}", err(&output));
    assert!(!root || err(&output).contains("run this as root"), "{}", err(&output));
    assert_eq!(place.text(), ALICE);
}

// Two at once

#[test]
fn who_has_to_wait_says_for_whom_and_then_does_it() {
    let place = Place::with(ALICE);
    let lock = File::create(place.directory.path().join(".secrets.lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut child = place.command(&["lock", "alice"]).spawn().unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    messages.read_line(&mut line).unwrap();
    let expected = format!("sasld: waiting for PID {} (", std::process::id());
    assert!(line.starts_with(&expected), "{line}");
    assert_eq!(place.text(), ALICE);
    drop(lock);
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    messages.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "it is said once");
    assert!(place.text().contains("nologin"));
}

#[test]
fn an_import_that_had_to_wait_keeps_what_others_changed_and_takes_nobody_from_them() {
    for (meanwhile, exit, expected) in [
        ("alice:{PLAIN}other\neve:{PLAIN}e\n", 0, "alice:{PLAIN}other\neve:{PLAIN}e\nbob:{PLAIN}b\n"),
        ("alice:{PLAIN}wonder\nBob:{PLAIN}his\n", 75, "alice:{PLAIN}wonder\nBob:{PLAIN}his\n"),
    ] {
        let place = Place::with(ALICE);
        let lock = File::create(place.directory.path().join(".secrets.lock")).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        let import = ["import", "-", "--format=list", "--default-scheme=PLAIN", "--scheme=PLAIN", "--apply"];
        let mut child = place.command(&import).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"bob:b\n").unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        messages.read_line(&mut line).unwrap();
        assert!(line.starts_with("sasld: waiting for PID "), "{line}");
        fs::write(place.file(), meanwhile).unwrap();
        drop(lock);
        let status = child.wait().unwrap();
        let mut rest = String::new();
        messages.read_to_string(&mut rest).unwrap();
        assert_eq!((status.code(), place.text().as_str()), (Some(exit), expected), "{rest}");
        assert!(exit == 0 || rest.contains("changed it at the same moment; nothing was written"), "{rest}");
    }
}
