//! The control socket of a running daemon: what it answers, to whom, and what it puts up with.
//!
//! Each test has a directory and a daemon of its own. `why` has what is remembered of logins, `metrics` the other
//! socket.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

mod metrics;
mod why;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use sasld::control::reply::PassdbState;
use sasld::control::{ControlError, PamCheck, Request, SecretsState, Status, Version, ask};
use sasld::secrets;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use support::peer::{ALICE, Peer, RIGHT, WRONG, auth};
use support::sasld::Sasld;
use support::skip::not_tested;
use tempfile::TempDir;

const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("sasld-control-").tempdir().unwrap()
}

fn start(dir: &TempDir, users: &str, settings: &str) -> Sasld {
    Sasld::start_for_caller(dir.path(), users, settings)
}

fn secrets_state(sasld: &Sasld, path: &Path) -> SecretsState {
    ask(&sasld.control(), &Request::Secrets { path: path.to_owned() }).unwrap()
}

fn status(sasld: &Sasld) -> Status {
    ask(&sasld.control(), &Request::Status).unwrap()
}

/// A command that asks this daemon: its exit status and what it prints.
fn command(sasld: &Sasld, words: &[&str]) -> (i32, String) {
    let output = Command::new(SASLD).args(words).arg("--socket").arg(sasld.control()).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

fn replace(file: &Path, contents: &str) {
    let new = file.with_extension("new");
    fs::write(&new, contents).unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(&new, file).unwrap();
}

#[test]
fn a_file_renamed_into_place_is_in_force_in_the_answer() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let file = dir.path().join("secrets");
    for round in 1..20 {
        let bobs = round % 3;
        replace(&file, &(ALICE.to_owned() + &"bob:{PLAIN}builder\n".repeat(bobs)));
        let installed = Version::from(secrets::fingerprint(&file).unwrap());
        let state = secrets_state(&sasld, &file);
        assert_eq!((state.in_force, state.trouble), (Some(installed), None));
        assert_eq!(state.users, 1 + usize::from(bobs > 0));
    }
}

#[test]
fn a_large_file_is_waited_for() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let file = dir.path().join("secrets");
    let users: String = (0..40_000).map(|user| format!("user{user}:{{PLAIN}}wonder\n")).collect();
    replace(&file, &users);
    assert_eq!(secrets_state(&sasld, &file).users, 40_000, "too large to be loaded where it is noticed");
}

#[test]
fn what_is_wrong_with_a_file_is_answered_and_the_last_good_one_stays() {
    let dir = directory();
    let sasld = start(&dir, &(ALICE.to_owned() + "bob:builder\n"), "");
    let file = dir.path().join("secrets");
    let good = secrets_state(&sasld, &file);
    assert_eq!(good.problems.len(), 1);
    assert_eq!((good.problems[0].line, good.problems[0].user.as_deref()), (2, Some("bob")));
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let state = secrets_state(&sasld, &file);
    assert_eq!(state.in_force, good.in_force);
    assert!(state.trouble.unwrap().contains("mode 0644"));
    let (exit, screen) = command(&sasld, &["status"]);
    assert!(exit == 1 && screen.contains("wrong: not in force: "), "{exit}\n{screen}");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(secrets_state(&sasld, &file).trouble, None, "at once, although the same file failed just now");
    let request = Request::Secrets { path: "/etc/passwd".into() };
    let error = ask::<SecretsState>(&sasld.control(), &request).unwrap_err();
    assert!(matches!(error, ControlError::Refused(_)), "{error}");
}

#[test]
fn the_status_says_what_is_in_force_and_what_became_of_logins() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let mut peer = Peer::greeted(&sasld.socket());
    for (id, response) in [(1, RIGHT), (2, WRONG), (3, WRONG)] {
        peer.send(&auth(id, "PLAIN", response));
        peer.line();
    }
    let status = status(&sasld);
    assert_eq!(status.pid, sasld.pid());
    assert_eq!(status.wrong, Vec::<String>::new());
    assert_eq!(status.mechanisms, ["PLAIN", "LOGIN", "CRAM-MD5"]);
    assert_eq!(status.listeners[0].name, sasld.socket().to_str().unwrap());
    assert!(status.listeners[0].in_place);
    assert_eq!(status.configuration.path, dir.path().join("sasld.yaml").to_str().unwrap());
    assert!(matches!(&status.passdbs[..], [PassdbState::SecretsFile(file)] if file.users == 1));
    assert_eq!(status.connections, 1);
    let attempts = &status.attempts;
    assert_eq!((attempts.total.ok, attempts.total.refused), (1, 2));
    assert_eq!(attempts.last_minute, attempts.total);
    assert_eq!(attempts.refused["wrong_password"], 2);
    assert_eq!(attempts.mechanisms["PLAIN"], attempts.total);
    let offenders: Vec<_> = status.offenders.iter().map(|one| (one.network.as_str(), one.refusals)).collect();
    assert_eq!(offenders, [("192.0.2.7/32", 2)]);

    let (exit, screen) = command(&sasld, &["status"]);
    assert_eq!(exit, 0, "{screen}");
    assert!(screen.contains("refused for    wrong_password 2\n"), "{screen}");
    let (_, json) = command(&sasld, &["status", "--json"]);
    let same: Status = serde_json::from_str(&json).unwrap();
    assert_eq!(same.attempts, status.attempts);
}

#[test]
fn without_secrets_the_status_says_that_nobody_can_log_in() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    fs::remove_file(dir.path().join("secrets")).unwrap();
    drop(sasld);
    let mut again = start(&dir, ALICE, "");
    fs::remove_file(dir.path().join("secrets")).unwrap();
    again.kill();
    again.start_again();
    let mut peer = Peer::greeted(&again.socket());
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert!(peer.is_closed(), "no verdict");
    let status = status(&again);
    assert_eq!(status.attempts.outage["passdb_unavailable"], 1);
    assert!(matches!(&status.wrong[..], [wrong] if wrong.contains("none of its users can log in")));
    assert_eq!(command(&again, &["status"]).0, 1);
}

#[test]
fn sasld_pam_is_asked_about_nobody_if_pam_is_a_passdb() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let error = ask::<PamCheck>(&sasld.control(), &Request::Pam).unwrap_err();
    assert_eq!(error.to_string(), "sasld says: pam is not in passdbs");
    drop(sasld);
    // Root's sasld starts sasld-pam itself; nobody listens at the socket.
    let settings =
        format!("passdbs: [{{pam: {{socket: {}, workers: 1}}}}]\n", dir.path().join("none").display());
    let sasld = start(&dir, "", &settings);
    let check: PamCheck = ask(&sasld.control(), &Request::Pam).unwrap();
    let expected = match Uid::effective().is_root() {
        true => (true, None),
        false => (false, Some("No such file or directory (os error 2)")),
    };
    assert_eq!((check.answered, check.trouble.as_deref()), expected);
    assert!(check.ms >= 0.0);
}

#[test]
fn a_rejected_reload_is_in_the_status_until_a_good_one() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let config = dir.path().join("sasld.yaml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, good.clone() + "refusal_dleay: 1s\nlog_levle: info\n").unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=not_reloaded", "log_levle"]);
    let rejected = status(&sasld).configuration.rejected.unwrap();
    assert_eq!(rejected.mistakes.len(), 2, "{rejected:?}");
    assert!(rejected.mistakes[0].contains("did you mean refusal_delay?"));
    let (exit, screen) = command(&sasld, &["status"]);
    assert!(exit == 1 && screen.contains("was rejected: "), "{screen}");
    let mistakes: Vec<String> =
        rejected.mistakes.iter().map(|mistake| format!("{:15}{mistake}\n", "")).collect();
    let shown = format!("last reload    {}, rejected for\n{}", rejected.at, mistakes.concat());
    assert!(screen.contains(&shown), "{screen}");
    fs::write(&config, good).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=reloaded"]);
    assert_eq!(status(&sasld).configuration.rejected, None);
    assert!(!command(&sasld, &["status"]).1.contains("last reload"));
}

#[test]
fn a_socket_that_was_removed_is_in_the_status_and_the_reload_that_mends_it_mends_the_control_socket_too() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    fs::remove_file(sasld.socket()).unwrap();
    assert!(!status(&sasld).listeners[0].in_place);
    fs::remove_file(sasld.control()).unwrap();
    assert_eq!(command(&sasld, &["status"]).0, 69);
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=reloaded"]);
    assert!(status(&sasld).listeners[0].in_place);
}

#[test]
fn only_root_and_its_own_user_may_ask() {
    if !Uid::effective().is_root() {
        return not_tested("asking as somebody else needs root");
    }
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    assert_eq!(fs::metadata(sasld.control()).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let ask_as_nobody = || {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        let mut command = Command::new("setpriv");
        command.args(nobody).args([SASLD, "status", "--socket"]).arg(sasld.control());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (exit, stderr) = ask_as_nobody();
    assert!(exit == Some(77) && stderr.contains("only root may ask"), "{exit:?} {stderr}");
    // Whoever widens the mode does not let anybody in.
    fs::set_permissions(sasld.control(), PermissionsExt::from_mode(0o666)).unwrap();
    let (exit, stderr) = ask_as_nobody();
    assert!(exit == Some(77) && stderr.contains("only root may ask"), "{exit:?} {stderr}");
    sasld.log.wait_for(&["event=not_accepted", "uid 65534 may not connect"]);
}

/// What comes back for these bytes, when nothing more is sent.
fn reply_to(sasld: &Sasld, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(sasld.control()).unwrap();
    // It may answer before it has everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8(reply).unwrap()
}

#[test]
fn nonsense_gets_an_answer_and_the_next_one_is_served() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let long = [b'a'; 100_000];
    let garbage: Vec<u8> = (0..=255).collect();
    for nonsense in
        [&b"\n"[..], b"help\n", b"status now\n", b"why \xff\n", b"status", b"", &long, &garbage, b"\0\0\0\n"]
    {
        let reply = reply_to(&sasld, nonsense);
        assert!(reply.starts_with("{\"error\":\"") && reply.ends_with("\"}\n"), "{nonsense:?}: {reply}");
    }
    assert!(reply_to(&sasld, b"status\r\nstatus\n").starts_with("{\"version\":"));
}

#[test]
fn whoever_says_nothing_is_answered_after_a_while_and_holds_up_no_login() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    // As many as are served at a time, half of them in the middle of a word.
    let mut silent: Vec<UnixStream> =
        (0..16).map(|_| UnixStream::connect(sasld.control()).unwrap()).collect();
    for stream in silent.iter_mut().step_by(2) {
        stream.write_all(b"stat").unwrap();
    }
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
    assert_eq!(status(&sasld).attempts.total.ok, 1, "when the silent ones have been sent away");
    let mut reply = String::new();
    silent[0].read_to_string(&mut reply).unwrap();
    assert!(reply.contains("no whole line within 2s"), "{reply}");
}

#[test]
fn without_its_directory_the_daemon_serves_without_a_control_socket() {
    let dir = directory();
    let settings = format!("control: {}/missing/control\n", dir.path().display());
    let sasld = start(&dir, ALICE, &settings);
    sasld.log.wait_for(&["event=control_not_available", "the directory has to exist"]);
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
    assert_eq!(command(&sasld, &["status"]).0, 69);
}

#[test]
fn a_stale_socket_is_replaced_and_somebody_elses_is_left_alone() {
    let dir = directory();
    let mut sasld = start(&dir, ALICE, "");
    sasld.kill();
    assert!(sasld.control().exists(), "what a killed daemon leaves");
    sasld.start_again();
    assert_eq!(status(&sasld).pid, sasld.pid());

    let other = directory();
    let settings = format!("control: {}\n", sasld.control().display());
    let second = start(&other, ALICE, &settings);
    second.log.wait_for(&["event=control_not_available", "another server listens there already"]);
    assert_eq!(status(&sasld).pid, sasld.pid());
}

#[test]
fn off_is_off() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "control: off\n");
    assert!(!sasld.control().exists());
    let config = dir.path().join("sasld.yaml");
    let output = Command::new(SASLD).args(["status", "--config"]).arg(config).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8(output.stderr).unwrap().contains("control: is off"));
}
