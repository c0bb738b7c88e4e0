//! One line of a secrets file: Dovecot's passwd-file format, `user:password:uid:gid:gecos:home:shell:extra fields`.
//!
//! Empty lines, lines with `#` in column 0 and lines that begin with `:` are no entries. Every other line is one, and
//! what is wrong with it costs that line alone. The extra fields are everything after the seventh colon, separated by
//! blanks, `name` or `name=value`. Of these `allow_nets` is enforced, and each restriction that sasld does not
//! implement closes the entry, because ignoring it would let somebody in whom the file keeps out; the rest changes
//! nothing and is only noted. No message repeats any part of a password field.

use memchr::{memchr, memchr_iter};
use thiserror::Error;

use super::nets::{Net, NetError};
use super::{Closed, escape};
use crate::credential::VerifierError;

/// Longest line taken for an entry, without its line end.
pub const MAX_LINE_BYTES: usize = 65_536;

/// Longest user name.
pub const MAX_NAME_BYTES: usize = 255;

/// The byte order mark some editors put at the start of a file.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// An extra field that restricts a login in a way sasld does not implement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are Dovecot's, and its documentation says what they do")]
pub enum Restriction {
    AllowRealNets,
    Noauthenticate,
    Fail,
    DelayUntil,
    LoginUser,
    Password,
}

impl Restriction {
    const ALL: [Self; 6] = [
        Self::AllowRealNets,
        Self::Noauthenticate,
        Self::Fail,
        Self::DelayUntil,
        Self::LoginUser,
        Self::Password,
    ];

    fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|restriction| restriction.name().as_bytes() == name)
    }

    /// What the field is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowRealNets => "allow_real_nets",
            Self::Noauthenticate => "noauthenticate",
            Self::Fail => "fail",
            Self::DelayUntil => "delay_until",
            Self::LoginUser => "login_user",
            Self::Password => "password",
        }
    }
}

/// The position of this colon-separated field and all behind it: the extra fields.
pub(super) const EXTRA_FIELDS: usize = 7;

/// An entry line cut at its colons, nothing judged yet.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub name: &'a [u8],
    /// `None` when the line holds nothing but a name.
    pub password: Option<&'a [u8]>,
    extra: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `line` comes without its line end.
    pub(super) fn split(line: &'a [u8]) -> Self {
        let name_length = name_length(line);
        let rest = line.get(name_length + 1..);
        let mut colons = memchr_iter(b':', rest.unwrap_or_default());
        let password_length = colons.next();
        let extra = colons.nth(EXTRA_FIELDS - 3);
        Self {
            name: &line[..name_length],
            password: rest.map(|rest| &rest[..password_length.unwrap_or(rest.len())]),
            extra: rest.zip(extra).map_or(&[], |(rest, colon)| &rest[colon + 1..]),
        }
    }
}

/// Where the name at the start of an entry line ends.
pub(super) fn name_length(line: &[u8]) -> usize {
    memchr(b':', line).unwrap_or(line.len())
}

/// What a readable entry says about its user, the password field read as a `V`.
pub(super) struct Terms<V> {
    pub verifiers: Option<V>,
    pub allow_nets: Option<Vec<Net>>,
    pub closed: Option<Closed>,
}

/// Whether this line, without its line end, is an entry at all.
pub(super) fn is_entry(line: &[u8]) -> bool {
    !matches!(line.first(), None | Some(b'#' | b':'))
}

/// Cuts the carriage return of a CRLF line end.
pub(super) fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A name as it may stand in the file.
///
/// # Errors
/// What is wrong with it: the whole line is broken then.
pub fn check_name(name: &[u8]) -> Result<&str, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    let name = str::from_utf8(name).map_err(|_| NameError::NotUtf8)?;
    if name.chars().any(char::is_control) {
        return Err(NameError::Control);
    }
    Ok(name)
}

/// Reads everything but the name of an entry line. `read` is [`Verifiers::parse`](crate::credential::Verifiers::parse)
/// or its cheaper sister that only checks; `unknown` hears the name of each extra field that means nothing here.
pub(super) fn parse_terms<V>(
    line: &[u8],
    read: impl FnOnce(&[u8]) -> Result<V, VerifierError>,
    mut unknown: impl FnMut(&[u8]),
) -> Result<Terms<V>, LineError> {
    if !is_entry(line) {
        return Err(LineError::NoEntry);
    }
    if line.len() > MAX_LINE_BYTES {
        return Err(LineError::TooLong { bytes: line.len() });
    }
    let fields = Fields::split(line);
    let mut terms = Terms { verifiers: None, allow_nets: None, closed: None };
    for field in fields.extra.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty()) {
        let (name, value) = match field.iter().position(|byte| *byte == b'=') {
            Some(at) => (&field[..at], &field[at + 1..]),
            None => (field, &field[field.len()..]),
        };
        // Dovecot 2.4 writes booleans as `nologin=y`. Any value closes, `nologin=no` too: a doubt keeps people out.
        if name == b"nologin" {
            terms.closed.get_or_insert(Closed::Nologin);
        } else if name == b"nopassword" {
            terms.closed.get_or_insert(Closed::Nopassword);
        } else if name == b"allow_nets" {
            if terms.allow_nets.is_some() {
                return Err(LineError::AllowNetsTwice);
            }
            terms.allow_nets = Some(Net::parse_list(&String::from_utf8_lossy(value))?);
        } else if let Some(restriction) = Restriction::from_name(name) {
            terms.closed.get_or_insert(Closed::UnsupportedRestriction(restriction));
        } else if !name.starts_with(b"userdb_") {
            unknown(name);
        }
    }
    match fields.password {
        None | Some(b"") => {
            terms.closed.get_or_insert(Closed::NoPassword);
        }
        Some(field) => terms.verifiers = Some(read(field)?),
    }
    Ok(terms)
}

/// Why a name cannot stand in a secrets file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum NameError {
    #[error("the user name is empty")]
    Empty,
    #[error("the user name has {bytes} bytes, {MAX_NAME_BYTES} are allowed")]
    TooLong { bytes: usize },
    #[error("the user name is not UTF-8")]
    NotUtf8,
    #[error("the user name contains a control character")]
    Control,
}

/// Why a line whose name could be read is broken.
#[derive(Debug, Error)]
pub(super) enum LineError {
    #[error("not an entry")]
    NoEntry,
    #[error("the line has {bytes} bytes, {MAX_LINE_BYTES} are allowed")]
    TooLong { bytes: usize },
    #[error("{}", escape(.0.to_string().as_bytes()))]
    Verifier(#[from] VerifierError),
    #[error("allow_nets: {0}")]
    AllowNets(#[from] NetError),
    #[error("allow_nets is given twice")]
    AllowNetsTwice,
}

/// The note about an extra field that means nothing to sasld.
pub(super) fn unknown_field(name: &[u8]) -> String {
    format!("extra field {} means nothing to sasld; it is kept but has no effect", escape(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Verifiers;

    fn terms(line: &str) -> Terms<Verifiers> {
        parse_terms(line.as_bytes(), Verifiers::parse, |_| ()).unwrap()
    }

    fn error(line: &str) -> String {
        parse_terms(line.as_bytes(), Verifiers::check, |_| ()).err().unwrap().to_string()
    }

    #[test]
    fn the_fields_between_password_and_extra_fields_mean_nothing() {
        let terms = terms("alice:{PLAIN}x:1000:1000:Alice nologin:/home/alice:/bin/sh:userdb_quota=1");
        assert!(terms.closed.is_none());
        assert!(terms.verifiers.is_some());
    }

    #[test]
    fn extra_fields_keep_their_colons() {
        let terms = terms("alice:{PLAIN}x:::::: allow_nets=2001:db8::/32,192.0.2.1");
        assert_eq!(terms.allow_nets, Some(Net::parse_list("2001:db8::/32,192.0.2.1").unwrap()));
    }

    #[test]
    fn each_restriction_closes_in_each_of_its_forms() {
        for (field, expected) in [
            ("nologin", Closed::Nologin),
            ("nologin=y", Closed::Nologin),
            ("nologin=", Closed::Nologin),
            ("nopassword", Closed::Nopassword),
            ("allow_real_nets=192.0.2.0/24", Closed::UnsupportedRestriction(Restriction::AllowRealNets)),
            ("noauthenticate", Closed::UnsupportedRestriction(Restriction::Noauthenticate)),
            ("fail=yes", Closed::UnsupportedRestriction(Restriction::Fail)),
            ("delay_until=1+2", Closed::UnsupportedRestriction(Restriction::DelayUntil)),
            ("login_user=bob", Closed::UnsupportedRestriction(Restriction::LoginUser)),
            ("password=x", Closed::UnsupportedRestriction(Restriction::Password)),
        ] {
            assert_eq!(
                terms(&format!("alice:{{PLAIN}}x::::::a=b {field}")).closed,
                Some(expected),
                "{field}"
            );
        }
    }

    #[test]
    fn a_missing_password_closes() {
        for line in ["alice", "alice:", "alice::1000:1000", "alice:::::::userdb_x=y"] {
            assert_eq!(terms(line).closed, Some(Closed::NoPassword), "{line}");
        }
    }

    #[test]
    fn a_field_without_meaning_is_named_and_those_of_the_userdb_are_not() {
        let mut unknown = Vec::new();
        let line = b"alice:{PLAIN}x::::::user=bob userdb_mail=x nodelay nologin allow_nets=local";
        parse_terms(line, Verifiers::check, |field| unknown.push(field.to_vec())).unwrap();
        assert_eq!(unknown, [b"user".to_vec(), b"nodelay".to_vec()]);
    }

    #[test]
    fn broken_lines_say_why_and_never_what_is_stored() {
        for (line, expected) in [
            ("alice:hunter2", "no {SCHEME}"),
            ("alice:{PLAIN", "'{' without '}'"),
            ("alice:{FOO}hunter2", "unknown scheme {FOO}"),
            ("alice:{CRAM-MD5}hunter2", "CRAM-MD5: "),
            ("alice:{PLAIN}hunter2::::::allow_nets=192.0.2.0/33", "allow_nets: \"192.0.2.0/33\" is neither"),
            ("alice:{PLAIN}hunter2::::::allow_nets=local allow_nets=local", "allow_nets is given twice"),
            ("#alice", "not an entry"),
        ] {
            let reason = error(line);
            assert!(reason.contains(expected), "{line}: {reason}");
            assert!(!reason.contains("hunter2"), "{reason}");
        }
        assert!(
            error(&format!("alice:{{PLAIN}}{}", "x".repeat(MAX_LINE_BYTES))).contains("65536 are allowed")
        );
    }

    #[test]
    fn the_longest_line_is_still_an_entry() {
        let line = format!("a:{}", "x".repeat(MAX_LINE_BYTES - 2));
        assert!(parse_terms(line.as_bytes(), |_| Ok(()), |_| ()).is_ok());
        assert!(parse_terms(format!("{line}x").as_bytes(), |_| Ok(()), |_| ()).is_err());
    }

    #[test]
    fn the_note_about_a_field_names_it_fit_for_a_terminal() {
        let note = unknown_field(b"no\x1bdelay");
        assert_eq!(note, "extra field no\\u{1b}delay means nothing to sasld; it is kept but has no effect");
    }

    #[test]
    fn names_are_utf8_without_control_characters_and_not_endless() {
        assert_eq!(check_name("gr\u{fc}n ".as_bytes()), Ok("gr\u{fc}n "));
        assert_eq!(check_name(b""), Err(NameError::Empty));
        assert_eq!(check_name(b"a\x1b"), Err(NameError::Control));
        assert_eq!(check_name("a\u{85}".as_bytes()), Err(NameError::Control));
        assert_eq!(check_name(b"a\xff"), Err(NameError::NotUtf8));
        assert_eq!(check_name(&[b'a'; 255]).map(str::len), Ok(255));
        assert_eq!(check_name(&[b'a'; 256]), Err(NameError::TooLong { bytes: 256 }));
    }
}
