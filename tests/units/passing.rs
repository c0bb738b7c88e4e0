//! What is passed in LISTEN_FDS is served, or refused by its number and name; and a start that fails under systemd is slow.

use super::launcher::{Daemon, Place, Seen, inheritable, log_in, passing};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::unistd::{Gid, Uid};
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
    let (mut daemon, heard) = under_systemd(&place, place.serve());
    daemon.log.wait_for(&["sasld.yaml:1:", "PLIAN"]);
    assert!(heard.contains("STATUS="), "{heard}");
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

/// `sasld serve` as the service starts it, until it is ready or ends; and what systemd heard first.
fn under_systemd(place: &Place, mut command: Command) -> (Daemon, String) {
    let _ = fs::remove_file(place.path("notify"));
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    let daemon = Daemon::start({
        command.env("NOTIFY_SOCKET", place.path("notify"));
        command
    });
    let mut message = [0; 1024];
    let length = manager.recv(&mut message).unwrap();
    (daemon, String::from_utf8_lossy(&message[..length]).into_owned())
}

/// A listener of Postfix's where there is no Postfix: its user is not there either.
fn without_postfix(place: &Place) -> String {
    let missing = place.path("postfix/auth");
    format!("listeners:\n  - {{unix: {}, owner: nobody-here}}\n", missing.display())
}

#[test]
fn without_a_directory_for_any_listener_the_service_ends_in_peace_and_says_why() {
    let place = Place::new();
    fs::write(place.path("sasld.yaml"), without_postfix(&place)).unwrap();
    let (mut daemon, heard) = under_systemd(&place, place.serve());
    assert!(heard.contains("READY=1") && heard.contains("STATUS=nothing to serve"), "{heard}");
    let ended = daemon.wait().code().unwrap();
    daemon.log.wait_for(&["sasld: nothing to serve", "install Postfix"]);
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd/sasld.service"));
    for key in ["SuccessExitStatus", "RestartPreventExitStatus"] {
        assert!(unit.as_ref().unwrap().lines().any(|line| line == format!("{key}={ended}")), "{key}");
    }
    // What could be served after all is for the daemon: this one starts, or fails and is started again.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for more in [format!("  - tcp: {free}\n"), "mechanisms: [PLIAN]\n".to_owned()] {
        fs::write(place.path("sasld.yaml"), without_postfix(&place) + &more).unwrap();
        let (_daemon, heard) = under_systemd(&place, place.serve());
        assert!(heard.contains("STATUS=") && !heard.contains("nothing to serve"), "{heard}");
    }
}

/// Ending in peace would be a storm here: systemd starts the service for whoever waits in the socket, at once.
#[test]
fn a_socket_that_no_listener_names_is_served_all_the_same() {
    let place = Place::new();
    let (at, user, group) = (place.path("postfix/auth"), Uid::effective(), Gid::effective());
    let listener = format!("  - {{unix: {}, owner: {user}, group: {group}}}\n", at.display());
    let secrets = place.path("secrets");
    let text =
        format!("listeners:\n{listener}passdbs:\n  - secrets_file: {}\ncontrol: off\n", secrets.display());
    fs::write(place.path("sasld.yaml"), text).unwrap();
    let socket = inheritable(UnixListener::bind(place.path("elsewhere")).unwrap());
    let (daemon, heard) = under_systemd(&place, passing(&place.serve(), &[&socket]));
    assert!(heard.contains("READY=1") && heard.contains("elsewhere"), "{heard}");
    daemon.log.wait_for(&["level=warn event=not_listening", "postfix/auth"]);
    assert_eq!(log_in(&place.path("elsewhere")), Seen::Ok);
}

/// With mistakes, too, such as that the listener's owner is not there: each start says so and lasts some seconds.
#[test]
fn a_socket_with_a_configuration_that_cannot_be_used_makes_slow_starts_that_say_why() {
    let place = Place::new();
    fs::write(place.path("sasld.yaml"), without_postfix(&place)).unwrap();
    let socket = inheritable(UnixListener::bind(place.path("elsewhere")).unwrap());
    let (mut daemon, heard) = under_systemd(&place, passing(&place.serve(), &[&socket]));
    assert!(heard.contains("STATUS=") && heard.contains("nobody-here"), "{heard}");
    daemon.log.wait_for(&["sasld.yaml:2:", "nobody-here"]);
    assert!(daemon.is_running(), "it waits before it ends");
    daemon.signal(Signal::SIGTERM);
    assert!(!daemon.wait().success());
}
