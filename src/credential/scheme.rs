//! `Scheme`: the `{NAME}` in front of a stored password, parsed and printed.
//!
//! Names and aliases are Dovecot's (doc.dovecot.org, "Password Schemes"), compared without case. A name that is not
//! in the table is not an error here: the caller knows where it stood and who has to hear of it.

use core::fmt;
use core::str::FromStr;

use super::VerifierError;
use super::encoding::Encoding;

/// Longest text between braces that is taken for a name, and so shown in a message: it might be part of a password.
const MAX_NAME_BYTES: usize = 32;

/// A way to store a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// The password itself.
    Plain,
    /// State of the two MD5 computations of HMAC-MD5 after the key; as good as the password for CRAM-MD5.
    CramMd5,
    /// crypt(3) `$5$`.
    Sha256Crypt,
    /// crypt(3) `$6$`.
    Sha512Crypt,
    /// bcrypt, `$2y$`.
    BlfCrypt,
    /// Whatever crypt(3) makes; by default yescrypt, `$y$`.
    Crypt,
    /// Argon2i.
    Argon2i,
    /// Argon2id.
    Argon2id,
    /// SHA-256 over password and salt, once.
    Ssha256,
    /// SHA-512 over password and salt, once.
    Ssha512,
}

/// What one verification costs, and so where it may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Microseconds: may run on the thread that serves connections.
    Cheap,
    /// Milliseconds to seconds, and possibly much memory: belongs on a thread of its own.
    Expensive,
}

/// Other names for the same thing.
const ALIASES: &[(&str, Scheme)] =
    &[("CLEARTEXT", Scheme::Plain), ("CLEAR", Scheme::Plain), ("HMAC-MD5", Scheme::CramMd5)];

impl Scheme {
    /// All schemes, what new passwords should use first.
    pub const ALL: &[Self] = &[
        Self::Argon2id,
        Self::Argon2i,
        Self::Crypt,
        Self::BlfCrypt,
        Self::Sha512Crypt,
        Self::Sha256Crypt,
        Self::Ssha512,
        Self::Ssha256,
        Self::CramMd5,
        Self::Plain,
    ];

    /// The scheme of that name or alias, in any case; without braces and without `.b64` or the like.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let named = Self::ALL.iter().map(|&scheme| (scheme.name(), scheme));
        named
            .chain(ALIASES.iter().copied())
            .find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))
            .map(|(_, scheme)| scheme)
    }

    /// The canonical name, `SHA512-CRYPT`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Argon2id => "ARGON2ID",
            Self::Argon2i => "ARGON2I",
            Self::Crypt => "CRYPT",
            Self::BlfCrypt => "BLF-CRYPT",
            Self::Sha512Crypt => "SHA512-CRYPT",
            Self::Sha256Crypt => "SHA256-CRYPT",
            Self::Ssha512 => "SSHA512",
            Self::Ssha256 => "SSHA256",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
        }
    }

    /// How data is written behind this scheme when the name does not say. The length of a state tells hex from base64.
    fn encoding_of(self, data: &[u8]) -> Encoding {
        match self {
            Self::CramMd5 if data.len() == 64 => Encoding::Hex,
            Self::CramMd5 | Self::Ssha256 | Self::Ssha512 => Encoding::Base64,
            Self::Plain
            | Self::Sha256Crypt
            | Self::Sha512Crypt
            | Self::BlfCrypt
            | Self::Crypt
            | Self::Argon2i
            | Self::Argon2id => Encoding::Literal,
        }
    }

    /// What it costs to verify one password.
    #[must_use]
    pub fn cost(self) -> Cost {
        match self {
            Self::Plain | Self::CramMd5 | Self::Ssha256 | Self::Ssha512 => Cost::Cheap,
            Self::Sha256Crypt
            | Self::Sha512Crypt
            | Self::BlfCrypt
            | Self::Crypt
            | Self::Argon2i
            | Self::Argon2id => Cost::Expensive,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scheme {
    type Err = VerifierError;

    fn from_str(name: &str) -> Result<Self, VerifierError> {
        Self::from_name(name.as_bytes()).ok_or_else(|| VerifierError::UnknownScheme(name.to_owned()))
    }
}

/// `{SCHEME.encoding}data`, taken apart.
pub(super) struct Prefixed<'a> {
    pub(super) scheme: Scheme,
    pub(super) encoding: Encoding,
    pub(super) data: &'a [u8],
}

impl<'a> Prefixed<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, VerifierError> {
        let inside = text.strip_prefix(b"{").ok_or(VerifierError::NoScheme)?;
        let end = inside.iter().position(|&byte| byte == b'}').ok_or(VerifierError::UnclosedScheme)?;
        let (name, data) = (&inside[..end], &inside[end + 1..]);
        let name = showable(name).ok_or(VerifierError::NoScheme)?;
        let (name, suffix) = match name.bytes().position(|byte| byte == b'.') {
            Some(dot) => (&name[..dot], Some(&name[dot + 1..])),
            None => (name, None),
        };
        let scheme: Scheme = name.parse()?;
        let encoding = match suffix {
            Some(suffix) => Encoding::from_suffix(suffix.as_bytes())
                .ok_or_else(|| VerifierError::UnknownEncoding { scheme, encoding: suffix.to_owned() })?,
            None => scheme.encoding_of(data),
        };
        Ok(Self { scheme, encoding, data })
    }

    /// Whether the data goes on to the end of the field, whatever characters follow.
    pub(super) fn runs_to_the_end(&self) -> bool {
        self.scheme == Scheme::Plain && self.encoding == Encoding::Literal
    }
}

/// The text, if it can be a name.
fn showable(name: &[u8]) -> Option<&str> {
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if is_name { str::from_utf8(name).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_found_by_its_own_name_in_any_case() {
        for &scheme in Scheme::ALL {
            let name = scheme.name();
            assert_eq!(Scheme::from_name(name.to_ascii_lowercase().as_bytes()), Some(scheme));
            assert_eq!(name.parse::<Scheme>(), Ok(scheme));
        }
    }

    #[test]
    fn dovecots_aliases_are_known() {
        for (alias, scheme) in
            [("clear", Scheme::Plain), ("Cleartext", Scheme::Plain), ("hmac-md5", Scheme::CramMd5)]
        {
            assert_eq!(Scheme::from_name(alias.as_bytes()), Some(scheme));
        }
    }

    #[test]
    fn unknown_scheme_is_refused_by_name() {
        let error = "SHA3".parse::<Scheme>().expect_err("no such scheme");
        assert_eq!(error.to_string(), "unknown scheme {SHA3}");
    }
}
