//! A passdb that hangs, answers late, or says nothing at all: a `sasld-pam` of the test's own, which does as it is told.

use crate::site::{Daemon, Site};
use crate::support::peer::Peer;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::sys::signal::Signal;
use sasld::pam::Settings;
use sasld::pam::code::Code;
use sasld::pam::request::{Answer, Checked, FrameBuffer, Hello, Outcome, Request, Stage};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

const PASSDBS: &str =
    "passdbs:\n  - secrets_file: {dir}/secrets\n  - pam: {socket: {dir}/pam}\nlog_level: info\n";

/// Carol is in the secrets file; everybody else is a question for PAM.
fn site(settings: &str) -> (Site, UnixListener) {
    let site = Site::new("carol:{PLAIN}secret\n", &format!("{PASSDBS}{settings}"));
    let listener = UnixListener::bind(site.path("pam")).unwrap();
    (site, listener)
}

fn auth(id: u32, user: &str, password: &str) -> String {
    let response = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
    format!("AUTH\t{id}\tPLAIN\tservice=smtp\trip=192.0.2.{}\tsecured\tresp={response}\n", id % 250)
}

/// What sasld takes for `sasld-pam`.
struct Worker {
    stream: UnixStream,
    buffer: FrameBuffer,
}

impl Worker {
    /// One with so many hands.
    fn greets(listener: &UnixListener, daemon: &Daemon, hands: u16) -> Self {
        let hello = Hello { ordinary: hands, express: 1, settings: Settings::default().to_string() };
        // A daemon that is root first looks whether somebody listens, and leaves.
        let stream = loop {
            let (mut stream, _) = listener.accept().unwrap();
            if stream.write_all(&hello.encode()).is_ok() {
                break stream;
            }
        };
        daemon.log.wait_for(&["event=pam_connected"]);
        Self { stream, buffer: FrameBuffer::default() }
    }

    fn hears(&mut self) -> Request {
        loop {
            if let Some(frame) = self.buffer.next_frame().unwrap() {
                return Request::decode(&frame).unwrap();
            }
            let mut chunk = [0; 4_096];
            let length = self.stream.read(&mut chunk).unwrap();
            assert!(length > 0, "sasld has hung up");
            self.buffer.extend(&chunk[..length]);
        }
    }

    fn says_yes(&mut self, request: &Request) {
        let checked = Checked {
            stage: Stage::Account,
            code: Code::SUCCESS,
            asked: true,
            asked_more: false,
            user: request.user.clone().into_bytes(),
            text: String::new(),
        };
        let answer = Answer { id: request.id, outcome: Outcome::Checked(checked), last: false };
        self.stream.write_all(&answer.encode()).unwrap();
    }
}

#[test]
fn a_passdb_that_hangs_is_no_verdict_at_the_deadline_and_what_it_says_later_is_lost() {
    let (site, listener) = site("deadline: 1s\n");
    let daemon = site.start();
    let mut worker = Worker::greets(&listener, &daemon, 50);
    let mut postfix = Peer::greeted_as(daemon.socket(), "VERSION\t1\t0\nCPID\t7\n");
    let mut dovecot = Peer::greeted_as(daemon.socket(), "VERSION\t1\t2\nCPID\t7\n");
    let asked: String = (1..=20).map(|id| auth(id, "alice", "wonder")).collect();
    dovecot.send(&asked);
    let mut requests: Vec<Request> = (0..20).map(|_| worker.hears()).collect();
    postfix.send(&auth(1, "alice", "wonder"));
    requests.push(worker.hears());
    // Whoever needs nothing from it is served meanwhile.
    dovecot.send(&auth(21, "carol", "secret"));
    assert_eq!(dovecot.line(), "OK\t21\tuser=carol");

    let mut answers: Vec<String> = (0..20).map(|_| dovecot.line()).collect();
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 20);
    assert!(answers.iter().all(|answer| answer.ends_with("\tuser=alice\tcode=temp_fail\ttemp")));
    assert!(postfix.is_closed(), "a lost connection is what Postfix takes for temporary");
    daemon.log.wait_for(&["event=auth result=outage why=deadline user=alice"]);

    requests.iter().for_each(|request| worker.says_yes(request));
    dovecot.send(&auth(1, "dave", "wonder"));
    let request = worker.hears();
    worker.says_yes(&request);
    assert_eq!(dovecot.line(), "OK\t1\tuser=dave", "the first line after the outage is the next answer");
    assert!(dovecot.is_silent());
}

#[test]
fn one_continuation_may_come_early_and_a_second_ends_the_request_whatever_the_passdb_says() {
    let (site, listener) = site("");
    let daemon = site.start();
    let mut worker = Worker::greets(&listener, &daemon, 1);
    let mut peer = daemon.peer();
    peer.send(&auth(1, "alice", "wonder"));
    let request = worker.hears();
    peer.send("CONT\t1\tAAAA\nCONT\t1\tAAAA\n");
    assert_eq!(peer.line(), "FAIL\t1\treason=Unexpected continuation");
    worker.says_yes(&request);
    // On the same id, so that a late answer would be taken for this one's.
    peer.send(&auth(1, "carol", "wrong"));
    assert!(peer.line().starts_with("FAIL\t1\tuser=carol\treason="));
    assert!(peer.is_silent());
}

#[test]
fn a_passdb_that_never_greets_is_an_outage_and_no_wrong_password() {
    let (site, listener) = site("deadline: 1s\n");
    let daemon = site.start();
    let _silent = listener.accept().unwrap();
    let mut peer = Peer::greeted_as(daemon.socket(), "VERSION\t1\t2\nCPID\t7\n");
    peer.send(&auth(1, "alice", "wonder"));
    peer.send(&auth(2, "carol", "secret"));
    assert_eq!(peer.line(), "OK\t2\tuser=carol");
    assert_eq!(peer.line(), "FAIL\t1\tuser=alice\tcode=temp_fail\ttemp");
}

#[test]
fn sigterm_lets_a_hundred_questions_and_fifty_delayed_refusals_out() {
    let (site, listener) = site("refusal_delay: 1s\n");
    let mut daemon = site.start();
    let mut worker = Worker::greets(&listener, &daemon, 200);
    let mut peer = daemon.peer();
    peer.send(&(1..=100).map(|id| auth(id, "alice", "wonder")).collect::<String>());
    peer.send(&(101..=150).map(|id| auth(id, "carol", "wrong")).collect::<String>());
    let requests: Vec<Request> = (0..100).map(|_| worker.hears()).collect();
    // The answer to this shows that the refusals are decided.
    peer.send(&auth(151, "carol", "secret"));
    assert_eq!(peer.line(), "OK\t151\tuser=carol");
    daemon.signal(Signal::SIGTERM);
    daemon.log.wait_for(&["event=stopping"]);
    requests.iter().for_each(|request| worker.says_yes(request));
    let mut answers: Vec<String> = (0..150).map(|_| peer.line()).collect();
    answers.sort();
    answers.dedup();
    let let_in = answers.iter().filter(|answer| answer.starts_with("OK\t") && answer.ends_with("=alice"));
    let refused =
        answers.iter().filter(|answer| answer.starts_with("FAIL\t1") && answer.contains("=carol\t"));
    assert_eq!((let_in.count(), refused.count()), (100, 50), "{answers:?}");
    assert!(peer.is_closed());
    assert!(daemon.wait().success());
}
