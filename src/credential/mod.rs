//! Passwords, and what is stored to check them.
//!
//! `Password` is what a client offers, [`Verifier`] what is stored for a user in one scheme, [`Verifiers`] the password
//! field of a user's line, [`CramMd5Key`] what CRAM-MD5 needs instead of a password; [`derive()`] makes new verifiers. Whoever checks one against the
//! other gets a [`Proof`] or nothing; there is no other way to come by a proof.
//!
//! Everything here is arithmetic: no files, no clock, no random source. A wrong password is `None`, never an error; a
//! text that cannot be used is a [`VerifierError`], found when it is parsed and told to whoever keeps the file. Secrets
//! are wiped when dropped and appear in no `Debug` and no message.
#![forbid(unsafe_code)]

mod cram_md5;
mod derive;
mod encoding;
mod error;
mod field;
mod hash;
mod scheme;
mod verify;

use core::fmt;

use zeroize::Zeroizing;

pub use cram_md5::CramMd5Key;
pub use derive::{DeriveError, derive};
pub use error::VerifierError;
pub use field::Verifiers;
pub use hash::Flaw;
pub use scheme::{Cost, Scheme};
pub use verify::Verifier;

/// Longest password that can ever be right, in bytes. The cost of some hashes grows with the password.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// A password as bytes, in no particular character set. Wiped on drop.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes over; they are wiped with this value.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The password itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// An empty password is never right.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Length in bytes, not characters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this could be anybody's password: not empty, at most [`MAX_PASSWORD_BYTES`], and without NUL, where the
    /// C libraries that made most hashes stop reading (bcrypt would take `a\0a` for `a`).
    #[must_use]
    pub fn is_possible(&self) -> bool {
        (1..=MAX_PASSWORD_BYTES).contains(&self.len()) && !self.0.contains(&0)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// Proof that a secret was checked and was right. Only this folder can make one from a verifier, and only
/// `passdb::pam` has another source.
#[must_use]
#[derive(Debug)]
pub struct Proof(());

impl Proof {
    /// `Some` exactly if the check said yes.
    fn given(right: impl Into<bool>) -> Option<Self> {
        right.into().then_some(Self(()))
    }

    /// Somebody else checked it and said yes: for `passdb::pam`, which has looked at all that a PAM stack can get
    /// wrong, and for nobody besides.
    pub(crate) const fn vouched() -> Self {
        Self(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        assert_eq!(format!("{:?}", Password::new("secret")), "Password(***)");
    }

    #[test]
    fn empty_overlong_and_nul_passwords_are_impossible() {
        assert!(!Password::new("").is_possible());
        assert!(!Password::new(vec![b'x'; MAX_PASSWORD_BYTES + 1]).is_possible());
        assert!(!Password::new("a\0a").is_possible());
        assert!(Password::new(vec![0xff; MAX_PASSWORD_BYTES]).is_possible());
    }
}
