//! `.hex`, `.b64`, `.base64`: how the data behind `{SCHEME}` is written, and the bytes it stands for.
//!
//! Decodes into a fixed buffer that is wiped afterwards, so that a whole file can be validated without allocating.
//! Base64 is the standard alphabet with padding, as Dovecot wants it (RFC 4648 §4); hex digits may have any case. Bad
//! data is an error for the line's owner and is never quoted.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroize;

use super::MAX_PASSWORD_BYTES;

/// How the data of one verifier is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Literal,
    /// Two digits a byte.
    Hex,
    /// RFC 4648 §4.
    Base64,
}

impl Encoding {
    /// By the suffix of a scheme's name, without the dot, in any case.
    pub(super) fn from_suffix(suffix: &[u8]) -> Option<Self> {
        if suffix.eq_ignore_ascii_case(b"hex") {
            Some(Self::Hex)
        } else if suffix.eq_ignore_ascii_case(b"b64") || suffix.eq_ignore_ascii_case(b"base64") {
            Some(Self::Base64)
        } else {
            None
        }
    }

    /// What error messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Literal => "text",
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }

    /// Decodes hex or base64 and hands the bytes to `then`; literal text is handed on as it is. `None` if the text is
    /// not what the encoding says, or stands for more than fits the buffer.
    pub(super) fn decode<T>(self, text: &[u8], then: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let fill = match self {
            Self::Literal => return Some(then(text)),
            Self::Hex => Buffer::fill_from_hex,
            Self::Base64 => Buffer::fill_from_base64,
        };
        let mut buffer = Buffer::default();
        fill(&mut buffer, text)?;
        Some(then(&buffer.bytes[..buffer.used]))
    }
}

/// Room for the longest password. Only what was written to is wiped: a million lines are validated at load.
struct Buffer {
    bytes: [u8; MAX_PASSWORD_BYTES],
    used: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { bytes: [0; MAX_PASSWORD_BYTES], used: 0 }
    }
}

impl Buffer {
    fn fill_from_hex(&mut self, text: &[u8]) -> Option<()> {
        let (pairs, rest) = text.as_chunks::<2>();
        if !rest.is_empty() || pairs.len() > self.bytes.len() {
            return None;
        }
        for (byte, &[high, low]) in self.bytes.iter_mut().zip(pairs) {
            *byte = hex_digit(high)? * 16 + hex_digit(low)?;
            self.used += 1;
        }
        Some(())
    }

    fn fill_from_base64(&mut self, text: &[u8]) -> Option<()> {
        // The decoder may have written something before it found a mistake.
        self.used = (text.len() / 4 * 3).min(self.bytes.len());
        self.used = BASE64_STANDARD.decode_slice(text, &mut self.bytes).ok()?;
        Some(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.bytes[..self.used].zeroize();
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Lower-case hex digits.
pub(super) fn push_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
}

/// Padded base64.
pub(super) fn push_base64(bytes: &[u8], out: &mut String) {
    BASE64_STANDARD.encode_string(bytes, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
        encoding.decode(text.as_bytes(), <[u8]>::to_vec)
    }

    #[test]
    fn hex_takes_both_cases_and_nothing_else() {
        assert_eq!(decoded(Encoding::Hex, "00fFAb"), Some(vec![0, 255, 0xab]));
        for bad in ["0", "0g", "+1", " 00", "00 "] {
            assert_eq!(decoded(Encoding::Hex, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn base64_needs_padding_and_takes_no_blanks() {
        assert_eq!(decoded(Encoding::Base64, "YQ=="), Some(b"a".to_vec()));
        for bad in ["YQ", "YQ== ", "YR==", "Y*==", "YQ==YQ=="] {
            assert_eq!(decoded(Encoding::Base64, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_was_decoded_before_a_mistake_counts_as_used_and_is_wiped() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.fill_from_base64(b"c2VjcmV0c2VjcmV0c2VjcmV0!!!!"), None);
        assert_eq!(buffer.used, 21);
        assert!(buffer.bytes[buffer.used..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn more_than_a_password_may_be_long_is_refused() {
        for (length, accepted) in [(MAX_PASSWORD_BYTES, true), (MAX_PASSWORD_BYTES + 1, false)] {
            let bytes = vec![7; length];
            let (mut hex, mut base64) = (String::new(), String::new());
            push_hex(&bytes, &mut hex);
            push_base64(&bytes, &mut base64);
            assert_eq!(decoded(Encoding::Hex, &hex).is_some(), accepted);
            assert_eq!(decoded(Encoding::Base64, &base64).is_some(), accepted);
        }
    }
}
