//! Dovecot's passwd-files: `name:password:uid:gid:gecos:home:shell:extra fields`, lines as sasld's own.
//!
//! All that stands behind the password is taken over as it is, because it may hold restrictions.

use super::{Foreign, Found, Stored};
use crate::credential::Scheme;

/// Reads the whole file. Broken lines are users who cannot be taken over.
pub(super) fn parse(text: &[u8], default_scheme: Option<Scheme>) -> Found {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    let users = lines.filter_map(|(index, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if matches!(line.first(), None | Some(b'#' | b':')) {
            return None;
        }
        let (name, password, rest) = split(line);
        let stored = password
            .map_or(Err("no password is stored".to_owned()), |password| interpret(password, default_scheme));
        Some(Foreign { line: Some(index + 1), name: name.to_vec(), stored, rest: Some(rest.to_vec()) })
    });
    Found { users: users.collect(), notes: Vec::new() }
}

/// Name, password, and the rest with its colon.
fn split(line: &[u8]) -> (&[u8], Option<&[u8]>, &[u8]) {
    let colon = |text: &[u8]| text.iter().position(|byte| *byte == b':');
    let Some(name_end) = colon(line) else { return (line, None, b"") };
    let behind = &line[name_end + 1..];
    let (password, rest) = behind.split_at(colon(behind).unwrap_or(behind.len()));
    (&line[..name_end], Some(password), rest)
}

fn interpret(password: &[u8], default_scheme: Option<Scheme>) -> Result<Stored, String> {
    match (password, default_scheme) {
        (b"", _) => Err("no password is stored".to_owned()),
        ([b'{', ..], _) => Stored::of_field(password),
        (_, Some(scheme)) => Stored::of_scheme(scheme, password),
        (_, None) => {
            Err("no {SCHEME} in front of the password; --default-scheme CRYPT reads it as Dovecot 2.3 does \
                          when nothing else is configured"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_with_its_line_and_the_rest_as_it_is() {
        let text = b"# c\nalice:{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU:1:2::/h::userdb_x=y nologin\r\n\n:x\nbob\n";
        let found = parse(text, None).users;
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].line, found[0].name.as_slice()), (Some(2), &b"alice"[..]));
        assert_eq!(found[0].rest.as_deref(), Some(&b":1:2::/h::userdb_x=y nologin"[..]));
        assert!(matches!(&found[0].stored, Ok(Stored::Field(field)) if field.starts_with(b"{SSHA256}")));
        assert_eq!(found[1].stored.as_ref().unwrap_err(), "no password is stored");
    }

    #[test]
    fn what_cannot_be_used_says_why_and_not_what_it_is() {
        for (password, reason) in [
            ("{SSHA}hunter2", "unknown scheme {SSHA}"),
            ("hunter2", "no {SCHEME}"),
            ("", "no password"),
            ("{MD5-CRYPT}$1$hunter2", "unknown scheme {MD5-CRYPT}"),
            ("{CRYPT}$1$hunter2$x", "MD5-CRYPT ($1$) is not supported"),
        ] {
            let error = interpret(password.as_bytes(), None).unwrap_err();
            assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_default_scheme_is_for_passwords_without_one() {
        let plain = interpret(b"pw", Some(Scheme::Plain)).unwrap();
        assert!(matches!(plain, Stored::Plain(password) if password.as_bytes() == b"pw"));
        let hash = b"$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
        assert!(
            matches!(interpret(hash, Some(Scheme::Crypt)), Ok(Stored::Field(field)) if field.starts_with(b"{CRYPT}$2y$"))
        );
        assert!(matches!(interpret(b"{CLEAR}pw", Some(Scheme::Crypt)), Ok(Stored::Plain(_))));
    }
}
