//! Users from other programs' files: what is taken over, what is not and why, and that it is all or nothing.

use std::fs;
use std::process::{Command, Stdio};

use super::place::{ALICE, Place, code, err, feed, json, out};
use super::support::skip::not_tested;

const SSHA256: &str = "{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU";
const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

impl Place {
    /// A foreign file.
    fn foreign(&self, contents: &str) -> String {
        let path = self.directory.path().join("foreign");
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn nothing_is_written_without_apply() {
    let place = Place::with(ALICE);
    let source = place.foreign(&format!("bob:{SSHA256}::::::\n"));
    let output = place.run(&["import", &source], b"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("bob: would be added as SSHA256\n"), "{}", out(&output));
    assert!(
        out(&output).contains("1 to add") && out(&output).contains("nothing was written; --apply does it")
    );
    assert_eq!(place.text(), ALICE);
    let answer = json(&place.run(&["import", &source, "--json"], b""));
    assert_eq!(
        (&answer["applied"], &answer["changed"], &answer["totals"]["added"]),
        (&false.into(), &false.into(), &1.into())
    );
}

#[test]
fn a_dovecot_file_comes_over_line_by_line_and_what_cannot_is_said_for_each_user() {
    let place = Place::with(ALICE);
    let source = place.foreign(&format!(
        "# mail\nBob:{SSHA256}:1000:1000::/home/bob::userdb_mail=x allow_nets=192.0.2.0/24\n\
         carol:{{SSHA}}hunter2\ndave:{BCRYPT}:::::::\nerin:::::::nopassword\nfrank:{SSHA256}::::::nologin\n\
         grace:{{PLAIN}}hunter2\nhenry:{SSHA256}\nHenry:{SSHA256}\nleo smith:{SSHA256}\n\
         mia:{SSHA256}::::::allow_nets=192.0.2\nalice:{SSHA256}\n"
    ));
    let output = place.run(&["import", &source, "--apply", "--scheme=CRAM-MD5"], b"");
    assert_eq!(code(&output), 1, "{}", err(&output));
    for line in [
        "bob: added as SSHA256\n",
        "carol (line 3): left out: unknown scheme {SSHA}",
        "dave (line 4): left out: no {SCHEME} in front of the password; --default-scheme CRYPT",
        "erin (line 5): left out: no password is stored\n",
        "frank: added as SSHA256; locked (nologin)\n",
        "grace: added as CRAM-MD5\n",
        "henry (line 8): left out: the name stands on line 9, too\n",
        "henry (line 9): left out: the name stands on line 8, too\n",
        "leo smith (line 10): left out: the rules for user names (usernames:) do not allow this name\n",
        "mia (line 11): left out: allow_nets: \"192.0.2\" is neither",
        "alice (line 12): left out: exists already on line 2 and is different; --replace takes this one\n",
        "11 users in ",
        ": 3 added, 0 replaced, 0 there already, 8 left out\n",
    ] {
        assert!(out(&output).contains(line), "{line}\n{}", out(&output));
    }
    assert!(!out(&output).contains("hunter2") && !err(&output).contains("hunter2"));
    let text = place.text();
    let kept = format!(
        "{ALICE}bob:{SSHA256}:1000:1000::/home/bob::userdb_mail=x allow_nets=192.0.2.0/24\nfrank:{SSHA256}::::::nologin\ngrace:{{CRAM-MD5}}"
    );
    assert!(text.starts_with(&kept), "{text}");
    assert!(place.accepts("grace", "hunter2") && place.accepts("bob", "secret"));
}

#[test]
fn the_default_scheme_is_what_passwords_without_one_are_read_as() {
    let place = Place::empty();
    let source = place.foreign(&format!("dave:{BCRYPT}:1:2::::\n"));
    let arguments = ["import", &source, "--format=dovecot", "--default-scheme=CRYPT", "--apply"];
    let output = place.run(&arguments, b"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(place.text(), format!("dave:{{CRYPT}}{BCRYPT}:1:2::::\n"));
}

#[test]
fn an_import_again_changes_nothing() {
    let place = Place::empty();
    let source = place.foreign(&format!("user,password,scheme\nalice,wonder,PLAIN\nbob,{BCRYPT},\n"));
    let first = json(&place.run(&["import", &source, "--apply", "--json"], b""));
    assert_eq!((&first["changed"], &first["totals"]["added"]), (&true.into(), &2.into()));
    let before = place.text();
    let again = place.run(&["import", &source, "--apply", "--json"], b"");
    assert_eq!(code(&again), 0);
    let again = json(&again);
    assert_eq!((&again["changed"], &again["totals"]["unchanged"]), (&false.into(), &2.into()));
    assert_eq!(place.text(), before);
    assert!(place.accepts("alice", "wonder"));
}

#[test]
fn who_is_there_keeps_what_he_has_unless_he_is_to_be_replaced() {
    let place = Place::with("Alice:{PLAIN}wonder:1:2::::nologin\nbob:{PLAIN}b\n");
    let source = place.foreign("alice:other\nbob:b\n");
    let kept = place.run(&["import", &source, "--default-scheme=PLAIN", "--apply", "--scheme=PLAIN"], b"");
    assert_eq!(code(&kept), 1);
    assert_eq!(place.text(), "Alice:{PLAIN}wonder:1:2::::nologin\nbob:{PLAIN}b\n");
    let arguments = ["import", &source, "--default-scheme=PLAIN", "--apply", "--scheme=PLAIN", "--replace"];
    let replaced = place.run(&arguments, b"");
    assert_eq!(code(&replaced), 0, "{}", err(&replaced));
    assert!(
        out(&replaced).contains("alice: replaced, now PLAIN; stays locked")
            && out(&replaced).contains("bob: there already\n")
    );
    let expected = "Alice:{PLAIN}other:1:2::::nologin\nbob:{PLAIN}b\n";
    assert_eq!(place.text(), expected, "a list says nothing about locks and the rest of the line");
}

#[test]
fn a_password_that_is_the_same_is_replaced_if_it_is_stored_otherwise() {
    let place = Place::with("alice:{PLAIN}wonder\n");
    let source = place.foreign("alice:wonder\n");
    let run = |more: &[&str]| {
        let arguments = ["import", &source, "--default-scheme=PLAIN", "--apply", "--scheme=SSHA512"];
        let output = place.run(&[&arguments[..], more].concat(), b"");
        format!("{}{}", out(&output), err(&output))
    };
    let both = &["--scheme=CRAM-MD5", "--replace"][..];
    assert!(run(&["--replace"]).contains("alice: replaced, now SSHA512\n"));
    assert!(
        run(&["--scheme=CRAM-MD5"]).contains("alice: there already\n"),
        "without --replace he keeps what he has"
    );
    assert!(run(both).contains("alice: replaced, now SSHA512 and CRAM-MD5\n"));
    assert!(place.accepts("alice", "wonder"));
    assert!(run(both).contains("alice: there already\n"));
    assert!(
        run(&["--replace"]).contains("alice: replaced, now SSHA512\n"),
        "one too many is another one, too"
    );
}

#[test]
fn a_lock_stays_and_another_restriction_that_goes_is_named() {
    let other = SSHA256.replace("/Z0p", "/Z1p");
    for (old, new, then, said) in [
        (":1:2::::nologin", "", "::::::      nologin", "; stays locked; `sasld user unlock`"),
        (
            "::::::nologin allow_nets=local",
            ":1",
            ":1:::::     nologin",
            "allow_nets=local goes: logins from anywhere",
        ),
        (":1:2::::", ":1:2::::nologin", ":1:2::::nologin", "; locked (nologin)\n"),
        ("::::::allow_nets=192.0.2.1", "", "", "; allow_nets=192.0.2.1 goes: logins from anywhere\n"),
        (
            "::::::allow_nets=local",
            "::::::allow_nets=::1",
            "::::::allow_nets=::1",
            "; allow_nets=::1 instead of local\n",
        ),
        (
            "::::::allow_real_nets=x",
            "",
            "",
            "nobody could log in with the entry before: sasld does not implement",
        ),
        ("::::::userdb_mail=x", "", "", "alice: replaced, now SSHA256\n"),
    ] {
        let place = Place::with(&format!("alice:{SSHA256}{old}\n"));
        let source = place.foreign(&format!("alice:{other}{new}\n"));
        let arguments = ["import", &source, "--format=dovecot", "--replace", "--apply"];
        let output = place.run(&arguments, b"");
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(out(&output).contains(said), "{old}: {}", out(&output));
        assert_eq!(place.text(), format!("alice:{other}{then}\n"));
        let again = place.run(&arguments, b"");
        assert!(out(&again).contains("alice: there already"), "{}", out(&again));
    }
}

#[test]
fn a_list_takes_hashes_by_itself_and_passwords_on_request() {
    let place = Place::empty();
    let lines = format!("# exim\nbob: {BCRYPT}\ncarol:hunter2\nmd5:$apr1$x$hunter2\nlocked:*\n");
    let output = place.run(&["import", "-", "--format=list", "--apply"], lines.as_bytes());
    assert_eq!(code(&output), 1);
    assert_eq!(place.text(), format!("bob:{{CRYPT}}{BCRYPT}\n"));
    for line in [
        "carol (line 3): left out: neither {SCHEME}",
        "md5 (line 4): left out: CRYPT: ",
        "locked (line 5): left out: no password",
    ] {
        assert!(out(&output).contains(line), "{line}\n{}", out(&output));
    }
    assert!(!out(&output).contains("hunter2"));
    let arguments = ["import", "-", "--default-scheme=PLAIN", "--scheme=CRAM-MD5", "--apply", "--quiet"];
    let output = place.run(&arguments, b"carol:hunter2\nkate:a b\n");
    assert_eq!((code(&output), out(&output), err(&output)), (0, "", ""));
    assert!(place.accepts("carol", "hunter2") && place.accepts("kate", "a b"));
}

#[test]
fn a_table_comes_over_by_the_names_of_its_columns() {
    let place = Place::empty();
    let table = "password,department,user,scheme\nhunter2,\"Sales, north\",carol,PLAIN\nx,,bob,SSHA\n\"a, b\",,kate,PLAIN\n";
    let output = place.run(&["import", "-", "--scheme=ARGON2ID", "--apply"], table.as_bytes());
    assert_eq!(code(&output), 1, "{}", err(&output));
    assert!(out(&output).contains("bob (line 3): left out: unknown scheme {SSHA}"), "{}", out(&output));
    assert!(place.accepts("carol", "hunter2") && place.accepts("kate", "a, b"));
    assert!(!place.text().contains("hunter2") && !place.text().contains("bob"), "{}", place.text());
}

#[test]
fn what_the_file_is_has_to_be_said_when_it_could_be_two_things() {
    let place = Place::empty();
    let source = place.foreign("alice:$6$x$y:19000:0:99999:7:::\n");
    let output = place.run(&["import", &source], b"");
    assert_eq!(code(&output), 64);
    assert!(err(&output).contains("--format dovecot, sasldb, list or csv"), "{}", err(&output));
    let missing = place.run(&["import", "/no/such/file"], b"");
    assert_eq!(code(&missing), 64);
    assert!(err(&missing).contains("/no/such/file: open: "), "{}", err(&missing));
    let nonsense = place.run(&["import", "-", "--format=csv"], b"a;b\n");
    assert_eq!(code(&nonsense), 65, "{}", err(&nonsense));
    assert!(!place.file().exists());
}

#[test]
fn ten_thousand_users_are_one_rewrite() {
    let place = Place::with(ALICE);
    let lines: String = (0..10_000).map(|n| format!("user{n}:{SSHA256}:1:2::::\n")).collect();
    let source = place.foreign(&lines);
    let output = place.run(&["import", &source, "--apply", "--quiet"], b"");
    assert_eq!((code(&output), err(&output)), (0, ""));
    assert_eq!(place.text(), format!("{ALICE}{lines}"));
}

#[test]
fn a_sasldb_gives_the_passwords_that_were_set_in_it() {
    let place = Place::empty();
    let database = place.directory.path().join("sasldb2");
    for (name, realm, password) in
        [("alice", "mail.example.com", "wönder:\\land"), ("bob", "mail.example.com", "builder")]
    {
        let mut command = Command::new("/usr/sbin/saslpasswd2");
        command.args(["-p", "-c", "-u", realm, "-f"]).arg(&database).arg(name);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if !std::path::Path::new("/usr/sbin/saslpasswd2").exists() {
            return not_tested("saslpasswd2 is missing (sasl2-bin)");
        }
        assert!(feed(command, password.as_bytes()).status.success());
    }
    let source = database.to_str().unwrap();
    let output = place.run(&["import", source, "--apply", "--scheme=SSHA256", "--scheme=CRAM-MD5"], b"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("alice: added as SSHA256 and CRAM-MD5\n"), "{}", out(&output));
    assert!(err(&output).contains("the only realm, mail.example.com, is dropped"), "{}", err(&output));
    assert!(place.accepts("alice", "wönder:\\land") && place.accepts("bob", "builder"));
    let kept = place.run(&["import", source, "--apply", "--realm=keep", "--scheme=CRAM-MD5"], b"");
    assert_eq!(code(&kept), 0, "{}", err(&kept));
    assert!(place.accepts("bob@mail.example.com", "builder"));
}
