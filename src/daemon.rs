//! `sasld serve` from start to end: configuration to passdbs to listeners, then signals until the last one.
//!
//! What a reload (SIGHUP) brings is built completely before any of it is put in force; with any mistake the running
//! configuration stays, and the log has every one of them. Secrets files that both configurations name keep their
//! contents. Sockets passed by systemd are served in place of the configured listeners.
//!
//! A start with a broken configuration runs on the copy of the last good one, if there is a state directory with one, and
//! says so loudly.
//!
//! Started as root, it starts `sasld-pam` if PAM is configured and nobody serves it yet, and then becomes `_sasld`.
//!
//! SIGTERM and SIGINT: no more connections are accepted, decided verdicts leave at their time, then the end; after
//! the deadline of requests, a little earlier if a successor is waited for, or at a second signal, at once. Requests without a verdict by then find their connection
//! closed, which their users hear as a temporary failure.
#![forbid(unsafe_code)]

mod doors;
mod inherit;
mod last_good;
mod reload;
mod root;

use crate::config::{self, Config, ConfigError};
use crate::control::Reporter;
use crate::passdb::{Chain, HashPool, Link, Pam, SecretsFile, Source};
use crate::server::listener::{self, Inherited, Prepared, loopback};
use crate::server::{BindError, Endpoint, Listener, Live, Pulse, Server, Service, random};
use crate::telemetry::{self, Log};
use core::num::NonZeroUsize;
use core::time::Duration;
use doors::Doors;
use last_good::{LastGood, Loaded, NothingGood, Origin};
use nix::sys::prctl::set_thp_disable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid};
use reload::{Errand, tell_of_copy};
use sd_notify::NotifyState;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

/// How often secrets files are compared and the watchdog is told.
const TICK: Duration = Duration::from_secs(1);

/// How long a successor may have to wait for us: longer than any refusal does, and shorter than the ten seconds in which
/// Postfix's smtpd wants to be greeted.
const SUCCESSOR_WAITS: Duration = Duration::from_secs(7);

/// How long the end waits for the disk at least, also when there is no time left.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// How often a listener whose socket file has gone is complained about.
const TICKS_BETWEEN_COMPLAINTS: u32 = 30;

/// Why the daemon did not start.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A secrets file that was not in use before.
    #[error("{}: a passdb that is new must be loadable; its own log line says what is wrong", .0.display())]
    Passdb(PathBuf),
    /// A descriptor in LISTEN_FDS that is no listener.
    #[error(transparent)]
    Passed(#[from] inherit::NotListening),
    /// A socket in LISTEN_FDS that cannot be used.
    #[error("cannot use a socket passed in LISTEN_FDS: {0}")]
    Inherit(io::Error),
    /// The configuration, and a copy of the last good one that is there and cannot help.
    #[error("{mistakes}\n{copy}")]
    NothingGood {
        /// What is wrong with the configuration.
        mistakes: ConfigError,
        /// What is wrong with the copy.
        copy: String,
    },
    /// Everything else.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

impl From<NothingGood> for DaemonError {
    fn from(NothingGood { mistakes, copy }: NothingGood) -> Self {
        match copy {
            None => Self::Config(mistakes),
            Some(copy) => Self::NothingGood { mistakes, copy },
        }
    }
}

/// Runs the daemon until a signal ends it. With a state directory, the last good configuration is kept there.
///
/// # Errors
/// [`DaemonError`]: it did not start.
pub fn run(path: &Path, state_directory: Option<&Path>) -> Result<(), DaemonError> {
    // Inherited sockets first: nothing else may have opened a descriptor or started a thread yet.
    let inherited = inherit::inherit()?;
    harden()?;
    let last_good = state_directory.map(LastGood::new);
    let loaded = LastGood::load(last_good.as_ref(), path)?;
    let log = telemetry::start(loaded.config.log_level.into()).map_err(system("start the log"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(system("start a runtime"))?;
    let result = runtime
        .block_on(async { Daemon::start(path, loaded, last_good, inherited, log.clone())?.serve().await });
    log.flush(result.as_ref().map_or(LAST_WRITES, |end| end.saturating_duration_since(Instant::now())));
    result.map(drop)
}

struct Daemon {
    path: PathBuf,
    /// In force.
    config: Config,
    /// What only a restart changes is still as it is here.
    started_with: Config,
    pool: Arc<HashPool>,
    service: Arc<Service>,
    server: Arc<Server>,
    listening: Vec<Listening>,
    inherited: bool,
    last_good: Option<LastGood>,
    /// In force is the last good copy, because of these mistakes; a line for each.
    mistakes: Option<String>,
    reporter: Arc<Reporter>,
    pulse: Pulse,
    /// The serving threads that hang.
    hanging: Vec<usize>,
    /// What answers questions about us.
    doors: Doors,
    log: Log,
}

/// A listener and the task that accepts from it; dropping it ends both.
struct Listening {
    endpoint: Option<Endpoint>,
    listener: Arc<Listener>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Daemon {
    fn start(
        path: &Path,
        loaded: Loaded,
        last_good: Option<LastGood>,
        inherited: Vec<Inherited>,
        log: Log,
    ) -> Result<Self, DaemonError> {
        let Loaded { config, from } = loaded;
        let (sources, mistakes) = match from {
            Origin::Files(sources) => (Some(sources), None),
            Origin::Copy(mistakes) => (None, Some(mistakes.to_string())),
        };
        for reason in mistakes.iter().flat_map(|mistakes| mistakes.lines()) {
            let hint = "sasld runs on the copy of the last good configuration; mend this, then reload";
            error!(event = "last_good_configuration", reason, hint);
        }
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let hash_threads = config.hash_threads.map_or(cores, NonZeroUsize::from);
        let pool = Arc::new(HashPool::start(hash_threads).map_err(system("start the hash threads"))?);
        let live = live(&config, secrets_files(&config, &pool, None), None);
        let service = Arc::new(Service::new(live));
        // A listener keeps one for whoever comes next.
        let connections = (config.limits.connections as usize).max(config.listeners.len());
        let server = Server::start(Arc::clone(&service), cores, connections)
            .map_err(system("start the serving threads"))?;
        let server = Arc::new(server);
        let reporter = Arc::new(Reporter::new(Arc::clone(&service), Arc::clone(&server), Arc::clone(&pool)));
        let pulse = server.pulse();
        let mut daemon = Self {
            path: path.to_owned(),
            started_with: config.clone(),
            config,
            pool,
            service,
            server,
            listening: Vec::new(),
            inherited: !inherited.is_empty(),
            last_good,
            mistakes,
            reporter,
            pulse,
            hanging: Vec::new(),
            doors: Doors::default(),
            log,
        };
        if daemon.inherited {
            for socket in inherited {
                let listener = Listener::inherit(socket).map_err(DaemonError::Inherit)?;
                daemon.listening.push(daemon.listen(listener, None));
            }
            daemon.restrict(&endpoints(&daemon.config));
            daemon.complain_of_unpassed();
        } else {
            let prepared = daemon.prepare(&daemon.config)?;
            daemon.place(prepared)?;
        }
        daemon.doors.open(&daemon.started_with, &daemon.reporter);
        // Still as whoever owns the state directory.
        if let (Some(sources), Some(last_good)) = (sources, &daemon.last_good) {
            // What can give no verdict is not good, even if a passdb's file may come later.
            let loaded = daemon.service.live.load().passdbs.files().all(|file| file.users().is_some());
            let save = || last_good.save(&sources);
            tell_of_copy(if loaded { save() } else { Err(io::Error::other("a secrets file is not loaded")) });
        }
        root::give_away().map_err(system("become another user than root"))?;
        // A change of user has undone it.
        make_undumpable()?;
        daemon.tell_reporter();
        Ok(daemon)
    }

    /// Tells those who ask what is in force since now.
    fn tell_reporter(&self) {
        let mut facts = self.reporter.facts();
        facts.in_force(&self.path, self.mistakes.is_some());
        if let Some(mistakes) = &self.mistakes {
            facts.rejected(mistakes);
        }
        facts.listeners =
            self.listening.iter().map(|listening| Arc::downgrade(&listening.listener)).collect();
    }

    /// Makes the sockets that this configuration wants and we do not have, without putting them in place.
    fn prepare(&self, config: &Config) -> Result<Vec<(Endpoint, Prepared)>, DaemonError> {
        let have = |endpoint: &Endpoint| {
            let is_it = |old: &Endpoint| old.is_same_socket(endpoint);
            self.listening.iter().any(|listening| {
                listening.endpoint.as_ref().is_some_and(is_it) && listening.listener.is_in_place()
            })
        };
        let ours = |endpoint: &Endpoint| {
            self.listening.iter().any(|listening| listening.listener.name() == endpoint.to_string())
        };
        let mut prepared = Vec::new();
        for endpoint in endpoints(config).into_iter().filter(|endpoint| !have(endpoint)) {
            // Our own old socket at the same path is no stranger's: the new one takes its place.
            if !ours(&endpoint) {
                listener::refuse_if_served(&endpoint)?;
            }
            let socket = Listener::prepare(&endpoint)?;
            prepared.push((endpoint, socket));
        }
        Ok(prepared)
    }

    /// Puts prepared sockets in place and accepts from them.
    fn place(&mut self, prepared: Vec<(Endpoint, Prepared)>) -> Result<(), DaemonError> {
        for (endpoint, prepared) in prepared {
            let listening = self.listen(prepared.place()?, Some(endpoint));
            self.listening.push(listening);
        }
        Ok(())
    }

    fn listen(&self, listener: Listener, endpoint: Option<Endpoint>) -> Listening {
        let listener = Arc::new(listener);
        let (server, accepting) = (Arc::clone(&self.server), Arc::clone(&listener));
        let task = tokio::spawn(async move {
            server.accept_from(accepting).await;
        });
        Listening { endpoint, listener, task }
    }

    /// Until a signal ends it. Then the log has time until the moment that this returns.
    async fn serve(mut self) -> Result<Instant, DaemonError> {
        let step = "watch for signals";
        let mut hangup = signal(SignalKind::hangup()).map_err(system(step))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system(step))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system(step))?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0;
        let mut errand = Errand::default();
        self.announce("ready");
        loop {
            tokio::select! {
                _ = hangup.recv(), if !errand.is_under_way() => errand = self.begin_reload(),
                done = errand.done() => errand = self.go_on_with(done),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = tick.tick() => {
                    self.look_around(ticks);
                    self.tell_watchdog();
                    ticks = (ticks + 1) % TICKS_BETWEEN_COMPLAINTS;
                }
            }
        }
        // What there is still to write has a second in any case, all of it together.
        let end = self.stop(&mut terminate, &mut interrupt).await.max(Instant::now() + LAST_WRITES);
        errand.let_it_end(end).await;
        Ok(end)
    }

    fn look_around(&self, ticks: u32) {
        for file in self.service.live.load().passdbs.files() {
            file.check(self.service.now());
        }
        for Listening { listener, .. } in &self.listening {
            if ticks == TICKS_BETWEEN_COMPLAINTS - 1 && !listener.is_in_place() {
                error!(
                    event = "socket_missing",
                    listener = listener.name(),
                    hint = "reload sasld to bind it again"
                );
            }
        }
    }

    /// Who says this is the accepting thread; the serving ones must be well, too, or the next sasld is asked for.
    fn tell_watchdog(&mut self) {
        let hanging = self.server.feel(&mut self.pulse);
        if hanging.is_empty() {
            notify(&[NotifyState::Watchdog]);
        } else if hanging.iter().any(|thread| self.hanging.contains(thread)) {
            // Not at the first look: after a pause of the whole machine, that thread may be about to answer.
            notify(&[NotifyState::WatchdogTrigger]);
        }
        for thread in hanging.iter().filter(|thread| !self.hanging.contains(thread)) {
            let hint = "its connections get no answer; systemd's watchdog will start sasld again";
            error!(event = "thread_hangs", thread, hint);
        }
        self.hanging = hanging;
    }

    fn announce(&self, event: &str) {
        let names: Vec<&str> = self.listening.iter().map(|listening| listening.listener.name()).collect();
        let listeners = names.join(",");
        let mechanisms = &self.service.live.load().policy.default_service.mechanisms;
        let mechanisms = mechanisms.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        info!(event, version = env!("CARGO_PKG_VERSION"), listeners, mechanisms);
        let mut status = format!("Listening on {listeners}; offering {mechanisms}");
        if self.mistakes.is_some() {
            status.insert_str(0, "On the copy of the last good configuration, see the log! ");
        }
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// What is configured and was not passed is not served: its socket unit may be missing.
    fn complain_of_unpassed(&self) {
        for endpoint in endpoints(&self.config) {
            let name = endpoint.to_string();
            if !self.listening.iter().any(|listening| listening.listener.name() == name) {
                let hint = "systemd passes other sockets, and these alone are served; see docs/hardening.md";
                warn!(event = "not_listening", listener = name, hint);
            }
        }
    }

    /// Tells listeners, inherited ones too, who may connect.
    fn restrict(&self, endpoints: &[Endpoint]) {
        for Listening { listener, .. } in &self.listening {
            if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.to_string() == listener.name())
            {
                listener.set_access(endpoint);
            }
        }
    }

    /// Says until when whoever waits for our end has patience.
    async fn stop(&mut self, terminate: &mut Signal, interrupt: &mut Signal) -> Instant {
        notify(&[NotifyState::Stopping]);
        let connections = self.server.connections();
        info!(event = "stopping", connections);
        for old in self.listening.drain(..) {
            // Whoever waits in a socket that was passed to us waits for our successor.
            if !self.inherited {
                self.server.accept_waiting(&old.listener);
            }
        }
        // Whoever connects to a socket that stays waits for our successor.
        let patience =
            if self.inherited { self.config.deadline.min(SUCCESSOR_WAITS) } else { self.config.deadline };
        let end = Instant::now() + patience;
        let (ended, end) = tokio::select! {
            () = self.server.drain() => ("drained", end),
            () = tokio::time::sleep_until(end.into()) => ("out of patience", end),
            _ = terminate.recv() => ("second signal", Instant::now()),
            _ = interrupt.recv() => ("second signal", Instant::now()),
        };
        info!(event = "stopped", ended);
        end
    }
}

/// The configured secrets files, in their order. One that `old` has already keeps its contents; others are loaded, which
/// blocks.
fn secrets_files(config: &Config, pool: &Arc<HashPool>, old: Option<&Chain>) -> Vec<Arc<SecretsFile>> {
    let paths = config.passdbs.iter().filter_map(|passdb| match passdb {
        config::Passdb::SecretsFile { path, .. } => Some(path),
        config::Passdb::Pam { .. } => None,
    });
    let file = |path: &PathBuf| {
        let mut files = old.into_iter().flat_map(Chain::files);
        let kept = files.find(|file| file.is(path, &config.usernames)).map(Arc::clone);
        kept.unwrap_or_else(|| SecretsFile::open(path.clone(), config.usernames.clone(), Arc::clone(pool)))
    };
    paths.map(file).collect()
}

/// Everything about logins that follows from the configuration, of which `files` are the [`secrets_files`]. Workers that
/// `old` has already stay.
fn live(config: &Config, files: Vec<Arc<SecretsFile>>, old: Option<&Chain>) -> Live {
    let mut files = files.into_iter();
    let links = config.passdbs.iter().map(|passdb| match passdb {
        config::Passdb::SecretsFile { continue_on_refusal, .. } => {
            let file = files.next().expect("there is one for each passdb of this kind");
            Link { source: Source::SecretsFile(file), continue_on_refusal: *continue_on_refusal }
        }
        config::Passdb::Pam { settings, continue_on_refusal } => {
            let mut links = old.into_iter().flat_map(Chain::links);
            let kept = links.find_map(|link| match &link.source {
                Source::Pam(pam) if pam.is(settings, &config.usernames) => Some(Arc::clone(pam)),
                Source::Pam(pam) if pam.must_stay(settings) => {
                    warn!(event = "restart_needed", key = "passdbs.pam");
                    Some(Arc::clone(pam))
                }
                Source::Pam(_) | Source::SecretsFile(_) => None,
            });
            let pam = kept.unwrap_or_else(|| {
                let entrance = root::reach_pam(settings, config.log_level.into());
                let names = config.usernames.clone();
                Arc::new(Pam::open(settings.clone(), names, config.deadline, entrance))
            });
            pam.set_deadline(config.deadline);
            Link { source: Source::Pam(pam), continue_on_refusal: *continue_on_refusal }
        }
    });
    Live { passdbs: Chain::new(links.collect()), policy: config.policy(host_name()) }
}

fn endpoints(config: &Config) -> Vec<Endpoint> {
    let endpoint = |listener: &config::Listener| match listener {
        config::Listener::Unix(unix) => Endpoint::Unix {
            path: unix.path.clone(),
            owner: Some(Uid::from_raw(unix.owner.id)),
            group: Some(Gid::from_raw(unix.group.id)),
            mode: unix.mode,
            peers: unix.peers.iter().flatten().map(|peer| Uid::from_raw(peer.id)).collect(),
        },
        config::Listener::Tcp(tcp) => {
            Endpoint::Tcp { address: tcp.address, allow: tcp.allow.clone().unwrap_or_else(loopback) }
        }
    };
    config.listeners.iter().map(endpoint).collect()
}

/// Only for challenges, where anything will do.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Keeps passwords out of core files and other processes' reach, memory small, and makes room for connections.
fn harden() -> Result<(), DaemonError> {
    make_undumpable()?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| system("switch core dumps off")(error.into()))?;
    // Where huge pages are for everybody, as on Debian, every thread's small heap becomes megabytes.
    let _ = set_thp_disable(true);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it there is room for fewer connections; newcomers wait.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let mut probe = [0; 1];
    getrandom::fill(&mut probe).map_err(|error| system("get random numbers")(error.into()))?;
    let _ = random::random();
    Ok(())
}

fn make_undumpable() -> Result<(), DaemonError> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|error| system("make the process undumpable")(error.into()))
}

fn system(step: &'static str) -> impl Fn(io::Error) -> DaemonError {
    move |source| DaemonError::System { step, source }
}

/// Tells systemd, where there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(reason) = sd_notify::notify(states) {
        warn!(event = "not_notified", %reason);
    }
}
