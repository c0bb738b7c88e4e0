//! The daemon's side of the socket: binds it, lets root and the daemon's own user in, reads one line, answers, closes.
//!
//! It runs on the thread that accepts connections, which has little else to do, and a slow or hostile asker costs a
//! task and no more: at most [`MAX_ASKERS`] at a time, each with [`LINE_PATIENCE`] for its line and [`TOTAL_PATIENCE`]
//! for everything. Whoever may not ask finds his connection closed, and the log says who it was.
//!
//! A socket that cannot be had is a [`NotAvailable`], which the daemon logs and goes on.

use super::report::{Reporter, refusal};
use super::{MAX_REQUEST_BYTES, Request};
use crate::server::listener::{self, Accept, Accepted};
use crate::server::{BindError, Endpoint, Listener};
use core::time::Duration;
use nix::unistd::{Uid, User};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Who is answered at the same time; others wait in the backlog.
const MAX_ASKERS: usize = 16;

/// How long the line may take.
const LINE_PATIENCE: Duration = Duration::from_secs(2);

/// How long everything may take.
const TOTAL_PATIENCE: Duration = Duration::from_secs(20);

/// How long accepting pauses when it fails.
const PAUSE: Duration = Duration::from_millis(100);

/// There is no control socket.
#[derive(Debug, Error)]
pub enum NotAvailable {
    /// It cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A socket that answers; dropping it ends that.
pub struct Control {
    listener: Arc<Listener>,
    task: JoinHandle<()>,
}

impl Control {
    /// Binds the socket for root and `becomes`, whom the daemon is going to be, and answers there. Needs a runtime's
    /// context.
    ///
    /// # Errors
    /// See [`NotAvailable`].
    pub fn start(path: &Path, becomes: Option<&User>, reporter: Arc<Reporter>) -> Result<Self, NotAvailable> {
        let own = becomes.map_or_else(Uid::effective, |user| user.uid);
        let endpoint = Endpoint::Unix {
            path: PathBuf::from(path),
            owner: Some(own),
            group: becomes.map(|user| user.gid),
            mode: 0o600,
            peers: vec![Uid::from_raw(0), own],
        };
        listener::refuse_if_served(&endpoint)?;
        let listener = Arc::new(Listener::prepare(&endpoint)?.place()?);
        let task = tokio::spawn(accept_from(Arc::clone(&listener), reporter));
        Ok(Self { listener, task })
    }

    /// Whether commands still find the socket.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.listener.is_in_place()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_from(listener: Arc<Listener>, reporter: Arc<Reporter>) {
    let askers = Arc::new(Semaphore::new(MAX_ASKERS));
    loop {
        let Ok(permit) = Arc::clone(&askers).acquire_owned().await else {
            unreachable!("the semaphore is never closed");
        };
        let trouble = match listener.accept().await {
            Ok(Accept::Connection(Accepted::Unix(stream))) => {
                let reporter = Arc::clone(&reporter);
                tokio::spawn(async move {
                    let _permit = permit;
                    // Who does not ask, or leaves before the answer, has only himself to tell.
                    let _ = timeout(TOTAL_PATIENCE, serve(stream, &reporter)).await;
                });
                continue;
            }
            Ok(Accept::Connection(Accepted::Tcp(_))) => continue,
            Ok(Accept::Stranger(who)) => format!("{who} may not connect"),
            Err(error) => error.to_string(),
        };
        warn!(event = "not_accepted", listener = listener.name(), reason = trouble);
        // Neither a stranger nor a lack of descriptors fills the log.
        sleep(PAUSE).await;
    }
}

async fn serve(stream: std::os::unix::net::UnixStream, reporter: &Reporter) -> io::Result<()> {
    let mut stream = UnixStream::from_std(stream)?;
    let reply = match timeout(LINE_PATIENCE, read_line(&mut stream)).await {
        Ok(Ok(line)) => match Request::parse(&line) {
            Ok(request) => reporter.answer(request).await,
            Err(error) => refusal(&error.to_string()),
        },
        Ok(Err(error)) => refusal(&error.to_string()),
        Err(_) => refusal(&format!("no line within {LINE_PATIENCE:?}")),
    };
    stream.write_all(&reply).await?;
    stream.shutdown().await
}

/// The line without its end. What comes behind it is nobody's.
async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(256);
    let mut chunk = [0; 512];
    loop {
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            return Err(io::Error::other("the line has no end"));
        }
        let end = memchr::memchr(b'\n', &chunk[..length]);
        line.extend_from_slice(&chunk[..end.unwrap_or(length)]);
        if line.len() >= MAX_REQUEST_BYTES {
            return Err(io::Error::other("the line is too long"));
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}
