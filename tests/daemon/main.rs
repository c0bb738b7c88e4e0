//! The life of the built daemon: listeners, signals, reloads, systemd's part, limits, and what it logs.
//!
//! Each test has a directory and a daemon of its own. What the protocol says is `replay.rs`'s business; what Postfix
//! makes of it is `postfix/`'s.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::log::Log;
use support::peer::{ALICE, Peer, RIGHT, WRONG, auth};
use support::sasld::{Sasld, listener_for_caller as listener};
use tempfile::TempDir;

const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("sasld-daemon-").tempdir().unwrap()
}

fn start(dir: &TempDir, secrets: &str, settings: &str) -> Sasld {
    Sasld::start_for_caller(dir.path(), secrets, settings)
}

/// Runs `sasld serve` where it is expected to give up.
fn serve_in_vain(config: &Path) -> Output {
    Command::new(SASLD).args(["serve", "--config"]).arg(config).output().unwrap()
}

#[test]
fn a_second_daemon_on_the_same_socket_gives_up_and_the_first_goes_on() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let second = serve_in_vain(&dir.path().join("sasld.yaml"));
    assert_eq!(second.status.code(), Some(69));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("another server listens there already"), "{message}");
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
}

#[test]
fn sigterm_lets_refusals_out_at_their_time_and_removes_the_socket() {
    let dir = directory();
    let mut sasld = start(&dir, ALICE, "refusal_delay: 1s\n");
    let mut peer = Peer::greeted(&sasld.socket());
    for id in 1..=50 {
        peer.send(&auth(id, "PLAIN", WRONG));
    }
    // The answer to this shows that the others are decided.
    peer.send(&auth(51, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t51\tuser=alice");
    sasld.signal(Signal::SIGTERM);
    sasld.log.wait_for(&["event=stopping"]);
    let mut refused: Vec<String> = (1..=50).map(|_| peer.line()).collect();
    refused.sort();
    refused.dedup();
    assert_eq!(refused.len(), 50);
    assert!(refused.iter().all(|line| line.starts_with("FAIL\t") && line.contains("\tuser=alice\treason=")));
    assert!(peer.is_closed());
    assert!(sasld.wait().success());
    sasld.log.wait_for(&["event=stopped ended=drained"]);
    assert!(!sasld.socket().exists());
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    let dir = directory();
    let mut sasld = start(&dir, ALICE, "refusal_delay: 5s\n");
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&format!("{}{}", auth(1, "PLAIN", WRONG), auth(2, "PLAIN", RIGHT)));
    assert_eq!(peer.line(), "OK\t2\tuser=alice");
    sasld.signal(Signal::SIGTERM);
    sasld.log.wait_for(&["event=stopping"]);
    sasld.signal(Signal::SIGTERM);
    sasld.log.wait_for(&["event=stopped", "second signal"]);
    assert!(sasld.wait().success());
    assert!(peer.is_closed());
}

#[test]
fn a_reload_reaches_old_connections_and_a_broken_one_changes_nothing() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "require_tls: false\n");
    let config = dir.path().join("sasld.yaml");
    let good = fs::read_to_string(&config).unwrap();
    let mut peer = Peer::greeted(&sasld.socket());
    let without_tls = |id| format!("AUTH\t{id}\tPLAIN\tservice=smtp\tresp={RIGHT}\n");
    peer.send(&without_tls(1));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");

    fs::write(&config, good.replace("require_tls: false", "require_tls: true\nrefusal_dleay: 1s")).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=not_reloaded", "sasld.yaml:", "refusal_dleay", "did you mean"]);
    peer.send(&without_tls(2));
    assert_eq!(peer.line(), "OK\t2\tuser=alice");

    fs::write(&config, good.replace("require_tls: false", "require_tls: true")).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=reloaded"]);
    peer.send(&without_tls(3));
    assert!(peer.line().contains("encrypted connection"));
}

#[test]
fn a_reload_opens_new_listeners_and_closes_old_ones() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let config = dir.path().join("sasld.yaml");
    let (old, new) = (dir.path().join("auth"), dir.path().join("other"));
    let mut before = Peer::greeted(&old);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(old.to_str().unwrap(), new.to_str().unwrap())).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=reloaded", "/other"]);
    Peer::greeted(&new);
    assert!(!old.exists());
    before.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(before.line(), "OK\t1\tuser=alice", "a connection outlives its listener");
}

#[test]
fn a_changed_mode_is_applied_by_a_reload() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let config = dir.path().join("sasld.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"0600\"", "\"0660\"")).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=reloaded"]);
    assert_eq!(fs::metadata(sasld.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    Peer::greeted(&sasld.socket());
}

#[test]
fn a_reload_that_fails_takes_no_socket_away() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let config = dir.path().join("sasld.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let another = format!("\"0660\"}}\n  - tcp: 127.0.0.1:{port}\n#");
    fs::write(&config, text.replace("\"0600\"", &another)).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=not_reloaded", "another server listens there already"]);
    assert_eq!(fs::metadata(sasld.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "no temporary socket stays behind");
}

#[test]
fn a_socket_that_was_removed_is_bound_again_by_a_reload() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    fs::remove_file(sasld.socket()).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=reloaded"]);
    Peer::greeted(&sasld.socket());
}

#[test]
fn who_may_connect_can_be_reloaded() {
    let dir = directory();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sasld = Sasld::start_on(&format!("  - tcp: 127.0.0.1:{port}\n"), dir.path(), ALICE, "");
    Peer::greeted_over_tcp(port);
    let config = dir.path().join("sasld.yaml");
    let text = fs::read_to_string(&config).unwrap();
    let tcp = format!("tcp: 127.0.0.1:{port}\n");
    fs::write(&config, text.replace(&tcp, &format!("{tcp}    allow: [192.0.2.0/24]\n"))).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=reloaded"]);
    assert!(Peer::connected_over_tcp(port).is_closed());
    sasld.log.wait_for(&["event=not_accepted", "127.0.0.1:"]);
}

#[test]
fn a_reload_to_a_secrets_file_that_is_not_there_changes_nothing() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let config = dir.path().join("sasld.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("/secrets\n", "/secerts\n")).unwrap();
    sasld.signal(Signal::SIGHUP);
    sasld.log.wait_for(&["event=not_reloaded", "secerts"]);
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
}

#[test]
fn a_flood_of_abandoned_exchanges_costs_an_honest_login_nothing() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let flood: String = (1..=1024).map(|id| format!("AUTH\t{id}\tCRAM-MD5\tservice=smtp\n")).collect();
    let _floods: Vec<Peer> = (0..70)
        .map(|_| {
            let mut peer = Peer::greeted(&sasld.socket());
            for part in flood.as_bytes().chunks(8 << 10) {
                peer.send(std::str::from_utf8(part).unwrap());
                peer.skip_lines(part.iter().filter(|&&byte| byte == b'\n').count());
            }
            peer
        })
        .collect();
    let mut honest = Peer::greeted(&sasld.socket());
    honest.send("AUTH\t1\tLOGIN\tservice=smtp\tsecured\tresp=YWxpY2U=\n");
    assert_eq!(honest.line(), "CONT\t1\tUGFzc3dvcmQ6");
    honest.send("CONT\t1\td29uZGVy\n");
    assert_eq!(honest.line(), "OK\t1\tuser=alice");
}

#[test]
fn without_a_secrets_file_there_is_a_greeting_but_no_verdict_until_it_comes() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let secrets = dir.path().join("secrets");
    let mut sasld = sasld;
    sasld.stop();
    fs::rename(&secrets, dir.path().join("away")).unwrap();
    sasld.start_again();
    sasld.log.wait_for(&["event=secrets_not_loaded", "there is no such file"]);
    let mut postfix = Peer::greeted_as(&sasld.socket(), "VERSION\t1\t0\nCPID\t7\n");
    postfix.send(&auth(1, "PLAIN", RIGHT));
    assert!(postfix.is_closed(), "a lost connection is what Postfix takes for temporary");
    let mut dovecot = Peer::greeted_as(&sasld.socket(), "VERSION\t1\t2\nCPID\t7\n");
    dovecot.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(dovecot.line(), "FAIL\t1\tuser=alice\tcode=temp_fail\ttemp");
    sasld.log.wait_for(&["event=auth result=outage why=passdb_unavailable user=alice"]);
    fs::rename(dir.path().join("away"), &secrets).unwrap();
    sasld.log.wait_for(&["event=secrets_loaded", "users=1"]);
    dovecot.send(&auth(2, "PLAIN", RIGHT));
    assert_eq!(dovecot.line(), "OK\t2\tuser=alice");
}

#[test]
fn a_removed_user_is_out_at_once_and_a_lost_file_is_not_missed() {
    let dir = directory();
    let sasld = start(&dir, "alice:{PLAIN}wonder\nbob:{PLAIN}wonder\n", "");
    let mut peer = Peer::greeted(&sasld.socket());
    sasld.user_command(&["remove", "alice"], "");
    sasld.log.wait_for(&["event=secrets_loaded", "users=1"]);
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert!(peer.line().starts_with("FAIL\t1\tuser=alice"));
    fs::remove_file(dir.path().join("secrets")).unwrap();
    sasld.log.wait_for(&["event=secrets_not_loaded", "the last good contents"]);
    peer.send(&auth(2, "PLAIN", "AGJvYgB3b25kZXI="));
    assert_eq!(peer.line(), "OK\t2\tuser=bob");
}

#[test]
fn an_expensive_login_holds_up_nobody() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    sasld.user_command(&["add", "slow", "--scheme", "ARGON2ID"], "wonder");
    sasld.log.wait_for(&["event=secrets_loaded", "users=2"]);
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&format!("{}{}", auth(1, "PLAIN", "AHNsb3cAd29uZGVy"), auth(2, "PLAIN", RIGHT)));
    assert_eq!(peer.line(), "OK\t2\tuser=alice");
    assert_eq!(peer.line(), "OK\t1\tuser=slow");
}

#[test]
fn a_service_can_be_narrower_than_the_rest() {
    let dir = directory();
    let settings = "services:\n  inside:\n    mechanisms: [CRAM-MD5]\n    allow_nets: [192.0.2.0/24]\n  \
                    open:\n    require_tls: false\n";
    let sasld = start(&dir, ALICE, settings);
    let mut peer = Peer::greeted(&sasld.socket());
    peer.send(&format!("AUTH\t1\tPLAIN\tservice=inside\tsecured\trip=192.0.2.1\tresp={RIGHT}\n"));
    assert_eq!(peer.line(), "FAIL\t1");
    peer.send("AUTH\t2\tCRAM-MD5\tservice=inside\trip=198.51.100.1\n");
    assert_eq!(peer.line(), "FAIL\t2\treason=Invalid user name or password");
    peer.send("AUTH\t3\tCRAM-MD5\tservice=inside\trip=192.0.2.1\n");
    assert!(peer.line().starts_with("CONT\t3\t"));
    peer.send(&format!("AUTH\t4\tPLAIN\tservice=open\tresp={RIGHT}\n"));
    assert_eq!(peer.line(), "OK\t4\tuser=alice");
    peer.send(&format!("AUTH\t5\tPLAIN\tservice=other\tresp={RIGHT}\n"));
    assert!(peer.line().contains("encrypted connection"));
    peer.send(&format!("AUTH\t6\tPLAIN\tservice=other\trip=::1\tresp={RIGHT}\n"));
    assert_eq!(peer.line(), "OK\t6\tuser=alice", "a login from this machine counts as secured");
}

#[test]
fn tcp_serves_this_machine() {
    let dir = directory();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listener = format!("  - tcp: 127.0.0.1:{port}\n");
    let sasld = Sasld::start_on(&listener, dir.path(), ALICE, "");
    let mut peer = Peer::greeted_over_tcp(port);
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
    drop(sasld);
}

#[test]
fn a_user_who_is_not_among_the_peers_is_closed_out_and_logged() {
    let dir = directory();
    let stranger = Uid::effective().as_raw() + 1;
    let socket = dir.path().join("auth");
    let listener = listener(&socket).replace("mode:", &format!("peers: [{stranger}], mode:"));
    let sasld = Sasld::start_on(&listener, dir.path(), ALICE, "");
    assert!(Peer::connect(&socket).is_closed());
    sasld.log.wait_for(&["event=not_accepted", &format!("uid {} may not connect", Uid::effective())]);
}

#[test]
fn over_the_limit_connections_wait_for_their_greeting() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "limits: {connections: 2}\n");
    let first = Peer::greeted(&sasld.socket());
    let _second = Peer::greeted(&sasld.socket());
    let mut third = Peer::connect(&sasld.socket());
    assert!(third.is_silent());
    drop(first);
    assert!(third.line().starts_with("VERSION\t1\t"));
}

#[test]
fn without_descriptors_connections_wait_and_then_are_served() {
    let dir = directory();
    let mut sasld = start(&dir, ALICE, "");
    sasld.stop();
    let limited =
        format!("ulimit -n 40 && exec {SASLD} serve --config {}", dir.path().join("sasld.yaml").display());
    let mut child =
        Command::new("bash").args(["-c", &limited]).stderr(Stdio::piped()).spawn().expect("bash is there");
    let log = Log::follow(child.stderr.take().unwrap());
    log.wait_for(&["event=ready"]);
    let mut peers: Vec<Peer> = (0..60).map(|_| Peer::connect(&dir.path().join("auth"))).collect();
    log.wait_for(&["event=not_accepted", "Too many open files"]);
    let mut last = peers.pop().unwrap();
    drop(peers);
    assert!(last.line().starts_with("VERSION\t1\t"));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn sockets_of_systemd_are_served_and_readiness_is_told() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    drop(sasld);
    let (passed, notify) = (dir.path().join("passed"), dir.path().join("notify"));
    let socket = UnixListener::bind(&passed).unwrap();
    let manager = UnixDatagram::bind(&notify).unwrap();
    fcntl(socket.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let launcher = format!(
        "export LISTEN_FDS=1 LISTEN_PID=$$ && exec {SASLD} serve --config {} 3<&{}",
        dir.path().join("sasld.yaml").display(),
        socket.as_raw_fd()
    );
    let mut child = Command::new("bash")
        .args(["-c", &launcher])
        .env("NOTIFY_SOCKET", &notify)
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash is there");
    let log = Log::follow(child.stderr.take().unwrap());
    log.wait_for(&["event=ready", "/passed"]);
    let mut message = [0; 1024];
    let length = manager.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..length]).into_owned();
    assert!(message.contains("READY=1") && message.contains("STATUS=Listening on"), "{message}");
    let mut peer = Peer::greeted(&passed);
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(passed.exists(), "a socket of systemd's stays");
}

#[test]
fn it_starts_with_its_standard_descriptors_closed() {
    let dir = directory();
    let mut sasld = start(&dir, ALICE, "");
    sasld.stop();
    let closed =
        format!("exec {SASLD} serve --config {} <&- >&- 2>&-", dir.path().join("sasld.yaml").display());
    let mut child = Command::new("bash").args(["-c", &closed]).spawn().expect("bash is there");
    let socket = dir.path().join("auth");
    let mut peer = Peer::greeted_when_it_is_there(&socket);
    peer.send(&auth(1, "PLAIN", RIGHT));
    assert_eq!(peer.line(), "OK\t1\tuser=alice");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn no_core_file_can_be_written() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "");
    let limits = fs::read_to_string(format!("/proc/{}/limits", sasld.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn a_name_cannot_forge_a_log_line() {
    let dir = directory();
    let sasld = start(&dir, ALICE, "usernames: {allowed_characters: \"\"}\n");
    let mut peer = Peer::greeted(&sasld.socket());
    // NUL, `x rip=9.9.9.9 result=ok`, NUL, `p`; and `a LF b`.
    peer.send(&auth(1, "PLAIN", "AHggcmlwPTkuOS45LjkgcmVzdWx0PW9rAHA="));
    assert!(peer.line().starts_with("FAIL\t1\tuser=x rip=9.9.9.9 result=ok\t"));
    sasld.log.wait_for(&["user=\"x rip=9.9.9.9 result=ok\" mech=PLAIN service=smtp rip=192.0.2.7"]);
    peer.send(&auth(2, "PLAIN", "AGEKYgBw"));
    assert_eq!(peer.line(), "FAIL\t2\treason=Invalid user name or password");
    sasld.log.wait_for(&["why=bad_name user=\"a\\nb\" mech=PLAIN"]);
}

#[test]
fn nothing_secret_is_logged_at_the_finest_level() {
    let dir = directory();
    let secrets = "alice:{PLAIN}c4nary-st0red\nbob:{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56\n";
    let sasld = start(&dir, secrets, "log_level: trace\n");
    let mut peer = Peer::greeted(&sasld.socket());
    // NUL alice NUL c4nary-typed, then the same where no command may stand.
    let typed = "AGFsaWNlAGM0bmFyeS10eXBlZA==";
    peer.send(&auth(1, "PLAIN", typed));
    assert!(peer.line().starts_with("FAIL\t1"));
    peer.send(&format!("AUTH\t0\tPLAIN\tservice=smtp\tresp={typed}\n"));
    assert!(peer.is_closed());
    let mut early = Peer::connect(&sasld.socket());
    early.send(&auth(1, "PLAIN", typed));
    while !early.line_or_end().is_empty() {}
    sasld.log.wait_for(&["event=protocol_error", "AUTH out of place"]);
    let log = sasld.log.text();
    for secret in ["c4nary", typed, "YzRuYXJ5", "cd3ba7de"] {
        assert!(!log.contains(secret), "{secret} in:\n{log}");
    }
}

#[test]
fn a_configuration_that_is_missing_or_wrong_is_78_with_every_mistake() {
    let dir = directory();
    let path: PathBuf = dir.path().join("sasld.yaml");
    let missing = serve_in_vain(&path);
    assert_eq!(missing.status.code(), Some(78));
    fs::write(&path, "mechanisms: [PLIAN]\ndeadline: 20s\n").unwrap();
    let wrong = serve_in_vain(&path);
    assert_eq!(wrong.status.code(), Some(78));
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(message.contains("sasld.yaml:1:") && message.contains("sasld.yaml:2:"), "{message}");
}
