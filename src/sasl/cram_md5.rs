//! CRAM-MD5: a challenge, and a digest of it keyed with the password (RFC 2195).
//!
//! The challenge `<random.seconds@host>` is made from a [`Seed`] given by the caller and made again from it when
//! the response arrives, so an exchange that its client has abandoned costs a few bytes. The response is the name,
//! a space (the last one divides) and 32 hex digits; their case does not matter, their number does.
//!
//! An unknown user is challenged and checked like any other, against a verifier that nobody knows the password of.

use super::{
    Authenticated, AwaitingAnswer, AwaitingResponse, Context, CramMd5Credential, Failure, Name, Question,
    Refusal, Step,
};
use std::io::Write as _;

/// Longest host name put into a challenge, in bytes.
const MAX_HOST_BYTES: usize = 255;

/// What makes a challenge unique: fresh for every exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// From the operating system's random source.
    pub random: [u8; 16],
    /// Seconds since 1970, for the timestamp that RFC 2195 §2 asks for; nothing depends on it.
    pub unix_seconds: u64,
}

pub(super) fn start(
    initial_response: Option<&[u8]>,
    context: &Context<'_>,
    seed: impl FnOnce() -> Seed,
) -> Step {
    if initial_response.is_some_and(|response| !response.is_empty()) {
        return Failure::nameless(Refusal::InitialResponse).into();
    }
    let seed = seed();
    let state = ExpectResponse { seed };
    Step::Challenge(challenge(&seed, context.host), AwaitingResponse::CramMd5(state))
}

/// The challenge of this seed, in the form of an RFC 822 `msg-id`, under 350 bytes.
fn challenge(seed: &Seed, host: &str) -> Vec<u8> {
    let host = host.bytes().filter(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(byte));
    let mut challenge = Vec::with_capacity(96);
    write!(challenge, "<{}.{}@", u128::from_be_bytes(seed.random), seed.unix_seconds)
        .expect("writing into a Vec does not fail");
    challenge.extend(host.take(MAX_HOST_BYTES));
    challenge.push(b'>');
    challenge
}

/// Waiting for the digest.
#[derive(Debug)]
pub struct ExpectResponse {
    seed: Seed,
}

impl ExpectResponse {
    pub(super) fn respond(self, response: &[u8], context: &Context<'_>) -> Step {
        let Some((typed, digest)) = parse(response) else {
            return Failure::nameless(Refusal::Malformed).into();
        };
        let name = match context.names.canonical(typed) {
            Ok(name) => name,
            Err(error) => return Failure::name_refused(typed, error).into(),
        };
        let challenge = challenge(&self.seed, context.host);
        let question = Question::LookupCramMd5(name.clone());
        Step::Ask(question, AwaitingAnswer::CramMd5(ExpectCredential { name, challenge, digest }))
    }
}

/// `name SP digest`, the name not empty and without NUL, the digest 32 hex digits.
fn parse(response: &[u8]) -> Option<(&[u8], [u8; 16])> {
    let space = response.iter().rposition(|&byte| byte == b' ')?;
    let (name, hex) = (&response[..space], &response[space + 1..]);
    if name.is_empty() || name.contains(&0) || hex.len() != 32 {
        return None;
    }
    let mut digest = [0; 16];
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
        *byte = nibble(pair[0])? * 16 + nibble(pair[1])?;
    }
    Some((name, digest))
}

/// Waiting for what the digest should be.
#[derive(Debug)]
pub struct ExpectCredential {
    name: Name,
    challenge: Vec<u8>,
    digest: [u8; 16],
}

impl ExpectCredential {
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    pub(super) fn resume(self, credential: &CramMd5Credential) -> Step {
        let proof = credential.key.verify(&self.challenge, &self.digest);
        match (credential.refusal, proof) {
            (None, Some(proof)) => Step::Success(Authenticated::new(self.name, proof)),
            (Some(refusal), _) => Failure::of(&self.name, refusal).into(),
            (None, None) => Failure::of(&self.name, Refusal::WrongPassword).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{CramMd5Key, Password};
    use crate::sasl::{Claimed, NameRules};

    const SEED: Seed = Seed { random: [7; 16], unix_seconds: 1_700_000_000 };

    fn challenged(rules: &NameRules) -> (Vec<u8>, AwaitingResponse) {
        match start(None, &context(rules), || SEED) {
            Step::Challenge(challenge, state) => (challenge, state),
            other => panic!("{other:?}"),
        }
    }

    fn context(rules: &NameRules) -> Context<'_> {
        Context { names: rules, host: "mail.example.com" }
    }

    fn credential(refusal: Option<Refusal>) -> CramMd5Credential {
        CramMd5Credential { key: CramMd5Key::from_password(&Password::new(*b"secret")), refusal }
    }

    fn response(challenge: &[u8], upper: bool) -> Vec<u8> {
        let digest = credential(None).key.respond(challenge);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("alice {}", if upper { hex.to_uppercase() } else { hex }).into_bytes()
    }

    #[test]
    fn the_right_digest_succeeds_in_either_case() {
        let rules = NameRules::default();
        for upper in [false, true] {
            let (challenge, state) = challenged(&rules);
            let Step::Ask(Question::LookupCramMd5(name), state) =
                state.respond(&response(&challenge, upper), &context(&rules))
            else {
                panic!("no question");
            };
            assert_eq!(name.as_str(), "alice");
            let AwaitingAnswer::CramMd5(state) = state else { panic!("{state:?}") };
            assert!(matches!(state.resume(&credential(None)), Step::Success(_)));
        }
    }

    #[test]
    fn a_standing_refusal_wins_over_the_right_digest() {
        let rules = NameRules::default();
        let (challenge, state) = challenged(&rules);
        let Step::Ask(_, AwaitingAnswer::CramMd5(state)) =
            state.respond(&response(&challenge, false), &context(&rules))
        else {
            panic!("no question");
        };
        match state.resume(&credential(Some(Refusal::UnknownUser))) {
            Step::Failure(failure) => assert_eq!(failure.refusal, Refusal::UnknownUser),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn malformed_responses_fail_without_a_question() {
        let rules = NameRules::default();
        let digest = "0".repeat(32);
        for bad in [
            "",
            " ",
            "alice",
            &format!("alice {}", &digest[1..]),
            &format!("alice {digest}0"),
            &format!("alice {digest} "),
            &format!(" {digest}"),
            &format!("al\0ice {digest}"),
            &format!("alice g{}", &digest[1..]),
        ] {
            let (_, state) = challenged(&rules);
            match state.respond(bad.as_bytes(), &context(&rules)) {
                Step::Failure(failure) => assert_eq!(
                    (failure.claimed, failure.refusal),
                    (Claimed::Nobody, Refusal::Malformed),
                    "{bad:?}"
                ),
                other => panic!("{bad:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_last_space_divides() {
        let response = format!("john doe {}", "ab".repeat(16));
        assert_eq!(parse(response.as_bytes()), Some((&b"john doe"[..], [0xab; 16])));
    }

    #[test]
    fn only_an_empty_initial_response_is_taken() {
        let rules = NameRules::default();
        assert!(matches!(start(Some(b""), &context(&rules), || SEED), Step::Challenge(..)));
        assert!(matches!(start(Some(b"x"), &context(&rules), || SEED), Step::Failure(_)));
    }

    #[test]
    fn a_strange_host_name_still_makes_a_msg_id() {
        let long = "h".repeat(300);
        for host in ["a>b c@d", long.as_str(), ""] {
            let challenge = String::from_utf8(challenge(&SEED, host)).unwrap();
            assert!(challenge.starts_with('<') && challenge.ends_with('>') && challenge.len() < 350);
            assert_eq!(challenge.matches(['<', '>', '@', ' ']).count(), 3, "{challenge}");
        }
    }
}
