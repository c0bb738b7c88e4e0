//! The load: N connections on one thread (or on several), each with one login in flight, the next one as soon as the
//! last is answered (or, paced, when it is due).
//!
//! A run warms up, then opens its window: logins answered inside it count, and the server's CPU clocks are read at both
//! ends. Latencies are those of logins that began in it, also when they end later, so that the slowest are not forgotten.
//! Runs are bounded by time and, if asked, by number. Silence from the server for half a minute, a closed connection or a
//! wrong reply ends the run with an error; refusals are counted, and the caller decides.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    process,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::{
    Outcome,
    connection::{Connection, Progress},
    dialog::{Mechanism, User},
    histogram::Histogram,
    interrupt,
    measure::Processes,
    server::Server,
};

/// How long a server may say nothing at all while logins are in flight.
const SILENCE: Duration = Duration::from_secs(30);

/// What to do to a server.
pub struct Load<'a> {
    pub mechanism: Mechanism,
    /// Each login takes the next user, over all connections.
    pub users: &'a [User],
    pub connections: usize,
    pub warm_up: Duration,
    pub window: Duration,
    /// Ends the window early.
    pub max_logins: u64,
    /// Ends it when somebody sets this.
    pub stop: Option<&'a AtomicBool>,
    /// Time from one login to the next on the same connection; `None` is at once. A login that finds its predecessor
    /// still in flight when it is due follows it, and its latency counts from when it was due.
    pub pace: Option<Duration>,
}

/// What came of it, inside the window.
pub struct Measured {
    pub logins: u64,
    pub refused: u64,
    pub wall: Duration,
    /// CPU time of all the server's processes.
    pub server_cpu: Duration,
    pub latency: Histogram,
}

impl Measured {
    pub fn cpu_per_login(&self) -> Duration {
        self.server_cpu.div_f64((self.logins as f64).max(1.0))
    }

    pub fn logins_per_second(&self) -> f64 {
        self.logins as f64 / self.wall.as_secs_f64()
    }

    /// How many cores the server kept busy.
    pub fn busy_cores(&self) -> f64 {
        self.server_cpu.as_secs_f64() / self.wall.as_secs_f64()
    }
}

impl Load<'_> {
    /// Runs the load. A refusal is an error here: every password is right.
    pub fn run(&self, server: &Server) -> Outcome<Measured> {
        let measured = self.run_and_tell(server, Duration::MAX, mpsc::channel().0)?;
        if measured.refused > 0 {
            let (name, count) = (server.kind.name(), measured.refused);
            return Err(format!("{name} refused {count} right passwords").into());
        }
        Ok(measured)
    }

    /// The same load, its connections divided among several threads. Rates and CPU time come out as for one.
    pub fn run_on_threads(&self, server: &Server, threads: usize) -> Outcome<Measured> {
        let part = Load { connections: self.connections / threads, ..*self };
        let parts: Vec<Measured> = thread::scope(|scope| {
            let clients: Vec<_> = (0..threads).map(|_| scope.spawn(|| part.run(server))).collect();
            let results = clients.into_iter().map(|client| client.join().map_err(|_| "a client panicked")?);
            results.collect::<Outcome<_>>()
        })?;
        // The windows are equally long and lie over each other but for the moment it takes to connect.
        let mean =
            |of: fn(&Measured) -> Duration| parts.iter().map(of).sum::<Duration>().div_f64(threads as f64);
        let mut latency = Histogram::new();
        parts.iter().for_each(|part| latency.add(&part.latency));
        Ok(Measured {
            logins: parts.iter().map(|part| part.logins).sum(),
            refused: 0,
            wall: mean(|part| part.wall),
            server_cpu: mean(|part| part.server_cpu),
            latency,
        })
    }

    /// Runs the load and calls `disturb` once, `at` after the window opened, on a thread of its own: a client that did
    /// it itself would count the time against the server.
    pub fn run_disturbed(
        &self,
        server: &Server,
        at: Duration,
        disturb: impl FnOnce() -> Outcome<()> + Send,
    ) -> Outcome<Measured> {
        thread::scope(|scope| {
            let (now, due) = mpsc::channel();
            let disturber = scope.spawn(move || due.recv().map_or(Ok(()), |()| disturb()));
            let measured = self.run_and_tell(server, at, now);
            disturber.join().map_err(|_| "the disturbance panicked")??;
            measured
        })
    }

    /// Runs the load and says so, `at` after the window opened.
    fn run_and_tell(&self, server: &Server, at: Duration, now: Sender<()>) -> Outcome<Measured> {
        let mut run = Run::start(self, server)?;
        let begun = Instant::now();
        while begun.elapsed() < self.warm_up {
            run.turn()?;
        }

        let processes = server.processes()?;
        let opened = run.open_window(&processes)?;
        let mut now = Some(now);
        while opened.elapsed() < self.window && run.logins < self.max_logins && !self.is_stopped() {
            if opened.elapsed() >= at
                && let Some(now) = now.take()
            {
                now.send(())?;
            }
            run.turn()?;
        }
        let server_cpu = processes.cpu()?.saturating_sub(run.cpu_before);
        let (wall, logins) = (opened.elapsed(), run.logins);
        run.drain()?;
        Ok(Measured { logins, refused: run.refused, wall, server_cpu, latency: run.latency })
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// A load while it runs.
struct Run<'a> {
    load: &'a Load<'a>,
    canned_user: Option<&'static str>,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    connections: Vec<Connection<'a>>,
    next_user: usize,
    /// When each connection's login is or was due, if paced.
    schedule: Vec<Instant>,
    /// Connections that wait until then, soonest first.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    in_flight: usize,
    stopping: bool,
    opened: Option<Instant>,
    logins: u64,
    refused: u64,
    latency: Histogram,
    cpu_before: Duration,
}

impl<'a> Run<'a> {
    fn start(load: &'a Load<'a>, server: &Server) -> Outcome<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::with_capacity(load.connections);
        let cpid = process::id();
        for index in 0..load.connections {
            let connection = Connection::open(&server.socket, cpid + u32::try_from(index)?)?;
            epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
            connections.push(connection);
        }
        let mut run = Run {
            load,
            canned_user: server.canned_user(),
            epoll,
            events: vec![EpollEvent::empty(); load.connections.max(1)],
            connections,
            next_user: 0,
            schedule: Vec::new(),
            due: BinaryHeap::with_capacity(load.connections),
            in_flight: 0,
            stopping: false,
            opened: None,
            logins: 0,
            refused: 0,
            latency: Histogram::new(),
            cpu_before: Duration::ZERO,
        };
        // Paced connections start evenly spread over one period.
        let now = Instant::now();
        for index in 0..load.connections {
            match load.pace {
                None => run.begin(index, now)?,
                Some(pace) => {
                    let due = now + pace.mul_f64(index as f64 / load.connections as f64);
                    run.schedule.push(due);
                    run.due.push(Reverse((due, index)));
                }
            }
        }
        Ok(run)
    }

    /// Forgets the warm-up.
    fn open_window(&mut self, processes: &Processes) -> Outcome<Instant> {
        self.logins = 0;
        self.refused = 0;
        let opened = Instant::now();
        self.opened = Some(opened);
        self.cpu_before = processes.cpu()?;
        Ok(opened)
    }

    fn begin(&mut self, index: usize, since: Instant) -> Outcome<()> {
        let users = self.load.users;
        let user = &users[self.next_user % users.len()];
        self.next_user += 1;
        self.in_flight += 1;
        self.connections[index].begin(user, self.load.mechanism, since)
    }

    /// Waits for replies (or for a login to become due) and handles all that have come.
    fn turn(&mut self) -> Outcome<()> {
        interrupt::check()?;
        let patience = match self.due.peek() {
            Some(Reverse((due, _))) => due.saturating_duration_since(Instant::now()),
            None => SILENCE,
        };
        // Rounded up: this clock may start a paced login a millisecond late, which is not the server's fault.
        let millis = u16::try_from(patience.as_nanos().div_ceil(1_000_000))?;
        let ready = self.epoll.wait(&mut self.events, millis)?;
        if ready == 0 && self.due.is_empty() {
            return Err(format!("no reply to {} logins for {SILENCE:?}", self.in_flight).into());
        }
        for event in 0..ready {
            let index = usize::try_from(self.events[event].data())?;
            self.receive(index)?;
        }
        while let Some(&Reverse((due, index))) = self.due.peek()
            && due <= Instant::now()
        {
            self.due.pop();
            self.begin(index, Instant::now())?;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Outcome<()> {
        let since = match self.connections[index].advance(self.canned_user)? {
            Progress::Waiting => return Ok(()),
            Progress::Accepted { since } => {
                self.logins += 1;
                since
            }
            Progress::Refused { since } => {
                self.refused += 1;
                since
            }
        };
        let now = Instant::now();
        if self.opened.is_some_and(|opened| since >= opened) {
            self.latency.record(now - since);
        }
        self.in_flight -= 1;
        match self.load.pace {
            _ if self.stopping => {}
            None => self.begin(index, now)?,
            Some(pace) => {
                self.schedule[index] += pace;
                match self.schedule[index] {
                    due if due <= now => self.begin(index, due)?,
                    due => self.due.push(Reverse((due, index))),
                }
            }
        }
        Ok(())
    }

    /// Lets logins in flight finish, so that the next run does not pay for them.
    fn drain(&mut self) -> Outcome<()> {
        self.stopping = true;
        self.due.clear();
        while self.in_flight > 0 {
            self.turn()?;
        }
        Ok(())
    }
}
