//! `sasld check`: would this configuration work, and what is wrong with the files it names?
//!
//! Prints what was found, each finding with its file and line, and reads only: no socket is touched and no lock is
//! taken. A secrets file that cannot be used counts as a wrong configuration, a line that costs one user his login as
//! a finding.
//!
//! With mistakes in the configuration it also asks the running daemon, if there is one that answers to this user, whether
//! it has to do with the copy of the last good one.

use super::{Exit, Failure, config_path};
use crate::config::{Config, ConfigError, Listener, Passdb};
use crate::control::{self, Request, Status};
use crate::pam::SERVICE_FOLDERS;
use crate::passdb::pam;
use crate::secrets::{self, LoadError, LoadOptions, Names, Trust};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Check the configuration and the secrets file
///
/// Exit status 0: nothing wrong. 1: some users cannot log in, or something deserves a look. 78: sasld could not work
/// like this.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The configuration, instead of /etc/sasld/sasld.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print nothing unless something is wrong
    #[arg(long)]
    quiet: bool,
    /// Exit status 0 if sasld could work like this, whatever else there is to say: what systemd asks before a reload
    #[arg(long)]
    usable: bool,
    /// The control socket of the running sasld, asked when the configuration cannot be used
    #[arg(long, value_name = "SOCKET", default_value = control::DEFAULT_PATH)]
    control: PathBuf,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let path = config_path(arguments.config.as_deref());
    let config = Config::load(&path).map_err(|error| with_what_runs(&arguments.control, &path, error))?;
    let mut findings = 0;
    let mut unusable = Vec::new();
    if !arguments.quiet {
        describe(&path, &config, out)?;
    }
    for warning in config.warnings() {
        findings += 1;
        writeln!(out, "warning: {warning}")?;
    }
    for passdb in &config.passdbs {
        match passdb {
            Passdb::SecretsFile { path, .. } => match check_secrets(path, &config, arguments.quiet, out)? {
                Ok(problems) => findings += problems,
                Err(reason) => unusable.push(reason),
            },
            Passdb::Pam { settings, .. } => findings += check_pam(settings, arguments.quiet, out)?,
        }
    }
    if !unusable.is_empty() {
        return Err(Failure::new(Exit::Config, unusable.join("\n")));
    }
    Ok(if findings == 0 || arguments.usable { Exit::Yes } else { Exit::No })
}

/// The mistakes, and what the running daemon does about them.
fn with_what_runs(socket: &Path, path: &Path, error: ConfigError) -> Failure {
    let mut failure = Failure::from(error);
    // Which one it has is in the configuration, which cannot be read; nobody there, or not for us, is no news.
    let Ok(status) = control::ask::<Status>(socket, &Request::Status) else {
        return failure;
    };
    let running = status.configuration;
    if Path::new(&running.path) == path {
        let what = if running.last_good {
            "the copy of the last good configuration"
        } else {
            "an earlier configuration"
        };
        failure.message += &format!(
            "\nthe running sasld (process {}) uses {what}, since {}",
            status.pid, running.in_force_since
        );
    }
    failure
}

fn describe(path: &Path, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let mechanisms: Vec<&str> = config.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
    writeln!(out, "{}: good", path.display())?;
    writeln!(out, "mechanisms: {}", mechanisms.join(" "))?;
    for listener in &config.listeners {
        match listener {
            Listener::Unix(unix) => writeln!(
                out,
                "listener: {} ({}:{} {:04o})",
                unix.path.display(),
                unix.owner.name,
                unix.group.name,
                unix.mode
            )?,
            Listener::Tcp(tcp) => writeln!(out, "listener: {}", tcp.address)?,
        }
    }
    Ok(())
}

/// How many problems there are with the PAM service. `sasld-pam` is not asked, it looks at itself when it starts.
fn check_pam(settings: &pam::Settings, quiet: bool, out: &mut dyn Write) -> Result<usize, Failure> {
    let service = &settings.worker.service;
    let exists = SERVICE_FOLDERS.iter().any(|folder| Path::new(folder).join(service).is_file());
    if !exists {
        writeln!(out, "PAM service {service}: /etc/pam.d/{service} does not exist")?;
    } else if !quiet {
        writeln!(out, "PAM service: {service} ({})", settings.socket.display())?;
    }
    Ok(usize::from(!exists))
}

/// How many problems the file has, or why it is of no use at all.
fn check_secrets(
    path: &Path,
    config: &Config,
    quiet: bool,
    out: &mut dyn Write,
) -> Result<Result<usize, String>, Failure> {
    let allowed = |name: &str| config.usernames.canonical(name.as_bytes()).is_ok();
    let names = Names { lowercase: config.usernames.lowercase(), allowed: &allowed };
    let trust = Trust::of_process();
    let secrets = match secrets::load(path, &LoadOptions { names, trust: Some(&trust), previous: None }) {
        Ok(loaded) => loaded.secrets,
        Err(error @ LoadError::Missing { .. }) => {
            return Ok(Err(format!("{error}; `sasld user add NAME` makes it")));
        }
        Err(error) => return Ok(Err(error.to_string())),
    };
    if !quiet {
        let users = if secrets.len() == 1 { "user" } else { "users" };
        writeln!(out, "secrets file: {} ({} {users})", path.display(), secrets.len())?;
    }
    for problem in secrets.problems().listed() {
        writeln!(out, "{}: {problem}", path.display())?;
    }
    let unlisted = secrets.problems().total() - secrets.problems().listed().len();
    if unlisted > 0 {
        writeln!(out, "{}: {unlisted} more problems", path.display())?;
    }
    if !quiet {
        for note in secrets.notes().listed() {
            writeln!(out, "note: {}: {note}", path.display())?;
        }
    }
    Ok(Ok(secrets.problems().total()))
}
