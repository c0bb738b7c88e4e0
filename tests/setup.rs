//! `sasld setup postfix` on a Postfix that has users already, or other things where the users shall log in.
//!
//! What it makes of a bare one is in `doctor/setup.rs`; the sites are the same. Needs root and Postfix's programs.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "doctor/site.rs"]
mod site;
#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use site::Site;
use std::fs;
use std::process::Command;

/// A Postfix with these lines besides in main.cf.
fn postfix(main_cf: &str, master_cf: &str) -> Option<Site> {
    let site = Site::bare(master_cf)?;
    let file = site.etc().join("main.cf");
    fs::write(&file, fs::read_to_string(&file).unwrap() + main_cf).unwrap();
    site.age();
    Some(site)
}

/// What `postconf` with these words says about the site.
fn postconf(site: &Site, words: &[&str]) -> String {
    site.age();
    let output = Command::new("postconf").arg("-c").arg(site.etc()).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn master_cf(site: &Site) -> String {
    fs::read_to_string(site.etc().join("master.cf")).unwrap()
}

/// `main.cf`'s lines for a certificate that nobody looks at.
const CERTIFICATE: &str = "smtpd_tls_cert_file = /cert.pem\nsmtpd_tls_key_file = /key.pem\n";

#[test]
fn what_is_there_and_no_smtpd_is_neither_changed_nor_removed() {
    let before = "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd\n587 inet n n n - - spawn user=nobody argv=/bin/cat\n";
    let Some(site) = Site::bare(before) else { return };
    for (service, there, command) in
        [("smtp", "smtp", "postscreen"), ("25", "smtp", "postscreen"), ("submission", "587", "spawn")]
    {
        for more in [&[][..], &["--apply"], &["--apply", "--json"]] {
            let refused = site.sasld(&[&["setup", "postfix", "--service", service], more].concat());
            assert_eq!(refused.exit, 78, "{}", refused.out);
            let expected =
                format!("master.cf has {there}/inet already, and its command is {command}, not smtpd");
            assert!(refused.out.contains(&expected), "{}", refused.out);
            assert!(refused.out.contains(&format!("-MX {there}/inet")), "{}", refused.out);
            assert_eq!(master_cf(&site), before);
        }
    }
    let printed = site.sasld(&["setup", "postfix", "--service", "submissions"]);
    assert!(printed.exit == 0 && printed.out.contains(" -M 'submissions/inet="), "{}", printed.out);
    let mistyped = site.sasld(&["setup", "postfix", "--service", "submision"]);
    assert!(mistyped.exit == 64 && mistyped.out.contains("no port has that name"), "{}", mistyped.out);
}

#[test]
fn a_service_under_another_name_is_used_and_stays_when_it_is_undone() {
    for (there, asked) in
        [("587", "submission"), ("127.0.0.1:587", "submission"), ("smtps", "submissions"), ("465", "smtps")]
    {
        let services = format!("smtp inet n - y - - smtpd\n{there} inet n - y - - smtpd\n");
        let Some(mut site) = postfix(CERTIFICATE, &services) else { return };
        let before = postconf(&site, &["-M"]);
        let applied = site.sasld(&["setup", "postfix", "--service", asked, "--apply"]);
        assert!(!applied.out.contains(" -M "), "{}", applied.out);
        let id = format!("{there}/inet");
        assert_eq!(postconf(&site, &["-P", &format!("{id}/smtpd_sasl_auth_enable")]).lines().count(), 1);
        assert_eq!(postconf(&site, &["-M"]).lines().count(), 2);
        let undo = applied.out.lines().skip_while(|line| *line != "# To undo:").skip(1);
        let undo: String =
            undo.map_while(|line| line.strip_prefix("# ")).map(|line| line.to_owned() + "\n").collect();
        site.age();
        let undone = site.shell(&format!("set -e\n{undo}"));
        assert_eq!((undone.exit, postconf(&site, &["-M"])), (0, before), "{}", undone.out);
    }
}

#[test]
fn users_of_another_service_stay_where_they_log_in() {
    let dovecot = "smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/dovecot\n";
    let services = "smtp inet n - y - - smtpd\nsubmissions inet n - y - - smtpd\n  -o smtpd_tls_wrappermode=yes\n  \
                    -o smtpd_sasl_auth_enable=yes\nsubmission inet n - y - - smtpd\n";
    let Some(site) = postfix(&(CERTIFICATE.to_owned() + dovecot), services) else { return };
    site.sasld(&["setup", "postfix", "--apply"]);
    let path = |service: &str| {
        let own = postconf(&site, &["-P", &format!("{service}/inet/smtpd_sasl_path")]);
        own.trim().rsplit_once(' ').map(|(_, path)| path.to_owned())
    };
    assert_eq!(postconf(&site, &["-h", "smtpd_sasl_path"]), "private/dovecot\n");
    assert_eq!((path("submission").as_deref(), path("submissions")), (Some("private/auth"), None));
    // Without users there is nobody to stay, and one line in main.cf does it.
    let Some(site) = postfix(&(CERTIFICATE.to_owned() + dovecot), "submission inet n - y - - smtpd\n") else {
        return;
    };
    site.sasld(&["setup", "postfix", "--apply"]);
    assert_eq!(postconf(&site, &["-h", "smtpd_sasl_path"]), "private/auth\n");
}

#[test]
fn with_json_the_report_of_the_doctor_is_in_the_answer() {
    let Some(site) = postfix(CERTIFICATE, "smtp inet n - y - - smtpd\n") else { return };
    let applied = site.sasld(&["setup", "postfix", "--apply", "--json"]);
    let answer: Value = serde_json::from_str(applied.out.trim_end()).expect("one object");
    assert_eq!(answer["applied"], true, "{answer}");
    assert!(answer["changes"][0]["command"].as_str().unwrap().contains(" -M "), "{answer}");
    let probes = answer["doctor"]["probes"].as_array().expect("the doctor's probes");
    assert!(probes.len() > 20 && answer["doctor"]["configuration"].is_string(), "{answer}");
    site.age();
    let doctor = site.sasld(&["doctor", "--json"]);
    let alone: Value = serde_json::from_str(doctor.out.trim_end()).unwrap();
    assert_eq!((applied.exit, &answer["doctor"]), (doctor.exit, &alone));
}

/// `smtpd_relay_restrictions` and `smtpd_recipient_restrictions` as a service has them afterwards.
fn lists(site: &Site, service: &str) -> [String; 2] {
    ["smtpd_relay_restrictions", "smtpd_recipient_restrictions"].map(|name| {
        let own = postconf(site, &["-P", &format!("{service}/inet/{name}")]);
        let text = if own.is_empty() { postconf(site, &["-x", name]) } else { own };
        text.split_once('=').unwrap().1.trim().replace([',', ' '], ",").replace(",,", ",")
    })
}

#[test]
fn who_has_logged_in_may_relay_on_every_service_and_nobody_else_is_let_in() {
    const PERMIT: &str = "permit_sasl_authenticated";
    let port_25 = "smtp inet n - y - - smtpd\n";
    for (main_cf, service, expected) in [
        // Postfix's own list lets users in.
        ("", "smtp", ["permit_mynetworks,permit_sasl_authenticated,defer_unauth_destination", ""]),
        (
            "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n",
            "smtp",
            ["permit_mynetworks,permit_sasl_authenticated,reject_unauth_destination", ""],
        ),
        (
            "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit_mynetworks reject_unauth_destination\n",
            "smtp",
            ["", "permit_mynetworks,permit_sasl_authenticated,reject_unauth_destination"],
        ),
        (
            "smtpd_recipient_restrictions = reject_unauth_destination, permit_sasl_authenticated\n",
            "smtp",
            [
                "permit_mynetworks,permit_sasl_authenticated,defer_unauth_destination",
                "permit_sasl_authenticated,reject_unauth_destination",
            ],
        ),
        (
            "mynetworks = 0.0.0.0/0\nsmtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n",
            "submission",
            ["permit_sasl_authenticated,reject", ""],
        ),
        (
            "smtpd_relay_restrictions = permit_mynetworks, reject_sender_login_mismatch, permit_sasl_authenticated, reject\n",
            "submission",
            ["reject_sender_login_mismatch,permit_sasl_authenticated,reject", ""],
        ),
    ] {
        let Some(site) = postfix(&format!("{CERTIFICATE}{main_cf}"), port_25) else { return };
        let applied = site.sasld(&["setup", "postfix", "--service", service, "--apply"]);
        assert_eq!(lists(&site, service), expected, "{main_cf}{}", applied.out);
        assert!([0, 1, 2].contains(&applied.exit), "a command failed: {}", applied.out);
        assert!(lists(&site, service).concat().contains(PERMIT));
    }
}

#[test]
fn blanks_inside_braces_are_set_and_undone_by_way_of_main_cf() {
    const LIST: &str = "check_policy_service { inet:127.0.0.1:9, timeout=5 }, reject_rbl_client rbl.test";
    const NAME: &str = "smtpd_recipient_restrictions";
    let with_list = format!("{NAME} = {LIST}\n");
    let own = format!(
        "smtp inet n - y - - smtpd\nsubmission inet n - y - - smtpd\n  -o {{ {NAME} = {LIST}, reject }}\n"
    );
    let relay = "  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n";
    for (main_cf, services) in [
        (with_list.as_str(), "smtp inet n - y - - smtpd\n"),
        (&with_list, "smtp inet n - y - - smtpd\nsubmission inet n - y - - smtpd\n"),
        ("", &own),
        ("", &format!("{own}{relay}")),
    ] {
        let Some(mut site) = postfix(&format!("{CERTIFICATE}{main_cf}"), services) else { return };
        // What came back as a parameter of main.cf means the same as what stood in master.cf itself.
        let same = |site: &Site| {
            let lists = postconf(site, &["-Px"]).replace([',', ' ', '\n'], " ");
            let written = if main_cf.is_empty() { String::new() } else { postconf(site, &["-n"]) };
            (lists.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), written)
        };
        let before = same(&site);
        let applied = site.sasld(&["setup", "postfix", "--apply"]);
        assert!([0, 1].contains(&applied.exit), "{}", applied.out);
        let now = postconf(&site, &["-Px", &format!("submission/inet/{NAME}")]);
        assert!(now.contains("permit_sasl_authenticated") && now.contains("{ inet:127.0.0.1:9,"), "{now}");
        site.age();
        let again = site.sasld(&["setup", "postfix"]);
        assert!(again.out.contains("nothing to do"), "{}", again.out);
        let undo = applied.out.lines().skip_while(|line| *line != "# To undo:").skip(1);
        let undo: String =
            undo.map_while(|line| line.strip_prefix("# ")).map(|line| line.to_owned() + "\n").collect();
        let undone = site.shell(&format!("set -e\n{undo}"));
        assert_eq!(undone.exit, 0, "{}", undone.out);
        assert_eq!(same(&site), before, "{undo}");
    }
}
