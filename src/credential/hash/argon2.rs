//! `$argon2i$` and `$argon2id$`: Argon2 (RFC 9106) in the string format of its reference implementation.
//!
//! Takes version 19 with the parameters in the order m, t, p, which is what libsodium, and so Dovecot, reads and writes.

use ::argon2::{Algorithm, Params, Version};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Flaw, MAX_MEMORY_KIB, decimal, next_part};

/// Most memory × passes, in KiB: four passes over the most memory. Above it a login takes seconds.
const MAX_WORK_KIB: u64 = 4 * MAX_MEMORY_KIB;
/// More lanes cost nothing here, but nobody uses them.
const MAX_LANES: u32 = 64;
/// Salt and digest, in bytes.
const MAX_PART_BYTES: usize = 64;
const MIN_SALT_BYTES: usize = 8;
const MIN_DIGEST_BYTES: usize = 16;

/// Memory of a new hash. With two passes and one lane this is one of the equivalent minimal settings of OWASP's
/// password storage cheat sheet, and the one that lets most logins hash at once in a given amount of memory.
const NEW_MEMORY_KIB: u32 = 19 * 1024;
/// Digest of a new hash, as libsodium has it.
const NEW_DIGEST_BYTES: usize = 32;
/// Most passes that a new hash may have within the limit on work.
pub(in super::super) const MAX_NEW_PASSES: u32 = 53;

/// A parsed Argon2 string.
pub(in super::super) struct Argon2 {
    algorithm: Algorithm,
    params: Params,
    salt: Part,
    digest: Part,
}

#[derive(Clone, Copy)]
struct Part {
    bytes: [u8; MAX_PART_BYTES],
    used: usize,
}

impl Argon2 {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Flaw> {
        let (algorithm, mut rest) = if let Some(rest) = text.strip_prefix(b"$argon2id$") {
            (Algorithm::Argon2id, rest)
        } else if let Some(rest) = text.strip_prefix(b"$argon2i$") {
            (Algorithm::Argon2i, rest)
        } else {
            return Err(Flaw::Unsupported("anything but $argon2id$ and $argon2i$"));
        };
        if next_part(&mut rest) != b"v=19" {
            return Err(Flaw::Unsupported("another version of Argon2 than 19"));
        }
        let (memory, passes, lanes) =
            parse_params(next_part(&mut rest)).ok_or(Flaw::Malformed("parameters"))?;
        bounded("memory in KiB", memory.into(), MAX_MEMORY_KIB)?;
        bounded("memory in KiB times passes", u64::from(memory) * u64::from(passes), MAX_WORK_KIB)?;
        bounded("number of lanes", lanes.into(), MAX_LANES.into())?;

        let salt = Part::decode(next_part(&mut rest), MIN_SALT_BYTES).ok_or(Flaw::Malformed("salt"))?;
        let digest = Part::decode(rest, MIN_DIGEST_BYTES).ok_or(Flaw::Malformed("digest"))?;
        let params = Params::new(memory, passes, lanes, Some(digest.used))
            .map_err(|_| Flaw::Malformed("parameters"))?;
        Ok(Self { algorithm, params, salt, digest })
    }

    pub(super) fn is_argon2i(&self) -> bool {
        self.algorithm == Algorithm::Argon2i
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut computed = Zeroizing::new([0; MAX_PART_BYTES]);
        let computed = &mut computed[..self.digest.used];
        digest(self.algorithm, &self.params, password, self.salt.as_bytes(), computed);
        computed.ct_eq(self.digest.as_bytes()).into()
    }
}

/// A new hash. `None` if the passes are out of range.
pub(in super::super) fn make(
    algorithm: Algorithm,
    password: &[u8],
    salt: &[u8; 16],
    passes: u32,
) -> Option<Zeroizing<String>> {
    if !(1..=MAX_NEW_PASSES).contains(&passes) {
        return None;
    }
    let params = Params::new(NEW_MEMORY_KIB, passes, 1, Some(NEW_DIGEST_BYTES)).ok()?;
    let mut computed = Zeroizing::new([0; NEW_DIGEST_BYTES]);
    digest(algorithm, &params, password, salt, &mut *computed);

    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str(&format!("${algorithm}$v=19$m={NEW_MEMORY_KIB},t={passes},p=1$"));
    BASE64_STANDARD_NO_PAD.encode_string(salt, &mut text);
    text.push('$');
    BASE64_STANDARD_NO_PAD.encode_string(computed.as_slice(), &mut text);
    Some(text)
}

fn digest(algorithm: Algorithm, params: &Params, password: &[u8], salt: &[u8], out: &mut [u8]) {
    // All lengths are within bounds, so memory is all that can be missing; and a password is not wrong because of that.
    ::argon2::Argon2::new(algorithm, Version::V0x13, params.clone())
        .hash_password_into(password, salt, out)
        .expect("memory for Argon2");
}

/// Memory in KiB, passes and lanes from `m=65536,t=3,p=1`.
fn parse_params(text: &[u8]) -> Option<(u32, u32, u32)> {
    let mut fields = text.split(|&byte| byte == b',');
    let mut number = |name: &[u8]| decimal(fields.next()?.strip_prefix(name)?);
    let params = (number(b"m=")?, number(b"t=")?, number(b"p=")?);
    fields.next().is_none().then_some(params)
}

fn bounded(parameter: &'static str, found: u64, limit: u64) -> Result<(), Flaw> {
    if found > limit {
        return Err(Flaw::TooExpensive { parameter, found, limit });
    }
    Ok(())
}

impl Part {
    fn decode(text: &[u8], min_bytes: usize) -> Option<Self> {
        let mut bytes = [0; MAX_PART_BYTES];
        let used = BASE64_STANDARD_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (used >= min_bytes).then_some(Self { bytes, used })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGON2ID: &str =
        "$argon2id$v=19$m=65536,t=3,p=1$NjZziHSZ9CnOWug0mMSJiQ$lHxvnCzhfgYlq/hJlc3asWXXF1bLYZ5xutdaIvuuwRs";
    const ARGON2I: &str =
        "$argon2i$v=19$m=32768,t=4,p=1$x1En8mGmJp2yl+McHN/V4g$xwO+fNKGrMs757E5TBcbHgeZJuDxmbHEG/zhhKAy1As";

    #[test]
    fn hashes_of_dovecot_verify() {
        for text in [ARGON2ID, ARGON2I] {
            let hash = Argon2::parse(text.as_bytes()).expect("valid");
            assert!(hash.matches(b"secret"), "{text}");
            assert!(!hash.matches(b"secreu"), "{text}");
        }
    }

    #[test]
    fn the_most_passes_a_new_hash_may_have_are_accepted() {
        assert!(u64::from(NEW_MEMORY_KIB * MAX_NEW_PASSES) <= MAX_WORK_KIB);
        let text = make(Algorithm::Argon2id, b"secret", &[7; 16], 1).expect("passes in range");
        let most = text.replacen("t=1", &format!("t={MAX_NEW_PASSES}"), 1);
        assert!(Argon2::parse(most.as_bytes()).is_ok());
        assert!(make(Algorithm::Argon2id, b"secret", &[7; 16], MAX_NEW_PASSES + 1).is_none());
    }

    #[test]
    fn a_new_hash_takes_19_mib_and_one_lane() {
        let text = make(Algorithm::Argon2id, b"secret", &[7; 16], 1).expect("passes in range");
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=1,p=1$"), "{}", *text);
    }

    #[test]
    fn memory_and_work_are_bounded() {
        for (params, parameter) in [
            ("m=262145,t=1,p=1", "memory in KiB"),
            ("m=262144,t=5,p=1", "memory in KiB times passes"),
            ("m=65536,t=4294967295,p=1", "memory in KiB times passes"),
            ("m=4294967295,t=4294967295,p=1", "memory in KiB"),
            ("m=65536,t=3,p=65", "number of lanes"),
        ] {
            let text = ARGON2ID.replacen("m=65536,t=3,p=1", params, 1);
            match Argon2::parse(text.as_bytes()).err() {
                Some(Flaw::TooExpensive { parameter: found, .. }) => assert_eq!(found, parameter),
                other => panic!("{params}: {other:?}"),
            }
        }
        let most = ARGON2ID.replacen("m=65536,t=3", "m=262144,t=4", 1);
        assert!(Argon2::parse(most.as_bytes()).is_ok());
    }

    #[test]
    fn every_accepted_shape_can_be_computed() {
        for params in ["m=8,t=1,p=1", "m=11,t=2,p=1", "m=67,t=1,p=8", "m=512,t=1,p=64"] {
            let text = ARGON2ID.replacen("m=65536,t=3,p=1", params, 1);
            let hash = Argon2::parse(text.as_bytes()).expect("valid");
            assert!(!hash.matches(b"secret"), "{params}");
        }
    }

    #[test]
    fn every_part_is_checked() {
        let malformed =
            |params: &str| (ARGON2ID.replacen("m=65536,t=3,p=1", params, 1), Flaw::Malformed("parameters"));
        for (text, flaw) in [
            malformed("m=7,t=3,p=1"),
            malformed("m=15,t=3,p=2"),
            malformed("m=65536,t=0,p=1"),
            malformed("m=65536,t=3,p=0"),
            malformed("t=3,m=65536,p=1"),
            malformed("m=65536,t=3"),
            malformed("m=65536,t=3,p=1,x=1"),
            malformed("m=065536,t=3,p=1"),
            (ARGON2ID.replacen("v=19", "v=16", 1), Flaw::Unsupported("another version of Argon2 than 19")),
            (
                ARGON2ID.replacen("argon2id", "argon2d", 1),
                Flaw::Unsupported("anything but $argon2id$ and $argon2i$"),
            ),
            (ARGON2ID.replacen("NjZziHSZ9CnOWug0mMSJiQ", "NjZziHQ", 1), Flaw::Malformed("salt")),
            (ARGON2ID.replacen("MSJiQ$", "MSJiR$", 1), Flaw::Malformed("salt")),
            (format!("{ARGON2ID}="), Flaw::Malformed("digest")),
            (format!("{ARGON2ID}$"), Flaw::Malformed("digest")),
            (ARGON2ID[..80].to_owned(), Flaw::Malformed("digest")),
        ] {
            assert_eq!(Argon2::parse(text.as_bytes()).err(), Some(flaw), "{text}");
        }
    }
}
