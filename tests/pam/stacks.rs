//! What real stacks make of real users.

use crate::harness::{Folder, LocalUser, PamServer, can_make_users, module, module_stack, wait_until};
use sasld::pam::MAX_PASSWORD_BYTES;
use sasld::pam::code::Code;
use sasld::pam::request::{Checked, Exclusion, Outcome, Stage, Trouble};
use std::path::Path;
use std::time::{Duration, Instant};

const PAM_UNIX: &str = "auth required pam_unix.so nullok\naccount required pam_unix.so\n";
const DEBIAN: &str = "@include common-auth\n@include common-account\n";

const PASSWORD: &str = "S3kr\u{fc}t pa:ss";
const YES: (Stage, Code) = (Stage::Account, Code::SUCCESS);
const WRONG: (Stage, Code) = (Stage::Authenticate, Code::AUTH_ERR);

#[test]
fn a_right_password_is_right_and_a_wrong_one_wrong() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new(PASSWORD);
    for stack in [PAM_UNIX, DEBIAN] {
        let mut pam = PamServer::start(stack, &[]);
        let expected = Outcome::Checked(Checked {
            stage: Stage::Account,
            code: Code::SUCCESS,
            asked: true,
            asked_more: false,
            user: user.name.clone().into_bytes(),
            text: String::new(),
        });
        assert_eq!(pam.ask(&user.name, PASSWORD), expected);
        for wrong in ["S3kr\u{fc}t pa:s", "S3kr\u{fc}t pa:sss", "s3kr\u{fc}t pa:ss", " "] {
            assert_eq!(pam.result(&user.name, wrong), WRONG);
        }
        assert_eq!(pam.ask(&user.name, PASSWORD), expected);
    }
}

#[test]
fn a_wrong_password_keeps_no_worker() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new(PASSWORD);
    let mut pam = PamServer::start(PAM_UNIX, &["--workers", "1"]);
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(pam.result(&user.name, "wrong"), WRONG);
    }
    // pam_unix asks for 2 s each, of which libpam takes at least half.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn accounts_that_may_not_log_in_do_not() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new(PASSWORD);
    let mut pam = PamServer::start(PAM_UNIX, &[]);
    let mut debian = PamServer::start(DEBIAN, &[]);

    user.change("usermod", &["--lock"]);
    assert_eq!(pam.result(&user.name, PASSWORD), WRONG);
    user.change("usermod", &["--unlock"]);
    assert_eq!(pam.result(&user.name, PASSWORD), YES);

    user.change("chage", &["--expiredate", "1970-02-01"]);
    assert_eq!(pam.result(&user.name, PASSWORD), (Stage::Account, Code::ACCT_EXPIRED));
    // common-account flattens it.
    assert_ne!(debian.result(&user.name, PASSWORD), YES);
    assert_eq!(pam.result(&user.name, "wrong"), WRONG);
    user.change("chage", &["--expiredate", "-1"]);

    user.change("chage", &["--lastday", "2020-01-01", "--maxdays", "10"]);
    assert_eq!(pam.result(&user.name, PASSWORD), (Stage::Account, Code::NEW_AUTHTOK_REQD));
    assert_eq!(debian.result(&user.name, PASSWORD), (Stage::Account, Code::NEW_AUTHTOK_REQD));
    user.change("chage", &["--lastday", "0"]);
    assert_eq!(pam.result(&user.name, PASSWORD), (Stage::Account, Code::NEW_AUTHTOK_REQD));
    user.change("chage", &["--lastday", "2020-01-01", "--inactive", "1"]);
    assert_eq!(pam.result(&user.name, PASSWORD), (Stage::Account, Code::AUTHTOK_EXPIRED));
}

#[test]
fn an_account_without_a_password_has_no_right_password() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new(PASSWORD);
    user.change("passwd", &["--delete", "--quiet"]);
    for stack in [PAM_UNIX, DEBIAN] {
        let mut pam = PamServer::start(stack, &[]);
        for password in ["x", PASSWORD] {
            assert_eq!(pam.result(&user.name, password).1, Code::AUTH_ERR, "{stack}");
        }
    }
}

#[test]
fn a_password_may_have_511_bytes() {
    if !can_make_users() {
        return;
    }
    let longest = "x".repeat(MAX_PASSWORD_BYTES);
    let user = LocalUser::new(&longest);
    let mut pam = PamServer::start(PAM_UNIX, &[]);
    assert_eq!(pam.result(&user.name, &longest), YES);
    assert_eq!(pam.result(&user.name, &longest[1..]), WRONG, "the last byte counts");
    // One more, which the format of requests has no room for.
    let frame = longer_than_possible(&user.name, &[b'x'; MAX_PASSWORD_BYTES + 1]);
    pam.write(&frame);
    assert_eq!(pam.frame(), None);
}

/// A request as `Request::encode` would have made it if it did not check.
fn longer_than_possible(user: &str, password: &[u8]) -> Vec<u8> {
    // Version, kind, id, lane, patience.
    let mut frame = vec![1, b'Q', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x20, 0];
    for field in [user.as_bytes(), password, b"192.0.2.7", b"smtp"] {
        frame.extend(u16::try_from(field.len()).expect("a short field").to_be_bytes());
        frame.extend(field);
    }
    let length = u32::try_from(frame.len()).expect("a short frame").to_be_bytes();
    [&length[..], &frame].concat()
}

#[test]
fn an_unknown_user_is_unknown_by_default_and_by_pam_unix_itself() {
    let stranger = "sasldt-stranger";
    let unknown = (Stage::Authenticate, Code::USER_UNKNOWN);
    assert_eq!(
        PamServer::start(PAM_UNIX, &[]).ask(stranger, PASSWORD),
        Outcome::Excluded(Exclusion::UnknownUser)
    );
    let mut pam = PamServer::start(PAM_UNIX, &["--min-uid=0"]);
    for name in [stranger, "-alice", "+alice", "root:x", "..", "j\u{f6}rg"] {
        assert_eq!(pam.result(name, PASSWORD), unknown, "{name}");
    }
    // Debian's stack makes a wrong password of it, which is why users are looked up first.
    assert_eq!(PamServer::start(DEBIAN, &["--min-uid=0"]).result(stranger, PASSWORD), WRONG);
}

#[test]
fn with_the_default_rails_too_a_changed_name_is_told_and_a_yes_to_anybody_shows() {
    if !can_make_users() {
        return;
    }
    let (user, other) = (LocalUser::new(PASSWORD), LocalUser::new(PASSWORD));
    let asked = |stack: &str| match PamServer::start(stack, &[]).ask(&user.name, "right") {
        Outcome::Checked(checked) => checked,
        outcome => panic!("{outcome:?}"),
    };
    let module = module().display();
    let renamed = asked(&format!("auth required {module} to={}\naccount required pam_unix.so\n", other.name));
    assert_eq!((renamed.code, renamed.user), (Code::SUCCESS, other.name.clone().into_bytes()));
    let permitted = asked("auth required pam_permit.so\naccount required pam_permit.so\n");
    assert_eq!((permitted.code, permitted.asked), (Code::SUCCESS, false));
}

#[test]
fn faillock_counts_with_what_the_drop_in_gives_it_and_says_so_when_it_cannot() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new(PASSWORD);
    // As root with these capabilities and no others, which is what docs/pam.md has for the unit.
    let setpriv = ["setpriv", "--bounding-set=-all,+dac_override,+chown,+fowner,+kill", "--inh-caps=-all"];
    let stack = |tallies: &Path| {
        let faillock = format!("dir={} deny=2", tallies.display());
        format!(
            "auth required pam_faillock.so preauth {faillock}\n\
             auth sufficient pam_unix.so\n\
             auth [default=die] pam_faillock.so authfail {faillock}\n\
             account required pam_faillock.so {faillock}\n\
             account required pam_unix.so\n"
        )
    };
    let folder = Folder::new();
    let tallies = folder.path().join("tallies");
    std::fs::create_dir(&tallies).expect("a folder");
    folder.write("sasld", &stack(&tallies));
    let mut child = PamServer::child_under(&setpriv, folder, &[]);
    assert_eq!(child.result(&user.name, PASSWORD), YES);
    for _ in 0..2 {
        assert_ne!(child.result(&user.name, "wrong"), YES);
    }
    assert_ne!(child.result(&user.name, PASSWORD), YES, "locked");
    assert!(tallies.join(&user.name).exists());
    child.end();

    let folder = Folder::new();
    folder.write("sasld", &stack(Path::new("/proc/sasldt")));
    let complaint = "/proc/sasldt is missing or may not be written";
    PamServer::child_under_with_complaint(&setpriv, folder, &[], complaint).end();
}

#[test]
fn guard_rails_keep_users_from_pam() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new(PASSWORD);
    let excluded = |arguments: &[&str], user: &str| PamServer::start(PAM_UNIX, arguments).ask(user, PASSWORD);
    assert_eq!(excluded(&[], "root"), Outcome::Excluded(Exclusion::Uid));
    assert_eq!(excluded(&[], "sasldt-stranger"), Outcome::Excluded(Exclusion::UnknownUser));
    assert_eq!(excluded(&["--min-uid=4000000"], &user.name), Outcome::Excluded(Exclusion::Uid));
    assert_eq!(excluded(&["--group=shadow"], &user.name), Outcome::Excluded(Exclusion::Group));
    assert_eq!(excluded(&["--login-shell"], &user.name), Outcome::Excluded(Exclusion::Shell));
    user.change("usermod", &["--append", "--groups", "mail", "--shell", "/bin/sh"]);
    let admitted = excluded(&["--group=mail", "--login-shell"], &user.name);
    assert!(matches!(admitted, Outcome::Checked(Checked { code: Code::SUCCESS, .. })), "{admitted:?}");
}

#[test]
fn modules_learn_where_the_user_comes_from() {
    let script = "#!/bin/sh\necho \"$PAM_USER $PAM_RHOST $PAM_TTY $PAM_RUSER $PAM_SERVICE\" >\"$0.out\"\n";
    let folder = Folder::new();
    let path = folder.write("script", script);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a script");
    let stack = format!("auth optional pam_exec.so {}\n{}", path.display(), module_stack());
    let mut pam = PamServer::start(&stack, &["--min-uid=0"]);
    assert_eq!(pam.result("alice", "right"), YES);
    let said = std::fs::read_to_string(folder.path().join("script.out")).expect("output");
    let service = pam.folder().path().join("sasld");
    assert_eq!(said, format!("alice 192.0.2.7 submission alice {}\n", service.display()));
}

#[test]
fn nobody_is_asked_by_pam_permit_and_nobody_gets_past_pam_deny() {
    let mut permit =
        PamServer::start("auth required pam_permit.so\naccount required pam_permit.so\n", &["--min-uid=0"]);
    let outcome = permit.ask("alice", "anything");
    let Outcome::Checked(checked) = outcome else { panic!("{outcome:?}") };
    assert_eq!((checked.code, checked.asked), (Code::SUCCESS, false));
    let mut deny =
        PamServer::start("auth required pam_deny.so\naccount required pam_permit.so\n", &["--min-uid=0"]);
    assert_eq!(deny.result("alice", "anything"), WRONG);
}

#[test]
fn a_missing_service_is_no_verdict_and_names_its_file() {
    let folder = Folder::new();
    let file = folder.path().join("sasld").display().to_string();
    let mut pam = PamServer::start_in(folder, &["--min-uid=0"]);
    let outcome = pam.ask("alice", "right");
    let Outcome::Undecided(Trouble::NoService, reason) = &outcome else { panic!("{outcome:?}") };
    assert!(reason.starts_with(&format!("{file} does not exist;")), "{reason}");
    pam.expect_log("event=pam_service_bad");
    pam.folder().write("sasld", &module_stack());
    assert_eq!(pam.result("alice", "right"), YES);
}

#[test]
fn a_service_without_one_of_the_phases_never_becomes_the_service_other() {
    for (stack, phase) in [
        (module_stack().lines().next().expect("a line").to_owned(), "account"),
        (module_stack().lines().nth(1).expect("a line").to_owned(), "auth"),
        (String::new(), "auth"),
        ("auth include common-auth\n".to_owned(), "account"),
    ] {
        let folder = Folder::new();
        // Where libpam would look next. It would let everybody in who knows the word.
        folder.write("other", &module_stack());
        folder.write("sasld", &stack);
        let mut pam = PamServer::start_in(folder, &["--min-uid=0"]);
        let outcome = pam.ask("alice", "right");
        let Outcome::Undecided(Trouble::NoService, reason) = &outcome else { panic!("{stack}: {outcome:?}") };
        assert!(reason.contains(&format!("sasld has no module for {phase},")), "{reason}");
        pam.expect_log("event=pam_service_bad");
        pam.folder().write("sasld", &module_stack());
        assert_eq!(pam.ask("alice", "right"), outcome_of_a_right_password());
        pam.expect_log("event=pam_service_good");
        // It may go bad again, and that is told at once.
        pam.folder().write("sasld", &stack);
        assert!(matches!(pam.ask("alice", "right"), Outcome::Undecided(Trouble::NoService, _)));
        wait_until("a second complaint", || pam.log().matches("event=pam_service_bad").count() == 2);
    }
}

fn outcome_of_a_right_password() -> Outcome {
    Outcome::Checked(Checked {
        stage: Stage::Account,
        code: Code::SUCCESS,
        asked: true,
        asked_more: false,
        user: b"alice".to_vec(),
        text: String::new(),
    })
}

#[test]
fn lines_that_go_on_are_read_as_libpam_reads_them() {
    let module = module().display();
    for stack in [
        format!("auth \\ \t\n# why \\\n\n required {module}\naccount required {module}\n"),
        format!("auth required {module} # \\\naccount required {module}\n"),
        format!("auth required {module} \\ # more\naccount required \\\n{module}"),
    ] {
        let mut pam = PamServer::start(&stack, &["--min-uid=0"]);
        assert_eq!(pam.ask("alice", "right"), outcome_of_a_right_password(), "{stack}");
    }
}

#[test]
fn a_module_that_is_not_there_is_told_by_its_code() {
    let mut pam = PamServer::start(
        "auth required pam_sasldt_nowhere.so\naccount required pam_permit.so\n",
        &["--min-uid=0"],
    );
    assert_eq!(pam.result("alice", "right").1, Code::MODULE_UNKNOWN);
}

#[test]
fn the_codes_are_those_of_the_system() {
    let header = std::fs::read_to_string("/usr/include/security/_pam_types.h").expect("libpam's header");
    let mut known = 0;
    for line in header.lines() {
        let mut words = line.split_whitespace();
        let (Some("#define"), Some(name), Some(number)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if name == "_PAM_RETURN_VALUES" {
            assert_eq!(number, "32");
            break;
        }
        if let Ok(number) = number.parse()
            && name.starts_with("PAM_")
        {
            assert_eq!(Code(number).to_string(), name);
            known += 1;
        }
    }
    assert_eq!(known, 32);
}
