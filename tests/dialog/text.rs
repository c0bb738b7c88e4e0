//! The text of one line of a dialog: escapes, placeholders, and how they become bytes or match bytes.
//!
//! `\t \n \r \0 \\ \{ \} \xNN` are escapes, `{…}` a placeholder; the list is in `protocol-fixtures/README.md`.
//! An unknown escape or placeholder is an error when the file is read, not when the dialog is replayed.

use std::collections::HashMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;

use super::{NEEDS_TLS, REFUSED, Subject};

/// The text of a line, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    /// `{base64 …}`
    Base64(Line),
    /// `{repeat N …}`
    Repeat(usize, Line),
    /// `{first N …}`
    First(usize, Line),
    /// `{upper …}`
    Upper(Line),
    /// `{digest PASSWORD}`: the hex HMAC-MD5 over the challenge of this line's request
    Digest(Line),
    /// `{1..1000}`: stands for that many lines
    Range(u32, u32),
    /// `{refused}` and `{needs-tls}`: a field with this reason from sasld, nothing from Dovecot
    Reason(&'static str),
    /// `{digits}`
    Digits,
    /// `{cookie}`
    Cookie,
    /// `{challenge}`
    Challenge,
}

/// Challenges seen on one connection, by request id.
pub type Challenges = HashMap<Vec<u8>, Vec<u8>>;

impl Line {
    /// Reads a line as written in a dialog.
    ///
    /// # Errors
    /// What is wrong, for the author of the dialog.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let line = Self::parse_until(&mut rest, false)?;
        Ok(line)
    }

    /// Reads up to the end, or to the `}` that closes a placeholder.
    fn parse_until(rest: &mut &str, inside: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut bytes = Vec::new();
        while let Some(c) = rest.chars().next() {
            let tail = &rest[c.len_utf8()..];
            match c {
                '\\' => bytes.push(escape(rest)?),
                '{' => {
                    *rest = tail;
                    if !bytes.is_empty() {
                        pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                    }
                    pieces.push(placeholder(rest)?);
                }
                '}' if inside => break,
                '}' => return Err("a lone `}`; write it `\\}`".into()),
                _ => {
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    *rest = tail;
                }
            }
        }
        if !bytes.is_empty() {
            pieces.push(Piece::Bytes(bytes));
        }
        Ok(Self(pieces))
    }

    /// One line for each number of a `{1..1000}` in it, or just the line.
    pub fn unrolled(self) -> Vec<Self> {
        let Some((from, to)) = self.0.iter().find_map(|piece| match piece {
            Piece::Range(from, to) => Some((*from, *to)),
            _ => None,
        }) else {
            return vec![self];
        };
        let number = |n: u32| {
            let pieces = self.0.iter().map(|piece| match piece {
                Piece::Range(..) => Piece::Bytes(n.to_string().into_bytes()),
                other => other.clone(),
            });
            Self(pieces.collect())
        };
        (from..=to).map(number).collect()
    }

    /// Whether the line starts with these bytes, before any placeholder.
    pub fn starts_with(&self, start: &[u8]) -> bool {
        matches!(self.0.first(), Some(Piece::Bytes(bytes)) if bytes.starts_with(start))
    }

    /// Whether `{refused}` or `{needs-tls}` occurs in it.
    pub fn has_reason(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Reason(_)))
    }

    /// The bytes the client sends for this line, without the LF.
    ///
    /// # Errors
    /// When it needs a challenge that has not been seen, or has a placeholder for server lines.
    pub fn bytes(&self, challenges: &Challenges) -> Result<Vec<u8>, String> {
        let challenge = self.request_id().and_then(|id| challenges.get(id));
        self.expand(challenge.map(Vec::as_slice))
    }

    fn expand(&self, challenge: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Base64(line) => {
                    out.extend_from_slice(BASE64_STANDARD.encode(line.expand(challenge)?).as_bytes());
                }
                Piece::Repeat(times, line) => out.extend_from_slice(&line.expand(challenge)?.repeat(*times)),
                Piece::First(count, line) => {
                    let all = line.expand(challenge)?;
                    out.extend_from_slice(&all[..all.len().min(*count)]);
                }
                Piece::Upper(line) => out.extend_from_slice(&line.expand(challenge)?.to_ascii_uppercase()),
                Piece::Digest(password) => {
                    let challenge = challenge.ok_or("no {challenge} was received for this request id")?;
                    out.extend_from_slice(digest(&password.expand(None)?, challenge).as_bytes());
                }
                Piece::Range(..) | Piece::Reason(_) | Piece::Digits | Piece::Cookie | Piece::Challenge => {
                    return Err("a placeholder for server lines in bytes to send".into());
                }
            }
        }
        Ok(out)
    }

    /// Whether the server's line is this one. Remembers a challenge.
    pub fn matches(&self, actual: &[u8], subject: Subject, challenges: &mut Challenges) -> bool {
        let mut rest = actual;
        for piece in &self.0 {
            let taken = match piece {
                Piece::Digits => {
                    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                    (1..=10).contains(&count).then_some(count)
                }
                Piece::Cookie => {
                    let hex = |b: &&u8| b.is_ascii_digit() || (b'a'..=b'f').contains(*b);
                    (rest.iter().take(32).filter(hex).count() == 32).then_some(32)
                }
                Piece::Challenge => self.take_challenge(rest, challenges),
                Piece::Reason(_) if subject == Subject::Dovecot => Some(0),
                Piece::Reason(reason) => {
                    let field = format!("\treason={reason}");
                    rest.starts_with(field.as_bytes()).then_some(field.len())
                }
                other => Self(vec![other.clone()])
                    .expand(None)
                    .ok()
                    .and_then(|bytes| rest.starts_with(&bytes).then_some(bytes.len())),
            };
            match taken {
                Some(count) => rest = &rest[count..],
                None => return false,
            }
        }
        rest.is_empty()
    }

    /// A CRAM-MD5 challenge to the end of the line: base64 of `<…@…>`, printable and short (RFC 2195 §2).
    fn take_challenge(&self, rest: &[u8], challenges: &mut Challenges) -> Option<usize> {
        let challenge = BASE64_STANDARD.decode(rest).ok()?;
        let shaped = challenge.starts_with(b"<")
            && challenge.ends_with(b">")
            && challenge.contains(&b'@')
            && challenge.iter().all(u8::is_ascii_graphic)
            && rest.len() < 512;
        if !shaped || challenges.values().any(|seen| *seen == challenge) {
            return None;
        }
        challenges.insert(self.request_id()?.to_vec(), challenge);
        Some(rest.len())
    }

    /// The second field: the request id of CONT, OK, FAIL.
    fn request_id(&self) -> Option<&[u8]> {
        match self.0.first() {
            Some(Piece::Bytes(bytes)) => bytes.split(|b| *b == b'\t').nth(1),
            _ => None,
        }
    }
}

/// Takes one escape sequence from the front.
fn escape(rest: &mut &str) -> Result<u8, String> {
    let after = &rest[1..];
    let (byte, length) = match after.chars().next() {
        Some('t') => (b'\t', 1),
        Some('n') => (b'\n', 1),
        Some('r') => (b'\r', 1),
        Some('0') => (0, 1),
        Some(c @ ('\\' | '{' | '}')) => (c as u8, 1),
        Some('x') => {
            let digits = after.get(1..3).ok_or("`\\x` needs two digits")?;
            let byte =
                u8::from_str_radix(digits, 16).map_err(|_| format!("`\\x{digits}` is not hexadecimal"))?;
            (byte, 3)
        }
        other => return Err(format!("unknown escape `\\{}`", other.unwrap_or(' '))),
    };
    *rest = &after[length..];
    Ok(byte)
}

/// Reads a placeholder after its `{`, up to and with its `}`.
fn placeholder(rest: &mut &str) -> Result<Piece, String> {
    let end = rest.find([' ', '}']).ok_or("a `{` that is never closed; write it `\\{`")?;
    let name = &rest[..end];
    *rest = &rest[end..];
    let argument = |rest: &mut &str| -> Result<Line, String> {
        *rest = rest.strip_prefix(' ').unwrap_or(rest);
        Line::parse_until(rest, true)
    };
    let piece = match name {
        "refused" => Piece::Reason(REFUSED),
        "needs-tls" => Piece::Reason(NEEDS_TLS),
        "digits" => Piece::Digits,
        "cookie" => Piece::Cookie,
        "challenge" => Piece::Challenge,
        "base64" => Piece::Base64(argument(rest)?),
        "upper" => Piece::Upper(argument(rest)?),
        "digest" => Piece::Digest(argument(rest)?),
        "repeat" => Piece::Repeat(count(rest)?, argument(rest)?),
        "first" => Piece::First(count(rest)?, argument(rest)?),
        "cram" => {
            let text = rest.trim_start_matches(' ');
            let blank = text.find(' ').ok_or("`{cram USER PASSWORD}` has a blank between the two")?;
            let user = text.as_bytes()[..blank].to_vec();
            *rest = &text[blank..];
            let response =
                vec![Piece::Bytes(user), Piece::Bytes(b" ".to_vec()), Piece::Digest(argument(rest)?)];
            Piece::Base64(Line(response))
        }
        _ => match name.split_once("..").map(|(from, to)| (from.parse(), to.parse())) {
            Some((Ok(from), Ok(to))) => Piece::Range(from, to),
            _ => return Err(format!("unknown placeholder `{{{name}}}`")),
        },
    };
    *rest =
        rest.strip_prefix('}').ok_or_else(|| format!("`{{{name}` is not closed, or takes no argument"))?;
    Ok(piece)
}

/// The number in `{repeat 3 x}`.
fn count(rest: &mut &str) -> Result<usize, String> {
    let text = rest.trim_start_matches(' ');
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number = text[..digits].parse().map_err(|_| "a number is missing".to_owned())?;
    *rest = &text[digits..];
    Ok(number)
}

/// HMAC-MD5 in lower-case hex (RFC 2195 §2).
fn digest(password: &[u8], challenge: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut mac = Hmac::<Md5>::new_from_slice(password).expect("HMAC takes a key of any length");
    mac.update(challenge);
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes everything");
        hex
    })
}
