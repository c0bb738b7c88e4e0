//! A mail server's end of a connection, line by line; and a user, with a right and a wrong response.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub const ALICE: &str = "alice:{PLAIN}wonder\n";
/// `NUL alice NUL wonder`, and with a wrong password.
pub const RIGHT: &str = "AGFsaWNlAHdvbmRlcg==";
pub const WRONG: &str = "AGFsaWNlAHdyb25n";

/// The request of a mail server whose client came over TLS.
pub fn auth(id: u32, mechanism: &str, response: &str) -> String {
    auth_from("192.0.2.7", id, mechanism, response)
}

/// The same of a client at this address.
pub fn auth_from(address: &str, id: u32, mechanism: &str, response: &str) -> String {
    format!("AUTH\t{id}\t{mechanism}\tservice=smtp\trip={address}\tsecured\tresp={response}\n")
}

/// Only a broken daemon takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long silence is listened to before it counts as silence.
const SILENCE: Duration = Duration::from_millis(200);

pub struct Peer {
    reader: BufReader<Socket>,
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn set_patience(&self, patience: Duration) {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(patience)),
            Self::Tcp(stream) => stream.set_read_timeout(Some(patience)),
        }
        .unwrap();
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Peer {
    fn new(socket: Socket) -> Self {
        socket.set_patience(PATIENCE);
        Self { reader: BufReader::new(socket) }
    }

    /// Connects and says nothing.
    pub fn connect(socket: &Path) -> Self {
        Self::new(Socket::Unix(UnixStream::connect(socket).unwrap()))
    }

    /// Connects and shakes hands as chasquid does.
    pub fn greeted(socket: &Path) -> Self {
        Self::greeted_as(socket, "VERSION\t1\t1\nCPID\t4711\n")
    }

    /// Connects and shakes hands with these words.
    pub fn greeted_as(socket: &Path, hello: &str) -> Self {
        Self::connect(socket).shake_hands(hello)
    }

    /// The same, to a daemon that is still starting.
    pub fn greeted_when_it_is_there(socket: &Path) -> Self {
        let start = Instant::now();
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Self::new(Socket::Unix(stream)).shake_hands("VERSION\t1\t1\nCPID\t1\n"),
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::yield_now();
        }
    }

    pub fn connected_over_tcp(port: u16) -> Self {
        Self::new(Socket::Tcp(TcpStream::connect(("127.0.0.1", port)).unwrap()))
    }

    pub fn greeted_over_tcp(port: u16) -> Self {
        Self::connected_over_tcp(port).shake_hands("VERSION\t1\t1\nCPID\t1\n")
    }

    fn shake_hands(mut self, hello: &str) -> Self {
        self.send(hello);
        while self.line() != "DONE" {}
        self
    }

    pub fn send(&mut self, text: &str) {
        match self.reader.get_mut() {
            Socket::Unix(stream) => stream.write_all(text.as_bytes()),
            Socket::Tcp(stream) => stream.write_all(text.as_bytes()),
        }
        .unwrap();
    }

    /// The next line, without its LF.
    pub fn line(&mut self) -> String {
        let line = self.line_or_end();
        assert!(line.ends_with('\n'), "the connection ended: {line:?}");
        line.trim_end_matches('\n').to_owned()
    }

    pub fn skip_lines(&mut self, count: usize) {
        for _ in 0..count {
            self.line();
        }
    }

    /// The next line with its LF, or what came instead before the end.
    pub fn line_or_end(&mut self) -> String {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(_) => line,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => line,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether the connection ends before another line.
    pub fn is_closed(&mut self) -> bool {
        self.line_or_end().is_empty()
    }

    /// Whether nothing comes, for as long as something would take.
    pub fn is_silent(&mut self) -> bool {
        self.reader.get_ref().set_patience(SILENCE);
        let nothing = matches!(
            self.reader.fill_buf().map_err(|error| error.kind()),
            Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)
        );
        self.reader.get_ref().set_patience(PATIENCE);
        nothing
    }
}
