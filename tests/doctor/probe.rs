//! `sasld probe`: what it says about sasld, about others, and about nobody.

use crate::site::{Site, outcome};
use serde_json::Value;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::Command;

const SASLD: &str = env!("CARGO_BIN_EXE_sasld");

fn probe(arguments: &[&str]) -> crate::site::Outcome {
    outcome(Command::new(SASLD).arg("probe").args(arguments))
}

#[test]
fn a_probe_shows_sasld_as_postfix_finds_it() {
    let Some(site) = Site::working() else { return };
    let socket = site.path().join("queue/private/auth");
    let socket = socket.to_str().unwrap();
    let text = probe(&[socket]);
    assert_eq!(text.exit, 0);
    assert!(text.out.contains("an auth server, protocol 1.2, greeted in "), "{}", text.out);
    assert!(text.out.contains("CRAM-MD5     dictionary active\n"), "{}", text.out);
    let queue = site.path().join("queue");
    let json =
        probe(&["--json", "--as", "postfix", "--in", queue.to_str().unwrap(), "--chroot", "private/auth"]);
    let parsed: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(parsed["spid"], site.sasld.pid());
    assert_eq!(parsed["listener"]["pid"], site.sasld.pid());
    assert_eq!(parsed["mechanisms"][0]["name"], "PLAIN");
    assert_eq!(parsed["mechanisms"][0]["properties"][0], "plaintext");
}

#[test]
fn who_is_not_an_auth_server_is_told_from_nobody_and_from_a_closed_door() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let missing = probe(&[&path("missing")]);
    assert!(missing.exit == 69 && missing.out.contains("is the server running"), "{missing:?}");
    drop(UnixListener::bind(path("dead")).unwrap());
    let dead = probe(&["--json", &path("dead")]);
    let parsed: Value = serde_json::from_str(&dead.out).unwrap();
    assert!(dead.exit == 69 && parsed["error"] == "refused", "{dead:?}");
    for (name, greeting, exit, says) in [
        ("userdb", "VERSION\t1\t1\nSPID\t7\n", 65, "not an auth-client socket"),
        ("major", "VERSION\t2\t0\n", 65, "another major version"),
        ("http", "HTTP/1.1 400 Bad Request\r\n", 69, "no complete greeting"),
    ] {
        let listener = UnixListener::bind(path(name)).unwrap();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(greeting.as_bytes()).unwrap();
            let mut heard = [0; 64];
            let _ = std::io::Read::read(&mut client, &mut heard);
        });
        let probed = probe(&[&path(name)]);
        server.join().unwrap();
        assert!(probed.exit == exit && probed.out.contains(says), "{name}: {probed:?}");
    }
}

#[test]
fn a_server_that_accepts_nobody_is_given_up_after_the_patience() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full");
    let listener = UnixListener::bind(&path).unwrap();
    // One place in the backlog, and it is taken.
    shorten_backlog(&listener);
    let mut waiting = Vec::new();
    loop {
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_NONBLOCK,
            None,
        )
        .unwrap();
        let address = nix::sys::socket::UnixAddr::new(&path).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        match nix::sys::socket::connect(fd, &address) {
            Ok(()) => waiting.push(socket),
            Err(nix::errno::Errno::EAGAIN) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let probed = probe(&["--patience", "1", path.to_str().unwrap()]);
    assert!(probed.exit == 69 && probed.out.contains("accepts no connections"), "{probed:?}");
}

fn shorten_backlog(listener: &UnixListener) {
    nix::sys::socket::listen(listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
}
