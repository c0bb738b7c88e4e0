//! `SecretsEditor`: changes to the text of a secrets file that leave everything else byte for byte as it was.
//!
//! It works on lines, not on what they mean, so comments, broken lines, line ends, unknown extra fields and the order
//! survive. Each edit writes into a new block of exactly the right size, because a growing one would leave unwiped
//! copies behind. An [`EditError`] means that nothing was changed.

use core::fmt;
use core::ops::Range;

use thiserror::Error;
use zeroize::Zeroizing;

use super::escape;
use super::format::{self, BOM, Fields, NameError, check_name};
use super::nologin;

/// Stands where the last user was removed. An empty file would be taken for one that is about to be written, and the
/// daemon would go on with the contents before.
const NO_USERS: &[u8] = b"# no users\n";

/// The contents of a secrets file under change.
pub struct SecretsEditor {
    pub(super) contents: Zeroizing<Vec<u8>>,
    pub(super) lowercase: bool,
    changed: bool,
}

/// A line of an entry: its number, counted from 1, and its bytes without the line end.
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) span: Range<usize>,
}

impl SecretsEditor {
    /// `lowercase` as in [`Names`](super::Names).
    ///
    /// # Errors
    /// [`EditError::Torn`] if the contents do not end in a newline: adding one could complete a line that somebody
    /// is still writing.
    pub fn new(contents: Zeroizing<Vec<u8>>, lowercase: bool) -> Result<Self, EditError> {
        if contents.last().is_some_and(|last| *last != b'\n') {
            return Err(EditError::Torn);
        }
        Ok(Self { contents, lowercase, changed: false })
    }

    /// The contents as they are now; they end in a newline or are empty.
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }

    /// Whether anything is not as it was.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Puts a text in the place of everything. A newline that its end lacks is added, and a text without any user
    /// gets a comment, see [`SecretsEditor::remove`].
    pub fn replace_all(&mut self, text: &[u8]) {
        let newline: &[u8] = if text.is_empty() || text.ends_with(b"\n") { b"" } else { b"\n" };
        self.splice(0..self.contents.len(), &[text, newline]);
        self.mark_if_empty();
    }

    /// Whether some line is this user's.
    pub fn has(&self, name: &str) -> bool {
        !self.find(name).is_empty()
    }

    /// The entries as they stand there, each its name and its whole line without the line end.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries().map(|line| {
            let text = &self.contents[line.span];
            (Fields::split(text).name, text)
        })
    }

    /// Adds a user at the end. `field` is the password field as it goes into the file.
    ///
    /// # Errors
    /// If the user is there already, or the name or the field cannot be written.
    pub fn add(&mut self, name: &str, field: &[u8]) -> Result<(), EditError> {
        check_new_name(name)?;
        check_field(field)?;
        if let Some(line) = self.find(name).first() {
            return Err(EditError::Exists { name: escape(name.as_bytes()), line: line.number });
        }
        let end = self.contents.len();
        self.splice(end..end, &[name.as_bytes(), b":", field, b"\n"]);
        Ok(())
    }

    /// Replaces the password field of a user and nothing else on that line.
    ///
    /// # Errors
    /// If the user is not there, or is there twice, or the field cannot be written.
    pub fn set_password(&mut self, name: &str, field: &[u8]) -> Result<(), EditError> {
        check_field(field)?;
        let line = self.only_line(name)?;
        let fields = Fields::split(&self.contents[line.span.clone()]);
        let name_end = line.span.start + fields.name.len();
        match fields.password {
            Some(old) => self.splice(name_end + 1..name_end + 1 + old.len(), &[field]),
            None => self.splice(name_end..name_end, &[b":", field]),
        }
        Ok(())
    }

    /// Lets a user in no more, whatever his password, until he is unlocked. Gives whether he was not locked before.
    ///
    /// # Errors
    /// If the user is not there, or is there twice.
    pub fn lock(&mut self, name: &str) -> Result<bool, EditError> {
        self.change_line(name, nologin::lock)
    }

    /// Takes back what [`SecretsEditor::lock`] did, and `nologin` that was written by hand. Gives whether he was locked.
    ///
    /// # Errors
    /// If the user is not there, or is there twice.
    pub fn unlock(&mut self, name: &str) -> Result<bool, EditError> {
        self.change_line(name, nologin::unlock)
    }

    fn change_line(
        &mut self,
        name: &str,
        change: impl Fn(&[u8]) -> Option<Zeroizing<Vec<u8>>>,
    ) -> Result<bool, EditError> {
        let span = self.only_line(name)?.span;
        let Some(changed) = change(&self.contents[span.clone()]) else { return Ok(false) };
        self.splice(span, &[&changed]);
        Ok(true)
    }

    /// Removes every line of a user; gives how many there were. Where the last user was, a comment stays.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove(&mut self, name: &str) -> Result<usize, EditError> {
        let lines = self.find(name);
        if lines.is_empty() {
            return Err(EditError::Unknown { name: escape(name.as_bytes()) });
        }
        // From the back, so that the spans before stay true.
        for line in lines.iter().rev() {
            let rest = &self.contents[line.span.end..];
            let line_end =
                rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |newline| newline + 1);
            self.splice(line.span.start..line.span.end + line_end, &[]);
        }
        self.mark_if_empty();
        Ok(lines.len())
    }

    fn mark_if_empty(&mut self) {
        if self.contents.is_empty() || *self.contents == BOM {
            let end = self.contents.len();
            self.splice(end..end, &[NO_USERS]);
        }
    }

    /// The one line of a user.
    fn only_line(&self, name: &str) -> Result<Line, EditError> {
        let mut lines = self.find(name);
        match lines.as_slice() {
            [] => Err(EditError::Unknown { name: escape(name.as_bytes()) }),
            [_] => Ok(lines.remove(0)),
            [first, second, ..] => {
                let name = escape(name.as_bytes());
                Err(EditError::Twice { name, lines: (first.number, second.number) })
            }
        }
    }

    fn find(&self, name: &str) -> Vec<Line> {
        let wanted = name.as_bytes();
        let is_his = |name: &[u8]| {
            if self.lowercase { name.eq_ignore_ascii_case(wanted) } else { name == wanted }
        };
        self.entries().filter(|line| is_his(Fields::split(&self.contents[line.span.clone()]).name)).collect()
    }

    /// Every line that is an entry, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Line> {
        let mut start = if self.contents.starts_with(BOM) { BOM.len() } else { 0 };
        self.contents[start..].split(|byte| *byte == b'\n').enumerate().filter_map(move |(index, raw)| {
            let line = format::without_cr(raw);
            let span = start..start + line.len();
            start += raw.len() + 1;
            format::is_entry(line).then_some(Line { number: index + 1, span })
        })
    }

    /// Puts `parts` in the place of `range`.
    pub(super) fn splice(&mut self, range: Range<usize>, parts: &[&[u8]]) {
        let added: usize = parts.iter().map(|part| part.len()).sum();
        let mut contents = Zeroizing::new(Vec::with_capacity(self.contents.len() - range.len() + added));
        contents.extend_from_slice(&self.contents[..range.start]);
        parts.iter().for_each(|part| contents.extend_from_slice(part));
        contents.extend_from_slice(&self.contents[range.end..]);
        self.changed |= *contents != *self.contents;
        self.contents = contents;
    }
}

impl fmt::Debug for SecretsEditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsEditor").field("bytes", &self.contents.len()).finish_non_exhaustive()
    }
}

/// What a name must be to begin a line with it.
pub(super) fn check_new_name(name: &str) -> Result<(), EditError> {
    check_name(name.as_bytes())?;
    if name.contains(':') || name.starts_with('#') || name.starts_with('\u{feff}') {
        return Err(EditError::NameSyntax);
    }
    Ok(())
}

/// A password field must not end itself or its line.
pub(super) fn check_field(field: &[u8]) -> Result<(), EditError> {
    let ends = field.iter().any(|byte| matches!(byte, b':' | b'\n' | b'\0')) || field.ends_with(b"\r");
    if field.is_empty() || ends { Err(EditError::Field) } else { Ok(()) }
}

/// Why an edit was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it; names are escaped")]
pub enum EditError {
    #[error("user {name} exists already, on line {line}")]
    Exists { name: String, line: usize },
    #[error("there is no user {name}")]
    Unknown { name: String },
    #[error("user {name} stands on the lines {} and {}; remove one of them first", lines.0, lines.1)]
    Twice { name: String, lines: (usize, usize) },
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("the user name contains \":\" or begins with \"#\", which the file format does not allow")]
    NameSyntax,
    #[error("the password field cannot be written: it is empty or contains a colon or a line end")]
    Field,
    #[error(
        "the file does not end in a newline, so it may still be being written; finish its last line first"
    )]
    Torn,
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn editor(contents: &str) -> SecretsEditor {
        SecretsEditor::new(Zeroizing::new(contents.as_bytes().to_vec()), true).unwrap()
    }

    fn text(editor: &SecretsEditor) -> &str {
        str::from_utf8(editor.contents()).unwrap()
    }

    const FILE: &str =
        "# first\r\nAlice:{PLAIN}old:1:2::/h:/s:x=y  nologin\r\n\n:odd\nbroken\x07line\nbob\nkate:{PLAIN}k\n";

    #[test]
    fn a_new_user_comes_last() {
        let mut editor = editor(FILE);
        editor.add("zoe", b"{PLAIN}z").unwrap();
        assert_eq!(text(&editor), format!("{FILE}zoe:{{PLAIN}}z\n"));
    }

    #[test]
    fn a_new_password_replaces_that_field_alone() {
        let mut editor = editor(FILE);
        editor.set_password("alice", b"{CRAM-MD5}new").unwrap();
        editor.set_password("bob", b"{PLAIN}b").unwrap();
        let expected = FILE.replace("{PLAIN}old", "{CRAM-MD5}new").replace("bob\n", "bob:{PLAIN}b\n");
        assert_eq!(text(&editor), expected);
    }

    #[test]
    fn the_carriage_return_stays_where_the_password_is_the_last_field() {
        let mut editor = editor("a:{PLAIN}x\r\nb\r\n");
        editor.set_password("a", b"{PLAIN}y").unwrap();
        editor.set_password("b", b"{PLAIN}z").unwrap();
        assert_eq!(text(&editor), "a:{PLAIN}y\r\nb:{PLAIN}z\r\n");
    }

    #[test]
    fn all_lines_of_a_removed_user_go() {
        let mut editor = editor("x:1\nA:{PLAIN}x\ny:2\r\na\n");
        assert_eq!(editor.remove("a"), Ok(2));
        assert_eq!(text(&editor), "x:1\ny:2\r\n");
    }

    #[test]
    fn removing_the_last_user_does_not_leave_an_empty_file() {
        for mark in ["", "\u{feff}"] {
            let mut editor = editor(&format!("{mark}a:x\n"));
            editor.remove("a").unwrap();
            assert_eq!(text(&editor), format!("{mark}# no users\n"));
        }
    }

    #[test]
    fn who_is_there_cannot_be_added_and_who_is_not_cannot_be_changed() {
        let mut editor = editor(FILE);
        assert_eq!(
            editor.add("alice", b"{PLAIN}x"),
            Err(EditError::Exists { name: "alice".into(), line: 2 })
        );
        assert_eq!(editor.set_password("eve", b"{PLAIN}x"), Err(EditError::Unknown { name: "eve".into() }));
        assert_eq!(editor.remove("eve"), Err(EditError::Unknown { name: "eve".into() }));
        assert_eq!(text(&editor), FILE);
    }

    #[test]
    fn which_of_two_lines_gets_the_password_is_not_guessed() {
        let mut editor = editor("a:1\nb:2\nA:3\n");
        let error = editor.set_password("a", b"{PLAIN}x").unwrap_err();
        assert_eq!(error, EditError::Twice { name: "a".into(), lines: (1, 3) });
    }

    #[test]
    fn what_would_end_a_field_or_a_line_is_not_written() {
        let mut editor = editor("a:1\n");
        for field in ["", "{PLAIN}a:b", "{PLAIN}a\nb", "{PLAIN}a\r", "a\0"] {
            assert_eq!(editor.add("x", field.as_bytes()), Err(EditError::Field), "{field:?}");
            assert_eq!(editor.set_password("a", field.as_bytes()), Err(EditError::Field), "{field:?}");
        }
        for name in ["", "a:b", "#a", "a\nb", "\u{feff}a"] {
            assert!(editor.add(name, b"{PLAIN}x").is_err(), "{name:?}");
        }
        assert_eq!(text(&editor), "a:1\n");
    }

    #[test]
    fn a_file_without_a_last_newline_is_not_edited() {
        let error = SecretsEditor::new(Zeroizing::new(b"a:1\nb".to_vec()), true).unwrap_err();
        assert_eq!(error, EditError::Torn);
    }

    #[test]
    fn a_text_in_the_place_of_everything_ends_in_a_newline_and_is_never_empty() {
        for (new, expected) in [("b:1", "b:1\n"), ("b:1\n", "b:1\n"), ("", "# no users\n")] {
            let mut editor = editor("a:1\n");
            editor.replace_all(new.as_bytes());
            assert_eq!(text(&editor), expected);
            assert!(editor.is_changed());
        }
    }

    #[test]
    fn an_edit_that_changes_no_byte_is_no_change() {
        let mut editor = editor("a:1\n");
        editor.set_password("a", b"1").unwrap();
        assert!(!editor.is_changed());
        editor.set_password("a", b"2").unwrap();
        assert!(editor.is_changed());
    }

    #[test]
    fn a_user_is_found_by_his_whole_name_and_in_any_case_only_where_names_are_folded() {
        let mut editor = editor("Alice:1\nbob:2\n");
        assert!(editor.has("alice") && editor.has("bob"));
        assert!(!editor.has("bo") && !editor.has("eve"));
        editor.lowercase = false;
        assert!(editor.has("Alice") && !editor.has("alice"));
        assert_eq!(editor.remove("bob"), Ok(1));
        assert_eq!(text(&editor), "Alice:1\n");
    }

    #[test]
    fn lines_are_names_with_their_whole_line() {
        let editor = editor(FILE);
        let lines: Vec<_> = editor.lines().skip(2).collect();
        assert_eq!(lines, [(&b"bob"[..], &b"bob"[..]), (b"kate", b"kate:{PLAIN}k")]);
    }

    #[test]
    fn locking_and_unlocking_say_whether_they_did_anything() {
        let mut editor = editor("a:{PLAIN}x\nb:{PLAIN}y\n");
        assert_eq!((editor.lock("a"), editor.lock("a")), (Ok(true), Ok(false)));
        assert_eq!(text(&editor), "a:{PLAIN}x::::::      nologin\nb:{PLAIN}y\n");
        assert_eq!((editor.unlock("a"), editor.unlock("a")), (Ok(true), Ok(false)));
        assert_eq!(text(&editor), "a:{PLAIN}x\nb:{PLAIN}y\n");
        assert_eq!(editor.lock("eve"), Err(EditError::Unknown { name: "eve".into() }));
    }

    #[test]
    fn debug_shows_the_length_alone() {
        assert_eq!(format!("{:?}", editor("a:1\n")), "SecretsEditor { bytes: 4, .. }");
    }

    proptest! {
        #[test]
        fn an_edit_keeps_all_other_lines_byte_for_byte(
            before in vec("[a-c#: x\r\u{feff}\u{fc}]{0,6}", 0..8), after in vec("[a-c#: x\r\u{fc}]{0,6}", 0..8),
        ) {
            let joined = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let (before, after) = (joined(&before), joined(&after));
            let mut editor = editor(&format!("{before}zoe:{{PLAIN}}old:::::: nologin\n{after}"));
            editor.set_password("zoe", b"{PLAIN}new").unwrap();
            prop_assert_eq!(text(&editor), format!("{before}zoe:{{PLAIN}}new:::::: nologin\n{after}"));
            editor.remove("zoe").unwrap();
            let rest = format!("{before}{after}");
            let kept = if rest.is_empty() { "# no users\n" } else { &rest };
            prop_assert_eq!(text(&editor), kept);
            editor.add("zoe", b"{PLAIN}z").unwrap();
            prop_assert_eq!(text(&editor), format!("{kept}zoe:{{PLAIN}}z\n"));
        }
    }
}
