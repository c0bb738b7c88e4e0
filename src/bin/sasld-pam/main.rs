//! `sasld-pam`: checks system passwords for sasld. The only program that links libpam, and the only one with a
//! privilege; `sasld::pam` says which one, for whom, and what it refuses.
//!
//! - [`supervisor`] takes requests from sasld ([`client`]) and hands them to children ([`pool`], [`child`]). It runs no
//!   module code, enforces the time, and starts children anew.
//! - [`worker`] is what a child does, one request at a time: look at the guard rails ([`guard`]) and at the service's
//!   file ([`stack`]), then ask PAM ([`conversation`], [`ffi`]), and whether it could answer at all ([`cgroup`]).
//!
//! sasld comes over a socket that systemd passes or `--listen` names, or it has started this program and holds the
//! other end of its standard input. Logs go to standard error. Exit status: 0 after SIGTERM or when sasld is gone, 64
//! for a wrong command line, 71 when the operating system refuses what is needed.

mod cgroup;
mod child;
mod client;
mod conversation;
mod ffi;
mod guard;
mod pool;
mod stack;
mod supervisor;
mod worker;

use clap::{Args, Parser, ValueEnum};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Group, Uid, User, getgroups, initgroups, setgid, setgroups, setsid, setuid};
use sasld::pam::Settings;
use sasld::pam::request::{Lane, MAX_ITEM_BYTES};
use sasld::server::listener::{self, BindError};
use sasld::server::unnamed::UnnamedSocket;
use sasld::telemetry;
use std::ffi::CString;
use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use supervisor::{Entrance, Supervisor};
use tracing::Level;

/// sasld's user in the Debian package.
const SASLD_USER: &str = "_sasld";

/// Check system passwords for sasld
///
/// Started by systemd or by sasld; there is no need to start it by hand.
#[derive(Debug, Parser)]
#[command(name = "sasld-pam", version)]
struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Listen on this socket, unless systemd passes one; without either, sasld is at the other end of standard input
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
    /// Who may connect, besides root and this program's own user
    #[arg(long, value_name = "USER", default_value = SASLD_USER)]
    peer: String,
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value_t = Level::INFO)]
    log_level: Level,
    /// Become this user, with the group shadow besides his own groups
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Take the service's file from this folder instead of /etc/pam.d, for tests
    #[arg(long, value_name = "FOLDER", hide = true)]
    pam_dir: Option<PathBuf>,
    /// Be a child
    #[arg(long, value_name = "LANE", hide = true)]
    child: Option<LaneArgument>,
}

/// See [`Settings`].
#[derive(Debug, Args)]
struct SettingsArguments {
    /// The PAM service, a file in /etc/pam.d
    #[arg(long, value_name = "NAME", default_value_t = Settings::default().service, value_parser = service)]
    service: String,
    /// How many checks run at a time; 0 is two for each CPU, 16 at most. Half as many more serve those who logged in
    /// lately
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=256))]
    workers: u16,
    /// Users with a smaller uid are unknown
    #[arg(long, value_name = "UID", default_value_t = Settings::default().min_uid)]
    min_uid: u32,
    /// Users outside this group are unknown
    #[arg(long, value_name = "GROUP", value_parser = group)]
    group: Option<String>,
    /// Users whose shell is not in /etc/shells are unknown
    #[arg(long)]
    login_shell: bool,
    /// How many password prompts are answered in one login
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    prompts: u8,
}

/// How long a failed start lasts under systemd.
const BEFORE_THE_NEXT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LaneArgument {
    Ordinary,
    Express,
}

fn service(text: &str) -> Result<String, String> {
    let good = Settings::is_service(text).then(|| text.to_owned());
    good.ok_or_else(|| "expected 1 to 32 characters of a-z, 0-9, _ and -".to_owned())
}

fn group(text: &str) -> Result<String, String> {
    let good = (1..=MAX_ITEM_BYTES).contains(&text.len()).then(|| text.to_owned());
    good.ok_or_else(|| format!("expected 1 to {MAX_ITEM_BYTES} bytes"))
}

impl From<SettingsArguments> for Settings {
    fn from(arguments: SettingsArguments) -> Self {
        let SettingsArguments { service, workers, min_uid, group, login_shell, prompts } = arguments;
        Self { service, workers, min_uid, group, login_shell, prompts }
    }
}

fn main() -> ExitCode {
    // Before anything else opens a descriptor or starts a thread.
    let passed = listenfd::ListenFd::from_env().take_unix_listener(0);
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // There is nobody to tell when standard error is closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let Arguments { settings, listen, peer, log_level, user, pam_dir, child } = arguments;
    let settings = Settings::from(settings);
    let result = match child {
        Some(LaneArgument::Ordinary) => worker::run(&settings, Lane::Ordinary, pam_dir),
        Some(LaneArgument::Express) => worker::run(&settings, Lane::Express, pam_dir),
        None => passed
            .and_then(|passed| entrance(passed, listen.as_deref(), &peer))
            .and_then(|entrance| supervise(&settings, entrance, log_level, user.as_deref(), pam_dir)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sasld-pam: {error}");
            if std::env::var_os("NOTIFY_SOCKET").is_some() && child.is_none() {
                // systemd would start us again at once for whoever waits in the socket.
                std::thread::sleep(BEFORE_THE_NEXT);
            }
            ExitCode::from(71)
        }
    }
}

fn entrance(passed: Option<UnixListener>, listen: Option<&Path>, peer: &str) -> io::Result<Entrance> {
    if passed.is_none() && listen.is_none() {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.peer_addr().map_err(|_| {
            io::Error::other(
                "standard input is no connection to sasld; name a socket with --listen, or let systemd or sasld \
                 start this program",
            )
        })?;
        return Ok(Entrance::Connection(stream));
    }
    let peer = look_up(peer, "--peer")?.uid;
    let listener = match (passed, listen) {
        (Some(passed), _) => passed,
        (None, Some(path)) => bind(path, peer).map_err(io::Error::other)?,
        (None, None) => unreachable!("asked above"),
    };
    Ok(Entrance::Listener(listener, vec![Uid::from_raw(0), Uid::effective(), peer]))
}

/// A socket that only `peer` can connect to.
fn bind(path: &Path, peer: Uid) -> Result<UnixListener, BindError> {
    listener::refuse_if_served_at(path)?;
    UnnamedSocket::bind(path, Some(peer), None, 0o600)?.place()
}

/// The user that an option names.
fn look_up(name: &str, option: &str) -> io::Result<User> {
    let user =
        User::from_name(name).map_err(cannot(format!("look up the user {name} in the user database")))?;
    user.ok_or_else(|| {
        io::Error::other(format!(
            "there is no user {name}; make that user, or name another one with {option}"
        ))
    })
}

/// An error as a sentence about what was tried.
fn cannot<E: Display>(what: impl Display) -> impl Fn(E) -> io::Error {
    move |error| io::Error::other(format!("cannot {what}: {error}"))
}

fn supervise(
    settings: &Settings,
    entrance: Entrance,
    log_level: Level,
    user: Option<&str>,
    pam_dir: Option<PathBuf>,
) -> io::Result<()> {
    if matches!(entrance, Entrance::Connection(_)) {
        // sasld's terminal, if it has one, is none of ours: its signals and its end are for sasld. Whoever leads a group
        // was started by somebody who wants to stop it from there.
        let _ = setsid();
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(cannot("switch core dumps off"))?;
    if let Some(name) = user {
        become_user(name)?;
    }
    // Last: another user's id sets it anew, to fs.suid_dumpable; see prctl(2).
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(cannot("keep others from the memory of this process"))?;
    let mut arguments: Vec<_> = settings.to_arguments().into_iter().map(Into::into).collect();
    if let Some(folder) = pam_dir {
        arguments.push("--pam-dir".into());
        arguments.push(folder.into());
    }
    // Made first, for it blocks signals, and threads started later shall not get them.
    let supervisor = Supervisor::new(settings, entrance, child::Launcher { arguments })?;
    let log = telemetry::start(log_level)?;
    let result = supervisor.run();
    log.flush(Duration::from_secs(1));
    result
}

/// Gives root away for good.
fn become_user(name: &str) -> io::Result<()> {
    let user = look_up(name, "--user")?;
    let failed = cannot(format!("become the user {name}, which takes root"));
    initgroups(&CString::new(name)?, user.gid).map_err(&failed)?;
    if let Some(shadow) = Group::from_name("shadow").map_err(cannot("look up the group shadow"))? {
        let mut groups = getgroups().map_err(&failed)?;
        if !groups.contains(&shadow.gid) {
            groups.push(shadow.gid);
            setgroups(&groups).map_err(&failed)?;
        }
    }
    setgid(user.gid).map_err(&failed)?;
    setuid(user.uid).map_err(&failed)
}
