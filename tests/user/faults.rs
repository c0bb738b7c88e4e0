//! Every system call between the lock and the end fails once, in four ways, and once the program is killed there.
//!
//! strace(1) does it. First a run without faults tells which calls there are; then each of them is hit in a run of its
//! own. Whatever happens, the file is the old one or the new one, byte for byte and with its owner, mode and ACL, and
//! exit code and message say which. The kill comes before the call takes effect, so that of the next call is the kill
//! after this one: what was killed at the rename has the old file, and one call later the new one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::XattrFlags;

use super::place::{ALICE, Place, err, feed};
use super::support::acl::{ACL, acl};
use super::support::skip::not_tested;

const PASSWD: &[&str] = &["passwd", "alice", "--password-stdin", "--scheme", "PLAIN"];
const ADD: &[&str] = &["add", "bob", "--password-stdin", "--scheme", "PLAIN"];

const ERRORS: [&str; 4] = ["EIO", "ENOSPC", "EDQUOT", "EINTR"];

const KILL: &str = "signal=KILL";

/// The kernel does not fail these, or their failure ends the program like a kill.
const NOT_FAILED: [&str; 10] = [
    "exit_group",
    "getrandom",
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

/// The file as it is before a command, of a group and with an ACL that have to be carried over; or no file.
pub fn put(place: &Place, contents: Option<&str>) {
    let file = place.file();
    let _ = fs::remove_file(&file);
    let Some(contents) = contents else { return };
    fs::write(&file, contents).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(&file, Some(0), Some(54321)).unwrap();
    }
    // Without ACLs on this file system the calls still fail.
    let _ = rustix::fs::setxattr(&file, ACL, &acl([6, 4, 4, 4, 0]), XattrFlags::empty());
}

/// Owner, group, mode and ACL.
pub type Access = (u32, u32, u32, Option<Vec<u8>>);

/// All that must stay.
pub fn access(path: &Path) -> Access {
    let metadata = fs::metadata(path).unwrap();
    let mut acl = vec![0; 1024];
    let acl = rustix::fs::getxattr(path, ACL, &mut acl).ok().map(|length| acl[..length].to_vec());
    (metadata.uid(), metadata.gid(), metadata.mode(), acl)
}

/// The access that the file has after this change as well as before it, if it was there.
pub fn access_after(place: &Place, change: &Change) -> Access {
    put(place, change.old.as_deref());
    let output = feed(program(place, change), change.input.as_bytes());
    assert!(output.status.success(), "{}", err(&output));
    access(&place.file())
}

/// A command, and what `sasld user edit` does to the file if it is that one.
pub fn program(place: &Place, change: &Change) -> Command {
    let mut command = place.command(change.arguments);
    command.env("VISUAL", "").env("EDITOR", "echo 'bob:{PLAIN}new' >>");
    command
}

pub fn strace(place: &Place, options: &[&str], change: &Change) -> Output {
    let program = program(place, change);
    let mut command = Command::new("strace");
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-qq", "-o"]).arg(place.directory.path().join("trace")).args(options);
    command.arg("--").arg(program.get_program()).args(program.get_args());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    feed(command, change.input.as_bytes())
}

/// The calls from the opening of the lock file to the end.
fn calls(place: &Place, change: &Change) -> Vec<Call> {
    let output = strace(place, &[], change);
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

/// What a command should come to.
pub struct Change {
    pub arguments: &'static [&'static str],
    /// What comes through standard input.
    pub input: &'static str,
    /// `None` if there is no file yet.
    pub old: Option<String>,
    pub new: String,
}

impl Change {
    fn new(arguments: &'static [&'static str], input: &'static str, old: &str, new: &str) -> Self {
        Self { arguments, input, old: Some(old.to_owned()), new: new.to_owned() }
    }
}

/// What a run came to, judged.
pub fn judge(place: &Place, what: &str, output: &Output, change: &Change, expected: &Access) {
    let now = fs::read_to_string(place.file()).ok();
    let message = err(output);
    let changed = now.as_deref() == Some(change.new.as_str());
    assert!(changed || now == change.old, "{what}: neither old nor new: {now:?}");
    if now.is_some() {
        assert_eq!(access(&place.file()), *expected, "{what}");
    }
    if output.status.signal() == Some(9) {
        return;
    }
    let code = output.status.code().unwrap_or_else(|| panic!("{what}: {}: {message}", output.status));
    match (code, changed) {
        (0, changed) => assert!(changed, "{what}: success, and the old file: {message}"),
        (_, false) => assert!(message.starts_with("sasld: "), "{what}: {message}"),
        (_, true) => {
            let says_so = ["written, but may not survive", "the file was changed, but"];
            assert!(says_so.iter().any(|words| message.contains(words)), "{what}: exit {code}: {message}");
        }
    }
}

/// Whether strace works here.
pub fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let works = tried.is_ok_and(|output| output.status.success());
    if !works {
        not_tested("strace is missing or may not trace");
    }
    works
}

/// Hits every call of this command.
fn hit_every_call(change: &Change) {
    if !can_trace() {
        return;
    }
    let place = Place::empty();
    let is_new = || fs::read_to_string(place.file()).is_ok_and(|text| text == change.new);
    put(&place, change.old.as_deref());
    let calls = calls(&place, change);
    assert!(is_new());
    let count = |name: &str| calls.iter().filter(|call| call.name == name).count();
    assert_eq!((count("flock"), count("fsync"), count("rename")), (1, 2, 1), "{calls:?}");
    if change.old.is_some() {
        put(&place, change.old.as_deref());
    }
    let expected = access(&place.file());
    put(&place, change.old.as_deref());
    let mut runs = 0;
    let mut changes = 0;
    // Whether the kill at each call in turn came after the change.
    let mut kills = Vec::new();
    for Call { name, nth } in &calls {
        let errors = ERRORS.iter().map(|error| format!("error={error}"));
        let errors = errors.filter(|_| !NOT_FAILED.contains(&name.as_str()));
        for fault in errors.chain([KILL.to_owned()]) {
            let inject = format!("inject={name}:{fault}:when={nth}");
            let output = strace(&place, &["-e", &format!("trace={name}"), "-e", &inject], change);
            judge(&place, &inject, &output, change, &expected);
            runs += 1;
            if fault == KILL {
                assert_eq!(output.status.signal(), Some(9), "{inject}: {}", err(&output));
                kills.push(is_new());
            }
            if is_new() {
                changes += 1;
                put(&place, change.old.as_deref());
            }
            let copy = place.directory.path().join(".secrets.edit");
            if err(&output).contains("what you wrote is in") {
                assert_eq!(fs::read_to_string(&copy).unwrap(), change.new, "{inject}");
            }
            // A copy that was edited is not for commands to remove.
            let _ = fs::remove_file(&copy);
            if !place.has_no_temporary() {
                // What a killed writer left goes with the next rewrite.
                let next = feed(program(&place, change), change.input.as_bytes());
                assert!(next.status.success() && is_new(), "{inject}: {}", err(&next));
                assert!(place.has_no_temporary(), "{inject}");
                put(&place, change.old.as_deref());
            }
        }
    }
    let rename = calls.iter().position(|call| call.name == "rename").unwrap();
    let after: Vec<bool> = (0..calls.len()).map(|index| index > rename).collect();
    assert_eq!(kills, after, "{calls:?}");
    assert!(runs > 150 && changes > 10 && changes < runs, "{changes} of {runs}");
    eprintln!("{runs} faults at {} calls", calls.len());
}

fn alice_and_bob() -> String {
    format!("{ALICE}bob:{{PLAIN}}new\n")
}

fn locked() -> String {
    ALICE.replace("wonder", "wonder::::::      nologin")
}

pub fn passwd() -> Change {
    let old = format!("{ALICE}bob:{{PLAIN}}b:1:2::/home/bob\n");
    Change::new(PASSWD, "new", &old, &old.replace("wonder", "new"))
}

pub fn add() -> Change {
    Change::new(ADD, "new", ALICE, &alice_and_bob())
}

pub fn first_add() -> Change {
    Change { arguments: ADD, input: "new", old: None, new: "bob:{PLAIN}new\n".to_owned() }
}

pub fn remove() -> Change {
    Change::new(&["remove", "bob"], "", &alice_and_bob(), ALICE)
}

pub fn lock() -> Change {
    Change::new(&["lock", "alice"], "", ALICE, &locked())
}

pub fn unlock() -> Change {
    Change::new(&["unlock", "alice"], "", &locked(), ALICE)
}

pub fn import() -> Change {
    let arguments = &["import", "-", "--format=list", "--default-scheme=PLAIN", "--scheme=PLAIN", "--apply"];
    Change::new(arguments, "bob:new\n", ALICE, &alice_and_bob())
}

pub fn edit() -> Change {
    Change::new(&["edit"], "", ALICE, &alice_and_bob())
}

/// Every command that writes.
pub fn all() -> [Change; 8] {
    [passwd(), add(), first_add(), remove(), lock(), unlock(), import(), edit()]
}

#[test]
fn no_fault_in_passwd_loses_anything() {
    hit_every_call(&passwd());
}

#[test]
fn no_fault_in_add_loses_anything() {
    hit_every_call(&add());
}

#[test]
fn no_fault_in_the_first_add_leaves_half_a_file() {
    hit_every_call(&first_add());
}

#[test]
fn no_fault_in_remove_loses_anything() {
    hit_every_call(&remove());
}

#[test]
fn no_fault_in_lock_loses_anything() {
    hit_every_call(&lock());
}

#[test]
fn no_fault_in_unlock_loses_anything() {
    hit_every_call(&unlock());
}

#[test]
fn no_fault_in_import_loses_anything() {
    hit_every_call(&import());
}

#[test]
fn no_fault_in_edit_loses_anything_and_what_was_written_stays() {
    hit_every_call(&edit());
}

#[test]
fn a_failed_step_is_named() {
    if !can_trace() {
        return;
    }
    let place = Place::empty();
    let change = passwd();
    for (call, errno, expected) in [
        ("fsync", "EIO", ".secrets.new: fsync: Input/output error"),
        ("fsync:when=2", "EIO", "written, but may not survive a power cut: fsync of the directory"),
        ("rename,renameat,renameat2", "ENOSPC", "/secrets: rename: No space left on device"),
        ("fchmod", "EIO", ".secrets.new: chmod: Input/output error"),
        ("flock", "EIO", ".secrets.lock: flock: Input/output error"),
    ] {
        let (calls, when) = call.split_once(':').unwrap_or((call, "when=1"));
        put(&place, change.old.as_deref());
        let inject = format!("inject={calls}:error={errno}:{when}");
        let output = strace(&place, &["-e", &format!("trace={calls}"), "-e", &inject], &change);
        assert_eq!(output.status.code(), Some(75), "{call}: {}", err(&output));
        assert!(err(&output).contains(expected), "{call}: {}", err(&output));
    }
}
