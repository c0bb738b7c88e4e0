//! One who logs in, as a mail server lets him: over the Dovecot auth protocol with PLAIN, or to saslauthd.
//!
//! Blocks until there is an answer; whoever waits in vain is freed when the server ends. A closed connection, and a FAIL
//! that calls itself temporary, are no verdict, as Postfix takes them. Anything else than OK and FAIL, or than saslauthd's
//! OK and NO, is an error, and so is a server that takes no connection.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::Path,
    process,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::server::{Kind, Server};

/// Who logs in, from where.
pub struct Login {
    pub user: String,
    pub password: String,
    pub address: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// Postfix tells the client to try again later.
    Undecided,
}

/// Where to ask; outlives the server, so that there is somebody to ask in vain.
#[derive(Clone, Copy)]
pub struct Door<'s> {
    socket: &'s Path,
    kind: Kind,
}

impl<'s> Door<'s> {
    /// `socket` is a copy of the server's.
    pub fn of(server: &Server, socket: &'s Path) -> Self {
        Self { socket, kind: server.kind }
    }
}

pub struct Caller<'s> {
    door: Door<'s>,
    /// An open connection of the Dovecot protocol.
    stream: Option<BufReader<UnixStream>>,
    /// The last request id used.
    id: u32,
}

impl<'s> Caller<'s> {
    pub fn new(door: Door<'s>) -> Self {
        Self { door, stream: None, id: 0 }
    }

    /// Shakes hands, unless that is done, as smtpd does long before its client logs in. saslauthd knows no handshake.
    pub fn connect(&mut self) -> io::Result<()> {
        if self.door.kind == Kind::Saslauthd || self.stream.is_some() {
            return Ok(());
        }
        let mut stream = UnixStream::connect(self.door.socket)?;
        stream.write_all(format!("VERSION\t1\t0\nCPID\t{}\n", process::id()).as_bytes())?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while line != "DONE\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::Error::other("connection closed during the handshake"));
            }
        }
        self.stream = Some(stream);
        Ok(())
    }

    pub fn log_in(&mut self, login: &Login) -> io::Result<Verdict> {
        if self.door.kind == Kind::Saslauthd {
            return ask_saslauthd(self.door.socket, login);
        }
        self.connect()?;
        self.id += 1;
        let verdict = match &mut self.stream {
            Some(stream) => ask(stream, self.id, login)?,
            None => Verdict::Undecided,
        };
        if verdict == Verdict::Undecided {
            // It may be closed; a new one is as good.
            self.stream = None;
        }
        Ok(verdict)
    }
}

fn ask(stream: &mut BufReader<UnixStream>, id: u32, login: &Login) -> io::Result<Verdict> {
    let Login { user, password, address } = login;
    let response = STANDARD.encode(format!("\0{user}\0{password}"));
    let question = format!(
        "AUTH\t{id}\tPLAIN\tservice=smtp\tnologin\tlip=192.0.2.200\trip={address}\tsecured\tresp={response}\n"
    );
    let mut answer = String::new();
    let asked = stream.get_mut().write_all(question.as_bytes());
    if asked.and_then(|()| stream.read_line(&mut answer)).unwrap_or(0) == 0 {
        return Ok(Verdict::Undecided);
    }
    let mut fields = answer.trim_end().split('\t');
    let (word, answered) = (fields.next(), fields.next());
    match word {
        Some("OK" | "FAIL") if answered != Some(id.to_string().as_str()) => Err(unexpected(&answer)),
        Some("OK") if fields.any(|field| field == format!("user={user}")) => Ok(Verdict::Yes),
        Some("FAIL") if fields.any(|field| field == "temp" || field == "code=temp_fail") => {
            Ok(Verdict::Undecided)
        }
        Some("FAIL") => Ok(Verdict::No),
        _ => Err(unexpected(&answer)),
    }
}

/// A connection for each question: name, password, service and realm, each behind its length in two bytes. The answer
/// comes in the same form.
fn ask_saslauthd(socket: &Path, login: &Login) -> io::Result<Verdict> {
    let mut question = Vec::new();
    for text in [&login.user, &login.password, "smtp", ""] {
        question.extend_from_slice(&u16::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes());
        question.extend_from_slice(text.as_bytes());
    }
    let mut stream = UnixStream::connect(socket)?;
    let mut answer = Vec::new();
    if stream.write_all(&question).and_then(|()| stream.read_to_end(&mut answer)).unwrap_or(0) < 4 {
        return Ok(Verdict::Undecided);
    }
    match &answer[2..4] {
        b"OK" => Ok(Verdict::Yes),
        b"NO" => Ok(Verdict::No),
        _ => Err(unexpected(&String::from_utf8_lossy(&answer))),
    }
}

fn unexpected(answer: &str) -> io::Error {
    io::Error::other(format!("unexpected answer {answer:?}"))
}
