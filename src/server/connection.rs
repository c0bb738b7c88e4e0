//! Drives one `Session` over one socket: bytes in, actions performed, bytes out, time told.
//!
//! One read and one write serve a login whose answer is known at once. Bytes are read into a buffer that all
//! connections of a thread share and parsed where they lie, so an idle connection holds nothing but its task. A
//! question whose answer takes time runs as a task beside the connection, which goes on reading meanwhile.
//!
//! A client that does not read its replies is not read from once [`MAX_UNREAD_BYTES`] wait for it, and is left after
//! [`STUCK_AFTER`]. A panic while a question is answered costs that request its verdict and nothing else. How each
//! connection ended, if not by its client, is logged.

use super::{Live, Service, random};
use crate::passdb::Trail;
use crate::policy::Policy;
use crate::sasl::{Answer, Outage, Question};
use crate::session::{Action, Attempt, CloseReason, Moment, Origin, Session, Ticket};
use crate::tally::{Remembered, Rules};
use crate::telemetry::log_attempt;
use crate::wire::{Greeting, LineBuffer, wipe};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker, ready};
use core::time::Duration;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Sleep, sleep_until, timeout};
use tracing::{debug, info, warn};
use zeroize::Zeroize;

/// Replies that may wait for their client.
pub const MAX_UNREAD_BYTES: usize = 64 << 10;

/// How long a client may leave replies unread.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Open exchanges over all connections. Beyond it, a connection keeps at most [`FAIR_SHARE`] of its own.
pub const MAX_OPEN_EXCHANGES: usize = 65_536;

/// Open exchanges that every connection may have, however many there are elsewhere. An smtpd has one.
pub const FAIR_SHARE: usize = 16;

/// How long a client that has connected and not asked yet is heard when the daemon is about to end. Postfix asks at once
/// when its old connection was closed, and does not try a third time.
const FIRST_WORDS: Duration = Duration::from_millis(500);

const READ_BYTES: usize = 16 << 10;

/// What all connections of a thread share.
struct Scratch {
    read: Box<[u8; READ_BYTES]>,
    whole_line: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { read: Box::new([0; READ_BYTES]), whole_line: Vec::new() });
}

/// A connected socket.
pub enum Stream {
    /// Unix.
    Unix(UnixStream),
    /// TCP.
    Tcp(TcpStream),
}

/// What wakes a connection.
enum Event {
    /// So many bytes were read into the scratch buffer; none at the end.
    Read(usize),
    Answered(Ticket, Result<Answer, Outage>),
    /// The timer rang, or some of what waited has been written.
    Tick,
    /// The daemon is about to end.
    Drain,
    Broken(io::Error),
}

struct Connection {
    stream: Stream,
    service: Arc<Service>,
    session: Session,
    lines: LineBuffer,
    /// Replies not yet written.
    out: Vec<u8>,
    /// When the client last read something of `out`, or `out` was empty.
    progress: Moment,
    /// Armed no later than needed; often earlier, for re-arming costs more than waking once for nothing.
    timer: Option<Pin<Box<Sleep>>>,
    answers: Option<(UnboundedSender<Answered>, UnboundedReceiver<Answered>)>,
    /// What the passdbs say to questions that are not settled.
    trails: Vec<(Ticket, Arc<Trail>)>,
    /// What `service.open_exchanges` holds of ours.
    counted: usize,
    /// Some attempt has been settled.
    settled: bool,
    /// The daemon is about to end, and this is when the client's time for its first words is over.
    draining: Option<Moment>,
}

type Answered = (Ticket, Result<Answer, Outage>);

/// What connection `number` is told before anything else.
pub(super) fn greeting(service: &Service, number: u32) -> Vec<u8> {
    let mut greeting = Vec::with_capacity(256);
    Greeting {
        mechanisms: &service.live.load().policy.default_service.mechanisms,
        pid: std::process::id(),
        connection: number,
        cookie: random::random(),
    }
    .encode(&mut greeting);
    greeting
}

/// Serves a connection until its end. `out` is what is left of its greeting.
pub(super) async fn serve(stream: Stream, service: Arc<Service>, number: u32, out: Vec<u8>) {
    let now = service.now();
    let mut connection = Connection {
        stream,
        service,
        session: Session::new(now),
        lines: LineBuffer::default(),
        out,
        progress: now,
        timer: None,
        answers: None,
        trails: Vec::new(),
        counted: 0,
        settled: false,
        draining: None,
    };
    match connection.run(number).await {
        End::Client => debug!(event = "disconnected", connection = number),
        End::Drained => {}
        End::Closed(CloseReason::Outage) => {
            info!(event = "closed", connection = number, reason = "no verdict");
        }
        End::Closed(reason) => warn!(event = "protocol_error", connection = number, %reason),
        End::Stuck => warn!(event = "stuck_client", connection = number, unread = connection.out.len()),
        End::Broken(error) => debug!(event = "broken", connection = number, reason = %error),
    }
}

/// How a connection ended.
enum End {
    Client,
    Drained,
    Closed(CloseReason),
    Stuck,
    Broken(io::Error),
}

impl Connection {
    async fn run(&mut self, number: u32) -> End {
        let service = Arc::clone(&self.service);
        let mut drain_begins = pin!(service.drain_begins.notified());
        // Polled once, it wakes this task for as long as it lives, whatever else the task waits for; what it says is no
        // matter, for the flag is looked at before every wait.
        let _ = poll_fn(|context| Poll::Ready(drain_begins.as_mut().poll(context))).await;
        debug!(event = "connected", connection = number);
        let mut event = Event::Tick;
        loop {
            if let Some(end) = self.turn(event) {
                return end;
            }
            event = poll_fn(|context| self.poll_event(context)).await;
        }
    }

    /// What has happened, what follows from it, and what to wait for next; all of it under the same rules.
    fn turn(&mut self, event: Event) -> Option<End> {
        let live = self.service.live.load();
        let now = self.service.now();
        if self.out.is_empty() {
            self.progress = now;
        }
        let end = match event {
            Event::Read(0) => Some(End::Client),
            Event::Read(length) => self.on_bytes(&live, length, now),
            Event::Answered(ticket, answer) => self.on_answer(&live, ticket, answer, now),
            Event::Drain => {
                self.draining = Some(now + FIRST_WORDS);
                None
            }
            Event::Tick => None,
            Event::Broken(error) => Some(End::Broken(error)),
        };
        let end = end.or_else(|| self.on_time(&live, now));
        self.count_exchanges();
        // Even at the end: what was decided before still goes out. A client that does not take it now has lost it.
        let written = self.write();
        let drained = || {
            self.draining.is_some()
                && !self.listens(now)
                && self.out.is_empty()
                && self.session.in_flight() == 0
        };
        let end = end.or(written.err().map(End::Broken)).or_else(|| drained().then_some(End::Drained));
        if end.is_none() {
            self.arm_timer(&live.policy, now);
        }
        end
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if let Some((_, answers)) = &mut self.answers
            && let Poll::Ready(Some((ticket, answer))) = answers.poll_recv(context)
        {
            return Poll::Ready(Event::Answered(ticket, answer));
        }
        if !self.out.is_empty() {
            match self.poll_write(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(Event::Tick),
                Poll::Ready(Err(error)) => return Poll::Ready(Event::Broken(error)),
                Poll::Pending => {}
            }
        }
        // Without a look at the clock as long as there is no end to it.
        let listens = self.draining.is_none() || self.listens(self.service.now());
        if self.session.wants_lines() && listens && self.out.len() < MAX_UNREAD_BYTES {
            match self.poll_read(context) {
                Poll::Ready(Ok(length)) => return Poll::Ready(Event::Read(length)),
                Poll::Ready(Err(error)) => return Poll::Ready(Event::Broken(error)),
                Poll::Pending => {}
            }
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(context).is_ready()
        {
            self.timer = None;
            return Poll::Ready(Event::Tick);
        }
        if self.draining.is_none() && self.service.is_draining() {
            return Poll::Ready(Event::Drain);
        }
        Poll::Pending
    }

    /// Takes every whole line out of what was just read.
    fn on_bytes(&mut self, live: &Arc<Live>, length: usize, now: Moment) -> Option<End> {
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { read, whole_line } = scratch;
            let mut chunk = &read[..length];
            let end = loop {
                let line = match self.lines.next_line(&mut chunk, whole_line) {
                    Ok(Some(line)) => line,
                    Ok(None) => break None,
                    Err(error) => break Some(End::Closed(error.into())),
                };
                let room = self.room(&live.policy);
                let action = self.session.on_line(line, now, &live.policy, room, &mut random::seed);
                let end = self.perform(live, action, now);
                self.count_exchanges();
                if end.is_some() || !self.session.wants_lines() {
                    break end;
                }
            };
            // Passwords have passed through here.
            read[..length].zeroize();
            wipe(whole_line);
            end
        })
    }

    fn on_answer(
        &mut self,
        live: &Arc<Live>,
        ticket: Ticket,
        answer: Result<Answer, Outage>,
        now: Moment,
    ) -> Option<End> {
        let action = self.session.on_answer(ticket, answer, now, &live.policy, &mut random::seed);
        self.perform(live, action, now)
    }

    fn on_time(&mut self, live: &Arc<Live>, now: Moment) -> Option<End> {
        if !self.out.is_empty() && now >= self.progress + STUCK_AFTER {
            return Some(End::Stuck);
        }
        loop {
            let action = self.session.on_time(now, &live.policy);
            if matches!(action, Action::None) {
                return None;
            }
            if let Some(end) = self.perform(live, action, now) {
                return Some(end);
            }
        }
    }

    fn perform(&mut self, live: &Arc<Live>, action: Action, now: Moment) -> Option<End> {
        match action {
            Action::None => None,
            Action::Send(reply) => {
                reply.encode(&mut self.out);
                None
            }
            Action::Settle(attempt, reply) => {
                self.settle(live, attempt, now);
                if let Some(reply) = reply {
                    reply.encode(&mut self.out);
                }
                None
            }
            Action::Ask(ticket, question, origin) => match self.ask(live, ticket, question, origin, now) {
                Some(answer) => self.on_answer(live, ticket, answer, now),
                None => None,
            },
            Action::Close(reason) => Some(End::Closed(reason)),
        }
    }

    /// Asks the passdbs. An answer that is there at once needs no task; any other comes as an [`Event::Answered`].
    fn ask(
        &mut self,
        live: &Arc<Live>,
        ticket: Ticket,
        question: Question,
        origin: Origin,
        now: Moment,
    ) -> Option<Result<Answer, Outage>> {
        let deadline = live.policy.deadline;
        let trail = Arc::new(live.passdbs.trail());
        self.trails.push((ticket, Arc::clone(&trail)));
        let live = Arc::clone(live);
        let mut answering =
            Box::pin(async move { live.passdbs.answer(&question, &origin, now, &trail).await });
        let mut context = Context::from_waker(Waker::noop());
        match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(&mut context))) {
            Ok(Poll::Ready(answer)) => return Some(answer),
            Ok(Poll::Pending) => {}
            Err(_) => return Some(Err(Outage::Internal)),
        }
        let (sender, _) = self.answers.get_or_insert_with(unbounded_channel);
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut reply = ReplyTo { ticket, sender: Some(sender.clone()) };
            // Whatever still waits in a queue for a login that is over is dropped there, and costs nothing.
            tokio::select! {
                answer = timeout(deadline, answering) => reply.send(answer.unwrap_or(Err(Outage::Deadline))),
                () = sender.closed() => {}
            }
        });
        None
    }

    /// Logs, counts and remembers an attempt that is over.
    fn settle(&mut self, live: &Live, attempt: Attempt, now: Moment) {
        self.settled = true;
        log_attempt(&attempt);
        let asked = self.trails.iter().position(|(ticket, _)| Some(*ticket) == attempt.ticket);
        let trail = asked.map(|position| self.trails.swap_remove(position).1.steps());
        let rules = Rules::of(&live.policy, &attempt.origin.service);
        let remembered = Remembered { at: now, attempt, rules, trail };
        // Named, so that it is dropped after the lock and not under it.
        let forgotten = self.service.tally().record(remembered, now);
        drop(forgotten);
    }

    fn write(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        match self.poll_write(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Writes as much as the socket takes.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = match &mut self.stream {
                Stream::Unix(stream) => Pin::new(stream).poll_write(context, &self.out),
                Stream::Tcp(stream) => Pin::new(stream).poll_write(context, &self.out),
            };
            let written = ready!(written)?;
            self.out.drain(..written);
            if !self.out.is_empty() {
                self.progress = self.service.now();
            }
        }
        if self.out.capacity() > READ_BYTES {
            // A burst is over; an idle connection keeps no large buffer.
            self.out = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch.read[..]);
            let read = match &mut self.stream {
                Stream::Unix(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                Stream::Tcp(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            };
            read.map_ok(|()| buffer.filled().len())
        })
    }

    fn arm_timer(&mut self, policy: &Policy, now: Moment) {
        let unread = (!self.out.is_empty()).then_some(self.progress + STUCK_AFTER);
        let first_words = self.draining.filter(|_| self.listens(now));
        let Some(wake_at) = self.session.wake_at(policy).into_iter().chain(unread).chain(first_words).min()
        else {
            return;
        };
        let deadline = self.service.instant(wake_at);
        match &mut self.timer {
            Some(timer) if timer.deadline() <= deadline => {}
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(sleep_until(deadline))),
        }
    }

    /// Whether the client is still listened to.
    fn listens(&self, now: Moment) -> bool {
        self.draining.is_none_or(|until| !self.settled && now < until)
    }

    /// How many exchanges this connection may have open now. When all connections together have too many, those with
    /// more than their share give way, and nobody else.
    fn room(&self, policy: &Policy) -> usize {
        if self.service.open_exchanges.load(Ordering::Relaxed) < MAX_OPEN_EXCHANGES {
            policy.max_exchanges
        } else {
            policy.max_exchanges.min(FAIR_SHARE)
        }
    }

    fn count_exchanges(&mut self) {
        let open = self.session.open_exchanges();
        if open != self.counted {
            self.service.open_exchanges.fetch_add(open, Ordering::Relaxed);
            self.service.open_exchanges.fetch_sub(self.counted, Ordering::Relaxed);
            self.counted = open;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let live = self.service.live.load();
        let now = self.service.now();
        for attempt in self.session.abandon(now) {
            self.settle(&live, attempt, now);
        }
        self.service.open_exchanges.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// Sends one answer to a connection, whatever happens to the task that works it out.
struct ReplyTo {
    ticket: Ticket,
    sender: Option<UnboundedSender<Answered>>,
}

impl ReplyTo {
    fn send(&mut self, answer: Result<Answer, Outage>) {
        if let Some(sender) = self.sender.take() {
            // Nobody listens when the connection is gone.
            let _ = sender.send((self.ticket, answer));
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        self.send(Err(Outage::Internal));
    }
}

#[cfg(test)]
pub(super) mod tests;
