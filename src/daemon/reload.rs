//! A reload: what is new is read and checked, then put in force as a whole, and then the files are copied as the last good
//! ones.
//!
//! Reading asks the user database and loads secrets files that are new, and copying waits for the disk; all that can take
//! its time, so a thread of its own does it while the daemon goes on accepting. With any mistake nothing changes, and the
//! log has every one of them. A SIGHUP that comes meanwhile makes the next reload.

use super::last_good::read_and_check;
use super::{Daemon, DaemonError, Listening, endpoints, live, notify, secrets_files};
use crate::config::{Config, Source};
use crate::passdb::SecretsFile;
use core::future::pending;
use sd_notify::NotifyState;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tracing::{error, info, warn};

/// Work with files, which another thread does; or none.
#[derive(Default)]
pub struct Errand(Option<UnderWay>);

struct UnderWay {
    done: oneshot::Receiver<Done>,
    if_lost: fn(io::Error) -> Done,
}

/// What came of it.
pub enum Done {
    /// The configuration.
    Read(Box<Result<New, DaemonError>>),
    /// The copy of it.
    Copied(io::Result<bool>),
}

/// What was read.
pub struct New {
    config: Config,
    sources: Vec<Source>,
    files: Vec<Arc<SecretsFile>>,
}

impl Errand {
    /// `if_lost` is what came of it when there is no thread to be had, or when it panics.
    fn begin(if_lost: fn(io::Error) -> Done, work: impl FnOnce() -> Done + Send + 'static) -> Self {
        let (tell, done) = oneshot::channel();
        let thread = thread::Builder::new().name("files".to_owned());
        // Without a thread the closure is dropped, and with it the one who would tell.
        let _ = thread.spawn(move || drop(tell.send(work())));
        Self(Some(UnderWay { done, if_lost }))
    }

    pub fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for its end; for ever, when there is none.
    pub async fn done(&mut self) -> Done {
        let Some(UnderWay { done, if_lost }) = &mut self.0 else { return pending().await };
        done.await.unwrap_or_else(|_| if_lost(io::Error::other("the thread for it was lost")))
    }

    /// Does not leave a copy half made, if the disk is done by then.
    pub async fn let_it_end(mut self, by: Instant) {
        if self.is_under_way() {
            let _ = timeout_at(by.into(), self.done()).await;
        }
    }
}

impl Daemon {
    /// SIGHUP.
    pub(super) fn begin_reload(&self) -> Errand {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        let (path, pool, had) = (self.path.clone(), Arc::clone(&self.pool), self.service.live.load_full());
        let read = move || {
            let (config, sources) = read_and_check(&path)?;
            let files = secrets_files(&config, &pool, Some(&had.passdbs));
            Ok(New { config, sources, files })
        };
        let if_lost = |source| {
            Done::Read(Box::new(Err(DaemonError::System { step: "read the configuration", source })))
        };
        Errand::begin(if_lost, move || Done::Read(Box::new(read())))
    }

    /// The next step of it, if there is one.
    pub(super) fn go_on_with(&mut self, done: Done) -> Errand {
        let read = match done {
            Done::Read(read) => *read,
            Done::Copied(copied) => {
                tell_of_copy(copied);
                return Errand::default();
            }
        };
        let put_in_force =
            |New { config, sources, files }| self.put_in_force(config, files).map(|()| sources);
        match read.and_then(put_in_force) {
            Ok(sources) => {
                self.announce("reloaded");
                let Some(last_good) = self.last_good.clone() else { return Errand::default() };
                Errand::begin(|lost| Done::Copied(Err(lost)), move || Done::Copied(last_good.save(&sources)))
            }
            Err(error) => {
                self.reporter.facts().rejected(&error.to_string());
                // One line of log for each mistake.
                for reason in error.to_string().lines() {
                    error!(event = "not_reloaded", reason, hint = "the running configuration stays in force");
                }
                notify(&[NotifyState::Ready]);
                Errand::default()
            }
        }
    }

    fn put_in_force(&mut self, config: Config, files: Vec<Arc<SecretsFile>>) -> Result<(), DaemonError> {
        let prepared = if self.inherited { Vec::new() } else { self.prepare(&config)? };
        // A secrets file that we have is at least as good as it was; a new one must be good.
        let had = self.service.live.load_full();
        let is_new = |file: &&Arc<SecretsFile>| !had.passdbs.files().any(|old| Arc::ptr_eq(old, file));
        if let Some(file) = files.iter().filter(is_new).find(|file| file.users().is_none()) {
            return Err(DaemonError::Passdb(file.path().to_owned()));
        }
        let live = live(&config, files, Some(&had.passdbs));
        drop(had);
        self.place(prepared)?;
        // From here on nothing can fail.
        let wanted = endpoints(&config);
        self.restrict(&wanted);
        let unwanted = |listening: &mut Listening| {
            !listening.listener.is_in_place()
                || listening
                    .endpoint
                    .as_ref()
                    .is_some_and(|endpoint| !wanted.iter().any(|new| new.is_same_socket(endpoint)))
        };
        for old in self.listening.extract_if(.., unwanted) {
            self.server.accept_waiting(&old.listener);
        }
        self.service.live.store(Arc::new(live));
        self.log.set_level(config.log_level.into());
        for (key, changed) in [
            ("hash_threads", config.hash_threads != self.started_with.hash_threads),
            ("limits.connections", config.limits.connections != self.started_with.limits.connections),
            ("control", config.control != self.started_with.control),
            ("metrics", config.metrics != self.started_with.metrics),
            ("listeners", self.inherited && config.listeners != self.started_with.listeners),
        ] {
            if changed {
                warn!(event = "restart_needed", key);
            }
        }
        self.config = config;
        self.mistakes = None;
        self.doors.open(&self.started_with, &self.reporter);
        self.tell_reporter();
        Ok(())
    }
}

/// Says whether the files are the last good ones now.
pub fn tell_of_copy(copied: io::Result<bool>) {
    match copied {
        Ok(false) => {}
        Ok(true) => info!(event = "last_good_saved"),
        Err(reason) => warn!(event = "last_good_not_saved", %reason),
    }
}
