//! Replays every dialog against the Dovecot of Debian 12, so that each expectation is proved to be Dovecot's.
//!
//! Each group is one test with Dovecot instances of its own: private folders, private configuration, ended by process
//! id. Needs root (Dovecot drops its own privileges) and the package dovecot-core. Without them the test fails and
//! says what is missing; with `SASLD_ALLOW_SKIP=1` it says so and passes. Dialogs that only Dovecot 2.4 speaks, or
//! that take longer than three seconds, are counted aloud and listed in `docs/differences-from-dovecot.md`.
//!
//! With the root of a Debian 13 in SASLD_DOVECOT_ROOT its Dovecot runs instead, and replays what is marked
//! `dovecot: 2.4`: `make test-trixie`.

#![allow(missing_docs, reason = "a test program has no readers of its documentation")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
mod dialog;
#[path = "support/skip.rs"]
mod skip;

use dialog::profile::Profile;
use dialog::replay::{Cut, Peer, Server, replay};
use dialog::report::{self, Fate};
use dialog::socket::Socket;
use dialog::{Dialog, LONGEST_REAL_WAIT, Subject};

/// The release whose behaviour the dialogs state, and the one of Debian 13 for those marked `dovecot: 2.4`.
const RELEASE: &str = "2.3.19";
const RELEASE_OF_DEBIAN_13: &str = "2.4.1";

/// The Debian 13 whose Dovecot is to run.
fn debian_13() -> Option<OsString> {
    std::env::var_os("SASLD_DOVECOT_ROOT").filter(|root| !root.is_empty())
}

/// Dovecot as a command. That of another root sees this one's `/tmp`, in mounts of its own.
fn dovecot() -> Command {
    let Some(root) = debian_13() else { return Command::new("dovecot") };
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc"]);
    command.arg(
        "for dir in tmp dev; do mount --rbind /$dir \"$0/$dir\"; done; exec chroot \"$0\" dovecot \"$@\"",
    );
    command.arg(root);
    command
}

/// A Dovecot of our own, running.
struct Dovecot {
    dir: TempDir,
    master: Child,
}

impl Dovecot {
    fn start(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("dovecot-").tempdir_in("/tmp").expect("a temporary folder");
        let path = dir.path();
        let profile = Profile::named(name);
        // Dovecot's auth process runs as another user and has to reach the secrets file, but not `locked`.
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("our own folder");
        for (folder, mode) in [("run", 0o755), ("state", 0o755), ("locked", 0o700)] {
            fs::create_dir(path.join(folder)).expect("an empty folder");
            fs::set_permissions(path.join(folder), Permissions::from_mode(mode)).expect("our own folder");
        }
        fs::write(path.join("locked/secrets"), "").expect("a writable folder");
        if let Some(secrets) = profile.secrets() {
            fs::write(path.join("secrets"), secrets).expect("a writable folder");
        }
        let (preamble, file) = match debian_13() {
            None => ("", "dovecot.conf"),
            Some(_) => {
                ("dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\n", "dovecot-2.4.conf")
            }
        };
        let config = format!("{preamble}{}{}", base_configuration(path), profile.configuration(file, path));
        fs::write(path.join("dovecot.conf"), config).expect("a writable folder");
        let master = dovecot()
            .arg("-F")
            .arg("-c")
            .arg(path.join("dovecot.conf"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(path.join("stderr")).expect("a writable folder"))
            .spawn()
            .expect("dovecot is installed, as was checked");
        let mut dovecot = Self { dir, master };
        dovecot.wait_until_it_listens(name);
        dovecot
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/auth-client")
    }

    /// The socket appears when the master process has read its configuration.
    fn wait_until_it_listens(&mut self, profile: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        while Socket::connect(&self.socket()).is_err() {
            let ended = self.master.try_wait().expect("our own child");
            if ended.is_some() || Instant::now() > until {
                let said = |file: &str| fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
                panic!("dovecot did not start with profile {profile}: {}{}", said("stderr"), said("log"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let pid = i32::try_from(self.master.id()).expect("a process id");
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _ = self.master.wait();
    }
}

/// What every profile has in common.
fn base_configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "base_dir = {dir}/run\nstate_dir = {dir}/state\nlog_path = {dir}/log\ninstance_name = sasld-dialogs\n\
         ssl = no\nprotocols =\nlisten = 127.0.0.1\nauth_verbose = yes\nstats_writer_socket_path =\n\
         service auth {{\n  unix_listener auth-client {{\n    mode = 0666\n  }}\n}}\n"
    )
}

/// One connection after another to a Dovecot that others use too.
struct Shared {
    dovecot: Arc<Dovecot>,
    start: Instant,
}

impl Server for Shared {
    fn connect(&mut self) -> io::Result<Box<dyn Peer>> {
        Ok(Box::new(Socket::connect(&self.dovecot.socket())?))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Dovecot compares the file's time and size before a look-up, but only once in a second of its clock.
    fn change_secrets(&mut self, contents: Option<&[u8]>) -> io::Result<()> {
        let path = self.dovecot.dir.path().join("secrets");
        match contents {
            Some(contents) => fs::write(path, contents)?,
            None => fs::remove_file(path)?,
        }
        std::thread::sleep(Duration::from_millis(1100));
        Ok(())
    }
}

/// What is missing for these tests, if anything.
fn missing() -> Option<String> {
    let expected = if debian_13().is_some() { RELEASE_OF_DEBIAN_13 } else { RELEASE };
    match dovecot().arg("--version").output() {
        Err(_) => return Some("no dovecot here; install the package dovecot-core".into()),
        Ok(output) => {
            let version = String::from_utf8_lossy(&output.stdout);
            if !version.starts_with(expected) {
                return Some(format!("dovecot {} here, but the dialogs state {expected}", version.trim()));
            }
        }
    }
    (!geteuid().is_root()).then(|| "dovecot can only be started by root".into())
}

/// Why a dialog cannot be proved here.
fn skipped(dialog: &Dialog) -> Option<String> {
    if let Some(release) = &dialog.dovecot
        && debian_13().is_none()
    {
        return Some(format!("Dovecot {release}"));
    }
    let wait = dialog.longest_wait(Subject::Dovecot);
    (wait > LONGEST_REAL_WAIT).then(|| format!("waits {wait:?}"))
}

fn group(name: &str) {
    if let Some(missing) = missing() {
        skip::not_tested(&format!("dovecot {name}: {missing}"));
        return;
    }
    let running: Mutex<HashMap<String, Arc<Dovecot>>> = Mutex::default();
    let mut dialogs = dialog::group(name);
    if debian_13().is_some() {
        dialogs.retain(|dialog| dialog.dovecot.as_deref() == Some("2.4"));
    }
    report::all(&format!("dovecot {name}"), &dialogs, |dialog| {
        if let Some(why) = skipped(dialog) {
            return Fate::Skipped(why);
        }
        let dovecot = {
            let mut running = running.lock().expect("a Dovecot that did not start has ended the test");
            let profile = dialog.profile.clone();
            Arc::clone(running.entry(profile).or_insert_with(|| Arc::new(Dovecot::start(&dialog.profile))))
        };
        // Elsewhere bytes are not cut: Dovecot's answers may depend on what came in one write, and dialogs say so.
        let cuts: &[Cut] = if name == "handshake" { &[Cut::Whole, Cut::Bytes] } else { &[Cut::Whole] };
        let mut server = Shared { dovecot, start: Instant::now() };
        match cuts.iter().try_for_each(|&cut| replay(dialog, &mut server, Subject::Dovecot, cut)) {
            Ok(()) => Fate::Passed,
            Err(report) => Fate::Failed(report),
        }
    });
}

macro_rules! groups {
    ($($name:ident)*) => {
        $(#[test] fn $name() { group(stringify!($name)); })*
        #[test]
        fn every_group_has_a_test() {
            assert_eq!([$(stringify!($name)),*], dialog::GROUPS);
        }
    };
}

groups! {
    handshake lines auth ids base64 cont cancel pipeline replies plain login cram clients secrets
}
