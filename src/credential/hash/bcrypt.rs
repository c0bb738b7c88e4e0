//! `$2y$`, and `$2a$` and `$2b$`, which mean the same unless the C library had a bug.
//!
//! Always 60 characters: cost as two digits, 22 of salt, 31 of digest. Only the first 72 bytes of a password count, here
//! as in C, so that hashes can go from one to the other.

use ::bcrypt::BASE_64;
use base64::Engine;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Flaw;

/// Smallest cost the algorithm knows.
pub(in super::super) const MIN_COST: u32 = 4;
/// Largest cost accepted here, 2^15 rounds: seconds.
pub(in super::super) const MAX_COST: u32 = 15;

/// Bytes of the password that count.
const MAX_KEY_BYTES: usize = 72;
/// The 24th byte is computed and never written.
const DIGEST_BYTES: usize = 23;

/// A parsed `$2…$`.
pub(in super::super) struct Bcrypt {
    cost: u32,
    salt: [u8; 16],
    digest: [u8; DIGEST_BYTES],
}

impl Bcrypt {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Flaw> {
        let [b'$', b'2', _, b'$', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'$', rest @ ..] = text else {
            return Err(Flaw::Malformed("cost"));
        };
        let cost = u32::from(tens - b'0') * 10 + u32::from(ones - b'0');
        if cost < MIN_COST {
            return Err(Flaw::Malformed("cost"));
        }
        if cost > MAX_COST {
            return Err(Flaw::TooExpensive { parameter: "cost", found: cost.into(), limit: MAX_COST.into() });
        }
        let (salt, digest) = rest.split_at_checked(22).ok_or(Flaw::Malformed("salt"))?;
        Ok(Self {
            cost,
            salt: decoded(salt).ok_or(Flaw::Malformed("salt"))?,
            digest: decoded(digest).ok_or(Flaw::Malformed("digest"))?,
        })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        digest(password, &self.salt, self.cost).ct_eq(&self.digest).into()
    }
}

/// A new hash. `None` if the cost is out of range.
pub(in super::super) fn make(password: &[u8], salt: &[u8; 16], cost: u32) -> Option<Zeroizing<String>> {
    if !(MIN_COST..=MAX_COST).contains(&cost) {
        return None;
    }
    let mut text = Zeroizing::new(String::with_capacity(60));
    text.push_str(&format!("$2y${cost:02}$"));
    BASE_64.encode_string(salt, &mut text);
    BASE_64.encode_string(digest(password, salt, cost).as_slice(), &mut text);
    Some(text)
}

fn digest(password: &[u8], salt: &[u8; 16], cost: u32) -> Zeroizing<[u8; DIGEST_BYTES]> {
    // The NUL behind the password belongs to the key, if there is room for it.
    let mut key = Zeroizing::new([0; MAX_KEY_BYTES]);
    let counts = password.len().min(MAX_KEY_BYTES);
    key[..counts].copy_from_slice(&password[..counts]);
    let key = &key[..(counts + 1).min(MAX_KEY_BYTES)];

    let whole = Zeroizing::new(::bcrypt::bcrypt(cost, *salt, key));
    let mut digest = Zeroizing::new([0; DIGEST_BYTES]);
    digest.copy_from_slice(&whole[..DIGEST_BYTES]);
    digest
}

/// Exactly `N` bytes, and no bits left over.
fn decoded<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let length = BASE_64.decode_slice(text, &mut bytes).ok()?;
    (length == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

    #[test]
    fn a_hash_of_dovecot_verifies_whatever_its_letter() {
        for letter in ["a", "b", "y"] {
            let text = SECRET.replacen('y', letter, 1);
            let hash = Bcrypt::parse(text.as_bytes()).expect("valid");
            assert!(hash.matches(b"secret"), "{text}");
            assert!(!hash.matches(b"secreu"), "{text}");
        }
    }

    #[test]
    fn bytes_after_the_72nd_do_not_count() {
        let text = make(&[b'p'; 72], &[7; 16], MIN_COST).expect("cost in range");
        let hash = Bcrypt::parse(text.as_bytes()).expect("valid");
        assert!(hash.matches(&[b'p'; 200]));
        assert!(!hash.matches(&[b'p'; 71]));
    }

    #[test]
    fn cost_15_is_accepted_and_16_refused_with_the_limit() {
        assert!(Bcrypt::parse(SECRET.replacen("05", "15", 1).as_bytes()).is_ok());
        let flaw = Bcrypt::parse(SECRET.replacen("05", "16", 1).as_bytes()).err();
        let limit = Flaw::TooExpensive { parameter: "cost", found: 16, limit: 15 };
        assert_eq!(flaw, Some(limit));
    }

    #[test]
    fn every_part_is_checked() {
        for (text, part) in [
            ("$2y$".to_owned(), "cost"),
            (SECRET.replacen("05", "5", 1), "cost"),
            (SECRET.replacen("05", "03", 1), "cost"),
            (SECRET.replacen("05", "+5", 1), "cost"),
            ("$2y$05$abc".to_owned(), "salt"),
            (SECRET.replacen("abc", "a-c", 1), "salt"),
            (SECRET.replacen("uu", "uv", 1), "salt"),
            (SECRET[..59].to_owned(), "digest"),
            (format!("{SECRET}a"), "digest"),
            (SECRET.replacen("l0a", "l0b", 1), "digest"),
        ] {
            let flaw = Bcrypt::parse(text.as_bytes()).err();
            assert_eq!(flaw, Some(Flaw::Malformed(part)), "{text}");
        }
    }
}
