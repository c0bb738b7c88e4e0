//! The sockets that mail servers connect to: bound here or inherited from systemd.
//!
//! A Unix socket gets its name when it is ready ([`unnamed`](super::unnamed)), so nobody ever finds it with other rights
//! or before it listens. What is at the path already is asked first: if somebody listens there, his socket stays and we
//! refuse to start; a stale file is replaced.
//!
//! Every failure is a [`BindError`] that names the socket and the step.

use super::unnamed::UnnamedSocket;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::{Gid, Uid};
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio::net::TcpSocket;

/// Connections that may wait to be accepted over TCP: Postfix starts its processes in bursts.
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

impl Endpoint {
    /// Whether a socket bound for the other one serves this one too, but for who may connect.
    #[must_use]
    pub fn is_same_socket(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { address, .. }, Self::Tcp { address: other, .. }) => address == other,
            (Self::Unix { .. }, Self::Unix { .. }) => {
                let without_peers = |endpoint: &Self| match endpoint.clone() {
                    Self::Unix { path, owner, group, mode, .. } => {
                        Self::Unix { path, owner, group, mode, peers: Vec::new() }
                    }
                    tcp @ Self::Tcp { .. } => tcp,
                };
                without_peers(self) == without_peers(other)
            }
            _ => false,
        }
    }

    fn access(&self) -> Access {
        match self {
            Self::Unix { peers, .. } if peers.is_empty() => Access::Anybody,
            Self::Unix { peers, .. } => Access::Users(peers.clone()),
            Self::Tcp { allow, .. } => Access::Networks(allow.clone()),
        }
    }
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
    access: ArcSwap<Access>,
    name: String,
}

/// A listener that is ready, but for its name: clients do not find it yet.
pub struct Prepared {
    socket: PreparedSocket,
    access: ArcSwap<Access>,
    name: String,
}

enum PreparedSocket {
    Unix(UnnamedSocket),
    Tcp(tokio::net::TcpListener),
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

impl Accepted {
    /// Sends as much as the socket takes at once, and says how much that was.
    ///
    /// # Errors
    /// What write(2) says, such as that the socket is full or the client gone.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => (&mut &*stream).write(bytes),
            Self::Tcp(stream) => (&mut &*stream).write(bytes),
        }
    }
}

/// What came of an attempt to accept.
pub enum Accept {
    /// A connection to serve.
    Connection(Accepted),
    /// Somebody who may not connect: closed, and who it was.
    Stranger(String),
}

impl Listener {
    /// Makes a socket that [`Prepared::place`] puts where clients look for it. Needs a runtime's context.
    ///
    /// # Errors
    /// See [`BindError`]. Everything is as it was then.
    pub fn prepare(endpoint: &Endpoint) -> Result<Prepared, BindError> {
        let name = endpoint.to_string();
        let access = ArcSwap::from_pointee(endpoint.access());
        match endpoint {
            Endpoint::Unix { path, owner, group, mode, .. } => {
                let socket = PreparedSocket::Unix(UnnamedSocket::bind(path, *owner, *group, *mode)?);
                Ok(Prepared { socket, access, name })
            }
            Endpoint::Tcp { address, .. } => {
                let failed =
                    |step| move |source| BindError::System { endpoint: address.to_string(), step, source };
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
                    .map_err(failed("make a socket"))?;
                socket.set_reuseaddr(true).map_err(failed("set SO_REUSEADDR"))?;
                socket.bind(*address).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => BindError::AlreadyServed(address.to_string()),
                    _ => failed("bind")(source),
                })?;
                let socket = PreparedSocket::Tcp(socket.listen(BACKLOG).map_err(failed("listen"))?);
                Ok(Prepared { socket, access, name })
            }
        }
    }

    /// From now on, only those may connect whom this endpoint lets in.
    pub fn set_access(&self, endpoint: &Endpoint) {
        self.access.store(Arc::new(endpoint.access()));
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
                Ok(Self { socket, file: None, access: ArcSwap::from_pointee(Access::Anybody), name })
            }
            Inherited::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let name = listener.local_addr()?.to_string();
                let socket = Socket::Tcp(tokio::net::TcpListener::from_std(listener)?);
                let access = ArcSwap::from_pointee(Access::Networks(loopback()));
                Ok(Self { socket, file: None, access, name })
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
                if let Access::Users(users) = &**self.access.load() {
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
                if let Access::Networks(networks) = &**self.access.load()
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
        self.file.as_ref().is_none_or(|(path, identity)| match identity_of(path) {
            Ok(found) => found == *identity,
            // Rights were given away since, and Postfix's directory is closed to others: nobody can tell.
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        })
    }
}

impl Prepared {
    /// Puts the socket where clients look for it, in place of a stale one or of our own. Needs a runtime's context.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn place(self) -> Result<Listener, BindError> {
        let Self { socket, access, name } = self;
        let (socket, file) = match socket {
            PreparedSocket::Unix(socket) => {
                let path = socket.path().to_owned();
                let failed = |step| {
                    let endpoint = path.display().to_string();
                    move |source| BindError::System { endpoint, step, source }
                };
                let socket = socket.place()?;
                let identity = identity_of(&path).map_err(failed("find"))?;
                let socket =
                    tokio::net::UnixListener::from_std(socket).map_err(failed("wait for clients"))?;
                (Socket::Unix(socket), Some((path, identity)))
            }
            PreparedSocket::Tcp(socket) => (Socket::Tcp(socket), None),
        };
        Ok(Listener { socket, file, access, name })
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

/// Whether somebody listens at the path. Does not wait for him to accept.
///
/// # Errors
/// When the operating system does not let us look.
pub fn is_served(path: &Path) -> io::Result<bool> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .and_then(|probe| connect(probe.as_raw_fd(), &UnixAddr::new(path)?));
    match probe {
        // A full backlog has an owner.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        Err(Errno::EACCES) => Err(Errno::EACCES.into()),
        Err(_) => Ok(false),
    }
}

/// Leaves a socket to whoever serves it.
///
/// # Errors
/// [`BindError::AlreadyServed`]: somebody does.
pub fn refuse_if_served(endpoint: &Endpoint) -> Result<(), BindError> {
    match endpoint {
        Endpoint::Unix { path, .. } => refuse_if_served_at(path),
        // Binding a TCP address tells.
        Endpoint::Tcp { .. } => Ok(()),
    }
}

/// The same for the Unix socket at a path.
///
/// # Errors
/// As [`refuse_if_served`].
pub fn refuse_if_served_at(path: &Path) -> Result<(), BindError> {
    let endpoint = path.display().to_string();
    match is_served(path) {
        Ok(true) => Err(BindError::AlreadyServed(endpoint)),
        Ok(false) => Ok(()),
        Err(source) => {
            Err(BindError::System { endpoint, step: "look whether somebody listens there", source })
        }
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixSocket;

    fn unix(path: &Path) -> Endpoint {
        Endpoint::Unix { path: path.into(), owner: None, group: None, mode: 0o640, peers: Vec::new() }
    }

    fn bind(endpoint: &Endpoint) -> Result<Listener, BindError> {
        refuse_if_served(endpoint)?;
        Listener::prepare(endpoint)?.place()
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_has_the_mode_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        drop(UnixListener::bind(&path).unwrap());
        let listener = bind(&unix(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(listener.is_in_place());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary stays behind");
    }

    #[tokio::test]
    async fn a_living_server_keeps_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        let other = UnixListener::bind(&path).unwrap();
        assert!(matches!(bind(&unix(&path)), Err(BindError::AlreadyServed(_))));
        UnixStream::connect(&path).unwrap();
        drop(other);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&unix(&path)), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_for_clients_is_refused_although_the_temporary_name_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x".repeat(110));
        assert!(matches!(bind(&unix(&path)), Err(BindError::System { step: "bind", .. })));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_full_backlog_has_an_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _listening = socket.listen(1).unwrap();
        let _waiting: Vec<_> = (0..2).map(|_| UnixStream::connect(&path).unwrap()).collect();
        assert!(matches!(refuse_if_served(&unix(&path)), Err(BindError::AlreadyServed(_))));
    }

    #[tokio::test]
    async fn two_sockets_in_one_directory_are_prepared_side_by_side() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["auth", "metrics"].map(|name| directory.path().join(name));
        let prepared = paths.each_ref().map(|path| Listener::prepare(&unix(path)).unwrap());
        let placed = prepared.map(|prepared| prepared.place().unwrap());
        assert!(placed.iter().all(Listener::is_in_place));
    }

    #[tokio::test]
    async fn what_was_only_prepared_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        drop(Listener::prepare(&unix(&path)).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_our_own_socket_file_is_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        let listener = bind(&unix(&path)).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!listener.is_in_place());
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
