//! `sasld probe`: what a mail server finds at a socket, without logging in.
//!
//! For any server of the Dovecot auth protocol, Dovecot's own included. With `--as` and `--in` it becomes the mail
//! server first, chroot and all, which is how `sasld doctor` looks through Postfix's eyes; that needs root. Whatever
//! keeps a mail server from a greeting is a failure with the exit code that says which, and in JSON an `error`.

use super::{Exit, Failure};
use crate::client::{Client, ClientError};
use clap::Args;
use nix::unistd::{User, chroot, initgroups, setgid, setuid};
use serde_json::{Value, json};
use std::ffi::CString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Show what a mail server finds at a socket
///
/// Connects, reads the greeting and prints the mechanisms and their properties; nobody logs in. Exit status 0: a server
/// of the protocol answers. 65: something else does. 69: nobody. 77: this user may not connect.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Path of a Unix socket, or host:port
    socket: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How many seconds a server may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    patience: u64,
    /// Become this user first; needs root
    #[arg(long = "as", value_name = "USER", hide = true)]
    user: Option<String>,
    /// Go to this directory first
    #[arg(long = "in", value_name = "DIRECTORY", hide = true)]
    directory: Option<PathBuf>,
    /// Make that directory the root
    #[arg(long, hide = true, requires = "directory")]
    chroot: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    become_mail_server(arguments).map_err(|error| {
        Failure::new(Exit::Permission, format_args!("cannot become the mail server: {error}"))
    })?;
    let started = Instant::now();
    let client = match Client::connect(&arguments.socket, Duration::from_secs(arguments.patience)) {
        Ok(client) => client,
        Err(error) if arguments.json => {
            let word = word(&error);
            writeln!(
                out,
                "{}",
                json!({"socket": arguments.socket, "error": word, "message": error.to_string()})
            )?;
            return Ok(exit(&error));
        }
        Err(error) => return Err(Failure::new(exit(&error), error)),
    };
    let took = started.elapsed();
    if arguments.json {
        writeln!(out, "{}", describe_json(&arguments.socket, &client, took))?;
    } else {
        describe(&arguments.socket, &client, took, out)?;
    }
    Ok(Exit::Yes)
}

/// In the order in which Postfix's smtpd does it.
fn become_mail_server(arguments: &Arguments) -> io::Result<()> {
    let user = match &arguments.user {
        Some(name) => {
            Some(User::from_name(name)?.ok_or_else(|| io::Error::other(format!("no user {name}")))?)
        }
        None => None,
    };
    if let Some(user) = &user {
        setgid(user.gid)?;
        initgroups(&CString::new(user.name.as_str())?, user.gid)?;
    }
    if let Some(directory) = &arguments.directory {
        std::env::set_current_dir(directory)?;
        if arguments.chroot {
            chroot(".")?;
        }
    }
    if let Some(user) = &user {
        setuid(user.uid)?;
    }
    Ok(())
}

/// The exit code a connection ends with when it cannot be had; the same for `sasld test`.
pub(super) fn exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Exit::Permission
        }
        ClientError::Connect { .. } | ClientError::NoGreeting { .. } => Exit::Unavailable,
        ClientError::Nonsense { .. } => Exit::Data,
    }
}

/// What went wrong, for programs.
fn word(error: &ClientError) -> &'static str {
    match error {
        ClientError::Connect { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => "missing",
            io::ErrorKind::PermissionDenied => "permission",
            io::ErrorKind::ConnectionRefused => "refused",
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "busy",
            _ => "connect",
        },
        ClientError::NoGreeting { source, .. } => match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                "turned_away"
            }
            _ => "silent",
        },
        ClientError::Nonsense { .. } => "nonsense",
    }
}

fn describe(socket: &str, client: &Client, took: Duration, out: &mut dyn Write) -> Result<(), Failure> {
    let greeting = client.greeting();
    writeln!(
        out,
        "{socket}: an auth server, protocol 1.{}, greeted in {} ms",
        greeting.minor,
        took.as_millis()
    )?;
    if let Some(listener) = client.listener() {
        let name = process_name(listener.pid).map_or(String::new(), |name| format!(" ({name})"));
        writeln!(out, "listener     pid {}{name}, uid {}", listener.pid, listener.uid)?;
    }
    let shown = |number: Option<u32>| number.map_or("none".to_owned(), |number| number.to_string());
    writeln!(out, "server       SPID {}, CUID {}", shown(greeting.spid), shown(greeting.cuid))?;
    writeln!(
        out,
        "cookie       {}",
        if greeting.cookie { "yes" } else { "no: Dovecot's own clients need one" }
    )?;
    for offer in &greeting.mechanisms {
        let (name, properties) = (offer.name.escape_debug().to_string(), offer.properties.join(" "));
        writeln!(out, "{name:<13}{}", properties.escape_debug())?;
    }
    Ok(())
}

fn describe_json(socket: &str, client: &Client, took: Duration) -> Value {
    let greeting = client.greeting();
    let offer = |offer: &crate::client::Offer| json!({"name": offer.name, "properties": offer.properties});
    let listener = client.listener().map(
        |listener| json!({"pid": listener.pid, "uid": listener.uid, "process": process_name(listener.pid)}),
    );
    json!({
        "socket": socket,
        "version": format!("1.{}", greeting.minor),
        "mechanisms": greeting.mechanisms.iter().map(offer).collect::<Vec<_>>(),
        "spid": greeting.spid,
        "cuid": greeting.cuid,
        "cookie": greeting.cookie,
        "listener": listener,
        "milliseconds": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

/// The name of a process; `None` when it is gone or hidden.
pub(super) fn process_name(pid: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}
