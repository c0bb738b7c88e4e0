//! The Dovecot authentication protocol, as bytes: what may stand on a line and what it means.
//!
//! A connection carries lines of TAB-separated fields in both directions. [`mod@line`] cuts the bytes of a
//! socket into lines, [`field`] knows the escaping and the fields, [`command`] is what a mail server says,
//! [`reply`] is what it hears. Nothing here decides about a login; that is `session`'s part.
//!
//! A malformed line is the mail server's fault, never its user's: parsing it gives a [`ParseError`], and the
//! connection that sent it is closed, as Dovecot does. What the user's mail program got wrong (base64, mechanism
//! data) passes through here untouched and is answered with a FAIL.
//!
//! Source: Dovecot's `auth_protocol` page for versions 1.0 to 1.2, and what Dovecot 2.3 does where the page is silent.
#![forbid(unsafe_code)]

pub mod command;
pub mod field;
pub mod line;
pub mod reply;

pub use command::{AuthRequest, Command, InitialResponse, ParseError, RequestId, Secured};
pub use line::{LineBuffer, LineError, wipe};
pub use reply::{FailCode, Greeting, Reply};

/// The only major version there is. A client with another one cannot be served.
pub const MAJOR_VERSION: u32 = 1;

/// The minor version announced: 2 means `resp=` with nothing behind it is an empty initial response. Versions
/// 3 and 4 would promise channel binding and `CANCELLED`.
pub const MINOR_VERSION: u32 = 2;

/// Longest line taken from a client, in bytes including its LF; Dovecot's limit.
pub const MAX_LINE_BYTES: usize = 16_384;

/// Longest line sent, in bytes including its LF: Exim reads 8,191.
pub const MAX_REPLY_BYTES: usize = 8_191;
