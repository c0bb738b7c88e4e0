//! `$y$`: yescrypt (openwall.com/yescrypt), what Debian puts into `/etc/shadow`.
//!
//! Takes the flavour that libxcrypt writes, with one lane and no extra time; those are the ones that occur. The other
//! ones are unsupported and said to be so.

use ::yescrypt::{Mode, Params};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Flaw, MAX_MEMORY_KIB, alphabet, next_part};

/// Largest block size accepted, in 128 bytes; libxcrypt's costs use 8 and 32.
const MAX_BLOCK_SIZE: u32 = 32;
/// libxcrypt writes all of its 32 bytes.
const DIGEST_BYTES: usize = 32;
/// Longest salt, in bytes (crypt(5)).
const MAX_SALT_BYTES: usize = 64;

/// Costs as libxcrypt counts them (crypt_gensalt(3)), up to the memory that is accepted here.
pub(in super::super) const MIN_COST: u32 = 1;
pub(in super::super) const MAX_COST: u32 = 9;

/// A parsed `$y$`.
pub(in super::super) struct Yescrypt {
    params: Params,
    salt: [u8; MAX_SALT_BYTES],
    salt_bytes: usize,
    digest: [u8; DIGEST_BYTES],
}

impl Yescrypt {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Flaw> {
        let mut rest = &text[3..];
        let params = parse_params(next_part(&mut rest))?;
        let mut salt = [0; MAX_SALT_BYTES];
        let salt_bytes = alphabet::decode(next_part(&mut rest), &mut salt).ok_or(Flaw::Malformed("salt"))?;
        let mut digest = [0; DIGEST_BYTES];
        match alphabet::decode(rest, &mut digest) {
            Some(DIGEST_BYTES) => Ok(Self { params, salt, salt_bytes, digest }),
            _ => Err(Flaw::Malformed("digest")),
        }
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let computed = digest(password, &self.salt[..self.salt_bytes], &self.params);
        computed.is_some_and(|computed| computed.ct_eq(&self.digest).into())
    }
}

/// A new hash at one of libxcrypt's costs. `None` if there is no such cost.
pub(in super::super) fn make(password: &[u8], salt: &[u8; 16], cost: u32) -> Option<Zeroizing<String>> {
    let (blocks, block_size) = match cost {
        MIN_COST..=2 => (1 << (cost + 9), 8),
        3..=MAX_COST => (1 << (cost + 7), 32),
        _ => return None,
    };
    let params = Params::new(Mode::Rw, blocks, block_size, 1).ok()?;
    let digest = digest(password, salt, &params)?;
    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str(&format!("$y${params}$"));
    alphabet::push(salt, &mut text);
    text.push('$');
    alphabet::push(&*digest, &mut text);
    Some(text)
}

fn digest(password: &[u8], salt: &[u8], params: &Params) -> Option<Zeroizing<[u8; DIGEST_BYTES]>> {
    let mut digest = Zeroizing::new([0; DIGEST_BYTES]);
    ::yescrypt::yescrypt(password, salt, params, &mut *digest).ok()?;
    Some(digest)
}

fn parse_params(text: &[u8]) -> Result<Params, Flaw> {
    const MALFORMED: Flaw = Flaw::Malformed("parameters");
    let text = str::from_utf8(text).map_err(|_| MALFORMED)?;
    let params: Params = text.parse().map_err(|_| MALFORMED)?;
    let (blocks, block_size) = (params.n(), params.r());
    if block_size > MAX_BLOCK_SIZE {
        return Err(Flaw::TooExpensive {
            parameter: "block size",
            found: block_size.into(),
            limit: MAX_BLOCK_SIZE.into(),
        });
    }
    let memory_kib = blocks.saturating_mul(block_size.into()) / 8;
    if memory_kib > MAX_MEMORY_KIB {
        return Err(Flaw::TooExpensive {
            parameter: "memory in KiB",
            found: memory_kib,
            limit: MAX_MEMORY_KIB,
        });
    }
    if Params::new(Mode::Rw, blocks, block_size, 1) != Ok(params) {
        return Err(Flaw::Unsupported("this flavour of yescrypt"));
    }
    // Whatever is read back differently was followed by something that was not looked at.
    if params.to_string() == text { Ok(params) } else { Err(MALFORMED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with mkpasswd and libxcrypt 4.4.33.
    const SECRET: &str = "$y$j9T$LcNrhboeuUMCmuvSjm3Lo/$DZlI04CF3d3RwugaytUuIWrJL4XCBf97BhrSAvdia65";

    #[test]
    fn costs_are_those_of_libxcrypt() {
        for (cost, prefix) in [(1, "$y$j75$"), (2, "$y$j85$"), (3, "$y$j7T$")] {
            let made = make(b"secret", &[7; 16], cost).unwrap();
            assert!(made.starts_with(prefix), "{cost}: {}", *made);
        }
    }

    #[test]
    fn a_hash_of_libxcrypt_verifies() {
        let hash = Yescrypt::parse(SECRET.as_bytes()).expect("valid");
        assert!(hash.matches(b"secret"));
        assert!(!hash.matches(b"secreu"));
    }

    #[test]
    fn a_new_hash_reads_back_and_verifies() {
        let text = make(b"secret", &[0xa7; 16], MIN_COST).expect("cost in range");
        let hash = Yescrypt::parse(text.as_bytes()).expect("valid");
        assert!(hash.matches(b"secret"));
    }

    #[test]
    fn every_accepted_shape_can_be_computed() {
        for block_size in 1..=MAX_BLOCK_SIZE {
            for log_blocks in 1..7 {
                let params = Params::new(Mode::Rw, 1 << log_blocks, block_size, 1).expect("valid");
                assert!(digest(b"secret", b"", &params).is_some());
            }
        }
    }

    #[test]
    fn memory_and_block_size_are_bounded() {
        for (params, parameter, found) in [("jET", "memory in KiB", 524_288), ("j9U", "block size", 33)] {
            let flaw = Yescrypt::parse(SECRET.replacen("j9T", params, 1).as_bytes()).err();
            match flaw {
                Some(Flaw::TooExpensive { parameter: p, found: f, .. }) => {
                    assert_eq!((p, f), (parameter, found));
                }
                other => panic!("{params}: {other:?}"),
            }
        }
        assert!(Yescrypt::parse(SECRET.replacen("j9T", "jDT", 1).as_bytes()).is_ok());
    }

    #[test]
    fn every_part_is_checked() {
        let unsupported = Flaw::Unsupported("this flavour of yescrypt");
        for (text, flaw) in [
            ("$y$".to_owned(), Flaw::Malformed("parameters")),
            (SECRET.replacen("j9T", "j9", 1), Flaw::Malformed("parameters")),
            (SECRET.replacen("j9T", "j9TD", 1), Flaw::Malformed("parameters")),
            (SECRET.replacen("j9T", ".9T", 1), unsupported),
            (SECRET.replacen("j9T", "j9T..", 1), unsupported),
            (SECRET.replacen("j9T", "j9T/.", 1), unsupported),
            (SECRET.replacen("Lc", "L-", 1), Flaw::Malformed("salt")),
            (SECRET.replacen("Lo/$", "Loz$", 1), Flaw::Malformed("salt")),
            (SECRET[..SECRET.len() - 1].to_owned(), Flaw::Malformed("digest")),
            (format!("{SECRET}."), Flaw::Malformed("digest")),
            (format!("{SECRET}$"), Flaw::Malformed("digest")),
        ] {
            assert_eq!(Yescrypt::parse(text.as_bytes()).err(), Some(flaw), "{text}");
        }
    }
}
