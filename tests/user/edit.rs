//! `sasld user edit`: what an editor may do to the file, and what not.

use std::fs;
use std::process::{Command, Output, Stdio};

use super::place::{ALICE, Place, SASLD, Session, code, err, json, out};

/// `sasld user edit` with this shell text as the editor; the file is `$1`.
fn command(place: &Place, editor: &str) -> Command {
    let script = place.directory.path().join("editor");
    fs::write(&script, editor).unwrap();
    let mut command = place.command(&["edit"]);
    command.env("VISUAL", "").env("EDITOR", format!("sh {}", script.display()));
    command
}

fn edit(place: &Place, editor: &str) -> Output {
    let output = command(place, editor).output().unwrap();
    assert!(place.has_no_temporary() || err(&output).contains(".secrets.edit"), "{}", err(&output));
    output
}

#[test]
fn what_was_edited_replaces_the_file() {
    let place = Place::with(ALICE);
    let output = edit(&place, "echo 'bob:{PLAIN}b' >> \"$1\"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(place.text(), format!("{ALICE}bob:{{PLAIN}}b\n"));
    assert!(out(&output).contains("changed, 2 users (1 before)"), "{}", out(&output));
}

#[test]
fn the_copy_is_private_and_the_lock_is_held_meanwhile() {
    let place = Place::with(ALICE);
    let editor = "d=$(dirname \"$1\"); stat -c '%a %n' \"$1\" > $d/seen\n\
                  flock -n $d/.secrets.lock true || echo held >> $d/seen";
    let output = edit(&place, editor);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let path = fs::canonicalize(place.directory.path()).unwrap();
    let seen = fs::read_to_string(path.join("seen")).unwrap();
    assert_eq!(seen, format!("600 {}/.secrets.edit\nheld\n", path.display()));
    assert!(out(&output).contains("unchanged"), "{}", out(&output));
}

#[test]
fn a_last_line_without_a_newline_gets_one() {
    let place = Place::with(ALICE);
    assert_eq!(code(&edit(&place, "printf 'bob:{PLAIN}b' > \"$1\"")), 0);
    assert_eq!(place.text(), "bob:{PLAIN}b\n");
}

#[test]
fn nothing_is_written_when_the_editor_changes_nothing() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::with(ALICE);
    let inode = fs::metadata(place.file()).unwrap().ino();
    let mut command = command(&place, "true");
    let output = command.arg("--json").output().unwrap();
    assert_eq!(code(&output), 0);
    assert_eq!(json(&output)["changed"], false);
    assert_eq!(fs::metadata(place.file()).unwrap().ino(), inode);
}

#[test]
fn an_editor_that_fails_changes_nothing() {
    let place = Place::with(ALICE);
    for (editor, expected) in [
        ("echo x > \"$1\"; exit 3", "the editor ended with exit status: 3"),
        ("echo x > \"$1\"; kill -KILL $$", "nothing was changed"),
        ("rm \"$1\"", "the editor took the file away; nothing was changed"),
    ] {
        let output = edit(&place, editor);
        assert_ne!(code(&output), 0, "{editor}");
        assert!(err(&output).contains(expected), "{editor}: {}", err(&output));
        assert_eq!(place.text(), ALICE);
    }
}

#[test]
fn new_problems_are_refused_with_line_and_reason_when_nobody_can_be_asked() {
    let place = Place::with(&format!("{ALICE}old:broken\n"));
    let before = place.text();
    for (editor, expected) in [
        ("echo 'bob:hunter2' >> \"$1\"", "line 4 (bob): no {SCHEME} in front of the password"),
        ("sed -i s/PLAIN/PLAN/ \"$1\"", "line 2 (alice): unknown scheme {PLAN}"),
        ("echo 'alice:{PLAIN}x' >> \"$1\"", "line 4 (alice): the name stands on line 2, too"),
        (": > \"$1\"", "there are no users any more, there were 2"),
    ] {
        let output = edit(&place, editor);
        assert_eq!(code(&output), 65, "{editor}: {}", err(&output));
        assert!(err(&output).contains(expected), "{editor}: {}", err(&output));
        assert!(!err(&output).contains("hunter2") && !err(&output).contains("(old)"), "{}", err(&output));
        assert_eq!(place.text(), before);
    }
}

#[test]
fn what_was_broken_before_is_no_obstacle() {
    let place = Place::with(&format!("{ALICE}old:broken\n"));
    let output = edit(&place, "sed -i '1i# moved' \"$1\"; echo 'bob:{PLAIN}b' >> \"$1\"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(place.secrets().len(), 3);
}

#[test]
fn at_a_terminal_one_may_edit_again_quit_or_keep_it() {
    const ASKED: &str = "Edit again (e), quit without changes (q), or keep it as it is (y)? ";
    // The first time it breaks the file, the second time it mends it.
    let editor =
        "if grep -q bob \"$1\"; then sed -i 's/^bob.*/bob:{PLAIN}b/' \"$1\"; else echo bob:b >> \"$1\"; fi";
    for (answers, exit, expected) in [
        (&["what", "e"][..], 0, format!("{ALICE}bob:{{PLAIN}}b\n")),
        (&["q"], 1, ALICE.to_owned()),
        (&["y"], 0, format!("{ALICE}bob:b\n")),
    ] {
        let place = Place::with(ALICE);
        let mut session = Session::of(&command(&place, editor));
        for (index, answer) in answers.iter().enumerate() {
            session.expect_times(ASKED, index + 1);
            session.type_in(&format!("{answer}\n"));
        }
        let (status, shown) = session.end();
        assert_eq!(status.code(), Some(exit), "{shown}");
        assert!(shown.contains("line 3 (bob): no {SCHEME}"), "{shown}");
        assert_eq!(place.text(), expected);
        assert!(place.has_no_temporary());
    }
}

#[test]
fn the_keys_that_interrupt_are_for_the_editor() {
    let place = Place::with(ALICE);
    let editor = "trap : INT\necho ready\nread line\necho 'bob:{PLAIN}b' >> \"$1\"";
    let mut session = Session::of(&command(&place, editor));
    session.expect("ready");
    session.type_in("\x03");
    session.type_in("\n");
    let (status, shown) = session.end();
    assert_eq!(status.code(), Some(0), "{shown}");
    assert_eq!(place.secrets().len(), 2);
}

#[test]
fn what_somebody_else_wrote_meanwhile_stays_and_so_does_the_text() {
    let place = Place::with(ALICE);
    let editor = "echo 'bob:{PLAIN}b' >> \"$1\"; echo 'eve:{PLAIN}e' >> \"$(dirname \"$1\")/secrets\"";
    let output = edit(&place, editor);
    assert_eq!(code(&output), 75, "{}", err(&output));
    assert!(err(&output).contains("another program changed it"), "{}", err(&output));
    assert!(err(&output).contains("what you wrote is in ") && err(&output).contains(".secrets.edit;"));
    assert_eq!(place.text(), format!("{ALICE}eve:{{PLAIN}}e\n"));
    let kept = |name: &str| fs::read_to_string(place.directory.path().join(name)).unwrap();
    assert_eq!(kept(".secrets.edit"), format!("{ALICE}bob:{{PLAIN}}b\n"));
    // The next edit works on a copy of another name, and so does the one after a second failure.
    let next = command(&place, "true").output().unwrap();
    assert!(code(&next) == 0 && err(&next).contains(".secrets.edit is there from an edit"), "{}", err(&next));
    let again = command(&place, &editor.replace("bob", "zoe")).output().unwrap();
    assert!(err(&again).contains(".secrets.edit2;"), "{}", err(&again));
    assert_eq!(kept(".secrets.edit"), format!("{ALICE}bob:{{PLAIN}}b\n"));
    assert!(kept(".secrets.edit2").contains("zoe"));
    let last = command(&place, "basename \"$1\" >\"$(dirname \"$1\")/seen\"").output().unwrap();
    assert_eq!((code(&last), kept("seen").as_str()), (0, ".secrets.edit3\n"), "{}", err(&last));
    assert!(!place.directory.path().join(".secrets.edit3").exists());
}

#[test]
fn visual_comes_before_editor_and_an_editor_that_is_not_there_is_named() {
    let place = Place::with(ALICE);
    let mut command = command(&place, "exit 9");
    let output = command.env("VISUAL", "true --option").output().unwrap();
    assert_eq!(code(&output), 0, "{}", err(&output));
    let output = command.env("VISUAL", "/no/such/editor").output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("/no/such/editor") && err(&output).contains("nothing was changed"));
    let missing = Command::new(SASLD)
        .args(["user", "edit", "--file", "/no/such/secrets"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(code(&missing), 78, "{}", err(&missing));
}
