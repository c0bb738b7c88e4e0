//! `sasld-pam` with a PAM service of its own, in a folder of its own; and local users that exist for one test.

use crate::support::log::Log;
use crate::support::skip::not_tested;
use sasld::credential::Password;
use sasld::pam::code::Code;
use sasld::pam::request::{Answer, Checked, FrameBuffer, Hello, Lane, Outcome, Ready, Request, Stage};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

/// Longer than anything takes that is expected to end.
pub const PATIENCE: Duration = Duration::from_secs(15);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A folder that is removed in the end. Its path has no capitals, for libpam folds them.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let name = format!("sasldt-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The test module, built once.
pub fn module() -> &'static Path {
    static MODULE: LazyLock<PathBuf> = LazyLock::new(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pam/module.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (new, built) = (folder.join(format!("{}.so", std::process::id())), folder.join("pam_sasldt.so"));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wall", "-Wno-unused-parameter", "-o"]).arg(&new).arg(source);
        assert!(cc.arg("-lpam").status().expect("cc").success(), "the test module does not build");
        fs::rename(new, &built).expect("a module");
        built
    });
    &MODULE
}

/// A stack of the test module alone.
pub fn module_stack() -> String {
    let module = module().display();
    format!("auth required {module}\naccount required {module}\n")
}

/// A running `sasld-pam`, with us in the place of sasld.
pub struct PamServer {
    process: Child,
    stream: UnixStream,
    buffer: FrameBuffer,
    pub hello: Hello,
    folder: Folder,
    last_id: u64,
}

impl PamServer {
    /// Starts it with a service file of these contents.
    pub fn start(stack: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new();
        folder.write("sasld", stack);
        Self::start_in(folder, arguments)
    }

    /// Starts it with the services in this folder.
    pub fn start_in(folder: Folder, arguments: &[&str]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_sasld-pam")), folder, arguments)
    }

    /// Has it started by another program.
    pub fn start_under(program: &[&str], stack: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new();
        folder.write("sasld", stack);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(env!("CARGO_BIN_EXE_sasld-pam"));
        Self::run(command, folder, arguments)
    }

    fn run(mut command: Command, folder: Folder, arguments: &[&str]) -> Self {
        let (stream, theirs) = UnixStream::pair().expect("sockets");
        let log = File::create(folder.path().join("log")).expect("a log");
        let process = command
            .arg("--pam-dir")
            .arg(folder.path())
            .args(arguments)
            .stdin(OwnedFd::from(theirs))
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .expect("sasld-pam");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let hello = Hello { ordinary: 0, express: 0, settings: String::new() };
        let mut server = Self { process, stream, buffer: FrameBuffer::default(), hello, folder, last_id: 0 };
        let frame = server.frame().expect("a greeting");
        server.hello = Hello::decode(&frame).expect("a greeting");
        server
    }

    /// A child alone, without a supervisor, run by another program.
    pub fn child_under(program: &[&str], folder: Folder, arguments: &[&str]) -> Self {
        Self::child_under_with_complaint(program, folder, arguments, "")
    }

    /// The same, of a child that begins with a complaint.
    pub fn child_under_with_complaint(
        program: &[&str],
        folder: Folder,
        arguments: &[&str],
        complaint: &str,
    ) -> Self {
        let (stream, theirs) = UnixStream::pair().expect("sockets");
        let process = Command::new(program[0])
            .args(&program[1..])
            .arg(env!("CARGO_BIN_EXE_sasld-pam"))
            .args(["--child=ordinary", "--pam-dir"])
            .arg(folder.path())
            .args(arguments)
            .stdin(OwnedFd::from(theirs))
            .stderr(File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect(program[0]);
        stream.set_read_timeout(Some(4 * PATIENCE)).expect("a timeout");
        let hello = Hello { ordinary: 1, express: 1, settings: String::new() };
        let mut child = Self { process, stream, buffer: FrameBuffer::default(), hello, folder, last_id: 0 };
        let frame = child.frame().expect("its first words");
        let ready = Ready::decode(&frame).expect("its first words");
        assert!(
            ready.complaint.contains(complaint) && ready.complaint.is_empty() == complaint.is_empty(),
            "{ready:?}"
        );
        child
    }

    /// Says goodbye and waits.
    pub fn end(&mut self) -> ExitStatus {
        self.stream.shutdown(std::net::Shutdown::Both).expect("a connection");
        self.process.wait().expect("its end")
    }

    /// Sends a request and does not wait.
    pub fn send(&mut self, user: &str, password: &[u8], lane: Lane, patience: Duration) -> u64 {
        self.last_id += 1;
        let request = Request {
            id: self.last_id,
            lane,
            patience,
            user: user.to_owned(),
            password: Arc::new(Password::new(password)),
            rhost: "192.0.2.7".to_owned(),
            tty: "submission".to_owned(),
        };
        self.stream.write_all(&request.encode().expect("a possible request")).expect("a connection");
        self.last_id
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a connection");
    }

    /// The next frame; `None` at the end.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = self.buffer.next_frame().expect("a frame") {
                return Some(frame.to_vec());
            }
            let mut chunk = [0; 4_096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.buffer.extend(&chunk[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}\n{}", self.log()),
            }
        }
    }

    pub fn receive(&mut self) -> Answer {
        let frame = self.frame().expect("an answer");
        Answer::decode(&frame).expect("an answer")
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, user: &str, password: impl AsRef<[u8]>) -> Outcome {
        self.ask_within(user, password, Duration::from_secs(10))
    }

    pub fn ask_within(&mut self, user: &str, password: impl AsRef<[u8]>, patience: Duration) -> Outcome {
        let id = self.send(user, password.as_ref(), Lane::Ordinary, patience);
        let answer = self.receive();
        assert_eq!(answer.id, id);
        answer.outcome
    }

    /// Asks, and says how far it got and with which result.
    pub fn result(&mut self, user: &str, password: impl AsRef<[u8]>) -> (Stage, Code) {
        let outcome = self.ask(user, password);
        match outcome {
            Outcome::Checked(Checked { stage, code, .. }) => (stage, code),
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("a log")
    }

    /// Waits until this is in the log, which is written by a thread of its own.
    pub fn expect_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its children that are alive, oldest first.
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(path).expect("its children");
        let alive = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        children.split_whitespace().map(|pid| pid.parse().expect("a pid")).filter(alive).collect()
    }
}

impl Drop for PamServer {
    fn drop(&mut self) {
        // It ends by itself when its only connection does.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A `sasld-pam` that listens, as under systemd.
pub struct Listening {
    process: Child,
    /// What the running one logs.
    pub log: Log,
    folder: Folder,
    words: Vec<String>,
}

impl Listening {
    pub fn start(stack: &str, arguments: &[&str]) -> Self {
        Self::start_under(&["env"], stack, arguments)
    }

    /// Has it started by another program, which must become it.
    pub fn start_under(program: &[&str], stack: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new();
        folder.write("sasld", stack);
        let words = [program, &[env!("CARGO_BIN_EXE_sasld-pam")], arguments].concat();
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let (process, log) = Self::run(&folder, &words);
        Self { process, log, folder, words }
    }

    pub fn start_again(&mut self) {
        (self.process, self.log) = Self::run(&self.folder, &self.words);
    }

    fn run(folder: &Folder, words: &[String]) -> (Child, Log) {
        let us = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("the user database");
        let mut process = Command::new(&words[0])
            .args(&words[1..])
            .args(
                us.filter(|_| !words.iter().any(|word| word.starts_with("--peer")))
                    .map(|us| format!("--peer={}", us.name)),
            )
            .arg("--listen")
            .arg(folder.path().join("sock"))
            .arg("--pam-dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sasld-pam");
        let log = Log::follow(process.stderr.take().expect("a pipe"));
        log.wait_for(&["event=pam_ready"]);
        (process, log)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Takes it away without a warning.
    pub fn kill(&mut self) {
        self.process.kill().expect("a process");
        self.wait();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().expect("its end")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Looks again and again, for things that nobody tells us.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// As [`wait_until`], for something that comes to be.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(what, || {
        found = look();
        found.is_some()
    });
    found.expect("what was waited for")
}

/// Whether tests may make users. Says aloud when they may not.
pub fn can_make_users() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    not_tested("real local users: making them takes root");
    false
}

/// The user database is changed by one test at a time, in all processes.
fn user_database() -> (MutexGuard<'static, ()>, File) {
    static LOCK: Mutex<()> = Mutex::new(());
    let guard = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let file = File::create(std::env::temp_dir().join("sasldt-users.lock")).expect("a lock");
    file.lock().expect("a lock");
    (guard, file)
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A local user, removed in the end.
pub struct LocalUser {
    pub name: String,
}

impl LocalUser {
    /// A user whose password is hashed as Debian does.
    pub fn new(password: &str) -> Self {
        let _lock = user_database();
        Self::remove_orphans();
        let name = format!("sasldt{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        run("useradd", &["--no-create-home", "--shell", "/usr/sbin/nologin", &name]);
        let user = Self { name };
        let mut chpasswd = Command::new("chpasswd")
            .args(["-c", "YESCRYPT"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("chpasswd");
        let line = format!("{}:{password}\n", user.name);
        chpasswd.stdin.take().expect("a pipe").write_all(line.as_bytes()).expect("chpasswd");
        assert!(chpasswd.wait().expect("chpasswd").success());
        user
    }

    /// Runs a command about the user, whose name comes last.
    pub fn change(&self, program: &str, arguments: &[&str]) {
        let _lock = user_database();
        run(program, &[arguments, &[self.name.as_str()]].concat());
    }

    /// Users of test processes that were killed.
    fn remove_orphans() {
        let users = fs::read_to_string("/etc/passwd").expect("users");
        for name in users.lines().filter_map(|line| line.split(':').next()) {
            let pid = name.strip_prefix("sasldt").and_then(|rest| rest.split_once('x')).map(|(pid, _)| pid);
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                run("userdel", &[name]);
            }
        }
    }
}

impl Drop for LocalUser {
    fn drop(&mut self) {
        let _lock = user_database();
        let _ = Command::new("userdel").arg(&self.name).stderr(Stdio::null()).status();
    }
}
