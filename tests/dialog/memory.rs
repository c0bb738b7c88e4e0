//! A `Session` in memory, in virtual time: what `server::connection` does, without socket and clock.
//!
//! Passdb questions are answered on the spot, so a dialog sees no request waiting for a verdict. Time passes only
//! while the client waits for the server, and then as far as the next thing that is due.

use core::cell::Cell;

use std::io;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sasld::config::Config;
use sasld::passdb::{Chain, HashPool, Link, SecretsFile, Source};
use sasld::policy::Policy;
use sasld::sasl::Seed;
use sasld::session::{Action, Moment, Session};
use sasld::wire::{Greeting, LineBuffer};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::daemon::{configuration, remove_secrets, write_secrets};
use super::profile::Profile;
use super::replay::{Peer, Received, Server};

/// Longer than a secrets file that was missing is trusted to be so without a look.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A server that is only there when it is called.
pub struct Memory(Rc<World>);

struct World {
    dir: TempDir,
    policy: Policy,
    chain: Chain,
    runtime: Runtime,
    clock: Cell<Duration>,
    random: Cell<u64>,
}

impl Memory {
    pub fn start(profile: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sasld-").tempdir().expect("a temporary folder");
        let profile = Profile::named(profile);
        if let Some(secrets) = profile.secrets() {
            write_secrets(dir.path(), &secrets).expect("a writable folder");
        }
        let config = Config::load(&configuration(&profile, dir.path())).expect("a good configuration");
        let pool = Arc::new(HashPool::start(NonZeroUsize::MIN).expect("a thread"));
        let policy = config.policy("mail.example.com".to_owned());
        let passdb = SecretsFile::open(dir.path().join("secrets"), policy.names.clone(), pool);
        let chain =
            Chain::new(vec![Link { source: Source::SecretsFile(passdb), continue_on_refusal: false }]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self(Rc::new(World { dir, policy, chain, runtime, clock: Cell::default(), random: Cell::new(1) }))
    }
}

impl World {
    fn now(&self) -> Moment {
        Moment(self.clock.get())
    }

    /// Different each time, which is all that a challenge needs here.
    fn seed(&self) -> Seed {
        self.random.set(self.random.get() + 1);
        Seed { random: u128::from(self.random.get()).to_be_bytes(), unix_seconds: 1_700_000_000 }
    }
}

impl Server for Memory {
    fn connect(&mut self) -> io::Result<Box<dyn Peer>> {
        let mut out = Vec::new();
        let mechanisms = &self.0.policy.default_service.mechanisms;
        Greeting { mechanisms, pid: 1, connection: 1, cookie: [0; 16] }.encode(&mut out);
        let session = Session::new(self.0.now());
        let world = Rc::clone(&self.0);
        Ok(Box::new(Connection { world, session, lines: LineBuffer::default(), out, closed: false }))
    }

    fn now(&self) -> Duration {
        self.0.clock.get()
    }

    fn change_secrets(&mut self, contents: Option<&[u8]>) -> io::Result<()> {
        match contents {
            Some(contents) => write_secrets(self.0.dir.path(), contents)?,
            None => remove_secrets(self.0.dir.path())?,
        }
        self.0.clock.set(self.0.clock.get() + LOOK_AGAIN);
        Ok(())
    }
}

struct Connection {
    world: Rc<World>,
    session: Session,
    lines: LineBuffer,
    out: Vec<u8>,
    closed: bool,
}

impl Connection {
    fn perform(&mut self, action: Action) {
        match action {
            Action::None | Action::Settle(_, None) => {}
            Action::Send(reply) | Action::Settle(_, Some(reply)) => reply.encode(&mut self.out),
            Action::Close(_) => self.closed = true,
            Action::Ask(ticket, question, origin) => {
                let world = Rc::clone(&self.world);
                let now = world.now();
                let answer =
                    world.runtime.block_on(world.chain.answer(&question, &origin, now, &world.chain.trail()));
                let action = self.session.on_answer(ticket, answer, now, &world.policy, &mut || world.seed());
                self.perform(action);
            }
        }
    }

    /// Does all that is due by now.
    fn tick(&mut self) {
        while !self.closed && self.due().is_some_and(|due| due <= self.world.now()) {
            let action = self.session.on_time(self.world.now(), &self.world.policy);
            self.perform(action);
        }
    }

    fn due(&self) -> Option<Moment> {
        self.session.wake_at(&self.world.policy)
    }
}

impl Peer for Connection {
    fn send(&mut self, mut bytes: &[u8]) {
        let mut whole = Vec::new();
        while !self.closed && self.session.wants_lines() {
            let world = Rc::clone(&self.world);
            let action = match self.lines.next_line(&mut bytes, &mut whole) {
                Ok(None) => break,
                Ok(Some(line)) => self.session.on_line(
                    line,
                    world.now(),
                    &world.policy,
                    world.policy.max_exchanges,
                    &mut || world.seed(),
                ),
                Err(error) => Action::Close(error.into()),
            };
            self.perform(action);
        }
        self.tick();
    }

    fn half_close(&mut self) {
        self.closed = true;
    }

    fn receive(&mut self, within: Duration) -> Received {
        let until = self.world.now() + within;
        self.tick();
        loop {
            if let Some(end) = self.out.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.out.drain(..=end).collect();
                return Received::Line(line[..end].to_vec());
            }
            if self.closed {
                return Received::Closed { torn: std::mem::take(&mut self.out) };
            }
            match self.due() {
                Some(due) if due <= until => {
                    self.world.clock.set(due.0.max(self.world.clock.get()));
                    self.tick();
                }
                _ => {
                    self.world.clock.set(until.0.max(self.world.clock.get()));
                    return Received::Nothing;
                }
            }
        }
    }
}
