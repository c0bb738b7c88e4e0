//! Passwords typed at a terminal: never shown, and the terminal is as before whatever happens.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::place::{ALICE, Place, Session, code, err};

#[test]
fn the_password_is_asked_for_twice_and_never_shown() {
    let place = Place::with(ALICE);
    let mut session = Session::start(&place, &["add", "bob", "--scheme", "PLAIN"]);
    session.expect("Password for bob: ");
    assert!(!session.echoes());
    session.type_in("pass word\u{fc}\n");
    session.expect("The same again: ");
    session.type_in("pass word\u{fc}\n");
    session.expect("user bob added");
    assert!(session.echoes());
    let (status, shown) = session.end();
    assert_eq!(status.code(), Some(0));
    assert!(!shown.contains("word\u{fc}"), "{shown}");
    assert!(place.accepts("bob", "pass word\u{fc}"));
}

#[test]
fn two_different_passwords_change_nothing() {
    let place = Place::with(ALICE);
    let mut session = Session::start(&place, &["passwd", "alice"]);
    session.expect("Password for alice: ");
    session.type_in("one\n");
    session.expect("The same again: ");
    session.type_in("two\n");
    session.expect("the two passwords differ");
    assert_eq!(session.end().0.code(), Some(1));
    assert_eq!(place.text(), ALICE);
}

#[test]
fn an_interrupted_prompt_leaves_the_echo_on_and_the_file_alone() {
    enum Interruption {
        Typed(&'static str),
        Sent(Signal),
    }
    for (interruption, expected) in [
        (Interruption::Typed("half\x03"), 130),
        (Interruption::Sent(Signal::SIGINT), 130),
        (Interruption::Sent(Signal::SIGTERM), 143),
        (Interruption::Typed("\x04"), 1),
    ] {
        let place = Place::with(ALICE);
        let mut session = Session::start(&place, &["add", "bob"]);
        session.expect("Password for bob: ");
        assert!(!session.echoes());
        match interruption {
            Interruption::Typed(keys) => session.type_in(keys),
            Interruption::Sent(signal) => session.send(signal),
        }
        let status = session.child.wait().unwrap();
        assert_eq!(status.code(), Some(expected), "{status}");
        assert!(session.echoes());
        assert_eq!(place.text(), ALICE);
        assert!(place.has_no_temporary());
    }
}

#[test]
fn without_a_terminal_the_way_out_is_named() {
    let place = Place::with(ALICE);
    let mut command = Command::new("setsid");
    let program = place.command(&["add", "bob"]);
    command.arg("--wait").arg(program.get_program()).args(program.get_args());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(code(&output), 64, "{}", err(&output));
    assert!(err(&output).contains("--password-stdin"), "{}", err(&output));
}
