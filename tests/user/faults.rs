//! Every system call between the lock and the end fails once, in four ways, and once the program is killed there.
//!
//! strace(1) does it. First a run without faults tells which calls there are; then each of them is hit in a run of its
//! own. Whatever happens, the file is the old one or the new one, byte for byte and with its owner, mode and ACL, and
//! exit code and message say which.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::XattrFlags;

use super::place::{ALICE, Place, err, feed};
use super::support::skip::not_tested;

const ACL: &str = "system.posix_acl_access";

const ERRORS: [&str; 4] = ["EIO", "ENOSPC", "EDQUOT", "EINTR"];

/// The kernel does not fail these, or their failure ends the program like a kill.
const NOT_FAILED: [&str; 9] = [
    "exit_group",
    "mmap",
    "munmap",
    "mprotect",
    "brk",
    "sigaltstack",
    "mremap",
    "rt_sigprocmask",
    "rt_sigaction",
];

/// One system call of a run.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    /// Counted from 1 among those of its name, as strace counts.
    nth: usize,
}

/// A user of the service's group, or nobody's, so that owner and ACL have to be carried over.
fn put(place: &Place, contents: &str) {
    let file = place.file();
    let _ = fs::remove_file(&file);
    fs::write(&file, contents).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(&file, Some(0), Some(54321)).unwrap();
    }
    // user::rw- user:12345:r-- group::r-- mask::r-- other::---; without ACLs on this file system the calls still fail.
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let nobody = u32::MAX;
    let entries = [
        entry(1, 6, nobody),
        entry(2, 4, 12345),
        entry(4, 4, nobody),
        entry(16, 4, nobody),
        entry(32, 0, nobody),
    ];
    let acl = [&2u32.to_le_bytes()[..], &entries.concat()].concat();
    let _ = rustix::fs::setxattr(&file, ACL, &acl, XattrFlags::empty());
}

/// All that must stay.
fn access(path: &Path) -> (u32, u32, u32, Option<Vec<u8>>) {
    let metadata = fs::metadata(path).unwrap();
    let mut acl = vec![0; 1024];
    let acl = rustix::fs::getxattr(path, ACL, &mut acl).ok().map(|length| acl[..length].to_vec());
    (metadata.uid(), metadata.gid(), metadata.mode(), acl)
}

fn strace(place: &Place, options: &[&str], arguments: &[&str]) -> Output {
    let program = place.command(arguments);
    let mut command = Command::new("strace");
    command.args(["-qq", "-o"]).arg(place.directory.path().join("trace")).args(options);
    command.arg("--").arg(program.get_program()).args(program.get_args());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    feed(command, b"new")
}

/// The calls from the opening of the lock file to the end.
fn calls(place: &Place, arguments: &[&str]) -> Vec<Call> {
    let output = strace(place, &[], arguments);
    assert!(output.status.success(), "{}", err(&output));
    let trace = fs::read_to_string(place.directory.path().join("trace")).unwrap();
    let mut calls: Vec<Call> = Vec::new();
    let mut after_lock = None;
    for line in trace.lines() {
        let Some((name, rest)) = line.split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        if rest.contains(".secrets.lock") {
            after_lock.get_or_insert(calls.len());
        }
        let nth = calls.iter().filter(|call| call.name == name).count() + 1;
        calls.push(Call { name: name.to_owned(), nth });
    }
    calls.split_off(after_lock.expect("the lock is in the trace"))
}

/// What a run came to, judged.
fn judge(
    place: &Place,
    what: &str,
    output: &Output,
    old: &str,
    new: &str,
    before: &(u32, u32, u32, Option<Vec<u8>>),
) {
    let now = place.text();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(now == old || now == new, "{what}: neither old nor new: {now}");
    assert_eq!(access(&place.file()), *before, "{what}");
    if output.status.signal() == Some(9) {
        return;
    }
    let code = output.status.code().unwrap_or_else(|| panic!("{what}: {}: {message}", output.status));
    match (code, now == new) {
        (0, changed) => assert!(changed, "{what}: success, and the old file: {message}"),
        (_, false) => assert!(message.starts_with("sasld: "), "{what}: {message}"),
        (_, true) => {
            let says_so = ["written, but may not survive", "the file was changed, but"];
            assert!(says_so.iter().any(|words| message.contains(words)), "{what}: exit {code}: {message}");
        }
    }
}

/// Hits every call of this command.
fn hit_every_call(arguments: &[&str], old: &str, new: &str) {
    let place = Place::empty();
    if !Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return not_tested("strace is missing or may not trace");
    }
    put(&place, old);
    let calls = calls(&place, arguments);
    assert_eq!(place.text(), new);
    assert!(
        calls.iter().any(|call| call.name == "flock")
            && calls.iter().filter(|call| call.name == "fsync").count() == 2
    );
    put(&place, old);
    let before = access(&place.file());
    let mut runs = 0;
    let mut changed = 0;
    for Call { name, nth } in &calls {
        let errors = ERRORS.iter().map(|error| format!("error={error}"));
        let errors = errors.filter(|_| !NOT_FAILED.contains(&name.as_str()));
        for fault in errors.chain(["signal=KILL".to_owned()]) {
            let inject = format!("inject={name}:{fault}:when={nth}");
            let trace = format!("trace={name}");
            let output = strace(&place, &["-e", &trace, "-e", &inject], arguments);
            judge(&place, &inject, &output, old, new, &before);
            runs += 1;
            if place.text() == new {
                changed += 1;
                put(&place, old);
            }
            if !place.has_no_temporary() {
                // What a killed writer left goes with the next rewrite.
                let next = feed(place.command(arguments), b"new");
                assert!(next.status.success() && place.text() == new, "{inject}: {}", err(&next));
                assert!(place.has_no_temporary(), "{inject}");
                put(&place, old);
            }
        }
    }
    assert!(runs > 100 && changed > 10 && changed < runs, "{changed} of {runs}");
}

#[test]
fn no_fault_in_passwd_loses_anything() {
    let old = format!("{ALICE}bob:{{PLAIN}}b:1:2::/home/bob\n");
    let new = old.replace("wonder", "new");
    hit_every_call(&["passwd", "alice", "--password-stdin", "--scheme", "PLAIN"], &old, &new);
}

#[test]
fn no_fault_in_add_loses_anything() {
    let new = format!("{ALICE}bob:{{PLAIN}}new\n");
    hit_every_call(&["add", "bob", "--password-stdin", "--scheme", "PLAIN"], ALICE, &new);
}

#[test]
fn no_fault_in_remove_loses_anything() {
    let old = format!("{ALICE}bob:{{PLAIN}}b\n");
    hit_every_call(&["remove", "bob"], &old, ALICE);
}

#[test]
fn no_fault_in_lock_loses_anything() {
    let new = ALICE.replace("wonder", "wonder::::::      nologin");
    hit_every_call(&["lock", "alice"], ALICE, &new);
}

#[test]
fn a_failed_step_is_named() {
    let place = Place::with(ALICE);
    if !Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return not_tested("strace is missing or may not trace");
    }
    let arguments = ["passwd", "alice", "--password-stdin", "--scheme", "PLAIN"];
    for (call, errno, expected) in [
        ("fsync", "EIO", ".secrets.new: fsync: Input/output error"),
        ("fsync:when=2", "EIO", "written, but may not survive a power cut: fsync of the directory"),
        ("rename,renameat,renameat2", "ENOSPC", "/secrets: rename: No space left on device"),
        ("fchmod", "EIO", ".secrets.new: chmod: Input/output error"),
        ("flock", "EIO", ".secrets.lock: flock: Input/output error"),
    ] {
        let (calls, when) = call.split_once(':').unwrap_or((call, "when=1"));
        put(&place, ALICE);
        let inject = format!("inject={calls}:error={errno}:{when}");
        let output = strace(&place, &["-e", &format!("trace={calls}"), "-e", &inject], &arguments);
        assert_eq!(output.status.code(), Some(75), "{call}: {}", err(&output));
        assert!(err(&output).contains(expected), "{call}: {}", err(&output));
    }
}
