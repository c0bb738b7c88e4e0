//! Guessers and honest users at one door: what an honest user feels while 100 connections try wrong passwords.
//!
//! A thread for each guesser, who starts the next attempt as soon as he has lost one, and a thread for each honest
//! login. Honest logins begin at even intervals, whatever becomes of the earlier ones, and all kinds of users share one
//! siege. Those without an answer when the time is over count as unanswered, with the time they have waited by then. A
//! guesser who is let in, or a server that takes no connections, ends the run with an error. The server is ended with
//! the siege, which frees whoever still waits.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Effort,
    caller::{Caller, Door, Login, Verdict},
    place,
};
use crate::{Outcome, dialog::User, histogram::Histogram, interrupt, server::Server};

/// Each comes from a network (/24) of its own: within one, guessers would wait for each other.
const GUESSERS: u8 = 100;
/// How often a signal is asked for.
const TICK: Duration = Duration::from_millis(100);

/// The honest ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visitor {
    /// A system user, from one of ten addresses that he has logged in from before.
    Known,
    /// The same user, each time from a network where nobody has logged in before.
    Newcomer,
    /// Users of the secrets file, from ten addresses.
    InFile,
}

impl Visitor {
    pub fn login(self, nth: usize, users: &[User]) -> Login {
        let tenth = u8::try_from(nth % 10).unwrap_or_default();
        let (user, password) = match self {
            Self::Known | Self::Newcomer => (place::USER, place::PASSWORD),
            Self::InFile => {
                let user = &users[nth % users.len()];
                (user.name.as_str(), user.password.as_str())
            }
        };
        let address = match self {
            Self::Known => Ipv4Addr::new(192, 0, 2, tenth),
            Self::Newcomer => {
                let [.., high, low] = nth.to_be_bytes();
                Ipv4Addr::new(198, 18, low, high)
            }
            Self::InFile => Ipv4Addr::new(203, 0, 113, tenth),
        };
        Login { user: user.to_owned(), password: password.to_owned(), address }
    }
}

/// What one kind of honest users has felt.
#[derive(Default)]
pub struct Felt {
    pub begun: u64,
    /// Right passwords that were called wrong.
    pub refused: u64,
    pub undecided: u64,
    pub unanswered: u64,
    /// Of all that have begun.
    pub latency: Histogram,
}

pub struct Siege {
    pub felt: BTreeMap<Visitor, Felt>,
    /// Wrong passwords answered, while honest users came.
    pub guesses_per_second: f64,
}

/// How honest users come.
pub struct Visits {
    pub visitor: Visitor,
    pub pace: Duration,
    /// How many of them have been there before; the next one is the first here.
    pub seen: usize,
}

/// What threads tell.
enum Event {
    Guess,
    /// To the honest login of this number, so long after it began.
    Answer(usize, Verdict, Duration),
    Broken(String),
}

/// Besieges the server, lets honest users come during the window, and waits for their answers until `patience` is over,
/// counted from the window's opening.
pub fn endure(
    server: Server,
    users: &[User],
    visits: &[Visits],
    effort: &Effort,
    patience: Duration,
) -> Outcome<Siege> {
    let mut timetable = Vec::new();
    for &Visits { visitor, pace, seen } in visits {
        let offsets = (0..).map(|nth: u32| pace * nth).take_while(|offset| *offset < effort.window);
        let logins = (seen..).map(|nth| visitor.login(nth, users));
        timetable.extend(offsets.zip(logins).map(|(offset, login)| (offset, visitor, login)));
    }
    timetable.sort_by_key(|(offset, ..)| *offset);

    let socket = server.socket.clone();
    let door = Door::of(&server, &socket);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (sender, events) = mpsc::channel();
        for guesser in 0..GUESSERS {
            let (sender, over) = (sender.clone(), &over);
            scope.spawn(move || guess(door, guesser, over, &sender));
        }
        let begin = |number, login| {
            let sender = sender.clone();
            scope.spawn(move || visit(door, number, &login, &sender));
        };
        let siege = Watch::new(events).keep(timetable, begin, effort.warm_up, patience);
        over.store(true, Ordering::Relaxed);
        server.end_at_once();
        siege
    })
}

/// Wrong passwords without a pause, never the same one twice.
fn guess(door: Door<'_>, guesser: u8, over: &AtomicBool, events: &Sender<Event>) {
    let mut caller = Caller::new(door);
    for nth in 0_u64.. {
        let login = Login {
            user: place::USER.to_owned(),
            password: format!("guess {guesser}-{nth}"),
            address: Ipv4Addr::new(198, 19, guesser, 1),
        };
        let event = match caller.log_in(&login) {
            Ok(Verdict::No | Verdict::Undecided) => Event::Guess,
            Ok(Verdict::Yes) => Event::Broken("a wrong password was accepted".to_owned()),
            Err(error) => Event::Broken(format!("a guesser was not served: {error}")),
        };
        let broken = matches!(event, Event::Broken(_));
        if over.load(Ordering::Relaxed) || events.send(event).is_err() || broken {
            return;
        }
    }
}

/// One honest login, on a connection of its own.
fn visit(door: Door<'_>, number: usize, login: &Login, events: &Sender<Event>) {
    let mut caller = Caller::new(door);
    let answered = caller.connect().and_then(|()| {
        let since = Instant::now();
        Ok(Event::Answer(number, caller.log_in(login)?, since.elapsed()))
    });
    let event =
        answered.unwrap_or_else(|error| Event::Broken(format!("an honest user was not served: {error}")));
    // Nobody listens when the siege is over.
    let _ = events.send(event);
}

/// Who counts during a siege.
struct Watch {
    events: Receiver<Event>,
    /// Honest logins that have begun and have no answer.
    pending: BTreeMap<usize, (Visitor, Instant)>,
    felt: BTreeMap<Visitor, Felt>,
    guesses: u64,
}

impl Watch {
    fn new(events: Receiver<Event>) -> Self {
        Self { events, pending: BTreeMap::new(), felt: BTreeMap::new(), guesses: 0 }
    }

    fn keep(
        mut self,
        timetable: Vec<(Duration, Visitor, Login)>,
        begin: impl Fn(usize, Login),
        warm_up: Duration,
        patience: Duration,
    ) -> Outcome<Siege> {
        let opened = Instant::now() + warm_up;
        self.listen_until(opened)?;
        self.guesses = 0;
        for (number, (offset, visitor, login)) in timetable.into_iter().enumerate() {
            self.listen_until(opened + offset)?;
            self.felt.entry(visitor).or_default().begun += 1;
            self.pending.insert(number, (visitor, Instant::now()));
            begin(number, login);
        }
        while !self.pending.is_empty() && opened.elapsed() < patience {
            self.listen_until(Instant::now() + TICK)?;
        }
        let guesses_per_second = self.guesses as f64 / opened.elapsed().as_secs_f64();
        for (visitor, since) in self.pending.into_values() {
            let felt = self.felt.entry(visitor).or_default();
            felt.unanswered += 1;
            felt.latency.record(since.elapsed());
        }
        Ok(Siege { felt: self.felt, guesses_per_second })
    }

    fn listen_until(&mut self, until: Instant) -> Outcome<()> {
        loop {
            interrupt::check()?;
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left.min(TICK)) {
                Ok(Event::Guess) => self.guesses += 1,
                Ok(Event::Answer(number, verdict, latency)) => self.answered(number, verdict, latency),
                Ok(Event::Broken(what)) => return Err(what.into()),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("nobody is there any longer".into()),
            }
        }
    }

    fn answered(&mut self, number: usize, verdict: Verdict, latency: Duration) {
        if let Some((visitor, _)) = self.pending.remove(&number) {
            let felt = self.felt.entry(visitor).or_default();
            felt.latency.record(latency);
            match verdict {
                Verdict::Yes => {}
                Verdict::No => felt.refused += 1,
                Verdict::Undecided => felt.undecided += 1,
            }
        }
    }
}
