//! PLAIN: one message with authorization identity, authentication identity and password (RFC 4616).
//!
//! `authzid NUL authcid NUL password`. The authorization identity must be empty or the same user: there is nobody
//! here who may act for somebody else. It is compared in canonical form, and before the password is looked at, so
//! that a wrong one is refused with a right password too (CVE-2023-27582 was the opposite).

use super::{AwaitingResponse, Context, Failure, Refusal, Step, ask_password};

pub(super) fn start(initial_response: Option<&[u8]>, context: &Context<'_>) -> Step {
    let state = ExpectMessage(());
    match initial_response {
        Some(message) => state.respond(message, context),
        // The client speaks first, so the challenge that invites it is empty.
        None => Step::Challenge(Vec::new(), AwaitingResponse::Plain(state)),
    }
}

/// Waiting for the one message.
#[derive(Debug)]
pub struct ExpectMessage(());

impl ExpectMessage {
    pub(super) fn respond(self, message: &[u8], context: &Context<'_>) -> Step {
        let mut parts = message.split(|&byte| byte == 0);
        let (Some(authzid), Some(authcid), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Failure::nameless(Refusal::Malformed).into();
        };
        let name = match context.names.canonical(authcid) {
            Ok(name) => name,
            Err(error) => return Failure::name_refused(authcid, error).into(),
        };
        let same_user = authzid.is_empty()
            || authzid == authcid
            || context.names.canonical(authzid).is_ok_and(|authzid| authzid == name);
        if !same_user {
            return Failure::of(&name, Refusal::Authzid).into();
        }
        ask_password(name, password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::{NameRules, Question, identity::NameError};

    fn step(message: Option<&[u8]>) -> Step {
        start(message, &Context { names: &NameRules::default(), host: "h" })
    }

    fn refusal(message: &[u8]) -> (Option<String>, Refusal) {
        match step(Some(message)) {
            Step::Failure(failure) => (failure.claimed.printable().map(String::from), failure.refusal),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_an_initial_response_the_challenge_is_empty() {
        assert!(matches!(step(None), Step::Challenge(challenge, _) if challenge.is_empty()));
    }

    #[test]
    fn the_authzid_is_empty_or_the_same_user() {
        for message in [&b"\0Alice\0secret"[..], b"alice\0Alice\0secret", b"ALICE\0alice\0secret"] {
            match step(Some(message)) {
                Step::Ask(Question::VerifyPassword(name, password), _) => {
                    assert_eq!(name.as_str(), "alice");
                    assert_eq!(password.as_bytes(), b"secret");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(refusal(b"bob\0alice\0secret"), (Some("alice".into()), Refusal::Authzid));
    }

    #[test]
    fn anything_but_two_nuls_is_malformed() {
        for message in [&b""[..], b"alice", b"\0alice", b"\0alice\0secret\0", b"\0a\0b\0c"] {
            assert_eq!(refusal(message), (None, Refusal::Malformed), "{message:?}");
        }
    }

    #[test]
    fn a_name_without_a_password_is_refused_without_asking() {
        assert_eq!(refusal(b"\0alice\0"), (Some("alice".into()), Refusal::EmptyPassword));
        assert_eq!(refusal(b"\0\0secret"), (None, Refusal::Name(NameError::Empty)));
    }

    #[test]
    fn a_refused_name_is_repeated_only_if_it_is_printable() {
        assert_eq!(refusal(b"\0al ice\0secret").0, Some("al ice".into()));
        assert_eq!(refusal(b"\0al\nOK\t9\tuser=root\0secret").0, None);
        assert_eq!(refusal(b"\0al\xff\0secret").0, None);
    }

    #[test]
    fn passwords_over_1024_bytes_are_refused_without_asking() {
        let message = |length| [&b"\0alice\0"[..], &vec![b'x'; length]].concat();
        assert!(matches!(step(Some(&message(1_024))), Step::Ask(..)));
        assert_eq!(refusal(&message(1_025)).1, Refusal::LongPassword);
    }
}
