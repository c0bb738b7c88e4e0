//! Mail clients: our own small one for sessions that tests steer step by step, and swaks for whole mails and TLS.

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Longer than Postfix waits for sasld.
const PATIENCE: Duration = Duration::from_secs(30);

/// An SMTP session without TLS that has said EHLO.
pub struct Session {
    connection: BufReader<TcpStream>,
    offered: Vec<String>,
}

/// One reply: its code, and the text of its last line.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub text: String,
}

impl Session {
    pub fn connect(port: u16) -> Self {
        let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = Self { connection: BufReader::new(connection), offered: Vec::new() };
        session.greet();
        session
    }

    /// The mechanisms in the answer to EHLO.
    pub fn offered(&self) -> &[String] {
        &self.offered
    }

    /// Makes Postfix believe that this session comes from `address`, and begins anew.
    pub fn come_from(&mut self, address: Ipv4Addr) {
        write!(self.connection.get_mut(), "XCLIENT ADDR={address}\r\n").unwrap();
        self.greet();
    }

    /// Sends a line and reads the reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(line);
        self.reply(|_| {})
    }

    /// One login, to the end.
    pub fn log_in(&mut self, mechanism: &str, user: &str, password: &str) -> Reply {
        match mechanism {
            "PLAIN" => {
                let response = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
                self.command(&format!("AUTH PLAIN {response}"))
            }
            "LOGIN" => {
                for answer in ["AUTH LOGIN", &BASE64_STANDARD.encode(user)] {
                    let reply = self.command(answer);
                    if reply.code != 334 {
                        return reply;
                    }
                }
                self.command(&BASE64_STANDARD.encode(password))
            }
            "CRAM-MD5" => {
                let challenge = self.command("AUTH CRAM-MD5");
                if challenge.code != 334 {
                    return challenge;
                }
                let challenge = BASE64_STANDARD.decode(challenge.text).unwrap();
                let digest = cram_md5(password, &challenge);
                self.command(&BASE64_STANDARD.encode(format!("{user} {digest}")))
            }
            other => panic!("this client does not speak {other}"),
        }
    }

    fn greet(&mut self) {
        let greeting = self.reply(|_| {});
        assert_eq!(greeting.code, 220, "{greeting:?}");
        self.send("EHLO client.sasld.test");
        let mut offered = Vec::new();
        let reply = self.reply(|line| {
            if let Some(mechanisms) = line.strip_prefix("AUTH ") {
                offered.extend(mechanisms.split(' ').map(str::to_owned));
            }
        });
        assert_eq!(reply.code, 250, "{reply:?}");
        self.offered = offered;
    }

    fn send(&mut self, line: &str) {
        self.connection.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    fn reply(&mut self, mut each_line: impl FnMut(&str)) -> Reply {
        loop {
            let mut line = String::new();
            self.connection.read_line(&mut line).unwrap();
            assert!(line.ends_with("\r\n"), "Postfix ended the session: {line:?}");
            let (code, text) = (&line[..3], line[4..].trim_end());
            each_line(text);
            if line.as_bytes()[3] == b' ' {
                return Reply { code: code.parse().unwrap(), text: text.to_owned() };
            }
        }
    }
}

fn cram_md5(password: &str, challenge: &[u8]) -> String {
    let mut mac = Hmac::<md5::Md5>::new_from_slice(password.as_bytes()).unwrap();
    mac.update(challenge);
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// The dialog of a swaks run, whatever came of it.
pub fn swaks(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("swaks")
        .args(["--server", &format!("127.0.0.1:{port}"), "--suppress-data"])
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
