//! A chain of secrets files and what it answers: every case in which a verdict, or none, is made.

use super::*;
use crate::credential::{Password, Proof};
use crate::sasl::{Name, NameRules};
use crate::wire::Secured;
use core::time::Duration;
use std::fs::{self, Permissions};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const FIRST: &str = "alice:{PLAIN}a\n\
    carol:{PLAIN}c::::::nologin\n\
    dan:{PLAIN}d::::::allow_nets=192.0.2.0/24\n\
    erin:{BLF-CRYPT}$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n\
    frank:::::::nologin\n\
    grace:\n";
const SECOND: &str = "alice:{PLAIN}b\nbob:{PLAIN}b\ncarol:{PLAIN}c\n";
/// A file that is not there.
const MISSING: &str = "";

/// A chain of files with these contents, each with whether it goes on when that one refuses.
struct World {
    chain: Chain,
    _directory: TempDir,
}

impl World {
    fn of(files: &[(&str, bool)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pool = Arc::new(HashPool::start(NonZeroUsize::MIN).unwrap());
        let links = files.iter().enumerate().map(|(number, (contents, continue_on_refusal))| {
            let path = directory.path().join(number.to_string());
            if *contents != MISSING {
                fs::write(&path, contents).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            }
            let file = SecretsFile::open(path, NameRules::default(), Arc::clone(&pool));
            Link { source: Source::SecretsFile(file), continue_on_refusal: *continue_on_refusal }
        });
        Self { chain: Chain::new(links.collect()), _directory: directory }
    }

    fn ask(&self, question: &Question, remote: &str) -> (String, Vec<Said>) {
        let origin =
            Origin { service: Arc::from(&b"smtp"[..]), remote: remote.parse().ok(), secured: Secured::Yes };
        let trail = self.chain.trail();
        let answer = self.chain.answer(question, &origin, Moment(Duration::ZERO), &trail);
        let answer = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(answer);
        let words = match answer {
            Ok(Answer::Verdict(Ok(_))) => "yes".to_owned(),
            Ok(Answer::Verdict(Err(refusal))) => refusal.why().to_owned(),
            Ok(Answer::VouchedAs(..)) => "another name".to_owned(),
            Ok(Answer::Credential(credential)) => credential
                .refusal
                .map_or("a key".to_owned(), |refusal| format!("a key but {}", refusal.why())),
            Err(outage) => outage.why().to_owned(),
        };
        (words, trail.steps().iter().map(|(_, said)| said).collect())
    }

    fn password(&self, name: &str, password: &str, remote: &str) -> String {
        self.ask(&Question::VerifyPassword(named(name), Arc::new(Password::new(password))), remote).0
    }

    fn cram_md5(&self, name: &str, remote: &str) -> String {
        self.ask(&Question::LookupCramMd5(named(name)), remote).0
    }
}

fn named(name: &str) -> Name {
    NameRules::default().canonical(name.as_bytes()).unwrap()
}

#[test]
fn the_first_passdb_that_has_the_user_decides_unless_it_says_to_go_on() {
    let stops = World::of(&[(FIRST, false), (SECOND, false)]);
    let goes_on = World::of(&[(FIRST, true), (SECOND, false)]);
    for (name, password, if_it_stops, if_it_goes_on) in [
        ("alice", "a", "yes", "yes"),
        ("alice", "b", "wrong_password", "yes"),
        ("alice", "x", "wrong_password", "wrong_password"),
        ("bob", "b", "yes", "yes"),
        ("bob", "x", "wrong_password", "wrong_password"),
        ("carol", "c", "closed", "yes"),
        ("carol", "x", "closed", "wrong_password"),
        ("eve", "a", "unknown_user", "unknown_user"),
    ] {
        assert_eq!(stops.password(name, password, ""), if_it_stops, "{name} with {password}");
        assert_eq!(goes_on.password(name, password, ""), if_it_goes_on, "{name} with {password}");
    }
    assert_eq!(
        (&*stops.cram_md5("carol", ""), &*goes_on.cram_md5("carol", "")),
        ("a key but closed", "a key")
    );
}

#[test]
fn a_passdb_out_of_order_that_could_have_known_better_makes_no_refusal() {
    let first = World::of(&[(MISSING, false), (FIRST, false)]);
    let last = World::of(&[(FIRST, false), (MISSING, false)]);
    let last_and_goes_on = World::of(&[(FIRST, true), (MISSING, false)]);
    for (name, password, expected) in [
        ("alice", "a", ["yes", "yes", "yes"]),
        ("alice", "x", ["passdb_unavailable", "wrong_password", "passdb_unavailable"]),
        ("eve", "a", ["passdb_unavailable"; 3]),
    ] {
        let found = [&first, &last, &last_and_goes_on].map(|world| world.password(name, password, ""));
        assert_eq!(found, expected, "{name} with {password}");
    }
    assert_eq!(first.cram_md5("alice", ""), "a key");
    assert_eq!(first.cram_md5("eve", ""), "passdb_unavailable");
}

#[test]
fn a_right_password_is_not_enough_for_an_entry_with_restrictions() {
    let world = World::of(&[(FIRST, false)]);
    for (name, password, remote, expected) in [
        ("carol", "c", "192.0.2.7", "closed"),
        ("dan", "d", "192.0.2.7", "yes"),
        ("dan", "x", "192.0.2.7", "wrong_password"),
        ("dan", "d", "198.51.100.7", "network"),
        ("dan", "d", "", "network"),
        ("frank", "x", "", "closed"),
        ("grace", "x", "", "closed"),
    ] {
        assert_eq!(world.password(name, password, remote), expected, "{name} from {remote:?}");
    }
}

#[test]
fn cram_md5_gets_a_key_in_any_case_and_a_refusal_where_there_should_be_one() {
    let world = World::of(&[(FIRST, false)]);
    for (name, remote, expected) in [
        ("alice", "", "a key"),
        ("carol", "", "a key but closed"),
        ("dan", "192.0.2.7", "a key"),
        ("dan", "198.51.100.7", "a key but network"),
        ("erin", "", "a key but no_verifier"),
        ("frank", "", "a key but closed"),
        ("eve", "", "a key but unknown_user"),
    ] {
        assert_eq!(world.cram_md5(name, remote), expected, "{name} from {remote:?}");
    }
}

#[test]
fn an_expensive_hash_says_the_same_as_a_cheap_one() {
    let world = World::of(&[(FIRST, false)]);
    assert_eq!(world.password("erin", "secret", ""), "yes");
    assert_eq!(world.password("erin", "secreu", ""), "wrong_password");
}

#[test]
fn who_is_in_no_file_is_unknown_even_if_no_file_has_a_decoy() {
    let empty = World::of(&[("# nobody\n", false)]);
    let none = World::of(&[]);
    assert_eq!(
        (&*empty.password("eve", "a", ""), &*empty.cram_md5("eve", "")),
        ("unknown_user", "a key but unknown_user")
    );
    assert_eq!(none.password("eve", "a", ""), "unknown_user");
}

#[test]
fn the_trail_ends_with_who_decided() {
    let world = World::of(&[(MISSING, false), (FIRST, false), (SECOND, false)]);
    let asked = |name, password| {
        world.ask(&Question::VerifyPassword(named(name), Arc::new(Password::new(password))), "").1
    };
    let out = Said::Out(Outage::Passdb);
    assert_eq!(asked("alice", "a"), [out, Said::Yes]);
    assert_eq!(asked("alice", "x"), [out, Said::Refused(Refusal::WrongPassword)]);
    assert_eq!(asked("carol", "c"), [out, Said::Closed(Closed::Nologin)]);
    assert_eq!(asked("bob", "b"), [out, Said::NotFound, Said::Yes]);
}

#[test]
fn only_an_answer_that_lets_nobody_in_is_a_refusal() {
    assert!(!Answer::Verdict(Ok(Proof::vouched())).is_refusal());
    assert!(!Answer::VouchedAs(named("bob"), Proof::vouched()).is_refusal());
    assert!(Answer::Verdict(Err(Refusal::WrongPassword)).is_refusal());
}
