//! The sockets that systemd passes: descriptors from 3 on, as many as `LISTEN_FDS` says (sd_listen_fds(3)).
//!
//! Each is looked at before anything else happens. One that does not listen for streams (a socket unit with
//! `ListenDatagram=`, `Accept=yes`, or a mistake in whatever started us) ends the start with its number and name: served in
//! silence it would be a socket that nobody ever answers.

use crate::server::listener::Inherited;
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use thiserror::Error;

/// systemd's SD_LISTEN_FDS_START.
const FIRST: usize = 3;

/// A descriptor that cannot be served.
#[derive(Debug, Error)]
#[error("descriptor {number}{name} of LISTEN_FDS is not a socket that listens for streams: {reason}")]
pub struct NotListening {
    number: usize,
    name: String,
    reason: io::Error,
}

/// What was passed; nothing if nothing is meant for this process.
///
/// # Errors
/// [`NotListening`]: the first that cannot be served.
pub fn inherit() -> Result<Vec<Inherited>, NotListening> {
    // Without LISTEN_PID nobody can know whom the descriptors are meant for.
    if std::env::var_os("LISTEN_PID").is_none() {
        return Ok(Vec::new());
    }
    let mut passed = listenfd::ListenFd::from_env();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let name = match names.next() {
            Some(name) if !name.is_empty() => format!(" ({name})"),
            _ => String::new(),
        };
        let socket = take(&mut passed, index);
        sockets.push(socket.map_err(|reason| NotListening { number: FIRST + index, name, reason })?);
    }
    Ok(sockets)
}

fn take(passed: &mut listenfd::ListenFd, index: usize) -> io::Result<Inherited> {
    // The wrong kind of socket is an error for one of the two, and stays for the other.
    if let Ok(Some(socket)) = passed.take_unix_listener(index) {
        listens(socket.as_fd())?;
        return Ok(Inherited::Unix(socket));
    }
    match passed.take_tcp_listener(index)? {
        Some(socket) => {
            listens(socket.as_fd())?;
            Ok(Inherited::Tcp(socket))
        }
        None => Err(io::Error::other("passed twice")),
    }
}

fn listens(socket: BorrowedFd<'_>) -> io::Result<()> {
    match getsockopt(&socket, sockopt::AcceptConn)? {
        true => Ok(()),
        false => Err(io::Error::other("it is connected, or bound without listen(2)")),
    }
}
