//! The log: one logfmt line per event on standard error, and no request ever waits for it.
//!
//! Lines are put into a bounded buffer, which a thread of its own writes out. While standard error is blocked or its
//! disk full, the buffer fills and further lines are dropped and counted; the count is logged when writing works
//! again. The thread lingers a moment before it writes, so that a thousand logins cost one system call.
//!
//! A value with a blank, a quote, `=` or anything unprintable is quoted and escaped, so a user's name can never look
//! like another key. Passwords, responses and verifiers are never values; their types print as `***`.
//!
//! `docs/log.md` lists the events and the words of `why=`.
#![forbid(unsafe_code)]

use crate::sasl::Claimed;
use crate::session::Attempt;
use crate::wire::Secured;
use core::fmt;
use core::iter;
use core::net::IpAddr;
use core::time::Duration;
use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// Bytes of log that may wait to be written.
const BUFFER_BYTES: usize = 1 << 20;

/// How long the writer waits for company after the first line.
const LINGER: Duration = Duration::from_millis(5);

/// How much of a user's name is logged, in bytes.
const MAX_USER_BYTES: usize = 255;

/// Where log lines go; clones share one buffer.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    verbosity: AtomicU8,
    state: Mutex<State>,
    /// There is something to write, or an end to it.
    wake: Condvar,
    /// Everything is written.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    writing: bool,
    flushing: bool,
}

/// Sends every `tracing` event from `level` up to standard error, as long as the process lives.
///
/// # Errors
/// When the operating system refuses a thread, or another subscriber is set already.
pub fn start(level: Level) -> io::Result<Log> {
    let log = Log::start(io::stderr())?;
    log.set_level(level);
    tracing::subscriber::set_global_default(log.clone()).map_err(io::Error::other)?;
    std::panic::set_hook(Box::new(|panic| {
        // Not the message: it could quote what it choked on.
        let place = panic.location().map(tracing::field::display);
        tracing::error!(event = "panic", place);
    }));
    Ok(log)
}

impl Log {
    fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Shared {
            verbosity: AtomicU8::new(verbosity(Level::INFO)),
            state: Mutex::default(),
            wake: Condvar::new(),
            idle: Condvar::new(),
        };
        let log = Self { shared: Arc::new(shared) };
        let shared = Arc::clone(&log.shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_to(output))?;
        Ok(log)
    }

    /// Logs what is at least this grave from now on.
    pub fn set_level(&self, level: Level) {
        self.shared.verbosity.store(verbosity(level), Ordering::Relaxed);
    }

    /// Waits until everything logged so far is written, but at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let mut state = self.shared.lock();
        state.flushing = true;
        self.shared.wake.notify_one();
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let result = self.shared.idle.wait_timeout_while(state, patience, busy);
        result.unwrap_or_else(PoisonError::into_inner).0.flushing = false;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() >= BUFFER_BYTES {
            state.dropped += 1;
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
    }

    fn write_to(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        loop {
            let state = self.lock();
            let nothing = |state: &mut State| state.waiting.is_empty();
            let state = self.wake.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
            let lonely = |state: &mut State| !state.flushing && state.waiting.len() < BUFFER_BYTES / 2;
            let (mut state, _) =
                self.wake.wait_timeout_while(state, LINGER, lonely).unwrap_or_else(PoisonError::into_inner);
            batch.clear();
            std::mem::swap(&mut batch, &mut state.waiting);
            let dropped = std::mem::take(&mut state.dropped);
            state.writing = true;
            drop(state);
            let mut result = output.write_all(&batch);
            if dropped > 0 {
                let mut lost = Vec::new();
                Line(&mut lost).begin(Level::WARN, &mut Second::default());
                lost.extend_from_slice(format!(" event=log_lines_dropped count={dropped}\n").as_bytes());
                result = result.and_then(|()| output.write_all(&lost));
            }
            let mut state = self.lock();
            state.writing = false;
            if result.is_err() {
                // Counted, not kept: by the time the disk has room again they would be old news.
                state.dropped += dropped + batch.iter().filter(|&&byte| byte == b'\n').count() as u64;
            }
            if state.waiting.is_empty() {
                self.idle.notify_all();
            }
        }
    }
}

fn verbosity(level: Level) -> u8 {
    match level {
        Level::ERROR => 0,
        Level::WARN => 1,
        Level::INFO => 2,
        Level::DEBUG => 3,
        Level::TRACE => 4,
    }
}

impl Subscriber for Log {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The level may change, so it is compared each time.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        verbosity(*metadata.level()) <= self.shared.verbosity.load(Ordering::Relaxed)
    }

    fn event(&self, event: &Event<'_>) {
        LINE.with(|line| {
            // Taken already only if formatting a value logs, or panics: that line is lost.
            let Ok(mut line) = line.try_borrow_mut() else { return };
            let (bytes, second) = &mut *line;
            bytes.clear();
            let mut line = Line(bytes);
            line.begin(*event.metadata().level(), second);
            event.record(&mut line);
            line.0.push(b'\n');
            self.shared.append(bytes);
        });
    }

    // Spans are not used here; one of a library's is nothing to us.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

thread_local! {
    /// Where a thread puts a line together.
    static LINE: RefCell<(Vec<u8>, Second)> = RefCell::default();
}

/// The time as it was last written, to the second: most lines share it with the one before.
#[derive(Default)]
struct Second {
    unix: u64,
    text: String,
}

impl Second {
    /// Appends a time, given as what has passed since 1970, as `2026-11-22T18:41:14.149870Z`.
    fn write(&mut self, now: Duration, line: &mut Vec<u8>) {
        if self.unix != now.as_secs() || self.text.is_empty() {
            self.unix = now.as_secs();
            let whole = UNIX_EPOCH + Duration::from_secs(self.unix);
            self.text = humantime::format_rfc3339_seconds(whole).to_string();
            self.text.truncate("2026-11-22T18:41:14".len());
        }
        line.extend_from_slice(self.text.as_bytes());
        let mut micros = now.subsec_micros();
        let mut digits = *b".000000Z";
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + u8::try_from(micros % 10).unwrap_or(0);
            micros /= 10;
        }
        line.extend_from_slice(&digits);
    }
}

/// The bytes that a value without quotes may have.
static UNQUOTED: [bool; 256] = {
    let mut unquoted = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        unquoted[byte as usize] = !matches!(byte, b'"' | b'=' | b'\\');
        byte += 1;
    }
    unquoted
};

/// One line being written.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn begin(&mut self, level: Level, second: &mut Second) {
        self.0.extend_from_slice(b"time=");
        second.write(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), self.0);
        self.0.extend_from_slice(match level {
            Level::ERROR => b" level=error",
            Level::WARN => b" level=warn",
            Level::INFO => b" level=info",
            Level::DEBUG => b" level=debug",
            Level::TRACE => b" level=trace",
        });
    }

    fn key(&mut self, key: &str) {
        self.0.push(b' ');
        self.0.extend_from_slice(key.as_bytes());
        self.0.push(b'=');
    }

    /// Quotes what has been written since `start`, if it needs that.
    fn quote_from(&mut self, start: usize) {
        if self.0.len() > start && self.0[start..].iter().all(|&byte| UNQUOTED[usize::from(byte)]) {
            return;
        }
        let value = self.0.split_off(start);
        self.0.push(b'"');
        for chunk in value.utf8_chunks() {
            for character in chunk.valid().chars() {
                let printable =
                    character == ' ' || character.is_alphanumeric() || character.is_ascii_graphic();
                if printable && !matches!(character, '"' | '\\') {
                    write!(self.0, "{character}")
                } else {
                    write!(self.0, "{}", character.escape_default())
                }
                .expect("writing into a Vec does not fail");
            }
            for byte in chunk.invalid() {
                write!(self.0, "\\x{byte:02x}").expect("writing into a Vec does not fail");
            }
        }
        self.0.push(b'"');
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.key(field.name());
        let start = self.0.len();
        write!(self.0, "{value:?}").expect("writing into a Vec does not fail");
        self.quote_from(start);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field.name());
        let start = self.0.len();
        self.0.extend_from_slice(value.as_bytes());
        self.quote_from(start);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.key(field.name());
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// The one line that an attempt ends with.
pub fn log_attempt(attempt: &Attempt) {
    let Attempt { verdict, claimed, mechanism, origin, client_pid, elapsed, .. } = attempt;
    let (result, why) = verdict.words();
    let user = match claimed {
        Claimed::Nobody => None,
        Claimed::Name(name) => Some(Cow::Borrowed(name.as_str())),
        Claimed::Typed(bytes) => Some(text(&bytes[..bytes.len().min(MAX_USER_BYTES)])),
    };
    let user = user.as_deref();
    let mech = mechanism.map(crate::sasl::Mechanism::name);
    let service = &*text(&origin.service);
    let rip = origin.remote.map(address);
    let rip = rip.as_deref();
    let tls = if origin.secured == Secured::Yes { "yes" } else { "no" };
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(event = "auth", result, why, user, mech, service, rip, tls, pid = client_pid, ms);
}

/// Bytes of a stranger as text; those that are none as `\xff`.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(
        |_| {
            let escaped = bytes.utf8_chunks().flat_map(|chunk| {
                let invalid = chunk.invalid().iter().map(|byte| Cow::Owned(format!("\\x{byte:02x}")));
                iter::once(Cow::Borrowed(chunk.valid())).chain(invalid)
            });
            Cow::Owned(escaped.collect())
        },
        Cow::Borrowed,
    )
}

/// An address as its `Display` has it, without the formatter, which takes a thousand instructions for IPv4.
fn address(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let [a, b, c, d] = address.octets();
    let mut text = String::with_capacity("255.255.255.255".len());
    text.push_str(itoa::Buffer::new().format(a));
    for octet in [b, c, d] {
        text.push('.');
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(value: &[u8]) -> String {
        let mut bytes = value.to_vec();
        Line(&mut bytes).quote_from(0);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_value_that_could_be_mistaken_is_quoted_and_escaped() {
        assert_eq!(quoted(b"alice@example.com"), "alice@example.com");
        assert_eq!(quoted(b""), "\"\"");
        assert_eq!(quoted(b"x rip=9.9.9.9"), "\"x rip=9.9.9.9\"");
        assert_eq!(quoted(b"a\"b\\c\nd"), "\"a\\\"b\\\\c\\nd\"");
        assert_eq!(quoted("\u{202e}\u{1b}é".as_bytes()), "\"\\u{202e}\\u{1b}é\"");
        assert_eq!(quoted(b"\xff"), "\"\\xff\"");
    }

    #[test]
    fn what_is_quoted_is_all_but_graphic_ascii_without_three_characters() {
        for byte in 0..=u8::MAX {
            let plain = byte.is_ascii_graphic() && !b"\"=\\".contains(&byte);
            assert_eq!(quoted(&[byte]).len() == 1, plain, "{byte:#04x}");
        }
    }

    #[test]
    fn times_are_rfc_3339_in_utc_to_the_microsecond() {
        let mut second = Second::default();
        let mut line = Vec::new();
        second.write(Duration::new(1_795_372_874, 149_870_999), &mut line);
        second.write(Duration::new(1_795_372_874, 7_000), &mut line);
        second.write(Duration::new(0, 0), &mut line);
        let expected = "2026-11-22T18:41:14.149870Z2026-11-22T18:41:14.000007Z1970-01-01T00:00:00.000000Z";
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn what_is_no_text_is_escaped_byte_by_byte() {
        assert_eq!(text("zoë".as_bytes()), "zoë");
        assert_eq!(text(b"a\xffb\xc3"), "a\\xffb\\xc3");
    }

    #[test]
    fn lines_beyond_the_buffer_are_dropped_and_counted() {
        struct Gate(std::sync::mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);
        impl Write for Gate {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Blocked like a full pipe, until the test lets go of it.
                let _ = self.0.recv();
                self.1.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (open, gate) = std::sync::mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = Log::start(Gate(gate, Arc::clone(&written))).unwrap();
        let logged = 40_000_u64;
        tracing::subscriber::with_default(log.clone(), || {
            for count in 0..logged {
                tracing::info!(event = "flood", count);
            }
        });
        drop(open);
        log.flush(Duration::from_secs(60));
        // What was dropped while the last lines waited is told with the next line.
        tracing::subscriber::with_default(log.clone(), || {
            tracing::info!(event = "after");
        });
        log.flush(Duration::from_secs(60));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let kept = text.matches("event=flood").count() as u64;
        let dropped: u64 = text
            .lines()
            .filter_map(|line| line.split_once(" level=warn event=log_lines_dropped count="))
            .map(|(_, count)| count.parse::<u64>().unwrap())
            .sum();
        assert!(dropped > 0, "the flood is larger than the buffer");
        assert_eq!(kept + dropped, logged);
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_they_are_everywhere_else(ip: IpAddr) {
            prop_assert_eq!(address(ip), ip.to_string());
        }

        #[test]
        fn no_value_breaks_out_of_its_line_or_quotes(value: Vec<u8>) {
            let text = quoted(&value);
            prop_assert!(!text.chars().any(char::is_control));
            let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            match inside {
                Some(inside) => {
                    let unescaped = inside.replace("\\\\", "").replace("\\\"", "");
                    prop_assert!(!unescaped.contains('"'));
                }
                None => prop_assert!(!text.contains([' ', '=', '"'])),
            }
        }
    }
}
