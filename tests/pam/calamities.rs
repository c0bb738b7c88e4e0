//! Modules that do what modules do. After each of them, the next login is right and on time.

use crate::harness::{LocalUser, PamServer, can_make_users, module, module_stack, wait_until};
use sasld::pam::code::Code;
use sasld::pam::request::{Checked, Exclusion, Lane, Outcome, Stage, Trouble};
use std::time::{Duration, Instant};

const YES: (Stage, Code) = (Stage::Account, Code::SUCCESS);

fn server() -> PamServer {
    PamServer::start(&module_stack(), &["--min-uid=0", "--workers=1"])
}

fn next_login_is_right_and_on_time(pam: &mut PamServer) {
    let start = Instant::now();
    assert_eq!(pam.result("alice", "right"), YES);
    assert_eq!(pam.result("alice", "wrong"), (Stage::Authenticate, Code::AUTH_ERR));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

fn trouble(outcome: &Outcome) -> Option<Trouble> {
    match outcome {
        Outcome::Undecided(trouble, _) => Some(*trouble),
        Outcome::Checked(_) | Outcome::Excluded(_) => None,
    }
}

#[test]
fn one_that_never_ends_is_killed_at_the_deadline() {
    for user in ["hang", "spin"] {
        let mut pam = server();
        let start = Instant::now();
        let outcome = pam.ask_within(user, "right", Duration::from_millis(500));
        assert_eq!(trouble(&outcome), Some(Trouble::Timeout));
        assert!((500..3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        next_login_is_right_and_on_time(&mut pam);
        pam.expect_log("why=deadline");
    }
}

#[test]
fn one_that_ends_the_process_costs_one_verdict() {
    for user in ["abort", "exit", "close"] {
        let mut pam = server();
        for _ in 0..3 {
            assert_eq!(trouble(&pam.ask(user, "right")), Some(Trouble::Crashed), "{user}");
            next_login_is_right_and_on_time(&mut pam);
        }
    }
}

#[test]
fn one_that_leaves_its_group_is_killed_all_the_same() {
    let mut pam = server();
    assert_eq!(pam.result("leave", "right"), YES);
    let outcome = pam.ask_within("hang", "right", Duration::from_millis(300));
    assert_eq!(trouble(&outcome), Some(Trouble::Timeout));
    next_login_is_right_and_on_time(&mut pam);
}

#[test]
fn what_it_leaves_running_dies_with_its_child() {
    let mut pam = server();
    assert_eq!(pam.result("alice", "right"), YES);
    let before = pam.children();
    assert_eq!(pam.result("fork", "right"), YES);
    let group = before[0].to_string();
    let in_group = || {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
        let running = stats.filter(|stat| {
            // pid (name) state ppid pgrp …
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            fields.get(2) == Some(&group.as_str()) && fields[0] != "Z"
        });
        running.count()
    };
    assert_eq!(in_group(), 2);
    assert_eq!(trouble(&pam.ask("abort", "right")), Some(Trouble::Crashed));
    next_login_is_right_and_on_time(&mut pam);
    wait_until("everything of the first child's is gone", || in_group() == 0);
}

#[test]
fn a_changed_user_or_group_makes_the_verdict_worthless() {
    if !can_make_users() {
        return;
    }
    for user in ["uid", "gid"] {
        let mut pam = server();
        assert_eq!(trouble(&pam.ask(user, "right")), Some(Trouble::Rights), "{user}");
        next_login_is_right_and_on_time(&mut pam);
    }
}

#[test]
fn many_words_drown_nobody() {
    let mut pam = server();
    assert_eq!(pam.result("wordy", "right"), YES);
    next_login_is_right_and_on_time(&mut pam);
    pam.expect_log("text=\"line         0.\"");
    let log = pam.log();
    assert!(log.len() < 10_000, "{} bytes of log", log.len());
}

#[test]
fn a_flood_of_words_is_ended_with_its_child() {
    let mut pam = server();
    for _ in 0..3 {
        let start = Instant::now();
        let outcome = pam.ask("flood", "right");
        assert_eq!(trouble(&outcome), Some(Trouble::Crashed), "{outcome:?}");
        // Long before the deadline.
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        next_login_is_right_and_on_time(&mut pam);
    }
    pam.expect_log("why=\"floods standard error\"");
    let log = pam.log();
    assert!(log.len() < 10_000, "{} bytes of log", log.len());
}

#[test]
fn the_last_words_of_a_child_are_logged_even_without_an_end() {
    let mut pam = server();
    assert_eq!(trouble(&pam.ask("last-words", "right")), Some(Trouble::Crashed));
    pam.expect_log("text=\"and no end of line\"");
    next_login_is_right_and_on_time(&mut pam);
}

#[test]
fn memory_without_end_is_no_verdict_and_a_new_child() {
    let mut pam = server();
    for user in ["huge", "greedy"] {
        assert_eq!(pam.result("alice", "right"), YES);
        let before = pam.children();
        assert_eq!(pam.result(user, "right"), (Stage::Authenticate, Code::BUF_ERR));
        next_login_is_right_and_on_time(&mut pam);
        assert_ne!(pam.children(), before);
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pam.children()[0])).expect("its limits");
    let data = limits.lines().find_map(|line| line.strip_prefix("Max data size")).expect("the limit");
    assert_eq!(data.split_whitespace().collect::<Vec<_>>(), ["536870912", "536870912", "bytes"]);
}

#[test]
fn children_that_cannot_be_killed_do_not_multiply() {
    if !can_make_users() {
        return;
    }
    // Root may change its user, and without this capability it may not kill what has.
    let setpriv = ["setpriv", "--bounding-set=-kill", "--inh-caps=-all"];
    let mut pam = PamServer::start_under(&setpriv, &module_stack(), &["--min-uid=0", "--workers=1"]);
    let outcome = pam.ask_within("hang-as-other", "right", Duration::from_millis(300));
    assert_eq!(trouble(&outcome), Some(Trouble::Timeout));
    pam.expect_log("event=pam_worker_not_killed");
    for _ in 0..3 {
        let outcome = pam.ask_within("alice", "right", Duration::from_secs(5));
        assert_eq!(trouble(&outcome), Some(Trouble::NoWorker));
    }
    let [stuck] = pam.children()[..] else { panic!("{:?}", pam.children()) };
    // Somebody with more rights does it.
    let stuck = nix::unistd::Pid::from_raw(stuck.try_into().expect("a pid"));
    nix::sys::signal::kill(stuck, nix::sys::signal::Signal::SIGKILL).expect("a signal");
    pam.expect_log("event=pam_worker_lost");
    next_login_is_right_and_on_time(&mut pam);
}

#[test]
fn leaked_descriptors_are_ended_by_a_new_child() {
    let mut pam = server();
    assert_eq!(pam.result("leak-fds", "right"), YES);
    let first = pam.children();
    // Ten a login, and 32 are too many: the fourth is the last.
    for _ in 1..4 {
        assert_eq!(pam.children(), first);
        assert_eq!(pam.result("leak-fds", "right"), YES);
    }
    next_login_is_right_and_on_time(&mut pam);
    assert!(pam.children().iter().all(|child| !first.contains(child)), "the old one is gone");
    assert!(!pam.log().contains("pam_worker_lost"), "a planned end is no news: {}", pam.log());
}

#[test]
fn leaked_memory_is_ended_by_a_new_child() {
    let mut pam = server();
    assert_eq!(pam.result("leak-memory", "right"), YES);
    let first = pam.children();
    assert_eq!(pam.result("leak-memory", "right"), YES);
    assert_eq!(pam.children(), first);
    // Ten MiB a login, and 40 with its own are too much: the fourth is the last at the latest.
    for _ in 2..4 {
        assert_eq!(pam.result("leak-memory", "right"), YES);
    }
    next_login_is_right_and_on_time(&mut pam);
    assert!(pam.children().iter().all(|child| !first.contains(child)), "the old one is gone");
    assert!(!pam.log().contains("pam_worker_lost"), "a planned end is no news: {}", pam.log());
}

#[test]
fn a_child_that_has_served_its_quota_is_replaced_and_nobody_notices() {
    let mut pam = server();
    assert_eq!(pam.result("alice", "right"), YES);
    let first = pam.children();
    // The quota is 500 requests, the one above included.
    for request in 1..500 {
        assert_eq!(pam.children(), first, "before request {request}");
        assert_eq!(pam.result("alice", "right"), YES);
    }
    next_login_is_right_and_on_time(&mut pam);
    assert!(pam.children().iter().all(|child| !first.contains(child)), "the old one is gone");
    assert!(!pam.log().contains("pam_worker_lost"), "a planned end is no news: {}", pam.log());
}

#[test]
fn a_yes_without_a_question_shows_that_nobody_was_asked() {
    let mut pam = server();
    // The second one is asked when it is too late, in the account phase.
    for user in ["yes", "asks-later"] {
        let outcome = pam.ask(user, "right");
        assert!(
            matches!(outcome, Outcome::Checked(Checked { code: Code::SUCCESS, asked: false, .. })),
            "{user}: {outcome:?}"
        );
    }
    next_login_is_right_and_on_time(&mut pam);
}

#[test]
fn a_changed_name_is_told() {
    let mut pam = server();
    for (user, became) in [
        ("rename", &b"somebody"[..]),
        ("rename-to-noise", b"\xff\xfe"),
        // The next module asks for the name, and is told.
        ("rename-to-nobody", b"rename-to-nobody"),
        ("alice", b"alice"),
    ] {
        let outcome = pam.ask(user, "right");
        let Outcome::Checked(checked) = outcome else { panic!("{outcome:?}") };
        assert_eq!((checked.code, checked.user.as_slice()), (Code::SUCCESS, became), "{user}");
    }
}

#[test]
fn guard_rails_are_there_for_the_new_name_too() {
    if !can_make_users() {
        return;
    }
    let user = LocalUser::new("unused");
    let module = module().display();
    let stack = format!("auth required {module} do=rename-to-root\naccount required {module}\n");
    // The default rails let the user pass, and root does not.
    let mut pam = PamServer::start(&stack, &[]);
    assert_eq!(pam.ask(&user.name, "right"), Outcome::Excluded(Exclusion::NewName));
    assert_eq!(pam.result(&user.name, "wrong"), (Stage::Authenticate, Code::AUTH_ERR));
    let mut pam = PamServer::start(&stack, &["--min-uid=0"]);
    assert_eq!(pam.result(&user.name, "right"), YES);
}

#[test]
fn a_conversation_stays_within_bounds() {
    let mut pam = server();
    let mut ask = |user: &str| match pam.ask(user, "right") {
        Outcome::Checked(checked) => checked,
        other => panic!("{user}: {other:?}"),
    };
    let twice = ask("twice");
    assert_eq!((twice.code, twice.asked, twice.asked_more), (Code::CONV_ERR, true, true));
    for user in ["many", "binary", "radio"] {
        let checked = ask(user);
        assert_eq!((checked.code, checked.asked_more), (Code::CONV_ERR, true), "{user}");
    }
    for user in ["nothing", "negative"] {
        assert_eq!((ask(user).code, ask(user).asked), (Code::BUF_ERR, false), "{user}");
    }
    assert_eq!(ask("odd").code, Code::CONV_ERR);
    for user in ["null", "name", "talker"] {
        assert_eq!(ask(user).code, Code::SUCCESS, "{user}");
    }
    assert_eq!(ask("talker").text, "the server is on fire; ");
    next_login_is_right_and_on_time(&mut pam);
}

#[test]
fn a_second_prompt_is_answered_when_configured() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--prompts=2"]);
    assert_eq!(pam.result("twice", "right"), YES);
}

#[test]
fn codes_come_through_one_by_one() {
    let mut pam = server();
    for code in 1..32 {
        // The binding takes PAM_NO_MODULE_DATA and PAM_TRY_AGAIN for PAM_ABORT, which is as undecided; PAM_IGNORE is
        // nobody's result, and PAM_INCOMPLETE means another call.
        if matches!(code, 18 | 24 | 25 | 30 | 31) {
            continue;
        }
        assert_eq!(pam.result(&format!("code{code}"), "right"), (Stage::Authenticate, Code(code)));
        assert_eq!(pam.result(&format!("account{code}"), "right"), (Stage::Account, Code(code)));
    }
}

#[test]
fn a_hanging_stranger_does_not_keep_others_waiting() {
    let mut pam = PamServer::start(&module_stack(), &["--min-uid=0", "--workers=2"]);
    let hanging: Vec<u64> =
        (0..4).map(|_| pam.send("hang", b"right", Lane::Ordinary, Duration::from_secs(2))).collect();
    let start = Instant::now();
    let id = pam.send("alice", b"right", Lane::Express, Duration::from_secs(2));
    let first = pam.receive();
    assert_eq!(first.id, id);
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    let mut ended: Vec<u64> = hanging.iter().map(|_| pam.receive().id).collect();
    ended.sort_unstable();
    assert_eq!(ended, hanging);
}
