//! Bytes in chunks of any size become whole lines.
//!
//! A line that arrives whole is handed out from the reader's own buffer without a copy; only the unfinished rest
//! of a chunk is kept, and wiped once it has been used, for it can hold a password. At the end of a connection an
//! unfinished line is thrown away, never executed.
//!
//! A line over [`MAX_LINE_BYTES`] and a NUL byte anywhere are errors: the connection is closed and its log line
//! says why. (Dovecot ends the line at the NUL and carries on; lengths decide here.)

use super::MAX_LINE_BYTES;
use memchr::memchr;
use thiserror::Error;
use zeroize::Zeroize;

/// The unfinished end of what a client has sent so far.
#[derive(Default)]
pub struct LineBuffer {
    partial: Vec<u8>,
}

/// Why no line can be taken from this connection any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// More than [`MAX_LINE_BYTES`] without a LF, or with it.
    #[error("line longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// A NUL byte inside a line.
    #[error("NUL byte in a line")]
    Nul,
}

impl LineBuffer {
    /// Takes the next line from `chunk`, which shrinks to what follows it. `None` means that the chunk is used up.
    ///
    /// The line comes without its LF, and without a CR before that. `whole` is where a line is put together that
    /// began in an earlier chunk; the caller owns it so that every connection can use the same one.
    ///
    /// # Errors
    /// [`LineError`]; afterwards the connection is of no more use.
    pub fn next_line<'chunk: 'line, 'line>(
        &mut self,
        chunk: &mut &'chunk [u8],
        whole: &'line mut Vec<u8>,
    ) -> Result<Option<&'line [u8]>, LineError> {
        let Some(end) = memchr(b'\n', chunk) else {
            if self.partial.len() + chunk.len() >= MAX_LINE_BYTES {
                return Err(LineError::TooLong);
            }
            self.keep(chunk);
            *chunk = &[];
            return Ok(None);
        };
        let (head, tail) = (&chunk[..end], &chunk[end + 1..]);
        *chunk = tail;
        if self.partial.len() + head.len() >= MAX_LINE_BYTES {
            return Err(LineError::TooLong);
        }
        let line = if self.partial.is_empty() {
            head
        } else {
            wipe(whole);
            whole.reserve(MAX_LINE_BYTES);
            whole.extend_from_slice(&self.partial);
            whole.extend_from_slice(head);
            self.partial.zeroize();
            // A connection that idles for days keeps no buffer.
            self.partial = Vec::new();
            whole
        };
        if memchr(0, line).is_some() {
            return Err(LineError::Nul);
        }
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// Appends to the unfinished line, and wipes the old place when it has to move to a larger one.
    fn keep(&mut self, chunk: &[u8]) {
        let length = self.partial.len() + chunk.len();
        if length > self.partial.capacity() {
            let mut larger = Vec::with_capacity(length.next_power_of_two());
            larger.extend_from_slice(&self.partial);
            self.partial.zeroize();
            self.partial = larger;
        }
        self.partial.extend_from_slice(chunk);
    }
}

/// Empties the buffer of [`LineBuffer::next_line`], and overwrites what was in it. It never moves, so nothing is left
/// elsewhere; `Vec::zeroize` would overwrite all 16 KiB that it could hold, byte by byte, for a line of a hundred.
pub fn wipe(buffer: &mut Vec<u8>) {
    buffer.as_mut_slice().zeroize();
    buffer.clear();
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.partial.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, LineError> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut rest = *chunk;
            loop {
                let mut whole = Vec::new();
                match buffer.next_line(&mut rest, &mut whole)? {
                    Some(line) => lines.push(line.to_vec()),
                    None => break,
                }
            }
        }
        Ok(lines)
    }

    #[test]
    fn a_line_needs_its_lf() {
        assert_eq!(lines(&[b"VERSION\t1\t0"]).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(lines(&[b"a\nb"]).unwrap(), [b"a"]);
    }

    #[test]
    fn one_cr_before_the_lf_is_no_part_of_the_line() {
        assert_eq!(lines(&[b"a\r\n\r\r\nb\rc\n"]).unwrap(), [&b"a"[..], b"\r", b"b\rc"]);
    }

    #[test]
    fn the_limit_counts_the_lf() {
        let longest = [&vec![b'A'; MAX_LINE_BYTES - 1][..], b"\n"].concat();
        assert_eq!(lines(&[&longest]).unwrap()[0].len(), MAX_LINE_BYTES - 1);
        let over = [&vec![b'A'; MAX_LINE_BYTES][..], b"\n"].concat();
        assert_eq!(lines(&[&over]), Err(LineError::TooLong));
        assert_eq!(lines(&[&over[..MAX_LINE_BYTES]]), Err(LineError::TooLong));
    }

    #[test]
    fn an_endless_line_is_never_kept() {
        let mut buffer = LineBuffer::default();
        let mut chunk = &vec![b'A'; 1 << 20][..];
        assert_eq!(buffer.next_line(&mut chunk, &mut Vec::new()), Err(LineError::TooLong));
        assert!(buffer.partial.capacity() <= MAX_LINE_BYTES);
    }

    #[test]
    fn a_nul_is_refused() {
        assert_eq!(lines(&[b"AUTH\t1\0\n"]), Err(LineError::Nul));
        assert_eq!(lines(&[b"AUTH\t1\0", b"\n"]), Err(LineError::Nul));
    }

    proptest! {
        #[test]
        fn chunking_never_matters(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200), cuts in prop::collection::vec(0usize..200, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut start = 0;
            for cut in cuts {
                chunks.push(&bytes[start..cut]);
                start = cut;
            }
            chunks.push(&bytes[start..]);
            prop_assert_eq!(lines(&chunks), lines(&[&bytes]));
        }
    }
}
