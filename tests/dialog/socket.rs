//! The client's end of a Unix socket, in real time.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::replay::{Peer, Received};

/// A connection to a server on a Unix socket.
pub struct Socket {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Socket {
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// More bytes into `unread`. `None` when the connection is over, `Some(false)` when the time is.
    fn fill(&mut self, within: Duration) -> Option<bool> {
        // A timeout of zero would mean none at all.
        let within = within.max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(within)).expect("not zero");
        let mut chunk = [0; 16384];
        match self.stream.read(&mut chunk) {
            Ok(0) => None,
            Ok(count) => {
                self.unread.extend_from_slice(&chunk[..count]);
                Some(true)
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Some(false)
            }
            Err(_) => None,
        }
    }
}

impl Peer for Socket {
    fn send(&mut self, bytes: &[u8]) {
        // A server that closed in the middle of the dialog is seen by the next `receive`.
        let _ = self.stream.write_all(bytes);
    }

    fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn receive(&mut self, within: Duration) -> Received {
        let until = Instant::now() + within;
        loop {
            if let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Received::Line(line[..end].to_vec());
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.fill(left) {
                None => {
                    return Received::Closed { torn: std::mem::take(&mut self.unread) };
                }
                Some(false) if left.is_zero() => return Received::Nothing,
                Some(_) => {}
            }
        }
    }
}
