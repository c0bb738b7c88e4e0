//! The base64 of crypt(3): its own alphabet, low bits first, no padding.
//!
//! Three bytes make four characters, one byte two and two bytes three; left-over bits are zero. Used by SHA-crypt and
//! yescrypt. Text that no encoder would have written is refused.

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The character for the low six bits.
pub(super) fn character(bits: u8) -> char {
    char::from(ALPHABET[usize::from(bits & 63)])
}

fn value(character: u8) -> Option<u32> {
    let value = match character {
        b'.' | b'/' => character - b'.',
        b'0'..=b'9' => character - b'0' + 2,
        b'A'..=b'Z' => character - b'A' + 12,
        b'a'..=b'z' => character - b'a' + 38,
        _ => return None,
    };
    Some(u32::from(value))
}

/// Writes the bytes behind `out`.
pub(super) fn push(bytes: &[u8], out: &mut String) {
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[..group.len()].copy_from_slice(group);
        let word = u32::from_le_bytes(word);
        for index in 0..=group.len() {
            let [low, ..] = (word >> (6 * index)).to_le_bytes();
            out.push(character(low));
        }
    }
}

/// Reads the text into the front of `bytes` and returns how many there are.
pub(super) fn decode(text: &[u8], bytes: &mut [u8]) -> Option<usize> {
    let mut room = bytes.chunks_mut(3);
    let mut used = 0;
    for group in text.chunks(4) {
        let mut word = 0;
        for (index, &character) in group.iter().enumerate() {
            word |= value(character)? << (6 * index);
        }
        let length = group.len() - 1;
        let left_over = word >> (8 * length);
        if length == 0 || left_over != 0 {
            return None;
        }
        let target = room.next()?.get_mut(..length)?;
        target.copy_from_slice(&word.to_le_bytes()[..length]);
        used += length;
    }
    Some(used)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_no_encoder_writes_is_refused() {
        for bad in ["z", ".z", "..z", "....z", "a b.", "+..."] {
            assert_eq!(decode(bad.as_bytes(), &mut [0; 8]), None, "{bad:?}");
        }
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        assert_eq!(decode(b"....", &mut [0; 3]), Some(3));
        assert_eq!(decode(b"....", &mut [0; 2]), None);
        assert_eq!(decode(b"......", &mut [0; 3]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let mut text = String::new();
            push(&bytes, &mut text);
            let mut read = [0; 70];
            let length = decode(text.as_bytes(), &mut read);
            prop_assert_eq!(length, Some(bytes.len()));
            prop_assert_eq!(&read[..bytes.len()], &bytes[..]);
        }
    }
}
