//! System users through a real Postfix.

use crate::harness::{Listening, LocalUser, can_make_users, module};
use crate::postfix::{self, Postfix};
use crate::smtp::{Session, swaks};
use crate::support::sasld::Sasld;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

/// Postfix, sasld and `sasld-pam`. The user "hang" hangs; everybody else is pam_unix's, but for carol, who is in the
/// secrets file.
struct Site {
    postfix: Postfix,
    sasld: Sasld,
    pam: Listening,
    _folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Option<Self> {
        if !can_make_users() {
            return None;
        }
        if let Err(reason) = postfix::available() {
            crate::support::skip::not_tested(&format!("cannot test with Postfix: {reason}"));
            return None;
        }
        let stack = format!(
            "auth [success=1 default=ignore] pam_succeed_if.so quiet user != hang\n\
             auth required {}\nauth required pam_unix.so\naccount required pam_unix.so\n",
            module().display()
        );
        let pam = Listening::start(&stack, &["--min-uid=0", "--workers=1"]);
        let folder = tempfile::Builder::new().prefix("sasldt-postfix-").tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        let settings = format!(
            "passdbs:\n  - secrets_file: {}\n  - pam: {{min_uid: 0, workers: 1, socket: {}}}\n",
            folder.path().join("secrets").display(),
            pam.socket().display()
        );
        let sasld = Sasld::start(folder.path(), "carol:{PLAIN}secret\n", &settings);
        let postfix = Postfix::start(folder.path(), sasld.socket().to_str().expect("a path"));
        Some(Self { postfix, sasld, pam, _folder: folder })
    }

    fn log_in(&self, mechanism: &str, user: &str, password: &str) -> u16 {
        log_in(self.postfix.smtp, mechanism, user, password)
    }

    /// Somebody who will wait for long.
    fn log_in_meanwhile(&self, user: &'static str) -> thread::JoinHandle<u16> {
        let port = self.postfix.smtp;
        thread::spawn(move || log_in(port, "PLAIN", user, "right"))
    }
}

fn log_in(port: u16, mechanism: &str, user: &str, password: &str) -> u16 {
    Session::connect(port).log_in(mechanism, user, password).code
}

#[test]
fn a_system_user_logs_in_over_starttls() {
    let Some(site) = Site::start() else { return };
    let user = LocalUser::new("S3cret pass");
    let name = user.name.as_str();
    let arguments = ["--tls", "--auth", "PLAIN", "--auth-user", name, "--auth-password", "S3cret pass"];
    let to = ["--from", "alice@sasld.test", "--to", "bob@example.com"];
    let dialog = swaks(site.postfix.submission, &[&arguments[..], &to[..]].concat());
    assert!(dialog.contains(" 235 2.7.0 Authentication successful\n"), "{dialog}");
    site.sasld.log.wait_for(&["event=auth result=ok", &format!("user={name}"), "mech=PLAIN", "tls=yes"]);
    assert_eq!(site.log_in("LOGIN", name, "S3cret pass"), 235);
    assert_eq!(site.log_in("PLAIN", name, "wrong"), 535);
}

#[test]
fn a_worker_killed_during_a_check_is_454_for_that_login_and_the_next_one_is_right() {
    let Some(site) = Site::start() else { return };
    let user = LocalUser::new("S3cret pass");
    for _ in 0..2 {
        let hanging = site.log_in_meanwhile("hang");
        // What hangs has all signals blocked, which nothing else here has.
        let worker = crate::harness::wait_for("a worker that hangs", || {
            let path = format!("/proc/{0}/task/{0}/children", site.pam.pid());
            let children = std::fs::read_to_string(path).expect("its children");
            let mut pids = children.split_whitespace().map(|pid| pid.parse::<i32>().expect("a pid"));
            pids.find(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/status"))
                    .is_ok_and(|status| status.contains("\nSigBlk:\tfffffffe"))
            })
        });
        kill(Pid::from_raw(worker), Signal::SIGKILL).expect("a signal");
        assert_eq!(hanging.join().expect("a session"), 454);
        assert_eq!(site.log_in("PLAIN", &user.name, "S3cret pass"), 235);
    }
    site.sasld.log.wait_for(&["result=outage", "why=passdb_unavailable", "user=hang"]);
}

#[test]
fn a_stuck_stack_is_454_at_the_default_deadline_and_delays_nobody_in_the_secrets_file() {
    let Some(site) = Site::start() else { return };
    let user = LocalUser::new("S3cret pass");
    // The only worker hangs until the deadline, which is 8 s.
    let start = Instant::now();
    let hanging = site.log_in_meanwhile("hang");
    let mut logins = 0;
    while !hanging.is_finished() {
        let login = Instant::now();
        assert_eq!(site.log_in("PLAIN", "carol", "secret"), 235);
        assert!(login.elapsed() < Duration::from_millis(1_500), "{:?}", login.elapsed());
        logins += 1;
    }
    assert_eq!(hanging.join().expect("a session"), 454);
    let elapsed = start.elapsed();
    assert!((7_900..9_900).contains(&elapsed.as_millis()), "{elapsed:?}");
    assert!(logins >= 5, "{logins} logins in {elapsed:?}");
    site.sasld.log.wait_for(&["result=outage", "why=deadline", "user=hang"]);
    assert_eq!(site.log_in("PLAIN", &user.name, "S3cret pass"), 235);
}
