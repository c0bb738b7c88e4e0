//! A socket beside those for mail servers: the control socket, and that of `metrics:`.
//!
//! It runs on the thread that accepts connections, which has little else to do, and a slow or hostile visitor costs a
//! task and no more: at most [`MAX_VISITORS`] at a time, each gone after [`PATIENCE`]. Whoever may not come in finds his
//! connection closed, and the log says who it was. When the door is dropped, so is everybody who waits.

use crate::server::listener::{self, Accept, Accepted};
use crate::server::{BindError, Endpoint, Listener};
use core::time::Duration;
use std::future::Future;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::warn;

/// Who is served at the same time; others wait in the backlog.
const MAX_VISITORS: usize = 16;

/// How long one may stay.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long accepting pauses after trouble, so that neither a stranger nor a lack of descriptors fills the log.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module's head.
pub struct Door {
    listener: Arc<Listener>,
    task: JoinHandle<()>,
}

/// A visitor's connection, whatever it is made of.
pub(super) trait Visitor: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Visitor for T {}

impl Door {
    /// Binds the socket and serves whoever comes. Needs a runtime's context.
    ///
    /// # Errors
    /// See [`BindError`]. Somebody else's socket is left alone.
    pub(super) fn open<F>(
        endpoint: &Endpoint,
        serve: impl Fn(Box<dyn Visitor>) -> F + Send + 'static,
    ) -> Result<Self, BindError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        listener::refuse_if_served(endpoint)?;
        let listener = Arc::new(Listener::prepare(endpoint)?.place()?);
        let task = tokio::spawn(receive(Arc::clone(&listener), serve));
        Ok(Self { listener, task })
    }

    /// Whether visitors still find it.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.listener.is_in_place()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive<F>(listener: Arc<Listener>, serve: impl Fn(Box<dyn Visitor>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_VISITORS));
    let mut visits = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            unreachable!("the semaphore is never closed");
        };
        while visits.try_join_next().is_some() {}
        let trouble = match accept(&listener).await {
            Ok(visitor) => {
                let visit = serve(visitor);
                visits.spawn(async move {
                    let _permit = permit;
                    // Who does not take his answer has only himself to tell.
                    let _ = timeout(PATIENCE, visit).await;
                });
                continue;
            }
            Err(trouble) => trouble,
        };
        warn!(event = "not_accepted", listener = listener.name(), reason = trouble);
        sleep(PAUSE).await;
    }
}

async fn accept(listener: &Listener) -> Result<Box<dyn Visitor>, String> {
    let accepted = match listener.accept().await {
        Ok(Accept::Connection(accepted)) => accepted,
        Ok(Accept::Stranger(who)) => return Err(format!("{who} may not connect")),
        Err(error) => return Err(error.to_string()),
    };
    let visitor: Result<Box<dyn Visitor>, _> = match accepted {
        Accepted::Unix(stream) => UnixStream::from_std(stream).map(|stream| Box::new(stream) as _),
        Accepted::Tcp(stream) => TcpStream::from_std(stream).map(|stream| Box::new(stream) as _),
    };
    visitor.map_err(|error| error.to_string())
}
