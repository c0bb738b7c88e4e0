//! A secrets file in a directory of its own, the built program working on it, and terminals for it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

pub use super::support::feed;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use sasld::credential::Password;
use sasld::secrets::{self, LoadOptions, Names, Secrets};
use serde_json::Value;
use tempfile::TempDir;

pub const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

pub const ALICE: &str = "# people\nalice:{PLAIN}wonder\n";

/// A directory with a secrets file in it.
pub struct Place {
    pub directory: TempDir,
}

impl Place {
    pub fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    pub fn with(contents: &str) -> Self {
        let place = Self::empty();
        fs::write(place.file(), contents).unwrap();
        fs::set_permissions(place.file(), Permissions::from_mode(0o640)).unwrap();
        place
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("secrets")
    }

    pub fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// `sasld user ARGUMENTS --file FILE`, nothing connected yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SASLD);
        command.arg("user").arg(arguments[0]).arg("--file").arg(self.file()).args(&arguments[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        feed(self.command(arguments), input)
    }

    pub fn secrets(&self) -> Secrets {
        let names = Names { lowercase: true, allowed: &|_| true };
        secrets::load(&self.file(), &LoadOptions { names, trust: None, previous: None }).unwrap().secrets
    }

    pub fn accepts(&self, name: &str, password: impl Into<Vec<u8>>) -> bool {
        let entry = self.secrets().lookup(name).expect("the user is in the file");
        let password = Password::new(password);
        entry.closed.is_none() && entry.verifiers.unwrap().iter().all(|one| one.verify(&password).is_some())
    }

    pub fn has_no_temporary(&self) -> bool {
        [".secrets.new", ".secrets.edit"].iter().all(|name| !self.directory.path().join(name).exists())
    }
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{}", output.status))
}

pub fn out(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

pub fn err(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// The commands of a shell around a program, which is `"$@"`.
pub fn shell(script: &str, program: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args([OsStr::new("-c"), OsStr::new(script), OsStr::new("sh"), program.get_program()]);
    command.args(program.get_args()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command at a terminal of its own.
pub struct Session {
    pub child: Child,
    terminal: File,
    shown: String,
}

impl Session {
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::of(&place.command(arguments))
    }

    pub fn of(program: &Command) -> Self {
        let pty = openpty(None, None).unwrap();
        let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(program.get_program())
            .args(program.get_args())
            .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(slave(&pty.slave))
            .stdout(slave(&pty.slave))
            .stderr(slave(&pty.slave))
            .spawn()
            .expect("setsid(1) of util-linux");
        Self { child, terminal: File::from(pty.master), shown: String::new() }
    }

    /// Reads until this is on the screen.
    pub fn expect(&mut self, text: &str) {
        self.expect_times(text, 1);
    }

    /// Reads until this is on the screen so many times.
    pub fn expect_times(&mut self, text: &str, times: usize) {
        let mut buffer = [0; 1024];
        while self.shown.matches(text).count() < times {
            let read = self.terminal.read(&mut buffer).unwrap_or(0);
            assert!(read > 0, "the program ended and had shown: {}", self.shown);
            self.shown += str::from_utf8(&buffer[..read]).unwrap();
        }
    }

    pub fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    pub fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    pub fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The exit status, and everything that was on the screen.
    pub fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let mut rest = Vec::new();
        // The last reader of a terminal whose other side is gone gets an error, not an end.
        let _ = self.terminal.read_to_end(&mut rest);
        (status, self.shown + &String::from_utf8(rest).unwrap())
    }
}

pub fn json(output: &Output) -> Value {
    let text = out(output);
    assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
