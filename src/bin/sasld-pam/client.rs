//! A connection from sasld: requests in, answers out, without ever blocking.
//!
//! Whoever breaks the format, or does not read his answers, is disconnected.

use nix::poll::PollFlags;
use sasld::pam::request::{FrameBuffer, MAX_FRAME_BYTES, Request};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use zeroize::Zeroizing;

/// Answers that may wait to be read, in bytes.
const MAX_UNREAD_BYTES: usize = 1 << 20;

/// See the module's head.
pub struct Client {
    stream: UnixStream,
    buffer: FrameBuffer,
    unread: Vec<u8>,
    broken: Option<String>,
}

impl Client {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, buffer: FrameBuffer::default(), unread: Vec::new(), broken: None })
    }

    /// What to wait for.
    pub fn interest(&self) -> PollFlags {
        let out = if self.unread.is_empty() && self.broken.is_none() {
            PollFlags::empty()
        } else {
            PollFlags::POLLOUT
        };
        PollFlags::POLLIN | out
    }

    /// Sends a frame as soon as it can be sent. Trouble shows at the next [`attend`](Self::attend).
    pub fn send(&mut self, frame: &[u8]) {
        self.unread.extend_from_slice(frame);
        self.flush();
        if self.unread.len() > MAX_UNREAD_BYTES {
            self.broken = Some("does not read its answers".to_owned());
        }
    }

    fn flush(&mut self) {
        while !self.unread.is_empty() {
            match self.stream.write(&self.unread) {
                Ok(written) => drop(self.unread.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // He has gone, which reading will tell.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.unread.clear(),
                Err(error) => {
                    self.broken = Some(error.to_string());
                    return;
                }
            }
        }
    }

    /// The requests that have come.
    ///
    /// # Errors
    /// The connection is over; the reason, if it is worth a line in the log.
    pub fn attend(&mut self, flags: PollFlags) -> Result<Vec<Request>, Option<String>> {
        self.flush();
        if let Some(reason) = self.broken.take() {
            return Err(Some(reason));
        }
        if !flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            return Ok(Vec::new());
        }
        let mut chunk = Zeroizing::new([0; MAX_FRAME_BYTES]);
        match self.stream.read(&mut chunk[..]) {
            Ok(0) => return Err(None),
            Ok(read) => self.buffer.extend(&chunk[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // He has gone without reading the greeting, as sasld does when it only looks whether somebody is here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(None),
            Err(error) => return Err(Some(error.to_string())),
        }
        let mut requests = Vec::new();
        while let Some(frame) = self.buffer.next_frame().map_err(|error| Some(error.to_string()))? {
            requests.push(Request::decode(&frame).map_err(|error| Some(error.to_string()))?);
        }
        Ok(requests)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
