//! The Debian package, as a machine sees it: installed, upgraded, removed and purged in a minimal Debian of its own.
//!
//! `make deb`'s package is built first (`packaging/dev/deb`, nothing to do when it is there), and `tests/package/base` unpacks
//! a Debian once into `target/package`. Each scenario is a few lines of shell in a throw-away copy of it, with a network,
//! processes and mounts of its own ([`world`]). It needs root; without, it says so aloud. A package or a Debian that
//! cannot be made is a failure.

mod crates;
mod fail2ban;
#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use world::{output, package, repository, scenario, scenario_with_output};

/// What sasld may find on a machine. systemd itself does not run in a chroot: `make test-boot`.
const SYSTEMS: [&str; 4] =
    ["without_systemd", "with_systemd", "without_systemd; with_postfix", "with_systemd; with_postfix"];

#[test]
fn an_install_makes_an_empty_secrets_file_for_the_daemon_alone() {
    for system in SYSTEMS {
        scenario(&format!(
            "{system}
            install $new
            is \"$(secrets)\" '640 root:_sasld'
            is \"$(stat -c %s /etc/sasld/secrets)\" 0
            is \"$(id -un _sasld) $(id -un _sasld-pam)\" '_sasld _sasld-pam'
            is \"$(dpkg --verify sasld)\" ''
            sasld --version && sasld-pam --version"
        ));
    }
}

#[test]
fn the_configuration_works_unedited_where_there_is_a_postfix() {
    scenario("without_systemd; with_postfix; install $new; sasld check");
}

#[test]
fn an_install_edits_nothing_of_postfix_and_prints_the_command_that_would() {
    scenario(
        "without_systemd; with_postfix
        before=$(postfix_is)
        install $new
        is \"$(postfix_is)\" \"$before\"
        is \"$(grep -c 'sasld setup postfix --apply' /tmp/apt.log)\" 1",
    );
}

/// It is printed with and without Postfix, once, and what it says can be typed as it is.
#[test]
fn postfix_may_come_later() {
    scenario(
        "without_systemd; install $new
        is \"$(grep -c ^sasld: /tmp/apt.log)\" 1
        command=$(sed -n 's/^sasld: .*To let it: //p' /tmp/apt.log | tr -d '\r')
        with_postfix
        grep 'Processing triggers for sasld' /tmp/apt.log
        sasld check
        ! sasld setup postfix | grep -q 'nothing to change'
        $command >/tmp/setup || [ $? -le 2 ]
        is \"$(postconf -h smtpd_sasl_type) $(postconf -h smtpd_sasl_path)\" 'dovecot private/auth'",
    );
}

#[test]
fn an_upgrade_keeps_users_and_edited_files_and_takes_new_ones() {
    for system in SYSTEMS {
        scenario(&format!(
            "{system}; install $old
            grep -q 'of the old version' /etc/sasld/sasld.yaml
            sasld user add alice --password-stdin <<<wonderland
            echo '# mine' >>/etc/pam.d/sasld
            before=$(sha256sum /etc/sasld/secrets /etc/pam.d/sasld)
            install $new
            is \"$(sha256sum /etc/sasld/secrets /etc/pam.d/sasld)\" \"$before\"
            is \"$(secrets)\" '640 root:_sasld'
            ! grep 'of the old version' /etc/sasld/sasld.yaml"
        ));
    }
    scenario(
        "without_systemd; with_postfix; install $old
        echo 'log_level: warn' >>/etc/sasld/sasld.yaml
        install -o Dpkg::Options::=--force-confdef $new
        grep 'log_level: warn' /etc/sasld/sasld.yaml",
    );
}

#[test]
fn a_deleted_secrets_file_stays_deleted() {
    scenario(
        "without_systemd; with_postfix; install $old
        rm /etc/sasld/secrets
        install $new
        [ ! -e /etc/sasld/secrets ]",
    );
}

#[test]
fn secrets_survive_removal_and_a_purge_that_nobody_answers() {
    scenario(
        "without_systemd; with_postfix; install $new
        sasld user add alice --password-stdin <<<wonderland
        before=$(sha256sum /etc/sasld/secrets)
        remove
        is \"$(sha256sum /etc/sasld/secrets)\" \"$before\"
        install $new
        is \"$(sha256sum /etc/sasld/secrets)\" \"$before\"
        remove; purge
        is \"$(sha256sum /etc/sasld/secrets)\" \"$before\"
        is \"$(find /etc/sasld)\" '/etc/sasld
/etc/sasld/secrets'
        install $new
        is \"$(sha256sum /etc/sasld/secrets)\" \"$before\"",
    );
}

#[test]
fn a_purge_asks_before_it_deletes_the_secrets() {
    for (answer, then) in [("no", "[ -s /etc/sasld/secrets ]"), ("yes", "[ ! -e /etc/sasld ]")] {
        scenario(&format!(
            "without_systemd; with_postfix; install $new
            sasld user add alice --password-stdin <<<wonderland
            purge_and_answer {answer}
            {then}"
        ));
    }
    // Nobody is asked about a file that is not there.
    scenario(
        "without_systemd; with_postfix; install $new
        rm /etc/sasld/secrets
        ! purge_and_answer yes 2>/dev/null
        [ ! -e /etc/sasld ]",
    );
}

#[test]
fn without_systemd_a_broken_configuration_starts_on_the_last_good_one_too() {
    scenario(
        "without_systemd; with_postfix; install $new
        command install -d -m 0700 -o _sasld -g _sasld /var/lib/sasld
        serve; stop
        grep event=last_good_saved /tmp/sasld.log
        echo 'mechanisms: [PLIAN]' >/etc/sasld/conf.d/broken.yaml
        serve
        grep 'event=last_good_configuration.*PLIAN' /tmp/sasld.log
        is \"$(stat -c '%U:%G %a' /var/spool/postfix/private/auth)\" 'postfix:postfix 660'
        rm /etc/sasld/conf.d/broken.yaml
        kill -HUP %%
        timeout 30 sh -c 'until grep -q event=reloaded /tmp/sasld.log; do sleep 0.1; done'
        stop",
    );
}

/// The users stay, as Debian has it: files of theirs may be anywhere.
#[test]
fn a_purge_with_a_yes_leaves_the_two_users_and_nothing_else() {
    for (system, first, then) in [
        ("without_systemd", "", ""),
        ("with_systemd", "install $old", ""),
        ("without_systemd; with_postfix", "", "remove"),
        ("with_systemd; with_postfix", "install $old", "remove"),
    ] {
        scenario(&format!(
            "{system}
            files >/tmp/before
            {first}
            install $new
            echo 'alice:{{PLAIN}}wonderland' >>/etc/sasld/secrets
            touch /etc/sasld/.secrets.lock
            mkdir -p /var/lib/sasld && touch /var/lib/sasld/last-good.yaml
            echo 'sasld sasld/purge-secrets boolean true' | debconf-set-selections
            {then}
            purge
            files >/tmp/after
            accounts='/etc/(passwd|shadow|group|gshadow|subuid|subgid)-? *$|/etc/\\.pwd\\.lock|/etc *$'
            diff <(grep -Ev \"$accounts\" /tmp/before) <(grep -Ev \"$accounts\" /tmp/after)
            is \"$(getent passwd _sasld _sasld-pam | wc -l)\" 2"
        ));
    }
}

#[test]
fn mail_clients_log_in_through_postfix_and_fail2ban_finds_who_guesses() {
    let Some(out) = scenario_with_output(
        "without_systemd; install procps swaks libnet-ssleay-perl; with_postfix; install $new
        /debs/login
        cp /var/log/sasld.log /var/log/mail.log /out/",
    ) else {
        return;
    };
    // Three mechanisms with a wrong password and an unknown user each, and two for the user of the system.
    for (log, mode, times) in [
        ("sasld.log", "normal", 8),
        ("sasld.log", "aggressive", 8),
        ("mail.log", "postfix", 8),
        ("mail.log", "normal", 0),
    ] {
        let log = out.path().join(log);
        let Some(found) = fail2ban::found(&log, mode) else { return };
        assert_eq!(found, vec!["127.0.0.1"; times], "{mode}:\n{}", fs::read_to_string(&log).unwrap());
    }
}

#[test]
fn lintian_has_nothing_to_say() {
    let Some(package) = package() else { return };
    let said = output(
        Command::new("lintian").args(["--allow-root", "--display-info", "--pedantic"]).arg(&package.new),
    );
    assert_eq!(said, "");
}

#[test]
fn lintian_has_nothing_to_say_about_the_source_either() {
    if package().is_none() {
        return;
    }
    let source = output(&mut Command::new(repository("packaging/dev/source")));
    let said = output(
        Command::new("lintian").args(["--allow-root", "--display-info", "--pedantic"]).arg(source.trim_end()),
    );
    assert_eq!(said, "");
}

#[test]
fn it_depends_on_what_it_links_and_on_what_its_scripts_call() {
    let Some(package) = package() else { return };
    let depends = output(Command::new("dpkg-deb").args(["--field"]).arg(&package.new).arg("Depends"));
    let names: BTreeSet<&str> = depends.split(", ").filter_map(|one| one.split_whitespace().next()).collect();
    let expected = ["debconf", "libc6", "libgcc-s1", "libpam-runtime", "libpam0g", "systemd"];
    assert_eq!(names, BTreeSet::from(expected));
}

/// What the issue of the package names; a file that another tool has to find lies where that tool looks.
#[test]
fn it_brings_all_that_was_promised() {
    let Some(package) = package() else { return };
    let listed = output(Command::new("dpkg-deb").arg("--contents").arg(&package.new));
    let brought: BTreeSet<&str> = listed.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    let promised = "\
        ./usr/sbin/sasld ./usr/sbin/sasld-pam ./etc/sasld/sasld.yaml ./etc/sasld/conf.d/ ./etc/pam.d/sasld \
        ./usr/lib/sysusers.d/sasld.conf ./usr/lib/tmpfiles.d/sasld.conf \
        ./usr/lib/systemd/system/sasld.service ./usr/lib/systemd/system/sasld.socket \
        ./usr/lib/systemd/system/sasld-instance@.socket \
        ./usr/lib/systemd/system/sasld-pam.service ./usr/lib/systemd/system/sasld-pam.socket \
        ./etc/apparmor.d/sasld ./etc/apparmor.d/sasld-pam \
        ./etc/fail2ban/filter.d/sasld.conf ./usr/share/doc/sasld/examples/jail.conf \
        ./usr/share/man/man5/sasld.yaml.5.gz ./usr/share/man/man5/sasld-secrets.5.gz \
        ./usr/share/man/man7/sasld-log.7.gz ./usr/share/man/man8/sasld.8.gz \
        ./usr/share/man/man8/sasld-doctor.8.gz ./usr/share/man/man8/sasld-pam.8.gz \
        ./usr/share/bash-completion/completions/sasld ./usr/share/zsh/vendor-completions/_sasld \
        ./usr/share/fish/vendor_completions.d/sasld.fish \
        ./usr/share/doc/sasld/README.Debian ./usr/share/doc/sasld/copyright \
        ./usr/share/doc/sasld/changelog.gz ./usr/share/doc/sasld/changelog.Debian.gz";
    let missing: Vec<&str> = promised.split_whitespace().filter(|file| !brought.contains(file)).collect();
    assert!(missing.is_empty(), "{missing:?}\n{listed}");
    let suggests = output(Command::new("dpkg-deb").arg("--field").arg(&package.new).arg("Suggests"));
    assert_eq!(suggests.trim_end(), "apparmor, fail2ban, postfix");
}

#[test]
fn it_was_built_without_a_network() {
    let Some(package) = package() else { return };
    let log = fs::read_to_string(package.new.with_file_name("build.log")).expect("build.log");
    assert!(log.contains("network interfaces during this build: lo\n"), "{log}");
}

/// Below a checkout of git, too, which knows nothing of it.
#[test]
fn the_source_archive_unpacked_anywhere_makes_the_same_archive() {
    let Some(package) = package() else { return };
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let name = concat!("sasld-", env!("CARGO_PKG_VERSION"));
    let archive = package.new.with_file_name(format!("{name}.tar.xz"));
    output(Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(place.path()));
    let source = place.path().join(name);
    assert_eq!(output(Command::new(source.join("packaging/dev/files")).arg("src/main.rs")), "src/main.rs\0");
    let again = output(Command::new(source.join("packaging/dev/vendor")).arg(place.path().join("again")));
    output(Command::new("cmp").arg(&archive).arg(again.trim_end()));
}

#[test]
fn the_apparmor_profiles_compile() {
    for profile in ["sasld", "sasld-pam"] {
        let profile = repository("packaging/apparmor").join(profile);
        output(Command::new("apparmor_parser").args(["--skip-kernel-load", "--skip-cache"]).arg(profile));
    }
}
