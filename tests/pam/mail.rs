//! System users through a real Postfix.

use crate::harness::{Listening, LocalUser, can_make_users, module};
use crate::postfix::{self, Postfix};
use crate::smtp::{Session, swaks};
use crate::support::sasld::Sasld;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[test]
fn a_system_user_logs_in_over_starttls_and_a_stuck_stack_is_454() {
    if !can_make_users() {
        return;
    }
    if let Err(reason) = postfix::available() {
        assert!(
            std::env::var_os("SASLD_ALLOW_SKIP").is_some_and(|value| value == "1"),
            "cannot test with Postfix: {reason} (SASLD_ALLOW_SKIP=1 lets this pass)"
        );
        eprintln!("SKIPPED, not tested with Postfix: {reason}");
        return;
    }
    let user = LocalUser::new("S3cret pass");
    let name = user.name.as_str();
    // The user "hang" hangs; everybody else is pam_unix's.
    let stack = format!(
        "auth [success=1 default=ignore] pam_succeed_if.so quiet user != hang\n\
         auth required {}\nauth required pam_unix.so\naccount required pam_unix.so\n",
        module().display()
    );
    let pam = Listening::start(&stack, &["--min-uid=0"]);
    let dir = tempfile::Builder::new().prefix("sasldt-postfix-").tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    let settings = format!(
        "deadline: 3s\npassdbs:\n  - secrets_file: {}\n  - pam: {{min_uid: 0, socket: {}}}\n",
        dir.path().join("secrets").display(),
        pam.socket().display()
    );
    let sasld = Sasld::start(dir.path(), "carol:{PLAIN}secret\n", &settings);
    let postfix = Postfix::start(dir.path(), sasld.socket().to_str().expect("a path"));

    let arguments = ["--tls", "--auth", "PLAIN", "--auth-user", name, "--auth-password", "S3cret pass"];
    let to = ["--from", "alice@sasld.test", "--to", "bob@example.com"];
    let dialog = swaks(postfix.submission, &[&arguments[..], &to[..]].concat());
    assert!(dialog.contains(" 235 2.7.0 Authentication successful\n"), "{dialog}");
    sasld.log.wait_for(&["event=auth result=ok", &format!("user={name}"), "mech=PLAIN", "tls=yes"]);

    let start = Instant::now();
    let port = postfix.smtp;
    let stuck = std::thread::spawn(move || Session::connect(port).log_in("PLAIN", "hang", "x").code);
    assert_eq!(Session::connect(port).log_in("PLAIN", "carol", "secret").code, 235);
    assert_eq!(Session::connect(port).log_in("LOGIN", name, "S3cret pass").code, 235);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(Session::connect(port).log_in("PLAIN", name, "wrong").code, 535);
    assert_eq!(stuck.join().expect("a session"), 454);
    assert!((2_900..6_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(Session::connect(port).log_in("PLAIN", name, "S3cret pass").code, 235);
}
