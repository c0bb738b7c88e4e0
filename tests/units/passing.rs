//! What is passed in LISTEN_FDS is served, or refused by its number and name; and a start that fails under systemd is slow.

use super::launcher::{Daemon, Place, Seen, inheritable, log_in, passing};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Command;

/// What the daemon says about these descriptors before it gives up.
fn refused(place: &Place, sockets: &[&OwnedFd]) -> String {
    let output = passing(&place.serve(), sockets).env("LISTEN_FDNAMES", "first:second").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn several_instances_are_served_at_once() {
    let place = Place::new();
    let sockets =
        ["one", "two", "three"].map(|name| inheritable(UnixListener::bind(place.path(name)).unwrap()));
    let all: Vec<&OwnedFd> = sockets.iter().collect();
    let daemon = Daemon::ready(passing(&place.serve(), &all));
    for name in ["one", "two", "three"] {
        assert_eq!(log_in(&place.path(name)), Seen::Ok);
    }
    daemon.log.wait_for(&["event=not_listening", place.path("auth").to_str().unwrap()]);
}

#[test]
fn a_descriptor_that_does_not_listen_for_streams_is_refused_by_name() {
    let place = Place::new();
    let good = inheritable(UnixListener::bind(place.path("auth")).unwrap());
    let unbound = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(unbound.as_raw_fd(), &UnixAddr::new(&place.path("bound")).unwrap()).unwrap();
    let not_listening = [
        inheritable(UnixDatagram::bind(place.path("datagrams")).unwrap()),
        inheritable(UnixStream::pair().unwrap().0),
        inheritable(unbound),
        inheritable(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()),
        inheritable(File::open("/dev/null").unwrap()),
    ];
    for bad in &not_listening {
        let message = refused(&place, &[&good, bad]);
        assert!(
            message.starts_with("sasld: descriptor 4 (second) of LISTEN_FDS is not a socket that listens"),
            "{message}"
        );
    }
}

#[test]
fn a_tcp_socket_can_be_passed() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let daemon = Daemon::ready(passing(&place.serve(), &[&inheritable(listener)]));
    daemon.log.wait_for(&["event=ready", &address.to_string()]);
}

#[test]
fn a_start_that_fails_under_systemd_says_why_and_lasts_until_a_signal() {
    let place = Place::new();
    fs::write(place.path("sasld.yaml"), "mechanisms: [PLIAN]\n").unwrap();
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    let mut command = place.serve();
    command.env("NOTIFY_SOCKET", place.path("notify"));
    let mut daemon = Daemon::start(command);
    daemon.log.wait_for(&["sasld.yaml:1:", "PLIAN"]);
    let mut message = [0; 1024];
    let length = manager.recv(&mut message).unwrap();
    assert!(String::from_utf8_lossy(&message[..length]).contains("STATUS="));
    // It has given up, and `systemctl stop` need not wait for the rest of the pause.
    daemon.signal(Signal::SIGTERM);
    assert!(!daemon.wait().success());
}

#[test]
fn the_guard_lets_nobody_take_a_living_servers_socket() {
    let place = Place::new();
    let guard = |place: &Place| {
        let output = Command::new(super::launcher::SASLD)
            .arg("socket-guard")
            .arg(place.path("auth"))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(guard(&place), (Some(0), String::new()));
    let mut daemon = Daemon::ready(place.serve());
    let (code, message) = guard(&place);
    assert_eq!(code, Some(1));
    assert!(message.contains("sasld (process ") && message.lines().count() == 1, "{message}");
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(place.path("auth").exists());
    assert_eq!(guard(&place), (Some(0), String::new()));
}

#[test]
fn without_a_directory_for_any_listener_there_is_nothing_to_serve() {
    let place = Place::new();
    let asked = |place: &Place| {
        let mut command = Command::new(super::launcher::SASLD);
        let output = command
            .args(["socket-guard", "--configured", "--config"])
            .arg(place.path("sasld.yaml"))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(asked(&place), (Some(0), String::new()));
    // Without Postfix its user is not there either.
    let missing = place.path("postfix/auth");
    let listener = format!("listeners:\n  - {{unix: {}, owner: nobody-here}}\n", missing.display());
    fs::write(place.path("sasld.yaml"), &listener).unwrap();
    let (code, message) = asked(&place);
    assert_eq!(code, Some(1));
    assert!(message.contains("nothing to serve") && message.contains("install Postfix"), "{message}");
    fs::write(place.path("sasld.yaml"), listener + "  - tcp: 127.0.0.1:12345\n").unwrap();
    assert_eq!(asked(&place), (Some(0), String::new()));
    fs::write(place.path("sasld.yaml"), "listeners: nonsense\n").unwrap();
    assert_eq!(asked(&place), (Some(0), String::new()), "mistakes are for the daemon to tell");
}
