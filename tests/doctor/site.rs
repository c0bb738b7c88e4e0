//! A mail server that works, in a directory of its own, to be broken: Postfix's configuration and queue, and a running
//! sasld on its socket `private/auth`.
//!
//! Postfix itself does not run unless a test starts it: doctor looks at configurations, and at the socket as Postfix's
//! user would. Paths of the site stand in files of the tests as `$ETC` (main.cf), `$QUEUE`, `$SITE` and `$ROOT`.

use crate::support::sasld::Sasld;
use crate::support::skip::not_tested;
use nix::pty::openpty;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Uid};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

const MAIN_CF: &str = "compatibility_level = 3.6
queue_directory = $QUEUE
data_directory = $SITE/data
maillog_file = $SITE/maillog
maillog_file_prefixes = $SITE
myhostname = mail.sasld.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
default_transport = discard:
smtpd_peername_lookup = no
";

/// What `sasld setup postfix` would have done, more or less.
const WORKING: &str = "smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_tls_security_level = may
smtpd_tls_cert_file = $SITE/cert.pem
smtpd_tls_key_file = $SITE/key.pem
smtpd_client_auth_rate_limit = 20
";

const MASTER_CF: &str = "smtp inet n - y - - smtpd
submission inet n - y - - smtpd
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_sasl_security_options=noanonymous,noplaintext
  -o smtpd_sasl_tls_security_options=noanonymous
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
";

/// Postfix's directories, and sasld.
pub struct Site {
    pub sasld: Sasld,
    dir: TempDir,
    /// What fixes have started; ends with the site.
    started: Vec<Pid>,
}

/// What came of a command.
#[derive(Debug)]
pub struct Outcome {
    pub exit: i32,
    pub out: String,
}

impl Site {
    /// One where everything is right, unless this machine cannot have it.
    pub fn working() -> Option<Self> {
        Self::lay_out(&[MAIN_CF, WORKING].concat(), MASTER_CF)
    }

    /// One where Postfix knows nothing of logins, with these services.
    pub fn bare(master_cf: &str) -> Option<Self> {
        Self::lay_out(MAIN_CF, master_cf)
    }

    fn lay_out(main_cf: &str, master_cf: &str) -> Option<Self> {
        if let Err(reason) = available() {
            not_tested(&format!("cannot test doctor: {reason}"));
            return None;
        }
        let dir = tempfile::Builder::new().prefix("sasld-doctor-").tempdir().unwrap();
        let site = dir.path();
        fs::set_permissions(site, PermissionsExt::from_mode(0o755)).unwrap();
        for folder in ["bin", "etc", "queue", "queue/pid", "root"] {
            fs::create_dir(site.join(folder)).unwrap();
        }
        let postfix = nix::unistd::User::from_name("postfix").unwrap().expect("Postfix's user");
        let queues =
            ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop"];
        let queues = queues.iter().chain(&["private", "public", "saved", "trace"]);
        for folder in queues.map(|name| format!("queue/{name}")).chain(["data".to_owned()]) {
            let folder = site.join(folder);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
            chown(&folder, Some(postfix.uid.as_raw()), None).unwrap();
        }
        for (name, text) in [("main.cf", main_cf), ("master.cf", master_cf)] {
            fs::write(site.join("etc").join(name), with_paths(text, site)).unwrap();
        }
        let listener = format!("  - unix: {}/queue/private/auth\n", site.display());
        let sasld = Sasld::start_on(&listener, site, "alice:{PLAIN}secret\n", "");
        Some(Self { sasld, dir, started: Vec::new() })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn etc(&self) -> PathBuf {
        self.path().join("etc")
    }

    /// A text of the tests with the site's paths, and `$PID` for the daemon.
    pub fn with_paths(&self, text: &str) -> String {
        with_paths(text, self.path()).replace("$PID", &self.sasld.pid().to_string())
    }

    /// A text with the site's paths taken out again.
    pub fn without_paths(&self, text: &str) -> String {
        text.replace(self.path().to_str().unwrap(), "$SITE")
            .replace("$SITE/etc", "$ETC")
            .replace("$SITE/queue", "$QUEUE")
            .replace("$SITE/root", "$ROOT")
    }

    /// `sasld` with the options that name this site behind these words.
    pub fn sasld(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(SASLD);
        command.args(words).arg("--config").arg(self.path().join("sasld.yaml"));
        command.arg("--postfix-config").arg(self.etc()).env("COLUMNS", "100").stdin(Stdio::null());
        command.env("PATH", self.search_path());
        outcome(&mut command)
    }

    /// Makes main.cf and master.cf old, for `postconf` waits with files that were written this second.
    pub fn age(&self) {
        let files = [self.etc().join("main.cf"), self.etc().join("master.cf")];
        let touched = Command::new("touch").args(["-d", "1 minute ago"]).args(files).status().unwrap();
        assert!(touched.success());
    }

    /// Types a command at a shell, as root on this machine would.
    pub fn shell(&mut self, command: &str) -> Outcome {
        // What stays in the background keeps its output open, so that is a file.
        let output = self.path().join("output");
        let file = fs::File::create(&output).unwrap();
        let mut shell = self.with_environment("sh");
        shell.args(["-c", command]).process_group(0);
        shell.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = shell.spawn().unwrap();
        self.started.push(Pid::from_raw(i32::try_from(child.id()).unwrap()));
        let exit = child.wait().unwrap().code().unwrap_or(-1);
        Outcome { exit, out: fs::read_to_string(output).unwrap() }
    }

    /// The same at a terminal, with one of these lines typed at each prompt.
    pub fn terminal(&self, command: &str, typed: &[&str]) -> Outcome {
        let pty = openpty(None, None).unwrap();
        let side = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let mut shell = self.with_environment("setsid");
        shell.args(["--ctty", "sh", "-c", command]);
        shell.stdin(side(&pty.slave)).stdout(side(&pty.slave)).stderr(side(&pty.slave));
        let mut child = shell.spawn().unwrap();
        drop((shell, pty.slave));
        let mut terminal = fs::File::from(pty.master);
        let (mut out, mut lines) = (String::new(), typed.iter());
        let mut buffer = [0; 1024];
        // The last reader of a terminal whose other side is gone gets an error, not an end.
        while let Ok(read @ 1..) = terminal.read(&mut buffer) {
            out += &String::from_utf8_lossy(&buffer[..read]);
            if out.ends_with(": ")
                && let Some(line) = lines.next()
            {
                terminal.write_all(format!("{line}\n").as_bytes()).unwrap();
            }
        }
        Outcome { exit: child.wait().unwrap().code().unwrap_or(-1), out }
    }

    /// A program that finds sasld, the stand-ins and the site's variables.
    pub fn with_environment(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", self.search_path()).env("COLUMNS", "100");
        command.env("EDITOR", self.path().join("bin/editor"));
        command.envs(self.variables());
        command
    }

    /// Stand-ins for programs that a site must not really have come first, then our own.
    fn search_path(&self) -> String {
        let own = Path::new(SASLD).parent().unwrap().display();
        format!("{}:{own}:{}", self.path().join("bin").display(), std::env::var("PATH").unwrap())
    }

    fn variables(&self) -> [(&'static str, PathBuf); 4] {
        let site = self.path();
        [
            ("SITE", site.to_owned()),
            ("ETC", site.join("etc")),
            ("QUEUE", site.join("queue")),
            ("ROOT", site.join("root")),
        ]
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for group in &self.started {
            let _ = killpg(*group, Signal::SIGTERM);
            let _ = killpg(*group, Signal::SIGCONT);
        }
    }
}

fn with_paths(text: &str, site: &Path) -> String {
    let site = site.to_str().unwrap();
    text.replace("$ETC", &format!("{site}/etc"))
        .replace("$QUEUE", &format!("{site}/queue"))
        .replace("$ROOT", &format!("{site}/root"))
        .replace("$SITE", site)
}

pub fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { exit: output.status.code().unwrap_or(-1), out: text(&output.stdout) + &text(&output.stderr) }
}

fn available() -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Err("only root can be Postfix's user".to_owned());
    }
    for program in ["postconf", "openssl", "swaks", "setsid", "setpriv", "unshare", "nsenter"] {
        let found =
            Command::new("sh").args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{program} is missing; packaging/dev/need test installs it"));
        }
    }
    Ok(())
}
