//! The control socket of a running daemon: what it answers, to whom, and what it puts up with.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
mod support;

use sasld::control::{ControlError, Request, SecretsState, Status, Version, ask};
use sasld::secrets;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use support::sasld::Sasld;

const ALICE: &str = "alice:{PLAIN}wonderland\n";

fn listener(dir: &Path) -> String {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    format!("  - {{unix: {}, owner: {uid}, group: {gid}}}\n", dir.join("auth").display())
}

fn start(dir: &Path, users: &str, settings: &str) -> Sasld {
    Sasld::start_on(&listener(dir), dir, users, settings)
}

fn secrets_state(sasld: &Sasld, path: &Path) -> SecretsState {
    ask(&sasld.control(), &Request::Secrets { path: path.to_owned() }).unwrap()
}

#[test]
fn a_file_renamed_into_place_is_in_force_in_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let sasld = start(dir.path(), ALICE, "");
    let file = dir.path().join("secrets");
    for users in 1..20 {
        let new = dir.path().join("new");
        fs::write(&new, ALICE.to_owned() + &"bob:{PLAIN}builder\n".repeat(users % 3)).unwrap();
        fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(&new, &file).unwrap();
        let installed = Version::from(secrets::fingerprint(&file).unwrap());
        let state = secrets_state(&sasld, &file);
        assert_eq!((state.in_force, state.trouble), (Some(installed), None));
        assert_eq!(state.users, 1 + usize::from(users % 3 > 0));
    }
}

#[test]
fn what_is_wrong_with_a_file_is_answered_and_the_last_good_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let sasld = start(dir.path(), &(ALICE.to_owned() + "bob:builder\n"), "");
    let file = dir.path().join("secrets");
    let good = secrets_state(&sasld, &file);
    assert_eq!(good.problems.len(), 1);
    assert_eq!((good.problems[0].line, good.problems[0].user.as_deref()), (2, Some("bob")));
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let state = secrets_state(&sasld, &file);
    assert_eq!(state.in_force, good.in_force);
    assert!(state.trouble.unwrap().contains("mode 0644"));
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(secrets_state(&sasld, &file).trouble, None, "at once, although the same file failed just now");
    let request = Request::Secrets { path: "/etc/passwd".into() };
    let error = ask::<SecretsState>(&sasld.control(), &request).unwrap_err();
    assert!(matches!(error, ControlError::Refused(_)), "{error}");
}

#[test]
fn the_status_says_what_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let sasld = start(dir.path(), ALICE, "");
    let status: Status = ask(&sasld.control(), &Request::Status).unwrap();
    assert_eq!(status.pid, sasld.pid());
    assert_eq!(status.mechanisms, ["PLAIN", "LOGIN", "CRAM-MD5"]);
    assert_eq!(status.listeners[0].name, sasld.socket().to_str().unwrap());
    assert!(status.listeners[0].in_place);
    assert_eq!(status.configuration.rejected, None);
}
