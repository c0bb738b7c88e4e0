//! One connection of the load client: the handshake, then one login at a time.
//!
//! Relies on the server answering a login that is alone on its connection with one line at a time. Every reply is
//! checked: its id, and the name in `user=`. A reply that does not belong to the login, or a closed connection, is an
//! error that ends the run; a FAIL is reported as a refusal.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    dialog::{Mechanism, User},
};

/// Longest time a server may take for its greeting.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a login stands after [`Connection::advance`].
pub enum Progress {
    Waiting,
    Accepted { since: Instant },
    Refused { since: Instant },
}

/// A login on its way.
struct Login<'u> {
    user: &'u User,
    mechanism: Mechanism,
    challenges_answered: u8,
    since: Instant,
}

pub struct Connection<'u> {
    stream: UnixStream,
    /// The last request id used; ids count up on each connection, as smtpd's do.
    id: u32,
    login: Option<Login<'u>>,
    input: [u8; 1024],
    filled: usize,
    output: Vec<u8>,
}

impl<'u> Connection<'u> {
    /// Connects and shakes hands, blocking; afterwards the connection no longer blocks. `cpid` should differ from
    /// connection to connection.
    pub fn open(socket: &Path, cpid: u32) -> Outcome<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        stream.write_all(format!("VERSION\t1\t0\nCPID\t{cpid}\n").as_bytes())?;

        let mut input = [0; 1024];
        let mut filled = 0;
        while !input[..filled].ends_with(b"\nDONE\n") {
            match stream.read(&mut input[filled..])? {
                0 => return Err("connection closed during the handshake".into()),
                n => filled += n,
            }
        }
        stream.set_nonblocking(true)?;
        Ok(Self { stream, id: 0, login: None, input, filled: 0, output: Vec::with_capacity(512) })
    }

    /// Starts a login. Its latency counts from `since`.
    pub fn begin(&mut self, user: &'u User, mechanism: Mechanism, since: Instant) -> Outcome<()> {
        self.id += 1;
        self.output.clear();
        user.write_auth(mechanism, self.id, &mut self.output);
        self.login = Some(Login { user, mechanism, challenges_answered: 0, since });
        Ok(self.stream.write_all(&self.output)?)
    }

    /// Reads what has arrived and, if it is a challenge, answers it. `canned_user` is the name a server that knows no
    /// users puts into every OK.
    pub fn advance(&mut self, canned_user: Option<&str>) -> Outcome<Progress> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err("connection closed by the server, or a line too long".into()),
            Ok(n) => self.filled += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waiting),
            Err(e) => return Err(e.into()),
        }
        let Some(line) = self.input[..self.filled].strip_suffix(b"\n") else {
            return Ok(Progress::Waiting);
        };
        self.filled = 0;

        let Some(login) = &mut self.login else {
            return Err(unexpected(line));
        };
        let mut fields = line.split(|&byte| byte == b'\t');
        let (word, id) = (fields.next(), fields.next());
        if id.and_then(decimal) != Some(self.id) || line.contains(&b'\n') {
            return Err(unexpected(line));
        }
        let since = login.since;
        match word {
            Some(b"OK") => {
                let name = canned_user.unwrap_or(&login.user.name).as_bytes();
                if !fields.any(|field| field.strip_prefix(b"user=") == Some(name)) {
                    return Err(unexpected(line));
                }
                self.login = None;
                Ok(Progress::Accepted { since })
            }
            Some(b"FAIL") => {
                self.login = None;
                Ok(Progress::Refused { since })
            }
            Some(b"CONT") => {
                let challenge = fields.next().unwrap_or_default();
                let nth = login.challenges_answered;
                login.challenges_answered += 1;
                self.output.clear();
                login.user.write_cont(login.mechanism, self.id, nth, challenge, &mut self.output)?;
                self.stream.write_all(&self.output)?;
                Ok(Progress::Waiting)
            }
            _ => Err(unexpected(line)),
        }
    }
}

impl AsFd for Connection<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn decimal(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn unexpected(line: &[u8]) -> Box<dyn std::error::Error + Send + Sync> {
    format!("unexpected reply {:?}", String::from_utf8_lossy(line)).into()
}
