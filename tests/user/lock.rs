//! Locked users cannot log in, keep what is stored for them, and come back exactly as they were.

use super::place::{Place, code, err, json, out};

const FILE: &str = "# people\r\nAlice:{PLAIN}wonder\nbob:{PLAIN}b:1:2::/home/bob::userdb_x=y allow_nets=192.0.2.0/24\n\
                    carol:{SSHA}broken\nkate:{PLAIN}k::::::\n";

#[test]
fn a_locked_user_cannot_log_in_and_unlocking_gives_every_byte_back() {
    let place = Place::with(FILE);
    let locked = place.run(&["lock", "alice", "bob", "carol", "kate"], b"");
    assert_eq!(code(&locked), 0, "{}", err(&locked));
    assert!(out(&locked).contains("user alice locked\n"), "{}", out(&locked));
    assert!(place.text().contains("Alice:{PLAIN}wonder::::::      nologin\n"), "{}", place.text());
    assert!(!place.accepts("alice", "wonder") && !place.accepts("bob", "b") && !place.accepts("kate", "k"));
    let unlocked = place.run(&["unlock", "kate", "bob", "alice", "carol"], b"");
    assert_eq!(code(&unlocked), 0, "{}", err(&unlocked));
    assert!(err(&unlocked).contains("carol still cannot log in: the line is broken"), "{}", err(&unlocked));
    assert_eq!(place.text(), FILE);
}

#[test]
fn to_lock_again_or_to_unlock_who_is_not_locked_changes_nothing_and_is_no_error() {
    let place = Place::with(FILE);
    for (command, result, expected) in [
        ("unlock", "unchanged", "user bob was not locked, nothing was changed\n"),
        ("lock", "locked", ""),
        ("lock", "unchanged", "user bob was locked already, nothing was changed\n"),
        ("unlock", "unlocked", ""),
    ] {
        let before = place.text();
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(place.file()).unwrap());
        let output = place.run(&[command, "bob", "--json"], b"");
        assert_eq!(code(&output), 0, "{}", err(&output));
        let answer = json(&output);
        assert_eq!(answer["users"][0]["result"], result);
        assert_eq!(answer["changed"], expected.is_empty());
        if !expected.is_empty() {
            assert_eq!(out(&place.run(&[command, "bob"], b"")), expected);
            assert_eq!(place.text(), before);
            let now = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(place.file()).unwrap());
            assert_eq!(now, inode, "the file is not even replaced");
        }
    }
    assert_eq!(place.text(), FILE);
}

#[test]
fn all_are_locked_or_none() {
    let place = Place::with("alice:{PLAIN}a\nbob:{PLAIN}b\nBob:{PLAIN}c\n");
    for (names, expected) in [(["alice", "eve"], "there is no user eve"), (["alice", "bob"], "lines 2 and 3")]
    {
        let output = place.run(&["lock", names[0], names[1]], b"");
        assert_eq!(code(&output), 1);
        assert!(err(&output).contains(expected), "{}", err(&output));
    }
    assert!(!place.text().contains("nologin"));
}

#[test]
fn a_locked_user_may_get_a_new_password_and_stays_locked() {
    let place = Place::with(FILE);
    assert_eq!(code(&place.run(&["lock", "alice"], b"")), 0);
    assert_eq!(code(&place.run(&["passwd", "alice", "--password-stdin", "--scheme=PLAIN"], b"land")), 0);
    assert!(!place.accepts("alice", "land"));
    assert_eq!(code(&place.run(&["unlock", "alice"], b"")), 0);
    assert_eq!(place.text(), FILE.replace("wonder", "land"));
}
