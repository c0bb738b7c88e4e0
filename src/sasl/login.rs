//! LOGIN: two prompts, one for the name and one for the password (draft-murchison-sasl-login-00).
//!
//! The prompts are byte for byte what every server sends, for some clients compare them. A name may come as the
//! initial response; an empty initial response counts as none. An unknown user is asked for his password like any
//! other, but a name that nobody can have is refused at once.

use super::{AwaitingResponse, Context, Failure, Name, Refusal, Step, ask_password};

const USERNAME_PROMPT: &[u8] = b"Username:";
const PASSWORD_PROMPT: &[u8] = b"Password:";

pub(super) fn start(initial_response: Option<&[u8]>, context: &Context<'_>) -> Step {
    let state = ExpectUsername(());
    match initial_response {
        Some(name) if !name.is_empty() => state.respond(name, context),
        _ => Step::Challenge(USERNAME_PROMPT.to_vec(), AwaitingResponse::LoginUsername(state)),
    }
}

/// Waiting for the name.
#[derive(Debug)]
pub struct ExpectUsername(());

impl ExpectUsername {
    pub(super) fn respond(self, typed: &[u8], context: &Context<'_>) -> Step {
        match context.names.canonical(typed) {
            Ok(name) => Step::Challenge(
                PASSWORD_PROMPT.to_vec(),
                AwaitingResponse::LoginPassword(ExpectPassword { name }),
            ),
            Err(error) => Failure::name_refused(typed, error).into(),
        }
    }
}

/// Waiting for the password.
#[derive(Debug)]
pub struct ExpectPassword {
    name: Name,
}

impl ExpectPassword {
    pub(super) fn respond(self, password: &[u8]) -> Step {
        // As in PLAIN, where a NUL would end the password.
        if password.contains(&0) {
            return Failure::of(&self.name, Refusal::Malformed).into();
        }
        ask_password(self.name, password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::{NameRules, Question};

    fn context(rules: &NameRules) -> Context<'_> {
        Context { names: rules, host: "h" }
    }

    #[test]
    fn name_and_password_are_prompted_for() {
        let rules = NameRules::default();
        let Step::Challenge(prompt, state) = start(None, &context(&rules)) else { panic!("no prompt") };
        assert_eq!(prompt, b"Username:");
        let Step::Challenge(prompt, state) = state.respond(b"ALICE", &context(&rules)) else {
            panic!("no prompt")
        };
        assert_eq!(prompt, b"Password:");
        match state.respond(b"secret", &context(&rules)) {
            Step::Ask(Question::VerifyPassword(name, password), _) => {
                assert_eq!((name.as_str(), password.as_bytes()), ("alice", &b"secret"[..]));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_may_come_first_and_an_empty_one_counts_as_none() {
        let rules = NameRules::default();
        assert!(
            matches!(start(Some(b"alice"), &context(&rules)), Step::Challenge(prompt, _) if prompt == b"Password:")
        );
        assert!(
            matches!(start(Some(b""), &context(&rules)), Step::Challenge(prompt, _) if prompt == b"Username:")
        );
    }

    #[test]
    fn a_name_nobody_can_have_is_refused_before_the_password() {
        let rules = NameRules::default();
        let Step::Challenge(_, state) = start(None, &context(&rules)) else { panic!("no prompt") };
        assert!(matches!(state.respond(b"", &context(&rules)), Step::Failure(_)));
        assert!(matches!(start(Some(b"\0alice\0secret"), &context(&rules)), Step::Failure(_)));
    }

    #[test]
    fn a_nul_in_the_password_is_malformed() {
        let rules = NameRules::default();
        let Step::Challenge(_, state) = start(Some(b"alice"), &context(&rules)) else { panic!("no prompt") };
        match state.respond(b"sec\0ret", &context(&rules)) {
            Step::Failure(failure) => assert_eq!(failure.refusal, Refusal::Malformed),
            other => panic!("{other:?}"),
        }
    }
}
