//! Frames: a length and that many bytes; and the fields in them.
//!
//! `u32` big-endian length, 1 to [`MAX_FRAME_BYTES`]; fields are fixed-size numbers, or a `u16` length and bytes.
//! Whoever breaks the format has a fault, so nobody looks for the next frame: the connection or process ends. All
//! buffers are wiped, for passwords pass through them.

use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Longest frame, in bytes, without its length.
pub const MAX_FRAME_BYTES: usize = 4_096;

const LENGTH_BYTES: usize = 4;

/// Not a message of this protocol.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// A frame of no bytes, or of more than [`MAX_FRAME_BYTES`].
    #[error("frame of {0} bytes")]
    FrameLength(u32),
    /// A field reaches beyond the frame's end.
    #[error("truncated frame")]
    Truncated,
    /// Bytes after the last field.
    #[error("bytes after the last field")]
    Trailing,
    /// Another version or another message than the one expected here.
    #[error("unexpected message")]
    Unexpected,
    /// A field's value is outside its range.
    #[error("bad {0}")]
    Value(&'static str),
}

/// Bytes in any chunks → frames.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Zeroizing<Vec<u8>>,
}

impl Default for FrameBuffer {
    fn default() -> Self {
        // Room for one incomplete frame and one read, so that the vector never moves and leaves a copy behind.
        Self { bytes: Zeroizing::new(Vec::with_capacity(2 * (MAX_FRAME_BYTES + LENGTH_BYTES))) }
    }
}

impl FrameBuffer {
    /// Adds bytes, at most [`MAX_FRAME_BYTES`] between two calls of [`next_frame`](Self::next_frame) until `None`.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete frame, without its length.
    ///
    /// # Errors
    /// [`FormatError::FrameLength`].
    pub fn next_frame(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, FormatError> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        let bytes = usize::try_from(length).ok().filter(|bytes| (1..=MAX_FRAME_BYTES).contains(bytes));
        let bytes = bytes.ok_or(FormatError::FrameLength(length))?;
        let Some(frame) = rest.get(..bytes) else {
            return Ok(None);
        };
        let frame = Zeroizing::new(frame.to_vec());
        let used = LENGTH_BYTES + bytes;
        let left = self.bytes.len() - used;
        self.bytes.copy_within(used.., 0);
        self.bytes[left..].zeroize();
        self.bytes.truncate(left);
        Ok(Some(frame))
    }
}

/// A frame being written.
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + MAX_FRAME_BYTES);
        bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A field of at most 65 535 bytes; the limits of all fields together are below [`MAX_FRAME_BYTES`].
    pub(super) fn field(&mut self, field: &[u8]) {
        let field = &field[..field.len().min(usize::from(u16::MAX))];
        let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
        self.bytes(&length.to_be_bytes());
        self.bytes(field);
    }

    /// The frame with its length in front.
    pub(super) fn finish(mut self) -> Zeroizing<Vec<u8>> {
        debug_assert!(self.0.len() <= LENGTH_BYTES + MAX_FRAME_BYTES, "limits add up to less");
        let length = u32::try_from(self.0.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
        self.0[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// A frame being read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(FormatError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, FormatError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn flag(&mut self) -> Result<bool, FormatError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FormatError::Value("flag")),
        }
    }

    /// A field of at most `max` bytes, called `name` in the error.
    pub(super) fn field(&mut self, name: &'static str, max: usize) -> Result<&'a [u8], FormatError> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        if length > max {
            return Err(FormatError::Value(name));
        }
        let (field, rest) = self.0.split_at_checked(length).ok_or(FormatError::Truncated)?;
        self.0 = rest;
        Ok(field)
    }

    /// As [`field`](Self::field), for what is handed to C as a string: UTF-8 without NUL.
    pub(super) fn text(&mut self, name: &'static str, max: usize) -> Result<&'a str, FormatError> {
        let field = self.field(name, max)?;
        std::str::from_utf8(field).ok().filter(|text| !text.contains('\0')).ok_or(FormatError::Value(name))
    }

    pub(super) fn end(self) -> Result<(), FormatError> {
        if self.0.is_empty() { Ok(()) } else { Err(FormatError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let wire = [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 1, b'c'];
        for chunk in 1..=wire.len() {
            let mut buffer = FrameBuffer::default();
            let mut frames = Vec::new();
            for bytes in wire.chunks(chunk) {
                buffer.extend(bytes);
                while let Some(frame) = buffer.next_frame().unwrap() {
                    frames.push(frame.to_vec());
                }
            }
            assert_eq!(frames, [b"ab".to_vec(), b"c".to_vec()]);
        }
    }

    #[test]
    fn an_absurd_length_is_refused_before_its_bytes_arrive() {
        for length in [0, 4_097, u32::MAX] {
            let mut buffer = FrameBuffer::default();
            buffer.extend(&length.to_be_bytes());
            assert_eq!(buffer.next_frame(), Err(FormatError::FrameLength(length)));
        }
    }

    #[test]
    fn the_buffer_never_moves() {
        let mut buffer = FrameBuffer::default();
        let place = buffer.bytes.as_ptr();
        let mut wire = 4_096u32.to_be_bytes().to_vec();
        wire.extend([7; 4_095]);
        buffer.extend(&wire);
        assert_eq!(buffer.next_frame(), Ok(None));
        buffer.extend(&[7; MAX_FRAME_BYTES]);
        assert!(buffer.next_frame().unwrap().is_some());
        assert_eq!(buffer.bytes.as_ptr(), place);
    }
}
