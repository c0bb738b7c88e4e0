//! What CRAM-MD5 (RFC 2195) needs of a password: HMAC-MD5 (RFC 2104) with the key already mixed in.
//!
//! A state is what MD5 holds after the block key ⊕ opad and after the block key ⊕ ipad, each four words in little-endian
//! order: 32 bytes, outer one first. It is what Dovecot stores as `{CRAM-MD5}`, and whoever has it can answer any
//! challenge. A wrong answer is `None`; nothing else can go wrong.

use core::fmt;

use md5::Digest;
use md5::Md5;
use md5::block_api::Md5Core;
use md5::digest::block_api::{Block, Buffer, CoreProxy, UpdateCore};
use md5::digest::common::hazmat::{SerializableState, SerializedState};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{Password, Proof};

/// Bytes of state of one MD5 computation.
const HALF: usize = 16;
/// Bytes MD5 takes in at a time.
const BLOCK: usize = 64;

/// HMAC-MD5 waiting for its message. Wiped on drop.
pub struct CramMd5Key {
    outer: Zeroizing<[u8; HALF]>,
    inner: Zeroizing<[u8; HALF]>,
}

impl CramMd5Key {
    /// Mixes the password in, as RFC 2104 §2 does with its key: padded with NULs, hashed first if longer than 64 bytes.
    #[must_use]
    pub fn from_password(password: &Password) -> Self {
        let mut key = Zeroizing::new([0; BLOCK]);
        let bytes = password.as_bytes();
        if bytes.len() > BLOCK {
            let mut short = Md5::digest(bytes);
            key[..HALF].copy_from_slice(&short);
            short.zeroize();
        } else {
            key[..bytes.len()].copy_from_slice(bytes);
        }
        Self { outer: state_after(&key, 0x5c), inner: state_after(&key, 0x36) }
    }

    /// From the 32 bytes of a `{CRAM-MD5}` verifier.
    #[must_use]
    pub fn from_state(state: &[u8; 2 * HALF]) -> Self {
        let mut key = Self { outer: Zeroizing::new([0; HALF]), inner: Zeroizing::new([0; HALF]) };
        key.outer.copy_from_slice(&state[..HALF]);
        key.inner.copy_from_slice(&state[HALF..]);
        key
    }

    /// The 32 bytes a `{CRAM-MD5}` verifier stores.
    #[must_use]
    pub fn to_state(&self) -> Zeroizing<[u8; 2 * HALF]> {
        let mut state = Zeroizing::new([0; 2 * HALF]);
        state[..HALF].copy_from_slice(&*self.outer);
        state[HALF..].copy_from_slice(&*self.inner);
        state
    }

    /// The digest a client that knows the password answers the challenge with.
    #[must_use]
    pub fn respond(&self, challenge: &[u8]) -> [u8; 16] {
        let inner = continued(&self.inner, challenge);
        continued(&self.outer, &inner)
    }

    /// Checks the digest a client answered with, in constant time.
    pub fn verify(&self, challenge: &[u8], digest: &[u8; 16]) -> Option<Proof> {
        Proof::given(self.respond(challenge).ct_eq(digest))
    }
}

impl fmt::Debug for CramMd5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CramMd5Key(***)")
    }
}

/// MD5's state after the one block `key` ⊕ `pad`.
fn state_after(key: &[u8; BLOCK], pad: u8) -> Zeroizing<[u8; HALF]> {
    let mut block = Block::<Md5Core>::from(key.map(|byte| byte ^ pad));
    let mut core = Md5Core::default();
    core.update_blocks(core::slice::from_ref(&block));
    block.zeroize();

    let mut serialized = core.serialize();
    let mut state = Zeroizing::new([0; HALF]);
    state.copy_from_slice(&serialized[..HALF]);
    serialized.zeroize();
    state
}

/// MD5 of a block that led to `state`, followed by `message`.
fn continued(state: &[u8; HALF], message: &[u8]) -> [u8; HALF] {
    const BLOCKS_SO_FAR: u64 = 1;
    let mut serialized = SerializedState::<Md5Core>::default();
    serialized[..HALF].copy_from_slice(state);
    serialized[HALF..].copy_from_slice(&BLOCKS_SO_FAR.to_le_bytes());
    let core = Md5Core::deserialize(&serialized).expect("any 24 bytes are a state of MD5");
    serialized.zeroize();

    let mut md5 = Md5::compose(core, Buffer::<Md5Core>::default());
    md5.update(message);
    md5.finalize().into()
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;

    use super::super::encoding::push_hex;
    use super::*;

    fn key(password: &str) -> CramMd5Key {
        CramMd5Key::from_password(&Password::new(password))
    }

    fn hex(bytes: &[u8]) -> String {
        let mut text = String::new();
        push_hex(bytes, &mut text);
        text
    }

    #[test]
    fn states_are_those_dovecot_stores() {
        for (password, state) in [
            ("", "00747cf2ffaf11c5ea4a64979c3901fc1d20dee13f480bb598f7d8575b23e61b"),
            ("secret", "cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56"),
            ("tanstaaftanstaaf", "d06d4e1b26fccaa4b0b61801132340a354b21152711fb604ca3e035e7015116b"),
            (&"p".repeat(64), "68dc42533f51cc1522c38c82a68eae5fe670cd03c41504213b13532a08f36547"),
            (&"p".repeat(65), "834bad525baf04b3ba64fe396e36ffe4626b5b60d8ad3aef80f18055322026ce"),
        ] {
            assert_eq!(hex(&*key(password).to_state()), state, "{password:?}");
        }
    }

    #[test]
    fn the_example_of_rfc_2195_is_accepted() {
        let key = key("tanstaaftanstaaf");
        let challenge = b"<1896.697170952@postoffice.reston.mci.net>";
        assert_eq!(hex(&key.respond(challenge)), "b913a602c7eda7a495b4e6e7334d3890");
        assert!(key.verify(challenge, &key.respond(challenge)).is_some());
    }

    #[test]
    fn debug_shows_nothing_of_a_key() {
        assert_eq!(format!("{:?}", key("secret")), "CramMd5Key(***)");
    }

    #[test]
    fn one_wrong_bit_anywhere_is_refused() {
        let key = key("secret");
        for bit in 0..128 {
            let mut digest = key.respond(b"<1@host>");
            digest[bit / 8] ^= 1 << (bit % 8);
            assert!(key.verify(b"<1@host>", &digest).is_none(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_password_and_challenge_give_what_hmac_gives(
            password in proptest::collection::vec(any::<u8>(), 0..200),
            challenge in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut hmac = Hmac::<Md5>::new_from_slice(&password).expect("any length");
            hmac.update(&challenge);
            let expected: [u8; 16] = hmac.finalize().into_bytes().into();

            let key = CramMd5Key::from_password(&Password::new(password));
            prop_assert_eq!(key.respond(&challenge), expected);
            let restored = CramMd5Key::from_state(&key.to_state());
            prop_assert_eq!(restored.respond(&challenge), expected);
        }
    }
}
