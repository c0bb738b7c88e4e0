//! Slow hashes as text: crypt(3) strings and Argon2's.
//!
//! Each file reads one kind, checks a password against it and makes new ones. Parsing is strict, because a hash that
//! the C library could not have made never verifies and its owner should hear of it at load; and it bounds the cost,
//! because one line must not keep a processor or the memory busy. Nothing is hashed before everything is parsed.

mod alphabet;
pub(super) mod argon2;
pub(super) mod bcrypt;
pub(super) mod sha_crypt;
pub(super) mod yescrypt;

use self::argon2::Argon2;
use self::bcrypt::Bcrypt;
use self::sha_crypt::ShaCrypt;
use self::yescrypt::Yescrypt;
use super::Scheme;

/// Most memory one verification may use, in KiB.
pub(super) const MAX_MEMORY_KIB: u64 = 256 * 1024;

/// What is wrong with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Of a kind that sasld does not check.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// Of a known kind, but this part of it cannot be right.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Correct, but a login would cost more than anybody should pay.
    #[error("{parameter} of {found} is above the limit of {limit}")]
    TooExpensive {
        /// The parameter and its unit.
        parameter: &'static str,
        /// What the hash asks for.
        found: u64,
        /// What is allowed.
        limit: u64,
    },
}

/// A hash, parsed.
pub(super) enum Hash<'a> {
    Sha(ShaCrypt<'a>),
    Bcrypt(Bcrypt),
    Yescrypt(Yescrypt),
    Argon2(Argon2),
}

impl<'a> Hash<'a> {
    /// Reads what stands behind one of the slow schemes. Like Dovecot, goes by the text and not by the name: any of
    /// the crypt(3) schemes takes any crypt(3) string, either of Argon2's takes both.
    pub(super) fn parse(scheme: Scheme, text: &'a [u8]) -> Result<Self, Flaw> {
        if matches!(scheme, Scheme::Argon2i | Scheme::Argon2id) {
            return Argon2::parse(text).map(Self::Argon2);
        }
        match text {
            [b'$', b'5' | b'6', b'$', ..] => ShaCrypt::parse(text).map(Self::Sha),
            [b'$', b'2', b'a' | b'b' | b'y', b'$', ..] => Bcrypt::parse(text).map(Self::Bcrypt),
            [b'$', b'y', b'$', ..] => Yescrypt::parse(text).map(Self::Yescrypt),
            _ => Err(Flaw::Unsupported(kind_of(text))),
        }
    }

    /// Hashes the password and compares; the work does not depend on the outcome.
    ///
    /// # Panics
    /// If there is no memory for it: that says nothing about the password.
    pub(super) fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Sha(hash) => hash.matches(password),
            Self::Bcrypt(hash) => hash.matches(password),
            Self::Yescrypt(hash) => hash.matches(password),
            Self::Argon2(hash) => hash.matches(password),
        }
    }

    /// Rank among its like; what counts is how much of a guesser's hardware a guess keeps busy.
    pub(super) fn strength(&self) -> u8 {
        match self {
            Self::Sha(hash) if hash.is_sha256() => 0,
            Self::Sha(_) => 1,
            Self::Bcrypt(_) => 2,
            Self::Argon2(hash) if hash.is_argon2i() => 3,
            Self::Yescrypt(_) => 4,
            Self::Argon2(_) => 5,
        }
    }
}

/// What to call a crypt(3) string that cannot be checked.
fn kind_of(text: &[u8]) -> &'static str {
    const KINDS: &[(&[u8], &str)] = &[
        (b"$1$", "MD5-CRYPT ($1$)"),
        (b"$2x$", "bcrypt with the bug of 2011 ($2x$)"),
        (b"$3$", "NT-Hash ($3$)"),
        (b"$7$", "scrypt ($7$)"),
        (b"$gy$", "gost-yescrypt ($gy$)"),
        (b"$md5", "SunMD5 ($md5)"),
        (b"$sha1", "SHA1-CRYPT ($sha1)"),
        (b"$argon2", "Argon2 behind a crypt(3) scheme"),
        (b"_", "BSDi DES"),
        (b"!", "a locked password"),
        (b"*", "a locked password"),
    ];
    match KINDS.iter().find(|(prefix, _)| text.starts_with(prefix)) {
        Some((_, kind)) => kind,
        None if text.len() == 13 && !text.contains(&b'$') => "DES-CRYPT",
        None => "this kind of hash",
    }
}

/// Cuts the text at the next `$` and leaves what follows; the last part runs to the end.
fn next_part<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|&byte| byte == b'$').unwrap_or(text.len());
    let part = &text[..end];
    *text = text.get(end + 1..).unwrap_or_default();
    part
}

/// A decimal number as the C libraries write it: no sign, no leading zero.
fn decimal(digits: &[u8]) -> Option<u32> {
    let [b'1'..=b'9', others @ ..] = digits else {
        return None;
    };
    if !others.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_that_cannot_be_checked_are_named() {
        for (text, kind) in [
            ("$1$01234567$Ny7c34eheM1R0I3inzIJP.", "MD5-CRYPT ($1$)"),
            ("JB/pKOuhXodwA", "DES-CRYPT"),
            (
                "$7$CU..../....2Q9obwLhin8qvQl6sisAO/$E1HizYWxBmnIH4sdPkd1UOML9t62Gf.wvNTnt5XFzs8",
                "scrypt ($7$)",
            ),
            (
                "$2x$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
                "bcrypt with the bug of 2011 ($2x$)",
            ),
            ("!", "a locked password"),
            ("secret", "this kind of hash"),
        ] {
            let flaw = Hash::parse(Scheme::Crypt, text.as_bytes()).err();
            assert_eq!(flaw, Some(Flaw::Unsupported(kind)), "{text}");
        }
    }

    #[test]
    fn numbers_are_plain_decimals() {
        assert_eq!(decimal(b"4294967295"), Some(u32::MAX));
        for bad in ["", "0", "05", "+5", "-5", "5 ", "4294967296", "5x"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
