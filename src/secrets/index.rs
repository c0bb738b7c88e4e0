//! `Secrets`: the contents of a secrets file, ready for look-ups.
//!
//! The file stays one block of bytes, wiped when it is dropped; beside it stands a hash table of line offsets, 5 to 11
//! bytes a user. Every line is read completely once at load, to find what is broken, and again at each look-up, which
//! is cheaper than keeping a million parsed entries. Names are folded inside the block, so that a look-up compares
//! bytes. A line that cannot be used is a closed entry as long as its name can be read: the user is then refused and
//! not looked for in the next passdb. What was found wrong is kept, up to a bound, for the log and `sasld check`.

use core::fmt;
use core::hash::BuildHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::RandomState;
use std::sync::LazyLock;

use hashbrown::HashTable;
use hashbrown::hash_table;
use memchr::{memchr, memchr_iter, memchr2, memrchr};
use zeroize::Zeroizing;

use super::format::{self, BOM, LineError, Terms, check_name, parse_terms};
use super::problems::{MAX_LISTED, Problem, Problems};
use super::{Closed, Entry, Names, escape};
use crate::credential::Verifiers;

/// How many lines a decoy is looked for on before the first usable one of the file is taken.
const DECOY_LINES: usize = 32;

/// One for the whole process: a name keeps its decoy when the file is read again.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The users of one version of the file. Dropping it wipes the block: 100 MB take tens of milliseconds.
pub struct Secrets {
    blob: Zeroizing<Vec<u8>>,
    /// Where complete lines end; what follows is a line still being written.
    end: usize,
    /// Offsets into `blob` of the first line of each name.
    lines: HashTable<u32>,
    /// Those of `lines` whose name stands on another line, too.
    duplicates: HashSet<u32>,
    /// The first line with a verifier, for decoys.
    first_usable: Option<usize>,
    problems: Problems,
    notes: Problems,
}

impl Secrets {
    /// Reads the contents of a file. A last line without a line end is left out and reported.
    ///
    /// # Panics
    /// If the contents are 4 GiB or more; [`load`](super::load()) stops far below.
    pub fn parse(contents: Zeroizing<Vec<u8>>, names: &Names<'_>) -> Self {
        Self::parse_listing(contents, names, MAX_LISTED)
    }

    /// The same, with a text for this many problems instead of a thousand: for who decides by all of them.
    ///
    /// # Panics
    /// As [`Secrets::parse`].
    pub fn parse_listing(contents: Zeroizing<Vec<u8>>, names: &Names<'_>, problems: usize) -> Self {
        assert!(u32::try_from(contents.len()).is_ok(), "line offsets are 32 bits wide");
        let end = memrchr(b'\n', &contents).map_or(0, |last| last + 1);
        let mut secrets = Self {
            lines: HashTable::with_capacity(count_entries(&contents[..end])),
            blob: contents,
            end,
            duplicates: HashSet::new(),
            first_usable: None,
            problems: Problems::with_room(problems),
            notes: Problems::with_room(MAX_LISTED),
        };
        let mut again = Vec::new();
        let mut start = if secrets.blob.starts_with(BOM) { BOM.len() } else { 0 };
        let mut number = 0;
        while start < end {
            number += 1;
            let length = line_length(&secrets.blob[start..end]);
            if let Some(first) = secrets.add_line(start, length, number, names) {
                again.push((first, number));
            }
            start += length + 1;
        }
        secrets.report_duplicates(&again, problems);
        if end < secrets.blob.len() {
            secrets.problems.add(|| Problem {
                line: number + 1,
                name: None,
                reason: "the last line is left out: it does not end in a newline, so it may still be being written"
                    .to_owned(),
            });
        }
        secrets.problems.sort();
        secrets
    }

    /// The entry of this user, whose name must be canonical.
    pub fn lookup<'a>(&self, name: &'a str) -> Option<Entry<'a>> {
        let wanted = name.as_bytes();
        if wanted.contains(&b':') {
            return None;
        }
        let hash = HASHER.hash_one(wanted);
        let start = *self.lines.find(hash, |start| self.name_at(*start) == wanted)?;
        let terms = terms(self.line_at(start as usize)).unwrap_or(Terms {
            verifiers: None,
            allow_nets: None,
            closed: Some(Closed::BrokenLine),
        });
        let duplicate = self.duplicates.contains(&start).then_some(Closed::Duplicate);
        Some(Entry {
            name,
            verifiers: terms.verifiers,
            allow_nets: terms.allow_nets,
            closed: duplicate.or(terms.closed),
        })
    }

    /// A closed entry for a name that is not in the file, with the verifiers of some user in it, so that refusing
    /// costs the same work as it does for those who are. A name gets the same user's every time, unless lines near
    /// that one change. `None` when no line of the file has a verifier.
    pub fn decoy<'a>(&self, name: &'a str) -> Option<Entry<'a>> {
        let share = (HASHER.hash_one(name.as_bytes()) >> 32) * self.end as u64;
        let at = usize::try_from(share >> 32).unwrap_or_default();
        let nearest = memrchr(b'\n', &self.blob[..at]).map_or(0, |newline| newline + 1);
        let verifiers_on = |line| terms(line).ok().and_then(|terms| terms.verifiers);
        let mut near = self.blob[nearest..self.end].split(|byte| *byte == b'\n').take(DECOY_LINES);
        let verifiers = near
            .find_map(verifiers_on)
            .or_else(|| self.first_usable.and_then(|start| verifiers_on(self.line_at(start))))?;
        Some(Entry { name, verifiers: Some(verifiers), allow_nets: None, closed: Some(Closed::Decoy) })
    }

    /// How many different names the file has, closed entries included.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether the file has no entry at all.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The canonical names, in the order of the file; a name that stands there twice once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut starts: Vec<u32> = self.lines.iter().copied().collect();
        starts.sort_unstable();
        starts.into_iter().filter_map(|start| str::from_utf8(self.name_at(start)).ok())
    }

    /// Lines that keep somebody out: broken ones, names given twice, restrictions not implemented, missing passwords.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Extra fields that were ignored.
    pub fn notes(&self) -> &Problems {
        &self.notes
    }

    /// Takes one line in, `number` counted from 1. Gives the offset of the first line with the same name, if there is
    /// one.
    fn add_line(&mut self, start: usize, length: usize, number: usize, names: &Names<'_>) -> Option<u32> {
        let line = &mut self.blob[start..start + length];
        if !format::is_entry(format::without_cr(line)) {
            return None;
        }
        let name_length = format::name_length(format::without_cr(line));
        if names.lowercase {
            line[..name_length].make_ascii_lowercase();
        }
        let line = format::without_cr(&self.blob[start..start + length]);
        let name = match check_name(&line[..name_length]) {
            Ok(name) => name,
            Err(error) => {
                self.problems.add(|| Problem { line: number, name: None, reason: error.to_string() });
                return None;
            }
        };
        let problem = |reason: String| Problem { line: number, name: Some(escape(name.as_bytes())), reason };
        let unknown = |field: &[u8]| self.notes.add(|| problem(format::unknown_field(field)));
        match parse_terms(line, Verifiers::check, unknown) {
            Err(error) => self.problems.add(|| problem(error.to_string())),
            Ok(terms) => {
                // `nologin` is somebody's wish, no problem.
                if let Some(closed) = terms.closed.filter(|closed| *closed != Closed::Nologin) {
                    self.problems.add(|| problem(format!("nobody can log in with this entry: {closed}")));
                }
                if terms.verifiers.is_some() {
                    self.first_usable.get_or_insert(start);
                }
            }
        }
        if !(names.allowed)(name) {
            self.problems
                .add(|| problem("the rules for user names do not allow this name, nobody can use it".into()));
        }
        let start = u32::try_from(start).expect("`parse` has checked the length");
        let hash = HASHER.hash_one(name.as_bytes());
        let blob = &self.blob;
        let slot = self.lines.entry(
            hash,
            |known| name_at(blob, *known) == name.as_bytes(),
            |known| HASHER.hash_one(name_at(blob, *known)),
        );
        match slot {
            hash_table::Entry::Vacant(slot) => {
                slot.insert(start);
                None
            }
            hash_table::Entry::Occupied(slot) => {
                self.duplicates.insert(*slot.get());
                Some(*slot.get())
            }
        }
    }

    /// Names every line of a name that stands there more than once. `again` holds, for each further line, where the
    /// first one starts and the number of the further one; the first `listed` of them get a text.
    fn report_duplicates(&mut self, again: &[(u32, usize)], listed: usize) {
        let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (first, number) in again.iter().take(listed) {
            groups.entry(*first).or_default().push(*number);
        }
        let mut counted = 0;
        let mut newlines = 0;
        for (first, others) in groups {
            let start = first as usize;
            newlines += memchr_iter(b'\n', &self.blob[counted..start]).count();
            counted = start;
            let first_number = newlines + 1;
            let name = Some(escape(name_at(&self.blob, first)));
            let mut report = |line, other| {
                let reason = format!("the name stands on line {other}, too; none of them is used");
                self.problems.add(|| Problem { line, name: name.clone(), reason });
            };
            report(first_number, others[0]);
            others.into_iter().for_each(|line| report(line, first_number));
        }
        self.problems.count(again.len().saturating_sub(listed));
    }

    fn name_at(&self, start: u32) -> &[u8] {
        name_at(&self.blob, start)
    }

    /// The line that starts here.
    fn line_at(&self, start: usize) -> &[u8] {
        let rest = &self.blob[start..self.end];
        &rest[..line_length(rest)]
    }
}

/// What a line says, its carriage return left out; an error also for lines that are no entries.
fn terms(line: &[u8]) -> Result<Terms<Verifiers>, LineError> {
    parse_terms(format::without_cr(line), Verifiers::parse, |_| ())
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("users", &self.len()).finish_non_exhaustive()
    }
}

/// The bytes before the next newline, or all.
fn line_length(rest: &[u8]) -> usize {
    memchr(b'\n', rest).unwrap_or(rest.len())
}

/// The name of the entry that starts here.
fn name_at(blob: &[u8], start: u32) -> &[u8] {
    let line = &blob[start as usize..];
    let length = memchr2(b':', b'\n', line).unwrap_or(line.len());
    // Only a line without a colon ends here with its CR: a CR inside a name would be a control character.
    format::without_cr(&line[..length])
}

/// How many lines are entries: a little too many if some are broken.
fn count_entries(lines: &[u8]) -> usize {
    let next_bytes = memchr_iter(b'\n', lines).filter_map(|newline| lines.get(newline + 1));
    lines
        .first()
        .into_iter()
        .chain(next_bytes)
        .filter(|byte| !matches!(byte, b'\n' | b'\r' | b'#' | b':'))
        .count()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::credential::Password;

    const NAMES: Names<'static> = Names { lowercase: true, allowed: &|name| !name.contains('+') };

    fn secrets(text: &str) -> Secrets {
        Secrets::parse(Zeroizing::new(text.as_bytes().to_vec()), &NAMES)
    }

    fn accepts(secrets: &Secrets, name: &str, password: &str) -> bool {
        secrets.lookup(name).is_some_and(|entry| {
            let right =
                entry.verifiers.is_some_and(|all| all.strongest().verify(&Password::new(password)).is_some());
            right && entry.closed.is_none()
        })
    }

    fn lines(problems: &Problems) -> Vec<usize> {
        problems.listed().iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn crlf_byte_order_mark_comments_and_blank_lines_are_no_part_of_anything() {
        let secrets =
            secrets("\u{feff}alice:{PLAIN}a\r\n\r\n\n# bob:{PLAIN}b\n:x:y\nkate:{PLAIN}k:::::: \r\n");
        assert!(accepts(&secrets, "alice", "a"));
        assert!(accepts(&secrets, "kate", "k"));
        assert_eq!(secrets.names().collect::<Vec<_>>(), ["alice", "kate"]);
        assert_eq!(secrets.problems().total(), 0);
    }

    #[test]
    fn a_blank_before_the_comment_sign_makes_it_a_name() {
        assert_eq!(secrets(" # x\n").names().collect::<Vec<_>>(), [" # x"]);
    }

    #[test]
    fn names_are_found_in_lower_case_however_they_are_written() {
        let secrets = secrets("Alice@Example.COM:{plain}A\n");
        assert!(accepts(&secrets, "alice@example.com", "A"));
        assert!(secrets.lookup("Alice@Example.COM").is_none(), "look-ups take canonical names");
    }

    #[test]
    fn without_folding_two_spellings_are_two_users() {
        let names = Names { lowercase: false, ..NAMES };
        let secrets = Secrets::parse(Zeroizing::new(b"Alice:{PLAIN}A\nalice:{PLAIN}a\n".to_vec()), &names);
        assert!(accepts(&secrets, "Alice", "A") && accepts(&secrets, "alice", "a"));
    }

    #[test]
    fn a_name_is_not_found_by_its_beginning_or_with_a_colon() {
        let secrets = secrets("alice:{PLAIN}a\n");
        for name in ["alic", "alicea", "alice:", "alice:{PLAIN}a", "", ":"] {
            assert!(secrets.lookup(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_broken_line_closes_that_user_and_no_other() {
        let secrets = secrets("a:{FOO}x\nb:{PLAIN}\nc:x\nd:{PLAIN}d\nx\x1b:{PLAIN}x\ne\n");
        for name in ["a", "b", "c", "e"] {
            assert!(secrets.lookup(name).unwrap().closed.is_some(), "{name}");
        }
        assert!(accepts(&secrets, "d", "d"));
        assert_eq!(lines(secrets.problems()), [1, 2, 3, 5, 6]);
    }

    #[test]
    fn an_empty_password_opens_nothing() {
        let secrets = secrets("a\nb:\nc:{PLAIN}\nd:{PLAIN}:::::: nopassword\ne::::::: nopassword\n");
        for name in ["a", "b", "c", "d", "e"] {
            assert!(!accepts(&secrets, name, ""), "{name}");
        }
        assert_eq!(secrets.problems().total(), 5);
    }

    #[test]
    fn problems_come_in_the_order_of_their_lines() {
        let secrets = secrets("a:{PLAIN}1\nb:{FOO}x\na:{PLAIN}2\nc:{FOO}x\n");
        assert_eq!(lines(secrets.problems()), [1, 2, 3, 4]);
    }

    #[test]
    fn a_name_given_twice_is_closed_and_all_its_lines_are_named() {
        let secrets = secrets("# x\nAlice:{PLAIN}a\nbob:{PLAIN}b\nalice:{PLAIN}a\nALICE:{PLAIN}a\n");
        assert_eq!(secrets.lookup("alice").unwrap().closed, Some(Closed::Duplicate));
        assert!(accepts(&secrets, "bob", "b"));
        assert_eq!(lines(secrets.problems()), [2, 4, 5]);
        assert!(secrets.problems().listed()[0].reason.contains("line 4"));
        assert!(secrets.problems().listed()[2].reason.contains("line 2"));
        assert_eq!(secrets.len(), 2);
    }

    #[test]
    fn a_thousand_problems_are_kept_and_all_are_counted() {
        let text: String = (0..3_000).map(|n| format!("u{n}:x\nv:{{PLAIN}}x\n")).collect();
        let secrets = secrets(&(text + "kate:{PLAIN}k\n"));
        assert_eq!(secrets.problems().listed().len(), MAX_LISTED);
        assert!(secrets.problems().total() >= 6_000);
        assert!(accepts(&secrets, "kate", "k"));
    }

    #[test]
    fn an_unfinished_last_line_is_left_out_and_reported() {
        let secrets = secrets("alice:{PLAIN}a\nbob:{PLAIN}hunt");
        assert!(accepts(&secrets, "alice", "a"));
        assert!(secrets.lookup("bob").is_none());
        assert_eq!(lines(secrets.problems()), [2]);
        assert!(!format!("{:?}", secrets.problems()).contains("hunt"));
    }

    #[test]
    fn a_line_of_a_mebibyte_costs_that_user_only() {
        let secrets = secrets(&format!("long:{{PLAIN}}{}\nalice:{{PLAIN}}a\n", "x".repeat(1 << 20)));
        assert_eq!(secrets.lookup("long").unwrap().closed, Some(Closed::BrokenLine));
        assert!(accepts(&secrets, "alice", "a"));
    }

    #[test]
    fn a_name_nobody_can_log_in_with_is_reported() {
        let secrets = secrets("a+b:{PLAIN}x\n");
        assert_eq!(lines(secrets.problems()), [1]);
    }

    #[test]
    fn an_ignored_extra_field_is_a_note_and_no_problem() {
        let secrets = secrets("alice:{PLAIN}a:::::: nodelay\n");
        assert_eq!((lines(secrets.notes()), secrets.problems().total()), (vec![1], 0));
        assert!(accepts(&secrets, "alice", "a"));
    }

    #[test]
    fn a_decoy_is_stable_closed_and_has_a_verifier() {
        let text: String =
            (0..100).map(|n| format!("# {n}\nu{n}:{{PLAIN}}secret {n}\nclosed{n}\n")).collect();
        let secrets = secrets(&text);
        let decoy = |name: &str| secrets.decoy(name).unwrap().verifiers.unwrap().encode();
        let mut different = HashSet::new();
        for n in 0..200 {
            let name = format!("unknown{n}");
            assert_eq!(secrets.decoy(&name).unwrap().closed, Some(Closed::Decoy));
            assert_eq!(*decoy(&name), *decoy(&name));
            different.insert(decoy(&name).to_string());
        }
        assert!(different.len() > 20, "many users serve as decoys, not {}", different.len());
    }

    #[test]
    fn the_only_user_with_a_verifier_is_found_as_a_decoy_behind_any_number_of_comments() {
        let comments = "# x\n".repeat(10_000);
        let secrets = secrets(&format!("closed\n{comments}alice:{{PLAIN}}a\n{comments}closed too\n"));
        assert!((0..20).all(|n| secrets.decoy(&n.to_string()).is_some()));
        assert!(self::secrets("# nobody\n").decoy("x").is_none());
        assert!(self::secrets("").decoy("x").is_none());
    }

    #[test]
    fn a_decoy_is_looked_for_on_thirty_two_lines_from_where_its_name_points() {
        // Most names point at a long comment, and its user is the 32nd line from there.
        let group = |n| format!("# {}\n{}u{n}:{{PLAIN}}{n}\n", "x".repeat(10_000), "# x\n".repeat(30));
        let secrets = secrets(&(0..8).map(group).collect::<String>());
        let decoys =
            (0..200).map(|n| secrets.decoy(&format!("unknown{n}")).unwrap().verifiers.unwrap().encode());
        let first_ones = decoys.filter(|decoy| **decoy == *"{PLAIN}0").count();
        assert!(first_ones < 100, "{first_ones} of 200 names get the first user");
    }

    #[test]
    fn room_is_made_for_as_many_names_as_there_are_entries() {
        assert_eq!(count_entries(b""), 0);
        assert_eq!(count_entries(b"a:x\n\n# x\n\r\n:y\nb\r\nc:z\n"), 3);
    }

    #[test]
    fn debug_shows_how_many_users_there_are_and_nothing_of_them() {
        assert_eq!(format!("{:?}", secrets("alice:{PLAIN}a\n")), "Secrets { users: 1, .. }");
    }

    proptest! {
        #[test]
        fn no_contents_panic(contents in vec(line_piece(), 0..60), name in "[a-c]{1,2}") {
            let secrets = Secrets::parse(Zeroizing::new(contents.concat()), &NAMES);
            let _ = (secrets.lookup(&name), secrets.decoy(&name));
            for name in secrets.names() {
                prop_assert!(secrets.lookup(name).is_some());
            }
        }

        #[test]
        fn any_bytes_do_not_panic(contents in vec(any::<u8>(), 0..400)) {
            let secrets = Secrets::parse(Zeroizing::new(contents), &NAMES);
            let _ = secrets.decoy("x");
            prop_assert!(secrets.names().all(|name| secrets.lookup(name).is_some()));
        }
    }

    /// Bytes that lines are made of, and some that they are not.
    fn line_piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"\n".to_vec()),
            Just(b":".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"a".to_vec()),
            Just(b"B".to_vec()),
            Just(b"{PLAIN}x".to_vec()),
            Just(b"{CRAM-MD5}".to_vec()),
            Just(b";{PLAIN}".to_vec()),
            Just(b"::::::".to_vec()),
            Just(b" allow_nets=local".to_vec()),
            Just(b"#".to_vec()),
            Just(BOM.to_vec()),
            vec(any::<u8>(), 0..4),
        ]
    }
}
