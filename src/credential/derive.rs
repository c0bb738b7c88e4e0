//! A password and a salt become a new verifier.
//!
//! The salt comes from the caller, who has a random source; every bit of it should be random, and it must never be used
//! twice. The costs chosen when none is given make a guess cost tens to hundreds of milliseconds, which a mail server
//! pays once per login. What cannot be derived is a [`DeriveError`] for whoever asked.

use core::ops::RangeInclusive;

use ::argon2::Algorithm;
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::hash::sha_crypt::{self, Variant};
use super::hash::{argon2, bcrypt, yescrypt};
use super::{CramMd5Key, Password, Scheme, Verifier};

/// Passes over 19 MiB, see `hash/argon2.rs`.
const ARGON2ID_PASSES: u32 = 2;
/// Argon2i needs more passes than Argon2id to resist trade-offs of memory for time (RFC 9106 §7.2).
const ARGON2I_PASSES: u32 = 4;
/// 2^12 rounds, what most software has settled on.
const BCRYPT_COST: u32 = 12;
/// What libxcrypt and Debian's `passwd` use: 16 MiB.
const YESCRYPT_COST: u32 = 5;
/// Twenty times the 5,000 of 2007, which brings a login to what the memory-hard ones take. Not more: the work also grows
/// with the password that is offered, to fifteen times as much at its longest, and anybody may offer one.
const SHA_CRYPT_ROUNDS: u32 = 100_000;

/// Why there is no new verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// Nothing to store.
    #[error("the password is empty")]
    EmptyPassword,
    /// Longer than any password that is ever accepted, or with a NUL in it.
    #[error("a password has at most 1024 bytes and no NUL among them")]
    ImpossiblePassword,
    /// A cost for a scheme that has none.
    #[error("{scheme} has no cost to choose")]
    NoCost {
        /// The scheme asked for.
        scheme: Scheme,
    },
    /// A cost that is not accepted.
    #[error("the cost of {scheme} is a number from {least} to {most}")]
    CostOutOfRange {
        /// The scheme asked for.
        scheme: Scheme,
        /// Smallest cost.
        least: u32,
        /// Largest cost.
        most: u32,
    },
}

impl Scheme {
    /// The costs [`derive()`] takes: passes for Argon2, rounds for SHA-crypt, the logarithm of the rounds for bcrypt,
    /// libxcrypt's scale for CRYPT (which makes yescrypt). `None` for schemes without one.
    #[must_use]
    pub fn costs(self) -> Option<RangeInclusive<u32>> {
        match self {
            Self::Argon2i | Self::Argon2id => Some(1..=argon2::MAX_NEW_PASSES),
            Self::Crypt => Some(yescrypt::MIN_COST..=yescrypt::MAX_COST),
            Self::BlfCrypt => Some(bcrypt::MIN_COST..=bcrypt::MAX_COST),
            Self::Sha256Crypt | Self::Sha512Crypt => Some(sha_crypt::MIN_ROUNDS..=sha_crypt::MAX_ROUNDS),
            Self::Plain | Self::CramMd5 | Self::Ssha256 | Self::Ssha512 => None,
        }
    }
}

/// Makes a verifier. PLAIN and CRAM-MD5 use no salt, SHA-crypt uses six bits of each byte. Of a long password bcrypt
/// takes the first 72 bytes, and libxcrypt refuses to check more than 511 in any scheme.
///
/// # Errors
/// See [`DeriveError`].
pub fn derive(
    scheme: Scheme,
    password: &Password,
    salt: &[u8; 16],
    cost: Option<u32>,
) -> Result<Verifier, DeriveError> {
    if password.is_empty() {
        return Err(DeriveError::EmptyPassword);
    }
    if !password.is_possible() {
        return Err(DeriveError::ImpossiblePassword);
    }
    if cost.is_some() && scheme.costs().is_none() {
        return Err(DeriveError::NoCost { scheme });
    }
    let bytes = password.as_bytes();
    let verifier = |data: &[u8]| Ok(Verifier::new(scheme, data));
    let hashed = |text: Option<Zeroizing<String>>| match text {
        Some(text) => verifier(text.as_bytes()),
        None => Err(out_of_range(scheme)),
    };
    let cost = |default| cost.unwrap_or(default);
    match scheme {
        Scheme::Plain => verifier(bytes),
        Scheme::CramMd5 => verifier(&*CramMd5Key::from_password(password).to_state()),
        Scheme::Ssha256 => verifier(&salted::<Sha256>(bytes, salt)),
        Scheme::Ssha512 => verifier(&salted::<Sha512>(bytes, salt)),
        Scheme::Sha256Crypt => hashed(sha_crypt::make(Variant::Sha256, bytes, salt, cost(SHA_CRYPT_ROUNDS))),
        Scheme::Sha512Crypt => hashed(sha_crypt::make(Variant::Sha512, bytes, salt, cost(SHA_CRYPT_ROUNDS))),
        Scheme::BlfCrypt => hashed(bcrypt::make(bytes, salt, cost(BCRYPT_COST))),
        Scheme::Crypt => hashed(yescrypt::make(bytes, salt, cost(YESCRYPT_COST))),
        Scheme::Argon2i => hashed(argon2::make(Algorithm::Argon2i, bytes, salt, cost(ARGON2I_PASSES))),
        Scheme::Argon2id => hashed(argon2::make(Algorithm::Argon2id, bytes, salt, cost(ARGON2ID_PASSES))),
    }
}

/// The digest of password and salt, followed by the salt.
fn salted<D: Digest>(password: &[u8], salt: &[u8]) -> Zeroizing<Vec<u8>> {
    let digest = D::new().chain_update(password).chain_update(salt).finalize();
    let mut data = Zeroizing::new(Vec::with_capacity(digest.len() + salt.len()));
    data.extend_from_slice(&digest);
    data.extend_from_slice(salt);
    data
}

fn out_of_range(scheme: Scheme) -> DeriveError {
    match scheme.costs() {
        Some(costs) => DeriveError::CostOutOfRange { scheme, least: *costs.start(), most: *costs.end() },
        None => DeriveError::NoCost { scheme },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 16] = *b"sixteen salted b";

    /// The smallest cost, so that the tests are about the text and not about patience.
    fn least(scheme: Scheme) -> Option<u32> {
        scheme.costs().map(|costs| *costs.start())
    }

    #[test]
    fn every_scheme_makes_what_it_reads_and_verifies() {
        for &scheme in Scheme::ALL {
            let made = derive(scheme, &Password::new("p\u{e4}ss"), &SALT, least(scheme)).expect("possible");
            let text = made.encode();
            let read = Verifier::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", *text));
            assert_eq!(read.scheme(), scheme);
            assert!(read.verify(&Password::new("p\u{e4}ss")).is_some(), "{}", *text);
            assert!(read.verify(&Password::new("pass")).is_none(), "{}", *text);
        }
    }

    #[test]
    fn default_costs_are_in_range_and_the_limits_of_parsing_are_those_of_deriving() {
        for (scheme, default) in [
            (Scheme::Argon2id, ARGON2ID_PASSES),
            (Scheme::Argon2i, ARGON2I_PASSES),
            (Scheme::Crypt, YESCRYPT_COST),
            (Scheme::BlfCrypt, BCRYPT_COST),
            (Scheme::Sha512Crypt, SHA_CRYPT_ROUNDS),
            (Scheme::Sha256Crypt, SHA_CRYPT_ROUNDS),
        ] {
            let costs = scheme.costs().expect("has a cost");
            assert!(costs.contains(&default), "{scheme}");
        }
    }

    #[test]
    fn another_salt_makes_another_verifier_where_there_is_a_salt() {
        for &scheme in Scheme::ALL {
            let made = |salt| {
                derive(scheme, &Password::new("secret"), salt, least(scheme)).expect("possible").encode()
            };
            let salted = !matches!(scheme, Scheme::Plain | Scheme::CramMd5);
            assert_eq!(*made(&SALT) != *made(b"another salt ..."), salted, "{scheme}");
        }
    }

    #[test]
    fn no_scheme_stores_an_impossible_password() {
        for &scheme in Scheme::ALL {
            let error = |password: &str| derive(scheme, &Password::new(password), &SALT, None).err();
            assert_eq!(error(""), Some(DeriveError::EmptyPassword));
            assert_eq!(error("a\0a"), Some(DeriveError::ImpossiblePassword));
            assert_eq!(error(&"p".repeat(1025)), Some(DeriveError::ImpossiblePassword));
        }
    }

    #[test]
    fn a_cost_out_of_range_is_refused_with_the_range() {
        for &scheme in Scheme::ALL {
            let error = |cost| derive(scheme, &Password::new("secret"), &SALT, Some(cost)).err();
            let expected = out_of_range(scheme);
            assert_eq!(error(0), Some(expected), "{scheme}");
            assert_eq!(error(u32::MAX), Some(expected), "{scheme}");
        }
        let range = "the cost of BLF-CRYPT is a number from 4 to 15";
        assert_eq!(out_of_range(Scheme::BlfCrypt).to_string(), range);
        assert_eq!(out_of_range(Scheme::Plain).to_string(), "PLAIN has no cost to choose");
    }
}
