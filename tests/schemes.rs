//! Stored passwords against the programs that other people make them with: Dovecot's `doveadm pw`, and `mkpasswd`,
//! which uses libxcrypt as the system's own login does.
//!
//! What they make must verify here, and what is made here must verify there; never with another password. Needs the
//! Debian packages dovecot-core and whois, and fails where they are missing unless SASLD_ALLOW_SKIP=1.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use sasld::credential::{Password, Scheme, Verifier, derive};

/// What each program is packaged in.
const DOVEADM: (&str, &str) = ("doveadm", "dovecot-core");
const MKPASSWD: (&str, &str) = ("mkpasswd", "whois");

const SALT: [u8; 16] = *b"\x00\xff salt \x80 and so";

/// ASCII, UTF-8 and every printable character; around the block of MD5 and the 72 bytes of bcrypt; and long.
fn passwords() -> Vec<String> {
    let printable: String = (' '..='~').collect();
    let mut passwords = vec![
        "secret".to_owned(),
        "gr\u{fc}\u{df}e \u{1f511} \u{439}".to_owned(),
        printable[..64].to_owned(),
        printable[32..].to_owned(),
    ];
    for length in [65, 71, 72, 73, 200] {
        passwords.push("0123456789".repeat(20)[..length].to_owned());
    }
    passwords
}

/// One that differs in its first byte: bcrypt does not look at the last one of a long password.
fn other(password: &str) -> String {
    format!("~{}", &password[1..])
}

#[test]
fn what_doveadm_makes_verifies_here() {
    if !installed(DOVEADM) {
        return;
    }
    for scheme in Scheme::ALL {
        for password in passwords() {
            let made = doveadm(&["pw", "-s", scheme.name(), "-p", &password]);
            assert_verifies(&text_of(&made), &password);
        }
    }
}

#[test]
fn what_doveadm_makes_verifies_here_in_every_encoding() {
    if !installed(DOVEADM) {
        return;
    }
    for scheme in ["PLAIN", "CLEARTEXT", "CRAM-MD5", "HMAC-MD5", "SSHA256", "SSHA512", "SHA512-CRYPT"] {
        for encoding in ["hex", "b64", "base64"] {
            let name = format!("{scheme}.{encoding}");
            let made = doveadm(&["pw", "-s", &name, "-p", "gr\u{fc}\u{df}e"]);
            assert_verifies(&text_of(&made), "gr\u{fc}\u{df}e");
        }
    }
}

#[test]
fn doveadm_and_we_make_the_same_of_a_password_where_there_is_no_salt() {
    if !installed(DOVEADM) {
        return;
    }
    for scheme in [Scheme::Plain, Scheme::CramMd5] {
        for password in passwords() {
            let theirs = doveadm(&["pw", "-s", scheme.name(), "-p", &password]);
            let ours = derive(scheme, &Password::new(password.as_str()), &SALT, None).expect("possible");
            let ours = ours.encode();
            if !ours.starts_with("{PLAIN.b64}") {
                assert_eq!(*ours, text_of(&theirs));
            }
        }
    }
}

#[test]
fn what_mkpasswd_makes_verifies_here() {
    if !installed(MKPASSWD) {
        return;
    }
    for arguments in [
        &["-m", "yescrypt"][..],
        &["-m", "yescrypt", "-R", "1"],
        &["-m", "yescrypt", "-R", "3"],
        &["-m", "sha512crypt"],
        &["-m", "sha512crypt", "-R", "1000"],
        &["-m", "sha256crypt"],
        &["-m", "sha256crypt", "-R", "12345"],
        &["-m", "sha512crypt", "-S", "12345678"],
        &["-m", "bcrypt", "-R", "4"],
        &["-m", "bcrypt-a", "-R", "4"],
    ] {
        for password in passwords() {
            assert_verifies(&format!("{{CRYPT}}{}", mkpasswd(arguments, &password)), &password);
        }
    }
}

#[test]
fn what_is_made_here_verifies_in_dovecot() {
    if !installed(DOVEADM) {
        return;
    }
    for &scheme in Scheme::ALL {
        let least = scheme.costs().map(|costs| *costs.start());
        for password in passwords() {
            let made = derive(scheme, &Password::new(password.as_str()), &SALT, least).expect("possible");
            let text = made.encode();
            assert!(dovecot_verifies(&text, &password), "{} with {password:?}", *text);
            assert!(!dovecot_verifies(&text, &other(&password)), "{} with another", *text);
        }
    }
}

#[test]
fn what_is_made_here_at_default_cost_verifies_in_dovecot() {
    if !installed(DOVEADM) {
        return;
    }
    for &scheme in Scheme::ALL {
        let made = derive(scheme, &Password::new("secret"), &SALT, None).expect("possible");
        assert!(dovecot_verifies(&made.encode(), "secret"), "{}", *made.encode());
    }
}

fn assert_verifies(text: &str, password: &str) {
    let verifier = Verifier::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let accepts = |password: &str| verifier.verify(&Password::new(password)).is_some();
    assert!(accepts(password), "{text} with {password:?}");
    assert!(!accepts(&other(password)), "{text} with another password");
}

fn dovecot_verifies(text: &str, password: &str) -> bool {
    doveadm(&["pw", "-t", text, "-p", password]).status.success()
}

fn doveadm(arguments: &[&str]) -> Output {
    Command::new("doveadm").args(arguments).output().expect("doveadm runs")
}

fn mkpasswd(arguments: &[&str], password: &str) -> String {
    let mut child = Command::new("mkpasswd")
        .args(arguments)
        .arg("--stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("mkpasswd runs");
    let mut stdin = child.stdin.take().expect("is a pipe");
    writeln!(stdin, "{password}").expect("mkpasswd reads");
    drop(stdin);
    text_of(&child.wait_with_output().expect("mkpasswd ends"))
}

fn text_of(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = str::from_utf8(&output.stdout).expect("hashes are ASCII, passwords were UTF-8");
    text.strip_suffix('\n').expect("one line").to_owned()
}

/// Whether the test can run here. Says so aloud where it cannot: libtest would swallow what is printed.
fn installed((program, package): (&str, &str)) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&paths).any(|path| path.join(program).is_file()) {
        return true;
    }
    assert!(
        std::env::var_os("SASLD_ALLOW_SKIP").is_some_and(|value| value == "1"),
        "{program} is missing: install the package {package}, or set SASLD_ALLOW_SKIP=1"
    );
    writeln!(std::io::stderr(), "SKIPPED: {program} is missing (package {package})").expect("stderr is open");
    false
}
