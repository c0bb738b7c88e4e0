//! `VerifierError`: why a stored password cannot be used, for the owner of the line it stands on.
//!
//! Names the scheme and the reason, never the data. An unknown name is shown because it has to be mended; it is short
//! and looks like one, but whoever writes a password that starts with `{word}` and no scheme will see that word.

use super::{Flaw, Scheme};

/// Why a stored password cannot be used. Names the scheme and the reason, never the data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// No `{SCHEME}` in front; there is no default.
    #[error("no {{SCHEME}} in front of the password")]
    NoScheme,
    /// An opening brace only.
    #[error("'{{' without '}}'")]
    UnclosedScheme,
    /// Not one of [`Scheme::ALL`] nor an alias.
    #[error("unknown scheme {{{0}}}")]
    UnknownScheme(String),
    /// Neither `.hex` nor `.b64` nor `.base64`.
    #[error("{scheme}: unknown encoding .{encoding}")]
    UnknownEncoding {
        /// The scheme it followed.
        scheme: Scheme,
        /// What stood behind the dot.
        encoding: String,
    },
    /// Not hex or base64 although it has to be.
    #[error("{scheme}: not valid {encoding}")]
    BadEncoding {
        /// The scheme in front.
        scheme: Scheme,
        /// `hex` or `base64`.
        encoding: &'static str,
    },
    /// Decoded, but not as long as the scheme wants it.
    #[error("{scheme}: {found} bytes where {expected} are expected")]
    BadLength {
        /// The scheme in front.
        scheme: Scheme,
        /// In words: `32`, `more than 64`.
        expected: &'static str,
        /// Bytes after decoding.
        found: usize,
    },
    /// A hash that cannot be checked, or should not be.
    #[error("{scheme}: {flaw}")]
    Unusable {
        /// The scheme in front.
        scheme: Scheme,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// Nothing behind the scheme, or what the scheme makes of an empty password.
    #[error("{scheme}: empty password")]
    Empty {
        /// The scheme in front.
        scheme: Scheme,
    },
    /// Two verifiers of one scheme in a field; which one is meant is not for us to guess.
    #[error("{scheme}: given twice")]
    Twice {
        /// The scheme in front of both.
        scheme: Scheme,
    },
}
