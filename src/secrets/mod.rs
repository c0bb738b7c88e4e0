//! The secrets file: who may log in, and what is stored to check it.
//!
//! [`load()`] judges and reads the file and gives [`Secrets`], which answers look-ups from memory; [`edit()`] rewrites
//! it for the admin commands. Lines are Dovecot's passwd-file lines ([`mod@format`]). Everything here blocks on files
//! and belongs on a thread that may wait.
//!
//! Trouble comes in two sizes. A broken line costs that user only and is listed in [`Secrets::problems`]; a file that
//! is missing, insecure or half written is a [`LoadError`], and the caller keeps the contents it has. Nothing in
//! either carries a stored secret.

#![forbid(unsafe_code)]

mod edit;
pub mod format;
mod index;
mod load;
mod merge;
mod nets;
mod nologin;
mod problems;
mod store;

use core::fmt;
use core::net::IpAddr;

use crate::credential::Verifiers;

pub use edit::{EditError, SecretsEditor};
pub use format::{NameError, Restriction, check_name};
pub use index::Secrets;
pub use load::{
    Fingerprint, Insecurity, LoadError, LoadOptions, Loaded, Trust, check_access, fingerprint, load,
};
pub use merge::{NewLine, OldLine};
pub use nets::{Net, NetError};
pub use nologin::lock_rest;
pub use problems::{Problem, Problems};
pub use store::{Edited, LOCK_WAIT, Missing, Rewrite, StoreError, beside, edit, read_text};

/// The account `sasld serve` runs under; its primary group may read the file.
pub const SERVICE_ACCOUNT: &str = "_sasld";

/// What a secrets file needs to know of the rules for login names.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// Upper-case ASCII letters in names are read as lower-case ones, as they are in login names.
    pub lowercase: bool,
    /// Whether somebody could log in with this name, already in lower case if that is on. An entry with another name
    /// can never be used and is reported.
    pub allowed: &'a dyn Fn(&str) -> bool,
}

impl Names<'_> {
    /// The form of a name that look-ups use.
    pub fn canonical(&self, name: &str) -> String {
        if self.lowercase { name.to_ascii_lowercase() } else { name.to_owned() }
    }
}

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("lowercase", &self.lowercase).finish_non_exhaustive()
    }
}

/// What the file says about one user.
///
/// A right password alone does not let anybody in: the entry must not be [closed](Self::closed) and must
/// [admit](Self::admits) the remote address. Check the password first all the same, so that refusals look alike.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The canonical name.
    pub name: &'a str,
    /// What passwords are checked against; `None` in closed entries that store none or cannot be read.
    pub verifiers: Option<Verifiers>,
    /// Where logins may come from; `None` is anywhere, the empty list nowhere.
    pub allow_nets: Option<Vec<Net>>,
    /// Why nobody can log in with this entry, whatever the password.
    pub closed: Option<Closed>,
}

impl Entry<'_> {
    /// Whether `allow_nets=` lets a request from this address through; `None` is a request without a usable one.
    pub fn admits(&self, remote: Option<IpAddr>) -> bool {
        self.allow_nets.as_ref().is_none_or(|nets| nets.iter().any(|net| net.admits(remote)))
    }
}

/// Why an entry lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// No password is stored. Dovecot lets such a user in with an empty one.
    NoPassword,
    /// The extra field `nologin`.
    Nologin,
    /// The extra field `nopassword`, with which Dovecot accepts any password.
    Nopassword,
    /// An extra field of Dovecot's that keeps people out in a way sasld does not implement.
    UnsupportedRestriction(Restriction),
    /// The line is broken, see [`Secrets::problems`].
    BrokenLine,
    /// The name stands on several lines, and no rule could say which one is meant.
    Duplicate,
    /// There is no such user: an entry from [`Secrets::decoy`].
    Decoy,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPassword => f.write_str("no password is stored"),
            Self::Nologin => f.write_str("nologin"),
            Self::Nopassword => f.write_str("nopassword would accept any password, which sasld never does"),
            Self::UnsupportedRestriction(field) => {
                write!(f, "sasld does not implement the restriction {}", field.name())
            }
            Self::BrokenLine => f.write_str("the line is broken"),
            Self::Duplicate => f.write_str("the name stands on several lines"),
            Self::Decoy => f.write_str("no such user"),
        }
    }
}

/// Text from a file, fit for a terminal and a log: control characters, characters that change the direction or are
/// invisible, and bytes that are not UTF-8 are spelled out, and it ends with `…` after 255 characters.
pub fn escape(text: &[u8]) -> String {
    const MAX_CHARS: usize = 255;
    let mut out = String::with_capacity(text.len().min(MAX_CHARS));
    let mut chars = 0;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if chars == MAX_CHARS {
                return out + "…";
            }
            chars += 1;
            if c.is_control() || is_deceptive(c) || c == '\\' {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// Zero-width characters, line and paragraph separators, and everything that reorders the text around it.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_cannot_steer_a_terminal_or_reorder_a_line() {
        assert_eq!(escape(b"a\x1b[31m"), "a\\u{1b}[31m");
        assert_eq!(escape("x\u{202e}y\u{200b}\n".as_bytes()), "x\\u{202e}y\\u{200b}\\n");
        assert_eq!(escape(b"\xffa\\"), "\\xffa\\\\");
        assert_eq!(escape("gr\u{fc}n".as_bytes()), "gr\u{fc}n");
        assert_eq!(escape(&[b'a'; 300]).chars().count(), 256);
    }
    #[test]
    fn capitals_are_folded_where_the_rules_say_so() {
        for (lowercase, expected) in [(true, "alice \u{c9}"), (false, "Alice \u{c9}")] {
            let names = Names { lowercase, allowed: &|_| true };
            assert_eq!(names.canonical("Alice \u{c9}"), expected);
            assert_eq!(format!("{names:?}"), format!("Names {{ lowercase: {lowercase}, .. }}"));
        }
    }

    #[test]
    fn an_entry_admits_whom_one_of_its_networks_admits_and_without_any_everybody() {
        let admits = |list: Option<&str>, remote: &str| {
            let allow_nets = list.map(|list| Net::parse_list(list).unwrap());
            let entry = Entry { name: "alice", verifiers: None, allow_nets, closed: None };
            entry.admits(remote.parse().ok())
        };
        assert!(admits(None, "192.0.2.7") && admits(None, ""));
        assert!(admits(Some("2001:db8::/32,192.0.2.0/24"), "192.0.2.7"));
        assert!(!admits(Some("2001:db8::/32,192.0.2.0/24"), "198.51.100.7"));
        assert!(!admits(Some(""), "192.0.2.7"));
        assert!(!admits(Some("0.0.0.0/0"), ""));
    }

    #[test]
    fn a_closed_entry_says_why() {
        assert_eq!(Closed::Nologin.to_string(), "nologin");
        let unsupported = Closed::UnsupportedRestriction(Restriction::Fail).to_string();
        assert_eq!(unsupported, "sasld does not implement the restriction fail");
    }
}
