//! `sasld doctor` and its commands against mail servers that were broken on purpose, and what it takes to mend them.
//!
//! Each folder of `broken/` is a way to break a [`Site`] that works: `setup`, a shell script that does it, and
//! `expected`, what doctor has to find, with the command it prints. The test types that very command, and doctor must
//! then find it no longer. `README.md` there has the format. Needs root and Postfix's programs.

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

mod broken;
mod page;
mod probe;
mod setup;
mod site;

use site::Site;

#[test]
fn nothing_is_wrong_with_a_site_that_works() {
    let Some(site) = Site::working() else { return };
    let root = site.path().join("root");
    let report = site.sasld(&["doctor", "--root", root.to_str().unwrap()]);
    assert_eq!(report.exit, 0, "{}", report.out);
    assert!(report.out.contains("0 errors, 0 warnings, "), "{}", report.out);
}

#[test]
fn a_user_who_can_log_in_is_no_finding_and_one_who_cannot_is_an_error() {
    let Some(mut site) = Site::working() else { return };
    let doctor = |site: &mut Site, password: &str| {
        let words = "doctor --config $SITE/sasld.yaml --postfix-config $ETC --root $ROOT --user alice --password-stdin";
        let command = site.with_paths(&format!("printf %s {password} | sasld {words}"));
        site.shell(&command)
    };
    let right = doctor(&mut site, "secret");
    assert_eq!(right.exit, 0, "{}", right.out);
    let wrong = doctor(&mut site, "wrong");
    assert!(wrong.exit == 2 && wrong.out.contains("PLAIN: alice is refused"), "{}", wrong.out);
    assert!(!wrong.out.contains("wrong\n"), "{}", wrong.out);
}
