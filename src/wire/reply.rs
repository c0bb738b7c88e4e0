//! What we say to a mail server: the greeting, once, and a reply for each request.
//!
//! Everything is written into one buffer that leaves in one write: Postfix believes half a line that a dying server
//! left behind. The text of `reason=` reaches the remote user word for word, so it is one of the constants here and
//! never says anything about users, files or causes.

use super::command::RequestId;
use super::field::escape;
use super::{MAJOR_VERSION, MAX_REPLY_BYTES, MINOR_VERSION};
use crate::sasl::{Mechanism, Name};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::fmt;
use std::io::Write as _;

/// Said for every refusal about credentials, whatever its cause.
pub const REASON_REFUSED: &str = "Invalid user name or password";
/// Said when PLAIN or LOGIN are tried without TLS.
pub const REASON_NEEDS_TLS: &str = "This login needs an encrypted connection; switch on STARTTLS or SSL/TLS";
/// Said when an initial response is not base64; Dovecot's words.
pub const REASON_BASE64_INITIAL: &str = "Invalid base64 data in initial response";
/// Said when a later response is not base64; Dovecot's words.
pub const REASON_BASE64_CONTINUED: &str = "Invalid base64 data in continued response";
/// Said for a response to an exchange that is over or never was; Dovecot's words.
pub const REASON_TIMED_OUT: &str = "Authentication request timed out";
/// Said for a response that nobody asked for; Dovecot's words.
pub const REASON_UNEXPECTED: &str = "Unexpected continuation";

/// The server's half of the handshake, complete and in one piece.
///
/// MECH comes before SPID, or Postfix and Exim take this for another kind of socket; and all of it comes at once,
/// under 1,024 bytes, for the clients that wait for DONE or read only once.
#[derive(Clone, Copy)]
pub struct Greeting<'a> {
    /// What is offered, in this order; never empty.
    pub mechanisms: &'a [Mechanism],
    /// Our process id.
    pub pid: u32,
    /// This connection's number.
    pub connection: u32,
    /// 128 random bits.
    pub cookie: [u8; 16],
}

impl Greeting<'_> {
    /// Appends the greeting's lines.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(!self.mechanisms.is_empty(), "Config offers at least one mechanism");
        push(out, format_args!("VERSION\t{MAJOR_VERSION}\t{MINOR_VERSION}\n"));
        for mechanism in self.mechanisms {
            push(out, format_args!("MECH\t{mechanism}"));
            for flag in mechanism.flags() {
                push(out, format_args!("\t{flag}"));
            }
            out.push(b'\n');
        }
        let cookie = u128::from_be_bytes(self.cookie);
        push(
            out,
            format_args!("SPID\t{}\nCUID\t{}\nCOOKIE\t{cookie:032x}\nDONE\n", self.pid, self.connection),
        );
    }
}

/// One line for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A challenge; may be empty.
    Cont(RequestId, Vec<u8>),
    /// The user is who he says.
    Ok(RequestId, Name),
    /// He is not, or it could not be found out.
    Fail {
        /// Which request.
        id: RequestId,
        /// The name he gave, when it may be shown.
        user: Option<Box<str>>,
        /// What kind of failure, if not a refusal.
        code: Option<FailCode>,
        /// One of the constants of this module.
        reason: Option<&'static str>,
    },
    /// `FAIL` for id 0, which no request can have.
    FailZero,
    /// `CANCELLED`, for clients of minor version 4 and later.
    Cancelled(RequestId),
}

/// Dovecot's codes in a FAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailCode {
    /// No verdict; try again.
    TempFail,
    /// The response was not base64.
    InvalidBase64,
    /// The right password, and too old.
    PasswordExpired,
    /// The account may not be used any more.
    UserDisabled,
}

impl Reply {
    /// Appends the reply's line, at most [`MAX_REPLY_BYTES`] long.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::Cont(id, challenge) => {
                begin(out, "CONT", *id);
                out.push(b'\t');
                let written = out.len();
                out.resize(written + challenge.len().div_ceil(3) * 4, 0);
                let encoded = BASE64_STANDARD.encode_slice(challenge, &mut out[written..]);
                debug_assert_eq!(encoded, Ok(out.len() - written), "room for padded base64 was made");
            }
            Self::Ok(id, user) => {
                begin(out, "OK", *id);
                out.extend_from_slice(b"\tuser=");
                escape(user.as_str().as_bytes(), out);
            }
            Self::Fail { id, user, code, reason } => {
                begin(out, "FAIL", *id);
                if let Some(user) = user {
                    out.extend_from_slice(b"\tuser=");
                    escape(user.as_bytes(), out);
                }
                out.extend_from_slice(match code {
                    // The bare word is what clients from before Dovecot 2.3 look for.
                    Some(FailCode::TempFail) => b"\tcode=temp_fail\ttemp",
                    Some(FailCode::InvalidBase64) => b"\tcode=invalid_base64",
                    Some(FailCode::PasswordExpired) => b"\tcode=pass_expired",
                    Some(FailCode::UserDisabled) => b"\tcode=user_disabled",
                    None => b"",
                });
                if let Some(reason) = reason {
                    out.extend_from_slice(b"\treason=");
                    out.extend_from_slice(reason.as_bytes());
                }
            }
            Self::FailZero => push(out, format_args!("FAIL\t0\treason={REASON_TIMED_OUT}")),
            Self::Cancelled(id) => begin(out, "CANCELLED", *id),
        }
        out.push(b'\n');
        debug_assert!(out.len() - start <= MAX_REPLY_BYTES, "names and challenges are short");
    }
}

/// The first two fields, without the formatter, which takes three hundred instructions for them.
fn begin(out: &mut Vec<u8>, word: &str, id: RequestId) {
    out.extend_from_slice(word.as_bytes());
    out.push(b'\t');
    out.extend_from_slice(itoa::Buffer::new().format(id.get()).as_bytes());
}

fn push(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing into a Vec does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::NameRules;
    use crate::wire::Command;

    fn id(number: u32) -> RequestId {
        let line = format!("CANCEL\t{number}");
        match Command::parse(line.as_bytes()) {
            Ok(Command::Cancel(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    fn line(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_greeting_has_dovecots_lines_in_an_order_that_postfix_takes() {
        let mut out = Vec::new();
        Greeting { mechanisms: Mechanism::ALL, pid: 14632, connection: 12, cookie: [0xab; 16] }
            .encode(&mut out);
        let expected = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n\
             MECH\tCRAM-MD5\tdictionary\tactive\nSPID\t14632\nCUID\t12\n\
             COOKIE\tabababababababababababababababab\nDONE\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(expected.len() < 1024, "Radicale reads once");
    }

    #[test]
    fn an_empty_challenge_keeps_its_tab() {
        assert_eq!(line(&Reply::Cont(id(1), Vec::new())), "CONT\t1\t\n");
        assert_eq!(line(&Reply::Cont(id(1), b"Username:".to_vec())), "CONT\t1\tVXNlcm5hbWU6\n");
    }

    #[test]
    fn a_name_stays_one_field() {
        let alice = NameRules::default().canonical(b"alice").unwrap();
        assert_eq!(line(&Reply::Ok(id(4_294_967_295), alice)), "OK\t4294967295\tuser=alice\n");
        let user = Some("al\tice".into());
        let refusal = Reply::Fail { id: id(1), user, code: None, reason: None };
        assert_eq!(line(&refusal), "FAIL\t1\tuser=al\x01tice\n");
    }

    #[test]
    fn a_fail_says_user_code_and_reason_in_dovecots_order() {
        let fail = |user: Option<&str>, code, reason| {
            line(&Reply::Fail { id: id(1), user: user.map(Into::into), code, reason })
        };
        assert_eq!(fail(None, None, None), "FAIL\t1\n");
        assert_eq!(
            fail(Some("alice"), Some(FailCode::TempFail), None),
            "FAIL\t1\tuser=alice\tcode=temp_fail\ttemp\n"
        );
        assert_eq!(
            fail(None, Some(FailCode::InvalidBase64), Some(REASON_BASE64_INITIAL)),
            "FAIL\t1\tcode=invalid_base64\treason=Invalid base64 data in initial response\n"
        );
    }
}
