//! A session and the model of it in one world: events happen to both, and what they do must be the same.

use crate::model::{self, Expect, Model};
use crate::schedule::{Dice, Event, Line, Rules, Users};
use core::time::Duration;
use sasld::credential::Verifier;
use sasld::policy::{OnOutage, Policy, ServicePolicy};
use sasld::sasl::{Answer, CramMd5Credential, Mechanism, NameRules, Outage, Question, Refusal, Seed};
use sasld::session::{Action, Moment, Session, Ticket, Verdict};
use sasld::wire::LineBuffer;
use std::collections::{BTreeMap, VecDeque};

/// How many events a connection lives at most.
const EVENTS: u64 = 60;

pub struct World {
    dice: Dice,
    session: Session,
    model: Model,
    buffer: LineBuffer,
    /// Written by the client, and how many bytes of it have arrived.
    pipe: VecDeque<u8>,
    lines: VecDeque<Line>,
    now: Duration,
    rules: Rules,
    policy: Policy,
    users: Users,
    /// What the passdbs have been asked, each with a number that the model knows it by.
    questions: Vec<(u64, Ticket, Question)>,
    asked: u64,
    seeds: u64,
    /// How often each thing was done.
    tally: Tally,
}

pub type Tally = BTreeMap<&'static str, u64>;

fn policy(rules: &Rules) -> Policy {
    let mechanisms =
        rules.mechanisms.iter().filter_map(|name| Mechanism::from_name(name.as_bytes())).collect();
    Policy {
        host: "mail.example.com".to_owned(),
        names: NameRules::default(),
        default_service: ServicePolicy { mechanisms, require_tls: rules.require_tls, allow_nets: None },
        services: BTreeMap::new(),
        refusal_delay: rules.refusal_delay,
        deadline: rules.deadline,
        on_outage: match rules.on_outage {
            "close" => OnOutage::Close,
            "fail" => OnOutage::Fail,
            _ => OnOutage::Auto,
        },
        max_exchanges: model::ROOM,
    }
}

/// What the session did, in the model's words; the number of the request is not in all of them.
fn said(action: &Action) -> Expect {
    let text = |reply: &sasld::wire::Reply| {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        String::from_utf8(bytes).expect("what is said is text")
    };
    match action {
        Action::None => unreachable!("nothing was done"),
        Action::Send(reply) => Expect::Say(text(reply)),
        Action::Ask(_, question, _) => Expect::Ask(question.name().as_str().to_owned()),
        Action::Settle(attempt, reply) => {
            let result = match attempt.verdict {
                Verdict::Accepted => "ok",
                Verdict::Refused(_) | Verdict::Rejected(_) => "refused",
                Verdict::Outage(_) => "outage",
                Verdict::Abandoned => "abandoned",
            };
            Expect::Log(result, reply.as_ref().map(text))
        }
        Action::Close(_) => Expect::Close,
    }
}

fn word(expected: &Expect) -> &'static str {
    match expected {
        Expect::Say(line) if line.starts_with("CONT") => "prompts",
        Expect::Say(line) if line.contains("timed out") => "responses to nothing",
        Expect::Say(_) => "other lines",
        Expect::Challenge(_) => "challenges",
        Expect::Ask(_) => "questions",
        Expect::Log(result, Some(line)) if line.contains("Unexpected") => {
            if *result == "refused" {
                "second early responses"
            } else {
                "nonsense"
            }
        }
        Expect::Log(result, _) => result,
        Expect::Close => "protocol errors",
    }
}

impl World {
    pub fn new(mut dice: Dice) -> Self {
        let now = Duration::from_secs(1_000);
        let rules = dice.rules();
        Self {
            session: Session::new(Moment(now)),
            model: Model::new(now),
            buffer: LineBuffer::default(),
            pipe: VecDeque::new(),
            lines: VecDeque::new(),
            now,
            policy: policy(&rules),
            rules,
            users: Users::from([("alice", "wonder"), ("bob", "builder")]),
            questions: Vec::new(),
            asked: 0,
            seeds: 0,
            tally: Tally::new(),
            dice,
        }
    }

    /// Plays one connection to its end.
    pub fn play(mut self) -> Tally {
        // Now and then a client that does not even begin as it should.
        if self.dice.roll(10) > 0 {
            let minor = [0, 0, 1, 2, 4][usize::try_from(self.dice.roll(5)).expect("below five")];
            self.write(Line::Version { major: 1, minor });
            self.write(Line::Cpid);
        } else if self.dice.roll(2) > 0 {
            let major = 1 + u32::try_from(self.dice.roll(2)).expect("below two");
            self.write(Line::Version { major, minor: 2 });
        }
        for _ in 0..EVENTS {
            if self.dice.is_empty() {
                break;
            }
            let event = self.dice.event(&self.users, &self.model.sight(), self.questions.len());
            let on = match event {
                Event::Write(line) => {
                    self.write(line);
                    // Most lines arrive before anything else happens.
                    self.dice.roll(4) == 0 || self.deliver(usize::MAX)
                }
                Event::Deliver(bytes) => self.deliver(bytes),
                Event::Answer { outage } => self.answer(outage),
                Event::Pass(duration) => {
                    self.now += duration;
                    self.time()
                }
                Event::Reload(rules) => {
                    self.policy = policy(&rules);
                    self.rules = rules;
                    self.time()
                }
                Event::Change(user, Some(password)) => {
                    self.users.insert(user, password);
                    true
                }
                Event::Change(user, None) => {
                    self.users.remove(user);
                    true
                }
                Event::HangUp => false,
            };
            if !on {
                break;
            }
        }
        let abandoned = self.session.abandon(Moment(self.now));
        assert_eq!(abandoned.len(), self.model.abandoned(), "log entries for what was being checked");
        self.tally
    }

    fn write(&mut self, line: Line) {
        self.pipe.extend(line.encode().bytes());
        self.lines.push_back(line);
    }

    /// Lets bytes arrive. `false` at the end of the connection.
    fn deliver(&mut self, bytes: usize) -> bool {
        if self.model.is_closing() {
            assert!(!self.session.wants_lines());
            return true;
        }
        let bytes: Vec<u8> = self.pipe.drain(..bytes.min(self.pipe.len())).collect();
        let mut chunk = &bytes[..];
        let mut whole = Vec::new();
        while let Some(line) = self.buffer.next_line(&mut chunk, &mut whole).expect("all lines are short") {
            let seeds = &mut self.seeds;
            let mut seed = || {
                *seeds += 1;
                Seed {
                    random: u128::from(*seeds)
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
                        .to_be_bytes(),
                    unix_seconds: 0,
                }
            };
            let now = Moment(self.now);
            let action = self.session.on_line(line, now, &self.policy, model::ROOM, &mut seed);
            let line = self.lines.pop_front().expect("nobody else writes");
            let expected = self.model.line(&line, self.now, &self.rules);
            let id = match line {
                Line::Auth { id, .. } | Line::Cont { id, .. } | Line::Cancel { id } => id,
                Line::Version { .. } | Line::Cpid | Line::Broken(_) => 0,
            };
            if !self.happened(action, expected, id) || !self.time() {
                return false;
            }
            if self.model.is_closing() {
                assert!(!self.session.wants_lines());
                return true;
            }
        }
        true
    }

    /// Compares what was done with what should have been. `false` at the end of the connection.
    fn happened(&mut self, action: Action, expected: Option<Expect>, id: u32) -> bool {
        match (action, expected) {
            (Action::None, None) => {}
            (Action::Send(reply), Some(Expect::Challenge(expected))) => {
                let Expect::Say(line) = said(&Action::Send(reply)) else { unreachable!("it was sent") };
                let prefix = format!("CONT\t{expected}\t");
                let encoded =
                    line.strip_prefix(&prefix).and_then(|line| line.strip_suffix('\n')).expect(&line);
                let challenge =
                    base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded).expect(&line);
                let challenge = String::from_utf8(challenge).expect("a challenge is text");
                self.model.challenged(expected, &challenge);
                self.count("CRAM-MD5 challenges");
            }
            (action, Some(expected)) if !matches!(action, Action::None) => {
                assert_eq!(said(&action), expected);
                self.count(word(&expected));
                match action {
                    Action::Settle(attempt, _) if matches!(attempt.verdict, Verdict::Accepted) => {
                        self.count(attempt.mechanism.map_or("nothing", Mechanism::name));
                    }
                    Action::Ask(ticket, question, _) => {
                        self.asked += 1;
                        self.model.asked(id, self.asked);
                        self.questions.push((self.asked, ticket, question));
                    }
                    Action::Close(_) => return false,
                    _ => {}
                }
            }
            (action, expected) => panic!("{action:?}, not {expected:?}"),
        }
        true
    }

    /// A passdb answers one of the open questions, from the passwords as they are now.
    fn answer(&mut self, outage: bool) -> bool {
        let which = self.dice.roll(self.questions.len() as u64);
        let which = usize::try_from(which).expect("below a length");
        let (number, ticket, question) = self.questions.remove(which);
        let stored = self.users.get(question.name().as_str());
        let verifier =
            |password: &str| Verifier::parse(format!("{{PLAIN}}{password}").as_bytes()).expect("it is one");
        let answer = match (&question, stored) {
            _ if outage => Err(Outage::Passdb),
            (Question::VerifyPassword(..), None) => Ok(Answer::Verdict(Err(Refusal::UnknownUser))),
            (Question::VerifyPassword(_, password), Some(stored)) => {
                Ok(Answer::Verdict(verifier(stored).verify(password).ok_or(Refusal::WrongPassword)))
            }
            (Question::LookupCramMd5(_), stored) => {
                let key = verifier(stored.unwrap_or(&"decoy")).cram_md5().expect("PLAIN serves CRAM-MD5");
                let refusal = stored.is_none().then_some(Refusal::UnknownUser);
                Ok(Answer::Credential(CramMd5Credential { key, refusal }))
            }
        };
        let mut seed =
            || Seed { random: [u8::try_from(number % 256).expect("below 256"); 16], unix_seconds: 0 };
        let action = self.session.on_answer(ticket, answer, Moment(self.now), &self.policy, &mut seed);
        let users = (!outage).then_some(&self.users);
        let expected = self.model.answer(number, users, self.now, &self.rules);
        self.happened(action, expected, 0) && self.time()
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Lets the session do what is due. `false` at the end of the connection.
    fn time(&mut self) -> bool {
        let now = Moment(self.now);
        loop {
            let action = self.session.on_time(now, &self.policy);
            if matches!(action, Action::None) {
                break;
            }
            let done = said(&action);
            self.count(match done {
                Expect::Say(_) => "delayed refusals",
                Expect::Log(..) => "deadlines",
                _ => "ends for a reason of time",
            });
            self.model.because_of_time(&done, self.now, &self.rules);
            if done == Expect::Close {
                return false;
            }
        }
        self.model.all_done(self.now, &self.rules);
        assert_eq!(self.session.open_exchanges(), self.model.len(), "open exchanges");
        let wake_at = self.session.wake_at(&self.policy);
        assert!(wake_at.is_none_or(|wake_at| wake_at > now), "due at {wake_at:?}, and it is {now:?}");
        true
    }
}
