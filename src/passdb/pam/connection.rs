//! The task that holds the connection to `sasld-pam`: sends what the queues hold, and takes the answers.
//!
//! There are never more requests on the way than there are workers; `sasld-pam` says how many in its greeting. When
//! the connection is lost, the requests on the way have no verdict. When it cannot be made, nobody waits: everything in
//! the queues has no verdict, and so has everything asked until it is there again; it is tried again after a pause
//! that grows from 0.1 to 5 seconds. An answer that is overdue means that `sasld-pam` itself has stopped. A `sasld-pam`
//! that sasld has started is started again, which needs root; without it, the socket is tried from then on.

use super::{Entrance, Health, InTime, Job, Settings, Shared};
use crate::pam::request::{Answer, FrameBuffer, Hello, Lane, MAX_FRAME_BYTES, Outcome, Request, Trouble};
use crate::passdb::fair_queue::Prefix;
use crate::sasl::Name;
use crate::session::Moment;
use core::time::Duration;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the greeting may take.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// How long after its deadline a request is overdue.
const OVERDUE: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, entrance: Entrance) {
    let settings = &shared.settings;
    let (mut started, mut start) = match entrance {
        Entrance::Socket => (None, None),
        Entrance::Started(stream, start) => (Some(stream), Some(start)),
    };
    let mut pause = FIRST_PAUSE;
    let mut trouble = String::new();
    loop {
        let was_started = started.is_some();
        match connect(started.take(), settings).await {
            Ok(mut connection) => {
                info!(event = "pam_connected", workers = connection.free(Lane::Ordinary));
                trouble.clear();
                let workers = connection.limits.iter().sum();
                {
                    let mut state = shared.lock();
                    state.down = false;
                    state.health = Health { connected: true, workers, ..Health::default() };
                }
                let reason = connection.serve(&shared).await;
                shared.lock().health = Health { workers, ..Health::of(&reason) };
                warn!(event = "pam_disconnected", %reason);
                if connection.has_answered {
                    pause = FIRST_PAUSE;
                } else if pause > FIRST_PAUSE {
                    // It greets and leaves, again and again. Nobody waits for that.
                    shared.lock().go_down();
                }
            }
            Err(reason) => {
                shared.lock().health = Health::of(&reason);
                let reason = reason.to_string();
                if reason != trouble {
                    let socket = settings.socket.display();
                    error!(event = "pam_unavailable", %socket, reason, hint = "is sasld-pam running? docs/pam.md");
                    trouble = reason;
                }
                shared.lock().go_down();
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        if was_started && let Some(again) = &mut start {
            match again() {
                Ok(stream) => started = Some(stream),
                Err(reason) => {
                    let hint = "sasld had started it and cannot start another; it goes on with the socket";
                    error!(event = "pam_gone", %reason, hint);
                    shared.started.store(false, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Health {
    fn of(trouble: &io::Error) -> Self {
        Self { trouble: Some(trouble.to_string()), ..Self::default() }
    }
}

/// Connects and hears the greeting.
async fn connect(
    started: Option<std::os::unix::net::UnixStream>,
    settings: &Settings,
) -> io::Result<Connection> {
    let stream = match started {
        Some(stream) => {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)?
        }
        None => UnixStream::connect(&settings.socket).await?,
    };
    let mut connection = Connection {
        stream,
        buffer: FrameBuffer::default(),
        on_the_way: HashMap::new(),
        limits: [0, 0],
        last_id: 0,
        has_answered: false,
    };
    let hello = timeout(HELLO_PATIENCE, connection.hello()).await;
    let Hello { ordinary, express, settings: theirs } =
        hello.map_err(|_| io::Error::other("no greeting in time"))??;
    connection.limits = [usize::from(ordinary), usize::from(express)];
    let ours = settings.worker.to_string();
    let service = settings.worker.to_arguments().swap_remove(0);
    if theirs.split(' ').next() != Some(service.as_str()) {
        return Err(io::Error::other(format!("it was started with {theirs}, the configuration says {ours}")));
    }
    if theirs != ours {
        // Whoever started it had the last word, and the rails are on its side.
        warn!(event = "pam_settings_differ", in_force = theirs, configured = ours);
    }
    Ok(connection)
}

/// A connection that has greeted us.
struct Connection {
    stream: UnixStream,
    buffer: FrameBuffer,
    on_the_way: HashMap<u64, OnTheWay>,
    /// Workers in the ordinary and in the express lane.
    limits: [usize; 2],
    last_id: u64,
    has_answered: bool,
}

struct OnTheWay {
    /// Whose worker it has.
    lane: Lane,
    user: Name,
    from: (Prefix, Moment),
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
}

impl Connection {
    async fn hello(&mut self) -> io::Result<Hello> {
        loop {
            if let Some(frame) = self.buffer.next_frame().map_err(io::Error::other)? {
                return Hello::decode(&frame).map_err(io::Error::other);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        let mut chunk = Zeroizing::new([0; MAX_FRAME_BYTES]);
        match self.stream.read(&mut chunk[..]).await? {
            0 => Err(io::Error::other("closed by sasld-pam")),
            read => {
                self.buffer.extend(&chunk[..read]);
                Ok(())
            }
        }
    }

    /// Works until the connection ends, and says why it did.
    async fn serve(&mut self, shared: &Shared) -> io::Error {
        loop {
            if let Err(error) = self.send_what_waits(shared).await {
                return error;
            }
            let overdue = self.on_the_way.values().map(|request| request.deadline).min();
            let overdue =
                overdue.map_or_else(|| Instant::now() + Duration::from_secs(3_600), |due| due + OVERDUE);
            tokio::select! {
                // What has come is read before anything is called late.
                biased;
                read = self.read() => {
                    if let Err(error) = read.and_then(|()| self.take_answers(shared)) {
                        return error;
                    }
                }
                () = shared.wake.notified() => {}
                () = sleep_until(overdue) => {
                    if !self.on_the_way.is_empty() {
                        return io::Error::other("no answer in time");
                    }
                }
            }
        }
    }

    /// How many more requests the workers of this lane can take.
    fn free(&self, lane: Lane) -> usize {
        let limit = match lane {
            Lane::Ordinary => self.limits[0],
            Lane::Express => self.limits[1],
        };
        limit.saturating_sub(self.on_the_way.values().filter(|request| request.lane == lane).count())
    }

    async fn send_what_waits(&mut self, shared: &Shared) -> io::Result<()> {
        for lane in [Lane::Express, Lane::Ordinary] {
            while self.free(lane) > 0 {
                let Some(job) = shared.lock().next(lane) else {
                    break;
                };
                self.send(job, lane).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, job: Job, lane: Lane) -> io::Result<()> {
        self.last_id += 1;
        let Job { user, from, password, rhost, tty, deadline, reply, .. } = job;
        let request = Request {
            id: self.last_id,
            lane,
            patience: deadline.saturating_duration_since(Instant::now()),
            user: user.as_str().to_owned(),
            password,
            rhost,
            tty,
        };
        let frame = match request.encode() {
            Ok(frame) => frame,
            Err(reason) => {
                // Checked before it was queued, so this is a fault of ours, and no reason to lose the connection.
                let _ = reply.send(Outcome::Undecided(Trouble::Crashed, reason.to_string()));
                return Ok(());
            }
        };
        self.on_the_way.insert(self.last_id, OnTheWay { lane, user, from, deadline, reply });
        // A sasld-pam that reads nothing has stopped, as one that says nothing.
        let written = timeout_at(deadline + OVERDUE, self.stream.write_all(&frame)).await;
        written.map_err(|_| io::Error::other("takes no request"))?
    }

    fn take_answers(&mut self, shared: &Shared) -> io::Result<()> {
        while let Some(frame) = self.buffer.next_frame().map_err(io::Error::other)? {
            let Answer { id, outcome, .. } = Answer::decode(&frame).map_err(io::Error::other)?;
            let Some(request) = self.on_the_way.remove(&id) else {
                return Err(io::Error::other("answer to nothing"));
            };
            self.has_answered = true;
            if let Err(outcome) = request.reply.send(outcome) {
                shared.judge(outcome, &request.user, request.from, InTime::No);
            }
        }
        Ok(())
    }
}
