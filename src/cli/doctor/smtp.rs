//! A mail server from outside: what it offers without TLS, then inside TLS, and whether a user can log in there.
//!
//! TLS is the program openssl's, run as a child (`s_client`). A TLS library in sasld would be a large dependency of a
//! daemon that never speaks TLS, with certificates and updates of its own, for the sake of one diagnosis; and openssl is
//! on nearly every machine with a mail server. Without it, the part inside TLS is an error that names the package.
//!
//! The certificate is reported and no reason to stop looking. A password is another matter: it is sent to this machine,
//! or in a session of its own in which openssl goes no further than a certificate that does not verify for this name.
//!
//! Everything waits at most [`PATIENCE`] for a line; trouble is a sentence.

use crate::client::cram_md5_response;
use crate::credential::Password;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use zeroize::Zeroizing;

/// More than sasld's deadline and Postfix's own.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest line taken from a server.
const MAX_LINE_BYTES: u64 = 4 << 10;

/// What there is.
pub struct Offer {
    /// The mechanisms offered before STARTTLS.
    pub clear: Vec<String>,
    /// What is inside TLS; `None` if there is no STARTTLS.
    pub tls: Option<Result<Inside, String>>,
}

/// Inside TLS.
pub struct Inside {
    /// The mechanisms offered there.
    pub mechanisms: Vec<String>,
    /// What openssl does not like about the certificate.
    pub certificate: Vec<String>,
    /// What came of the login, if somebody was to log in.
    pub login: Option<Login>,
}

/// What came of a login.
#[derive(Debug, PartialEq, Eq)]
pub enum Login {
    /// The server's reply.
    Made(String),
    /// The password was not sent, for this reason.
    Withheld(String),
}

/// Looks at `host:port`. Port 465 is TLS from the start.
///
/// # Errors
/// When nobody speaks SMTP there.
pub fn look(address: &str, login: Option<&(String, Password)>) -> Result<Offer, String> {
    let stream = connect(address)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let peer = stream.peer_addr().map_err(|error| error.to_string())?;
    if peer.port() == 465 {
        let server = Server { host, peer, starttls: false };
        return Ok(Offer { clear: Vec::new(), tls: Some(server.inside(login)) });
    }
    let reader = stream.try_clone().map_err(|error| error.to_string())?;
    let mut session = Session { lines: lines(reader), writer: Box::new(stream) };
    session.expect("220")?;
    let offered = session.hello()?;
    let starttls = offered.iter().any(|line| line.eq_ignore_ascii_case("STARTTLS"));
    let _ = session.send("QUIT");
    let server = Server { host, peer, starttls };
    Ok(Offer { clear: mechanisms(&offered), tls: starttls.then(|| server.inside(login)) })
}

fn connect(address: &str) -> Result<TcpStream, String> {
    let wrong = |error: std::io::Error| format!("cannot connect: {error}");
    let addresses = address.to_socket_addrs().map_err(wrong)?;
    let mut trouble = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => trouble = wrong(error),
        }
    }
    Err(trouble)
}

/// A mail server that was found.
struct Server<'a> {
    /// By the name that was given.
    host: &'a str,
    /// At this address.
    peer: SocketAddr,
    starttls: bool,
}

impl Server<'_> {
    fn inside(&self, login: Option<&(String, Password)>) -> Result<Inside, String> {
        let mut secure = self.open(false)?;
        let offered = secure.hello(self.starttls)?;
        let _ = secure.session.send("QUIT");
        let mechanisms = mechanisms(&offered);
        let login = login.map(|(user, password)| self.log_in(&mechanisms, user, password)).transpose()?;
        let mut certificate: Vec<String> =
            secure.complaints.try_iter().filter_map(|line| complaint(&line)).collect();
        certificate.dedup();
        Ok(Inside { mechanisms, certificate, login })
    }

    /// In a session of its own: what openssl says about the first one's certificate may come late.
    fn log_in(&self, offered: &[String], user: &str, password: &Password) -> Result<Login, String> {
        let mut secure = self.open(!self.peer.ip().is_loopback())?;
        if let Err(trouble) = secure.hello(self.starttls) {
            return Ok(Login::Withheld(trouble));
        }
        secure.session.log_in(offered, user, password).map(Login::Made)
    }

    /// `verified`: only with a certificate that verifies for this name.
    fn open(&self, verified: bool) -> Result<Secure, String> {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_quiet", "-connect", &self.peer.to_string()]);
        match self.host.parse::<IpAddr>() {
            Ok(_) => command.args(["-noservername", "-verify_ip", self.host]),
            Err(_) => command.args(["-servername", self.host, "-verify_hostname", self.host]),
        };
        if self.starttls {
            command.args(["-starttls", "smtp"]);
        }
        if verified {
            command.arg("-verify_return_error");
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map(Ended).map_err(|error| {
            format!("cannot look inside TLS: openssl: {error} (Debian: apt-get install openssl)")
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take())
        else {
            return Err("openssl has no pipes".to_owned());
        };
        let session = Session { lines: lines(stdout), writer: Box::new(stdin) };
        Ok(Secure { session, complaints: lines(stderr), child })
    }
}

/// A session inside TLS.
struct Secure {
    session: Session,
    /// What openssl says.
    complaints: Receiver<String>,
    child: Ended,
}

impl Secure {
    /// What the server offers, or why there is no session.
    fn hello(&mut self, after_starttls: bool) -> Result<Vec<String>, String> {
        let offered = match after_starttls {
            true => self.session.hello(),
            false => self.session.expect("220").and_then(|_| self.session.hello()),
        };
        offered.map_err(|trouble| {
            // What it has said is all there when it has ended.
            let _ = self.child.0.kill();
            let said: Vec<String> = self.complaints.iter().collect();
            let certificate = said.iter().find_map(|line| complaint(line));
            let certificate = certificate.map(|text| format!("the certificate: {text}"));
            let first = certificate.or_else(|| said.first().cloned()).unwrap_or(trouble);
            format!("no session inside TLS: {first}")
        })
    }
}

/// `verify error:num=18:self-signed certificate`.
fn complaint(line: &str) -> Option<String> {
    let (_, text) = line.split_once("verify error:num=")?.1.split_once(':')?;
    Some(text.trim().to_owned())
}

/// The words behind AUTH.
fn mechanisms(offered: &[String]) -> Vec<String> {
    let auth = offered.iter().find_map(|line| line.strip_prefix("AUTH "));
    auth.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// A child that does not outlive its use.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of a stream, read beside us so that waiting has an end. The thread ends with the stream.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Session {
    lines: Receiver<String>,
    writer: Box<dyn Write>,
}

impl Session {
    fn send(&mut self, line: &str) -> Result<(), String> {
        let line = Zeroizing::new(format!("{line}\r\n"));
        let gone = |error| format!("the connection broke: {error}");
        self.writer.write_all(line.as_bytes()).and_then(|()| self.writer.flush()).map_err(gone)
    }

    /// The lines of one reply.
    fn reply(&mut self) -> Result<Vec<String>, String> {
        let mut reply = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).map_err(|error| match error {
                std::sync::mpsc::RecvTimeoutError::Timeout => "no answer".to_owned(),
                std::sync::mpsc::RecvTimeoutError::Disconnected => {
                    "the server closed the connection".to_owned()
                }
            })?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            reply.push(line);
            if last {
                return Ok(reply);
            }
        }
    }

    fn expect(&mut self, code: &str) -> Result<Vec<String>, String> {
        let reply = self.reply()?;
        match reply.iter().all(|line| line.starts_with(code)) {
            true => Ok(reply),
            false => Err(format!("the server says: {}", reply.join(" / "))),
        }
    }

    /// Says EHLO; what the server offers.
    fn hello(&mut self) -> Result<Vec<String>, String> {
        self.send("EHLO doctor.invalid")?;
        loop {
            let reply = self.expect("250")?;
            // s_client shows the end of the reply to its own EHLO; one to ours has several lines.
            if reply.len() > 1 {
                return Ok(reply[1..].iter().filter_map(|line| line.get(4..)).map(str::to_owned).collect());
            }
        }
    }

    /// Logs in by the first mechanism of ours that is offered, and returns the reply.
    fn log_in(&mut self, offered: &[String], user: &str, password: &Password) -> Result<String, String> {
        let has = |name: &str| offered.iter().any(|offer| offer == name);
        let encode = |bytes: &[u8]| Zeroizing::new(BASE64_STANDARD.encode(bytes));
        let reply = if has("PLAIN") {
            let mut response = Zeroizing::new(vec![0]);
            response.extend_from_slice(user.as_bytes());
            response.push(0);
            response.extend_from_slice(password.as_bytes());
            self.send(&Zeroizing::new(format!("AUTH PLAIN {}", *encode(&response))))?;
            self.reply()?
        } else if has("LOGIN") {
            self.send("AUTH LOGIN")?;
            self.expect("334")?;
            self.send(&encode(user.as_bytes()))?;
            self.expect("334")?;
            self.send(&encode(password.as_bytes()))?;
            self.reply()?
        } else if has("CRAM-MD5") {
            self.send("AUTH CRAM-MD5")?;
            let challenge = self.expect("334")?;
            let challenge = challenge[0].get(4..).unwrap_or_default();
            let response = cram_md5_response(user, password, challenge).map_err(|error| error.to_string())?;
            self.send(&encode(&response))?;
            self.reply()?
        } else {
            return Err(format!("no mechanism that sasld knows is offered, only {}", offered.join(" ")));
        };
        Ok(reply.join(" / "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TLS server with a certificate that nobody has signed, on a port of its own; what it hears comes back.
    fn self_signed() -> (Ended, u16, Receiver<String>) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let (key, certificate) = (file("key"), file("cert"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
            ])
            .args(["/CN=mail.sasld.test", "-keyout", &key, "-out", &certificate])
            .stderr(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let server = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-key", &key, "-cert", &certificate])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut server = Ended(server.unwrap());
        let heard = lines(server.0.stdout.take().unwrap());
        let port =
            heard.iter().find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse().ok());
        (server, port.expect("a port"), heard)
    }

    #[test]
    fn a_password_is_not_sent_where_the_certificate_does_not_verify() {
        let (mut server, port, heard) = self_signed();
        let peer = SocketAddr::from(([127, 0, 0, 1], port));
        let host = "mail.sasld.test";
        let mut secure = Server { host, peer, starttls: false }.open(true).unwrap();
        let trouble = secure.hello(false).unwrap_err();
        assert!(trouble.contains("the certificate: self-signed certificate"), "{trouble}");
        // Nor does anything else reach it.
        let _ = secure.session.send("AUTH PLAIN c2VjcmV0");
        drop(secure);
        server.0.kill().unwrap();
        assert!(!heard.iter().any(|line| line.contains("AUTH PLAIN")));
    }

    #[test]
    fn a_complaint_about_a_certificate_is_found_in_what_openssl_prints() {
        assert_eq!(
            complaint("verify error:num=18:self-signed certificate").as_deref(),
            Some("self-signed certificate")
        );
        assert_eq!(complaint("depth=0 CN = mail.sasld.test"), None);
    }
}
