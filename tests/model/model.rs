//! The protocol as a book keeper sees it: what a session must say, worked out a second time and as plainly as possible.
//!
//! Nothing here is shared with the code under test but its constants: mechanisms are taken apart by hand, digests come
//! from the crate `hmac`, replies are predicted as the bytes on the wire. A rule that is wrong here and in `session`
//! must have been misread twice.

use crate::schedule::{Line, Rules, Said, Users};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use core::time::Duration;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use std::collections::HashSet;

pub const ROOM: usize = 3;
const HANDSHAKE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(150);
const REFUSED: &str = "\treason=Invalid user name or password";

/// What the session must do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This line.
    Say(String),
    /// A CRAM-MD5 challenge for this id that has never been seen.
    Challenge(u32),
    /// A question about this name.
    Ask(String),
    /// An entry in the log with this result, and this line if there is one.
    Log(&'static str, Option<String>),
    /// The end of the connection.
    Close,
}

/// What a request waits for.
#[derive(Clone, Debug)]
pub enum Awaits {
    Message,
    Name,
    Password(String),
    /// Of this challenge.
    Digest(String),
    /// From its user; a passdb or the clock has the next word.
    Nothing,
}

#[derive(Clone, Debug)]
enum Secret {
    Password(Vec<u8>),
    Digest { challenge: String, digest: Vec<u8> },
}

#[derive(Debug)]
enum State {
    PlainMessage,
    LoginName,
    LoginPassword(String),
    CramDigest(String),
    Checking { number: u64, name: String, secret: Secret, early: bool },
    Refused { line: String, earliest: Duration, latest: Duration, early: bool },
}

impl State {
    fn waits_for_user(&self) -> bool {
        !matches!(self, Self::Checking { .. } | Self::Refused { .. })
    }
}

#[derive(Debug)]
struct Open {
    id: u32,
    service: &'static str,
    arrived: Duration,
    state: State,
}

#[derive(Debug)]
enum Phase {
    Version,
    Cpid(u32),
    Open(u32),
}

#[derive(Debug)]
pub struct Model {
    began: Duration,
    phase: Phase,
    /// Ordered by when something last happened.
    open: Vec<Open>,
    closing: bool,
    challenges: HashSet<String>,
}

impl Model {
    pub fn new(began: Duration) -> Self {
        Self { began, phase: Phase::Version, open: Vec::new(), closing: false, challenges: HashSet::new() }
    }

    pub fn is_closing(&self) -> bool {
        self.closing
    }

    pub fn line(&mut self, line: &Line, now: Duration, rules: &Rules) -> Option<Expect> {
        match (&self.phase, line) {
            (Phase::Version, Line::Version { major: 1, minor }) => {
                self.phase = Phase::Cpid(*minor);
                None
            }
            (Phase::Cpid(minor), Line::Cpid) => {
                self.phase = Phase::Open(*minor);
                None
            }
            (Phase::Open(minor), Line::Auth { id, mechanism, service, secured, said }) if *id != 0 => {
                let said = said.in_auth(*minor);
                self.auth(*id, mechanism, service, *secured, said, now, rules)
            }
            (Phase::Open(_), Line::Cont { id: 0, .. }) => {
                Some(Expect::Say("FAIL\t0\treason=Authentication request timed out\n".to_owned()))
            }
            (Phase::Open(_), Line::Cont { id, said }) => self.cont(*id, said, now, rules),
            (Phase::Open(minor), Line::Cancel { id }) if *id != 0 => {
                let cancelled = (*minor >= 4).then(|| format!("CANCELLED\t{id}\n"));
                let was = self.take(*id).map(|open| open.state);
                match was {
                    Some(State::Checking { .. }) => Some(Expect::Log("abandoned", cancelled)),
                    _ => cancelled.map(Expect::Say),
                }
            }
            _ => Some(Expect::Close),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parameters of AUTH")]
    fn auth(
        &mut self,
        id: u32,
        mechanism: &str,
        service: &'static str,
        secured: bool,
        said: Result<Option<Vec<u8>>, ()>,
        now: Duration,
        rules: &Rules,
    ) -> Option<Expect> {
        let now_refused = |line: String| Some(Expect::Log("refused", Some(line)));
        if self.open.iter().any(|open| open.id == id) {
            return Some(Expect::Close);
        }
        let mechanism = mechanism.to_ascii_uppercase();
        if !rules.mechanisms.contains(&mechanism.as_str()) {
            return now_refused(format!("FAIL\t{id}\n"));
        }
        if mechanism != "CRAM-MD5" && rules.require_tls && !secured {
            let why = "This login needs an encrypted connection; switch on STARTTLS or SSL/TLS";
            return now_refused(format!("FAIL\t{id}\treason={why}\n"));
        }
        let Ok(said) = said else {
            let why = "code=invalid_base64\treason=Invalid base64 data in initial response";
            return now_refused(format!("FAIL\t{id}\t{why}\n"));
        };
        if self.open.len() >= ROOM {
            match self.open.iter().position(|open| open.state.waits_for_user()) {
                Some(oldest) => drop(self.open.remove(oldest)),
                None => return Some(self.outage(id, service, None, rules)),
            }
        }
        let (state, answer) = match (mechanism.as_str(), said) {
            ("PLAIN", None) => (State::PlainMessage, Expect::Say(format!("CONT\t{id}\t\n"))),
            ("PLAIN", Some(message)) => plain(id, &message, now, rules),
            ("LOGIN", Some(name)) if !name.is_empty() => login_name(id, &name, now, rules),
            ("LOGIN", _) => (State::LoginName, Expect::Say(prompt(id, "Username:"))),
            (_, Some(response)) if !response.is_empty() => refused(id, None, now, rules),
            _ => (State::CramDigest(String::new()), Expect::Challenge(id)),
        };
        self.keep(Open { id, service, arrived: now, state }, answer)
    }

    fn cont(&mut self, id: u32, said: &Said, now: Duration, rules: &Rules) -> Option<Expect> {
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else {
            return Some(Expect::Say(format!("FAIL\t{id}\treason=Authentication request timed out\n")));
        };
        let unexpected = format!("FAIL\t{id}\treason=Unexpected continuation\n");
        match &mut open.state {
            State::Checking { early, .. } | State::Refused { early, .. } if !*early => {
                *early = true;
                return None;
            }
            State::Checking { .. } => {
                self.take(id);
                return Some(Expect::Log("refused", Some(unexpected)));
            }
            State::Refused { .. } => {
                self.take(id);
                return Some(Expect::Say(unexpected));
            }
            _ => {}
        }
        let open = self.take(id)?;
        let Ok(response) = said.in_cont() else {
            let why = "code=invalid_base64\treason=Invalid base64 data in continued response";
            return Some(Expect::Log("refused", Some(format!("FAIL\t{id}\t{why}\n"))));
        };
        let (state, answer) = match open.state {
            State::PlainMessage => plain(id, &response, now, rules),
            State::LoginName => login_name(id, &response, now, rules),
            State::LoginPassword(name) if response.contains(&0) => refused(id, Some(&name), now, rules),
            State::LoginPassword(name) => password(id, name, &response, now, rules),
            State::CramDigest(challenge) => cram(id, challenge, &response, now, rules),
            State::Checking { .. } | State::Refused { .. } => unreachable!("looked at above"),
        };
        self.keep(Open { arrived: now, state, ..open }, answer)
    }

    /// Puts an exchange at the end of the line, unless its last word has been said.
    fn keep(&mut self, open: Open, answer: Expect) -> Option<Expect> {
        if !matches!(answer, Expect::Log(_, Some(_))) {
            self.open.push(open);
        }
        Some(answer)
    }

    /// What each open request waits for, for whoever makes up what comes next.
    pub fn sight(&self) -> Vec<(u32, Awaits)> {
        let awaits = |state: &State| match state {
            State::PlainMessage => Awaits::Message,
            State::LoginName => Awaits::Name,
            State::LoginPassword(name) => Awaits::Password(name.clone()),
            State::CramDigest(challenge) => Awaits::Digest(challenge.clone()),
            State::Checking { .. } | State::Refused { .. } => Awaits::Nothing,
        };
        self.open.iter().map(|open| (open.id, awaits(&open.state))).collect()
    }

    /// The challenge that the session has sent.
    pub fn challenged(&mut self, id: u32, challenge: &str) {
        assert!(self.challenges.insert(challenge.to_owned()), "{challenge} was used before");
        let inner = challenge.strip_prefix('<').and_then(|text| text.strip_suffix("@mail.example.com>"));
        let (random, seconds) = inner.and_then(|text| text.split_once('.')).expect(challenge);
        assert!(random.parse::<u128>().is_ok() && seconds.parse::<u64>().is_ok(), "{challenge}");
        let open = self.open.iter_mut().find(|open| open.id == id).expect("it was challenged");
        open.state = State::CramDigest(challenge.to_owned());
    }

    /// The question about this request has this number.
    pub fn asked(&mut self, id: u32, asked: u64) {
        let open = self.open.iter_mut().find(|open| open.id == id).expect("it asked");
        let State::Checking { number, .. } = &mut open.state else { unreachable!("it asked") };
        *number = asked;
    }

    /// What the passdb answered to question `asked`; without `users` it could not. Nothing is said to a request that
    /// is over.
    pub fn answer(
        &mut self,
        asked: u64,
        users: Option<&Users>,
        now: Duration,
        rules: &Rules,
    ) -> Option<Expect> {
        let is_asked = |open: &Open| matches!(open.state, State::Checking { number, .. } if number == asked);
        let position = self.open.iter().position(is_asked)?;
        let Open { id, service, arrived, state } = self.open.remove(position);
        let State::Checking { name, secret, .. } = state else { unreachable!("only these ask") };
        let Some(users) = users else { return Some(self.outage(id, service, Some(&name), rules)) };
        if users.get(name.as_str()).is_some_and(|password| is_right(password.as_bytes(), &secret)) {
            return Some(Expect::Log("ok", Some(format!("OK\t{id}\tuser={name}\n"))));
        }
        let (mut state, answer) = refused(id, Some(&name), arrived, rules);
        if let State::Refused { earliest, latest, .. } = &mut state {
            *earliest = (*earliest).max(now).min(arrived + rules.deadline);
            *latest = (*latest).max(now + rules.refusal_delay * 5 / 4).min(arrived + rules.deadline).max(now);
        }
        self.keep(Open { id, service, arrived, state }, answer)
    }

    /// What the session does because time has passed must be due.
    pub fn because_of_time(&mut self, heard: &Expect, now: Duration, rules: &Rules) {
        let due = self.open.iter().position(|open| match (&open.state, heard) {
            (State::Refused { line, earliest, .. }, Expect::Say(said)) => line == said && *earliest <= now,
            (State::Checking { name, .. }, Expect::Log("outage", said)) => {
                let expected = (!self.closes(open.service, rules)).then(|| temp_fail(open.id, Some(name)));
                open.arrived + rules.deadline <= now && *said == expected
            }
            _ => false,
        });
        let over = self.closing && self.open.iter().all(|open| open.state.waits_for_user());
        let shaken = matches!(self.phase, Phase::Open(_));
        match (due, heard) {
            (Some(due), Expect::Say(_)) => drop(self.open.remove(due)),
            (Some(due), _) => {
                let open = self.open.remove(due);
                self.closing |= self.closes(open.service, rules);
            }
            (None, Expect::Close) => assert!(over || (!shaken && self.began + HANDSHAKE <= now), "closed"),
            (None, other) => panic!("{other:?} was not due at {now:?}"),
        }
    }

    /// Nothing that was due has been forgotten.
    pub fn all_done(&mut self, now: Duration, rules: &Rules) {
        // Nobody waits for these, so nobody is told.
        self.open.retain(|open| !open.state.waits_for_user() || open.arrived + PATIENCE > now);
        for Open { id, arrived, state, .. } in &self.open {
            match state {
                State::Refused { latest, .. } => assert!(*latest > now, "no FAIL for {id} at {now:?}"),
                State::Checking { .. } => assert!(*arrived + rules.deadline > now, "nothing about {id}"),
                _ => {}
            }
        }
        let shaken = matches!(self.phase, Phase::Open(_));
        assert!(shaken || self.began + HANDSHAKE > now, "still waiting for the handshake");
        let in_flight = self.open.iter().any(|open| !open.state.waits_for_user());
        assert!(!self.closing || in_flight, "still open after an outage");
    }

    /// The connection is gone: how many attempts the log must hear of.
    pub fn abandoned(&self) -> usize {
        self.open.iter().filter(|open| matches!(open.state, State::Checking { .. })).count()
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    fn take(&mut self, id: u32) -> Option<Open> {
        let position = self.open.iter().position(|open| open.id == id)?;
        Some(self.open.remove(position))
    }

    fn outage(&mut self, id: u32, service: &str, name: Option<&str>, rules: &Rules) -> Expect {
        let closes = self.closes(service, rules);
        self.closing |= closes;
        Expect::Log("outage", (!closes).then(|| temp_fail(id, name)))
    }

    fn closes(&self, service: &str, rules: &Rules) -> bool {
        match (rules.on_outage, &self.phase) {
            ("close", _) | (_, Phase::Open(0)) if rules.on_outage != "fail" => true,
            ("auto", Phase::Open(1)) => service.eq_ignore_ascii_case("smtp"),
            _ => false,
        }
    }
}

fn temp_fail(id: u32, name: Option<&str>) -> String {
    let user = name.map(|name| format!("\tuser={name}")).unwrap_or_default();
    format!("FAIL\t{id}{user}\tcode=temp_fail\ttemp\n")
}

fn prompt(id: u32, prompt: &str) -> String {
    format!("CONT\t{id}\t{}\n", BASE64_STANDARD.encode(prompt))
}

fn refused(id: u32, shown: Option<&str>, arrived: Duration, rules: &Rules) -> (State, Expect) {
    let user = shown.map(|name| format!("\tuser={name}")).unwrap_or_default();
    let line = format!("FAIL\t{id}{user}{REFUSED}\n");
    let said = rules.refusal_delay.is_zero().then(|| line.clone());
    let (earliest, latest) = (arrived + rules.refusal_delay, arrived + rules.refusal_delay * 5 / 4);
    (State::Refused { line, earliest, latest, early: false }, Expect::Log("refused", said))
}

/// The name that this stands for here, or how it may be repeated.
fn name(typed: &[u8]) -> Result<String, Option<&str>> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_@".contains(byte);
    if (1..=255).contains(&typed.len()) && typed.iter().all(allowed) {
        return Ok(String::from_utf8_lossy(typed).to_ascii_lowercase());
    }
    let text = std::str::from_utf8(typed).ok();
    Err(text.filter(|text| (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)))
}

fn plain(id: u32, message: &[u8], now: Duration, rules: &Rules) -> (State, Expect) {
    let parts: Vec<&[u8]> = message.split(|&byte| byte == 0).collect();
    let [authzid, authcid, secret] = parts[..] else { return refused(id, None, now, rules) };
    match name(authcid) {
        Err(shown) => refused(id, shown, now, rules),
        Ok(user) if authzid.is_empty() || name(authzid).is_ok_and(|other| other == user) => {
            password(id, user, secret, now, rules)
        }
        Ok(user) => refused(id, Some(&user), now, rules),
    }
}

fn login_name(id: u32, typed: &[u8], now: Duration, rules: &Rules) -> (State, Expect) {
    match name(typed) {
        Ok(name) => (State::LoginPassword(name), Expect::Say(prompt(id, "Password:"))),
        Err(shown) => refused(id, shown, now, rules),
    }
}

fn password(id: u32, user: String, secret: &[u8], now: Duration, rules: &Rules) -> (State, Expect) {
    if !(1..=1_024).contains(&secret.len()) {
        return refused(id, Some(&user), now, rules);
    }
    let asked = Expect::Ask(user.clone());
    (
        State::Checking { number: 0, name: user, secret: Secret::Password(secret.to_vec()), early: false },
        asked,
    )
}

fn cram(id: u32, challenge: String, response: &[u8], now: Duration, rules: &Rules) -> (State, Expect) {
    let space = response.iter().rposition(|&byte| byte == b' ').unwrap_or(0);
    let (typed, hex) = response.split_at(space);
    let hex = hex.get(1..).unwrap_or_default();
    let is_digest = hex.len() == 32 && hex.iter().all(u8::is_ascii_hexdigit);
    if typed.is_empty() || typed.contains(&0) || !is_digest {
        return refused(id, None, now, rules);
    }
    match name(typed) {
        Err(shown) => refused(id, shown, now, rules),
        Ok(user) => {
            let digest = hex.to_ascii_lowercase();
            let asked = Expect::Ask(user.clone());
            (
                State::Checking {
                    number: 0,
                    name: user,
                    secret: Secret::Digest { challenge, digest },
                    early: false,
                },
                asked,
            )
        }
    }
}

pub fn digest(challenge: &str, password: &[u8]) -> String {
    let mut mac = Hmac::<Md5>::new_from_slice(password).expect("HMAC takes keys of any length");
    mac.update(challenge.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_right(password: &[u8], secret: &Secret) -> bool {
    match secret {
        Secret::Password(said) => said == password,
        Secret::Digest { challenge, digest: said } => digest(challenge, password).as_bytes() == said,
    }
}
