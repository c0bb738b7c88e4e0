//! Restarts, kills and reloads while mail clients log in through Postfix, on a socket that outlives sasld as systemd's does.
//!
//! Every client knows which password is right. Who is under way at the moment of an end may hear of a temporary
//! failure; anything else but the right verdict fails the test, and so does an smtpd that gives up.

use crate::postfix::Postfix;
use crate::smtp::Session;
use crate::support::sasld::Sasld;
use crate::support::soak::{count, note};
use crate::{MECHANISMS, private_directory};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

const CLIENTS: usize = 4;

/// What the clients heard.
#[derive(Default)]
struct Heard {
    verdicts: AtomicUsize,
    temporary: AtomicUsize,
}

impl Heard {
    /// Logs in wrongly and rightly, each time in a new session, until it is told to stop.
    fn log_in_again_and_again(&self, port: u16, mechanism: &str, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let mut session = Session::connect(port);
            for (password, verdict) in [("wrong", 535), ("secret", 235)] {
                match session.log_in(mechanism, "alice", password).code {
                    454 => self.temporary.fetch_add(1, Ordering::Relaxed),
                    code => {
                        assert_eq!(code, verdict, "{mechanism} with the password {password}");
                        self.verdicts.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        }
    }
}

/// Does something to sasld so many times, while clients log in all the time.
fn under_load(
    what: &str,
    settings: &str,
    times: usize,
    mut act: impl FnMut(&Path, &mut Sasld, usize) + Send,
) {
    let Some(dir) = private_directory() else { return };
    let mut sasld = Sasld::start_on_kept_socket(dir.path(), "alice:{PLAIN}secret\n", settings);
    let postfix = Postfix::start(dir.path(), sasld.socket().to_str().unwrap());
    let (heard, stop, start) = (Heard::default(), AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (heard, stop, port) = (&heard, &stop, postfix.smtp);
            scope.spawn(move || heard.log_in_again_and_again(port, MECHANISMS[n % MECHANISMS.len()], stop));
        }
        let acting = scope.spawn(|| (0..times).for_each(|round| act(dir.path(), &mut sasld, round)));
        // Joined by hand, so that the clients end when a wait fails.
        let acted = acting.join();
        stop.store(true, Ordering::Relaxed);
        acted.unwrap();
    });
    let mut session = Session::connect(postfix.smtp);
    assert_eq!(session.log_in("PLAIN", "alice", "secret").code, 235);
    let maillog = postfix.log.text();
    for complaint in ["fatal:", "panic:", "Connect to"] {
        assert!(!maillog.contains(complaint), "{maillog}");
    }
    let (verdicts, temporary) = (heard.verdicts.into_inner(), heard.temporary.into_inner());
    assert!(verdicts > CLIENTS * 4, "hardly a load: {verdicts} verdicts");
    let seconds = start.elapsed().as_secs_f64();
    note(&format!(
        "| {what}: {verdicts} verdicts, {temporary} temporary failures | {times} | {seconds:.1} s | – | – | – |"
    ));
}

#[test]
fn restarts_and_kills_give_postfix_no_wrong_answer_and_no_fatal_smtpd() {
    // Refusals are under way at every end.
    let settings = "refusal_delay: 100ms\n";
    under_load(
        "restarts under Postfix, every tenth a kill",
        settings,
        count(20, 1_000),
        |_, sasld, round| {
            if round % 10 == 9 {
                sasld.kill();
            } else {
                sasld.stop();
            }
            sasld.start_again();
        },
    );
}

#[test]
fn reloads_give_postfix_no_wrong_answer_and_no_fatal_smtpd() {
    under_load(
        "reloads under Postfix, every fifth of a mistake",
        "",
        count(50, 10_000),
        |dir, sasld, round| {
            let good = fs::read_to_string(dir.join("sasld.yaml")).unwrap().replace("refusal_dleay: 0s\n", "");
            let (mistake, heard) = match round % 5 {
                4 => ("refusal_dleay: 0s\n", "event=not_reloaded"),
                _ => ("", "event=reloaded"),
            };
            fs::write(dir.join("new.yaml"), good + mistake).unwrap();
            fs::rename(dir.join("new.yaml"), dir.join("sasld.yaml")).unwrap();
            sasld.log.forget();
            sasld.signal(Signal::SIGHUP);
            sasld.log.wait_for(&[heard]);
        },
    );
}
