//! The built `sasld`, serving a socket from a private directory.

use super::log::Log;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

/// A daemon that was ready; dropping it kills it.
pub struct Sasld {
    /// What the running daemon logs; a new one after [`Sasld::start_again`].
    pub log: Log,
    child: Child,
    dir: PathBuf,
    start: Start,
}

/// How it is started.
#[derive(Default)]
struct Start {
    /// Another program that starts it, and becomes it.
    program: Vec<String>,
    /// Outlives the daemon.
    kept: Option<UnixListener>,
}

impl Sasld {
    /// Serves `dir/auth` to Postfix, with these users and these lines added to the configuration.
    pub fn start(dir: &Path, secrets: &str, settings: &str) -> Self {
        let socket = dir.join("auth");
        let listener =
            format!("  - {{unix: {}, owner: postfix, group: postfix, mode: \"0660\"}}\n", socket.display());
        Self::start_on(&listener, dir, secrets, settings)
    }

    /// The same with a socket of whoever runs the test, who need not be root.
    pub fn start_for_caller(dir: &Path, secrets: &str, settings: &str) -> Self {
        Self::start_on(&listener_for_caller(&dir.join("auth")), dir, secrets, settings)
    }

    /// The same on a socket that is there before the daemon and stays when it ends, as systemd keeps one.
    pub fn start_on_kept_socket(dir: &Path, secrets: &str, settings: &str) -> Self {
        let socket = dir.join("auth");
        let kept = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        let listener = format!("  - unix: {}\n", socket.display());
        Self::launch(&listener, Start { kept: Some(kept), ..Start::default() }, dir, secrets, settings)
    }

    /// On another listener, an item of the YAML list.
    pub fn start_on(listener: &str, dir: &Path, secrets: &str, settings: &str) -> Self {
        Self::launch(listener, Start::default(), dir, secrets, settings)
    }

    /// The same, started by another program, which must become it.
    pub fn start_under(program: &[&str], listener: &str, dir: &Path, secrets: &str, settings: &str) -> Self {
        let program = program.iter().map(ToString::to_string).collect();
        Self::launch(listener, Start { program, ..Start::default() }, dir, secrets, settings)
    }

    fn launch(listener: &str, start: Start, dir: &Path, secrets: &str, settings: &str) -> Self {
        let file = dir.join("secrets");
        fs::write(&file, secrets).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let passdbs = match settings.contains("passdbs:") {
            true => String::new(),
            false => format!("passdbs:\n  - secrets_file: {}\n", file.display()),
        };
        let delay = if settings.contains("refusal_delay") { "" } else { "refusal_delay: 0s\n" };
        let control = match settings.contains("control:") {
            true => String::new(),
            false => format!("control: {}\n", dir.join("control").display()),
        };
        let configuration = format!("listeners:\n{listener}{passdbs}{delay}{control}{settings}");
        fs::write(dir.join("sasld.yaml"), configuration).unwrap();
        let (child, log) = serve(dir, &start);
        Self { log, child, dir: dir.to_owned(), start }
    }

    /// Where [`Sasld::start`] listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("auth")
    }

    /// Where it answers questions about itself, unless the settings say otherwise.
    pub fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Stops it as an administrator does. It must end well.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.wait().success());
    }

    /// Takes it away without a warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it anew with the same files.
    pub fn start_again(&mut self) {
        (self.child, self.log) = serve(&self.dir, &self.start);
    }

    /// `sasld user …` on the daemon's secrets file; must succeed.
    pub fn user_command(&self, words: &[&str], password: &str) {
        let mut command = Command::new(SASLD);
        command.arg("user").args(words).arg("--file").arg(self.dir.join("secrets"));
        if !password.is_empty() {
            command.arg("--password-stdin");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "sasld user {words:?}");
    }
}

/// A listener that belongs to whoever runs the test, as an item of the YAML list.
pub fn listener_for_caller(socket: &Path) -> String {
    let (user, group) = (nix::unistd::Uid::effective(), nix::unistd::Gid::effective());
    format!("  - {{unix: {}, owner: {user}, group: {group}, mode: \"0600\"}}\n", socket.display())
}

impl Drop for Sasld {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ready daemon that serves the listener it is handed, or else its own.
fn serve(dir: &Path, Start { program, kept }: &Start) -> (Child, Log) {
    let mut command = Command::new("bash");
    let stdin = match kept {
        None => Stdio::null(),
        Some(kept) => Stdio::from(OwnedFd::from(kept.try_clone().unwrap())),
    };
    let passed = if kept.is_some() { "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0" } else { "exec \"$@\"" };
    command.args(["-c", &format!("{passed} </dev/null"), "bash"]);
    command.args(program).args([SASLD, "serve", "--config"]);
    let mut child = command.arg(dir.join("sasld.yaml")).stdin(stdin).stderr(Stdio::piped()).spawn().unwrap();
    let log = Log::follow(child.stderr.take().unwrap());
    log.wait_for(&["event=ready"]);
    (child, log)
}
