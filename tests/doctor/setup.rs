//! `sasld setup postfix` on a Postfix that knows nothing of logins, and what it leaves of one that does.

use crate::site::Site;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/dev/postfix-private");

/// What a Postfix needs to take a message and throw it away.
const DAEMONS: &str = "cleanup  unix       n - n -     0 cleanup
qmgr     unix       n - n 300   1 qmgr
rewrite  unix       - - n -     - trivial-rewrite
bounce   unix       - - n -     0 bounce
defer    unix       - - n -     0 bounce
trace    unix       - - n -     0 bounce
tlsmgr   unix       - - n 1000? 1 tlsmgr
proxymap unix       - - n -     - proxymap
anvil    unix       - - n -     1 anvil
retry    unix       - - n -     - error
discard  unix       - - n -     - discard
postlog  unix-dgram n - n -     1 postlogd
";

/// A Postfix's master, running; ends with the test.
struct Running(PathBuf);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new(SCRIPT).arg("stop").arg(&self.0).stderr(Stdio::null()).status();
    }
}

/// Starts master; false when a port is taken.
fn start(site: &Site) -> Option<Running> {
    let directory = Command::new("postconf").args(["-dh", "daemon_directory"]).output().unwrap().stdout;
    let master = Path::new(String::from_utf8(directory).unwrap().trim()).join("master");
    site.age();
    let started = Command::new(master)
        .args(["-w", "-e", "900"])
        .env("MAIL_CONFIG", site.etc())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    started.success().then(|| Running(site.path().to_owned()))
}

#[test]
fn a_bare_postfix_ends_in_a_login_over_starttls() {
    // Ports below Linux's ephemeral range, other ones than `postfix-private` takes.
    let first = 15_000 + u16::try_from(std::process::id() % 4_000).unwrap();
    for port in [first, first + 17, first + 34] {
        let (smtp, submission) = (port, port + 1);
        let master_cf = format!("127.0.0.1:{smtp} inet n - n - - smtpd\n{DAEMONS}");
        let Some(mut site) = Site::bare(&master_cf) else { return };
        fs::write(site.path().join("maillog"), "").unwrap();
        let Some(running) = start(&site) else { continue };
        let service = format!("127.0.0.1:{submission}");
        let words = ["setup", "postfix", "--service", &service, "--apply"];
        let applied = site.sasld(&words);
        assert!(applied.out.contains("0 errors, 0 warnings"), "{}", applied.out);
        assert_eq!(applied.exit, 0, "{}", applied.out);
        let swaks = |arguments: &[&str]| {
            let mut all =
                vec!["--server", "127.0.0.1", "--from", "alice@sasld.test", "--to", "bob@example.com"];
            let port = submission.to_string();
            all.extend(["--port", &port]);
            all.extend(arguments);
            let output = Command::new("swaks").args(all).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let login = ["--auth-user", "alice", "--auth-password", "secret"];
        let dialog = swaks(&[&["--tls", "--auth", "PLAIN"], &login[..]].concat());
        assert!(dialog.contains(" 235 2.7.0 Authentication successful\n"), "{dialog}");
        assert!(dialog.contains(" 250 2.0.0 Ok: queued as "), "{dialog}");
        let clear = swaks(&["--quit-after", "EHLO"]);
        assert!(clear.contains(" 250-AUTH CRAM-MD5\n"), "{clear}");
        let stranger = swaks(&["--tls"]);
        assert!(stranger.contains("Relay access denied") || stranger.contains("Access denied"), "{stranger}");
        let outside = site.with_paths(&format!(
            "printf secret | sasld doctor --config $SITE/sasld.yaml --postfix-config $ETC --root $ROOT \
             --user alice --password-stdin --smtp {service}"
        ));
        let looked = site.shell(&outside);
        assert_eq!(looked.exit, 0, "{}", looked.out);
        assert!(looked.out.contains("the certificate: self-signed certificate"), "{}", looked.out);
        let wrong = site.shell(&outside.replace("secret |", "wrong |"));
        assert!(wrong.exit == 2 && wrong.out.contains("refused: 535 5.7.8"), "{}", wrong.out);
        site.age();
        let again = site.sasld(&words[..4]);
        assert!(again.out.ends_with("nothing to do\n") && again.exit == 0, "{}", again.out);
        drop(running);
        return;
    }
    panic!("no free ports");
}

#[test]
fn nothing_is_changed_without_apply_and_undo_brings_everything_back() {
    let Some(mut site) = Site::bare("smtp inet n - y - - smtpd\n") else { return };
    let settings = |site: &Site| {
        let text = fs::read_to_string(site.etc().join("main.cf")).unwrap();
        let master = Command::new("postconf").arg("-Mc").arg(site.etc()).output().unwrap().stdout;
        (text, String::from_utf8(master).unwrap())
    };
    fs::write(
        site.etc().join("main.cf"),
        fs::read_to_string(site.etc().join("main.cf")).unwrap() + "smtpd_sasl_path = private/old\n",
    )
    .unwrap();
    // A key that no setting names may still be somebody's.
    let key = site.etc().join("tls-key.pem");
    fs::write(&key, "somebody's").unwrap();
    site.age();
    let before = settings(&site);
    let printed = site.sasld(&["setup", "postfix"]);
    assert_eq!((printed.exit, settings(&site)), (0, before.clone()), "{}", printed.out);
    let (commands, undo) = printed.out.split_once("# To undo:\n").unwrap();
    let undo: String = undo.lines().map(|line| line.strip_prefix("# ").unwrap().to_owned() + "\n").collect();
    let typed = site.shell(&format!("set -e\n{commands}"));
    assert!(typed.out.contains("0 errors, 0 warnings"), "{}", typed.out);
    assert_ne!(settings(&site), before);
    site.age();
    let undone = site.shell(&format!("set -e\n{undo}"));
    assert_eq!(undone.exit, 0, "{}", undone.out);
    assert_eq!(settings(&site), before);
    assert_eq!(fs::read_to_string(key).unwrap(), "somebody's");
}

#[test]
fn a_service_that_works_needs_nothing() {
    let Some(site) = Site::working() else { return };
    site.age();
    let printed = site.sasld(&["setup", "postfix"]);
    assert!(printed.out.ends_with("submission/inet: nothing to do\n"), "{}", printed.out);
    let json = site.sasld(&["setup", "postfix", "--json"]);
    assert_eq!(json.out, "{\"applied\":false,\"changes\":[]}\n");
}

#[test]
fn without_cram_md5_logins_wait_for_tls() {
    let Some(site) = Site::bare("smtp inet n - y - - smtpd\n") else { return };
    fs::create_dir(site.path().join("conf.d")).unwrap();
    fs::write(site.path().join("conf.d/10-plain.yaml"), "mechanisms: [PLAIN, LOGIN]\n").unwrap();
    let printed = site.sasld(&["setup", "postfix", "--service", "submission"]);
    assert!(printed.out.contains(" -P submission/inet/smtpd_tls_auth_only=yes\n"), "{}", printed.out);
    assert!(!printed.out.contains("noplaintext"), "{}", printed.out);
    let wrapped = site.sasld(&["setup", "postfix", "--service", "submissions"]);
    assert!(wrapped.out.contains(" -P submissions/inet/smtpd_tls_wrappermode=yes\n"), "{}", wrapped.out);
    assert!(!wrapped.out.contains("smtpd_tls_auth_only"), "{}", wrapped.out);
}
