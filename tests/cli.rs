//! The built program's other commands: check, test, hash, and what it says to a wrong command line.
//!
//! `sasld user` has `user.rs`, the daemon has `daemon/`.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
mod support;

use nix::unistd::{Gid, Uid};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use support::feed;
use support::sasld::{Sasld, listener_for_caller};
use tempfile::TempDir;

const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

/// Runs the program with this on its standard input.
fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(SASLD);
    command.args(arguments);
    let Output { status, stdout, stderr } = feed(command, input.as_bytes());
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A directory with a configuration whose socket and secrets are in it, too.
fn site(secrets: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    let listener = listener_for_caller(&dir.path().join("auth"));
    let config = format!("listeners:\n{listener}passdbs:\n  - secrets_file: {place}/secrets\n");
    let path = dir.path().join("sasld.yaml");
    fs::write(&path, config).unwrap();
    write_secrets(dir.path(), secrets);
    (dir, path.display().to_string())
}

fn write_secrets(dir: &Path, secrets: &str) {
    let path = dir.join("secrets");
    fs::write(&path, secrets).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn a_wrong_command_line_is_64_with_the_usage() {
    for arguments in [&[][..], &["nonsense"], &["serve", "--nonsense"], &["test"]] {
        let (exit, stdout, stderr) = run(arguments, "");
        assert_eq!((exit, stdout.as_str()), (64, ""), "{arguments:?}");
        assert!(stderr.contains("Usage: sasld"), "{arguments:?}: {stderr}");
    }
    let (exit, stdout, _) = run(&["--help"], "");
    assert!(exit == 0 && stdout.contains("Exit status:"), "{stdout}");
}

#[test]
fn check_is_quiet_about_a_good_configuration_when_told_to() {
    let (_dir, config) = site("alice:{PLAIN}wonder\n");
    assert_eq!(run(&["check", "--config", &config, "--quiet"], ""), (0, String::new(), String::new()));
    let (exit, stdout, _) = run(&["check", "--config", &config], "");
    assert_eq!(exit, 0);
    for part in ["mechanisms: PLAIN LOGIN CRAM-MD5", "(1 user)", "/auth ("] {
        assert!(stdout.contains(part), "{part} is not in:\n{stdout}");
    }
}

#[test]
fn check_names_each_broken_line_and_never_a_secret() {
    let (_dir, config) =
        site("alice:{PLAIN}wonder\nbob:{NOSUCH}hidden\ncarol:hidden\ndave:{PLAIN}x::::::nologin foo=1\n");
    let (exit, stdout, _) = run(&["check", "--config", &config], "");
    assert_eq!(exit, 1);
    for part in ["secrets: line 2 (bob)", "NOSUCH", "secrets: line 3 (carol)", "foo"] {
        assert!(stdout.contains(part), "{part} is not in:\n{stdout}");
    }
    assert!(!stdout.contains("hidden"), "{stdout}");
}

#[test]
fn check_is_78_when_sasld_could_not_work() {
    let (dir, config) = site("");
    fs::remove_file(dir.path().join("secrets")).unwrap();
    let (exit, _, stderr) = run(&["check", "--config", &config], "");
    assert!(exit == 78 && stderr.contains("secrets: there is no such file"), "{exit}: {stderr}");
    fs::write(&config, "mechanisms: []\nrefusal_dleay: 1s\n").unwrap();
    let (exit, _, stderr) = run(&["check", "--config", &config], "");
    assert_eq!(exit, 78);
    assert!(stderr.contains(":1:") && stderr.contains(":2:"), "every mistake at once: {stderr}");
}

#[test]
fn test_says_what_postfix_would_tell_its_client() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("auth");
    let (user, group) = (Uid::effective(), Gid::effective());
    let listener =
        format!("  - {{unix: {}, owner: {user}, group: {group}, mode: \"0600\"}}\n", socket.display());
    let mut sasld = Sasld::start_on(&listener, dir.path(), "alice:{PLAIN}wonder\n", "");
    let socket = socket.to_str().unwrap();

    let (exit, stdout, _) = run(&["test", socket, "--user", "alice", "--password-stdin"], "wonder\n");
    assert_eq!(exit, 0);
    assert_eq!(stdout.matches("235 2.7.0 Authentication successful (user alice)").count(), 3, "{stdout}");

    let (exit, stdout, _) = run(&["test", socket, "--user", "alice", "--password-stdin"], "wrong");
    assert_eq!(exit, 1);
    let refused = "535 5.7.8 Error: authentication failed: Invalid user name or password";
    assert_eq!(stdout.matches(refused).count(), 3, "{stdout}");

    let one = ["test", socket, "--user", "alice", "--mechanism", "plain", "--no-tls", "--password-stdin"];
    let (exit, stdout, _) = run(&one, "wonder");
    assert!(exit == 1 && stdout.contains("encrypted connection"), "{stdout}");
    let (_, stdout, _) = run(&[&one[..], &["--json"]].concat(), "wonder");
    let said: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let login = &said["logins"][0];
    assert_eq!((&login["mechanism"], &login["result"]), (&"PLAIN".into(), &"refused".into()), "{said}");
    assert!(login["reply"].as_str().unwrap().starts_with("535 ") && said["offers"].is_array(), "{said}");

    sasld.stop();
    let (exit, _, stderr) = run(&["test", socket, "--user", "alice", "--password-stdin"], "wonder");
    assert!(exit == 69 && stderr.contains("is the server running"), "{stderr}");
}

#[test]
fn test_tells_silence_nonsense_and_a_left_over_socket_apart() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("auth");
    let path = socket.to_str().unwrap();
    let answer = |greeting: &'static [u8]| {
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // What was not read when a socket closes is an error at the other end.
            let _ = std::io::Read::read(&mut stream, &mut [0; 64]);
            stream.write_all(greeting).unwrap();
        })
    };
    let cases: [(&[u8], i32, &str); 3] = [
        (b"VERSION\t1\t1\nSPID\t1\n", 65, "not an auth-client socket"),
        (b"VERSION\t2\t0\n", 65, "major version"),
        (b"VERSION\t1\t1\nMECH\tPLAIN\n", 69, "no complete greeting"),
    ];
    for (greeting, expected, words) in cases {
        let server = answer(greeting);
        let (exit, _, stderr) = run(&["test", path, "--user", "alice", "--password-stdin"], "x");
        server.join().unwrap();
        fs::remove_file(&socket).unwrap();
        assert!(exit == expected && stderr.contains(words), "{exit}: {stderr}");
    }
    drop(UnixListener::bind(&socket).unwrap());
    let (exit, _, stderr) = run(&["test", path, "--user", "alice", "--password-stdin"], "x");
    assert!(exit == 69 && stderr.contains("nobody listens on it"), "{stderr}");
}

#[test]
fn hash_makes_what_the_secrets_file_takes() {
    let arguments =
        ["hash", "--scheme", "SHA512-CRYPT", "--cost", "1000", "--scheme", "CRAM-MD5", "--password-stdin"];
    let (exit, stdout, _) = run(&arguments, "secret\n");
    assert_eq!(exit, 0);
    assert!(stdout.starts_with("{SHA512-CRYPT}$6$rounds=1000$"), "{stdout}");
    // RFC 2195's key schedule for `secret`, as `doveadm pw -s CRAM-MD5` prints it.
    let state = "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56\n";
    assert!(stdout.ends_with(&format!(";{state}")), "{stdout}");
}

#[test]
fn hash_refuses_a_password_on_the_command_line_and_an_empty_one() {
    let (exit, stdout, stderr) = run(&["hash", "secret"], "");
    assert_eq!((exit, stdout.as_str()), (64, ""));
    assert!(stderr.contains("every local user") && !stderr.contains("secret"), "{stderr}");
    assert_eq!(run(&["hash", "--password-stdin"], "\n").0, 1);
}

#[test]
fn output_that_cannot_be_written_is_74() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = Command::new(SASLD).arg("--version").stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(74));
}
