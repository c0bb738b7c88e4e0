//! The mail server's side of the Dovecot auth protocol: connect, read the greeting, log one user in at a time.
//!
//! Blocking, for the commands. It takes what every server of the protocol sends, Dovecot 2.3 and 2.4 included, and
//! ignores what it does not know, as Postfix does. A reply that never comes and a connection that is lost are the
//! same [`Outcome::Closed`]: both become 454.
#![forbid(unsafe_code)]

use crate::credential::Password;
use crate::sasl::Mechanism;
use crate::wire::field::{key_value, unescape};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use nix::sys::socket::sockopt::{PeerCredentials, SendTimeout};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest line taken from a server.
const MAX_LINE_BYTES: u64 = 16 << 10;

/// Most lines of a greeting: whoever sends more is no auth server.
const MAX_GREETING_LINES: usize = 256;

/// A connection to an auth server, greeted.
pub struct Client {
    reader: BufReader<Box<dyn Connection>>,
    greeting: Greeting,
    listener: Option<Listener>,
    last_id: u32,
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// What a server says before anything is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The minor version; the major one is 1.
    pub minor: u32,
    /// What it offers, in its order.
    pub mechanisms: Vec<Offer>,
    /// The process that serves the connection, as the server numbers it.
    pub spid: Option<u32>,
    /// The server's number for this connection.
    pub cuid: Option<u32>,
    /// Whether there was a cookie. What it is stays here: Dovecot lets its holder collect logins.
    pub cookie: bool,
}

/// One mechanism of a [`Greeting`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// As the server writes it.
    pub name: String,
    /// `plaintext`, `dictionary`, `active`, `private`, …: what `smtpd_sasl_security_options` goes by.
    pub properties: Vec<String>,
}

/// The process that made a Unix socket listen (`SO_PEERCRED`): the server itself, or systemd for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its process id; 0 if it is in another namespace.
    pub pid: i32,
    /// Its user id.
    pub uid: u32,
}

/// How a login ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// OK.
    Accepted {
        /// The name the server knows the user by.
        user: String,
    },
    /// FAIL.
    Refused {
        /// The server's reason.
        reason: Option<String>,
        /// It says that it could not find out.
        temporary: bool,
    },
    /// No answer.
    Closed,
}

/// Why there is no connection to log in through.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody is there, or we may not talk to him.
    #[error("{socket}: cannot connect: {source}{hint}", hint = connect_hint(source))]
    Connect {
        /// Where.
        socket: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Somebody is there but has not greeted.
    #[error("{socket}: connected, but no complete greeting came: {source}{hint}", hint = greeting_hint(source))]
    NoGreeting {
        /// Where.
        socket: String,
        /// What happened instead.
        source: io::Error,
    },
    /// He speaks something else.
    #[error("{socket}: {what}")]
    Nonsense {
        /// Where.
        socket: String,
        /// What is wrong.
        what: String,
    },
}

fn connect_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; is the server running, and is this the path it listens on?",
        io::ErrorKind::ConnectionRefused => "; the socket is left over, nobody listens on it",
        io::ErrorKind::PermissionDenied => "; run this as root or as the mail server's user",
        io::ErrorKind::WouldBlock => "; somebody listens there and accepts no connections",
        _ => "",
    }
}

fn greeting_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            "; the server turned us away: does it let this user connect (peers or allow in its configuration)?"
        }
        _ => "; is this the socket of an auth server?",
    }
}

impl Client {
    /// Connects to a Unix socket, or to `host:port`, and reads the greeting. Every wait is at most `patience`, that for
    /// room in a backlog included.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connect(socket: &str, patience: Duration) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { socket: socket.to_owned(), source };
        let (connection, listener): (Box<dyn Connection>, _) = if is_path(socket) {
            let stream = connect_unix(socket, patience).map_err(failed)?;
            stream.set_read_timeout(Some(patience)).map_err(failed)?;
            let credentials = getsockopt(&stream, PeerCredentials).ok();
            let listener = credentials.map(|found| Listener { pid: found.pid(), uid: found.uid() });
            (Box::new(stream), listener)
        } else {
            let stream = connect_tcp(socket, patience).map_err(failed)?;
            stream.set_read_timeout(Some(patience)).map_err(failed)?;
            stream.set_write_timeout(Some(patience)).map_err(failed)?;
            (Box::new(stream), None)
        };
        Self::greeted(connection, listener, socket)
    }

    /// Reads the greeting of a connection that exists already, whatever it is made of; errors call it `socket`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn over(connection: impl Read + Write + 'static, socket: &str) -> Result<Self, ClientError> {
        Self::greeted(Box::new(connection), None, socket)
    }

    fn greeted(
        connection: Box<dyn Connection>,
        listener: Option<Listener>,
        socket: &str,
    ) -> Result<Self, ClientError> {
        let reader = BufReader::new(connection);
        let mut client = Self { reader, greeting: Greeting::default(), listener, last_id: 0 };
        client.greeting = client.greet(socket)?;
        Ok(client)
    }

    fn greet(&mut self, socket: &str) -> Result<Greeting, ClientError> {
        let silent = |source| ClientError::NoGreeting { socket: socket.to_owned(), source };
        let nonsense =
            |what: &str| ClientError::Nonsense { socket: socket.to_owned(), what: what.to_owned() };
        let hello = format!("VERSION\t1\t0\nCPID\t{}\n", std::process::id());
        self.reader.get_mut().write_all(hello.as_bytes()).map_err(silent)?;
        let mut greeting = Greeting::default();
        for _ in 0..MAX_GREETING_LINES {
            let line = self.line().map_err(silent)?;
            let fields: Vec<&str> = line.split('\t').collect();
            let number = || fields.get(1).and_then(|field| field.parse().ok());
            match fields[..] {
                ["VERSION", "1", minor, ..] => greeting.minor = minor.parse().unwrap_or_default(),
                ["VERSION", ..] => return Err(nonsense("speaks another major version of the protocol")),
                ["MECH", name, ref properties @ ..] => greeting.mechanisms.push(Offer {
                    name: name.to_owned(),
                    properties: properties.iter().map(|&property| property.to_owned()).collect(),
                }),
                ["SPID", ..] if greeting.mechanisms.is_empty() => {
                    return Err(nonsense(
                        "is not an auth-client socket (no mechanism before SPID); Dovecot's master \
                                         and userdb sockets look like this",
                    ));
                }
                ["SPID", ..] => greeting.spid = number(),
                ["CUID", ..] => greeting.cuid = number(),
                ["COOKIE", ..] => greeting.cookie = true,
                ["DONE", ..] => return Ok(greeting),
                _ => {}
            }
        }
        Err(nonsense("its greeting has no end"))
    }

    /// What the server said first.
    #[must_use]
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// The names of what it offers, in its order.
    #[must_use]
    pub fn mechanisms(&self) -> Vec<String> {
        self.greeting.mechanisms.iter().map(|offer| offer.name.clone()).collect()
    }

    /// Who listens there; `None` over TCP.
    #[must_use]
    pub fn listener(&self) -> Option<Listener> {
        self.listener
    }

    /// Logs a user in. `parameters` are those of AUTH between the mechanism and `resp=`, TAB-separated.
    ///
    /// # Errors
    /// When the server's replies make no sense; the connection is then of no more use.
    pub fn log_in(
        &mut self,
        mechanism: Mechanism,
        parameters: &str,
        user: &str,
        password: &Password,
    ) -> Result<Outcome, ClientError> {
        match self.exchange(mechanism, parameters, user, password) {
            Ok(outcome) => Ok(outcome),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(ClientError::Nonsense { socket: "server".to_owned(), what: error.to_string() })
            }
            Err(_) => Ok(Outcome::Closed),
        }
    }

    fn exchange(
        &mut self,
        mechanism: Mechanism,
        parameters: &str,
        user: &str,
        password: &Password,
    ) -> io::Result<Outcome> {
        self.last_id += 1;
        let id = self.last_id;
        let mut responses = match mechanism {
            Mechanism::Plain => vec![plain(user, password)],
            Mechanism::Login => {
                vec![Zeroizing::new(user.as_bytes().to_vec()), Zeroizing::new(password.as_bytes().to_vec())]
            }
            Mechanism::CramMd5 => Vec::new(),
        }
        .into_iter();
        let mut auth = Zeroizing::new(format!("AUTH\t{id}\t{mechanism}\t{parameters}"));
        if mechanism == Mechanism::Plain
            && let Some(response) = responses.next()
        {
            auth.push_str("\tresp=");
            BASE64_STANDARD.encode_string(&*response, &mut auth);
        }
        auth.push('\n');
        self.reader.get_mut().write_all(auth.as_bytes())?;
        loop {
            let line = self.line()?;
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                [word, answered, ..] if answered.parse() != Ok(id) || word.is_empty() => {}
                ["OK", _, ..] => {
                    let user = value(&fields, "user").ok_or_else(|| nonsense("OK without user="))?;
                    return Ok(Outcome::Accepted { user });
                }
                ["FAIL", _, ..] => {
                    let temporary =
                        fields.contains(&"temp") || value(&fields, "code").as_deref() == Some("temp_fail");
                    return Ok(Outcome::Refused { reason: value(&fields, "reason"), temporary });
                }
                ["CONT", _, challenge] => {
                    let response = match mechanism {
                        Mechanism::CramMd5 => cram_md5_response(user, password, challenge)?,
                        Mechanism::Plain | Mechanism::Login => {
                            responses.next().ok_or_else(|| nonsense("one challenge too many"))?
                        }
                    };
                    let mut cont = Zeroizing::new(format!("CONT\t{id}\t"));
                    BASE64_STANDARD.encode_string(&*response, &mut cont);
                    cont.push('\n');
                    self.reader.get_mut().write_all(cont.as_bytes())?;
                }
                _ => return Err(nonsense("a reply that is not OK, FAIL or CONT")),
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        String::from_utf8(line).map_err(|_| nonsense("a line that is not UTF-8"))
    }
}

/// Whether this is a path and not `host:port`, as Exim and Dovecot tell them apart.
fn is_path(socket: &str) -> bool {
    socket.contains('/') || !socket.contains(':')
}

/// A connection to a path; a full backlog is waited for as long as `patience`, where connect(2) would wait for ever.
fn connect_unix(path: &str, patience: Duration) -> io::Result<UnixStream> {
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&stream, SendTimeout, &TimeVal::new(seconds, patience.subsec_micros().into()))?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(stream))
}

fn connect_tcp(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn plain(user: &str, password: &Password) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
    message.push(0);
    message.extend_from_slice(user.as_bytes());
    message.push(0);
    message.extend_from_slice(password.as_bytes());
    message
}

/// What answers a CRAM-MD5 challenge (RFC 2195 §2), which is in base64.
///
/// # Errors
/// When it is not.
pub(crate) fn cram_md5_response(
    user: &str,
    password: &Password,
    challenge: &str,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let challenge =
        BASE64_STANDARD.decode(challenge).map_err(|_| nonsense("a challenge that is not base64"))?;
    let mut digest =
        Hmac::<Md5>::new_from_slice(password.as_bytes()).expect("HMAC takes a key of any length");
    digest.update(&challenge);
    let mut response = Zeroizing::new(format!("{user} ").into_bytes());
    for byte in digest.finalize().into_bytes() {
        write!(response, "{byte:02x}")?;
    }
    Ok(response)
}

fn value(fields: &[&str], wanted: &str) -> Option<String> {
    fields.iter().find_map(|field| {
        let (key, value) = key_value(field.as_bytes());
        (key == wanted.as_bytes()).then(|| String::from_utf8_lossy(&unescape(value)).into_owned())
    })
}

fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
