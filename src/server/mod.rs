//! Accepts connections and gives each of them to one of the serving threads.
//!
//! There is one serving thread per core, each with a runtime of its own, and a connection stays on the thread it was
//! given to: but for the log, a login shares nothing with another thread's. The accepting thread greets, too, at
//! once: whatever becomes of the serving thread, or of us, no client has been accepted and is not greeted, but for the one
//! of this very moment.
//!
//! No error of accept(2) ends the loop. At the connection limit and without free descriptors, newcomers wait in the
//! backlog: a connection that is closed before its greeting makes Postfix's smtpd exit and its port stop.
#![forbid(unsafe_code)]

mod connection;
pub mod listener;
mod pulse;
pub mod random;
pub mod unnamed;

pub use connection::{FAIR_SHARE, MAX_OPEN_EXCHANGES, MAX_UNREAD_BYTES, STUCK_AFTER};
pub use listener::{BindError, Endpoint, Listener};
pub use pulse::{HANGS_AFTER, Pulse};

use crate::passdb::Chain;
use crate::policy::Policy;
use crate::session::Moment;
use crate::tally::Tally;
use arc_swap::ArcSwap;
use connection::Stream;
use core::num::NonZeroUsize;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use listener::{Accept, Accepted};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use tokio::runtime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tracing::{error, warn};

/// How long accepting pauses when there are no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the same trouble with accepting is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What a reload replaces as a whole.
pub struct Live {
    /// The rules for logins.
    pub policy: Policy,
    /// Who can tell whether a password is right.
    pub passdbs: Chain,
}

/// What all connections share.
pub struct Service {
    /// The rules and passdbs in force.
    pub live: ArcSwap<Live>,
    tally: Mutex<Tally>,
    open_exchanges: AtomicUsize,
    start: Instant,
    /// The daemon is about to end.
    draining: AtomicBool,
    /// Wakes every connection to look at `draining`.
    drain_begins: Notify,
}

impl Service {
    /// A service under these rules.
    #[must_use]
    pub fn new(live: Live) -> Self {
        Self {
            live: ArcSwap::from_pointee(live),
            tally: Mutex::default(),
            open_exchanges: AtomicUsize::new(0),
            start: Instant::now(),
            draining: AtomicBool::new(false),
            drain_begins: Notify::new(),
        }
    }

    /// The time, as sessions count it: monotonic, from when the service was made.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(self.start.elapsed())
    }

    /// What is counted and remembered. Every login waits for it at its end, so whoever holds it lets go at once.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counters have no state that a panic could leave half done.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges without a final reply, over all connections.
    #[must_use]
    pub fn open_exchanges(&self) -> usize {
        self.open_exchanges.load(Ordering::Relaxed)
    }

    fn instant(&self, moment: Moment) -> Instant {
        self.start + moment.0
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whoever is not woken looks later, so what he finds has to be there first.
    fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain_begins.notify_waiters();
    }
}

/// The serving threads.
pub struct Server {
    service: Arc<Service>,
    workers: Vec<Worker>,
    connections: Arc<Connections>,
    /// Ends the serving threads when it is dropped.
    _stop: watch::Sender<()>,
}

/// A serving thread.
struct Worker {
    runtime: runtime::Handle,
    /// By its last sign of life; new connections go elsewhere then.
    hangs: AtomicBool,
}

struct Connections {
    permits: Arc<Semaphore>,
    count: AtomicUsize,
    /// Somebody left.
    left: Notify,
    last_number: AtomicU32,
}

impl Server {
    /// Starts the serving threads.
    ///
    /// # Errors
    /// When the operating system refuses a thread or what a runtime needs.
    pub fn start(service: Arc<Service>, threads: NonZeroUsize, max_connections: usize) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(());
        let mut workers = Vec::new();
        for number in 0..threads.get() {
            let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
            workers.push(Worker { runtime: runtime.handle().clone(), hangs: AtomicBool::new(false) });
            let mut stopped = stopped.clone();
            thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
                // An error is what ends it: the sender is gone.
                runtime.block_on(async { while stopped.changed().await.is_ok() {} });
            })?;
        }
        let connections = Arc::new(Connections {
            permits: Arc::new(Semaphore::new(max_connections)),
            count: AtomicUsize::new(0),
            left: Notify::new(),
            last_number: AtomicU32::new(0),
        });
        Ok(Self { service, workers, connections, _stop: stop })
    }

    /// Connections right now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.count.load(Ordering::Relaxed)
    }

    /// The serving threads, whose number does not change.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse::new(self.workers.len(), self.service.now())
    }

    /// Asks each serving thread for a sign of life, and says which ones [`hang`](HANGS_AFTER).
    pub fn feel(&self, pulse: &mut Pulse) -> Vec<usize> {
        let hanging = pulse.feel(self.service.now(), |number, question| {
            self.workers[number].runtime.spawn(async { question.answer() });
        });
        for (number, worker) in self.workers.iter().enumerate() {
            worker.hangs.store(hanging.contains(&number), Ordering::Relaxed);
        }
        hanging
    }

    /// The next in turn that does not hang, or else the next.
    fn worker(&self, number: u32) -> &Worker {
        let turn = number as usize % self.workers.len();
        let (before, after) = self.workers.split_at(turn);
        let well = |worker: &&Worker| !worker.hangs.load(Ordering::Relaxed);
        after.iter().chain(before).find(well).unwrap_or(&self.workers[turn])
    }

    /// Accepts connections for as long as it is polled.
    pub async fn accept_from(&self, listener: Arc<Listener>) {
        let mut quiet_until = Instant::now();
        loop {
            let Ok(permit) = Arc::clone(&self.connections.permits).acquire_owned().await else {
                unreachable!("the semaphore is never closed");
            };
            let trouble = match listener.accept().await {
                Ok(Accept::Connection(stream)) => {
                    self.hand_over(stream, permit);
                    continue;
                }
                Ok(Accept::Stranger(who)) => format!("{who} may not connect"),
                // The client was gone again before we looked.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tokio::time::sleep(PAUSE).await;
                    error.to_string()
                }
            };
            if Instant::now() >= quiet_until {
                quiet_until = Instant::now() + LOG_EVERY;
                warn!(event = "not_accepted", listener = listener.name(), reason = trouble);
            }
        }
    }

    /// Accepts what waits in the backlog of a listener that is about to go: those clients have been promised a server.
    pub fn accept_waiting(&self, listener: &Listener) {
        let mut context = Context::from_waker(Waker::noop());
        while let Ok(permit) = Arc::clone(&self.connections.permits).try_acquire_owned() {
            match pin!(listener.accept()).poll(&mut context) {
                Poll::Ready(Ok(Accept::Connection(stream))) => self.hand_over(stream, permit),
                Poll::Ready(Ok(Accept::Stranger(_))) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    fn hand_over(&self, stream: Accepted, permit: OwnedSemaphorePermit) {
        let connections = Arc::clone(&self.connections);
        let number = connections.next_number();
        connections.count.fetch_add(1, Ordering::Relaxed);
        let present = Present { connections, _permit: permit };
        let service = Arc::clone(&self.service);
        let mut greeting = connection::greeting(&service, number);
        // A new socket takes it whole; if one does not, the rest is written when it does.
        let sent = stream.send(&greeting).unwrap_or_default();
        greeting.drain(..sent);
        self.worker(number).runtime.spawn(async move {
            let _present = present;
            let stream = match stream {
                Accepted::Unix(stream) => tokio::net::UnixStream::from_std(stream).map(Stream::Unix),
                Accepted::Tcp(stream) => tokio::net::TcpStream::from_std(stream).map(Stream::Tcp),
            };
            match stream {
                Ok(stream) => connection::serve(stream, service, number, greeting).await,
                Err(error) => error!(event = "not_served", connection = number, reason = %error),
            }
        });
    }

    /// Tells every connection to finish what is in flight and close, and waits until all have.
    pub async fn drain(&self) {
        self.service.drain();
        loop {
            let left = self.connections.left.notified();
            if self.connections() == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Connections {
    /// CUID, a number from 1 to 2^32−1; after the last one they begin again.
    fn next_number(&self) -> u32 {
        loop {
            let number = self.last_number.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            if number != 0 {
                return number;
            }
        }
    }
}

/// One connection, counted.
struct Present {
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.connections.count.fetch_sub(1, Ordering::Relaxed);
        self.connections.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passdb::Chain;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_number_of_a_connection_is_never_0() {
        let connections = Connections {
            permits: Arc::new(Semaphore::new(1)),
            count: AtomicUsize::new(0),
            left: Notify::new(),
            last_number: AtomicU32::new(u32::MAX - 2),
        };
        let numbers = [(); 4].map(|()| connections.next_number());
        assert_eq!(numbers, [u32::MAX - 1, u32::MAX, 1, 2]);
    }

    #[test]
    fn a_client_is_greeted_although_its_thread_hangs() {
        let live = Live { policy: connection::tests::policy(), passdbs: Chain::new(Vec::new()) };
        let server = Server::start(Arc::new(Service::new(live)), NonZeroUsize::MIN, 1).unwrap();
        let (hold, end) = std::sync::mpsc::channel::<()>();
        server.workers[0].runtime.spawn(async move { end.recv() });
        let (accepted, client) = UnixStream::pair().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let permit = Arc::clone(&server.connections.permits).try_acquire_owned().unwrap();
        server.hand_over(Accepted::Unix(accepted), permit);
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let greeting: Vec<String> =
            BufReader::new(client).lines().map(Result::unwrap).take_while(|line| line != "DONE").collect();
        assert!(greeting[0].starts_with("VERSION\t1\t") && greeting[1].starts_with("MECH\t"), "{greeting:?}");
        drop(hold);
    }

    #[test]
    fn a_thread_that_hangs_gets_no_new_connection() {
        let live = Live { policy: connection::tests::policy(), passdbs: Chain::new(Vec::new()) };
        let threads = NonZeroUsize::new(3).unwrap();
        let server = Server::start(Arc::new(Service::new(live)), threads, 1).unwrap();
        let turns = || {
            (0..6).map(|number| {
                let worker = server.worker(number);
                server.workers.iter().position(|one| std::ptr::eq(one, worker)).unwrap()
            })
        };
        assert_eq!(turns().collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        server.workers[1].hangs.store(true, Ordering::Relaxed);
        assert_eq!(turns().collect::<Vec<_>>(), [0, 2, 2, 0, 2, 2]);
        server.workers.iter().for_each(|worker| worker.hangs.store(true, Ordering::Relaxed));
        assert_eq!(turns().collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2], "then any is as good");
    }
}
