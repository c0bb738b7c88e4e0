//! Under load, sasld is restarted, replaced by another copy of itself and killed, and mail servers notice a delay at most.

use super::launcher::{Client, Daemon, Place, SASLD, Seen, inheritable, log_in, passing};
use nix::sys::signal::Signal;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

const CLIENTS: usize = 8;

/// How many logins happen between one restart and the next.
const BETWEEN: usize = 40;

/// Mail servers that log in again and again, each login reported.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Receiver<Seen>,
    all: Vec<Seen>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(socket: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (report, seen) = channel();
        let client = |_| {
            let (stop, report, socket): (_, Sender<Seen>, PathBuf) =
                (Arc::clone(&stop), report.clone(), socket.to_owned());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    report.send(log_in(&socket)).unwrap();
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, seen, all: Vec::new(), clients }
    }

    /// Lets some logins happen.
    fn go_on(&mut self) {
        let mut logins = 0;
        while logins < BETWEEN {
            let seen = self.seen.recv().unwrap();
            logins += usize::from(seen == Seen::Ok);
            self.all.push(seen);
        }
    }

    fn end(mut self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        self.all.extend(self.seen.try_iter());
        self.all
    }
}

fn socket(place: &Place) -> OwnedFd {
    inheritable(UnixListener::bind(place.path("auth")).unwrap())
}

fn logged_ok(daemon: &Daemon) -> usize {
    daemon.log.text().matches("event=auth result=ok").count()
}

fn count(all: &[Seen], wanted: fn(&Seen) -> bool) -> usize {
    all.iter().filter(|seen| wanted(seen)).count()
}

#[test]
fn restarts_and_upgrades_under_load_refuse_nobody_and_lose_no_login_that_was_decided() {
    let place = Place::new();
    let socket = socket(&place);
    let program = place.path("sasld");
    fs::copy(SASLD, &program).unwrap();
    let start = || Daemon::ready(passing(&place.serve_with(&program), &[&socket]));
    let mut daemon = start();
    let mut load = Load::on(&place.path("auth"));
    let mut decided = 0;
    for _ in 0..15 {
        load.go_on();
        // As dpkg does it: the new program under another name, then over the one that runs.
        let new = place.path("sasld.dpkg-new");
        fs::copy(SASLD, &new).unwrap();
        fs::rename(&new, &program).unwrap();
        daemon.stop();
        decided += logged_ok(&daemon);
        daemon = start();
    }
    load.go_on();
    let all = load.end();
    daemon.stop();
    decided += logged_ok(&daemon);
    assert!(all.iter().all(|seen| *seen == Seen::Ok), "{all:?}");
    assert_eq!(count(&all, |seen| *seen == Seen::Ok), decided, "every OK in the log has reached its client");
}

#[test]
fn kills_under_load_refuse_nobody() {
    let place = Place::new();
    let socket = socket(&place);
    let start = || Daemon::ready(passing(&place.serve(), &[&socket]));
    let mut daemon = start();
    let mut load = Load::on(&place.path("auth"));
    for _ in 0..15 {
        load.go_on();
        daemon.signal(Signal::SIGKILL);
        daemon.wait();
        daemon = start();
    }
    load.go_on();
    let all = load.end();
    assert_eq!(count(&all, |seen| matches!(seen, Seen::Refused(_))), 0, "{all:?}");
}

#[test]
fn who_connects_while_nobody_serves_is_served_by_the_next() {
    let place = Place::new();
    let socket = socket(&place);
    let start = || Daemon::ready(passing(&place.serve(), &[&socket]));
    start().stop();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let path = place.path("auth");
            std::thread::spawn(move || log_in(&path))
        })
        .collect();
    let _daemon = start();
    for client in waiting {
        assert_eq!(client.join().unwrap(), Seen::Ok);
    }
}

#[test]
fn who_has_connected_and_not_asked_yet_is_still_heard_at_a_restart() {
    let place = Place::new();
    let socket = socket(&place);
    for _ in 0..10 {
        let mut daemon = Daemon::ready(passing(&place.serve(), &[&socket]));
        let client = Client::connect(&place.path("auth")).unwrap();
        daemon.signal(Signal::SIGTERM);
        assert_eq!(client.ask(), Seen::Ok);
        assert!(daemon.wait().success());
    }
}
