//! What is shown of users: list, show, verify and export.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::place::{ALICE, Place, Session, code, err, json, out, shell};

#[test]
fn the_list_shows_what_each_user_can_use_and_no_secret() {
    let place = Place::with(
        "alice:{PLAIN}hunter2\nbob:{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU\n\
         kate:{PLAIN}hunter2:::::: nologin\nbroken:{PLAIN.hex}hunter2\n",
    );
    let text = place.run(&["list"], b"");
    assert_eq!(code(&text), 0);
    let rows: Vec<Vec<&str>> = out(&text).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "SCHEMES", "MECHANISMS"]);
    assert_eq!(rows[1], ["alice", "PLAIN", "PLAIN", "LOGIN", "CRAM-MD5"]);
    assert_eq!(rows[2], ["bob", "SSHA256", "PLAIN", "LOGIN"]);
    assert_eq!(rows[3], ["kate", "PLAIN", "none:", "nologin"]);
    assert!(err(&text).contains("line 4 (broken): "), "{}", err(&text));

    let listed = place.run(&["list", "--json"], b"");
    let answer = json(&listed);
    assert_eq!(answer["users"][1]["name"], "bob");
    assert_eq!(answer["users"][1]["mechanisms"], serde_json::json!(["PLAIN", "LOGIN"]));
    assert_eq!((&answer["users"][1]["closed"], &answer["users"][1]["locked"]), (&Value::Null, &false.into()));
    assert_eq!(
        (&answer["users"][2]["closed"], &answer["users"][2]["locked"]),
        (&"nologin".into(), &true.into())
    );
    assert_eq!(
        (&answer["problems"][0]["line"], &answer["problems"][0]["name"]),
        (&4.into(), &"broken".into())
    );
    for output in [text, listed] {
        assert!(!out(&output).contains("hunter2") && !out(&output).contains("Z0pk"));
    }
}

#[test]
fn names_made_to_mislead_are_spelled_out() {
    let place = Place::with("a\u{202e}b:{PLAIN}x\nc\x1b[2Jd:{PLAIN}x\n\"q\\:{PLAIN}x\n");
    let text = place.run(&["list"], b"");
    assert!(out(&text).contains("a\\u{202e}b") && err(&text).contains("line 2: the user name contains"));
    let json = place.run(&["list", "--json"], b"");
    assert!(out(&json).contains(r#""name":"a\u202eb""#) && out(&json).contains(r#""name":"\"q\\""#));
    for output in [text, json] {
        assert!(!out(&output).contains('\u{202e}') && !out(&output).contains('\x1b'));
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error_and_a_full_disk_is() {
    let many: String = (0..20_000).map(|n| format!("user{n}:{{PLAIN}}x\n")).collect();
    let place = Place::with(&many);
    for arguments in [&["list"][..], &["list", "--json"], &["export"]] {
        let program = place.command(arguments);
        let head = shell("{ \"$@\"; echo \"exit $?\" >&2; } | head -1", &program).output().unwrap();
        assert_eq!(err(&head), "exit 0\n");
        let full = place.command(arguments).stdout(File::create("/dev/full").unwrap()).output().unwrap();
        assert_eq!(code(&full), 74, "{}", err(&full));
        assert!(err(&full).contains("No space left"), "{}", err(&full));
    }
}

#[test]
fn a_file_that_the_daemon_would_refuse_is_listed_with_a_warning() {
    let place = Place::with(ALICE);
    fs::set_permissions(place.file(), Permissions::from_mode(0o644)).unwrap();
    let output = place.run(&["list"], b"");
    assert_eq!(code(&output), 0);
    assert!(out(&output).contains("alice") && err(&output).contains("chmod 0640"), "{}", err(&output));
}

#[test]
fn show_tells_everything_but_what_is_stored() {
    let place = Place::with(
        "alice:{PLAIN}hunter2::::::allow_nets=192.0.2.0/24,local,2001:db8::1\nbob:{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU::::::nologin\n\
         kate:{CRAM-MD5}hunter2\nleo:{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU\n",
    );
    let output = place.run(&["show", "ALICE", "bob", "kate", "leo"], b"");
    assert_eq!(code(&output), 0, "{}", err(&output));
    let expected = "name        alice\nschemes     PLAIN\nmechanisms  PLAIN LOGIN CRAM-MD5\n\
        from        192.0.2.0/24 local 2001:db8::1\nlocked      no\n\n\
        name        bob\nschemes     SSHA256\nmechanisms  none\nfrom        anywhere\n\
        locked      yes (`sasld user unlock bob` lets the user in again)\n\n\
        name        kate\nschemes     none\nmechanisms  none\nfrom        anywhere\n\
        closed      the line is broken\nproblem     line 3: CRAM-MD5: not valid base64\n\n\
        name        leo\nschemes     SSHA256\nmechanisms  PLAIN LOGIN\n            \
        not CRAM-MD5: nothing is stored that it could use (CRAM-MD5 or PLAIN)\nfrom        anywhere\n\
        locked      no\n";
    assert_eq!(out(&output), expected);
    let answer = json(&place.run(&["show", "alice", "kate", "--json"], b""));
    assert_eq!(answer["users"][0]["allow_nets"], serde_json::json!(["192.0.2.0/24", "local", "2001:db8::1"]));
    assert_eq!(answer["users"][1]["problems"][0]["line"], 3);
    assert!(!answer.to_string().contains("hunter2"));
    let unknown = place.run(&["show", "alice", "eve"], b"");
    assert_eq!((code(&unknown), out(&unknown)), (1, ""));
    assert!(err(&unknown).contains("there is no user eve"));
}

// Verifying

const SECRET: &str = "{SSHA256}/Z0pkpAWsb9JVo7KukPokurXiYYQIwyFpQehiwMEOTpTQUxU";

#[test]
fn verify_says_which_verifiers_the_password_fits() {
    let cram = "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56";
    let other = "{CRAM-MD5}721a2df79bd8bf7cff39c4914f8c49b8979ad5122813c64e75f91b8a6a09b88a";
    let place = Place::with(&format!("alice:{SECRET};{cram}\nbob:{SECRET};{other}\n"));
    for (name, password, exit, right, wrong) in [
        ("alice", "secret\n", 0, &["SSHA256", "CRAM-MD5"][..], &[][..]),
        ("ALICE", "Secret\n", 1, &[], &["SSHA256", "CRAM-MD5"]),
        ("bob", "secret", 1, &["SSHA256"], &["CRAM-MD5"]),
    ] {
        let output = place.run(&["verify", name, "--password-stdin"], password.as_bytes());
        assert_eq!(code(&output), exit, "{}", err(&output));
        let answer = json(&place.run(&["verify", name, "--password-stdin", "--json"], password.as_bytes()));
        assert_eq!(answer["right"], exit == 0);
        let name = name.to_ascii_lowercase();
        for scheme in right {
            assert!(out(&output).contains(&format!("{name}: {scheme}: right\n")), "{}", out(&output));
            assert_eq!(answer["schemes"][scheme], true);
        }
        for scheme in wrong {
            assert!(out(&output).contains(&format!("{name}: {scheme}: wrong\n")), "{}", out(&output));
            assert_eq!(answer["schemes"][scheme], false);
        }
        assert_eq!(out(&output).contains("not of one password"), !right.is_empty() && !wrong.is_empty());
        assert!(!out(&output).contains("not CRAM-MD5"), "{}", out(&output));
        assert_eq!(answer["useless_mechanisms"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn verify_names_the_mechanism_that_a_right_password_is_of_no_use_for() {
    let place = Place::with(&format!("alice:{SECRET}\n"));
    let output = place.run(&["verify", "alice", "--password-stdin"], b"secret");
    assert_eq!(code(&output), 0);
    assert!(out(&output).contains("alice: not CRAM-MD5: nothing is stored"), "{}", out(&output));
    let answer = json(&place.run(&["verify", "alice", "--password-stdin", "--json"], b"secret"));
    assert_eq!(answer["useless_mechanisms"], serde_json::json!(["CRAM-MD5"]));
}

#[test]
fn verify_is_no_for_whoever_cannot_log_in() {
    let place = Place::with(&format!("alice:{SECRET}::::::nologin\nbob:\nkate:{{SSHA256}}broken\n"));
    for (name, reason) in [
        ("alice", "nologin"),
        ("bob", "no password is stored"),
        ("kate", "the line is broken"),
        ("eve", "no user eve"),
    ] {
        for password in [&b"secret"[..], b""] {
            let output = place.run(&["verify", name, "--password-stdin"], password);
            assert_eq!(code(&output), 1, "{name}");
            assert!(
                out(&output).contains(reason) || err(&output).contains(reason),
                "{name}: {}",
                out(&output)
            );
        }
    }
    let argument = place.run(&["verify", "alice", "secret"], b"");
    assert_eq!(code(&argument), 64);
    assert!(!err(&argument).contains("secret;"), "{}", err(&argument));
}

// Exporting

#[test]
fn an_export_is_the_entries_as_they_stand_there() {
    let cram = "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56";
    let place = Place::with(&format!("# people\nAlice:{SECRET};{cram}:1:2:::\r\n\nbob:{{PLAIN}}b\nbroken\n"));
    let all = place.run(&["export"], b"");
    assert_eq!(code(&all), 0, "{}", err(&all));
    assert_eq!(out(&all), format!("Alice:{SECRET};{cram}:1:2:::\nbob:{{PLAIN}}b\nbroken\n"));
    assert!(err(&all).contains("1 of these users have several verifiers"), "{}", err(&all));
    let one = place.run(&["export", "alice", "--strongest"], b"");
    assert_eq!((out(&one), err(&one)), (&*format!("Alice:{SECRET}:1:2:::\n"), ""));
    let described = place.run(&["export", "--json"], b"");
    assert_eq!(json(&described)["users"][0]["schemes"], serde_json::json!(["SSHA256", "CRAM-MD5"]));
    assert!(!out(&described).contains("Z0pk") && !out(&described).contains("cd3b"));
    assert_eq!(code(&place.run(&["export", "eve"], b"")), 1);
}

#[test]
fn verifiers_are_not_shown_on_a_terminal_unless_somebody_insists() {
    let place = Place::with(ALICE);
    let (status, shown) = Session::start(&place, &["export"]).end();
    assert_eq!(status.code(), Some(64), "{shown}");
    assert!(!shown.contains("wonder") && shown.contains("--force"), "{shown}");
    let (status, shown) = Session::start(&place, &["export", "--force"]).end();
    assert_eq!(status.code(), Some(0), "{shown}");
    assert!(shown.contains("alice:{PLAIN}wonder"), "{shown}");
}
