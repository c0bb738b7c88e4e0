//! A scripted `sasld-pam`, and a clock that stands still.
//!
//! Both sides run in one thread, over real sockets. tokio's paused time would jump to the next timer whenever it finds
//! nothing to do, even with bytes in a socket; a [`StoppedClock`] keeps it from that.

use crate::pam::code::Code;
use crate::pam::request::{Answer, Checked, FrameBuffer, Hello, Outcome, Request, Stage};
use core::time::Duration;
use std::collections::VecDeque;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::advance;

/// `sasld-pam` as a script: the test takes requests and sends answers.
pub struct Fake {
    stream: UnixStream,
    buffer: FrameBuffer,
    requests: VecDeque<Request>,
}

impl Fake {
    pub async fn accept(listener: &UnixListener, ordinary: u16, express: u16, settings: &str) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut fake = Self { stream, buffer: FrameBuffer::default(), requests: VecDeque::new() };
        let hello = Hello { ordinary, express, settings: settings.to_owned() };
        fake.stream.write_all(&hello.encode()).await.unwrap();
        fake
    }

    /// The next request; `None` when sasld has gone.
    pub async fn request(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.requests.pop_front() {
                return Some(request);
            }
            let mut chunk = [0; 4_096];
            let read = self.stream.read(&mut chunk).await.unwrap();
            if read == 0 {
                return None;
            }
            self.buffer.extend(&chunk[..read]);
            while let Some(frame) = self.buffer.next_frame().unwrap() {
                self.requests.push_back(Request::decode(&frame).unwrap());
            }
        }
    }

    pub async fn answer(&mut self, request: &Request, code: Code) {
        let checked = Checked {
            stage: if code == Code::SUCCESS { Stage::Account } else { Stage::Authenticate },
            code,
            asked: true,
            asked_more: false,
            user: request.user.clone().into_bytes(),
            text: String::new(),
        };
        self.send(Answer { id: request.id, outcome: Outcome::Checked(checked), last: false }).await;
    }

    pub async fn send(&mut self, answer: Answer) {
        self.stream.write_all(&answer.encode()).await.unwrap();
    }

    /// How many requests have come when nobody has anything more to do.
    pub async fn waiting(&mut self) -> usize {
        settle().await;
        let mut chunk = [0; 4_096];
        while let Ok(read @ 1..) = self.stream.try_read(&mut chunk) {
            self.buffer.extend(&chunk[..read]);
            while let Some(frame) = self.buffer.next_frame().unwrap() {
                self.requests.push_back(Request::decode(&frame).unwrap());
            }
            settle().await;
        }
        self.requests.len()
    }
}

/// Lets everybody do what there is to do. In each turn all tasks that can run do, and the sockets are looked at.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Keeps tokio from moving the time by itself, which it does not while a blocking task runs.
struct StoppedClock {
    _stop: std::sync::mpsc::Sender<()>,
}

impl StoppedClock {
    fn new() -> Self {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || stopped.recv());
        Self { _stop: stop }
    }
}

pub struct Place {
    _clock: StoppedClock,
    _folder: tempfile::TempDir,
    pub socket: PathBuf,
    pub listener: UnixListener,
}

impl Place {
    /// From now on nobody listens there.
    pub fn close(&self) {
        std::fs::remove_file(&self.socket).unwrap();
    }

    pub async fn nobody_comes(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.listener.accept() => false,
            () = settle() => true,
        }
    }
}

/// Lets what is under way end, and then so much time pass.
pub async fn pass(milliseconds: u64) {
    settle().await;
    advance(Duration::from_millis(milliseconds)).await;
}

pub fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    Place { _clock: StoppedClock::new(), _folder: folder, socket, listener }
}
