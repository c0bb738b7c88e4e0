//! After a change the command says whether the running daemon has it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::place::{SASLD, code, err, feed, json, out};
use super::support::sasld::Sasld;

const ALICE: &str = "alice:{PLAIN}wonder\n";

fn start(dir: &Path) -> Sasld {
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    Sasld::start_for_caller(dir, ALICE, "")
}

fn user(dir: &Path, words: &[&str], password: &str) -> Output {
    let mut command = Command::new(SASLD);
    command.arg("user").args(words).arg("--config").arg(dir.join("sasld.yaml"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    feed(command, password.as_bytes())
}

#[test]
fn every_change_is_in_force_when_the_command_ends() {
    let dir = tempfile::tempdir().unwrap();
    let _sasld = start(dir.path());
    for (words, input) in [
        (&["add", "bob", "--password-stdin"][..], "b"),
        (&["passwd", "bob", "--password-stdin", "--scheme", "PLAIN"], "c"),
        (&["lock", "bob"], ""),
        (&["unlock", "bob"], ""),
        (&["remove", "alice"], ""),
    ] {
        let output = user(dir.path(), words, input);
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(out(&output).ends_with("in force in the running sasld\n"), "{words:?}: {}", out(&output));
    }
    let answer = json(&user(dir.path(), &["lock", "bob", "--json"], ""));
    assert_eq!(answer["daemon"]["state"], "in_force");
    let nothing = json(&user(dir.path(), &["lock", "bob", "--json"], ""));
    assert!(nothing["daemon"].is_null(), "there was nothing to take over");
}

#[test]
fn users_are_added_before_the_mail_server_and_its_user_are_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let secrets = dir.path().join("secrets");
    let listener =
        "listeners:\n  - {unix: /run/auth, owner: nobody-of-this-name, group: nobody-of-this-name}\n";
    let passdb = format!("passdbs:\n  - secrets_file: {}\n", secrets.display());
    fs::write(dir.path().join("sasld.yaml"), format!("{listener}{passdb}control: off\n")).unwrap();
    let output = user(dir.path(), &["add", "bob", "--password-stdin", "--scheme", "PLAIN"], "b");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(fs::read_to_string(secrets).unwrap(), "bob:{PLAIN}b\n");
}

#[test]
fn a_file_that_the_daemon_does_not_take_is_said_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let _sasld = start(dir.path());
    fs::set_permissions(dir.path().join("secrets"), Permissions::from_mode(0o644)).unwrap();
    let output = user(dir.path(), &["lock", "alice"], "");
    assert_eq!(code(&output), 1, "{}", out(&output));
    let expected = "the file was written, but the running sasld does not use it";
    assert!(err(&output).contains(expected) && err(&output).contains("chmod 0640"), "{}", err(&output));
    assert!(fs::read_to_string(dir.path().join("secrets")).unwrap().contains("nologin"));
    let answer = user(dir.path(), &["unlock", "alice", "--json"], "");
    assert_eq!((code(&answer), &json(&answer)["daemon"]["state"]), (1, &"rejected".into()));
}

#[test]
fn without_a_daemon_it_takes_effect_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut sasld = start(dir.path());
    sasld.stop();
    let output = user(dir.path(), &["lock", "alice"], "");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(
        out(&output).contains("there is no running sasld; this takes effect when it starts"),
        "{}",
        out(&output)
    );
}

#[test]
fn a_file_that_is_none_of_the_daemons_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let _sasld = start(dir.path());
    let other = dir.path().join("other.yaml");
    let yaml = fs::read_to_string(dir.path().join("sasld.yaml")).unwrap();
    fs::write(&other, yaml.replace("/secrets\n", "/others\n")).unwrap();
    let mut command = Command::new(SASLD);
    command.args(["user", "add", "bob", "--password-stdin", "--config"]).arg(&other);
    let output = feed(command_piped(command), b"b");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("has nothing to do with this file"), "{}", out(&output));
}

fn command_piped(mut command: Command) -> Command {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
