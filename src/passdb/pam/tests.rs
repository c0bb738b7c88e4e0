//! The client of `sasld-pam` against a scripted one, in time that only passes when a test says so.

mod fake;

use super::*;
use crate::credential::Password;
use crate::pam::code::Code;
use crate::pam::request::{Answer, Request};
use crate::sasl::{Answer as Said, Refusal};
use fake::{Fake, Place, pass, place, settle};
use tokio::task::JoinHandle;

const NOW: Moment = Moment(Duration::ZERO);

fn settings(place: &Place) -> Settings {
    Settings { socket: place.socket.clone(), allow_user_change: false, worker: pam::Settings::default() }
}

fn open(place: &Place) -> Arc<Pam> {
    let pam = Pam::open(settings(place), NameRules::default(), Duration::from_secs(8), Entrance::Socket);
    Arc::new(pam)
}

async fn both(workers: u16, express: u16) -> (Arc<Pam>, Fake, Place) {
    let place = place();
    let pam = open(&place);
    let ours = pam::Settings::default().to_string();
    let fake = Fake::accept(&place.listener, workers, express, &ours).await;
    (pam, fake, place)
}

fn ask_from(pam: &Arc<Pam>, user: &str, password: &[u8], address: &str) -> JoinHandle<Finding> {
    let pam = Arc::clone(pam);
    let name = NameRules::default().canonical(user.as_bytes()).unwrap();
    let question = Question::VerifyPassword(name, Arc::new(Password::new(password)));
    let origin = Origin {
        service: Arc::from(&b"submission"[..]),
        remote: address.parse().ok(),
        secured: Secured::Yes,
    };
    tokio::spawn(async move { pam.find(&question, &origin, NOW).await })
}

fn ask(pam: &Arc<Pam>, user: &str) -> JoinHandle<Finding> {
    ask_from(pam, user, b"s3cret", "192.0.2.7")
}

#[tokio::test(start_paused = true)]
async fn a_question_becomes_a_request_and_an_answer_a_finding() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let asked = ask(&pam, "Alice");
    let request = fake.request().await.unwrap();
    assert_eq!((request.user.as_str(), request.password.as_bytes()), ("alice", &b"s3cret"[..]));
    assert_eq!((request.rhost.as_str(), request.tty.as_str()), ("192.0.2.7", "submission"));
    assert_eq!(request.patience, Duration::from_secs(8));
    fake.answer(&request, Code::SUCCESS).await;
    assert!(matches!(asked.await.unwrap(), Finding::Found(Said::Verdict(Ok(_)))));

    let asked = ask(&pam, "bob");
    let request = fake.request().await.unwrap();
    fake.answer(&request, Code::AUTH_ERR).await;
    let finding = asked.await.unwrap();
    assert!(matches!(finding, Finding::Found(Said::Verdict(Err(Refusal::WrongPassword)))), "{finding:?}");
}

#[tokio::test(start_paused = true)]
async fn what_pam_can_never_answer_is_passed_on_and_not_asked() {
    let (pam, mut fake, _place) = both(1, 1).await;
    for password in [&[b'x'; 512][..], b"a\0b", b""] {
        let finding = ask_from(&pam, "alice", password, "192.0.2.7").await.unwrap();
        assert!(matches!(finding, Finding::Passed(Passed::Password)), "{finding:?}");
    }
    // The rules of names can be such that a name has one; no system user has.
    let name = NameRules::new("", true).canonical(b"a/b").unwrap();
    let question = Question::VerifyPassword(name, Arc::new(Password::new("s3cret")));
    let origin = Origin { service: Arc::from(&b""[..]), remote: None, secured: Secured::Yes };
    assert!(matches!(pam.find(&question, &origin, NOW).await, Finding::NotFound));
    let name = NameRules::default().canonical(b"alice").unwrap();
    let origin = Origin { service: Arc::from(&b""[..]), remote: None, secured: Secured::Yes };
    let finding = pam.find(&Question::LookupCramMd5(name), &origin, NOW).await;
    assert!(matches!(finding, Finding::Passed(Passed::Mechanism)), "{finding:?}");
    assert_eq!(fake.waiting().await, 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_on_the_way_than_there_are_workers() {
    let (pam, mut fake, place) = both(2, 1).await;
    place.close();
    let asked: Vec<_> = (0..5).map(|user| ask(&pam, &format!("user{user}"))).collect();
    assert_eq!(fake.waiting().await, 2);
    let request = fake.request().await.unwrap();
    fake.answer(&request, Code::AUTH_ERR).await;
    assert_eq!(fake.waiting().await, 2);
    drop(fake);
    pass(100).await;
    let mut out = 0;
    for asked in asked {
        out += usize::from(matches!(asked.await.unwrap(), Finding::Out(_)));
    }
    assert_eq!(out, 4);
}

#[tokio::test(start_paused = true)]
async fn who_logged_in_from_there_lately_goes_first() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let asked = ask(&pam, "alice");
    let request = fake.request().await.unwrap();
    assert_eq!(request.lane, Lane::Ordinary);
    fake.answer(&request, Code::SUCCESS).await;
    assert!(verdict::is_yes(&asked.await.unwrap()));

    let mut guesses: Vec<_> =
        (0..20).map(|guess| ask_from(&pam, "alice", b"guess", &format!("198.51.100.{guess}"))).collect();
    assert_eq!(fake.waiting().await, 1, "one worker for strangers");
    guesses.push(ask(&pam, "alice"));
    assert_eq!(fake.waiting().await, 2, "and one for alice");
    let _stranger = fake.request().await.unwrap();
    let request = fake.request().await.unwrap();
    assert_eq!((request.lane, request.rhost.as_str()), (Lane::Express, "192.0.2.7"));
}

#[tokio::test(start_paused = true)]
async fn networks_that_guess_wait_behind_those_that_do_not_but_not_for_ever() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let guess =
        |pam| (0..10).map(|from| ask_from(pam, "alice", b"guess", &format!("198.51.100.{from}"))).collect();
    let first: Vec<_> = guess(&pam);
    for _ in &first {
        let request = fake.request().await.unwrap();
        fake.answer(&request, Code::AUTH_ERR).await;
    }
    for first in first {
        first.await.unwrap();
    }
    let _again: Vec<_> = guess(&pam);
    assert_eq!(fake.waiting().await, 1);
    let _strangers: Vec<_> =
        (0..10).map(|from| ask_from(&pam, "bob", b"s3cret", &format!("203.0.113.{from}"))).collect();
    assert_eq!(fake.waiting().await, 1);
    let mut served = Vec::new();
    for _ in 0..9 {
        let request = fake.request().await.unwrap();
        fake.answer(&request, Code::AUTH_ERR).await;
        served.push(if request.user == "bob" { 'b' } else { 'a' });
    }
    assert_eq!(served.iter().collect::<String>(), "abbbabbba");
}

#[tokio::test(start_paused = true)]
async fn those_who_have_gone_take_nobodys_turn() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let guess = ask(&pam, "alice");
    let request = fake.request().await.unwrap();
    fake.answer(&request, Code::AUTH_ERR).await;
    guess.await.unwrap();
    let _busy = ask_from(&pam, "bob", b"s3cret", "198.51.100.1");
    let mut request = fake.request().await.unwrap();
    let strangers: Vec<_> =
        (0..8).map(|from| ask_from(&pam, "bob", b"s3cret", &format!("203.0.113.{from}"))).collect();
    let _again = ask(&pam, "alice");
    settle().await;
    strangers[..4].iter().for_each(JoinHandle::abort);
    settle().await;
    let mut served = String::new();
    for _ in 0..5 {
        fake.answer(&request, Code::AUTH_ERR).await;
        request = fake.request().await.unwrap();
        served.push(if request.user == "bob" { 'b' } else { 'a' });
    }
    // The two before them count, and the four who have gone do not.
    assert_eq!(served, "babbb");
}

/// How alice would be served, from where `ask` asks.
fn standing(pam: &Pam, user: &str) -> Standing {
    let name = NameRules::default().canonical(user.as_bytes()).unwrap();
    pam.shared.lock().standings.of(&name, Prefix::from("192.0.2.7".parse().ok()), NOW)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_keeps_a_worker_counts_like_a_refusal_even_if_nobody_waits_for_it() {
    for trouble in [Trouble::Timeout, Trouble::Crashed] {
        let (pam, mut fake, _place) = both(1, 1).await;
        let asked = ask(&pam, "alice");
        let request = fake.request().await.unwrap();
        fake.send(Answer {
            id: request.id,
            outcome: Outcome::Undecided(trouble, String::new()),
            last: false,
        })
        .await;
        assert!(matches!(asked.await.unwrap(), Finding::Out(_)));
        assert_eq!(standing(&pam, "alice"), Standing::Guesser);
    }
    // He goes away before the answer comes.
    for (code, expected) in [
        (Code::AUTH_ERR, Standing::Guesser),
        (Code::SUCCESS, Standing::Stranger),
        // No refusals, so they are none either when nobody waits.
        (Code::USER_UNKNOWN, Standing::Stranger),
        (Code::AUTHINFO_UNAVAIL, Standing::Stranger),
        (Code::BUF_ERR, Standing::Stranger),
    ] {
        let (pam, mut fake, _place) = both(1, 1).await;
        let asked = ask(&pam, "alice");
        let request = fake.request().await.unwrap();
        asked.abort();
        assert!(asked.await.is_err());
        fake.answer(&request, code).await;
        let next = ask_from(&pam, "bob", b"s3cret", "198.51.100.1");
        let request = fake.request().await.unwrap();
        fake.answer(&request, Code::AUTH_ERR).await;
        next.await.unwrap();
        assert_eq!(standing(&pam, "alice"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn asking_about_nobody_waits_in_line_and_counts_against_no_one() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let stranger = ask(&pam, "alice");
    let request = fake.request().await.unwrap();
    let nobody = {
        let pam = Arc::clone(&pam);
        tokio::spawn(async move { pam.ask_about_nobody(NOW).await })
    };
    assert_eq!(fake.waiting().await, 0);
    fake.answer(&request, Code::SUCCESS).await;
    assert!(verdict::is_yes(&stranger.await.unwrap()));
    let request = fake.request().await.unwrap();
    assert_eq!((request.user.as_str(), request.lane), (NOBODY, Lane::Ordinary));
    // The answer to a check that was ended at its deadline comes a moment later.
    pass(8_500).await;
    let outcome = Outcome::Undecided(Trouble::Timeout, "killed".to_owned());
    fake.send(Answer { id: request.id, outcome: outcome.clone(), last: true }).await;
    assert_eq!(nobody.await.unwrap(), Ok(outcome));
    let name = NameRules::default().canonical(b"bob").unwrap();
    assert_eq!(pam.shared.lock().standings.of(&name, Prefix::Unknown, NOW), Standing::Stranger);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_was_never_begun_counts_against_nobody() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let asked = ask(&pam, "alice");
    let request = fake.request().await.unwrap();
    let outcome = Outcome::Undecided(Trouble::Busy, String::new());
    fake.send(Answer { id: request.id, outcome, last: false }).await;
    assert!(matches!(asked.await.unwrap(), Finding::Out(Outage::QueueFull)));
    assert_eq!(standing(&pam, "alice"), Standing::Stranger);
}

#[tokio::test(start_paused = true)]
async fn waiting_in_vain_for_a_worker_counts_against_nobody() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let first = ask_from(&pam, "bob", b"s3cret", "198.51.100.1");
    let request = fake.request().await.unwrap();
    let waits = ask(&pam, "alice");
    assert_eq!(fake.waiting().await, 0);
    waits.abort();
    assert!(waits.await.is_err());
    fake.answer(&request, Code::AUTH_ERR).await;
    first.await.unwrap();
    assert_eq!(fake.waiting().await, 0, "nobody works for those who are gone");
    assert_eq!(standing(&pam, "alice"), Standing::Stranger);
}

#[tokio::test(start_paused = true)]
async fn a_known_user_who_is_refused_again_and_again_leaves_the_express_lane() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let mut lanes = Vec::new();
    for code in [Code::SUCCESS].into_iter().chain([Code::AUTH_ERR; 6]) {
        let asked = ask(&pam, "alice");
        let request = fake.request().await.unwrap();
        lanes.push(request.lane);
        fake.answer(&request, code).await;
        asked.await.unwrap();
    }
    assert_eq!(lanes[..6], [&[Lane::Ordinary][..], &[Lane::Express; 5]].concat());
    assert_eq!(lanes[6], Lane::Ordinary);
}

/// Logs in, so that they are known.
async fn make_known(pam: &Arc<Pam>, fake: &mut Fake, users: &[(&str, &str)]) {
    for (user, address) in users {
        let asked = ask_from(pam, user, b"s3cret", address);
        let request = fake.request().await.unwrap();
        fake.answer(&request, Code::SUCCESS).await;
        assert!(verdict::is_yes(&asked.await.unwrap()));
    }
}

fn flood(pam: &Arc<Pam>) -> Vec<JoinHandle<Finding>> {
    (0..50).map(|from| ask_from(pam, "bob", b"guess", &format!("203.0.113.{from}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_known_user_whose_check_hangs_keeps_no_other_one_waiting_behind_a_flood() {
    let (pam, mut fake, _place) = both(1, 1).await;
    make_known(&pam, &mut fake, &[("hang", "198.51.100.1"), ("alice", "192.0.2.7")]).await;
    let _hangs = ask_from(&pam, "hang", b"s3cret", "198.51.100.1");
    assert_eq!(fake.request().await.unwrap().lane, Lane::Express);
    let _flood = flood(&pam);
    let mut request = fake.request().await.unwrap();
    for _ in 0..10 {
        // The turn of known users is not lost while there are none.
        fake.answer(&request, Code::AUTH_ERR).await;
        request = fake.request().await.unwrap();
        assert_eq!((request.lane, request.user.as_str()), (Lane::Ordinary, "bob"));
    }
    let _both = [ask(&pam, "alice"), ask(&pam, "alice")];
    settle().await;
    let mut served = String::new();
    for _ in 0..6 {
        fake.answer(&request, Code::AUTH_ERR).await;
        request = fake.request().await.unwrap();
        served.push(if request.user == "alice" { 'a' } else { 'b' });
    }
    assert_eq!(served, "abbbab");
}

#[tokio::test(start_paused = true)]
async fn two_checks_that_take_too_long_end_the_precedence_of_a_known_user() {
    let (pam, mut fake, _place) = both(1, 1).await;
    make_known(&pam, &mut fake, &[("alice", "192.0.2.7")]).await;
    for (abandoned, expected) in [(true, Standing::Known), (false, Standing::Guesser)] {
        let asked = ask(&pam, "alice");
        let request = fake.request().await.unwrap();
        assert_eq!(request.lane, Lane::Express);
        if abandoned {
            asked.abort();
            settle().await;
        }
        let outcome = Outcome::Undecided(Trouble::Timeout, String::new());
        fake.send(Answer { id: request.id, outcome, last: false }).await;
        settle().await;
        assert!(asked.is_finished());
        assert_eq!(standing(&pam, "alice"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guesser_waits_behind_himself() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let mut asked: Vec<_> = (0..50).map(|guess| ask(&pam, &format!("user{guess}"))).collect();
    assert_eq!(fake.waiting().await, 1);
    asked.push(ask_from(&pam, "newcomer", b"s3cret", "198.51.100.1"));
    assert_eq!(fake.waiting().await, 1);
    let mut served = Vec::new();
    for _ in 0..3 {
        let request = fake.request().await.unwrap();
        fake.answer(&request, Code::AUTH_ERR).await;
        served.push(request.user);
    }
    assert!(served.contains(&"newcomer".to_owned()), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_site_that_fills_the_queue_from_all_its_networks_waits_behind_itself() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let mut asked: Vec<_> = (0..QUEUE_CAPACITY + 10)
        .map(|network| ask_from(&pam, "alice", b"guess", &format!("2001:db8:1:{network:x}::1")))
        .collect();
    assert_eq!(fake.waiting().await, 1);
    asked.push(ask_from(&pam, "newcomer", b"s3cret", "2001:db8:2::1"));
    settle().await;
    let mut served = Vec::new();
    for _ in 0..3 {
        let request = fake.request().await.unwrap();
        fake.answer(&request, Code::AUTH_ERR).await;
        served.push(request.user);
    }
    assert!(served.contains(&"newcomer".to_owned()), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_no_verdict_for_the_greediest() {
    let (pam, mut fake, place) = both(1, 1).await;
    let asked: Vec<_> = (0..QUEUE_CAPACITY + 2).map(|_| ask(&pam, "alice")).collect();
    assert_eq!(fake.waiting().await, 1);
    place.close();
    drop(fake);
    pass(100).await;
    let mut full = 0;
    for asked in asked {
        full += usize::from(matches!(asked.await.unwrap(), Finding::Out(Outage::QueueFull)));
    }
    // All of them had asked before the first one was taken out.
    assert_eq!(full, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_costs_what_was_on_the_way_and_is_made_again() {
    let (pam, mut fake, place) = both(1, 1).await;
    let (lost, waits) = (ask(&pam, "alice"), ask(&pam, "bob"));
    assert_eq!(fake.waiting().await, 1);
    drop(fake);
    assert!(matches!(lost.await.unwrap(), Finding::Out(Outage::Passdb)));
    pass(100).await;
    let mut fake = Fake::accept(&place.listener, 1, 1, &pam::Settings::default().to_string()).await;
    let request = fake.request().await.unwrap();
    assert_eq!(request.user, "bob");
    fake.answer(&request, Code::SUCCESS).await;
    assert!(verdict::is_yes(&waits.await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_nothing_is_left_when_its_answer_is_overdue() {
    let (pam, _fake, place) = both(1_000, 1).await;
    // More than its socket holds.
    let asked: Vec<_> = (0..800).map(|_| ask_from(&pam, "alice", &[b'x'; 511], "192.0.2.7")).collect();
    pass(8_999).await;
    assert!(place.nobody_comes().await);
    for asked in asked {
        assert!(matches!(asked.await.unwrap(), Finding::Out(Outage::Deadline)));
    }
    pass(1).await;
    pass(100).await;
    assert!(!place.nobody_comes().await);
}

#[tokio::test(start_paused = true)]
async fn one_that_greets_and_leaves_costs_longer_and_longer_pauses() {
    let place = place();
    let pam = open(&place);
    let ours = pam::Settings::default().to_string();
    for pause in [100, 200, 400] {
        drop(Fake::accept(&place.listener, 1, 1, &ours).await);
        pass(pause - 1).await;
        assert!(place.nobody_comes().await);
        pass(1).await;
    }
    drop(Fake::accept(&place.listener, 1, 1, &ours).await);
    settle().await;
    assert!(matches!(ask(&pam, "alice").await.unwrap(), Finding::Out(Outage::Passdb)));
}

/// A `sasld-pam` that we have started and that has ended, and how a next one is started.
fn ended(place: &Place, start: Start) -> Arc<Pam> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let names = NameRules::default();
    let entrance = Entrance::Started(ours, start);
    let pam = Arc::new(Pam::open(settings(place), names, Duration::from_secs(8), entrance));
    assert!(pam.must_stay(&settings(place)));
    drop(theirs);
    pam
}

#[tokio::test(start_paused = true)]
async fn after_the_end_of_one_that_cannot_be_started_again_the_socket_is_tried() {
    let place = place();
    let pam = ended(&place, Box::new(|| Err(io::Error::other("no root"))));
    let ours = pam::Settings::default().to_string();
    pass(100).await;
    let mut fake = Fake::accept(&place.listener, 1, 1, &ours).await;
    assert!(!pam.must_stay(&settings(&place)));
    settle().await;
    assert!(!pam.shared.lock().down);
    let asked = ask(&pam, "alice");
    let request = fake.request().await.unwrap();
    fake.answer(&request, Code::SUCCESS).await;
    assert!(verdict::is_yes(&asked.await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn one_that_can_be_started_again_is() {
    let place = place();
    let (sender, mut started) = tokio::sync::mpsc::unbounded_channel();
    let start = move || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        sender.send(theirs).map_err(io::Error::other)?;
        Ok(ours)
    };
    let pam = ended(&place, Box::new(start));
    for pause in [100, 200] {
        pass(pause).await;
        // Each of them ends without a word.
        started.recv().await.unwrap();
    }
    assert!(pam.must_stay(&settings(&place)));
}

#[tokio::test(start_paused = true)]
async fn without_sasld_pam_nobody_waits() {
    let place = place();
    let settings = Settings { socket: place.socket.with_file_name("nowhere"), ..settings(&place) };
    let pam = Arc::new(Pam::open(settings, NameRules::default(), Duration::from_secs(600), Entrance::Socket));
    for _ in 0..2 {
        assert!(matches!(ask(&pam, "alice").await.unwrap(), Finding::Out(Outage::Passdb)));
    }
}

#[tokio::test(start_paused = true)]
async fn another_service_is_not_asked() {
    let place = place();
    let pam = open(&place);
    let asked = ask(&pam, "alice");
    let mut fake =
        Fake::accept(&place.listener, 1, 1, "--service=login --workers=0 --min-uid=1000 --prompts=1").await;
    assert!(fake.request().await.is_none());
    assert!(matches!(asked.await.unwrap(), Finding::Out(Outage::Passdb)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_nothing_ends_the_connection() {
    let (pam, mut fake, _place) = both(1, 1).await;
    let asked = ask(&pam, "alice");
    let request = fake.request().await.unwrap();
    fake.answer(&Request { id: request.id + 1, ..request }, Code::SUCCESS).await;
    assert!(matches!(asked.await.unwrap(), Finding::Out(Outage::Passdb)));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_no_verdict() {
    let (pam, mut fake, _place) = both(1, 1).await;
    pam.set_deadline(Duration::from_millis(100));
    let asked = [ask(&pam, "alice"), ask(&pam, "bob")];
    let request = fake.request().await.unwrap();
    assert_eq!(request.patience, Duration::from_millis(100));
    pass(99).await;
    settle().await;
    assert!(asked.iter().all(|asked| !asked.is_finished()));
    pass(1).await;
    for asked in asked {
        assert!(matches!(asked.await.unwrap(), Finding::Out(Outage::Deadline)));
    }
}
