//! What happens at the two doors: one line and its answer at the control socket, one HTTP request at `metrics:`.
//!
//! HTTP is the least that a scraper needs: GET (or HEAD) of `/metrics`, one request for each connection. A server
//! library would be larger than everything else in this folder, for a request line that is compared with two words.
//! Nothing else of a request is looked at, and nothing of it is kept.

use super::door::{Door, Visitor};
use super::metrics::CONTENT_TYPE;
use super::report::{Reporter, refusal};
use super::{MAX_REQUEST_BYTES, Request};
use crate::server::{BindError, Endpoint};
use core::time::Duration;
use nix::unistd::{Uid, User};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long a request may take to come.
const REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// Longest head of an HTTP request.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// Opens the control socket for root and `becomes`, whom the daemon is going to be. Needs a runtime's context.
///
/// # Errors
/// See [`BindError`].
pub fn open_control(path: &Path, becomes: Option<&User>, reporter: Arc<Reporter>) -> Result<Door, BindError> {
    let own = becomes.map_or_else(Uid::effective, |user| user.uid);
    let endpoint = Endpoint::Unix {
        path: path.to_owned(),
        owner: Some(own),
        group: becomes.map(|user| user.gid),
        mode: 0o600,
        peers: vec![Uid::from_raw(0), own],
    };
    Door::open(&endpoint, move |visitor| {
        let reporter = Arc::clone(&reporter);
        async move { answer_line(visitor, &reporter).await }
    })
}

/// Opens the socket of `metrics:`. Needs a runtime's context.
///
/// # Errors
/// See [`BindError`].
pub fn open_metrics(endpoint: &Endpoint, reporter: Arc<Reporter>) -> Result<Door, BindError> {
    Door::open(endpoint, move |visitor| {
        let reporter = Arc::clone(&reporter);
        async move { answer_http(visitor, &reporter).await }
    })
}

async fn answer_line(mut visitor: Box<dyn Visitor>, reporter: &Reporter) {
    let ends = |bytes: &[u8]| memchr::memchr(b'\n', bytes);
    let line = timeout(REQUEST_PATIENCE, read_until(&mut visitor, MAX_REQUEST_BYTES, ends)).await;
    let reply = match line {
        Ok(Ok(line)) => match Request::parse(&line) {
            Ok(request) => reporter.answer(request).await,
            Err(error) => refusal(&error.to_string()),
        },
        Ok(Err(error)) => refusal(&format!("no whole line: {error}")),
        Err(_) => refusal(&format!("no whole line within {REQUEST_PATIENCE:?}")),
    };
    send(visitor, &reply).await;
}

async fn answer_http(mut visitor: Box<dyn Visitor>, reporter: &Reporter) {
    let ends = |bytes: &[u8]| {
        let bare = memchr::memmem::find(bytes, b"\n\n");
        bare.into_iter().chain(memchr::memmem::find(bytes, b"\n\r\n")).min()
    };
    let head = timeout(REQUEST_PATIENCE, read_until(&mut visitor, MAX_HEAD_BYTES, ends)).await;
    let reply = match head {
        Ok(Ok(head)) => http(&head, || reporter.metrics()),
        Ok(Err(_)) => response("400 Bad Request", "text/plain", "not a request\n", true),
        Err(_) => response("408 Request Timeout", "text/plain", "too slow\n", true),
    };
    send(visitor, &reply).await;
}

/// The response to a request with this head.
fn http(head: &[u8], metrics: impl FnOnce() -> String) -> Vec<u8> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let path = target.unwrap_or_default().split(|byte| *byte == b'?').next();
    if !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) || words.next().is_some() {
        return response("400 Bad Request", "text/plain", "not a request of HTTP/1\n", true);
    }
    let with_body = match method {
        Some(b"GET") => true,
        Some(b"HEAD") => false,
        _ => return response("405 Method Not Allowed\r\nAllow: GET, HEAD", "text/plain", "GET only\n", true),
    };
    match path {
        Some(b"/metrics") => response("200 OK", CONTENT_TYPE, &metrics(), with_body),
        _ => response("404 Not Found", "text/plain", "there is only /metrics\n", with_body),
    }
}

fn response(status: &str, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let body = if with_body { body } else { "" };
    (head + body).into_bytes()
}

/// What comes before `end` finds an end in it, of less than `limit` bytes. What comes behind it is nobody's.
async fn read_until(
    visitor: &mut Box<dyn Visitor>,
    limit: usize,
    end: impl Fn(&[u8]) -> Option<usize>,
) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    let mut chunk = [0; 512];
    loop {
        let length = visitor.read(&mut chunk).await?;
        if length == 0 {
            return Err(io::Error::other("it ended before"));
        }
        read.extend_from_slice(&chunk[..length]);
        match end(&read) {
            Some(end) if end < limit => {
                read.truncate(end);
                return Ok(read);
            }
            None if read.len() < limit => {}
            Some(_) | None => return Err(io::Error::other(format!("more than {limit} bytes"))),
        }
    }
}

/// A visitor who is gone, or takes nothing, misses the answer and nothing else happens.
async fn send(mut visitor: Box<dyn Visitor>, reply: &[u8]) {
    if visitor.write_all(reply).await.is_ok() {
        let _ = visitor.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> String {
        let response = String::from_utf8(http(head.as_bytes(), || "some 1\n".to_owned())).unwrap();
        response.strip_prefix("HTTP/1.0 ").unwrap().split("\r\n").next().unwrap().to_owned()
    }

    #[test]
    fn there_is_one_page_and_it_can_only_be_got() {
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: x\r"), "200 OK");
        assert_eq!(status("GET /metrics?name=up HTTP/1.0"), "200 OK");
        assert_eq!(status("GET / HTTP/1.1"), "404 Not Found");
        assert_eq!(status("GET /metrics/../x HTTP/1.1"), "404 Not Found");
        assert_eq!(status("POST /metrics HTTP/1.1"), "405 Method Not Allowed");
        for nonsense in ["", "GET", "GET /metrics", "GET  /metrics HTTP/1.1", "GET /metrics HTTP/2 x", "\0"] {
            assert_eq!(status(nonsense), "400 Bad Request", "{nonsense:?}");
        }
    }

    #[test]
    fn a_head_is_like_its_page_without_the_page() {
        let page = String::from_utf8(http(b"GET /metrics HTTP/1.1", || "some 1\n".to_owned())).unwrap();
        let head = String::from_utf8(http(b"HEAD /metrics HTTP/1.1", || "some 1\n".to_owned())).unwrap();
        assert_eq!(page, head.clone() + "some 1\n");
        assert!(head.contains("Content-Length: 7\r\n"));
    }
}
