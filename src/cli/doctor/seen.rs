//! A socket through a mail server's eyes: as its user, from its directory, inside its chroot.
//!
//! A child does it, `sasld probe` with the hidden options that make it somebody else, because a process cannot come
//! back from there. Without root the child stays who we are, and the probe of the sockets says so.

use super::postfix::{Instance, Service};
use crate::client::Offer;
use nix::unistd::Uid;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How long one socket may take, in seconds. Postfix waits 10.
const PATIENCE_SECONDS: &str = "5";

/// A socket and who looks at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// A path, relative to `directory`, or `host:port`.
    pub socket: String,
    /// Where the mail server lives.
    pub directory: Option<PathBuf>,
    /// Whether this is `/` for it.
    pub chroot: bool,
    /// Who it is.
    pub user: Option<String>,
}

/// What is there.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A server of the protocol.
    Greeted(Greeted),
    /// None, for this reason.
    Not {
        /// `missing`, `permission`, `refused`, `busy`, `turned_away`, `silent`, `nonsense`, `connect`, or `unknown`.
        word: String,
        /// The same in a sentence.
        message: String,
    },
}

/// A server's greeting.
#[derive(Clone, Debug)]
pub struct Greeted {
    /// What it offers.
    pub mechanisms: Vec<Offer>,
    /// The process that serves, as it says itself.
    pub server: Option<i32>,
    /// The process that made the socket listen.
    pub listener: Option<i32>,
}

impl Place {
    /// Where a service of Postfix asks; `None` when it does not ask over this protocol.
    pub fn of(instance: &Instance, service: &Service) -> Option<Self> {
        if !service.asks_sasld() {
            return None;
        }
        let written = service.get("smtpd_sasl_path");
        if let Some(address) = written.strip_prefix("inet:") {
            return Some(Self::as_ourselves(address));
        }
        let path = written.strip_prefix("unix:").unwrap_or(written);
        let directory = Some(instance.queue_directory().to_owned());
        // A file name without a slash is still a path for Postfix.
        let socket = if path.contains('/') { path.to_owned() } else { format!("./{path}") };
        let user = Uid::effective().is_root().then(|| instance.owner().to_owned());
        Some(Self { socket, directory, chroot: service.chroot && user.is_some(), user })
    }

    /// A socket as we find it.
    pub fn as_ourselves(socket: &str) -> Self {
        Self { socket: socket.to_owned(), directory: None, chroot: false, user: None }
    }

    /// The path from `/`, whatever the service takes for that; `None` over TCP.
    pub fn path(&self) -> Option<PathBuf> {
        let Some(directory) = &self.directory else {
            return self.socket.starts_with('/').then(|| PathBuf::from(&self.socket));
        };
        let path = Path::new(self.socket.trim_start_matches("./"));
        Some(match path.strip_prefix("/") {
            Ok(inside) if self.chroot => directory.join(inside),
            Ok(_) => path.to_owned(),
            Err(_) => directory.join(path),
        })
    }
}

/// Looks.
pub fn look(place: &Place) -> Seen {
    ask(place).unwrap_or_else(|message| Seen::Not { word: "unknown".to_owned(), message })
}

fn ask(place: &Place) -> Result<Seen, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["probe", "--json", "--patience", PATIENCE_SECONDS]);
    if let Some(user) = &place.user {
        command.args(["--as", user]);
    }
    if let Some(directory) = &place.directory {
        command.arg("--in").arg(directory);
    }
    if place.chroot {
        command.arg("--chroot");
    }
    command.args(["--", &place.socket]).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| String::from_utf8_lossy(&output.stderr).trim().to_owned())?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    if let Some(word) = text("error") {
        return Ok(Seen::Not { word, message: text("message").unwrap_or_default() });
    }
    let pid = |value: Option<&Value>| value.and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok());
    let offers = answer.get("mechanisms").and_then(Value::as_array).into_iter().flatten();
    Ok(Seen::Greeted(Greeted {
        mechanisms: offers.filter_map(offer).collect(),
        server: pid(answer.get("spid")),
        listener: pid(answer.pointer("/listener/pid")),
    }))
}

fn offer(value: &Value) -> Option<Offer> {
    let properties = value.get("properties")?.as_array()?.iter().filter_map(Value::as_str);
    Some(Offer {
        name: value.get("name")?.as_str()?.to_owned(),
        properties: properties.map(str::to_owned).collect(),
    })
}
