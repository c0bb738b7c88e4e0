//! The dialogs as a collection: nothing recorded is forgotten, every difference is explained, and the machinery that
//! replays them notices what it should.

#![allow(missing_docs, reason = "a test program has no readers of its documentation")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
mod dialog;

use dialog::replay::{Cut, Peer, Received, Server, replay};
use dialog::{Dialog, LONGEST_REAL_WAIT, Origin, Subject, parse};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between backquotes on the lines that start with `prefix`.
fn quoted(page: &str, prefix: &str) -> BTreeSet<String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(prefix));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_folder_of_dialogs_is_a_group() {
    let entries = fs::read_dir(dialog::fixtures()).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: BTreeSet<String> = folders.map(|f| f.file_name().into_string().unwrap()).collect();
    assert!(names.remove("profiles"));
    assert_eq!(names, dialog::GROUPS.iter().map(|&name| name.to_owned()).collect());
}

#[test]
fn every_transcript_is_a_dialog_or_has_a_reason_not_to_be() {
    let listed: Vec<String> = read("protocol-fixtures/transcripts.txt").lines().map(str::to_owned).collect();
    assert_eq!(listed.len(), 305);
    let left_out = quoted(&read("protocol-fixtures/not-covered.md"), "- ");
    let origins = dialog::all().into_iter().flat_map(|dialog| dialog.from);
    let covered: BTreeSet<String> = origins
        .filter_map(|origin| match origin {
            Origin::Transcript(name) => Some(name),
            Origin::BadInput(_) | Origin::Other(_) => None,
        })
        .collect();
    let both: Vec<_> = covered.intersection(&left_out).collect();
    assert!(both.is_empty(), "covered, and in not-covered.md: {both:?}");
    let accounted_for: BTreeSet<String> = covered.union(&left_out).cloned().collect();
    assert_eq!(accounted_for, listed.into_iter().collect());
}

/// `differs:` keys and their dialogs, as the page has them and as the dialogs have them.
#[test]
fn the_page_of_differences_and_the_dialogs_agree() {
    let page = read("docs/differences-from-dovecot.md");
    let mut on_page = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [key, _, _, dialogs] = cells.as_slice() else { panic!("not four columns: {row}") };
        let dialogs = quoted(dialogs, "");
        assert!(on_page.insert(quoted(key, "| "), dialogs).is_none(), "twice: {row}");
    }
    let mut in_dialogs: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for dialog in dialog::all() {
        for (key, _) in &dialog.differs {
            in_dialogs.entry(BTreeSet::from([key.clone()])).or_default().insert(dialog.name.clone());
        }
    }
    assert_eq!(on_page, in_dialogs);
}

#[test]
fn one_difference_has_one_reason() {
    let mut reasons = BTreeMap::new();
    for dialog in dialog::all() {
        for (key, reason) in dialog.differs {
            let first = reasons.entry(key).or_insert_with(|| reason.clone());
            assert_eq!(*first, reason, "{}", dialog.name);
        }
    }
}

/// Not a silent gap: what cannot be proved against Debian's Dovecot is on the page, and nothing else is.
#[test]
fn the_page_lists_what_is_not_replayed_against_dovecot() {
    let listed = quoted(&read("docs/differences-from-dovecot.md"), "- ");
    let not_replayed = dialog::all().into_iter().filter(|dialog| {
        dialog.dovecot.is_some() || dialog.longest_wait(Subject::Dovecot) > LONGEST_REAL_WAIT
    });
    assert_eq!(listed, not_replayed.map(|dialog| dialog.name).collect());
}

/// `make test-trixie` replays those marked `dovecot: 2.4`.
#[test]
fn the_page_lists_what_is_replayed_against_the_dovecot_of_debian_13() {
    let page = read("docs/differences-from-dovecot.md");
    let (_, list) = page.split_once("replays them against the 2.4.1 of Debian 13:\n\n").expect("the list");
    let (list, _) = list.split_once("\n\n").expect("its end");
    let replayed = dialog::all().into_iter().filter(|dialog| dialog.dovecot.as_deref() == Some("2.4"));
    assert_eq!(quoted(list, "- "), replayed.map(|dialog| dialog.name).collect());
}

/// A server that answers the client's lines with these, one each, whatever the lines say.
struct Parrot {
    replies: Vec<&'static str>,
    greeting: &'static str,
}

const GREETING: &str = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\n\
    COOKIE\t0123456789abcdef0123456789abcdef\nDONE\n";

struct ParrotPeer {
    replies: std::vec::IntoIter<&'static str>,
    out: Vec<u8>,
    closed: bool,
}

impl Server for Parrot {
    fn connect(&mut self) -> io::Result<Box<dyn Peer>> {
        let replies = self.replies.clone().into_iter();
        Ok(Box::new(ParrotPeer { replies, out: self.greeting.into(), closed: false }))
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn change_secrets(&mut self, _: Option<&[u8]>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Peer for ParrotPeer {
    fn send(&mut self, bytes: &[u8]) {
        for _ in bytes.iter().filter(|byte| **byte == b'\n') {
            match self.replies.next() {
                Some("close") => self.closed = true,
                Some(reply) => self.out.extend_from_slice(reply.as_bytes()),
                None => {}
            }
        }
    }

    fn half_close(&mut self) {
        self.closed = true;
    }

    fn receive(&mut self, _: Duration) -> Received {
        match self.out.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line: Vec<u8> = self.out.drain(..=end).collect();
                Received::Line(line[..end].to_vec())
            }
            None if self.closed => Received::Closed { torn: std::mem::take(&mut self.out) },
            None => Received::Nothing,
        }
    }
}

/// Replays these steps against a server that replies this to the client's lines (the two of the handshake first).
fn replayed_with(greeting: &'static str, steps: &str, replies: &[&'static str]) -> Result<(), String> {
    let replies = [&["", ""], replies].concat();
    let mut parrot = Parrot { replies, greeting };
    replay(&parsed(steps).unwrap(), &mut parrot, Subject::Sasld, Cut::Whole)
}

fn replayed(steps: &str, replies: &[&'static str]) -> Result<(), String> {
    replayed_with(GREETING, steps, replies)
}

fn parsed(steps: &str) -> Result<Dialog, String> {
    parse::dialog("x/y", &format!("title\nfrom: me\nprofile: fast\n\n{steps}"))
}

#[test]
fn what_matches_passes() {
    let dialog = "connect 1.2\nC: A\nS: OK\\t1\\tuser=alice\nC: B\nclosed by server\n";
    replayed(dialog, &["OK\t1\tuser=alice\n", "close"]).unwrap();
}

#[test]
fn another_line_than_expected_is_reported_with_its_place() {
    let report = replayed("connect 1.2\nC: A\nS: OK\\t1\n", &["OK\t1\t\n"]).unwrap_err();
    assert!(report.starts_with("x/y.dialog:7: got OK\\t1\\t\n"), "{report}");
}

#[test]
fn a_missing_line_and_a_line_too_many_are_reported() {
    let missing = replayed("connect 1.2\nC: A\nS: OK\\t1\n", &[""]).unwrap_err();
    assert!(missing.contains(":7: the server sent nothing"), "{missing}");
    let too_many = replayed("connect 1.2\nC: A\nS: OK\\t1\n", &["OK\t1\nFAIL\t1\n"]).unwrap_err();
    assert!(too_many.contains("at the end: unasked: the server sent FAIL\\t1"), "{too_many}");
    let unasked = replayed("connect 1.2\nC: A\nnothing more\n", &["OK\t1\n"]).unwrap_err();
    assert!(unasked.contains("expected nothing"), "{unasked}");
}

#[test]
fn an_unexpected_end_and_a_missing_one_are_reported() {
    let ended = replayed("connect 1.2\nC: A\nS: OK\\t1\n", &["close"]).unwrap_err();
    assert!(ended.contains("the server closed"), "{ended}");
    let torn =
        replayed("connect 1.2\nC: A\nC: B\nclosed by server\n", &["OK\t1\tuser=al", "close"]).unwrap_err();
    assert!(torn.contains("closed in the middle of OK\\t1\\tuser=al"), "{torn}");
    let goes_on = replayed("connect 1.2\nC: A\nclosed by server\n", &[""]).unwrap_err();
    assert!(goes_on.contains("expected the server to close"), "{goes_on}");
    let gone = replayed("connect 1.2\nC: A\nnothing more\n", &["close"]).unwrap_err();
    assert!(gone.contains("expected nothing"), "{gone}");
}

#[test]
fn only_neighbours_marked_so_may_change_places() {
    let marked = "connect 1.2\nC: A\nS any order: OK\\t1\nS any order: OK\\t2\n";
    replayed(marked, &["OK\t2\nOK\t1\n"]).unwrap();
    assert!(replayed(marked, &["OK\t2\nOK\t2\n"]).is_err());
    let unmarked = "connect 1.2\nC: A\nS: OK\\t1\nS: OK\\t2\n";
    assert!(replayed(unmarked, &["OK\t2\nOK\t1\n"]).is_err());
}

#[test]
fn every_greeting_is_checked() {
    let broken = [
        GREETING.replace("MECH\tPLAIN\tplaintext\n", ""),
        GREETING.replace("VERSION\t1\t2", "VERSION\t1\t1"),
        GREETING.replace("SPID\t1\n", "").replace("VERSION\t1\t2\n", "VERSION\t1\t2\nSPID\t1\n"),
        GREETING.replace("SPID\t1", "SPID\t0"),
        GREETING.replace("CUID\t1", "CUID\t01"),
        GREETING.replace("0123456789abcdef0", "0123456789ABCDEF0"),
        GREETING.replace("COOKIE\t0", "COOKIE\t"),
        GREETING.replace("MECH\tPLAIN", "MECH\tSCRAM-SHA-256-PLUS"),
        GREETING.replace("plaintext", &"x".repeat(1000)),
    ];
    replayed_with(GREETING, "connect\nnothing more\n", &[]).unwrap();
    for greeting in broken {
        let report = replayed_with(greeting.clone().leak(), "connect\nnothing more\n", &[]);
        assert!(report.is_err_and(|report| report.contains("greeting")), "{greeting}");
    }
}

#[test]
fn a_cram_md5_response_is_made_from_the_challenge_of_its_request() {
    // RFC 2195 §2.
    let challenge = "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+";
    let mut challenges = dialog::text::Challenges::new();
    let line = |text| dialog::text::Line::parse(text).unwrap();
    let sent = format!("CONT\t7\t{challenge}");
    assert!(line(r"CONT\t7\t{challenge}").matches(sent.as_bytes(), Subject::Sasld, &mut challenges));
    let response = line(r"CONT\t7\t{cram tim tanstaaftanstaaf}").bytes(&challenges).unwrap();
    let expected = b"CONT\t7\tdGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw";
    assert_eq!(response.as_slice(), expected);
    assert!(line(r"CONT\t8\t{cram tim x}").bytes(&challenges).is_err(), "another request");
    assert!(
        !line(r"CONT\t8\t{challenge}").matches(
            sent.replace('7', "8").as_bytes(),
            Subject::Sasld,
            &mut challenges
        ),
        "the same challenge twice"
    );
}

#[test]
fn a_dialog_with_a_mistake_is_refused_with_its_line() {
    for (steps, message) in [
        ("conect\n", "5: unknown step `conect`"),
        ("connect\nC: \\q\n", "6: unknown escape"),
        ("connect\nC: {nonsense}\n", "6: unknown placeholder"),
        ("connect\nC: {base64 x\n", "6: `{base64` is not closed"),
        ("connect\nC: a \n", "6: a blank at the end"),
        ("connect\nS(exim): a\n", "6: unknown server `exim`"),
        ("connect\nS(sasld): a\n", "1: steps for one server only need a `differs:` line"),
        ("connect\nafter two seconds\n", "6: `two seconds` is not a time"),
        ("", "1: there are no steps"),
    ] {
        let error = parsed(steps).unwrap_err();
        assert!(error.starts_with(message), "{steps:?}: {error}");
    }
}

#[test]
fn the_bytes_do_not_depend_on_how_they_are_cut() {
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    for cut in [Cut::Whole, Cut::Bytes, Cut::Random(1), Cut::Random(7)] {
        let mut together = Vec::new();
        cut.each(&bytes, |chunk| together.extend_from_slice(chunk));
        assert_eq!(together, bytes);
    }
}
