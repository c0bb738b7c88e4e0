//! SASL mechanisms as state machines without input or output: a message in, a [`Step`] out.
//!
//! Each state of a mechanism is a type that owns what is valid in it and is consumed by the next message, so a
//! message can only meet a state that waits for it. What needs a password database leaves as a [`Question`] and
//! comes back as an [`Answer`]; success needs an [`Authenticated`], and that needs a
//! [`Proof`].
//!
//! Three things that are easily mixed up have types of their own: [`Failure`] is a verdict of no or a message that
//! made no sense, and the user hears FAIL; [`Outage`] means that nobody could find out; a mistake of the mail server
//! never gets here.
//!
//! Source: RFC 4422, with RFC 4616 (PLAIN), draft-murchison-sasl-login (LOGIN) and RFC 2195 (CRAM-MD5).
#![forbid(unsafe_code)]

pub mod cram_md5;
pub mod identity;
pub mod login;
pub mod plain;

pub use cram_md5::Seed;
pub use identity::{Name, NameRules};

use crate::credential::{CramMd5Key, Password, Proof};
use core::fmt;
use identity::NameError;
use std::sync::Arc;

/// Longest password that is ever checked, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1_024;

/// A mechanism that sasld speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login-00.
    Login,
    /// RFC 2195.
    CramMd5,
}

impl Mechanism {
    /// Every mechanism, in the order of the default configuration.
    pub const ALL: &'static [Self] = &[Self::Plain, Self::Login, Self::CramMd5];

    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::CramMd5 => "CRAM-MD5",
        }
    }

    /// The mechanism of this name, in any case.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.iter().copied().find(|mechanism| mechanism.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether the password itself crosses the wire.
    #[must_use]
    pub const fn is_plaintext(self) -> bool {
        matches!(self, Self::Plain | Self::Login)
    }

    /// What Postfix's `smtpd_sasl_security_options` look at; Dovecot's words in Dovecot's order.
    #[must_use]
    pub const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Login => &["plaintext"],
            Self::CramMd5 => &["dictionary", "active"],
        }
    }

    /// Begins an exchange. `initial_response` is decoded; `None` means that there is none, which differs from an
    /// empty one. `seed` is asked for randomness by the mechanisms that challenge.
    pub fn start(
        self,
        initial_response: Option<&[u8]>,
        context: &Context<'_>,
        seed: impl FnOnce() -> Seed,
    ) -> Step {
        match self {
            Self::Plain => plain::start(initial_response, context),
            Self::Login => login::start(initial_response, context),
            Self::CramMd5 => cram_md5::start(initial_response, context, seed),
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What every mechanism is told by the configuration.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// How names are made canonical.
    pub names: &'a NameRules,
    /// Who we say we are in a challenge.
    pub host: &'a str,
}

/// What an exchange does next.
#[derive(Debug)]
pub enum Step {
    /// Send this challenge and wait for the user's response.
    Challenge(Vec<u8>, AwaitingResponse),
    /// Ask the passdbs and wait for their answer.
    Ask(Question, AwaitingAnswer),
    /// Over: he is who he says.
    Success(Authenticated),
    /// Over: he is not, or made no sense.
    Failure(Failure),
}

/// An exchange whose user is to speak.
#[derive(Debug)]
pub enum AwaitingResponse {
    /// PLAIN without an initial response.
    Plain(plain::ExpectMessage),
    /// LOGIN, prompted for the name.
    LoginUsername(login::ExpectUsername),
    /// LOGIN, prompted for the password.
    LoginPassword(login::ExpectPassword),
    /// CRAM-MD5, challenged.
    CramMd5(cram_md5::ExpectResponse),
}

impl AwaitingResponse {
    /// Takes the user's response, decoded.
    pub fn respond(self, response: &[u8], context: &Context<'_>) -> Step {
        match self {
            Self::Plain(state) => state.respond(response, context),
            Self::LoginUsername(state) => state.respond(response, context),
            Self::LoginPassword(state) => state.respond(response),
            Self::CramMd5(state) => state.respond(response, context),
        }
    }
}

/// An exchange that waits for the passdbs.
#[derive(Debug)]
pub enum AwaitingAnswer {
    /// PLAIN and LOGIN: is this the password?
    Password(ExpectVerdict),
    /// CRAM-MD5: what should the digest be?
    CramMd5(cram_md5::ExpectCredential),
}

impl AwaitingAnswer {
    /// Takes the passdbs' answer. An answer to another question than the one asked is no proof of anything.
    #[must_use]
    pub fn resume(self, answer: Answer) -> Step {
        match (self, answer) {
            (Self::Password(state), Answer::Verdict(verdict)) => state.resume(verdict),
            (Self::Password(_), Answer::VouchedAs(name, proof)) => {
                Step::Success(Authenticated::new(name, proof))
            }
            (Self::CramMd5(state), Answer::Credential(credential)) => state.resume(&credential),
            (state, _) => Failure::of(state.name(), Refusal::NoVerifier).into(),
        }
    }

    /// The name asked about.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Password(state) => &state.name,
            Self::CramMd5(state) => state.name(),
        }
    }
}

/// The password of PLAIN and LOGIN is being checked.
#[derive(Debug)]
pub struct ExpectVerdict {
    name: Name,
}

impl ExpectVerdict {
    fn resume(self, verdict: Result<Proof, Refusal>) -> Step {
        match verdict {
            Ok(proof) => Step::Success(Authenticated::new(self.name, proof)),
            Err(refusal) => Failure::of(&self.name, refusal).into(),
        }
    }
}

/// Asks for this password to be checked, unless it can never be right.
fn ask_password(name: Name, password: &[u8]) -> Step {
    if password.is_empty() {
        return Failure::of(&name, Refusal::EmptyPassword).into();
    }
    if password.len() > MAX_PASSWORD_BYTES {
        return Failure::of(&name, Refusal::LongPassword).into();
    }
    let question = Question::VerifyPassword(name.clone(), Arc::new(Password::new(password)));
    Step::Ask(question, AwaitingAnswer::Password(ExpectVerdict { name }))
}

/// What a mechanism needs from a password database.
#[derive(Debug)]
pub enum Question {
    /// Does this password belong to this user?
    VerifyPassword(Name, Arc<Password>),
    /// What CRAM-MD5 can be checked against.
    LookupCramMd5(Name),
}

impl Question {
    /// Whom it is about.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::VerifyPassword(name, _) | Self::LookupCramMd5(name) => name,
        }
    }
}

/// A password database's answer.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::VerifyPassword`].
    Verdict(Result<Proof, Refusal>),
    /// To [`Question::VerifyPassword`]: right, and the user goes by another name than the one he gave. Only PAM says
    /// so, where the configuration lets it.
    VouchedAs(Name, Proof),
    /// To [`Question::LookupCramMd5`].
    Credential(CramMd5Credential),
}

/// What to check a CRAM-MD5 response against, and whether being right is enough.
///
/// A user who does not exist has a credential too, one that nobody knows the password of, and a refusal that stands
/// whatever the response is. So the work is the same.
#[derive(Debug)]
pub struct CramMd5Credential {
    /// The password's verifier.
    pub key: CramMd5Key,
    /// A reason to refuse even the right response.
    pub refusal: Option<Refusal>,
}

/// Somebody proved to be this user.
#[derive(Debug)]
pub struct Authenticated {
    name: Name,
}

impl Authenticated {
    fn new(name: Name, _: Proof) -> Self {
        Self { name }
    }

    /// Who it is, in canonical form.
    #[must_use]
    pub fn into_name(self) -> Name {
        self.name
    }
}

/// The exchange is over and the user is not let in.
#[derive(Debug)]
pub struct Failure {
    /// Who he says he is.
    pub claimed: Claimed,
    /// Why, for the log alone.
    pub refusal: Refusal,
}

/// Who somebody says he is, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// He has not said, or not so that it could be understood.
    Nobody,
    /// Somebody who could exist here.
    Name(Name),
    /// Bytes that no name here consists of.
    Typed(Box<[u8]>),
}

impl Claimed {
    /// The name if it may be repeated to the mail server: valid UTF-8, short, without control characters.
    #[must_use]
    pub fn printable(&self) -> Option<&str> {
        match self {
            Self::Nobody => None,
            Self::Name(name) => Some(name.as_str()),
            Self::Typed(bytes) => identity::printable(bytes),
        }
    }
}

impl Failure {
    fn of(name: &Name, refusal: Refusal) -> Self {
        Self { claimed: Claimed::Name(name.clone()), refusal }
    }

    fn nameless(refusal: Refusal) -> Self {
        Self { claimed: Claimed::Nobody, refusal }
    }

    fn name_refused(typed: &[u8], error: NameError) -> Self {
        let shown = &typed[..typed.len().min(identity::MAX_NAME_BYTES + 1)];
        Self { claimed: Claimed::Typed(shown.into()), refusal: Refusal::Name(error) }
    }
}

impl From<Failure> for Step {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Why somebody is not let in. Only the log tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The password or digest does not match.
    WrongPassword,
    /// No passdb has this user.
    UnknownUser,
    /// The user has no verifier that serves this mechanism.
    NoVerifier,
    /// The user's entry is closed: no password, `nologin`, a duplicate, or a restriction that sasld cannot check.
    Closed,
    /// The user's address is outside the networks allowed for him or for the service.
    Network,
    /// The password is empty, which it never may be.
    EmptyPassword,
    /// The password is longer than [`MAX_PASSWORD_BYTES`].
    LongPassword,
    /// The name cannot be anybody's here.
    Name(NameError),
    /// The authorization identity is somebody else's.
    Authzid,
    /// The message is not one of this mechanism.
    Malformed,
    /// CRAM-MD5 takes no initial response (RFC 4954 §4).
    InitialResponse,
    /// PAM: the password has expired and would have to be changed.
    PasswordExpired,
    /// PAM: the account has expired.
    AccountExpired,
    /// PAM: a rule of the stack keeps this user out, for now or here.
    Denied,
    /// PAM says yes, but has not asked for the password.
    NotAsked,
    /// PAM asked for more than a password.
    AskedMore,
    /// PAM says yes to somebody else than the one who was asked about.
    UserChanged,
}

impl Refusal {
    /// The word for it in the log; documented in `docs/log.md`.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::WrongPassword => "wrong_password",
            Self::UnknownUser => "unknown_user",
            Self::NoVerifier => "no_verifier",
            Self::Closed => "closed",
            Self::Network => "network",
            Self::EmptyPassword => "empty_password",
            Self::LongPassword => "long_password",
            Self::Name(_) => "bad_name",
            Self::Authzid => "authzid",
            Self::Malformed => "malformed",
            Self::InitialResponse => "initial_response",
            Self::PasswordExpired => "password_expired",
            Self::AccountExpired => "account_expired",
            Self::Denied => "denied",
            Self::NotAsked => "pam_not_asked",
            Self::AskedMore => "pam_asked_more",
            Self::UserChanged => "pam_user_changed",
        }
    }
}

/// Why nobody could find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// A passdb that could know the user does not work.
    Passdb,
    /// Too many checks wait already.
    QueueFull,
    /// The deadline passed.
    Deadline,
    /// A fault in sasld itself.
    Internal,
}

impl Outage {
    /// The word for it in the log; documented in `docs/log.md`.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Passdb => "passdb_unavailable",
            Self::QueueFull => "queue_full",
            Self::Deadline => "deadline",
            Self::Internal => "internal_error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_name_too_long_to_be_anybodys_is_never_repeated_not_even_cut() {
        for length in [identity::MAX_NAME_BYTES + 1, 1_000] {
            let failure = Failure::name_refused(&vec![b'a'; length], NameError::TooLong);
            assert_eq!(failure.claimed.printable(), None, "{length}");
            let Claimed::Typed(kept) = failure.claimed else { panic!("{failure:?}") };
            assert_eq!(kept.len(), identity::MAX_NAME_BYTES + 1);
        }
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let refusals = [
            Refusal::WrongPassword,
            Refusal::UnknownUser,
            Refusal::NoVerifier,
            Refusal::Closed,
            Refusal::Network,
            Refusal::EmptyPassword,
            Refusal::LongPassword,
            Refusal::Name(NameError::Empty),
            Refusal::Authzid,
            Refusal::Malformed,
            Refusal::InitialResponse,
            Refusal::PasswordExpired,
            Refusal::AccountExpired,
            Refusal::Denied,
            Refusal::NotAsked,
            Refusal::AskedMore,
            Refusal::UserChanged,
        ];
        let outages = [Outage::Passdb, Outage::QueueFull, Outage::Deadline, Outage::Internal];
        let words: Vec<_> = refusals.map(Refusal::why).into_iter().chain(outages.map(Outage::why)).collect();
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len(), "{words:?}");
    }
}
