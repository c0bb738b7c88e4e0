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
mod world;

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

#[test]
fn a_stranger_who_has_the_socket_hears_no_password() {
    let Some(mut site) = Site::working() else { return };
    // A real sasld, but nobody's.
    let script = "set -e
        mkdir $SITE/door
        cp \"$(command -v sasld)\" $SITE/bin/imposter
        echo 'alice:{PLAIN}secret' >$SITE/door/secrets
        chmod 0600 $SITE/door/secrets
        chown -R nobody $SITE/door
        cat >$SITE/door.yaml <<END
listeners: [{unix: $SITE/door/auth, owner: nobody, group: nogroup, mode: '0666'}]
passdbs: [{secrets_file: $SITE/door/secrets}]
control: off
END
        sed 's!unix: .*!unix: '$SITE'/door/auth!; s!secrets_file: .*!secrets_file: '$SITE'/secrets!' $SITE/sasld.yaml >$SITE/ours.yaml
        setpriv --reuid=nobody --regid=nogroup --clear-groups imposter serve --config $SITE/door.yaml 2>$SITE/door.log &
        until [ -S $SITE/door/auth ]; do :; done";
    let opened = site.shell(script);
    assert_eq!(opened.exit, 0, "{opened:?}");
    let doctor = "printf secret | sasld doctor --config $SITE/ours.yaml --postfix-config $ETC --root $ROOT --json \
                  --user alice --password-stdin";
    let report = site.shell(doctor);
    let expected = "listens there; PLAIN and LOGIN would tell it the password, and were not tried";
    assert!(report.exit == 2 && report.out.contains(expected), "{}", report.out);
    // It was asked, though, and not for the password.
    let asked = site
        .shell("until grep -q 'event=auth .*mech=CRAM-MD5' $SITE/door.log; do :; done; cat $SITE/door.log");
    assert!(!asked.out.contains("mech=PLAIN") && !asked.out.contains("mech=LOGIN"), "{}", asked.out);
}

#[test]
fn a_door_for_a_device_is_no_warning_for_users() {
    let Some(mut site) = Site::working() else { return };
    let script = "set -e
        mkdir $SITE/conf.d
        echo 'services: {smtp: {mechanisms: [PLAIN, LOGIN]}, scanner: {mechanisms: [CRAM-MD5]}}' >$SITE/conf.d/50-services.yaml
        kill -HUP $PID
        echo secret | sasld user add bob --scheme ARGON2ID --file $SITE/secrets --password-stdin
        postconf -c $ETC -M '2525/inet=2525 inet n - y - - smtpd'
        postconf -c $ETC -P 2525/inet/smtpd_sasl_auth_enable=yes 2525/inet/smtpd_sasl_service=scanner";
    let laid_out = site.shell(&site.with_paths(script));
    assert_eq!(laid_out.exit, 0, "{laid_out:?}");
    site.age();
    let root = site.path().join("root");
    let doctor = ["doctor", "--root", root.to_str().unwrap()];
    let report = site.sasld(&doctor);
    assert!(report.out.contains("\nok        verifiers "), "{}", report.out);
    // A door that users take as well is another matter.
    let opened = site.shell("postconf -c $ETC -P submission/inet/smtpd_sasl_service=scanner");
    assert_eq!(opened.exit, 0, "{opened:?}");
    site.age();
    let report = site.sasld(&doctor);
    assert!(report.out.contains("\nwarning   verifiers "), "{}", report.out);
}

#[test]
fn a_terminal_has_colours_unless_it_wants_none() {
    let Some(site) = Site::working() else { return };
    let doctor = "sasld doctor --config $SITE/sasld.yaml --postfix-config $ETC --root $ROOT";
    let coloured = site.terminal(doctor, &[]);
    assert!(coloured.out.contains("\x1b[") && coloured.out.contains(" errors, "), "{coloured:?}");
    let plain = site.terminal(&format!("NO_COLOR=1 {doctor}"), &[]);
    assert!(!plain.out.contains('\x1b') && plain.out.contains(" errors, "), "{plain:?}");
}
