//! A session under random schedules: whatever lines come, and whenever answers and time do, the promises hold.
//!
//! A schedule is a list of steps: a line, an answer to one of the open questions (a verdict or none), time passing.
//! Beside the session runs a book of what each request id may still hear: one final reply and nothing after it, none
//! after CANCEL, and OK only if the right password was the last thing said for that very id.

use core::time::Duration;
use proptest::prelude::*;
use sasld::credential::{Password, Verifier};
use sasld::policy::{OnOutage, Policy, ServicePolicy};
use sasld::sasl::{Answer, CramMd5Credential, Mechanism, NameRules, Outage, Question, Refusal, Seed};
use sasld::session::{Action, Moment, Session, Ticket};
use sasld::wire::Reply;
use std::collections::{BTreeMap, HashMap};

const RIGHT: &str = "AGFsaWNlAHdvbmRlcg==";
const WRONG: &str = "AGFsaWNlAHdyb25n";

#[derive(Clone, Debug)]
enum Step {
    Auth { id: u8, mechanism: &'static str, response: Option<&'static str> },
    Cont { id: u8, data: &'static str },
    Cancel { id: u8 },
    Answer { which: usize, outage: bool },
    Time { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1u8..5;
    let mechanism = prop::sample::select(vec!["PLAIN", "LOGIN", "CRAM-MD5", "NOPE"]);
    let response = prop::option::of(prop::sample::select(vec![RIGHT, WRONG, "YWxpY2U=", "!!!", "="]));
    let data = prop::sample::select(vec![RIGHT, WRONG, "YWxpY2U=", "d29uZGVy", "d3Jvbmc=", "", "*"]);
    prop_oneof![
        4 => (id.clone(), mechanism, response).prop_map(|(id, mechanism, response)| Step::Auth { id, mechanism, response }),
        4 => (id.clone(), data).prop_map(|(id, data)| Step::Cont { id, data }),
        1 => id.prop_map(|id| Step::Cancel { id }),
        3 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(which, outage)| Step::Answer { which, outage }),
        2 => (0u64..4_000).prop_map(|millis| Step::Time { millis }),
    ]
}

fn policy(on_outage: OnOutage) -> Policy {
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
        on_outage,
        max_exchanges: 3,
    }
}

/// What one request id may still hear.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Open {
    /// The last data said for it.
    Said(&'static str),
    /// The passdbs are being asked about this data, which decides about OK.
    Asked(&'static str),
    /// Nothing more.
    Over,
}

struct World {
    session: Session,
    policy: Policy,
    now: Moment,
    seeds: u64,
    questions: Vec<(Ticket, Question)>,
    book: HashMap<String, Open>,
}

impl World {
    fn new(on_outage: OnOutage) -> Self {
        let now = Moment(Duration::ZERO);
        let mut world = Self {
            session: Session::new(now),
            policy: policy(on_outage),
            now,
            seeds: 0,
            questions: Vec::new(),
            book: HashMap::new(),
        };
        assert!(matches!(world.line("VERSION\t1\t2"), Action::None));
        assert!(matches!(world.line("CPID\t7"), Action::None));
        world
    }

    fn line(&mut self, line: &str) -> Action {
        let seeds = &mut self.seeds;
        let mut seed = || {
            *seeds += 1;
            Seed { random: u128::from(*seeds).to_be_bytes(), unix_seconds: 0 }
        };
        self.session.on_line(line.as_bytes(), self.now, &self.policy, self.policy.max_exchanges, &mut seed)
    }

    fn answer(&mut self, which: usize, outage: bool) -> Action {
        if self.questions.is_empty() {
            return Action::None;
        }
        let (ticket, question) = self.questions.remove(which % self.questions.len());
        let stored = Verifier::parse(b"{PLAIN}wonder").unwrap();
        let answer = match &question {
            _ if outage => Err(Outage::Passdb),
            Question::VerifyPassword(name, _) if name.as_str() != "alice" => {
                Ok(Answer::Verdict(Err(Refusal::UnknownUser)))
            }
            Question::VerifyPassword(_, password) => {
                Ok(Answer::Verdict(stored.verify(password).ok_or(Refusal::WrongPassword)))
            }
            Question::LookupCramMd5(_) => {
                let key = stored.cram_md5().unwrap();
                Ok(Answer::Credential(CramMd5Credential { key, refusal: None }))
            }
        };
        let mut seed = || Seed { random: [9; 16], unix_seconds: 0 };
        self.session.on_answer(ticket, answer, self.now, &self.policy, &mut seed)
    }

    /// Performs an action and checks it against the book. `false` at the end of the connection.
    fn perform(&mut self, action: Action) -> Result<bool, TestCaseError> {
        match action {
            Action::None | Action::Settle(_, None) => {}
            Action::Ask(ticket, question, _) => self.questions.push((ticket, question)),
            Action::Send(reply) | Action::Settle(_, Some(reply)) => self.hear(&reply)?,
            Action::Close(_) => return Ok(false),
        }
        Ok(true)
    }

    fn hear(&mut self, reply: &Reply) -> Result<(), TestCaseError> {
        match reply {
            Reply::Cont(id, _) => {
                let state = self.book.get(&id.to_string());
                prop_assert!(matches!(state, Some(Open::Said(_))), "CONT for {id}, which is {state:?}");
            }
            Reply::Ok(id, user) => {
                let state = self.book.insert(id.to_string(), Open::Over);
                let right = matches!(state, Some(Open::Asked(RIGHT | "d29uZGVy")));
                prop_assert!(right && user.as_str() == "alice", "OK for {id}, which is {state:?}");
            }
            Reply::Fail { id, reason: Some("Authentication request timed out"), .. } => {
                // The answer to a CONT for a request that is not open: it ends nothing.
                let state = self.book.get(&id.to_string());
                prop_assert!(state.is_some(), "a reply to {id}, which was never named");
            }
            Reply::Fail { id, .. } => {
                let state = self.book.insert(id.to_string(), Open::Over);
                let open = matches!(state, Some(Open::Said(_) | Open::Asked(_)));
                prop_assert!(open, "FAIL for {id}, which is {state:?}");
            }
            Reply::FailZero | Reply::Cancelled(_) => prop_assert!(false, "{reply:?} was not asked for"),
        }
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<bool, TestCaseError> {
        let action = match step {
            Step::Auth { id, mechanism, response } => {
                self.book.insert(id.to_string(), Open::Said(response.unwrap_or("")));
                let response = response.map(|response| format!("\tresp={response}")).unwrap_or_default();
                self.line(&format!("AUTH\t{id}\t{mechanism}\tservice=smtp{response}"))
            }
            Step::Cont { id, data } => {
                // What comes while a passdb is being asked changes nothing about the question.
                if let Open::Said(said) = self.book.entry(id.to_string()).or_insert(Open::Over) {
                    *said = data;
                }
                self.line(&format!("CONT\t{id}\t{data}"))
            }
            Step::Cancel { id } => {
                self.book.insert(id.to_string(), Open::Over);
                self.line(&format!("CANCEL\t{id}"))
            }
            Step::Answer { which, outage } => self.answer(*which, *outage),
            Step::Time { millis } => {
                self.now = self.now + Duration::from_millis(*millis);
                Action::None
            }
        };
        if let (Step::Auth { id, .. } | Step::Cont { id, .. }, Action::Ask(..)) = (step, &action)
            && let Some(state) = self.book.get_mut(&id.to_string())
            && let Open::Said(said) = *state
        {
            *state = Open::Asked(said);
        }
        if !self.perform(action)? {
            return Ok(false);
        }
        loop {
            let action = self.session.on_time(self.now, &self.policy);
            if matches!(action, Action::None) {
                break;
            }
            if !self.perform(action)? {
                return Ok(false);
            }
        }
        prop_assert!(self.session.open_exchanges() <= self.policy.max_exchanges);
        let late = self.session.wake_at(&self.policy).is_some_and(|wake_at| wake_at <= self.now);
        prop_assert!(!late, "something is due and was not done");
        Ok(self.session.wants_lines())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_final_reply_per_id_and_ok_only_for_the_right_password(
        steps in prop::collection::vec(step(), 1..60),
        on_outage in prop::sample::select(vec![OnOutage::Auto, OnOutage::Close, OnOutage::Fail]),
    ) {
        let mut world = World::new(on_outage);
        for step in &steps {
            if !world.take(step)? {
                break;
            }
        }
    }

    #[test]
    fn every_request_with_a_question_is_answered_by_the_deadline(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new(OnOutage::Fail);
        for step in &steps {
            if !world.take(step)? {
                return Ok(());
            }
        }
        // No passdb answers any more.
        world.take(&Step::Time { millis: 8_000 })?;
        prop_assert_eq!(world.session.in_flight(), 0);
    }
}

#[test]
fn a_password_checked_for_one_request_lets_in_no_other() {
    let mut world = World::new(OnOutage::Auto);
    let ask = |world: &mut World, line: &str| match world.line(line) {
        Action::Ask(ticket, question, _) => (ticket, question),
        other => panic!("{other:?}"),
    };
    let (ticket, _) = ask(&mut world, &format!("AUTH\t1\tPLAIN\tservice=smtp\tresp={RIGHT}"));
    assert!(matches!(world.line("CANCEL\t1"), Action::Settle(_, None)));
    let _ = ask(&mut world, &format!("AUTH\t1\tPLAIN\tservice=smtp\tresp={WRONG}"));
    // The answer to the first request arrives now, under the same id.
    let proof = Verifier::parse(b"{PLAIN}wonder").unwrap().verify(&Password::new(*b"wonder")).unwrap();
    let mut seed = || Seed { random: [9; 16], unix_seconds: 0 };
    let now = world.now;
    let late = world.session.on_answer(ticket, Ok(Answer::Verdict(Ok(proof))), now, &world.policy, &mut seed);
    assert!(matches!(late, Action::None), "{late:?}");
}
