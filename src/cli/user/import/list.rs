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
    let locked = matches!(field, b"*" | b"x" | [b'!', ..] | b"*LK*" | b"*NP*");
    if let Some(stored) = Stored::of_crypt(field) {
        return stored;
    }
    if text.starts_with(b"{") && default_scheme != Some(Scheme::Plain) {
        return Stored::of_field(field);
    }
    match default_scheme {
        _ if text.is_empty() => Err("no password is stored".to_owned()),
        Some(Scheme::Plain) => Stored::of_scheme(Scheme::Plain, text),
        Some(scheme) => Stored::of_scheme(scheme, field),
        None if locked => Err("no password is stored, or it is locked".to_owned()),
        None => Err(
            "neither {SCHEME} nor a hash of crypt(3); --default-scheme PLAIN says that it is the password \
                     itself"
                .to_owned(),
        ),
    }
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
        let error = interpret(b"$apr1$salt$hash", Some(Scheme::Plain)).unwrap_err();
        assert!(error.contains("not supported"), "{error}");
    }

    #[test]
    fn locked_and_empty_ones_are_named() {
        for text in ["", "*", "!", "!!", "x"] {
            assert!(interpret(text.as_bytes(), None).unwrap_err().starts_with("no password"), "{text}");
        }
    }
}
