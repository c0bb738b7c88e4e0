//! Who somebody says he is: the one function that makes a canonical name.
//!
//! Everything behind it (look-ups, limits, log, `user=`) takes a [`Name`], so no two of them can disagree about
//! who it was. A name is folded in ASCII only, independent of any locale; it is never trimmed, translated or cut.
//!
//! A name that breaks a rule is refused like a wrong password; the log says which rule.

use core::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Longest user name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Dovecot's default set of characters in a user name.
pub const DEFAULT_CHARACTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_@";

/// A user's name in canonical form: 1 to [`MAX_NAME_BYTES`] bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a user name may look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRules {
    /// Which ASCII characters are allowed; characters beyond ASCII are `beyond_ascii`'s business.
    ascii: [bool; 128],
    beyond_ascii: bool,
    lowercase: bool,
}

/// Which rule a name breaks.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// There is no name.
    #[error("empty name")]
    Empty,
    /// More than [`MAX_NAME_BYTES`] bytes.
    #[error("name longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// A character that is not allowed, or bytes that are no UTF-8.
    #[error("character not allowed in a name")]
    Character,
}

impl Default for NameRules {
    fn default() -> Self {
        Self::new(DEFAULT_CHARACTERS, true)
    }
}

impl NameRules {
    /// Allows the characters of `allowed`, or every printable one if it is empty. With `lowercase`, ASCII capitals
    /// are folded. One character beyond ASCII in `allowed` allows all of them: they are compared byte for byte.
    /// Control characters are never allowed.
    #[must_use]
    pub fn new(allowed: &str, lowercase: bool) -> Self {
        let mut ascii = [false; 128];
        let mut beyond_ascii = allowed.is_empty();
        for (character, allowed_here) in (0u8..).zip(&mut ascii) {
            let listed = allowed.is_empty() || allowed.as_bytes().contains(&character);
            *allowed_here = listed && !character.is_ascii_control();
        }
        beyond_ascii |= !allowed.is_ascii();
        Self { ascii, beyond_ascii, lowercase }
    }

    /// The canonical form of a name.
    ///
    /// # Errors
    /// [`NameError`]: nobody here can have this name.
    pub fn canonical(&self, typed: &[u8]) -> Result<Name, NameError> {
        if typed.is_empty() {
            return Err(NameError::Empty);
        }
        if typed.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        let typed = std::str::from_utf8(typed).map_err(|_| NameError::Character)?;
        if !typed.chars().all(|character| self.allows(character)) {
            return Err(NameError::Character);
        }
        let mut name: Arc<str> = typed.into();
        if self.lowercase
            && let Some(name) = Arc::get_mut(&mut name)
        {
            name.make_ascii_lowercase();
        }
        Ok(Name(name))
    }

    /// Whether ASCII capitals are folded.
    #[must_use]
    pub const fn lowercase(&self) -> bool {
        self.lowercase
    }

    fn allows(&self, character: char) -> bool {
        match self.ascii.get(character as usize) {
            Some(&allowed) => allowed,
            None => self.beyond_ascii && !character.is_control(),
        }
    }
}

/// A refused name, if it may be repeated to the mail server: short UTF-8 without control characters.
#[must_use]
pub(super) fn printable(typed: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(typed).ok()?;
    let shown = !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control);
    shown.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn capitals_fold_in_ascii_only() {
        let rules = NameRules::new("", true);
        assert_eq!(rules.canonical("Alice@EXAMPLE.com".as_bytes()).unwrap().as_str(), "alice@example.com");
        assert_eq!(rules.canonical("JOSÉ İ".as_bytes()).unwrap().as_str(), "josÉ İ");
        let exact = NameRules::new(DEFAULT_CHARACTERS, false);
        assert_eq!(exact.canonical(b"Alice").unwrap().as_str(), "Alice");
    }

    #[test]
    fn only_listed_characters_are_names() {
        let rules = NameRules::default();
        for bad in ["al ice", "alice+x", "a/b", "../x", "ali\u{e9}", "a\tb", "a\u{7f}", "a:b"] {
            assert_eq!(rules.canonical(bad.as_bytes()), Err(NameError::Character), "{bad:?}");
        }
        assert_eq!(rules.canonical(b"ali\xff"), Err(NameError::Character));
        assert_eq!(rules.canonical(b""), Err(NameError::Empty));
    }

    #[test]
    fn length_is_counted_in_bytes() {
        let rules = NameRules::default();
        assert!(rules.canonical(&[b'a'; MAX_NAME_BYTES]).is_ok());
        assert_eq!(rules.canonical(&[b'a'; MAX_NAME_BYTES + 1]), Err(NameError::TooLong));
    }

    #[test]
    fn control_characters_are_never_allowed() {
        let rules = NameRules::new("", false);
        for bad in ["\n", "\u{1}", "\u{7f}", "\u{85}", "\u{9b}31m"] {
            assert_eq!(rules.canonical(bad.as_bytes()), Err(NameError::Character));
            assert_eq!(printable(bad.as_bytes()), None);
        }
    }

    #[test]
    fn rules_tell_whether_they_fold_and_names_look_like_text() {
        assert!(NameRules::new("", true).lowercase());
        assert!(!NameRules::new("", false).lowercase());
        assert_eq!(format!("{:?}", NameRules::default().canonical(b"Alice")), r#"Ok("alice")"#);
    }

    proptest! {
        #[test]
        fn a_canonical_name_stays_as_it_is(typed: Vec<u8>) {
            let rules = NameRules::new("", true);
            if let Ok(name) = rules.canonical(&typed) {
                prop_assert_eq!(rules.canonical(name.as_str().as_bytes()).unwrap(), name);
            }
        }
    }
}
