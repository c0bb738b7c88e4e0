//! Fields: what stands between two TABs, its escaping, and `key=value`.
//!
//! The escape byte is 0x01. A line is split at its TABs first and its fields are unescaped afterwards, so an
//! escaped TAB never makes a new field. SMTP servers neither escape nor unescape; what they send rarely holds
//! anything to unescape, so a field is copied only when it does.

use memchr::memchr;
use std::borrow::Cow;

const ESCAPE: u8 = 0x01;

/// Whether there is anything to unescape.
#[must_use]
pub fn is_escaped(bytes: &[u8]) -> bool {
    memchr(ESCAPE, bytes).is_some()
}

/// The field's bytes as they were before escaping.
///
/// An escape byte before a byte that has no meaning stands for that byte; at the very end it stands for nothing.
#[must_use]
pub fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if !is_escaped(field) {
        return Cow::Borrowed(field);
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        if byte != ESCAPE {
            plain.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'0') => plain.push(0),
            Some(b'1') => plain.push(ESCAPE),
            Some(b't') => plain.push(b'\t'),
            Some(b'r') => plain.push(b'\r'),
            Some(b'n') => plain.push(b'\n'),
            Some(&other) => plain.push(other),
            None => {}
        }
    }
    Cow::Owned(plain)
}

/// Appends `value` to `line` so that it stays one field.
pub fn escape(value: &[u8], line: &mut Vec<u8>) {
    let needs_escape = |byte: &u8| letter_of(*byte).is_some();
    let mut rest = value;
    while let Some(at) = rest.iter().position(needs_escape) {
        line.extend_from_slice(&rest[..at]);
        line.push(ESCAPE);
        line.extend(letter_of(rest[at]));
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
}

/// What stands behind the escape byte for this one, if it must not stand for itself.
const fn letter_of(byte: u8) -> Option<u8> {
    match byte {
        // All but a few are told by one comparison.
        b'\x0e'.. => None,
        0 => Some(b'0'),
        ESCAPE => Some(b'1'),
        b'\t' => Some(b't'),
        b'\r' => Some(b'r'),
        b'\n' => Some(b'n'),
        _ => None,
    }
}

/// Splits `key=value` at its first `=`; a bare `key` has an empty value.
#[must_use]
pub fn key_value(field: &[u8]) -> (&[u8], &[u8]) {
    match field.iter().position(|&byte| byte == b'=') {
        Some(equals) => (&field[..equals], &field[equals + 1..]),
        None => (field, b""),
    }
}

/// A decimal number without sign, blank or prefix; leading zeros are fine. `None` for anything else.
#[must_use]
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let value_of = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    digits.iter().try_fold(0, |number: u64, &byte| number.checked_mul(10)?.checked_add(value_of(byte)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_escape_has_its_meaning() {
        assert_eq!(&*unescape(b"a\x010\x011\x01t\x01r\x01n\x01xb\x01"), b"a\0\x01\t\r\nxb");
    }

    #[test]
    fn a_number_is_digits_only() {
        assert_eq!(decimal(b"0007"), Some(7));
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"0x1", b"18446744073709551616", b"\xd9\xa3"] {
            assert_eq!(decimal(bad), None);
        }
    }

    #[test]
    fn only_the_first_equals_sign_divides() {
        assert_eq!(key_value(b"resp=a=b"), (&b"resp"[..], &b"a=b"[..]));
        assert_eq!(key_value(b"secured"), (&b"secured"[..], &b""[..]));
    }

    proptest! {
        #[test]
        fn what_was_escaped_comes_back_and_is_one_field(value: Vec<u8>) {
            let mut field = Vec::new();
            escape(&value, &mut field);
            prop_assert!(!field.iter().any(|byte| matches!(byte, 0 | b'\t' | b'\r' | b'\n')));
            prop_assert_eq!(&*unescape(&field), &value[..]);
        }
    }
}
