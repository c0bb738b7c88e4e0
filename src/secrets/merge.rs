//! Many lines at once for `sasld user import`: one pass over the file, whatever the number of users.
//!
//! Who is there already gets the new password field on his line, and the new rest of the line if there is one; all
//! others come last, in their order. What nobody mentions stays byte for byte. An [`EditError`] means that nothing was
//! changed.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::SecretsEditor;
use super::edit::{EditError, check_field, check_new_name};
use super::escape;
use super::format::Fields;
use super::nologin::lock_rest;

/// A user as he should stand in the file.
#[derive(Clone, Copy)]
pub struct NewLine<'a> {
    /// The canonical name.
    pub name: &'a str,
    /// The password field.
    pub field: &'a [u8],
    /// All that stands behind it, beginning with a colon, or nothing. `None` keeps what is there.
    pub rest: Option<&'a [u8]>,
}

/// A line that is there: password field and rest. Further lines of the same name are not looked at.
#[derive(Clone, Copy)]
pub struct OldLine<'a> {
    /// Counted from 1.
    pub number: usize,
    /// The password field; `None` if there is nothing but a name.
    pub field: Option<&'a [u8]>,
    /// All that stands behind it.
    pub rest: &'a [u8],
    /// Whether there is another line of this name.
    pub twice: bool,
}

impl OldLine<'_> {
    /// Whether the user is locked, by `nologin`.
    pub fn is_locked(&self) -> bool {
        lock_rest(self.rest).is_none()
    }

    /// What it says, wherever it stands.
    pub fn text(&self) -> (Option<&[u8]>, &[u8], bool) {
        (self.field, self.rest, self.twice)
    }
}

impl SecretsEditor {
    /// The users of the file by their canonical names, broken lines too.
    pub fn users(&self) -> HashMap<Vec<u8>, OldLine<'_>> {
        let mut users = HashMap::new();
        for line in self.entries() {
            let text = &self.contents[line.span];
            let Fields { name, password: field, .. } = Fields::split(text);
            let rest = &text[(name.len() + field.map_or(0, |field| field.len() + 1)).min(text.len())..];
            users
                .entry(self.fold(name))
                .and_modify(|known: &mut OldLine<'_>| known.twice = true)
                .or_insert(OldLine { number: line.number, field, rest, twice: false });
        }
        users
    }

    /// Puts these lines into the file. Names must be different from each other.
    ///
    /// # Errors
    /// If a name or a field cannot be written, or somebody stands there twice.
    pub fn merge(&mut self, lines: &[NewLine<'_>]) -> Result<(), EditError> {
        let mut wanted = HashMap::new();
        for line in lines {
            check_new_name(line.name)?;
            check_field(line.field)?;
            wanted.insert(line.name.as_bytes().to_vec(), (line, None::<usize>));
        }
        let added: usize = lines.iter().map(size).sum();
        let mut merged = Zeroizing::new(Vec::with_capacity(self.contents.len() + added));
        let reserved = merged.capacity();
        let mut copied = 0;
        for line in self.entries() {
            let text = &self.contents[line.span.clone()];
            let fields = Fields::split(text);
            let Some((new, seen)) = wanted.get_mut(&self.fold(fields.name)) else { continue };
            if let Some(first) = seen.replace(line.number) {
                let name = escape(fields.name);
                return Err(EditError::Twice { name, lines: (first, line.number) });
            }
            let name_end = line.span.start + fields.name.len();
            merged.extend_from_slice(&self.contents[copied..name_end]);
            merged.push(b':');
            merged.extend_from_slice(new.field);
            copied = name_end + fields.password.map_or(0, |old| old.len() + 1);
            if let Some(rest) = new.rest {
                merged.extend_from_slice(rest);
                copied = line.span.end;
            }
        }
        merged.extend_from_slice(&self.contents[copied..]);
        for line in lines.iter().filter(|line| wanted[line.name.as_bytes()].1.is_none()) {
            let parts = [line.name.as_bytes(), b":", line.field, line.rest.unwrap_or_default(), b"\n"];
            parts.iter().for_each(|part| merged.extend_from_slice(part));
        }
        debug_assert_eq!(merged.capacity(), reserved, "growing leaves a copy behind, not wiped");
        let end = self.contents.len();
        self.splice(0..end, &[&merged]);
        Ok(())
    }

    fn fold(&self, name: &[u8]) -> Vec<u8> {
        if self.lowercase { name.to_ascii_lowercase() } else { name.to_vec() }
    }
}

/// Bytes of a line, at most.
fn size(line: &NewLine<'_>) -> usize {
    line.name.len() + line.field.len() + line.rest.map_or(0, <[u8]>::len) + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn editor(contents: &str) -> SecretsEditor {
        SecretsEditor::new(Zeroizing::new(contents.as_bytes().to_vec()), true).unwrap()
    }

    fn line<'a>(name: &'a str, field: &'a str, rest: Option<&'a str>) -> NewLine<'a> {
        NewLine { name, field: field.as_bytes(), rest: rest.map(str::as_bytes) }
    }

    #[test]
    fn who_is_there_changes_in_place_and_the_others_come_last() {
        let mut editor = editor("# head\r\nAlice:{PLAIN}a:1:::::nologin\r\nbob\nkate:{PLAIN}k::\n");
        let lines = [
            line("zoe", "{PLAIN}z", Some("::::::allow_nets=local")),
            line("alice", "{PLAIN}new", None),
            line("bob", "{PLAIN}b", None),
            line("kate", "{PLAIN}n", Some(":1:2")),
            line("yan", "{PLAIN}y", None),
        ];
        editor.merge(&lines).unwrap();
        let expected = "# head\r\nAlice:{PLAIN}new:1:::::nologin\r\nbob:{PLAIN}b\nkate:{PLAIN}n:1:2\n\
                        zoe:{PLAIN}z::::::allow_nets=local\nyan:{PLAIN}y\n";
        assert_eq!(str::from_utf8(editor.contents()).unwrap(), expected);
    }

    #[test]
    fn a_file_of_new_users_alone_fits_the_block_made_for_it() {
        let mut editor = editor("");
        editor.merge(&[line("a", "{PLAIN}x", None), line("b", "{PLAIN}y", Some("::"))]).unwrap();
        assert_eq!(str::from_utf8(editor.contents()).unwrap(), "a:{PLAIN}x\nb:{PLAIN}y::\n");
    }

    #[test]
    fn who_is_locked_is_told_by_nologin_behind_the_seventh_colon() {
        let editor = editor("a:{PLAIN}x::::::nologin\nb:{PLAIN}nologin\n");
        let users = editor.users();
        assert!(users[&b"a"[..]].is_locked() && !users[&b"b"[..]].is_locked());
        assert_eq!(users[&b"b"[..]].text(), (Some(&b"{PLAIN}nologin"[..]), &b""[..], false));
        assert_eq!(users[&b"a"[..]].text(), (Some(&b"{PLAIN}x"[..]), &b"::::::nologin"[..], false));
    }

    #[test]
    fn nobody_who_stands_there_twice_is_changed() {
        let mut editor = editor("a:{PLAIN}1\nA:{PLAIN}2\n");
        assert!(editor.users()[&b"a"[..]].twice);
        let error = editor.merge(&[line("a", "{PLAIN}3", None)]).unwrap_err();
        assert_eq!(error, EditError::Twice { name: "A".into(), lines: (1, 2) });
        assert!(!editor.is_changed());
    }

    #[test]
    fn what_stands_behind_the_password_is_told_apart_from_it() {
        let editor = editor("a\nb:\nc:{PLAIN}x\nd:{PLAIN}x:1:2\n");
        let users = editor.users();
        let parts = |name: &str| (users[name.as_bytes()].field, users[name.as_bytes()].rest);
        assert_eq!(parts("a"), (None, &b""[..]));
        assert_eq!(parts("b"), (Some(&b""[..]), &b""[..]));
        assert_eq!(parts("c"), (Some(&b"{PLAIN}x"[..]), &b""[..]));
        assert_eq!(parts("d"), (Some(&b"{PLAIN}x"[..]), &b":1:2"[..]));
    }
}
