//! `Verifiers`: a user's whole password field.
//!
//! A field holds one verifier or several, separated by `;` in front of `{SCHEME}`, so that each mechanism finds one it
//! can use. The data of a literal `{PLAIN}` may contain anything and runs to the end of the field; no other data can
//! contain a `;`. One broken verifier makes the field broken: half of what somebody wrote is not what they meant.

use zeroize::Zeroizing;

use super::scheme::Prefixed;
use super::{CramMd5Key, Scheme, Verifier, VerifierError};

/// What is stored for one user: at least one verifier, at most one of each scheme.
#[derive(Debug)]
pub struct Verifiers {
    first: Verifier,
    /// Usually none, and then nothing is allocated.
    others: Vec<Verifier>,
}

impl Verifiers {
    /// Parses a password field.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`VerifierError`]. An empty field is [`VerifierError::NoScheme`].
    pub fn parse(field: &[u8]) -> Result<Self, VerifierError> {
        let (first, rest) = split_first(field);
        let mut verifiers = Self::from(Verifier::read(&first?)?);
        for prefixed in Rest(rest) {
            verifiers.add(Verifier::read(&prefixed?)?)?;
        }
        Ok(verifiers)
    }

    /// What `parse` would say, without keeping anything of it: fit for validating a large file.
    ///
    /// # Errors
    /// Those of [`Verifiers::parse`].
    pub fn check(field: &[u8]) -> Result<(), VerifierError> {
        let mut seen = [false; Scheme::ALL.len()];
        for prefixed in Rest(Some(field)) {
            let scheme = Verifier::judge(&prefixed?)?;
            if core::mem::replace(&mut seen[scheme as usize], true) {
                return Err(VerifierError::Twice { scheme });
            }
        }
        Ok(())
    }

    /// Puts another verifier into the field.
    ///
    /// # Errors
    /// [`VerifierError::Twice`] if there is one of its scheme already.
    pub fn add(&mut self, verifier: Verifier) -> Result<(), VerifierError> {
        let scheme = verifier.scheme();
        if self.iter().any(|present| present.scheme() == scheme) {
            return Err(VerifierError::Twice { scheme });
        }
        self.others.push(verifier);
        Ok(())
    }

    /// All of them, in the order of the field.
    pub fn iter(&self) -> impl Iterator<Item = &Verifier> {
        core::iter::once(&self.first).chain(&self.others)
    }

    /// The one PLAIN and LOGIN use, see [`Verifier::strength`]. All are made from one password, so the choice decides
    /// what a login costs, not who may log in.
    #[must_use]
    pub fn strongest(&self) -> &Verifier {
        // The usual case, in which how strong it is need not be read out of a hash.
        if self.others.is_empty() {
            return &self.first;
        }
        self.iter().max_by_key(|verifier| verifier.strength()).unwrap_or(&self.first)
    }

    /// The key for CRAM-MD5, if any verifier gives one.
    #[must_use]
    pub fn cram_md5(&self) -> Option<CramMd5Key> {
        self.iter().find_map(Verifier::cram_md5)
    }

    /// The field as it is written into a file, a plaintext verifier last.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let mut texts: Vec<_> = self.iter().map(Verifier::encode).collect();
        texts.sort_by_key(|text| {
            Prefixed::parse(text.as_bytes()).is_ok_and(|prefixed| prefixed.runs_to_the_end())
        });
        let texts: Vec<&str> = texts.iter().map(|text| text.as_str()).collect();
        // It reserves the length it needs, so no copy is left behind.
        Zeroizing::new(texts.join(";"))
    }
}

impl From<Verifier> for Verifiers {
    fn from(only: Verifier) -> Self {
        Self { first: only, others: Vec::new() }
    }
}

/// The verifiers in what is left of a field.
struct Rest<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Rest<'a> {
    type Item = Result<Prefixed<'a>, VerifierError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (first, rest) = split_first(self.0?);
        self.0 = rest;
        Some(first)
    }
}

/// The first verifier, and what follows the `;` behind it. Also cuts in front of unknown schemes: they are refused
/// either way, but so by their name.
fn split_first(field: &[u8]) -> (Result<Prefixed<'_>, VerifierError>, Option<&[u8]>) {
    let whole = Prefixed::parse(field);
    if whole.as_ref().is_ok_and(Prefixed::runs_to_the_end) {
        return (whole, None);
    }
    match field.windows(2).position(|pair| pair == b";{") {
        Some(at) => (Prefixed::parse(&field[..at]), Some(&field[at + 1..])),
        None => (whole, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Password;
    use super::*;

    const CRAM_MD5: &str = "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56";
    const SHA512_CRYPT: &str = "{SHA512-CRYPT}$6$0123456789abcdef$8CGkKDSyVpVlVNcs5PssRw/Tb8EgfecuA6D/zsRQFumJaU.s8KgTWWc2HfgkB7h2n1qIKiJFeSyUFrwvhILXy.";
    const SSHA256: &str = "{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU";

    fn field(text: &str) -> Verifiers {
        assert_eq!(Verifiers::check(text.as_bytes()), Ok(()), "{text}");
        Verifiers::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> VerifierError {
        let checked = Verifiers::check(text.as_bytes()).expect_err(text);
        let parsed = Verifiers::parse(text.as_bytes()).expect_err(text);
        assert_eq!(checked, parsed, "{text}");
        parsed
    }

    fn schemes(verifiers: &Verifiers) -> Vec<Scheme> {
        verifiers.iter().map(Verifier::scheme).collect()
    }

    #[test]
    fn each_mechanism_finds_its_own_verifier() {
        let verifiers = field(&format!("{CRAM_MD5};{SSHA256};{SHA512_CRYPT}"));
        let expected = [Scheme::CramMd5, Scheme::Ssha256, Scheme::Sha512Crypt];
        assert_eq!(schemes(&verifiers), expected);
        assert_eq!(verifiers.strongest().scheme(), Scheme::Sha512Crypt);
        assert!(verifiers.cram_md5().is_some());
        assert!(field(SSHA256).cram_md5().is_none());
    }

    #[test]
    fn a_literal_plaintext_runs_to_the_end_of_the_field() {
        for (prefix, count) in [
            ("{PLAIN}", 1),
            ("{clear}", 1),
            ("{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU;{Cleartext}", 2),
        ] {
            let verifiers = field(&format!("{prefix}a;{{CRAM-MD5}}b;c;"));
            assert_eq!(schemes(&verifiers).len(), count);
            let plain = verifiers.iter().last().expect("at least one");
            assert!(plain.verify(&Password::new("a;{CRAM-MD5}b;c;")).is_some());
        }
    }

    #[test]
    fn an_encoded_plaintext_may_stand_anywhere() {
        let verifiers = field(&format!("{{PLAIN.b64}}c2VjcmV0;{SSHA256}"));
        assert_eq!(schemes(&verifiers), [Scheme::Plain, Scheme::Ssha256]);
    }

    #[test]
    fn one_broken_verifier_breaks_the_field() {
        assert_eq!(error(""), VerifierError::NoScheme);
        assert_eq!(error(&format!("{SSHA256};{{FOO}}x")), VerifierError::UnknownScheme("FOO".to_owned()));
        let scheme = Scheme::Plain;
        assert_eq!(error(&format!("{SSHA256};{{PLAIN}}")), VerifierError::Empty { scheme });
        let scheme = Scheme::Ssha256;
        for garbage in [";", ";x", " "] {
            let expected = VerifierError::BadEncoding { scheme, encoding: "base64" };
            assert_eq!(error(&format!("{SSHA256}{garbage}")), expected);
        }
    }

    #[test]
    fn two_verifiers_of_one_scheme_are_refused_under_any_of_its_names() {
        let hmac_md5 = CRAM_MD5.replacen("CRAM", "hmac", 1);
        let scheme = Scheme::CramMd5;
        assert_eq!(error(&format!("{CRAM_MD5};{hmac_md5}")), VerifierError::Twice { scheme });
    }

    #[test]
    fn strength_goes_by_what_is_inside() {
        let ascending = [
            "{PLAIN}secret",
            CRAM_MD5,
            SSHA256,
            "{SSHA512}3ShoSsYylWhYBPmYLBLPWMsdqUFmDlSSpoURtOyEFMsB8ey52xMq0+cfaTm85RotK4gvIMfY/L8x/nn7YudHOFNBTFQ=",
            "{SHA512-CRYPT}$5$0123456789abcdef$r6nzC5LUC0uVXFw52gWstJ181ms.XFW71j20yui2zG7",
            &SHA512_CRYPT.replacen("SHA512-CRYPT", "SHA256-CRYPT", 1),
            "{CRYPT}$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
            "{ARGON2ID}$argon2i$v=19$m=32768,t=4,p=1$x1En8mGmJp2yl+McHN/V4g$xwO+fNKGrMs757E5TBcbHgeZJuDxmbHEG/zhhKAy1As",
            "{BLF-CRYPT}$y$j9T$LcNrhboeuUMCmuvSjm3Lo/$DZlI04CF3d3RwugaytUuIWrJL4XCBf97BhrSAvdia65",
            "{ARGON2I}$argon2id$v=19$m=65536,t=3,p=1$NjZziHSZ9CnOWug0mMSJiQ$lHxvnCzhfgYlq/hJlc3asWXXF1bLYZ5xutdaIvuuwRs",
        ];
        let strengths = ascending.map(|text| field(text).strongest().strength());
        assert!(strengths.is_sorted_by(|weaker, stronger| weaker < stronger), "{strengths:?}");
    }

    #[test]
    fn a_field_is_written_with_the_literal_plaintext_last_and_reads_back() {
        let mut verifiers = field("{PLAIN}a;{b");
        for text in [CRAM_MD5, SSHA256, SHA512_CRYPT] {
            let verifier = Verifier::parse(text.as_bytes()).expect("valid");
            assert_eq!(verifiers.add(verifier), Ok(()));
        }
        let written = verifiers.encode();
        assert_eq!(*written, format!("{CRAM_MD5};{SSHA256};{SHA512_CRYPT};{{PLAIN}}a;{{b"));
        assert_eq!(schemes(&field(&written)).len(), 4);
    }

    #[test]
    fn a_verifier_of_a_scheme_that_is_there_is_not_added() {
        let mut verifiers = field(CRAM_MD5);
        let again = Verifier::parse(CRAM_MD5.as_bytes()).expect("valid");
        let scheme = Scheme::CramMd5;
        assert_eq!(verifiers.add(again), Err(VerifierError::Twice { scheme }));
    }

    #[test]
    fn debug_shows_schemes_only() {
        let shown = format!("{:?}", field(&format!("{SSHA256};{{PLAIN}}secret")));
        assert!(shown.contains("{SSHA256}") && shown.contains("{PLAIN}"), "{shown}");
        assert!(!shown.contains("secret") && !shown.contains("Z0pk"), "{shown}");
    }
}
