//! Asking the daemon, for commands: blocks, for [`PATIENCE`] at most.
//!
//! What can go wrong is a [`ControlError`], which tells "nobody runs" from "you may not" from "it has no answer".

use super::{MAX_REQUEST_BYTES, Request, RequestError};
use core::time::Duration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;
use thiserror::Error;

/// How long an answer may take. The daemon itself waits less for a file that is being written, and for `sasld-pam`.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// More than any answer has.
const MAX_REPLY_BYTES: u64 = 64 << 20;

/// There is no answer.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("{}: sasld does not run, or has another control socket", .0.display())]
    NotRunning(PathBuf),
    /// Only root and the daemon's own user may ask.
    #[error("{}: only root may ask", .0.display())]
    NotPermitted(PathBuf),
    /// It did not answer in time.
    #[error("{}: no answer within {PATIENCE:?}", .0.display())]
    TimedOut(PathBuf),
    /// The connection failed.
    #[error("{}: {source}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The answer is not one to this question: another version, or not sasld.
    #[error("{}: an answer that is none: {reason}", path.display())]
    Nonsense {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon says why it has no answer.
    #[error("sasld says: {0}")]
    Refused(String),
    /// The question cannot be put.
    #[error(transparent)]
    Unsayable(#[from] RequestError),
}

/// The daemon's word for "no".
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// Asks the daemon at this socket. `T` is the reply that belongs to the request: [`Status`](super::Status),
/// [`Why`](super::Why) or [`SecretsState`](super::SecretsState), or `serde_json::Value` for whatever comes.
///
/// # Errors
/// See [`ControlError`].
pub fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, ControlError> {
    let line = request.encode()?;
    debug_assert!(line.len() <= MAX_REQUEST_BYTES);
    let reply = exchange(socket, &line).map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(path),
            io::ErrorKind::PermissionDenied => ControlError::NotPermitted(path),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ControlError::TimedOut(path),
            _ => ControlError::Failed { path, source },
        }
    })?;
    if reply.is_empty() {
        // The socket let us in and the daemon did not: it looks at who asks, too.
        return Err(ControlError::NotPermitted(socket.to_owned()));
    }
    if let Ok(Refusal { error }) = serde_json::from_slice(&reply) {
        return Err(ControlError::Refused(error));
    }
    serde_json::from_slice(&reply)
        .map_err(|error| ControlError::Nonsense { path: socket.to_owned(), reason: error.to_string() })
}

fn exchange(socket: &Path, line: &[u8]) -> io::Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    match stream.write_all(line) {
        // Turned away before it was read; what the daemon has said, if anything, is there all the same.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let mut reply = Vec::new();
    let mut chunk = [0; 16 << 10];
    while (reply.len() as u64) < MAX_REPLY_BYTES {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => reply.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reply)
}
