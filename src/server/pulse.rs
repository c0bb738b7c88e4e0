//! Do the serving threads still serve? Each is asked for a sign of life again and again; one that owes it for too long
//! hangs, and with it every login on its connections, although others are still let in.
//!
//! Who hears of it is up to the daemon: it stops telling systemd's watchdog that all is well, and at the second look
//! asks it for a new start.

use crate::session::Moment;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How long a thread may be busy with one thing. The longest thing is loading a small secrets file.
pub const HANGS_AFTER: Duration = Duration::from_secs(5);

/// The signs of life of some threads.
pub struct Pulse {
    threads: Vec<Thread>,
}

struct Thread {
    asked: Moment,
    alive: Arc<AtomicBool>,
}

/// A question to a thread, which that thread is to answer.
pub struct Question(Arc<AtomicBool>);

impl Question {
    /// Here I am.
    pub fn answer(self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pulse {
    /// So many threads, none of which owes anything yet.
    #[must_use]
    pub fn new(threads: usize, now: Moment) -> Self {
        let thread = |_| Thread { asked: now, alive: Arc::new(AtomicBool::new(true)) };
        Self { threads: (0..threads).map(thread).collect() }
    }

    /// Asks every thread that has answered, and says which ones hang. To be called again and again.
    pub fn feel(&mut self, now: Moment, mut ask: impl FnMut(usize, Question)) -> Vec<usize> {
        let mut hanging = Vec::new();
        for (number, thread) in self.threads.iter_mut().enumerate() {
            if thread.alive.swap(false, Ordering::Relaxed) {
                thread.asked = now;
                ask(number, Question(Arc::clone(&thread.alive)));
            } else if now >= thread.asked + HANGS_AFTER {
                hanging.push(number);
            }
        }
        hanging
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime;

    fn at(milliseconds: u64) -> Moment {
        Moment(Duration::from_millis(milliseconds))
    }

    #[test]
    fn threads_that_answer_do_not_hang() {
        let mut pulse = Pulse::new(2, at(0));
        for second in 0..100 {
            assert!(pulse.feel(at(second * 1000), |_, question| question.answer()).is_empty());
        }
    }

    #[test]
    fn a_thread_that_owes_an_answer_for_five_seconds_hangs_until_it_answers() {
        let mut pulse = Pulse::new(2, at(0));
        let mut owed = None;
        let hanging = pulse.feel(at(1000), |number, question| match number {
            0 => question.answer(),
            _ => owed = Some(question),
        });
        assert!(hanging.is_empty());
        let answer = |number, question: Question| {
            assert_eq!(number, 0, "one question at a time");
            question.answer();
        };
        assert!(pulse.feel(at(5999), answer).is_empty());
        assert_eq!(pulse.feel(at(6000), answer), [1]);
        assert_eq!(pulse.feel(at(60_000), answer), [1]);
        owed.unwrap().answer();
        assert!(pulse.feel(at(61_000), |_, question| question.answer()).is_empty());
    }

    #[test]
    fn a_pause_of_the_one_who_asks_is_nobodys_fault() {
        let mut pulse = Pulse::new(1, at(0));
        assert!(pulse.feel(at(0), |_, question| question.answer()).is_empty());
        assert!(pulse.feel(at(3_600_000), |_, question| question.answer()).is_empty());
    }

    #[test]
    fn a_runtime_answers_when_it_runs_and_not_before() {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        let mut pulse = Pulse::new(1, at(0));
        let handle = runtime.handle().clone();
        let mut ask = |_, question: Question| drop(handle.spawn(async { question.answer() }));
        assert!(pulse.feel(at(0), &mut ask).is_empty());
        assert_eq!(pulse.feel(at(5000), &mut ask), [0]);
        runtime.block_on(async { tokio::task::yield_now().await });
        assert!(pulse.feel(at(10_000), &mut ask).is_empty());
    }
}
