//! `sasld user` as it is typed: passwords at a terminal and through a pipe, exit codes, and rewrites that are killed,
//! out of space, or fifty at once.
//!
//! The program runs as it was built, on files in private temporary directories. Terminals are pseudo-terminals that
//! setsid(1) makes the controlling ones.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use sasld::credential::Password;
use sasld::secrets::{self, LoadOptions, Names, Secrets};
use tempfile::TempDir;

const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

const ALICE: &str = "# people\nalice:{PLAIN}wonder\n";

/// A directory with a secrets file in it.
struct Place {
    directory: TempDir,
}

impl Place {
    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn with(contents: &str) -> Self {
        let place = Self::empty();
        fs::write(place.file(), contents).unwrap();
        fs::set_permissions(place.file(), Permissions::from_mode(0o640)).unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("secrets")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// `sasld user ARGUMENTS --file FILE`, nothing connected yet.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SASLD);
        command.arg("user").arg(arguments[0]).arg("--file").arg(self.file()).args(&arguments[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        feed(self.command(arguments), input)
    }

    fn secrets(&self) -> Secrets {
        let names = Names { lowercase: true, allowed: &|_| true };
        secrets::load(&self.file(), &LoadOptions { names, trust: None, previous: None }).unwrap().secrets
    }

    fn accepts(&self, name: &str, password: impl Into<Vec<u8>>) -> bool {
        let entry = self.secrets().lookup(name).expect("the user is in the file");
        let password = Password::new(password);
        entry.closed.is_none() && entry.verifiers.unwrap().iter().all(|one| one.verify(&password).is_some())
    }

    fn has_no_temporary(&self) -> bool {
        !self.directory.path().join(".secrets.new").exists()
    }
}

fn feed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{}", output.status))
}

fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// The commands of a shell around a program, which is `"$@"`.
fn shell(script: &str, program: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args([OsStr::new("-c"), OsStr::new(script), OsStr::new("sh"), program.get_program()]);
    command.args(program.get_args()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

// Passwords through a pipe

#[test]
fn one_newline_at_the_end_is_no_part_of_the_password_and_everything_else_is() {
    let place = Place::with(ALICE);
    for (name, input, password) in [
        ("a", "a \n", "a "),
        ("b", "b\n\n", "b\n"),
        ("c", "c", "c"),
        ("d", " d\r\n", " d\r"),
        ("e", "\u{fc}:{", "\u{fc}:{"),
    ] {
        for scheme in ["cram-md5", "plain"] {
            let name = format!("{name}-{scheme}");
            let added = place.run(&["add", &name, "--password-stdin", "--scheme", scheme], input.as_bytes());
            assert_eq!(code(&added), 0, "{}", err(&added));
            assert!(place.accepts(&name, password), "{input:?} {scheme}");
        }
    }
    assert!(place.text().starts_with(ALICE));
}

#[test]
fn without_a_scheme_the_password_serves_every_mechanism() {
    let place = Place::empty();
    let added = place.run(&["add", "Alice", "--password-stdin"], b"secret\n");
    assert_eq!(code(&added), 0, "{}", err(&added));
    assert!(out(&added).contains("user alice added, stored as ARGON2ID and CRAM-MD5"), "{}", out(&added));
    assert!(out(&added).contains("as good as the password"), "what CRAM-MD5 costs is said");
    assert!(place.accepts("alice", "secret"));
}

#[test]
fn an_impossible_password_changes_nothing() {
    let place = Place::with(ALICE);
    for input in [&b""[..], b"\n", b"a\0b", &[b'x'; 1025], &[b'x'; 100_000]] {
        for command in ["add", "passwd"] {
            let name = if command == "add" { "bob" } else { "alice" };
            let output = place.run(&[command, name, "--password-stdin", "--scheme", "PLAIN"], input);
            assert_eq!(code(&output), 1, "{}", err(&output));
        }
    }
    assert_eq!(place.text(), ALICE);
    let longest = place.run(&["add", "bob", "--password-stdin", "--scheme", "PLAIN"], &[b'x'; 1024]);
    assert_eq!(code(&longest), 0, "{}", err(&longest));
}

#[test]
fn a_new_password_replaces_the_old_one_and_nothing_else() {
    let place = Place::with("# people\nAlice:{PLAIN}wonder:1:2::/h::userdb_x=y\n\nbob:{PLAIN}b\n");
    let changed = place.run(&["passwd", "alice", "--password-stdin", "--scheme", "PLAIN"], b"land\n");
    assert_eq!(code(&changed), 0, "{}", err(&changed));
    assert_eq!(place.text(), "# people\nAlice:{PLAIN}land:1:2::/h::userdb_x=y\n\nbob:{PLAIN}b\n");
    assert!(out(&changed).contains("PLAIN stores the password itself"));
    assert!(out(&changed).contains("stored as PLAIN"));
}

#[test]
fn a_password_among_the_arguments_is_refused_with_the_reason_and_not_repeated() {
    let place = Place::with(ALICE);
    for command in ["add", "passwd"] {
        let output = place.run(&[command, "alice", "hunter2"], b"");
        assert_eq!(code(&output), 64);
        assert!(err(&output).contains("process list") && err(&output).contains("--password-stdin"));
        assert!(!err(&output).contains("hunter2"));
    }
    assert_eq!(place.text(), ALICE);
}

#[test]
fn names_that_cannot_be_are_refused_with_the_reason() {
    let place = Place::with(ALICE);
    let long = "x".repeat(256);
    for (name, reason) in [
        ("a:b", "do not allow \"a:b\""),
        ("a\nb", "control character"),
        ("a\x1b[31m", "control character"),
        (&*long, "256 bytes"),
        ("", "empty"),
        ("a b", "do not allow"),
        ("\u{202e}a", "do not allow \"\\u{202e}a\""),
        ("#a", "do not allow"),
    ] {
        let output = place.run(&["add", "--password-stdin", "--", name], b"x");
        assert_eq!(code(&output), 64, "{name:?}: {}", err(&output));
        assert!(err(&output).contains(reason), "{name:?}: {}", err(&output));
        assert!(!err(&output).contains('\x1b') && !err(&output).contains('\u{202e}'));
    }
    assert_eq!(place.text(), ALICE);
    let hyphen = place.run(&["add", "--password-stdin", "--scheme=PLAIN", "--", "-a"], b"x");
    assert_eq!(code(&hyphen), 0, "{}", err(&hyphen));
}

#[test]
fn who_exists_is_not_added_and_who_does_not_is_not_changed() {
    let place = Place::with(ALICE);
    for (arguments, expected) in [
        (&["add", "ALICE", "--password-stdin"][..], "user alice exists already"),
        (&["passwd", "bob", "--password-stdin"], "there is no user bob"),
        (&["remove", "alice", "bob"], "there is no user bob"),
    ] {
        let output = place.run(arguments, b"x");
        assert_eq!(code(&output), 1);
        assert!(err(&output).contains(expected), "{}", err(&output));
    }
    assert_eq!(place.text(), ALICE, "also alice stays: all are removed or none");
}

#[test]
fn removed_users_are_gone_and_the_rest_stays() {
    let place = Place::with("# people\nalice:{PLAIN}a\nbob:{PLAIN}b\nBob:{PLAIN}c\nkate:{PLAIN}k\n");
    let output = place.run(&["remove", "bob", "Alice"], b"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("user bob removed") && out(&output).contains("(2 lines)"));
    assert_eq!(place.text(), "# people\nkate:{PLAIN}k\n");
}

#[test]
fn without_a_file_there_is_nobody_to_change() {
    let place = Place::empty();
    for arguments in [&["list"][..], &["remove", "alice"], &["passwd", "alice", "--password-stdin"]] {
        let output = place.run(arguments, b"x");
        assert_eq!(code(&output), 78);
        assert!(err(&output).contains("there is no such file"), "{}", err(&output));
    }
    assert!(!place.file().exists());
}

// The terminal

/// A command at a terminal of its own.
struct Session {
    child: Child,
    terminal: File,
    shown: String,
}

impl Session {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        let program = place.command(arguments);
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(program.get_program())
            .args(program.get_args())
            .stdin(slave(&pty.slave))
            .stdout(slave(&pty.slave))
            .stderr(slave(&pty.slave))
            .spawn()
            .expect("setsid(1) of util-linux");
        Self { child, terminal: File::from(pty.master), shown: String::new() }
    }

    /// Reads until this is on the screen.
    fn expect(&mut self, text: &str) {
        let mut buffer = [0; 1024];
        while !self.shown.contains(text) {
            let read = self.terminal.read(&mut buffer).unwrap_or(0);
            assert!(read > 0, "the program ended and had shown: {}", self.shown);
            self.shown += str::from_utf8(&buffer[..read]).unwrap();
        }
    }

    fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The exit status, and everything that was on the screen.
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let mut rest = Vec::new();
        // The last reader of a terminal whose other side is gone gets an error, not an end.
        let _ = self.terminal.read_to_end(&mut rest);
        (status, self.shown + &String::from_utf8(rest).unwrap())
    }
}

#[test]
fn the_password_is_asked_for_twice_and_never_shown() {
    let place = Place::with(ALICE);
    let mut session = Session::start(&place, &["add", "bob", "--scheme", "PLAIN"]);
    session.expect("Password for bob: ");
    assert!(!session.echoes());
    session.type_in("pass word\u{fc}\n");
    session.expect("The same again: ");
    session.type_in("pass word\u{fc}\n");
    session.expect("user bob added");
    assert!(session.echoes());
    let (status, shown) = session.end();
    assert_eq!(status.code(), Some(0));
    assert!(!shown.contains("word\u{fc}"), "{shown}");
    assert!(place.accepts("bob", "pass word\u{fc}"));
}

#[test]
fn two_different_passwords_change_nothing() {
    let place = Place::with(ALICE);
    let mut session = Session::start(&place, &["passwd", "alice"]);
    session.expect("Password for alice: ");
    session.type_in("one\n");
    session.expect("The same again: ");
    session.type_in("two\n");
    session.expect("the two passwords differ");
    assert_eq!(session.end().0.code(), Some(1));
    assert_eq!(place.text(), ALICE);
}

#[test]
fn an_interrupted_prompt_leaves_the_echo_on_and_the_file_alone() {
    enum Interruption {
        Typed(&'static str),
        Sent(Signal),
    }
    for (interruption, expected) in [
        (Interruption::Typed("half\x03"), 130),
        (Interruption::Sent(Signal::SIGINT), 130),
        (Interruption::Sent(Signal::SIGTERM), 143),
        (Interruption::Typed("\x04"), 1),
    ] {
        let place = Place::with(ALICE);
        let mut session = Session::start(&place, &["add", "bob"]);
        session.expect("Password for bob: ");
        assert!(!session.echoes());
        match interruption {
            Interruption::Typed(keys) => session.type_in(keys),
            Interruption::Sent(signal) => session.send(signal),
        }
        let status = session.child.wait().unwrap();
        assert_eq!(status.code(), Some(expected), "{status}");
        assert!(session.echoes());
        assert_eq!(place.text(), ALICE);
        assert!(place.has_no_temporary());
    }
}

#[test]
fn without_a_terminal_the_way_out_is_named() {
    let place = Place::with(ALICE);
    let mut command = Command::new("setsid");
    let program = place.command(&["add", "bob"]);
    command.arg("--wait").arg(program.get_program()).args(program.get_args());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(code(&output), 64, "{}", err(&output));
    assert!(err(&output).contains("--password-stdin"), "{}", err(&output));
}

// Listing

#[test]
fn the_list_shows_what_each_user_can_use_and_no_secret() {
    let place = Place::with(
        "alice:{PLAIN}hunter2\nbob:{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU\n\
         kate:{PLAIN}hunter2:::::: nologin\nbroken:{PLAIN.hex}hunter2\n",
    );
    let text = place.run(&["list"], b"");
    assert_eq!(code(&text), 0);
    let rows: Vec<Vec<&str>> = out(&text).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "SCHEMES", "MECHANISMS"]);
    assert_eq!(rows[1], ["alice", "PLAIN", "PLAIN", "LOGIN", "CRAM-MD5"]);
    assert_eq!(rows[2], ["bob", "SSHA256", "PLAIN", "LOGIN"]);
    assert_eq!(rows[3], ["kate", "PLAIN", "none:", "nologin"]);
    assert!(out(&text).contains("line 4 (broken): "), "{}", out(&text));

    let json = place.run(&["list", "--json"], b"");
    assert!(
        out(&json)
            .contains(r#"{"name":"bob","schemes":["SSHA256"],"mechanisms":["PLAIN","LOGIN"],"closed":null}"#)
    );
    assert!(out(&json).contains(r#""line":4,"name":"broken","reason":""#));
    for output in [text, json] {
        assert!(!out(&output).contains("hunter2") && !out(&output).contains("Z0pk"));
    }
}

#[test]
fn names_made_to_mislead_are_spelled_out() {
    let place = Place::with("a\u{202e}b:{PLAIN}x\nc\x1b[2Jd:{PLAIN}x\n\"q\\:{PLAIN}x\n");
    let text = place.run(&["list"], b"");
    assert!(out(&text).contains("a\\u{202e}b") && out(&text).contains("line 2: the user name contains"));
    let json = place.run(&["list", "--json"], b"");
    assert!(out(&json).contains(r#""name":"a\u202eb""#) && out(&json).contains(r#""name":"\"q\\""#));
    for output in [text, json] {
        assert!(!out(&output).contains('\u{202e}') && !out(&output).contains('\x1b'));
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error_and_a_full_disk_is() {
    let many: String = (0..20_000).map(|n| format!("user{n}:{{PLAIN}}x\n")).collect();
    let place = Place::with(&many);
    for arguments in [&["list"][..], &["list", "--json"]] {
        let program = place.command(arguments);
        let head = shell("{ \"$@\"; echo \"exit $?\" >&2; } | head -1", &program).output().unwrap();
        assert_eq!(err(&head), "exit 0\n");
        let full = place.command(arguments).stdout(File::create("/dev/full").unwrap()).output().unwrap();
        assert_eq!(code(&full), 74, "{}", err(&full));
        assert!(err(&full).contains("No space left"), "{}", err(&full));
    }
}

#[test]
fn a_file_that_the_daemon_would_refuse_is_listed_with_a_warning() {
    let place = Place::with(ALICE);
    fs::set_permissions(place.file(), Permissions::from_mode(0o644)).unwrap();
    let output = place.run(&["list"], b"");
    assert_eq!(code(&output), 0);
    assert!(out(&output).contains("alice") && out(&output).contains("chmod 0640"), "{}", out(&output));
}

// Rewrites

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
fn a_killed_rewrite_leaves_the_old_file_or_the_new_one() {
    let many: String = (0..20_000).map(|n| format!("user{n}:{{PLAIN}}x\n")).collect();
    let place = Place::with(&many);
    let before = fs::metadata(place.file()).unwrap();
    for round in 0..20 {
        let name = format!("new{round}");
        let mut command = place.command(&["add", &name, "--password-stdin", "--scheme", "PLAIN"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        // Killed as soon as it writes, or a little later in each round.
        while place.has_no_temporary() && child.try_wait().unwrap().is_none() {}
        for _ in 0..round {
            let _ = place.has_no_temporary();
        }
        child.kill().unwrap();
        let killed = child.wait().unwrap().signal().is_some();
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
