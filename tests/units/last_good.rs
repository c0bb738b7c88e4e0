//! A broken configuration never takes logins away: not from a daemon that runs, and not from one that starts.

use super::launcher::{Daemon, Place, SASLD, Seen, log_in};
use super::support::skip::not_tested;
use nix::sys::signal::Signal;
use sasld::control::{Request, Status, ask};
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::process::Command;

/// Two mistakes.
const BROKEN: &str = "mechanisms: [PLIAN]\ndeadline: 20s\n";

fn status(place: &Place) -> Status {
    ask(&place.path("control"), &Request::Status).unwrap()
}

/// A daemon ran here once, with the configuration as it is.
fn ran(place: &Place) {
    let mut daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_saved"]);
    daemon.stop();
}

#[test]
fn a_cold_start_with_a_broken_configuration_runs_on_the_last_good_one_and_a_reload_leads_back() {
    let place = Place::new();
    ran(&place);
    let good = fs::read_to_string(place.path("sasld.yaml")).unwrap();
    fs::write(place.path("sasld.yaml"), BROKEN).unwrap();
    let daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["level=error event=last_good_configuration", "sasld.yaml:1:", "PLIAN"]);
    daemon.log.wait_for(&["level=error event=last_good_configuration", "sasld.yaml:2:", "deadline"]);
    assert_eq!(log_in(&place.path("auth")), Seen::Ok);
    let configuration = status(&place).configuration;
    assert!(configuration.last_good);
    assert_eq!(configuration.path, place.path("sasld.yaml").display().to_string());
    assert_eq!(configuration.rejected.unwrap().mistakes.len(), 2);

    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=not_reloaded", "PLIAN"]);
    assert!(status(&place).configuration.last_good, "still broken");

    fs::write(place.path("sasld.yaml"), good).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=reloaded"]);
    let configuration = status(&place).configuration;
    assert!(!configuration.last_good && configuration.rejected.is_none());
    assert_eq!(log_in(&place.path("auth")), Seen::Ok);
}

#[test]
fn a_start_without_its_users_replaces_no_good_copy() {
    let place = Place::new();
    ran(&place);
    let users = place.path("secrets");
    fs::rename(&users, place.path("elsewhere")).unwrap();
    place.configure("log_level: debug\n");
    let mut daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_not_saved", "a secrets file is not loaded"]);
    daemon.stop();
    fs::rename(place.path("elsewhere"), &users).unwrap();
    fs::write(place.path("sasld.yaml"), BROKEN).unwrap();
    let daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_configuration"]);
    assert_eq!(log_in(&place.path("auth")), Seen::Ok);
    assert!(!daemon.log.text().contains("level=debug"), "the copy is the first one");
}

#[test]
fn a_configuration_that_is_gone_or_unreadable_is_no_worse_than_a_broken_one() {
    let place = Place::new();
    ran(&place);
    fs::remove_file(place.path("sasld.yaml")).unwrap();
    let mut daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_configuration", "no such file"]);
    assert_eq!(log_in(&place.path("auth")), Seen::Ok);
    daemon.stop();
    // Root can read everything but this.
    symlink("sasld.yaml", place.path("sasld.yaml")).unwrap();
    let daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_configuration", "sasld.yaml"]);
    assert_eq!(log_in(&place.path("auth")), Seen::Ok);
}

#[test]
fn a_reload_makes_the_next_copy_and_a_rejected_one_does_not() {
    let place = Place::new();
    let mut daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_saved"]);
    daemon.log.forget();
    place.configure("mechanisms: [PLAIN]\n");
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=last_good_saved"]);
    daemon.log.wait_for(&["event=reloaded", "mechanisms=PLAIN"]);
    place.configure("mechanisms: [PLIAN]\n");
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=not_reloaded"]);
    daemon.stop();
    let daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=ready", "mechanisms=PLAIN"]);
    assert!(!daemon.log.text().contains("CRAM-MD5"));
}

#[test]
fn without_a_copy_or_with_a_torn_one_the_start_fails_with_every_mistake() {
    let place = Place::new();
    let good = fs::read_to_string(place.path("sasld.yaml")).unwrap();
    fs::write(place.path("sasld.yaml"), BROKEN).unwrap();
    let start = || {
        let output = place.serve().output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = start();
    assert_eq!(code, Some(78));
    assert!(message.contains("sasld.yaml:1:") && message.contains("sasld.yaml:2:"), "{message}");

    fs::write(place.path("sasld.yaml"), good).unwrap();
    ran(&place);
    fs::write(place.path("sasld.yaml"), BROKEN).unwrap();
    let copy = place.path("state/last-good/sasld.yaml");
    let whole = fs::read(&copy).unwrap();
    fs::write(&copy, &whole[..whole.len() - 20]).unwrap();
    let (code, message) = start();
    assert_eq!(code, Some(78));
    assert!(message.contains("sasld.yaml:2:") && message.contains("it is torn"), "{message}");
}

#[test]
fn a_copy_that_cannot_be_made_is_a_warning() {
    let place = Place::new();
    fs::remove_dir(place.path("state")).unwrap();
    let daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["level=warn event=last_good_not_saved", "No such file"]);
    assert_eq!(log_in(&place.path("auth")), Seen::Ok);
}

#[test]
fn on_a_full_disk_the_copy_of_before_stays() {
    let place = Place::new();
    let mount = "mount -t tmpfs -o size=16k tmpfs \"$STATE\" || exit 99";
    let may_mount =
        Command::new("unshare").args(["-m", "sh", "-c", mount]).env("STATE", place.path("state")).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        not_tested("a full disk: it takes root, and the right to mount");
        return;
    }
    // The first daemon saves its copy, the second finds the rest of the disk filled, the third has a broken file. Each goes on
    // until there is a line for it in `stop`; whatever happens here, none outlives its namespace.
    let script = format!(
        "{mount}
         mkfifo '{0}/stop'
         serve() {{
           '{SASLD}' serve --config '{0}/sasld.yaml' --state-directory \"$STATE\" &
           read -r <'{0}/stop'
           kill $!
           wait $!
         }}
         serve
         echo 'log_level: debug' >>'{0}/sasld.yaml'
         dd if=/dev/zero of=\"$STATE/full\" bs=1k 2>/dev/null
         serve
         echo 'log_level: nonsense' >'{0}/sasld.yaml'
         serve",
        place.path("").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "bash", "-c", &script]);
    command.env("STATE", place.path("state"));
    let daemon = Daemon::start(command);
    let stop = || {
        daemon.log.wait_for(&["event=ready"]);
        assert_eq!(log_in(&place.path("auth")), Seen::Ok);
        daemon.log.forget();
        fs::write(place.path("stop"), "\n").unwrap();
    };
    daemon.log.wait_for(&["event=last_good_saved"]);
    stop();
    daemon.log.wait_for(&["level=warn event=last_good_not_saved", "No space left"]);
    stop();
    daemon.log.wait_for(&["event=last_good_configuration", "log_level"]);
    stop();
}

#[test]
fn a_start_as_root_uses_its_own_copy_in_a_state_directory_of_another_user() {
    let place = Place::new();
    if chown(place.path("state"), Some(65534), None).is_err() {
        not_tested("a start as root: it takes root");
        return;
    }
    let good = fs::read_to_string(place.path("sasld.yaml")).unwrap();
    ran(&place);
    fs::write(place.path("sasld.yaml"), BROKEN).unwrap();
    let daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_configuration", "PLIAN"]);
    assert_eq!(log_in(&place.path("auth")), Seen::Ok);
    assert_eq!(fs::read_to_string(place.path("state/root/last-good/sasld.yaml")).unwrap(), good);
}

#[test]
fn check_prints_every_mistake_and_tells_what_runs() {
    let place = Place::new();
    let check = || {
        let mut command = Command::new(SASLD);
        command.args(["check", "--config"]).arg(place.path("sasld.yaml"));
        let output = command.arg("--control").arg(place.path("control")).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78));
        assert!(message.contains("sasld.yaml:1:") && message.contains("sasld.yaml:2:"), "{message}");
        message
    };
    let mut daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_saved"]);
    fs::write(place.path("sasld.yaml"), BROKEN).unwrap();
    assert!(check().contains("uses an earlier configuration, since "));
    daemon.stop();
    assert!(!check().contains("the running sasld"));
    let _daemon = Daemon::ready(place.serve());
    assert!(check().contains("uses the copy of the last good configuration, since "));
}

#[test]
fn a_check_before_a_reload_minds_only_what_would_keep_sasld_from_working() {
    let place = Place::new();
    let check = |flag: &[&str]| {
        let mut command = Command::new(SASLD);
        command.args(["check", "--quiet"]).args(flag).arg("--config").arg(place.path("sasld.yaml"));
        command.output().unwrap().status.code()
    };
    assert_eq!(check(&["--usable"]), Some(0));
    fs::write(place.path("secrets"), "alice:{PLAIN}wonder\nbob:{NONSENSE}x\n").unwrap();
    assert_eq!(check(&[]), Some(1));
    assert_eq!(check(&["--usable"]), Some(0), "bob is no reason not to reload");
    fs::remove_file(place.path("secrets")).unwrap();
    assert_eq!(check(&["--usable"]), Some(78));
}
