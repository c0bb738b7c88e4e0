//! `Verifier`: one `{SCHEME}data`, parsed once, checked against passwords ever after.
//!
//! Parsing settles everything that can be wrong with the text, a cost that no login is worth included, and hashes
//! nothing; afterwards a password is right or it is not. Comparisons take the same time whatever the bytes are (their
//! lengths are no secret). Names, encodings and their defaults are those of Dovecot's passwd-file. What it refuses is
//! a [`VerifierError`] for the owner of the line.

use core::fmt;

use sha2::{Digest, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::encoding;
use super::hash::Hash;
use super::scheme::Prefixed;
use super::{Cost, CramMd5Key, Flaw, MAX_PASSWORD_BYTES, Password, Proof, Scheme, VerifierError};

/// Bytes of a `{CRAM-MD5}` state.
const CRAM_MD5_STATE_BYTES: usize = 32;

/// The `{CRAM-MD5}` state of the empty password: to store it is to store nothing.
const CRAM_MD5_STATE_OF_NOTHING: [u8; CRAM_MD5_STATE_BYTES] = [
    0x00, 0x74, 0x7c, 0xf2, 0xff, 0xaf, 0x11, 0xc5, 0xea, 0x4a, 0x64, 0x97, 0x9c, 0x39, 0x01, 0xfc, 0x1d,
    0x20, 0xde, 0xe1, 0x3f, 0x48, 0x0b, 0xb5, 0x98, 0xf7, 0xd8, 0x57, 0x5b, 0x23, 0xe6, 0x1b,
];

/// What is stored for a user in one scheme. Wiped on drop.
pub struct Verifier {
    scheme: Scheme,
    /// Decoded and valid for the scheme: the password, state, digest and salt, or text of the hash.
    data: Zeroizing<Box<[u8]>>,
}

impl Verifier {
    /// Parses `{SCHEME}data` or `{SCHEME.encoding}data`.
    ///
    /// # Errors
    /// Whatever keeps this text from ever being checked against a password, except [`VerifierError::Twice`].
    pub fn parse(text: &[u8]) -> Result<Self, VerifierError> {
        Self::read(&Prefixed::parse(text)?)
    }

    /// What `parse` makes of a text that is taken apart already.
    pub(super) fn read(prefixed: &Prefixed<'_>) -> Result<Self, VerifierError> {
        decode(prefixed, Self::new)
    }

    /// The scheme, if `read` would take this; keeps nothing of it.
    pub(super) fn judge(prefixed: &Prefixed<'_>) -> Result<Scheme, VerifierError> {
        decode(prefixed, |scheme, _| scheme)
    }

    /// Of data that is valid for the scheme.
    pub(super) fn new(scheme: Scheme, data: &[u8]) -> Self {
        Self { scheme, data: Zeroizing::new(Box::from(data)) }
    }

    /// The scheme as written; what a `CRYPT` holds is not told apart.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What `verify` costs.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.scheme.cost()
    }

    /// How hard the password is to find for a thief of the file; larger is harder.
    ///
    /// ARGON2ID, yescrypt, ARGON2I, bcrypt, SHA512-CRYPT, SHA256-CRYPT, SSHA512, SSHA256, CRAM-MD5, PLAIN: memory-hard
    /// hashes first, then slow ones, then fast ones, then those that are as good as the password. What is inside
    /// counts, not the name in front: `{CRYPT}$6$…` equals `{SHA512-CRYPT}$6$…`.
    #[must_use]
    pub fn strength(&self) -> u8 {
        match self.scheme {
            Scheme::CramMd5 => 1,
            Scheme::Ssha256 => 2,
            Scheme::Ssha512 => 3,
            // PLAIN is no hash.
            _ => Hash::parse(self.scheme, &self.data).map_or(0, |hash| 4 + hash.strength()),
        }
    }

    /// Proof if the password is right. Takes as long as [`Verifier::cost`] says, whether it is right or not.
    ///
    /// # Panics
    /// If there is no memory to compute an Argon2 hash in. The password is not wrong because of that, so whoever runs
    /// this has to take a panic for no verdict.
    pub fn verify(&self, password: &Password) -> Option<Proof> {
        if !password.is_possible() {
            return None;
        }
        let offered = password.as_bytes();
        match self.scheme {
            Scheme::Plain => Proof::given(self.data.ct_eq(offered)),
            Scheme::CramMd5 => {
                let key = CramMd5Key::from_password(password);
                Proof::given(self.data.ct_eq(&*key.to_state()))
            }
            Scheme::Ssha256 => Proof::given(salted_matches::<Sha256>(&self.data, offered)),
            Scheme::Ssha512 => Proof::given(salted_matches::<Sha512>(&self.data, offered)),
            _ => {
                let hash = Hash::parse(self.scheme, &self.data).ok()?;
                Proof::given(hash.matches(offered))
            }
        }
    }

    /// The key for CRAM-MD5, which only PLAIN and CRAM-MD5 can give.
    #[must_use]
    pub fn cram_md5(&self) -> Option<CramMd5Key> {
        match self.scheme {
            Scheme::Plain => Some(CramMd5Key::from_password(&Password::new(&**self.data))),
            Scheme::CramMd5 => {
                let state = self.data.as_ref().try_into().ok()?;
                Some(CramMd5Key::from_state(state))
            }
            _ => None,
        }
    }

    /// The password itself, which only PLAIN stores: for storing it in a better scheme.
    #[must_use]
    pub fn plaintext(&self) -> Option<Password> {
        (self.scheme == Scheme::Plain).then(|| Password::new(&**self.data))
    }

    /// `{SCHEME}data` as it is written into a file, fit for a passwd-file's line: a plaintext password that could not
    /// stand there as it is (a colon, control characters, not UTF-8) comes out as `{PLAIN.b64}`.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        // Longer than any encoding of the data, so that the text never moves and leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * self.data.len() + 32));
        text.push('{');
        text.push_str(self.scheme.name());
        match (self.scheme, fit_for_a_line(&self.data)) {
            (Scheme::CramMd5, _) => {
                text.push('}');
                encoding::push_hex(&self.data, &mut text);
            }
            (Scheme::Ssha256 | Scheme::Ssha512, _) => {
                text.push('}');
                encoding::push_base64(&self.data, &mut text);
            }
            (_, Some(literal)) => {
                text.push('}');
                text.push_str(literal);
            }
            (_, None) => {
                text.push_str(".b64}");
                encoding::push_base64(&self.data, &mut text);
            }
        }
        text
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({{{}}}***)", self.scheme)
    }
}

fn decode<T>(prefixed: &Prefixed<'_>, keep: impl FnOnce(Scheme, &[u8]) -> T) -> Result<T, VerifierError> {
    let Prefixed { scheme, encoding, data } = *prefixed;
    encoding
        .decode(data, |data| validate(scheme, data).map(|()| keep(scheme, data)))
        .unwrap_or(Err(VerifierError::BadEncoding { scheme, encoding: encoding.name() }))
}

fn validate(scheme: Scheme, data: &[u8]) -> Result<(), VerifierError> {
    if data.is_empty() {
        return Err(VerifierError::Empty { scheme });
    }
    let wrong_length = |expected| VerifierError::BadLength { scheme, expected, found: data.len() };
    match scheme {
        Scheme::Plain if data.len() > MAX_PASSWORD_BYTES => Err(wrong_length("at most 1024")),
        // No password that is offered has one, but HMAC pads with them: NULs alone would be the empty password.
        Scheme::Plain if data.contains(&0) => {
            Err(VerifierError::Unusable { scheme, flaw: Flaw::Unsupported("a NUL in a password") })
        }
        Scheme::CramMd5 if data.len() != CRAM_MD5_STATE_BYTES => Err(wrong_length("32")),
        Scheme::CramMd5 if data == CRAM_MD5_STATE_OF_NOTHING => Err(VerifierError::Empty { scheme }),
        Scheme::Ssha256 if data.len() <= 32 => Err(wrong_length("more than 32")),
        Scheme::Ssha512 if data.len() <= 64 => Err(wrong_length("more than 64")),
        Scheme::Plain | Scheme::CramMd5 | Scheme::Ssha256 | Scheme::Ssha512 => Ok(()),
        _ => match Hash::parse(scheme, data) {
            Ok(_) => Ok(()),
            Err(flaw) => Err(VerifierError::Unusable { scheme, flaw }),
        },
    }
}

/// The digest of password and salt, followed by the salt.
fn salted_matches<D: Digest>(data: &[u8], password: &[u8]) -> Choice {
    let (digest, salt) = data.split_at(<D as Digest>::output_size());
    let computed = D::new().chain_update(password).chain_update(salt).finalize();
    computed.ct_eq(digest)
}

/// The data, if it can stand in a field of a passwd-file as it is.
fn fit_for_a_line(data: &[u8]) -> Option<&str> {
    let text = str::from_utf8(data).ok()?;
    let breaks_the_line = |character: char| character == ':' || character.is_control();
    (!text.contains(breaks_the_line)).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verifier(text: &str) -> Verifier {
        Verifier::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn judge(text: &[u8]) -> Result<Scheme, VerifierError> {
        Verifier::judge(&Prefixed::parse(text)?)
    }

    fn error(text: &str) -> VerifierError {
        let checked = judge(text.as_bytes()).expect_err(text);
        let parsed = Verifier::parse(text.as_bytes()).expect_err(text);
        assert_eq!(checked, parsed, "{text}");
        parsed
    }

    fn accepts(verifier: &Verifier, password: &str) -> bool {
        verifier.verify(&Password::new(password)).is_some()
    }

    const SECRET: &[&str] = &[
        "{PLAIN}secret",
        "{plain}secret",
        "{CLEAR}secret",
        "{ClearText}secret",
        "{PLAIN.b64}c2VjcmV0",
        "{PLAIN.base64}c2VjcmV0",
        "{PLAIN.hex}736563726574",
        "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56",
        "{CRAM-MD5}CD3BA7DEAAD6E5CA23448BA42E379747A9E0F7F1FBC00C8A81BBAAC395731B56",
        "{CRAM-MD5.b64}zTun3qrW5cojRIukLjeXR6ng9/H7wAyKgbuqw5VzG1Y=",
        "{CRAM-MD5}zTun3qrW5cojRIukLjeXR6ng9/H7wAyKgbuqw5VzG1Y=",
        "{HMAC-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56",
        "{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU",
        "{SSHA512}3ShoSsYylWhYBPmYLBLPWMsdqUFmDlSSpoURtOyEFMsB8ey52xMq0+cfaTm85RotK4gvIMfY/L8x/nn7YudHOFNBTFQ=",
    ];

    const HASHES: &[&str] = &[
        "{SHA256-CRYPT}$5$rounds=1000$0123456789abcdef$r6nzC5LUC0uVXFw52gWstJ181ms.XFW71j20yui2zG7",
        "{BLF-CRYPT}$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
        "{CRYPT}$y$j9T$LcNrhboeuUMCmuvSjm3Lo/$DZlI04CF3d3RwugaytUuIWrJL4XCBf97BhrSAvdia65",
        "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$x1En8mGmJp2yl+McHN/V4g$xwO+fNKGrMs757E5TBcbHgeZJuDxmbHEG/zhhKAy1As",
    ];

    #[test]
    fn every_form_of_a_password_verifies_it_and_no_other() {
        for text in SECRET {
            let verifier = verifier(text);
            assert!(accepts(&verifier, "secret"), "{text}");
            for wrong in ["", "Secret", "secre", "secrets", "secret\0", "{PLAIN}secret"] {
                assert!(!accepts(&verifier, wrong), "{text} with {wrong:?}");
            }
        }
    }

    #[test]
    fn plain_and_cram_md5_give_the_same_key_and_nothing_else_gives_one() {
        for text in SECRET {
            let verifier = verifier(text);
            let response = verifier.cram_md5().map(|key| key.respond(b"<1@host>"));
            let expected = match verifier.scheme() {
                Scheme::Plain | Scheme::CramMd5 => {
                    Some(CramMd5Key::from_password(&Password::new("secret")).respond(b"<1@host>"))
                }
                _ => None,
            };
            assert_eq!(response, expected, "{text}");
        }
    }

    #[test]
    fn nothing_stored_is_an_error_of_its_own() {
        for (text, scheme) in [
            ("{PLAIN}", Scheme::Plain),
            ("{PLAIN.b64}", Scheme::Plain),
            ("{CRAM-MD5}", Scheme::CramMd5),
            ("{CRAM-MD5}00747cf2ffaf11c5ea4a64979c3901fc1d20dee13f480bb598f7d8575b23e61b", Scheme::CramMd5),
            ("{SSHA512}", Scheme::Ssha512),
            ("{CRYPT}", Scheme::Crypt),
            ("{ARGON2ID}", Scheme::Argon2id),
        ] {
            assert_eq!(error(text), VerifierError::Empty { scheme }, "{text}");
        }
    }

    #[test]
    fn broken_prefixes_are_told_apart() {
        assert_eq!(error(""), VerifierError::NoScheme);
        assert_eq!(error("secret"), VerifierError::NoScheme);
        assert_eq!(error("$6$salt$hash"), VerifierError::NoScheme);
        assert_eq!(error("{PLAIN"), VerifierError::UnclosedScheme);
        assert_eq!(error("{FOO}x"), VerifierError::UnknownScheme("FOO".to_owned()));
        assert_eq!(
            error("{PLAIN.rot13}x"),
            VerifierError::UnknownEncoding { scheme: Scheme::Plain, encoding: "rot13".to_owned() }
        );
    }

    #[test]
    fn braces_around_anything_but_a_name_are_not_quoted() {
        for password in ["{my pass word}x", "{}x", "{p\u{e4}ss}x", &format!("{{{}}}x", "a".repeat(40))] {
            assert_eq!(error(password), VerifierError::NoScheme, "{password}");
        }
    }

    #[test]
    fn data_of_wrong_length_or_content_is_refused_without_being_quoted() {
        let digits = "cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56";
        for (text, message) in [
            (format!("{{CRAM-MD5}}{}", &digits[1..]), "CRAM-MD5: not valid base64"),
            (format!("{{CRAM-MD5}}{digits}a"), "CRAM-MD5: not valid base64"),
            (format!("{{CRAM-MD5}}g{}", &digits[1..]), "CRAM-MD5: not valid hex"),
            (format!("{{CRAM-MD5.hex}}{}", &digits[2..]), "CRAM-MD5: 31 bytes where 32 are expected"),
            (format!("{{CRAM-MD5}}{digits} "), "CRAM-MD5: not valid base64"),
            ("{PLAIN.hex}00".to_owned(), "PLAIN: a NUL in a password is not supported"),
            ("{PLAIN.hex}7".to_owned(), "PLAIN: not valid hex"),
            ("{PLAIN.b64}c2VjcmV0 ".to_owned(), "PLAIN: not valid base64"),
            (
                "{SSHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=".to_owned(),
                "SSHA256: 32 bytes where more than 32 are expected",
            ),
            (format!("{{PLAIN}}{}", "p".repeat(1025)), "PLAIN: 1025 bytes where at most 1024 are expected"),
        ] {
            assert_eq!(error(&text).to_string(), message, "{text}");
        }
    }

    #[test]
    fn each_scheme_takes_data_from_its_shortest_to_its_longest() {
        for (scheme, length, valid) in [
            (Scheme::Plain, 1, true),
            (Scheme::Plain, 1024, true),
            (Scheme::Plain, 1025, false),
            (Scheme::CramMd5, 31, false),
            (Scheme::CramMd5, 32, true),
            (Scheme::CramMd5, 33, false),
            (Scheme::Ssha256, 32, false),
            (Scheme::Ssha256, 33, true),
            (Scheme::Ssha512, 64, false),
            (Scheme::Ssha512, 65, true),
        ] {
            assert_eq!(validate(scheme, &vec![b'x'; length]).is_ok(), valid, "{scheme} with {length} bytes");
        }
    }

    #[test]
    fn only_plain_gives_the_password_away() {
        for text in SECRET {
            let verifier = verifier(text);
            let plaintext = verifier.plaintext().map(|password| password.as_bytes().to_vec());
            let expected = (verifier.scheme() == Scheme::Plain).then(|| b"secret".to_vec());
            assert_eq!(plaintext, expected, "{text}");
        }
    }

    #[test]
    fn debug_shows_the_scheme_only() {
        assert_eq!(format!("{:?}", verifier("{clear}secret")), "Verifier({PLAIN}***)");
    }

    #[test]
    fn plaintext_that_would_break_the_line_is_written_in_base64() {
        for (text, written) in [
            ("{PLAIN.hex}613a62", "{PLAIN.b64}YTpi"),
            ("{PLAIN.hex}610a62", "{PLAIN.b64}YQpi"),
            ("{PLAIN.hex}ff", "{PLAIN.b64}/w=="),
            ("{PLAIN.hex}c3a420", "{PLAIN}\u{e4} "),
        ] {
            assert_eq!(*verifier(text).encode(), written);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(
            scheme in proptest::sample::select(vec![Scheme::Plain, Scheme::CramMd5, Scheme::Ssha256, Scheme::Ssha512]),
            bytes in proptest::collection::vec(1..=u8::MAX, 65..100),
        ) {
            let length = if scheme == Scheme::CramMd5 { CRAM_MD5_STATE_BYTES } else { bytes.len() };
            let made = Verifier::new(scheme, &bytes[..length]);
            let read = Verifier::parse(made.encode().as_bytes()).expect("valid text");
            prop_assert_eq!(read.scheme(), made.scheme());
            prop_assert_eq!(&read.data, &made.data);
        }

        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Verifier::parse(&text);
        }

        #[test]
        fn no_mistake_in_one_byte_panics(
            text in proptest::sample::select([SECRET, HASHES].concat()),
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut text = text.as_bytes().to_vec();
            let at = at.index(text.len());
            text[at] = byte;
            let parsed = Verifier::parse(&text).map(|verifier| verifier.scheme());
            prop_assert_eq!(parsed, judge(&text));
        }

        #[test]
        fn no_data_behind_a_scheme_panics(
            scheme in proptest::sample::select(Scheme::ALL),
            suffix in proptest::sample::select(vec!["", ".b64", ".hex"]),
            data in "[$./0-9A-Za-z+=,]{0,120}",
        ) {
            let _ = Verifier::parse(format!("{{{scheme}{suffix}}}{data}").as_bytes());
        }
    }
}
