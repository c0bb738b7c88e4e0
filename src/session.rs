//! One connection of a mail server: the handshake, the open exchanges, and which reply each of them gets.
//!
//! A session is told what happened (a line arrived, a passdb answered, time passed) and says what to do, one
//! [`Action`] at a time. It never waits, reads no clock and holds no socket, so a test is a list of calls.
//!
//! Promises kept here: a request gets one final reply and nothing after it; an OK is made in one place, from an
//! [`Authenticated`]; a refusal leaves on a schedule fixed when the user's last message arrived; a request without a
//! verdict at its deadline becomes an outage, never a refusal. What an outage looks like depends on the client:
//! Postfix, Exim and chasquid take every FAIL for a wrong password and only a lost connection for trouble, so theirs
//! is closed without an answer once nothing else is in flight on it.
//!
//! A mail server that breaks the protocol gets [`Action::Close`]; nothing that its users send can cause that.
//! `server::connection` performs the actions and writes the log.
#![forbid(unsafe_code)]

mod action;

pub use action::{Action, Attempt, CloseReason, Origin, Ticket, Verdict};

use crate::policy::{OnOutage, Policy};
use crate::sasl::{
    Answer, Authenticated, AwaitingAnswer, AwaitingResponse, Claimed, Context, Failure, Mechanism, Outage,
    Refusal, Seed, Step,
};
use crate::wire::reply::{
    REASON_BASE64_CONTINUED, REASON_BASE64_INITIAL, REASON_NEEDS_TLS, REASON_REFUSED, REASON_TIMED_OUT,
    REASON_UNEXPECTED,
};
use crate::wire::{AuthRequest, Command, FailCode, Reply, RequestId, Secured};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How long a client may take to say VERSION and CPID.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an exchange waits for its user; Dovecot's limit. Postfix never cancels what its users abandon.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(150);

/// How much of a service's name is kept, in bytes; the configuration takes no longer ones.
pub const MAX_SERVICE_BYTES: usize = 64;

/// A point in time: how long after an arbitrary start, the same for all moments that meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl core::ops::Add<Duration> for Moment {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// One connection of a mail server.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    /// Ordered by when something last happened, the longest quiet first.
    exchanges: VecDeque<Exchange>,
    last_ticket: u64,
    /// The service named last, so that the next request need not copy it.
    service: Arc<[u8]>,
    /// There was an outage that only closing the connection can tell.
    closing: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    ExpectVersion { until: Moment },
    ExpectCpid { minor: u32, until: Moment },
    Open { minor: u32, client_pid: u64 },
}

/// A request without its final reply.
#[derive(Debug)]
struct Exchange {
    request: Request,
    state: State,
}

/// What stays the same while a request lasts, but for `arrived`.
#[derive(Clone, Debug)]
struct Request {
    id: RequestId,
    ticket: Ticket,
    mechanism: Mechanism,
    origin: Origin,
    /// When the user's last message came.
    arrived: Moment,
}

#[derive(Debug)]
enum State {
    ExpectResponse(AwaitingResponse),
    /// `early`: a response has come that nobody asked for yet. No mechanism here asks for one after its passdb
    /// question, so the verdict overtakes it.
    ExpectAnswer {
        awaiting: AwaitingAnswer,
        early: bool,
    },
    /// Decided and logged; the reply leaves at `due`.
    Refused {
        reply: Reply,
        due: Moment,
        early: bool,
    },
}

impl Session {
    /// A connection accepted at `now`. The greeting is sent by whoever made it.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self {
            phase: Phase::ExpectVersion { until: now + HANDSHAKE_TIMEOUT },
            exchanges: VecDeque::new(),
            last_ticket: 0,
            service: Arc::default(),
            closing: false,
        }
    }

    /// A line came, without its line end. At most `room` exchanges may be open after it, at least 1: the one that
    /// has waited longest for its user goes, and if all of them wait for us, the new one has no verdict.
    pub fn on_line(
        &mut self,
        line: &[u8],
        now: Moment,
        policy: &Policy,
        room: usize,
        seed: &mut dyn FnMut() -> Seed,
    ) -> Action {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => return Action::Close(error.into()),
        };
        match (self.phase, command) {
            (Phase::ExpectVersion { until }, Command::Version { major: 1, minor }) => {
                self.phase = Phase::ExpectCpid { minor, until };
                Action::None
            }
            (Phase::ExpectVersion { .. }, Command::Version { major, .. }) => {
                Action::Close(CloseReason::Major(major))
            }
            (Phase::ExpectCpid { minor, .. }, Command::Cpid(client_pid)) => {
                self.phase = Phase::Open { minor, client_pid };
                Action::None
            }
            (Phase::Open { minor, .. }, Command::Auth(request)) => {
                self.on_auth(&request, minor, now, policy, room, seed)
            }
            (Phase::Open { .. }, Command::Cont(id, data)) => self.on_cont(id, data, now, policy, seed),
            (Phase::Open { .. }, Command::ContZero) => Action::Send(Reply::FailZero),
            (Phase::Open { minor, .. }, Command::Cancel(id)) => self.on_cancel(id, minor, now),
            (_, command) => Action::Close(CloseReason::OutOfPlace(command.name())),
        }
    }

    fn on_auth(
        &mut self,
        auth: &AuthRequest<'_>,
        minor: u32,
        now: Moment,
        policy: &Policy,
        room: usize,
        seed: &mut dyn FnMut() -> Seed,
    ) -> Action {
        if self.position(auth.id).is_some() {
            return Action::Close(CloseReason::DuplicateId(auth.id));
        }
        // No configured service has a longer name, and neither memory nor log has room for a stranger's.
        let service = &auth.service[..auth.service.len().min(MAX_SERVICE_BYTES)];
        if *self.service != *service {
            self.service = Arc::from(service);
        }
        let origin = Origin { service: self.service.clone(), remote: auth.remote, secured: auth.secured };
        let service = policy.service(&auth.service);
        let offered =
            Mechanism::from_name(&auth.mechanism).filter(|mechanism| service.mechanisms.contains(mechanism));
        let Some(mechanism) = offered else {
            return self.reject("mechanism", auth.id, None, origin, None, None);
        };
        if mechanism.is_plaintext() && service.require_tls && !is_secured(&origin) {
            return self.reject("needs_tls", auth.id, Some(mechanism), origin, None, Some(REASON_NEEDS_TLS));
        }
        let initial_response = match auth.initial_response.base64(minor).map(decode).transpose() {
            Ok(initial_response) => initial_response,
            Err(NotBase64) => {
                let code = Some(FailCode::InvalidBase64);
                return self.reject(
                    "base64",
                    auth.id,
                    Some(mechanism),
                    origin,
                    code,
                    Some(REASON_BASE64_INITIAL),
                );
            }
        };
        self.last_ticket += 1;
        let request =
            Request { id: auth.id, ticket: Ticket(self.last_ticket), mechanism, origin, arrived: now };
        while self.exchanges.len() >= room && self.evict_oldest() {}
        if self.exchanges.len() >= room {
            return self.outage(request, Claimed::Nobody, Outage::QueueFull, now, policy);
        }
        if !service.allows_address(auth.remote) {
            let failure = Failure { claimed: Claimed::Nobody, refusal: Refusal::Network };
            return self.refuse(request, failure, now, policy, seed);
        }
        let context = Context { names: &policy.names, host: &policy.host };
        let step = mechanism.start(initial_response.as_deref().map(Vec::as_slice), &context, &mut *seed);
        self.advance(request, step, now, policy, seed)
    }

    fn on_cont(
        &mut self,
        id: RequestId,
        data: &[u8],
        now: Moment,
        policy: &Policy,
        seed: &mut dyn FnMut() -> Seed,
    ) -> Action {
        let Some(position) = self.position(id) else {
            return Action::Send(fail(id, None, None, Some(REASON_TIMED_OUT)));
        };
        match &mut self.exchanges[position].state {
            State::ExpectResponse(_) => {}
            State::ExpectAnswer { early, .. } | State::Refused { early, .. } if !*early => {
                *early = true;
                return Action::None;
            }
            State::ExpectAnswer { .. } | State::Refused { .. } => {
                return self.on_second_early_cont(position, now);
            }
        }
        let Exchange { mut request, state: State::ExpectResponse(awaiting) } = self.take(position) else {
            unreachable!("the other states were handled above");
        };
        request.arrived = now;
        let Ok(response) = decode(data) else {
            let code = Some(FailCode::InvalidBase64);
            let (mechanism, origin) = (Some(request.mechanism), request.origin);
            return self.reject("base64", id, mechanism, origin, code, Some(REASON_BASE64_CONTINUED));
        };
        let context = Context { names: &policy.names, host: &policy.host };
        self.advance(request, awaiting.respond(&response, &context), now, policy, seed)
    }

    fn on_second_early_cont(&mut self, position: usize, now: Moment) -> Action {
        let Exchange { request, state } = self.take(position);
        let reply = fail(request.id, None, None, Some(REASON_UNEXPECTED));
        match state {
            // Logged when it was decided.
            State::Refused { .. } | State::ExpectResponse(_) => Action::Send(reply),
            State::ExpectAnswer { awaiting, .. } => {
                let claimed = Claimed::Name(awaiting.name().clone());
                Action::Settle(
                    self.attempt(Verdict::Rejected("unexpected_response"), claimed, request, now),
                    Some(reply),
                )
            }
        }
    }

    fn on_cancel(&mut self, id: RequestId, minor: u32, now: Moment) -> Action {
        let reply = (minor >= 4).then_some(Reply::Cancelled(id));
        let exchange = self.position(id).map(|position| self.take(position));
        if let Some(Exchange { request, state: State::ExpectAnswer { awaiting, .. } }) = exchange {
            let claimed = Claimed::Name(awaiting.name().clone());
            return Action::Settle(self.attempt(Verdict::Abandoned, claimed, request, now), reply);
        }
        reply.map_or(Action::None, Action::Send)
    }

    /// A passdb answered. An answer to an exchange that is over meanwhile is dropped.
    pub fn on_answer(
        &mut self,
        ticket: Ticket,
        answer: Result<Answer, Outage>,
        now: Moment,
        policy: &Policy,
        seed: &mut dyn FnMut() -> Seed,
    ) -> Action {
        let is_asked = |exchange: &Exchange| {
            exchange.request.ticket == ticket && matches!(exchange.state, State::ExpectAnswer { .. })
        };
        let Some(position) = self.exchanges.iter().rposition(is_asked) else {
            return Action::None;
        };
        let Exchange { request, state: State::ExpectAnswer { awaiting, .. } } = self.take(position) else {
            unreachable!("only exchanges in this state were looked for");
        };
        match answer {
            Ok(answer) => self.advance(request, awaiting.resume(answer), now, policy, seed),
            Err(outage) => {
                let claimed = Claimed::Name(awaiting.name().clone());
                self.outage(request, claimed, outage, now, policy)
            }
        }
    }

    /// Time has passed. Call it again until there is [`Action::None`] to do.
    pub fn on_time(&mut self, now: Moment, policy: &Policy) -> Action {
        match self.phase {
            Phase::ExpectVersion { until } | Phase::ExpectCpid { until, .. } if now >= until => {
                return Action::Close(CloseReason::HandshakeTimeout);
            }
            _ => {}
        }
        while let Some(position) = self.exchanges.iter().position(|exchange| exchange.due(policy) <= now) {
            let Exchange { request, state } = self.take(position);
            match state {
                State::Refused { reply, .. } => return Action::Send(reply),
                State::ExpectAnswer { awaiting, .. } => {
                    let claimed = Claimed::Name(awaiting.name().clone());
                    return self.outage(request, claimed, Outage::Deadline, now, policy);
                }
                // Nobody waits for an answer; there must be no line that the client did not ask for.
                State::ExpectResponse(_) => {}
            }
        }
        if self.closing && self.in_flight() == 0 {
            return Action::Close(CloseReason::Outage);
        }
        Action::None
    }

    /// When [`on_time`](Self::on_time) has something to do next, if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self, policy: &Policy) -> Option<Moment> {
        let handshake = match self.phase {
            Phase::ExpectVersion { until } | Phase::ExpectCpid { until, .. } => Some(until),
            Phase::Open { .. } => None,
        };
        let idle = (self.closing && self.in_flight() == 0).then_some(Moment(Duration::ZERO));
        let exchanges = self.exchanges.iter().map(|exchange| exchange.due(policy));
        exchanges.chain(handshake).chain(idle).min()
    }

    /// Requests that wait for us, not for their user.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let waits_for_us = |exchange: &&Exchange| !matches!(exchange.state, State::ExpectResponse(_));
        self.exchanges.iter().filter(waits_for_us).count()
    }

    /// Requests without a final reply.
    #[must_use]
    pub fn open_exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether lines are still to be read. Not after an outage that ends the connection.
    #[must_use]
    pub fn wants_lines(&self) -> bool {
        !self.closing
    }

    /// Forgets the exchange that has waited longest for its user. `false` if none waits for one.
    fn evict_oldest(&mut self) -> bool {
        let waits_for_user = |exchange: &Exchange| matches!(exchange.state, State::ExpectResponse(_));
        let oldest = self.exchanges.iter().position(waits_for_user);
        oldest.is_some_and(|position| self.exchanges.remove(position).is_some())
    }

    /// The connection is gone: what was being asked about, for the log.
    pub fn abandon(&mut self, now: Moment) -> Vec<Attempt> {
        let exchanges = std::mem::take(&mut self.exchanges);
        exchanges
            .into_iter()
            .filter_map(|Exchange { request, state }| match state {
                State::ExpectAnswer { awaiting, .. } => {
                    let claimed = Claimed::Name(awaiting.name().clone());
                    Some(self.attempt(Verdict::Abandoned, claimed, request, now))
                }
                State::ExpectResponse(_) | State::Refused { .. } => None,
            })
            .collect()
    }

    /// Where every step of every mechanism ends up: the one place that makes an OK.
    fn advance(
        &mut self,
        request: Request,
        step: Step,
        now: Moment,
        policy: &Policy,
        seed: &mut dyn FnMut() -> Seed,
    ) -> Action {
        match step {
            Step::Challenge(challenge, awaiting) => {
                let reply = Reply::Cont(request.id, challenge);
                self.exchanges.push_back(Exchange { request, state: State::ExpectResponse(awaiting) });
                Action::Send(reply)
            }
            Step::Ask(question, awaiting) => {
                let action = Action::Ask(request.ticket, question, request.origin.clone());
                let state = State::ExpectAnswer { awaiting, early: false };
                self.exchanges.push_back(Exchange { request, state });
                action
            }
            Step::Success(authenticated) => self.accept(request, authenticated, now),
            Step::Failure(failure) => self.refuse(request, failure, now, policy, seed),
        }
    }

    fn accept(&self, request: Request, authenticated: Authenticated, now: Moment) -> Action {
        let name = authenticated.into_name();
        let reply = Reply::Ok(request.id, name.clone());
        Action::Settle(self.attempt(Verdict::Accepted, Claimed::Name(name), request, now), Some(reply))
    }

    fn refuse(
        &mut self,
        request: Request,
        failure: Failure,
        now: Moment,
        policy: &Policy,
        seed: &mut dyn FnMut() -> Seed,
    ) -> Action {
        let code = code_of(failure.refusal);
        let reply = fail(request.id, failure.claimed.printable(), code, Some(REASON_REFUSED));
        let verdict = Verdict::Refused(failure.refusal);
        if policy.refusal_delay.is_zero() {
            return Action::Settle(self.attempt(verdict, failure.claimed, request, now), Some(reply));
        }
        let attempt = self.attempt(verdict, failure.claimed, request.clone(), now);
        let due = refusal_due(request.arrived, now, policy, seed().random[0]);
        self.exchanges.push_back(Exchange { request, state: State::Refused { reply, due, early: false } });
        Action::Settle(attempt, None)
    }

    /// A refusal that no guess can hide behind, so it leaves at once.
    fn reject(
        &self,
        why: &'static str,
        id: RequestId,
        mechanism: Option<Mechanism>,
        origin: Origin,
        code: Option<FailCode>,
        reason: Option<&'static str>,
    ) -> Action {
        let attempt = Attempt {
            ticket: None,
            verdict: Verdict::Rejected(why),
            claimed: Claimed::Nobody,
            mechanism,
            origin,
            client_pid: self.client_pid(),
            elapsed: Duration::ZERO,
        };
        Action::Settle(attempt, Some(fail(id, None, code, reason)))
    }

    fn outage(
        &mut self,
        request: Request,
        claimed: Claimed,
        outage: Outage,
        now: Moment,
        policy: &Policy,
    ) -> Action {
        let close = match policy.on_outage {
            OnOutage::Close => true,
            OnOutage::Fail => false,
            OnOutage::Auto => self.takes_every_fail_for_a_refusal(&request.origin),
        };
        let reply = if close {
            self.closing = true;
            None
        } else {
            Some(fail(request.id, claimed.printable(), Some(FailCode::TempFail), None))
        };
        Action::Settle(self.attempt(Verdict::Outage(outage), claimed, request, now), reply)
    }

    /// Postfix and Exim announce minor version 0; chasquid and maddy 1 and the service `smtp`, in any case.
    fn takes_every_fail_for_a_refusal(&self, origin: &Origin) -> bool {
        match self.phase {
            Phase::Open { minor: 0, .. } => true,
            Phase::Open { minor: 1, .. } => origin.service.eq_ignore_ascii_case(b"smtp"),
            _ => false,
        }
    }

    fn attempt(&self, verdict: Verdict, claimed: Claimed, request: Request, now: Moment) -> Attempt {
        Attempt {
            ticket: Some(request.ticket),
            verdict,
            claimed,
            mechanism: Some(request.mechanism),
            origin: request.origin,
            client_pid: self.client_pid(),
            elapsed: now.0.saturating_sub(request.arrived.0),
        }
    }

    fn client_pid(&self) -> u64 {
        match self.phase {
            Phase::Open { client_pid, .. } => client_pid,
            Phase::ExpectVersion { .. } | Phase::ExpectCpid { .. } => 0,
        }
    }

    fn position(&self, id: RequestId) -> Option<usize> {
        self.exchanges.iter().rposition(|exchange| exchange.request.id == id)
    }

    fn take(&mut self, position: usize) -> Exchange {
        let exchange = self.exchanges.remove(position).expect("the position was found just now");
        if self.exchanges.is_empty() {
            // It begins at its first place again (std happens to do so), which the cache may still have.
            self.exchanges.clear();
        }
        exchange
    }
}

impl Exchange {
    fn due(&self, policy: &Policy) -> Moment {
        match &self.state {
            State::ExpectResponse(_) => self.request.arrived + EXCHANGE_TIMEOUT,
            State::ExpectAnswer { .. } => self.request.arrived + policy.deadline,
            State::Refused { due, .. } => *due,
        }
    }
}

/// When a refusal leaves: one delay after `arrived`, or two or three of them if the verdict took longer than one,
/// and never after the deadline. So the moment tells nothing about how long the verdict took.
fn refusal_due(arrived: Moment, now: Moment, policy: &Policy, random: u8) -> Moment {
    let delay = policy.refusal_delay + policy.refusal_delay * u32::from(random) / (4 * 255);
    let mut due = arrived + delay;
    while due < now {
        due = due + delay;
    }
    due.min(arrived + policy.deadline)
}

/// A login from the mail server's own machine counts as secured, as it does in Dovecot.
fn is_secured(origin: &Origin) -> bool {
    origin.secured == Secured::Yes || origin.remote.is_some_and(|address| address.is_loopback())
}

/// The refusals that Dovecot has a word for.
fn code_of(refusal: Refusal) -> Option<FailCode> {
    match refusal {
        Refusal::PasswordExpired => Some(FailCode::PasswordExpired),
        Refusal::AccountExpired => Some(FailCode::UserDisabled),
        _ => None,
    }
}

fn fail(id: RequestId, user: Option<&str>, code: Option<FailCode>, reason: Option<&'static str>) -> Reply {
    Reply::Fail { id, user: user.map(Into::into), code, reason }
}

/// The text is not base64 as RFC 4648 §4 has it: padded, without blanks, unused bits zero.
struct NotBase64;

fn decode(base64: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotBase64> {
    // Room for all of it, so that it never moves and leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(base64.len())));
    BASE64_STANDARD.decode_vec(base64, &mut bytes).map_err(|_| NotBase64)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
