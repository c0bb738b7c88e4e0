//! A small launcher in systemd's place: it binds the socket, passes it as descriptor 3, and starts the daemon again.

use super::support::log::Log;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

/// `NUL alice NUL wonder`.
pub const RIGHT: &str = "AGFsaWNlAHdvbmRlcg==";

/// Only a broken daemon takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a configuration, a secrets file with alice in it, and a state directory.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("sasld-units-").tempdir().unwrap();
        let place = Self { dir };
        fs::write(place.path("secrets"), "alice:{PLAIN}wonder\n").unwrap();
        fs::set_permissions(place.path("secrets"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::create_dir(place.path("state")).unwrap();
        place.configure("");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration, with these lines in it as well.
    pub fn configure(&self, settings: &str) {
        let (user, group) = (Uid::effective(), Gid::effective());
        let at = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "listeners:\n  - {{unix: {}, owner: {user}, group: {group}, mode: \"0600\"}}\n\
             passdbs:\n  - secrets_file: {}\nrefusal_delay: 0s\ncontrol: {}\n{settings}",
            at("auth"),
            at("secrets"),
            at("control")
        );
        fs::write(self.path("sasld.yaml"), text).unwrap();
    }

    /// The command line that serves from here, with the state directory.
    pub fn serve(&self) -> Command {
        self.serve_with(Path::new(SASLD))
    }

    /// The same with another copy of the program.
    pub fn serve_with(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(self.path("sasld.yaml"));
        command.arg("--state-directory").arg(self.path("state"));
        command
    }
}

/// A descriptor that children inherit.
pub fn inheritable(socket: impl Into<OwnedFd>) -> OwnedFd {
    let socket = socket.into();
    fcntl(socket.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    socket
}

/// This command with these descriptors as systemd passes them.
pub fn passing(command: &Command, sockets: &[&OwnedFd]) -> Command {
    let mut redirections = String::new();
    // In two steps, for a descriptor might be where another is wanted.
    for (index, socket) in sockets.iter().enumerate() {
        redirections += &format!(" {}<&{}", 20 + index, socket.as_raw_fd());
    }
    for index in 0..sockets.len() {
        redirections += &format!(" {}<&{}-", 3 + index, 20 + index);
    }
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!(
        "exec {redirections}; export LISTEN_FDS={} LISTEN_PID=$$; exec \"$0\" \"$@\"",
        sockets.len()
    ));
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// A running daemon; dropping it kills it.
pub struct Daemon {
    pub log: Log,
    child: Child,
}

impl Daemon {
    /// Runs the command and reads its log.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::follow(child.stderr.take().unwrap());
        Self { log, child }
    }

    /// Runs it until it is ready.
    pub fn ready(command: Command) -> Self {
        let daemon = Self::start(command);
        daemon.log.wait_for(&["event=ready"]);
        daemon
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Stops it as systemd does. Its whole log has been read when this returns.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.wait().success());
        self.log.wait_for(&["event=stopped"]);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a mail server process sees when it asks for one login.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Let in.
    Ok,
    /// Nobody listens: what must never be.
    Refused(String),
    /// The connection ended before the greeting was whole, which Postfix's smtpd does not survive.
    Ungreeted(String),
    /// The connection ended before the answer; Postfix connects again and asks once more.
    Lost,
}

/// A mail server process that is connected and has read its greeting.
pub struct Client {
    stream: UnixStream,
    lines: Lines<BufReader<UnixStream>>,
}

impl Client {
    /// Connects and shakes hands, or says what came of it.
    pub fn connect(socket: &Path) -> Result<Self, Seen> {
        let mut stream = UnixStream::connect(socket).map_err(|error| Seen::Refused(error.to_string()))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        // A write may meet a daemon that is about to go; what it has said before can still be read.
        let _ = stream.write_all(b"VERSION\t1\t0\nCPID\t4711\n");
        let mut greeting = String::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line == "DONE" => return Ok(Self { stream, lines }),
                Some(Ok(line)) => greeting += &(line + "\n"),
                ended => return Err(Seen::Ungreeted(format!("{ended:?} after {greeting:?}"))),
            }
        }
    }

    /// Logs alice in.
    pub fn ask(mut self) -> Seen {
        let request = format!("AUTH\t1\tPLAIN\tservice=smtp\trip=192.0.2.7\tsecured\tresp={RIGHT}\n");
        let _ = self.stream.write_all(request.as_bytes());
        match self.lines.next() {
            Some(Ok(line)) if line == "OK\t1\tuser=alice" => Seen::Ok,
            Some(Ok(line)) => panic!("{line:?} is no answer for alice"),
            Some(Err(_)) | None => Seen::Lost,
        }
    }
}

/// Connects, shakes hands and logs alice in, as Postfix does.
pub fn log_in(socket: &Path) -> Seen {
    match Client::connect(socket) {
        Ok(client) => client.ask(),
        Err(seen) => seen,
    }
}
