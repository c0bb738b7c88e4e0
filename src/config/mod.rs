//! What the operator decides: `sasld.yaml` and the files of `conf.d` beside it, read into a
//! [`Config`] that holds no invalid value, so that nobody checks it again.
//!
//! In reading order: [`load`](Config::load) reads the files and refuses those that others could have
//! written; `file` turns YAML into a tree with lines and columns; `check` (with `listeners`, `passdbs` and `services`) turns
//! trees into a [`Config`], by way of `item` (keys) and `values` (scalars). Every mistake in every
//! file is reported at once, each as `file:line:column: key: what`; see [`ConfigError`]. With any
//! mistake there is no configuration at all: a reload keeps the one that is running.
//!
//! The keys are described in `docs/configuration.md`; the shipped `packaging/sasld.yaml` shows all
//! of them with the defaults written here.

#![forbid(unsafe_code)]

mod accounts;
mod check;
mod file;
mod item;
mod listeners;
mod load;
mod metrics;
mod mistake;
mod passdbs;
mod services;
mod values;

use core::net::SocketAddr;
use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::passdb::pam;
use crate::policy::{OnOutage, Policy, ServicePolicy};
use crate::sasl::{Mechanism, NameRules};

pub use accounts::{Account, Accounts, AnyAccounts, SystemAccounts};
pub use check::Source;
pub use file::MAX_FILE_BYTES;
pub use load::{DEFAULT_PATH, read};
pub use mistake::{ConfigError, Mistake, Place};

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where mail servers connect; at least one, no two at the same place.
    pub listeners: Vec<Listener>,
    /// Offered mechanisms in the configured order; at least one, none twice.
    pub mechanisms: Vec<Mechanism>,
    /// PLAIN and LOGIN only over TLS.
    pub require_tls: bool,
    /// Sources of verdicts in the order asked; at least one.
    pub passdbs: Vec<Passdb>,
    /// What is different for mail servers that name one of these services.
    pub services: BTreeMap<String, ServicePolicy>,
    /// Which user names there are.
    pub usernames: NameRules,
    /// How long after its arrival a refusal leaves, before jitter; at most 5 s.
    pub refusal_delay: Duration,
    /// Time for everything about one exchange, 1 s to 9 s; more than `refusal_delay` × 1.25.
    pub deadline: Duration,
    /// How a missing verdict is told to the mail server.
    pub on_outage: OnOutage,
    /// Threads for expensive hashes; `None` is one for each core.
    pub hash_threads: Option<NonZeroU16>,
    /// What a client can make sasld hold.
    pub limits: Limits,
    /// What is logged.
    pub log_level: LogLevel,
    /// Where the daemon answers questions about itself, if it does.
    pub control: Option<PathBuf>,
    /// Where it serves metrics, if it does.
    pub metrics: Option<Metrics>,
}

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// A Unix socket that belongs to the daemon.
    Unix {
        /// Absolute, at most 107 bytes.
        path: PathBuf,
        /// Its group; `None` is the daemon's.
        group: Option<Account>,
        /// Permission bits, at most `0o777`.
        mode: u32,
    },
    /// A TCP port.
    Tcp(TcpListener),
}

/// One place where mail servers connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// A Unix socket, bound by sasld or handed over by systemd.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
}

/// A Unix socket and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixListener {
    /// Absolute, at most 107 bytes.
    pub path: PathBuf,
    /// Its owner.
    pub owner: Account,
    /// Its group.
    pub group: Account,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// The only users whose processes may connect; `None` leaves it to the permissions.
    pub peers: Option<Vec<Account>>,
}

/// A TCP port and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpListener {
    /// Loopback, unless `allow` lists networks; the port is not 0.
    pub address: SocketAddr,
    /// The only networks that may connect; `None` on a loopback address leaves it to that.
    pub allow: Option<Vec<IpNet>>,
}

/// A source of verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passdb {
    /// A file of users and their verifiers.
    SecretsFile {
        /// Absolute; no other passdb has the same.
        path: PathBuf,
        /// A wrong password here is not the last word: the next passdb is asked.
        continue_on_refusal: bool,
    },
    /// The system's own users.
    Pam {
        /// How they are asked.
        settings: pam::Settings,
        /// As above.
        continue_on_refusal: bool,
    },
}

/// What clients can make sasld hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of mail servers, 1 to 1 000 000; more wait to be accepted.
    pub connections: u32,
    /// Open exchanges on one connection, 1 to 65 536; beyond, the oldest one waiting for its client goes.
    pub exchanges_per_connection: u32,
}

/// What is logged: this and everything graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What stops sasld from doing its work.
    Error,
    /// What somebody should look at.
    Warn,
    /// Every attempt.
    Info,
    /// What each connection does.
    Debug,
    /// Everything but secrets.
    Trace,
}

/// The defaults: the only place where they are written in code.
mod default {
    use super::{Limits, LogLevel, Mechanism, OnOutage};
    pub(super) use crate::sasl::identity::DEFAULT_CHARACTERS as ALLOWED_CHARACTERS;
    use core::time::Duration;

    pub(super) const SOCKET: &str = "/var/spool/postfix/private/auth";
    pub(super) const OWNER: &str = "postfix";
    pub(super) const GROUP: &str = "postfix";
    pub(super) const MODE: u32 = 0o660;
    pub(super) const MECHANISMS: &[Mechanism] = Mechanism::ALL;
    pub(super) const REQUIRE_TLS: bool = true;
    pub(super) const SECRETS_FILE: &str = "/etc/sasld/secrets";
    pub(super) const CONTINUE_ON_REFUSAL: bool = false;
    // The others of PAM are those of `sasld-pam` itself: `crate::pam::Settings::default`.
    pub(super) const PAM_SOCKET: &str = "/run/sasld-pam/sock";
    pub(super) const PAM_ALLOW_USER_CHANGE: bool = false;
    pub(super) const LOWERCASE: bool = true;
    pub(super) const REFUSAL_DELAY: Duration = Duration::from_secs(2);
    pub(super) const DEADLINE: Duration = Duration::from_secs(8);
    pub(super) const ON_OUTAGE: OnOutage = OnOutage::Auto;
    pub(super) const HASH_THREADS: u32 = 0;
    pub(super) const LIMITS: Limits = Limits { connections: 10_000, exchanges_per_connection: 1_024 };
    pub(super) const LOG_LEVEL: LogLevel = LogLevel::Info;
    pub(super) const CONTROL: &str = crate::control::DEFAULT_PATH;
}

impl Config {
    /// The configuration in which nothing is written.
    ///
    /// # Errors
    ///
    /// The default socket belongs to Postfix; without its user or group in `accounts` there is
    /// nobody to give it to.
    pub fn defaults(accounts: &dyn Accounts) -> Result<Self, ConfigError> {
        Self::from_sources(&[Source::new(DEFAULT_PATH, "# nothing")], accounts)
    }

    /// The rules for logins that follow from this. `host` is who we say we are in challenges.
    #[must_use]
    pub fn policy(&self, host: String) -> Policy {
        Policy {
            host,
            names: self.usernames.clone(),
            default_service: ServicePolicy {
                mechanisms: self.mechanisms.clone(),
                require_tls: self.require_tls,
                allow_nets: None,
            },
            services: self.services.clone(),
            refusal_delay: self.refusal_delay,
            deadline: self.deadline,
            on_outage: self.on_outage,
            max_exchanges: self.limits.exchanges_per_connection as usize,
        }
    }

    /// What is allowed and still worth a second look, one sentence each; for `sasld check`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.open_listeners().map(|(_, warning)| warning).collect()
    }

    /// The listeners where everybody may guess passwords, and a sentence about each.
    pub fn open_listeners(&self) -> impl Iterator<Item = (&Listener, String)> {
        self.listeners.iter().filter_map(|listener| {
            let warning = match listener {
                Listener::Unix(UnixListener { path, mode, peers: None, .. }) if mode & 0o002 != 0 => {
                    open_socket(path, *mode)
                }
                Listener::Tcp(TcpListener { address, allow: Some(networks) })
                    if networks.iter().any(|network| network.prefix_len() == 0) =>
                {
                    format!(
                        "{address}: every address is allowed, and passwords cross the network in the clear"
                    )
                }
                Listener::Unix(_) | Listener::Tcp(_) => return None,
            };
            Some((listener, warning))
        })
    }
}

/// What is wrong with a socket of this mode.
pub(crate) fn open_socket(path: &Path, mode: u32) -> String {
    format!("{}: mode {mode:04o} lets every local user guess passwords here", path.display())
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
