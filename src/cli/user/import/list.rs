//! Lists of `name:password`: Exim's lsearch files, Courier's, what chpasswd(8) reads, /etc/shadow, htpasswd.
//!
//! A string of crypt(3) is recognised, and so is `{SCHEME}`; both end at the next colon, and what follows is of no use
//! here. Anything else is only taken for a password if `--default-scheme PLAIN` says so, and then it may contain colons.
//! Blanks directly behind the first colon belong to nothing, as in Exim.

use super::{Foreign, Found, Stored};
use crate::credential::Scheme;

/// Reads the whole list. Lines that make no sense are users who cannot be taken over.
pub(super) fn parse(text: &[u8], default_scheme: Option<Scheme>) -> Found {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    let users = lines.filter_map(|(index, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            return None;
        }
        let name_end = line.iter().position(|byte| *byte == b':');
        let name = &line[..name_end.unwrap_or(line.len())];
        let stored = match name_end {
            Some(end) => interpret(line[end + 1..].trim_ascii_start(), default_scheme),
            None => Err("there is no colon behind the name".to_owned()),
        };
        Some(Foreign { line: Some(index + 1), name: name.trim_ascii_end().to_vec(), stored, rest: None })
    });
    Found { users: users.collect(), notes: Vec::new() }
}

/// What stands behind a name or in a cell: `{SCHEME}data`, a string of crypt(3), or what the default scheme says.
pub(super) fn interpret(text: &[u8], default_scheme: Option<Scheme>) -> Result<Stored, String> {
    let field = text.split(|byte| *byte == b':').next().unwrap_or_default();
    let plain = default_scheme == Some(Scheme::Plain);
    // A password may begin with `!`, but what stands there in /etc/shadow is none.
    let locked = match field {
        b"*" | b"x" | b"!" | b"!!" | b"*LK*" | b"*NP*" => true,
        [b'!', next, ..] => !plain || b"!$*{".contains(next),
        _ => false,
    };
    if let Some(stored) = Stored::of_crypt(field) {
        return stored;
    }
    if names_a_scheme(text) || text.starts_with(b"{") && !plain {
        return Stored::of_field(field);
    }
    match default_scheme {
        _ if text.is_empty() => Err("no password is stored".to_owned()),
        _ if locked => Err("no password is stored, or it is locked".to_owned()),
        Some(Scheme::Plain) => Stored::of_scheme(Scheme::Plain, text),
        Some(scheme) => Stored::of_scheme(scheme, field),
        None => Err(
            "neither {SCHEME} nor a hash of crypt(3); --default-scheme PLAIN says that it is the password \
                     itself"
                .to_owned(),
        ),
    }
}

/// Whether it begins like `{SSHA}`, known or not.
fn names_a_scheme(text: &[u8]) -> bool {
    let Some(end) = text.iter().position(|byte| *byte == b'}') else { return false };
    let name = text[..end].strip_prefix(b"{").unwrap_or_default();
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

    #[test]
    fn hashes_are_recognised_and_end_at_a_colon() {
        for line in [
            format!("a:{BCRYPT}"),
            format!("a: {BCRYPT}:19000:0:99999:7:::"),
            format!("a:{{CRYPT}}{BCRYPT}:1"),
        ] {
            let found = parse(line.as_bytes(), None).users;
            let expected = format!("{{CRYPT}}{BCRYPT}");
            assert!(
                matches!(&found[0].stored, Ok(Stored::Field(field)) if **field == *expected.as_bytes()),
                "{line}"
            );
        }
    }

    #[test]
    fn a_password_is_taken_for_one_only_on_request_and_may_hold_colons() {
        let error = interpret(b"hunter2:x", None).unwrap_err();
        assert!(error.contains("--default-scheme PLAIN") && !error.contains("hunter2"), "{error}");
        let found = parse(b"a: hunter2:x \n", Some(Scheme::Plain)).users;
        assert!(
            matches!(&found[0].stored, Ok(Stored::Plain(password)) if password.as_bytes() == b"hunter2:x ")
        );
    }

    #[test]
    fn a_hash_is_never_stored_as_a_password() {
        assert!(matches!(interpret(BCRYPT.as_bytes(), Some(Scheme::Plain)), Ok(Stored::Field(_))));
        for (text, expected) in [
            ("$apr1$salt$hash", "not supported"),
            ("{SSHA}8bX4JQDfZqtTfvnQ4ssDmWb17/FTQUxU", "unknown scheme {SSHA}"),
            ("{MD5-CRYPT}x", "unknown scheme"),
        ] {
            let error = interpret(text.as_bytes(), Some(Scheme::Plain)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        for password in ["{", "{}x", "{a b}", "!Summer", "**"] {
            assert!(
                matches!(interpret(password.as_bytes(), Some(Scheme::Plain)), Ok(Stored::Plain(_))),
                "{password}"
            );
        }
    }

    #[test]
    fn locked_and_empty_ones_are_named() {
        for text in ["", "*", "!", "!!", "x"] {
            assert!(interpret(text.as_bytes(), None).unwrap_err().starts_with("no password"), "{text}");
        }
        for text in ["", "*", "!", "x", "!$6$salt$hash", "*:19000:0:99999:7:::"] {
            let plain = interpret(text.as_bytes(), Some(Scheme::Plain));
            assert!(plain.unwrap_err().starts_with("no password"), "{text}");
        }
    }
}
