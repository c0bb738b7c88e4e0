//! What docs/secrets-file.md shows is what the commands print, and its Ansible tasks do what they say.

use std::fs;
use std::path::Path;

use super::place::{Place, code, err, feed, json};

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/secrets-file.md")).unwrap()
}

/// What a command prints, as the page has it: with the usual path, and with a daemon that runs.
fn printed(place: &Place, arguments: &[&str], input: &str) -> String {
    let output = place.run(arguments, input.as_bytes());
    String::from_utf8([output.stdout, output.stderr].concat())
        .unwrap()
        .replace(place.file().to_str().unwrap(), "/etc/sasld/secrets")
        .replace(
            "there is no running sasld; this takes effect when it starts",
            "in force in the running sasld",
        )
}

#[test]
fn the_page_shows_what_the_commands_print() {
    let place = Place::empty();
    let page = page();
    let users = "dave:{SSHA}8bX4JQDfZqtTfvnQ4ssDmWb17/FTQUxU\nerin:{PLAIN}secret::::::allow_nets=192.0.2.0/24\n\
                 frank:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    let source = place.directory.path().join("users");
    fs::write(&source, format!("alice:{{PLAIN}}x\n{users}")).unwrap();
    let source = source.to_str().unwrap();
    for (arguments, input) in [
        (&["add", "alice", "--password-stdin"][..], "wonderland"),
        (&["add", "bob", "--scheme", "SHA512-CRYPT", "--password-stdin"], "builder"),
        (&["list"], ""),
        (&["show", "bob"], ""),
        (&["verify", "alice", "--password-stdin"], "wonderland"),
        (&["verify", "bob", "--password-stdin"], "builder"),
        (&["lock", "bob"], ""),
        (&["lock", "bob"], ""),
        (&["unlock", "bob"], ""),
        (&["import", source], ""),
    ] {
        let text = printed(&place, arguments, input).replace(source, "/etc/dovecot/users");
        // Notes that were explained before are not shown again.
        let shown = if arguments[0] == "import" { text.split("note: ").next().unwrap() } else { &text };
        assert!(page.contains(shown), "{arguments:?} prints\n{text}");
    }
}

#[test]
fn the_ansible_tasks_change_what_they_say_and_nothing_the_second_time() {
    let page = page();
    let tasks = page.split("```yml\n").nth(1).unwrap().split("```").next().unwrap();
    let place = Place::with("alice:{PLAIN}old\nbob:{PLAIN}b\ncarol:{PLAIN}c\n");
    let commands: Vec<Vec<&str>> = tasks
        .lines()
        .filter_map(|line| line.trim().strip_prefix("argv: [")?.strip_suffix(']'))
        .map(|words| words.split(", ").collect())
        .collect();
    assert_eq!(commands.len(), 3);
    for expected in [true, false] {
        for words in &commands {
            assert_eq!(words[..2], ["sasld", "user"]);
            let output = feed(place.command(&words[2..]), b"new");
            assert_eq!(code(&output), 0, "{words:?}: {}", err(&output));
            assert_eq!(json(&output)["changed"], expected, "{words:?}");
        }
    }
    assert!(place.accepts("alice", "new") && !place.accepts("bob", "b"));
    assert!(place.secrets().lookup("carol").is_none());
}
