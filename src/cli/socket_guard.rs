//! `sasld socket-guard`: may sasld have this socket? Asked by systemd before it makes one.
//!
//! systemd replaces whatever is at a socket unit's path without a word, even the socket of a server that is alive. So the
//! unit asks first, and does not start if somebody else answers there: Dovecot, most likely, whose mail server it is.
//! systemd's own socket is no obstacle, nor is a file that nobody listens on any more.

use super::{Exit, Failure};
use crate::server::listener;
use clap::Args;
use nix::sys::socket::{getsockopt, sockopt};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// systemd itself, or what is process 1 in its place.
const SYSTEMD: i32 = 1;

/// Tell systemd whether sasld may have a socket
///
/// For sasld.socket. Exit status 0: nobody listens at PATH, or systemd does. 1: somebody else does,
/// and standard error says who.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the socket is going to be
    path: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    guard(&arguments.path)
}

fn guard(path: &Path) -> Result<Exit, Failure> {
    let served = listener::is_served(path).map_err(|error| {
        let message = format_args!("{}: cannot look whether somebody listens there: {error}", path.display());
        Failure::new(Exit::No, message)
    })?;
    if !served {
        return Ok(Exit::Yes);
    }
    match who_listens(path) {
        Ok(Some(SYSTEMD)) => Ok(Exit::Yes),
        // Gone since.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(Exit::Yes)
        }
        found => {
            // Who called listen(2) may have left the socket to another and gone: Dovecot goes into the background so.
            let who = match holder(path).or(found.ok().flatten()) {
                Some(pid) => program(pid),
                None => "a program that cannot be seen from here".to_owned(),
            };
            let path = path.display();
            let message = format_args!(
                "{path}: {who} listens there, so this socket stays with it; stop it, or take this socket out of its configuration"
            );
            Err(Failure::new(Exit::No, message))
        }
    }
}

/// The process that called listen(2); `None` if it is out of sight, as from inside a container.
fn who_listens(path: &Path) -> io::Result<Option<i32>> {
    // Does not wait: somebody with a full backlog just is not named.
    let stream = connect(path)?;
    let pid = getsockopt(&stream, sockopt::PeerCredentials)?.pid();
    Ok((pid > 0).then_some(pid))
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// The first process that has the socket listening at this path open, if we may look.
fn holder(path: &Path) -> Option<i32> {
    // Number, references, protocol, flags, type, state, inode, path; the flag is the kernel's __SO_ACCEPTCON.
    let sockets = fs::read_to_string("/proc/net/unix").ok()?;
    let inode = sockets.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, flags, _, _, inode, name] = columns[..] else { return None };
        (flags == "00010000" && Path::new(name) == path).then_some(inode)
    })?;
    let socket = format!("socket:[{inode}]");
    let has_it = |pid: &i32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|found| found == Path::new(&socket))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<i32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().find(has_it)
}

/// `dovecot (process 123)`.
fn program(pid: i32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (process {pid})", name.trim_end()),
        Err(_) => format!("what process {pid}, which is gone, left behind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    #[test]
    fn nobody_and_a_stale_file_are_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        assert_eq!(guard(&path).unwrap(), Exit::Yes);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert_eq!(guard(&path).unwrap(), Exit::Yes);
    }

    #[test]
    fn somebody_alive_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        let _alive = UnixListener::bind(&path).unwrap();
        let Failure { exit, message } = guard(&path).unwrap_err();
        assert_eq!(exit, 1);
        assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn who_inherited_the_socket_is_named_and_not_who_made_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        let socket = UnixListener::bind(&path).unwrap();
        let mut heir = Command::new("sleep").arg("60").stdin(OwnedFd::from(socket)).spawn().unwrap();
        let message = guard(&path).unwrap_err().message;
        heir.kill().unwrap();
        heir.wait().unwrap();
        assert!(message.contains(&format!("sleep (process {})", heir.id())), "{message}");
    }
}
