//! What PAM modules may ask: the password, as often as the settings allow, and the user's name.
//!
//! Anything else fails the conversation, and so does a prompt too many. What modules tell is kept for the log, up to
//! a limit. The binding copies an answer for libpam, which wipes that copy, and frees what it was given here without
//! wiping it; the process is closed to others, dumps no core and does not live long.

use core::ffi::CStr;
use pam::{ConversationHandler, ErrorCode};
use sasld::credential::Password;
use sasld::pam::request::{MAX_TEXT_BYTES, cut};
use std::ffi::CString;

/// One login's side of the conversation.
pub struct Conversation<'a> {
    user: &'a str,
    password: &'a Password,
    prompts_left: u8,
    /// The password was asked for, and given.
    pub asked: bool,
    /// Something was asked for that was not given.
    pub asked_more: bool,
    /// What modules said, one message after the other.
    pub text: String,
}

impl<'a> Conversation<'a> {
    pub fn new(user: &'a str, password: &'a Password, prompts: u8) -> Self {
        Self { user, password, prompts_left: prompts, asked: false, asked_more: false, text: String::new() }
    }

    fn hear(&mut self, message: &CStr) {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(&message.to_string_lossy());
        let kept = cut(&self.text, MAX_TEXT_BYTES).len();
        self.text.truncate(kept);
    }

    fn decline<T>(&mut self) -> Result<T, ErrorCode> {
        self.asked_more = true;
        Err(ErrorCode::CONV_ERR)
    }
}

impl ConversationHandler for Conversation<'_> {
    fn prompt_echo_on(&mut self, _prompt: &CStr) -> Result<CString, ErrorCode> {
        CString::new(self.user).map_err(|_| ErrorCode::CONV_ERR)
    }

    fn prompt_echo_off(&mut self, _prompt: &CStr) -> Result<CString, ErrorCode> {
        let Some(left) = self.prompts_left.checked_sub(1) else {
            return self.decline();
        };
        self.prompts_left = left;
        let password = CString::new(self.password.as_bytes()).map_err(|_| ErrorCode::CONV_ERR)?;
        self.asked = true;
        Ok(password)
    }

    fn text_info(&mut self, message: &CStr) {
        self.hear(message);
    }

    fn error_msg(&mut self, message: &CStr) {
        self.hear(message);
    }

    fn radio_prompt(&mut self, _prompt: &CStr) -> Result<bool, ErrorCode> {
        self.decline()
    }

    fn binary_prompt(&mut self, _kind: u8, _data: &[u8]) -> Result<(u8, Vec<u8>), ErrorCode> {
        self.decline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_given_as_often_as_allowed_and_no_more() {
        let password = Password::new("s3cret");
        let mut conversation = Conversation::new("alice", &password, 2);
        for _ in 0..2 {
            assert_eq!(conversation.prompt_echo_off(c"Password: "), Ok(c"s3cret".to_owned()));
        }
        assert!(conversation.asked && !conversation.asked_more);
        assert_eq!(conversation.prompt_echo_off(c"Code: "), Err(ErrorCode::CONV_ERR));
        assert!(conversation.asked_more);
    }

    #[test]
    fn nothing_but_name_and_password_is_given() {
        let password = Password::new("s3cret");
        let mut conversation = Conversation::new("alice", &password, 1);
        assert_eq!(conversation.prompt_echo_on(c"login: "), Ok(c"alice".to_owned()));
        assert_eq!(conversation.radio_prompt(c"Sure?"), Err(ErrorCode::CONV_ERR));
        assert_eq!(conversation.binary_prompt(1, b"key"), Err(ErrorCode::CONV_ERR));
        assert!(!conversation.asked && conversation.asked_more);
    }

    #[test]
    fn a_module_that_talks_without_end_fills_nothing() {
        let password = Password::new("s3cret");
        let mut conversation = Conversation::new("alice", &password, 1);
        for _ in 0..1_000 {
            conversation.error_msg(c"blah blah \xff\xfe");
        }
        assert!((MAX_TEXT_BYTES - 4..=MAX_TEXT_BYTES).contains(&conversation.text.len()));
    }
}
