//! `$5$` and `$6$`: SHA-crypt (Drepper, "Unix crypt using SHA-256 and SHA-512", 0.6).
//!
//! Rounds and salt are read as strictly as libxcrypt reads them. The hashing is the `sha-crypt` crate's; its own parser
//! is not used, because it takes rounds it does not like for a salt.

use sha_crypt::Params;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Flaw, alphabet, decimal, next_part};

/// Rounds when the text does not say.
const UNSAID_ROUNDS: u32 = 5_000;
/// Fewest rounds libxcrypt takes.
pub(in super::super) const MIN_ROUNDS: u32 = 1_000;
/// Most rounds accepted here: seconds, where the format would allow a hundred times as many.
pub(in super::super) const MAX_ROUNDS: u32 = 2_000_000;
/// Longest salt; libxcrypt never writes a longer one.
const MAX_SALT_BYTES: usize = 16;

/// Which SHA-2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Variant {
    Sha256,
    Sha512,
}

/// A parsed `$5$` or `$6$`.
pub(in super::super) struct ShaCrypt<'a> {
    variant: Variant,
    rounds: u32,
    salt: &'a [u8],
    /// In the order in which the text has it; SHA-256's leaves the second half zero.
    digest: [u8; 64],
}

impl<'a> ShaCrypt<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Flaw> {
        let (variant, digest_bytes) =
            if text.starts_with(b"$5$") { (Variant::Sha256, 32) } else { (Variant::Sha512, 64) };
        let mut rest = &text[3..];
        let mut salt = next_part(&mut rest);
        let mut rounds = UNSAID_ROUNDS;
        if let Some(digits) = salt.strip_prefix(b"rounds=") {
            rounds = match decimal(digits) {
                None | Some(..MIN_ROUNDS) => return Err(Flaw::Malformed("number of rounds")),
                Some(rounds @ MIN_ROUNDS..=MAX_ROUNDS) => rounds,
                Some(rounds) => {
                    return Err(Flaw::TooExpensive {
                        parameter: "number of rounds",
                        found: rounds.into(),
                        limit: MAX_ROUNDS.into(),
                    });
                }
            };
            salt = next_part(&mut rest);
        }
        if salt.len() > MAX_SALT_BYTES || !salt.iter().all(may_be_salt) {
            return Err(Flaw::Malformed("salt"));
        }
        let mut digest = [0; 64];
        match alphabet::decode(rest, &mut digest) {
            Some(length) if length == digest_bytes => Ok(Self { variant, rounds, salt, digest }),
            _ => Err(Flaw::Malformed("digest")),
        }
    }

    pub(super) fn is_sha256(&self) -> bool {
        self.variant == Variant::Sha256
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let computed = digest(self.variant, password, self.salt, self.rounds);
        computed.is_some_and(|computed| computed.ct_eq(&self.digest).into())
    }
}

/// A new hash. Six bits of each byte go into the salt. `None` if the rounds are out of range.
pub(in super::super) fn make(
    variant: Variant,
    password: &[u8],
    salt: &[u8; 16],
    rounds: u32,
) -> Option<Zeroizing<String>> {
    let salt: String = salt.iter().map(|&byte| alphabet::character(byte)).collect();
    let digest = digest(variant, password, salt.as_bytes(), rounds)?;
    let (id, length) = match variant {
        Variant::Sha256 => (5, 32),
        Variant::Sha512 => (6, 64),
    };
    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str(&format!("${id}$rounds={rounds}${salt}$"));
    alphabet::push(&digest[..length], &mut text);
    Some(text)
}

/// The digest in the order of the text: SHA-crypt writes thirds of it interleaved, turning by one each time.
fn digest(variant: Variant, password: &[u8], salt: &[u8], rounds: u32) -> Option<Zeroizing<[u8; 64]>> {
    let params = Params::new(rounds).ok()?;
    let mut ordered = Zeroizing::new([0; 64]);
    match variant {
        Variant::Sha256 => {
            let digest = Zeroizing::new(sha_crypt::sha256_crypt(password, salt, params));
            for (index, byte) in ordered[..30].iter_mut().enumerate() {
                let group = index / 3;
                *byte = digest[group + [20, 10, 0][(index + group) % 3]];
            }
            ordered[30..32].copy_from_slice(&digest[30..]);
        }
        Variant::Sha512 => {
            let digest = Zeroizing::new(sha_crypt::sha512_crypt(password, salt, params));
            for (index, byte) in ordered[..63].iter_mut().enumerate() {
                let group = index / 3;
                *byte = digest[group + [42, 21, 0][(index + 2 * group) % 3]];
            }
            ordered[63] = digest[63];
        }
    }
    Some(ordered)
}

/// Characters libxcrypt takes in a salt.
fn may_be_salt(character: &u8) -> bool {
    character.is_ascii_graphic() && !b"!*:;\\$".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "$5$0123456789abcdef$r6nzC5LUC0uVXFw52gWstJ181ms.XFW71j20yui2zG7";
    const SHA512: &str = "$6$0123456789abcdef$8CGkKDSyVpVlVNcs5PssRw/Tb8EgfecuA6D/zsRQFumJaU.s8KgTWWc2HfgkB7h2n1qIKiJFeSyUFrwvhILXy.";

    #[test]
    fn hashes_of_dovecot_verify() {
        for text in [SHA256, SHA512] {
            let hash = ShaCrypt::parse(text.as_bytes()).expect("valid");
            assert!(hash.matches(b"secret"), "{text}");
            assert!(!hash.matches(b"secreu"), "{text}");
        }
    }

    #[test]
    fn drepper_s_example_with_rounds_verifies() {
        let text = "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.";
        let hash = ShaCrypt::parse(text.as_bytes()).expect("valid");
        assert!(hash.matches(b"Hello world!"));
    }

    #[test]
    fn a_new_hash_reads_back_and_verifies() {
        for variant in [Variant::Sha256, Variant::Sha512] {
            let text = make(variant, b"secret", &[0xa7; 16], 1_000).expect("rounds in range");
            let hash = ShaCrypt::parse(text.as_bytes()).expect("valid");
            assert_eq!((hash.rounds, hash.salt), (1_000, &[b'b'; 16][..]));
            assert!(hash.matches(b"secret"));
        }
    }

    #[test]
    fn rounds_beyond_the_limit_are_refused_with_both_numbers() {
        let text = SHA256.replacen("$5$", "$5$rounds=2000001$", 1);
        let flaw = ShaCrypt::parse(text.as_bytes()).err().expect("too many");
        assert_eq!(flaw.to_string(), "number of rounds of 2000001 is above the limit of 2000000");
    }

    #[test]
    fn every_part_is_checked() {
        for (text, part) in [
            (SHA256.replacen("$5$", "$5$rounds=999$", 1), "number of rounds"),
            (SHA256.replacen("$5$", "$5$rounds=05000$", 1), "number of rounds"),
            (SHA256.replacen("$5$", "$5$rounds=99999999999$", 1), "number of rounds"),
            (SHA256.replacen("$5$", "$5$rounds=$", 1), "number of rounds"),
            (SHA256.replacen("0123", "01234", 1), "salt"),
            (SHA256.replacen("0123", "01;3", 1), "salt"),
            (SHA256.replacen("0123", "0 23", 1), "salt"),
            (format!("{SHA256}."), "digest"),
            (SHA256[..SHA256.len() - 1].to_owned(), "digest"),
            (SHA256.replacen("$5$", "$6$", 1), "digest"),
            (format!("{SHA512} "), "digest"),
            ("$5$".to_owned(), "digest"),
            ("$6$salt".to_owned(), "digest"),
        ] {
            let flaw = ShaCrypt::parse(text.as_bytes()).err();
            assert_eq!(flaw, Some(Flaw::Malformed(part)), "{text}");
        }
    }
}
