//! The sockets that mail servers connect to: bound here or inherited from systemd.
//!
//! A Unix socket is bound under a temporary name, gets its owner and mode, and is then renamed into place, so nobody
//! ever finds it with other rights or before it listens. What is at the path already is asked first: if somebody
//! listens there, his socket stays and we refuse to start; a stale file is replaced.
//!
//! Every failure is a [`BindError`] that names the socket and the step.

use ipnet::IpNet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chown};
use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Connections that may wait to be accepted: Postfix starts its processes in bursts.
const BACKLOG: u32 = 4_096;

/// A socket as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix stream socket.
    Unix {
        /// Absolute path.
        path: PathBuf,
        /// Who owns it; `None` leaves it to us.
        owner: Option<Uid>,
        /// Its group; `None` leaves it to us.
        group: Option<Gid>,
        /// Its permission bits.
        mode: u32,
        /// The only users that may connect; empty means all whom the mode lets in.
        peers: Vec<Uid>,
    },
    /// TCP, as in Postfix's `inet:host:port`.
    Tcp {
        /// Where to listen.
        address: SocketAddr,
        /// Whose connections are taken.
        allow: Vec<IpNet>,
    },
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix { path, .. } => path.display().fmt(f),
            Self::Tcp { address, .. } => address.fmt(f),
        }
    }
}

/// A socket cannot be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another server answers there.
    #[error("{0}: another server listens there already; stop it, or configure another path")]
    AlreadyServed(String),
    /// Something that is not a socket is at the path.
    #[error("{0}: exists and is not a socket; remove it or configure another path")]
    NotASocket(String),
    /// The operating system says no.
    #[error("{endpoint}: cannot {step}: {source}{hint}", hint = hint(source))]
    System {
        /// Which socket.
        endpoint: String,
        /// What was tried.
        step: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; the directory has to exist",
        io::ErrorKind::PermissionDenied => "; root may, or see \"Who runs sasld\" in docs/configuration.md",
        io::ErrorKind::AddrInUse => "; another program has this port",
        _ => "",
    }
}

/// A listening socket.
pub struct Listener {
    socket: Socket,
    /// What to remove at the end: our own socket file, known by its device and inode.
    file: Option<(PathBuf, (u64, u64))>,
    access: Access,
    name: String,
}

enum Socket {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

/// A socket that somebody else has bound, such as systemd.
#[derive(Debug)]
pub enum Inherited {
    /// A Unix stream socket; its mode decides who may connect.
    Unix(UnixListener),
    /// A TCP socket; only this machine may connect.
    Tcp(TcpListener),
}

/// Who may use a listener.
enum Access {
    /// Whoever the socket's mode lets in.
    Anybody,
    Users(Vec<Uid>),
    Networks(Vec<IpNet>),
}

/// A connection, not yet given to a runtime.
pub enum Accepted {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

/// What came of an attempt to accept.
pub enum Accept {
    /// A connection to serve.
    Connection(Accepted),
    /// Somebody who may not connect: closed, and who it was.
    Stranger(String),
}

impl Listener {
    /// Binds a socket. Needs a runtime's context.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        if let Endpoint::Unix { path, .. } = endpoint
            && is_alive(path)
        {
            return Err(BindError::AlreadyServed(path.display().to_string()));
        }
        Self::rebind(endpoint)
    }

    /// Binds a socket that takes the place of our own at the same path.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn rebind(endpoint: &Endpoint) -> Result<Self, BindError> {
        match endpoint {
            Endpoint::Unix { path, owner, group, mode, peers } => {
                let access = if peers.is_empty() { Access::Anybody } else { Access::Users(peers.clone()) };
                let (listener, identity) = bind_unix(path, *owner, *group, *mode)?;
                let file = Some((path.clone(), identity));
                Ok(Self { socket: Socket::Unix(listener), file, access, name: endpoint.to_string() })
            }
            Endpoint::Tcp { address, allow } => {
                let failed =
                    |step| move |source| BindError::System { endpoint: address.to_string(), step, source };
                let socket = if address.is_ipv4() {
                    tokio::net::TcpSocket::new_v4()
                } else {
                    tokio::net::TcpSocket::new_v6()
                }
                .map_err(failed("make a socket"))?;
                socket.set_reuseaddr(true).map_err(failed("set SO_REUSEADDR"))?;
                socket.bind(*address).map_err(failed("bind"))?;
                let socket = Socket::Tcp(socket.listen(BACKLOG).map_err(failed("listen"))?);
                Ok(Self {
                    socket,
                    file: None,
                    access: Access::Networks(allow.clone()),
                    name: address.to_string(),
                })
            }
        }
    }

    /// Takes a socket over. Needs a runtime's context.
    ///
    /// # Errors
    /// When the operating system cannot tell its address or make it non-blocking.
    pub fn inherit(socket: Inherited) -> io::Result<Self> {
        match socket {
            Inherited::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                let path = address.as_pathname().map(|path| path.display().to_string());
                let name = path.unwrap_or_else(|| "inherited".to_owned());
                let socket = Socket::Unix(tokio::net::UnixListener::from_std(listener)?);
                Ok(Self { socket, file: None, access: Access::Anybody, name })
            }
            Inherited::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let name = listener.local_addr()?.to_string();
                let socket = Socket::Tcp(tokio::net::TcpListener::from_std(listener)?);
                Ok(Self { socket, file: None, access: Access::Networks(loopback()), name })
            }
        }
    }

    /// What the log calls it: its path or address.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// As accept(2) does.
    pub async fn accept(&self) -> io::Result<Accept> {
        match &self.socket {
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                if let Access::Users(users) = &self.access {
                    let peer = stream.peer_cred()?.uid();
                    if !users.iter().any(|user| user.as_raw() == peer) {
                        return Ok(Accept::Stranger(format!("uid {peer}")));
                    }
                }
                Ok(Accept::Connection(Accepted::Unix(stream.into_std()?)))
            }
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let address = peer.ip().to_canonical();
                if let Access::Networks(networks) = &self.access
                    && !networks.iter().any(|network| network.contains(&address))
                {
                    return Ok(Accept::Stranger(peer.to_string()));
                }
                stream.set_nodelay(true)?;
                Ok(Accept::Connection(Accepted::Tcp(stream.into_std()?)))
            }
        }
    }

    /// Whether clients still find this socket where it was bound.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.file
            .as_ref()
            .is_none_or(|(path, identity)| identity_of(path).is_ok_and(|found| found == *identity))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Only our own file: somebody may have taken the name over meanwhile.
        if let Some((path, _)) = self.file.as_ref().filter(|_| self.is_in_place()) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The networks of this machine alone.
#[must_use]
pub fn loopback() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()).collect()
}

/// A Unix socket at `path` and the identity of its file.
fn bind_unix(
    path: &Path,
    owner: Option<Uid>,
    group: Option<Gid>,
    mode: u32,
) -> Result<(tokio::net::UnixListener, (u64, u64)), BindError> {
    let failed =
        |step| move |source| BindError::System { endpoint: path.display().to_string(), step, source };
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(BindError::NotASocket(path.display().to_string()));
    }
    let temporary = temporary_beside(path);
    let _ = fs::remove_file(&temporary);
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = tokio::net::UnixSocket::new_stream().and_then(|socket| {
        socket.bind(&temporary)?;
        socket.listen(BACKLOG)
    });
    umask(before);
    let listener = bound.map_err(failed("bind"))?;
    let placed = fs::set_permissions(&temporary, Permissions::from_mode(mode))
        .map_err(failed("set the mode"))
        .and_then(|()| {
            chown(&temporary, owner, group).map_err(io::Error::from).map_err(failed("set owner and group"))
        })
        .and_then(|()| fs::rename(&temporary, path).map_err(failed("rename into place")))
        .and_then(|()| identity_of(path).map_err(failed("find again")));
    match placed {
        Ok(identity) => Ok((listener, identity)),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// A name in the same directory, no longer than the path itself where that matters.
fn temporary_beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{:x}", std::process::id()))
}

fn is_alive(path: &Path) -> bool {
    match UnixStream::connect(path) {
        Ok(_) => true,
        // A full backlog has an owner, and so may a socket that we may not use. What is no socket at all is refused
        // later, with its own words.
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::PermissionDenied),
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(path: &Path) -> Endpoint {
        Endpoint::Unix { path: path.into(), owner: None, group: None, mode: 0o640, peers: Vec::new() }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_has_the_mode_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&unix(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(listener.is_in_place());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary stays behind");
    }

    #[tokio::test]
    async fn a_living_server_keeps_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        let other = UnixListener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&unix(&path)), Err(BindError::AlreadyServed(_))));
        UnixStream::connect(&path).unwrap();
        drop(other);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(&unix(&path)), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn only_our_own_socket_file_is_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        let listener = Listener::bind(&unix(&path)).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!listener.is_in_place());
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
