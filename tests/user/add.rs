//! Adding, changing and removing users through a pipe, by people and by scripts.

use super::place::{ALICE, Place, code, err, json, out};

#[test]
fn one_newline_at_the_end_is_no_part_of_the_password_and_everything_else_is() {
    let place = Place::with(ALICE);
    for (name, input, password) in [
        ("a", "a \n", "a "),
        ("b", "b\n\n", "b\n"),
        ("c", "c", "c"),
        ("d", " d\r\n", " d\r"),
        ("e", "\u{fc}:{", "\u{fc}:{"),
    ] {
        for scheme in ["cram-md5", "plain"] {
            let name = format!("{name}-{scheme}");
            let added = place.run(&["add", &name, "--password-stdin", "--scheme", scheme], input.as_bytes());
            assert_eq!(code(&added), 0, "{}", err(&added));
            assert!(place.accepts(&name, password), "{input:?} {scheme}");
        }
    }
    assert!(place.text().starts_with(ALICE));
}

#[test]
fn without_a_scheme_the_password_serves_every_mechanism() {
    let place = Place::empty();
    let added = place.run(&["add", "Alice", "--password-stdin"], b"secret\n");
    assert_eq!(code(&added), 0, "{}", err(&added));
    assert!(out(&added).contains("user alice added, stored as ARGON2ID and CRAM-MD5"), "{}", out(&added));
    let note = err(&added);
    assert!(note.contains("enough to log in by CRAM-MD5") && note.contains("full speed of MD5"), "{note}");
    assert!(place.accepts("alice", "secret"));
}

#[test]
fn an_impossible_password_changes_nothing() {
    let place = Place::with(ALICE);
    for input in [&b""[..], b"\n", b"a\0b", &[b'x'; 1025], &[b'x'; 100_000]] {
        for command in ["add", "passwd"] {
            let name = if command == "add" { "bob" } else { "alice" };
            let output = place.run(&[command, name, "--password-stdin", "--scheme", "PLAIN"], input);
            assert_eq!(code(&output), 1, "{}", err(&output));
        }
    }
    assert_eq!(place.text(), ALICE);
    let longest = place.run(&["add", "bob", "--password-stdin", "--scheme", "PLAIN"], &[b'x'; 1024]);
    assert_eq!(code(&longest), 0, "{}", err(&longest));
}

#[test]
fn a_new_password_replaces_the_old_one_and_nothing_else() {
    let place = Place::with("# people\nAlice:{PLAIN}wonder:1:2::/h::userdb_x=y\n\nbob:{PLAIN}b\n");
    let changed = place.run(&["passwd", "alice", "--password-stdin", "--scheme", "PLAIN"], b"land\n");
    assert_eq!(code(&changed), 0, "{}", err(&changed));
    assert_eq!(place.text(), "# people\nAlice:{PLAIN}land:1:2::/h::userdb_x=y\n\nbob:{PLAIN}b\n");
    assert!(err(&changed).contains("PLAIN stores the password itself"));
    assert!(out(&changed).contains("stored as PLAIN"));
}

#[test]
fn a_password_among_the_arguments_is_refused_with_the_reason_and_not_repeated() {
    let place = Place::with(ALICE);
    for command in ["add", "passwd"] {
        let output = place.run(&[command, "alice", "hunter2"], b"");
        assert_eq!(code(&output), 64);
        assert!(err(&output).contains("process list") && err(&output).contains("--password-stdin"));
        assert!(!err(&output).contains("hunter2"));
    }
    assert_eq!(place.text(), ALICE);
}

#[test]
fn names_that_cannot_be_are_refused_with_the_reason() {
    let place = Place::with(ALICE);
    let long = "x".repeat(256);
    for (name, reason) in [
        ("a:b", "do not allow \"a:b\""),
        ("a\nb", "control character"),
        ("a\x1b[31m", "control character"),
        (&*long, "256 bytes"),
        ("", "empty"),
        ("a b", "do not allow"),
        ("\u{202e}a", "do not allow \"\\u{202e}a\""),
        ("#a", "do not allow"),
    ] {
        let output = place.run(&["add", "--password-stdin", "--", name], b"x");
        assert_eq!(code(&output), 64, "{name:?}: {}", err(&output));
        assert!(err(&output).contains(reason), "{name:?}: {}", err(&output));
        assert!(!err(&output).contains('\x1b') && !err(&output).contains('\u{202e}'));
    }
    assert_eq!(place.text(), ALICE);
    let hyphen = place.run(&["add", "--password-stdin", "--scheme=PLAIN", "--", "-a"], b"x");
    assert_eq!(code(&hyphen), 0, "{}", err(&hyphen));
}

#[test]
fn who_exists_is_not_added_and_who_does_not_is_not_changed() {
    let place = Place::with(ALICE);
    for (arguments, expected) in [
        (&["add", "ALICE", "--password-stdin"][..], "user alice exists already"),
        (&["passwd", "bob", "--password-stdin"], "there is no user bob"),
        (&["remove", "alice", "bob"], "there is no user bob"),
    ] {
        let output = place.run(arguments, b"x");
        assert_eq!(code(&output), 1);
        assert!(err(&output).contains(expected), "{}", err(&output));
    }
    assert_eq!(place.text(), ALICE, "also alice stays: all are removed or none");
}

#[test]
fn removed_users_are_gone_and_the_rest_stays() {
    let place = Place::with("# people\nalice:{PLAIN}a\nbob:{PLAIN}b\nBob:{PLAIN}c\nkate:{PLAIN}k\n");
    let output = place.run(&["remove", "bob", "Alice"], b"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("user bob removed") && out(&output).contains("(2 lines)"));
    assert_eq!(place.text(), "# people\nkate:{PLAIN}k\n");
}

#[test]
fn without_a_file_there_is_nobody_to_change() {
    let place = Place::empty();
    for arguments in [&["list"][..], &["remove", "alice"], &["passwd", "alice", "--password-stdin"]] {
        let output = place.run(arguments, b"x");
        assert_eq!(code(&output), 78);
        assert!(err(&output).contains("there is no such file"), "{}", err(&output));
    }
    assert!(!place.file().exists());
}

// For scripts

#[test]
fn add_can_leave_alone_who_is_there() {
    let place = Place::with(ALICE);
    for (name, changed, result) in
        [("alice", false, "unchanged"), ("bob", true, "added"), ("bob", false, "unchanged")]
    {
        let arguments = ["add", name, "--if-missing", "--password-stdin", "--scheme=PLAIN", "--json"];
        let output = place.run(&arguments, b"other\n");
        assert_eq!(code(&output), 0, "{}", err(&output));
        let answer = json(&output);
        assert_eq!((&answer["changed"], &answer["users"][0]["result"]), (&changed.into(), &result.into()));
        assert_eq!(answer["users"][0]["name"], name);
    }
    assert_eq!(place.text(), format!("{ALICE}bob:{{PLAIN}}other\n"));
}

#[test]
fn add_can_update_and_does_nothing_when_the_password_is_right_already() {
    let place = Place::with(ALICE);
    let mut results = Vec::new();
    for (password, scheme) in
        [("wonder", "PLAIN"), ("land", "PLAIN"), ("land", "PLAIN"), ("land", "SSHA256"), ("land", "SSHA256")]
    {
        let scheme = format!("--scheme={scheme}");
        let arguments = ["add", "alice", "--update", "--password-stdin", &scheme, "--json"];
        let output = place.run(&arguments, password.as_bytes());
        assert_eq!(code(&output), 0, "{}", err(&output));
        let answer = json(&output);
        assert_eq!(answer["changed"], answer["users"][0]["result"] == "updated");
        results.push(answer["users"][0]["result"].as_str().unwrap().to_owned());
        assert!(place.accepts("alice", password));
    }
    assert_eq!(results, ["unchanged", "updated", "unchanged", "updated", "unchanged"]);
}

#[test]
fn an_update_keeps_a_locked_user_locked() {
    let place = Place::with("alice:{PLAIN}wonder::::::nologin\n");
    let output = place.run(&["add", "alice", "--update", "--password-stdin", "--scheme=PLAIN"], b"land");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(place.text(), "alice:{PLAIN}land::::::nologin\n");
}

#[test]
fn who_is_not_there_can_be_removed_in_peace() {
    let place = Place::with(ALICE);
    let output = place.run(&["remove", "eve", "alice", "--if-exists", "--json"], b"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    let answer = json(&output);
    assert_eq!(answer["changed"], true);
    assert_eq!(answer["users"][0]["result"], "removed");
    assert_eq!(
        (&answer["users"][1]["name"], &answer["users"][1]["result"]),
        (&"eve".into(), &"absent".into())
    );
    let again = json(&place.run(&["remove", "alice", "--if-exists", "--json"], b""));
    assert_eq!(again["changed"], false);
    let nowhere = Place::empty().run(&["remove", "alice", "--if-exists", "--json"], b"");
    assert_eq!((code(&nowhere), &json(&nowhere)["changed"]), (0, &false.into()));
}

#[test]
fn quiet_commands_say_nothing_and_do_it() {
    let place = Place::with(ALICE);
    for arguments in [
        &["add", "bob", "--password-stdin", "--quiet"][..],
        &["passwd", "bob", "--password-stdin", "--scheme=CRAM-MD5", "--quiet"],
        &["lock", "bob", "--quiet"],
        &["unlock", "bob", "--quiet"],
        &["verify", "bob", "--password-stdin", "--quiet"],
        &["remove", "alice", "--quiet"],
    ] {
        let output = place.run(arguments, b"secret");
        assert_eq!((code(&output), out(&output), err(&output)), (0, "", ""), "{arguments:?}");
    }
    assert!(place.accepts("bob", "secret"));
    let refused = place.run(&["add", "bob", "--quiet", "--password-stdin"], b"x");
    assert!(code(&refused) == 1 && err(&refused).contains("exists already"), "errors are said all the same");
}

#[test]
fn a_generated_password_is_printed_once_and_is_the_right_one() {
    let place = Place::with(ALICE);
    let quiet = place.run(&["add", "bob", "--generate", "--quiet"], b"");
    assert_eq!((code(&quiet), err(&quiet)), (0, ""));
    let password = out(&quiet).strip_suffix('\n').unwrap();
    assert!(place.accepts("bob", password));
    let groups: Vec<&str> = password.split('-').collect();
    assert!(groups.len() == 5 && groups.iter().all(|group| group.len() == 5), "{password}");

    let text = place.run(&["passwd", "bob", "--generate", "--scheme=PLAIN"], b"");
    let password = out(&text).strip_prefix("password of bob: ").unwrap().lines().next().unwrap().to_owned();
    assert!(place.accepts("bob", password.as_str()));
    assert_eq!(out(&text).matches(&password).count() + err(&text).matches(&password).count(), 1);

    let answer = json(&place.run(&["add", "eve", "--generate", "--json", "--scheme=SSHA512"], b""));
    let user = &answer["users"][0];
    assert!(place.accepts("eve", user["password"].as_str().unwrap()));
    assert_eq!(user["schemes"], serde_json::json!(["SSHA512"]));
    let both = place.run(&["add", "zoe", "--generate", "--password-stdin"], b"x");
    assert_eq!(code(&both), 64);
}

#[test]
fn an_answer_in_json_says_what_is_stored_and_what_that_is_worth() {
    let place = Place::empty();
    let answer = json(&place.run(&["add", "alice", "--password-stdin", "--json"], b"secret"));
    assert_eq!(answer["users"][0]["schemes"], serde_json::json!(["ARGON2ID", "CRAM-MD5"]));
    assert_eq!(answer["file"], place.file().to_str().unwrap());
    assert!(answer["notes"][0].as_str().unwrap().contains("stolen CRAM-MD5 verifier"));
    assert!(answer["daemon"]["state"].is_string());
    assert!(!answer.to_string().contains("secret\""), "{answer}");
}

#[test]
fn a_change_that_cannot_be_reported_is_told_from_one_that_was_not_made() {
    let place = Place::with(ALICE);
    let mut command = place.command(&["lock", "alice"]);
    let output = command.stdout(std::fs::File::create("/dev/full").unwrap()).output().unwrap();
    assert_eq!(code(&output), 74);
    assert!(err(&output).contains("the file was changed, but"), "{}", err(&output));
    assert!(place.text().contains("nologin"));
}
