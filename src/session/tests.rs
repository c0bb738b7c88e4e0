//! What a session's callers rely on besides its replies: when it wakes, what it says to the log, when a refusal leaves.
//!
//! Replies in their order are the business of `tests/session.rs`, `tests/model` and the dialogs.

use super::*;
use crate::credential::{Password, Verifier};
use crate::policy::ServicePolicy;
use crate::sasl::NameRules;
use std::collections::BTreeMap;

/// alice, whose password is `wonder`.
const RIGHT: &str = "AGFsaWNlAHdvbmRlcg==";

fn policy() -> Policy {
    Policy {
        host: "mail.example.com".to_owned(),
        names: NameRules::default(),
        default_service: ServicePolicy {
            mechanisms: Mechanism::ALL.to_vec(),
            require_tls: false,
            allow_nets: None,
        },
        services: BTreeMap::new(),
        refusal_delay: Duration::from_secs(1),
        deadline: Duration::from_secs(8),
        on_outage: OnOutage::Auto,
        max_exchanges: 4,
    }
}

fn at(millis: u64) -> Moment {
    Moment(Duration::from_millis(millis))
}

/// A session and the moment it is in.
struct World {
    session: Session,
    policy: Policy,
    now: Moment,
}

impl World {
    /// At 10 s, connected by process 4711, whose minor version is 2.
    fn open() -> Self {
        let now = at(10_000);
        let mut world = Self { session: Session::new(now), policy: policy(), now };
        assert!(matches!(world.line("VERSION\t1\t2"), Action::None));
        assert!(matches!(world.line("CPID\t4711"), Action::None));
        world
    }

    fn line(&mut self, line: &str) -> Action {
        let mut seed = || Seed { random: [0; 16], unix_seconds: 0 };
        let room = self.policy.max_exchanges;
        self.session.on_line(line.as_bytes(), self.now, &self.policy, room, &mut seed)
    }

    fn plain(&mut self, id: u32) -> Ticket {
        match self.line(&format!("AUTH\t{id}\tPLAIN\tservice=smtp\tresp={RIGHT}")) {
            Action::Ask(ticket, ..) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<Answer, Outage>) -> Action {
        let mut seed = || Seed { random: [0; 16], unix_seconds: 0 };
        self.session.on_answer(ticket, answer, self.now, &self.policy, &mut seed)
    }

    fn on_time(&mut self) -> Action {
        self.session.on_time(self.now, &self.policy)
    }

    fn wake_at(&self) -> Option<Moment> {
        self.session.wake_at(&self.policy)
    }
}

fn refused(refusal: Refusal) -> Result<Answer, Outage> {
    Ok(Answer::Verdict(Err(refusal)))
}

fn settled(action: Action) -> (Attempt, Option<Reply>) {
    match action {
        Action::Settle(attempt, reply) => (attempt, reply),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_handshake_has_thirty_seconds_in_all() {
    let mut world = World { session: Session::new(at(5_000)), policy: policy(), now: at(5_000) };
    assert_eq!(world.wake_at(), Some(at(35_000)));
    world.now = at(20_000);
    assert!(matches!(world.line("VERSION\t1\t2"), Action::None));
    assert_eq!(world.wake_at(), Some(at(35_000)));
    world.now = at(34_999);
    assert!(matches!(world.on_time(), Action::None));
    world.now = at(35_000);
    assert!(matches!(world.on_time(), Action::Close(CloseReason::HandshakeTimeout)));
    assert!(matches!(world.line("CPID\t1"), Action::None));
    assert_eq!(world.wake_at(), None);
    assert!(matches!(world.on_time(), Action::None));
}

#[test]
fn it_wakes_for_whatever_is_due_first() {
    let mut world = World::open();
    assert!(matches!(world.line("AUTH\t1\tLOGIN\tservice=smtp"), Action::Send(Reply::Cont(..))));
    assert_eq!(world.wake_at(), Some(at(160_000)));
    world.now = at(12_000);
    let ticket = world.plain(2);
    assert_eq!(world.wake_at(), Some(at(20_000)));
    world.now = at(12_500);
    assert_eq!(settled(world.answer(ticket, refused(Refusal::WrongPassword))).1, None);
    assert_eq!(world.wake_at(), Some(at(13_000)));
    world.now = at(12_999);
    assert!(matches!(world.on_time(), Action::None));
    world.now = at(13_000);
    assert!(matches!(world.on_time(), Action::Send(Reply::Fail { .. })));
    assert_eq!(world.wake_at(), Some(at(160_000)));
    assert_eq!((world.session.open_exchanges(), world.session.in_flight()), (1, 0));
    world.now = at(160_000);
    assert!(matches!(world.on_time(), Action::None));
    assert_eq!(world.session.open_exchanges(), 0);
}

#[test]
fn an_outage_stops_the_reading_and_closes_when_the_last_verdict_is_out() {
    let mut world = World::open();
    world.policy.on_outage = OnOutage::Close;
    let (first, second) = (world.plain(1), world.plain(2));
    assert!(world.session.wants_lines());
    assert_eq!(settled(world.answer(first, Err(Outage::Passdb))).1, None);
    assert!(!world.session.wants_lines());
    assert!(matches!(world.on_time(), Action::None));
    assert_eq!(world.wake_at(), Some(at(18_000)));
    let proof = Verifier::parse(b"{PLAIN}wonder").unwrap().verify(&Password::new("wonder"));
    let accepted = world.answer(second, Ok(Answer::Verdict(proof.ok_or(Refusal::WrongPassword))));
    assert!(matches!(settled(accepted).1, Some(Reply::Ok(_, name)) if name.as_str() == "alice"));
    assert_eq!(world.wake_at(), Some(at(0)));
    assert!(matches!(world.on_time(), Action::Close(CloseReason::Outage)));
}

#[test]
fn who_waits_for_his_user_does_not_keep_a_connection_open_after_an_outage() {
    let mut world = World::open();
    world.policy.on_outage = OnOutage::Close;
    let ticket = world.plain(1);
    assert!(matches!(world.line("AUTH\t2\tLOGIN\tservice=smtp"), Action::Send(Reply::Cont(..))));
    assert!(matches!(world.on_time(), Action::None));
    let _ = settled(world.answer(ticket, Err(Outage::Passdb)));
    assert!(matches!(world.on_time(), Action::Close(CloseReason::Outage)));
}

#[test]
fn the_log_hears_who_when_and_from_where() {
    let mut world = World::open();
    let Action::Ask(ticket, _, origin) =
        world.line(&format!("AUTH\t1\tPLAIN\tservice=imap\trip=192.0.2.7\tsecured\tresp={RIGHT}"))
    else {
        panic!("no question");
    };
    world.now = at(10_030);
    let (attempt, _) = settled(world.answer(ticket, refused(Refusal::Denied)));
    assert_eq!(attempt.ticket, Some(ticket));
    assert_eq!((attempt.client_pid, attempt.elapsed), (4711, Duration::from_millis(30)));
    assert_eq!(attempt.claimed.printable(), Some("alice"));
    assert_eq!((attempt.mechanism, &attempt.origin), (Some(Mechanism::Plain), &origin));
    assert_eq!(attempt.verdict.words(), ("refused", Some("denied")));
}

#[test]
fn every_verdict_has_its_words() {
    for (verdict, words) in [
        (Verdict::Accepted, ("ok", None)),
        (Verdict::Refused(Refusal::UnknownUser), ("refused", Some("unknown_user"))),
        (Verdict::Rejected("base64"), ("refused", Some("base64"))),
        (Verdict::Outage(Outage::QueueFull), ("outage", Some("queue_full"))),
        (Verdict::Abandoned, ("abandoned", None)),
    ] {
        assert_eq!(verdict.words(), words);
    }
}

#[test]
fn a_lost_connection_abandons_what_is_being_asked_and_nothing_else() {
    let mut world = World::open();
    let asked = world.plain(1);
    let decided = world.plain(2);
    let _ = settled(world.answer(decided, refused(Refusal::WrongPassword)));
    let _ = world.line("AUTH\t3\tLOGIN\tservice=smtp");
    let abandoned = world.session.abandon(world.now);
    assert_eq!(abandoned.iter().map(|attempt| attempt.ticket).collect::<Vec<_>>(), [Some(asked)]);
    assert_eq!(world.session.open_exchanges(), 0);
}

#[test]
fn only_expired_passwords_and_accounts_have_a_code() {
    for (refusal, expected) in [
        (Refusal::PasswordExpired, Some(FailCode::PasswordExpired)),
        (Refusal::AccountExpired, Some(FailCode::UserDisabled)),
        (Refusal::Denied, None),
        (Refusal::WrongPassword, None),
    ] {
        let mut world = World::open();
        world.policy.refusal_delay = Duration::ZERO;
        let ticket = world.plain(1);
        let (_, reply) = settled(world.answer(ticket, refused(refusal)));
        assert!(matches!(reply, Some(Reply::Fail { code, .. }) if code == expected), "{refusal:?}");
    }
}

#[test]
fn passwords_need_tls_or_a_loopback_address_where_the_policy_says_so() {
    for (origin, let_through) in
        [("", false), ("\trip=192.0.2.7", false), ("\trip=192.0.2.7\tsecured", true), ("\trip=::1", true)]
    {
        let mut world = World::open();
        world.policy.default_service.require_tls = true;
        for mechanism in ["PLAIN", "LOGIN"] {
            let action = world.line(&format!("AUTH\t1\t{mechanism}\tservice=smtp{origin}"));
            let _ = world.line("CANCEL\t1");
            assert_eq!(matches!(action, Action::Send(_)), let_through, "{mechanism} {origin}: {action:?}");
        }
        let action = world.line(&format!("AUTH\t1\tCRAM-MD5\tservice=smtp{origin}"));
        assert!(matches!(action, Action::Send(_)), "{action:?}");
    }
}

#[test]
fn who_has_waited_longest_for_his_user_makes_room() {
    let mut world = World::open();
    world.policy.max_exchanges = 2;
    let _ = world.plain(1);
    let _ = world.line("AUTH\t2\tLOGIN\tservice=smtp");
    let _ = world.line("AUTH\t3\tLOGIN\tservice=smtp");
    // 2 is gone, 1 is not: its password is being checked.
    assert_eq!((world.session.open_exchanges(), world.session.in_flight()), (2, 1));
    assert!(matches!(world.line("CONT\t2\tYQ=="), Action::Send(Reply::Fail { .. })));
    let _ = world.plain(4);
    assert_eq!((world.session.open_exchanges(), world.session.in_flight()), (2, 2));
    let (attempt, _) = settled(world.line("AUTH\t5\tLOGIN\tservice=smtp"));
    assert_eq!(attempt.verdict, Verdict::Outage(Outage::QueueFull));
}

#[test]
fn a_services_name_is_kept_as_far_as_there_is_room() {
    let mut world = World::open();
    for (name, kept) in [("imap".to_owned(), 4), ("s".repeat(64), 64), ("s".repeat(65), 64)] {
        let Action::Ask(_, _, origin) = world.line(&format!("AUTH\t1\tPLAIN\tservice={name}\tresp={RIGHT}"))
        else {
            panic!("no question");
        };
        assert_eq!(&*origin.service, &name.as_bytes()[..kept]);
        let _ = world.line("CANCEL\t1");
    }
}

#[test]
fn a_refusal_leaves_after_whole_delays_and_never_after_the_deadline() {
    let policy = policy();
    for (verdict_at, random, due) in [
        (10_000, 0, 11_000),
        (10_000, 51, 11_050),
        (10_000, 255, 11_250),
        (10_900, 0, 11_000),
        (11_000, 0, 11_000),
        (11_001, 0, 12_000),
        (12_500, 0, 13_000),
        (17_500, 255, 17_500),
        (17_600, 255, 18_000),
        (18_000, 0, 18_000),
    ] {
        let scheduled = refusal_due(at(10_000), at(verdict_at), &policy, random);
        assert_eq!(scheduled, at(due), "decided at {verdict_at} with {random}");
    }
}
