//! The threads on which expensive hashes are computed, so that no login waits for another one's.
//!
//! A hash made to be slow takes milliseconds to seconds of a core. As many threads as there are cores compute them,
//! at a lower priority than the threads that serve the sockets; jobs wait in a [`FairQueue`]. A job whose login has
//! been given up meanwhile is not computed any more.
//!
//! When the queue is full, or a hash panics, the login has no verdict ([`Outage`]).

use super::fair_queue::{FairQueue, Prefix};
use crate::sasl::Outage;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use tokio::sync::oneshot;

/// Jobs that may wait, over all prefixes.
const QUEUE_CAPACITY: usize = 1_024;

/// How much nicer than the rest of the daemon the pool's threads are, in steps of nice(2).
const NICE: i32 = 10;

/// A handle on the threads; they end when the last one is dropped.
pub struct HashPool {
    threads: usize,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    queue: FairQueue<Job>,
    closing: bool,
}

trait Work: Send {
    /// Computes and replies.
    fn run(self: Box<Self>);
}

type Job = Box<dyn Work>;

struct Task<T, F> {
    compute: F,
    reply: oneshot::Sender<Result<T, Outage>>,
}

impl<T: Send, F: FnOnce() -> T + Send> Work for Task<T, F> {
    fn run(self: Box<Self>) {
        if self.reply.is_closed() {
            return;
        }
        let computed = catch_unwind(AssertUnwindSafe(self.compute)).map_err(|_| Outage::Internal);
        // Nobody listens when the login was given up during the computation.
        let _ = self.reply.send(computed);
    }
}

impl HashPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(threads: NonZeroUsize) -> std::io::Result<Self> {
        let state = State { queue: FairQueue::new(QUEUE_CAPACITY), closing: false };
        let pool = Self {
            threads: threads.get(),
            shared: Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() }),
        };
        for number in 0..threads.get() {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name(format!("hash-{number}")).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Its threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Jobs that wait for a thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Computes on one of the threads, in turn with the other prefixes.
    ///
    /// # Errors
    /// [`Outage::QueueFull`] when too many jobs wait, [`Outage::Internal`] when the computation panics.
    pub async fn run<T, F>(&self, prefix: Prefix, compute: F) -> Result<T, Outage>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let gives_way = self.shared.lock().queue.push(prefix, Box::new(Task { compute, reply }));
        // Dropping a job tells its login that the queue is full.
        drop(gives_way);
        self.shared.wake.notify_one();
        answer.await.unwrap_or(Err(Outage::QueueFull))
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        be_nice();
        while let Some(job) = self.next() {
            job.run();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closing {
                return None;
            }
            if let Some(job) = state.queue.pop() {
                return Some(job);
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Lets the threads that serve the sockets go before this one.
pub(super) fn be_nice() {
    // Where it is not allowed, this thread merely competes with them.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn pool() -> HashPool {
        HashPool::start(NonZeroUsize::MIN).unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_no_verdict_and_the_thread_goes_on() {
        let pool = pool();
        assert_eq!(
            pool.run(Prefix::Unknown, || -> u8 { panic!("a hash gone wrong") }).await,
            Err(Outage::Internal)
        );
        assert_eq!(pool.run(Prefix::Unknown, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_full_queue_is_no_verdict() {
        let pool = pool();
        let (go, wait) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let mut jobs = vec![Box::pin(pool.run(Prefix::Unknown, move || {
            started.send(()).expect("the test waits for it");
            wait.recv().is_err()
        }))];
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        assert!(jobs[0].as_mut().poll(&mut context).is_pending());
        running.recv().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..QUEUE_CAPACITY {
            let mut job = Box::pin(pool.run(Prefix::Unknown, || true));
            assert!(job.as_mut().poll(&mut context).is_pending());
            waiting.push(job);
        }
        assert_eq!(pool.run(Prefix::Unknown, || true).await, Err(Outage::QueueFull));
        drop(go);
        assert_eq!(jobs.remove(0).await, Ok(true));
        for job in waiting {
            assert_eq!(job.await, Ok(true));
        }
    }
}
