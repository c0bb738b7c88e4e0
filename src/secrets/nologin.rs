//! Locking a user: the extra field `nologin` on his line, put there and taken away without a trace.
//!
//! `nologin` goes in front of the other extra fields. A line that ends before them gets the colons it lacks and, before
//! the word, one blank for each of them, which says how many to take away again. Everything here works on one line
//! without its line end and looks at nothing but colons and blanks, so a broken line can be locked, too.

use zeroize::Zeroizing;

use super::format::EXTRA_FIELDS;

const NOLOGIN: &[u8] = b"nologin";

/// The line of a locked user; `None` if he is locked already.
pub(super) fn lock(line: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (before, extra) = cut(line);
    if find(extra).is_some() {
        return None;
    }
    let missing = EXTRA_FIELDS - before.iter().filter(|byte| **byte == b':').count();
    let mut locked = Zeroizing::new(Vec::with_capacity(line.len() + 2 * EXTRA_FIELDS + NOLOGIN.len() + 1));
    locked.extend_from_slice(before);
    locked.extend(core::iter::repeat_n(b':', missing));
    locked.extend(core::iter::repeat_n(b' ', missing));
    locked.extend_from_slice(NOLOGIN);
    if !extra.is_empty() {
        locked.push(b' ');
        locked.extend_from_slice(extra);
    }
    Some(locked)
}

/// What stands behind the password of a locked user; `None` if `rest` has it already.
pub fn lock_rest(rest: &[u8]) -> Option<Vec<u8>> {
    const BEFORE: &[u8] = b"name:password";
    let locked = lock(&[BEFORE, rest].concat())?;
    Some(locked[BEFORE.len()..].to_vec())
}

/// The line of a user who is not locked, in whatever form `nologin` stands there; `None` if it does not.
pub(super) fn unlock(line: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (before, extra) = cut(line);
    let (start, end) = find(extra)?;
    let alone = end == extra.len() && extra[..start].iter().all(|byte| *byte == b' ');
    let mut open = Zeroizing::new(Vec::with_capacity(line.len()));
    if alone {
        let empty = before.iter().rev().take_while(|byte| **byte == b':').count();
        open.extend_from_slice(&before[..before.len() - start.min(empty)]);
        return Some(open);
    }
    // The blank behind it goes with it, or behind the last field the one in front.
    let (start, end) = if end < extra.len() { (start, end + 1) } else { (start.saturating_sub(1), end) };
    open.extend_from_slice(before);
    open.extend_from_slice(&extra[..start]);
    open.extend_from_slice(&extra[end..]);
    // Somebody may have written it twice.
    Some(unlock(&open).unwrap_or(open))
}

/// The line up to and with its seventh colon, and the extra fields behind that.
fn cut(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = line.iter().enumerate().filter(|(_, byte)| **byte == b':').nth(EXTRA_FIELDS - 1);
    line.split_at(colon.map_or(line.len(), |(at, _)| at + 1))
}

/// Where `nologin` stands among the extra fields, with its value if it has one.
fn find(extra: &[u8]) -> Option<(usize, usize)> {
    let mut start = 0;
    for field in extra.split(|byte| matches!(byte, b' ' | b'\t')) {
        if field.strip_prefix(NOLOGIN).is_some_and(|rest| matches!(rest.first(), None | Some(b'='))) {
            return Some((start, start + field.len()));
        }
        start += field.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Closed;
    use super::super::format::parse_terms;
    use super::*;

    fn text(line: Option<Zeroizing<Vec<u8>>>) -> Option<String> {
        line.map(|line| String::from_utf8(line.to_vec()).unwrap())
    }

    #[test]
    fn a_line_gets_the_colons_it_lacks() {
        for (line, expected) in [
            ("a:{PLAIN}x", "a:{PLAIN}x::::::      nologin"),
            ("a", "a:::::::       nologin"),
            ("a:{PLAIN}x:1:2::/h:/s", "a:{PLAIN}x:1:2::/h:/s: nologin"),
            ("a:{PLAIN}x::::::", "a:{PLAIN}x::::::nologin"),
            ("a:{PLAIN}x::::::k=v:w", "a:{PLAIN}x::::::nologin k=v:w"),
        ] {
            assert_eq!(text(lock(line.as_bytes())).as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_rest_of_a_line_is_locked_like_the_line() {
        for rest in ["", ":1:2::/h", "::::::k=v"] {
            let line = text(lock(format!("a:{{PLAIN}}x{rest}").as_bytes())).unwrap();
            let locked = lock_rest(rest.as_bytes()).unwrap();
            assert_eq!(line.strip_prefix("a:{PLAIN}x").unwrap().as_bytes(), locked);
            assert_eq!(lock_rest(&locked), None);
        }
    }

    #[test]
    fn nologin_written_by_hand_goes_too() {
        for (line, expected) in [
            ("a:x::::::nologin=y", "a:x::::::"),
            ("a:x::::::k=v nologin", "a:x::::::k=v"),
            ("a:x::::::k nologin=n l nologin", "a:x::::::k l"),
            ("a:x::::::nologin nologin", "a:x::::::"),
            ("a:new:1:2::::       nologin", "a:new:1:2"),
        ] {
            assert_eq!(text(unlock(line.as_bytes())).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn only_the_whole_word_behind_the_seventh_colon_counts() {
        for line in ["a:nologin", "a:x::::nologin", "a:x::::::nologins", "a:x::::::k=nologin"] {
            assert_eq!(text(unlock(line.as_bytes())), None, "{line}");
            assert!(lock(line.as_bytes()).is_some(), "{line}");
        }
    }

    #[test]
    fn a_password_given_while_he_was_locked_stays() {
        let locked = text(lock(b"a")).unwrap().replacen(':', ":{PLAIN}new", 1);
        assert_eq!(text(unlock(locked.as_bytes())).as_deref(), Some("a:{PLAIN}new"));
    }

    proptest! {
        #[test]
        fn unlocking_gives_every_line_back_byte_for_byte(line in "[a-c](:[ab]{0,2}){0,7}(:[kv= \t]{0,6}){0,2}") {
            let locked = lock(line.as_bytes()).unwrap();
            prop_assert!(lock(&locked).is_none());
            prop_assert_eq!(text(unlock(&locked)), Some(line));
            let terms = parse_terms(&locked, |_| Ok(()), |_| ());
            prop_assert_eq!(terms.unwrap().closed, Some(Closed::Nologin));
        }
    }
}
