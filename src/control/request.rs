//! What can be asked: one line, a word and perhaps one more thing behind the first blank.
//!
//! Everything behind that blank belongs to the argument, so a user's name or a path may have blanks of its own. There
//! is no quoting and no line end inside. A line that is no request is a [`RequestError`], which the asker reads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use thiserror::Error;

/// Longest request, in bytes, with its line end: room for any path.
pub const MAX_REQUEST_BYTES: usize = 4_200;

/// A question to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// How it is: `status`.
    Status,
    /// What became of a user's last attempts: `why NAME`.
    Why {
        /// The name as typed; the daemon looks for its canonical form as well.
        user: String,
    },
    /// Look at a secrets file now, and say which version of it is in force: `secrets PATH`.
    Secrets {
        /// As the configuration has it, or another path to the same file.
        path: PathBuf,
    },
    /// Whether `sasld-pam` answers, asked about a user whom no system has: `pam`.
    Pam,
    /// What `metrics:` would serve: `metrics`.
    Metrics,
}

/// A line that asks nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// No such word, or one that takes no argument has one, or the reverse.
    #[error("expected status, why NAME, secrets PATH, pam or metrics")]
    Unknown,
    /// The user's name cannot be one.
    #[error("the name is not UTF-8")]
    NotText,
    /// A line end inside an argument, or an argument too long.
    #[error("the argument has a line end, or more than {MAX_REQUEST_BYTES} bytes")]
    Unsayable,
}

impl Request {
    /// Reads a line without its line end.
    ///
    /// # Errors
    /// [`RequestError::Unknown`] and [`RequestError::NotText`].
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (word, argument) = match memchr::memchr(b' ', line) {
            Some(blank) => (&line[..blank], &line[blank + 1..]),
            None => (line, &line[line.len()..]),
        };
        match (word, argument) {
            (b"status", b"") => Ok(Self::Status),
            (b"pam", b"") => Ok(Self::Pam),
            (b"metrics", b"") => Ok(Self::Metrics),
            (b"why", user @ [_, ..]) => {
                let user = std::str::from_utf8(user).map_err(|_| RequestError::NotText)?;
                Ok(Self::Why { user: user.to_owned() })
            }
            (b"secrets", path @ [_, ..]) => Ok(Self::Secrets { path: OsStr::from_bytes(path).into() }),
            _ => Err(RequestError::Unknown),
        }
    }

    /// The line for it, with its line end.
    ///
    /// # Errors
    /// [`RequestError::Unsayable`].
    pub fn encode(&self) -> Result<Vec<u8>, RequestError> {
        let (word, argument) = match self {
            Self::Status => ("status", &b""[..]),
            Self::Pam => ("pam", &b""[..]),
            Self::Metrics => ("metrics", &b""[..]),
            Self::Why { user } => ("why ", user.as_bytes()),
            Self::Secrets { path } => ("secrets ", path.as_os_str().as_bytes()),
        };
        let line = [word.as_bytes(), argument, b"\n"].concat();
        let one_line = memchr::memchr(b'\n', argument).is_none() && !argument.ends_with(b"\r");
        if line.len() <= MAX_REQUEST_BYTES && one_line { Ok(line) } else { Err(RequestError::Unsayable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_understood() {
        for request in [
            Request::Status,
            Request::Pam,
            Request::Metrics,
            Request::Why { user: "alice smith".to_owned() },
            Request::Why { user: " ".to_owned() },
            Request::Secrets { path: "/etc/sasld/my secrets".into() },
            Request::Secrets { path: OsStr::from_bytes(b"/\xff").into() },
        ] {
            let line = request.encode().unwrap();
            assert_eq!(Request::parse(line.strip_suffix(b"\n").unwrap()), Ok(request));
        }
    }

    #[test]
    fn anything_else_is_no_request() {
        for line in ["", "why", "why ", "secrets", "status now", "Status", "metrics ", " status", "help"] {
            let expected = match line {
                // One blank and nothing behind it is the word alone.
                "metrics " => Ok(Request::Metrics),
                _ => Err(RequestError::Unknown),
            };
            assert_eq!(Request::parse(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(Request::parse(b"why \xff"), Err(RequestError::NotText));
    }

    #[test]
    fn an_argument_cannot_become_another_line() {
        for user in ["a\nstatus", "a\r", &"a".repeat(MAX_REQUEST_BYTES)] {
            assert_eq!(Request::Why { user: user.to_owned() }.encode(), Err(RequestError::Unsayable));
        }
    }
}
