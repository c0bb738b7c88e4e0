//! Plays a dialog against a server and says where it went wrong.
//!
//! A server is anything that can be connected to ([`Server`]); time is the server's ([`Server::now`]), so that the
//! same dialog runs in real time over a socket and in virtual time against a session in memory. Whatever the dialog
//! is about, every greeting is checked, no line may arrive unasked, and lines must arrive whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use super::text::Challenges;
use super::{Action, Dialog, Step, Subject};

/// How long an expected line or close may take, unless the dialog says otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that "at once" may take: less than any delay, yet enough for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A greeting must fit one read of the smallest client buffer known.
const GREETING_LIMIT: usize = 1024;

/// Something that speaks the protocol.
pub trait Server {
    /// Opens a connection.
    fn connect(&mut self) -> io::Result<Box<dyn Peer>>;
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Replaces or removes the secrets file, and returns when the server is sure to have noticed.
    fn change_secrets(&mut self, contents: Option<&[u8]>) -> io::Result<()>;
}

/// The server's end of one connection, as its client sees it.
pub trait Peer {
    /// Writes bytes. A connection that the server has closed swallows them.
    fn send(&mut self, bytes: &[u8]);
    /// The client will not write any more.
    fn half_close(&mut self);
    /// What the server does next, within this time (virtual or real).
    fn receive(&mut self, within: Duration) -> Received;
}

/// What a server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A line, without its LF.
    Line(Vec<u8>),
    /// The connection ended, with these bytes of a line that never got its LF.
    Closed {
        torn: Vec<u8>,
    },
    Nothing,
}

/// How the client's bytes are cut into writes.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// As the dialog has them.
    Whole,
    /// One byte per write.
    Bytes,
    /// In chunks of 1 to 40 bytes, different for each seed.
    Random(u64),
}

/// When the next line has to come.
#[derive(Clone, Copy)]
enum Due {
    Sometime,
    AtOnce,
    After(Duration),
}

struct Connection {
    peer: Box<dyn Peer>,
    /// The greeting's lines, until it is complete.
    greeting: Option<Vec<Vec<u8>>>,
    challenges: Challenges,
    sent_at: Duration,
    due: Due,
}

/// Replays `dialog` as the one meant for `subject`.
///
/// # Errors
/// `name.dialog:LINE: what happened instead`, and what was said before.
pub fn replay(dialog: &Dialog, server: &mut dyn Server, subject: Subject, cut: Cut) -> Result<(), String> {
    let greets_late = subject == Subject::Dovecot && dialog.dovecot.is_some();
    let mut replay =
        Replay { server, subject, cut, greets_late, connections: BTreeMap::new(), log: String::new() };
    let steps: Vec<&Step> = dialog.steps_for(subject).collect();
    let mut rest = steps.as_slice();
    while let Some(step) = rest.first() {
        let count = unordered(rest);
        replay.step(&rest[..count], &steps).map_err(|what| {
            format!("{}.dialog:{}: {what}\nas far as it went:\n{}", dialog.name, step.line_number, replay.log)
        })?;
        rest = &rest[count..];
    }
    replay.at_the_end().map_err(|what| {
        format!("{}.dialog: at the end: {what}\nas far as it went:\n{}", dialog.name, replay.log)
    })
}

/// How many steps at the front go together: all neighbours that may come in any order, or one.
fn unordered(steps: &[&Step]) -> usize {
    let together = steps.iter().take_while(|step| {
        step.connection == steps[0].connection
            && matches!(step.action, Action::Expect { any_order: true, .. })
    });
    together.count().max(1)
}

struct Replay<'a> {
    server: &'a mut dyn Server,
    subject: Subject,
    cut: Cut,
    /// A Dovecot 2.4: most of its greeting comes behind the client's VERSION.
    greets_late: bool,
    connections: BTreeMap<String, Connection>,
    log: String,
}

impl Replay<'_> {
    fn step(&mut self, steps: &[&Step], all: &[&Step]) -> Result<(), String> {
        let step = steps[0];
        let name = step.connection.as_str();
        match &step.action {
            Action::Connect { minor } => {
                let peer = self.server.connect().map_err(|e| format!("cannot connect: {e}"))?;
                let connection = Connection {
                    peer,
                    greeting: Some(Vec::new()),
                    challenges: Challenges::new(),
                    sent_at: self.server.now(),
                    due: Due::Sometime,
                };
                if self.connections.insert(name.to_owned(), connection).is_some() {
                    return Err(format!("connection [{name}] is open already"));
                }
                if !self.greets_late && !greeting_is_written_out(name, all) {
                    self.read_greeting(name)?;
                }
                match minor {
                    Some(minor) => self.send(name, format!("VERSION\t1\t{minor}\nCPID\t12345\n").as_bytes()),
                    None => Ok(()),
                }
            }
            Action::Send { lines, unfinished } => {
                let mut bytes = Vec::new();
                for line in lines {
                    bytes.extend_from_slice(&line.bytes(&self.connection(name)?.challenges)?);
                    bytes.push(b'\n');
                }
                if *unfinished {
                    bytes.pop();
                }
                self.send(name, &bytes)
            }
            Action::Expect { .. } => self.expect(name, steps),
            Action::After(time) => {
                self.connection(name)?.due = Due::After(*time);
                Ok(())
            }
            Action::AtOnce => {
                self.connection(name)?.due = Due::AtOnce;
                Ok(())
            }
            Action::Silence(time) => match self.connection(name)?.peer.receive(*time) {
                Received::Nothing => Ok(()),
                other => Err(format!("expected nothing for {time:?}, but: {}", other.shown())),
            },
            Action::ClosedByServer => {
                match self.connection(name)?.peer.receive(PATIENCE) {
                    Received::Closed { torn } if torn.is_empty() => {}
                    other => {
                        return Err(format!("expected the server to close, but: {}", other.shown()));
                    }
                }
                self.connections.remove(name);
                Ok(())
            }
            Action::Close => {
                self.nothing_unread(name)?;
                self.connections.remove(name);
                Ok(())
            }
            Action::HalfClose => {
                self.connection(name)?.peer.half_close();
                Ok(())
            }
            Action::StillWorks => {
                let auth = b"AUTH\t4000000001\tPLAIN\tservice=smtp\tno-penalty\tsecured\tresp=AGFsaWNlAHNlY3JldA==\n";
                self.send(name, auth)?;
                match self.line(name)?.as_slice() {
                    b"OK\t4000000001\tuser=alice" => Ok(()),
                    other => Err(format!("a good login did not succeed: {}", shown(other))),
                }
            }
            Action::Secrets(contents) => {
                let contents = contents.as_ref().map(|line| line.bytes(&Challenges::new())).transpose()?;
                self.server
                    .change_secrets(contents.as_deref())
                    .map_err(|e| format!("cannot change the secrets file: {e}"))
            }
        }
    }

    fn read_greeting(&mut self, name: &str) -> Result<(), String> {
        while self.connection(name)?.greeting.is_some() {
            self.line(name)?;
        }
        Ok(())
    }

    /// Receives as many lines as there are steps and pairs them up.
    fn expect(&mut self, name: &str, steps: &[&Step]) -> Result<(), String> {
        let mut open: Vec<_> = steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Expect { line, .. } => Some(line),
                _ => None,
            })
            .collect();
        let due = self.connection(name)?.due;
        while !open.is_empty() {
            self.connection(name)?.due = due;
            let actual = self.line(name)?;
            let subject = self.subject;
            let challenges = &mut self.connection(name)?.challenges;
            let Some(found) = open.iter().position(|line| line.matches(&actual, subject, challenges)) else {
                return Err(format!("got {}", shown(&actual)));
            };
            open.swap_remove(found);
        }
        Ok(())
    }

    /// The next line from the server, in due time.
    fn line(&mut self, name: &str) -> Result<Vec<u8>, String> {
        let version = if self.greets_late { "VERSION\t1\t3" } else { "VERSION\t1\t2" };
        let connection = self.connection(name)?;
        let received = connection.peer.receive(PATIENCE);
        let Received::Line(line) = received else {
            return Err(received.shown());
        };
        let (sent_at, due) = (connection.sent_at, std::mem::replace(&mut connection.due, Due::Sometime));
        if let Some(greeting) = &mut connection.greeting {
            greeting.push(line.clone());
            if line == b"DONE" {
                check_greeting(greeting, version)?;
                connection.greeting = None;
            }
        }
        self.note('S', name, &line);
        let took = self.server.now().saturating_sub(sent_at);
        match due {
            Due::AtOnce if took > AT_ONCE => {
                Err(format!("{} came after {took:?}, not at once", shown(&line)))
            }
            Due::After(time) if took < time / 2 || took > time * 3 / 2 => {
                Err(format!("{} came after {took:?} instead of about {time:?}", shown(&line)))
            }
            _ => Ok(line),
        }
    }

    fn send(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            self.note('C', name, line.strip_suffix(b"\n").unwrap_or(line));
        }
        let (cut, now) = (self.cut, self.server.now());
        let connection = self.connection(name)?;
        cut.each(bytes, |chunk| connection.peer.send(chunk));
        connection.sent_at = now;
        if self.greets_late { self.read_greeting(name) } else { Ok(()) }
    }

    fn at_the_end(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.connections.keys().cloned().collect();
        names.iter().try_for_each(|name| self.nothing_unread(name))
    }

    fn nothing_unread(&mut self, name: &str) -> Result<(), String> {
        match self.connection(name)?.peer.receive(Duration::ZERO) {
            Received::Nothing => Ok(()),
            other => Err(format!("unasked: {}", other.shown())),
        }
    }

    fn connection(&mut self, name: &str) -> Result<&mut Connection, String> {
        self.connections.get_mut(name).ok_or_else(|| format!("no connection [{name}] is open"))
    }

    fn note(&mut self, who: char, name: &str, line: &[u8]) {
        let name = if name.is_empty() { String::new() } else { format!("[{name}]") };
        let _ = writeln!(self.log, "  {who}{name}: {}", shown(line));
    }
}

/// A greeting that starts the connection's server lines is part of the dialog; otherwise it is read behind its back.
fn greeting_is_written_out(connection: &str, steps: &[&Step]) -> bool {
    let mut expected = steps.iter().filter(|step| step.connection == connection);
    expected
        .find_map(|step| match &step.action {
            Action::Expect { line, .. } => Some(line.starts_with(b"VERSION\t")),
            _ => None,
        })
        .unwrap_or(false)
}

/// What every greeting has to be, whatever the dialog is about.
fn check_greeting(lines: &[Vec<u8>], expected_version: &str) -> Result<(), String> {
    let text: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
    let wrong = |what: &str| Err(format!("greeting: {what}: {text:?}"));
    let size: usize = lines.iter().map(|line| line.len() + 1).sum();
    if size >= GREETING_LIMIT {
        return wrong("1024 bytes or more");
    }
    let [version, mechanisms @ .., spid, cuid, cookie, _done] = text.as_slice() else {
        return wrong("lines missing");
    };
    if version != expected_version {
        return wrong("the VERSION is not first, or another");
    }
    let names: Vec<&str> = mechanisms.iter().filter_map(|line| line.strip_prefix("MECH\t")).collect();
    if names.is_empty() || names.len() != mechanisms.len() {
        return wrong("between VERSION and SPID stand MECH lines, at least one");
    }
    if names
        .iter()
        .any(|line| line.split('\t').next().is_none_or(|name| name.is_empty() || name.ends_with("-PLUS")))
    {
        return wrong("a mechanism nobody can use");
    }
    let number = |line: &str, key: &str| {
        line.strip_prefix(key)
            .is_some_and(|n| n.parse::<u32>().is_ok_and(|parsed| parsed > 0 && parsed.to_string() == n))
    };
    if !number(spid, "SPID\t") || !number(cuid, "CUID\t") {
        return wrong("SPID and CUID are numbers from 1");
    }
    let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    if !cookie.strip_prefix("COOKIE\t").is_some_and(|c| c.len() == 32 && c.chars().all(hex)) {
        return wrong("COOKIE is 32 hex digits");
    }
    Ok(())
}

impl Cut {
    /// Calls `write` for each chunk.
    pub fn each(self, mut bytes: &[u8], mut write: impl FnMut(&[u8])) {
        let mut state = match self {
            Self::Random(seed) => seed | 1,
            _ => 0,
        };
        while !bytes.is_empty() {
            let count = match self {
                Self::Whole => bytes.len(),
                Self::Bytes => 1,
                Self::Random(_) => {
                    // xorshift: chunk sizes need variety, not quality
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    usize::try_from(state % 40).expect("below 40") + 1
                }
            };
            let (chunk, rest) = bytes.split_at(count.min(bytes.len()));
            write(chunk);
            bytes = rest;
        }
    }
}

impl Received {
    fn shown(&self) -> String {
        match self {
            Self::Line(line) => format!("the server sent {}", shown(line)),
            Self::Closed { torn } if torn.is_empty() => "the server closed the connection".into(),
            Self::Closed { torn } => format!("the server closed in the middle of {}", shown(torn)),
            Self::Nothing => "the server sent nothing".into(),
        }
    }
}

/// Bytes as a dialog would write them, cut where they get long.
fn shown(line: &[u8]) -> String {
    let text = line.escape_ascii().to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], line.len()),
        None => text,
    }
}
