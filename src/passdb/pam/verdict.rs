//! What an outcome means: the table of `docs/pam.md`, one result after the other.
//!
//! Yes needs a success of both functions, a password that was asked for, and the name that was asked about (or one
//! that may take its place). A refusal needs a code that says so. Whatever else PAM says, it has not decided, and what
//! is not decided is no refusal; the log has the reason.

use super::Settings;
use crate::credential::Proof;
use crate::pam::code::Code;
use crate::pam::request::{Checked, Exclusion, Outcome, Stage, Trouble};
use crate::passdb::Finding;
use crate::passdb::trail::Passed;
use crate::sasl::{Answer, Name, NameRules, Outage, Refusal};
use tracing::{debug, error, warn};

/// What an operator can do about it.
const ASKED_MORE: &str = "the PAM stack asks for more than is answered; see `prompts` in docs/pam.md";

/// What the passdb says.
pub fn finding(outcome: Outcome, name: &Name, settings: &Settings, names: &NameRules) -> Finding {
    let user = name.as_str();
    match outcome {
        Outcome::Checked(checked) if checked.code == Code::SUCCESS => {
            success(&checked, name, settings, names)
        }
        Outcome::Checked(checked) => failure(&checked, user),
        Outcome::Excluded(Exclusion::NewName) => {
            // Another passdb may have a user of the old name, but his password has been checked by this one.
            let hint = "a guard rail keeps the new name out";
            error!(event = "pam_user_changed", user, hint);
            refused(Refusal::UserChanged)
        }
        Outcome::Excluded(exclusion) => {
            debug!(event = "pam_excluded", user, rail = exclusion.word());
            Finding::Passed(Passed::Rail(exclusion))
        }
        Outcome::Undecided(trouble, reason) => {
            warn!(event = "pam_undecided", user, trouble = trouble.word(), reason);
            Finding::Out(match trouble {
                Trouble::Timeout => Outage::Deadline,
                Trouble::Busy => Outage::QueueFull,
                Trouble::Crashed
                | Trouble::NoWorker
                | Trouble::NoService
                | Trouble::UserDatabase
                | Trouble::Rights
                | Trouble::Exhausted => Outage::Passdb,
            })
        }
    }
}

fn success(checked: &Checked, name: &Name, settings: &Settings, names: &NameRules) -> Finding {
    let user = name.as_str();
    if checked.stage != Stage::Account {
        error!(event = "pam_undecided", user, trouble = "success before the account was looked at");
        return Finding::Out(Outage::Internal);
    }
    if !checked.asked {
        error!(
            event = "pam_not_asked",
            user,
            hint = "the PAM stack says yes without a password, to anybody; this login is refused"
        );
        return refused(Refusal::NotAsked);
    }
    if checked.asked_more {
        // The stack could do without what was not answered; whoever put it there could not.
        return refused(Refusal::AskedMore);
    }
    if checked.user == user.as_bytes() {
        return Finding::Found(Answer::Verdict(Ok(Proof::vouched())));
    }
    let became = String::from_utf8_lossy(&checked.user);
    if !settings.allow_user_change {
        error!(
            event = "pam_user_changed",
            user,
            %became,
            hint = "the PAM stack changes names; refused unless allow_user_change is true"
        );
        return refused(Refusal::UserChanged);
    }
    match names.canonical(&checked.user) {
        Ok(became) => Finding::Found(Answer::VouchedAs(became, Proof::vouched())),
        Err(reason) => {
            error!(event = "pam_user_changed", user, %became, %reason);
            refused(Refusal::UserChanged)
        }
    }
}

/// Why an outcome is no verdict, for people; `None` if it is one, or if the user is nobody's here.
#[must_use]
pub fn trouble(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Undecided(trouble, text) => Some(format!("{}: {text}", trouble.word())),
        Outcome::Checked(checked) if checked.code != Code::SUCCESS && refusal(checked).is_none() => {
            Some(format!("{}: {}", checked.code, checked.text))
        }
        Outcome::Checked(_) | Outcome::Excluded(_) => None,
    }
}

fn failure(checked: &Checked, user: &str) -> Finding {
    let Checked { stage, code, asked_more, text, .. } = checked;
    let Some(refusal) = refusal(checked) else {
        // The prompt need not be why: a directory that is out of order may have asked before it noticed.
        let hint = asked_more.then_some(ASKED_MORE);
        warn!(event = "pam_undecided", user, trouble = %code, stage = ?stage, reason = text.as_str(), hint);
        return Finding::Out(Outage::Passdb);
    };
    if refusal == Refusal::UnknownUser {
        return Finding::NotFound;
    }
    debug!(event = "pam_refused", user, %code, stage = ?stage, text = text.as_str());
    // The code may come of the answer that was not given, and does not say what was wrong with the one that was.
    refused(if *asked_more { Refusal::AskedMore } else { refusal })
}

/// What a code other than success says; `None` if it does not say that the user is not to come in.
fn refusal(checked: &Checked) -> Option<Refusal> {
    Some(match (checked.code, checked.stage) {
        (Code::AUTH_ERR, Stage::Authenticate) => Refusal::WrongPassword,
        (Code::USER_UNKNOWN, Stage::Authenticate) => Refusal::UnknownUser,
        // The password was right, or the account would not have been looked at.
        (Code::AUTH_ERR | Code::USER_UNKNOWN, Stage::Account) => Refusal::Denied,
        (Code::PERM_DENIED | Code::MAXTRIES, Stage::Authenticate | Stage::Account) => Refusal::Denied,
        (Code::NEW_AUTHTOK_REQD | Code::AUTHTOK_EXPIRED, Stage::Authenticate | Stage::Account) => {
            Refusal::PasswordExpired
        }
        (Code::ACCT_EXPIRED | Code::CRED_EXPIRED, Stage::Authenticate | Stage::Account) => {
            Refusal::AccountExpired
        }
        // The failure of that very conversation.
        (Code::CONV_ERR, Stage::Authenticate | Stage::Account) if checked.asked_more => Refusal::AskedMore,
        _ => return None,
    })
}

fn refused(refusal: Refusal) -> Finding {
    Finding::Found(Answer::Verdict(Err(refusal)))
}

/// Whether somebody has just proved who he is.
pub fn is_yes(finding: &Finding) -> bool {
    matches!(finding, Finding::Found(Answer::Verdict(Ok(_)) | Answer::VouchedAs(..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow_user_change: bool) -> Settings {
        Settings { socket: "/nowhere".into(), allow_user_change, worker: crate::pam::Settings::default() }
    }

    fn checked(stage: Stage, code: Code) -> Checked {
        Checked { stage, code, asked: true, asked_more: false, user: b"alice".to_vec(), text: String::new() }
    }

    fn said_to(outcome: Outcome, allow_user_change: bool) -> String {
        let names = NameRules::default();
        let alice = names.canonical(b"alice").unwrap();
        match finding(outcome, &alice, &settings(allow_user_change), &names) {
            Finding::Found(Answer::Verdict(Ok(_))) => "yes".to_owned(),
            Finding::Found(Answer::VouchedAs(name, _)) => format!("yes as {}", name.as_str()),
            Finding::Found(Answer::Verdict(Err(refusal))) => refusal.why().to_owned(),
            Finding::Found(Answer::Credential(_)) => "a credential".to_owned(),
            Finding::Passed(why) => format!("passed: {}", why.word()),
            Finding::Closed(closed, _) => closed.to_string(),
            Finding::NotFound => "not found".to_owned(),
            Finding::Out(outage) => outage.why().to_owned(),
        }
    }

    fn said(outcome: Checked) -> String {
        said_to(Outcome::Checked(outcome), false)
    }

    /// The rows of the table in `docs/pam.md`: code, its name, meaning at pam_authenticate, meaning at pam_acct_mgmt.
    fn documented() -> Vec<(u8, String, String, String)> {
        let page = include_str!("../../../docs/pam.md");
        let cells = |row: &str| row.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
        let rows = page.lines().map(cells);
        rows.filter_map(|cells| {
            let [_, code, name, authenticate, account, ..] = &cells[..] else { return None };
            Some((code.parse().ok()?, name.clone(), authenticate.clone(), account.clone()))
        })
        .collect()
    }

    #[test]
    fn each_code_means_what_is_documented() {
        let table = documented();
        assert_eq!(table.iter().map(|row| row.0).collect::<Vec<_>>(), (0..=31).collect::<Vec<_>>());
        for (code, name, authenticate, account) in table {
            assert_eq!(Code(code).to_string(), name);
            if code != 0 {
                assert_eq!(said(checked(Stage::Authenticate, Code(code))), authenticate, "{}", Code(code));
                let trouble = trouble(&Outcome::Checked(checked(Stage::Authenticate, Code(code))));
                assert_eq!(trouble.is_some(), authenticate == "passdb_unavailable", "{}", Code(code));
                assert_eq!(said(checked(Stage::Start, Code(code))), "passdb_unavailable", "{}", Code(code));
            }
            assert_eq!(said(checked(Stage::Account, Code(code))), account, "{}", Code(code));
        }
        assert_eq!(said(checked(Stage::Authenticate, Code(200))), "passdb_unavailable");
    }

    #[test]
    fn success_is_not_enough() {
        let success = || checked(Stage::Account, Code::SUCCESS);
        assert_eq!(said(success()), "yes");
        assert_eq!(said(Checked { asked: false, ..success() }), "pam_not_asked");
        assert_eq!(said(checked(Stage::Authenticate, Code::SUCCESS)), "internal_error");
    }

    #[test]
    fn another_name_is_refused_unless_allowed_and_then_it_is_the_one_that_counts() {
        let became = |user: &[u8], allow| {
            let user = user.to_vec();
            said_to(Outcome::Checked(Checked { user, ..checked(Stage::Account, Code::SUCCESS) }), allow)
        };
        assert_eq!(became(b"bob", false), "pam_user_changed");
        assert_eq!(became(b"Alice", false), "pam_user_changed");
        assert_eq!(became(b"Bob", true), "yes as bob");
        for impossible in [&b""[..], b"\xff", b"a b", b"a\tb"] {
            assert_eq!(became(impossible, true), "pam_user_changed");
        }
    }

    #[test]
    fn a_prompt_too_many_is_a_refusal_but_of_what_is_undecided_for_another_reason() {
        let asked_more = |stage, code| said(Checked { asked_more: true, ..checked(stage, Code(code)) });
        for (code, _, authenticate, account) in documented() {
            let expected = |documented: String| match documented.as_str() {
                _ if Code(code) == Code::CONV_ERR => "pam_asked_more".to_owned(),
                "passdb_unavailable" | "not found" => documented,
                _ => "pam_asked_more".to_owned(),
            };
            // Success of pam_authenticate alone is nobody's last word.
            if code != 0 {
                assert_eq!(asked_more(Stage::Authenticate, code), expected(authenticate), "{}", Code(code));
                assert_eq!(asked_more(Stage::Start, code), "passdb_unavailable", "{}", Code(code));
            }
            assert_eq!(asked_more(Stage::Account, code), expected(account), "{}", Code(code));
        }
        assert_eq!(asked_more(Stage::Authenticate, 200), "passdb_unavailable");
    }

    #[test]
    fn excluded_users_are_nobody_here_and_trouble_is_no_refusal() {
        for exclusion in [Exclusion::UnknownUser, Exclusion::Uid, Exclusion::Group, Exclusion::Shell] {
            assert_eq!(said_to(Outcome::Excluded(exclusion), false), format!("passed: {}", exclusion.word()));
        }
        for allow in [false, true] {
            assert_eq!(said_to(Outcome::Excluded(Exclusion::NewName), allow), "pam_user_changed");
        }
        for (trouble, why) in [
            (Trouble::Timeout, "deadline"),
            (Trouble::Busy, "queue_full"),
            (Trouble::Crashed, "passdb_unavailable"),
            (Trouble::NoWorker, "passdb_unavailable"),
            (Trouble::NoService, "passdb_unavailable"),
            (Trouble::UserDatabase, "passdb_unavailable"),
            (Trouble::Rights, "passdb_unavailable"),
            (Trouble::Exhausted, "passdb_unavailable"),
        ] {
            assert_eq!(said_to(Outcome::Undecided(trouble, String::new()), false), why);
        }
    }
}
