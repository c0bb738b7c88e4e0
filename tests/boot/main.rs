//! A real systemd boots a Debian with the package and Postfix, and somebody logs in all the time: `make test-boot`.
//!
//! `tree` makes the Debian once, `boot` boots it in a container, `inside` is what happens there, told in its log. It needs root
//! and the right to mount and to make control groups; where that is missing, it says so aloud. With a release in
//! SASLD_BOOT_RELEASE the package built here is tried, shortly, in a Debian of that release: `make test-trixie`. That is also
//! where `docs/from-dovecot.md` is followed with a Dovecot 2.4; what it said is written as a page to the file that SASLD_BOOT_PAGE
//! names. A boot that ends with anything but success shows the whole log, with the container's journal.

#[path = "../support/skip.rs"]
mod skip;

use skip::not_tested;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// How the page of the last log from another release begins.
const INTRODUCTION: &str = "\
# On Debian 13

What `make test-trixie` said when it was run last. It boots a Debian 13 in a container, installs the package that was built on
Debian 12 and Postfix, and does what is told below. [From Dovecot](from-dovecot.md) is followed there with a Dovecot 2.4.
";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The path that a script prints.
fn path_from(command: &mut Command) -> PathBuf {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

#[test]
fn a_debian_with_postfix_never_sees_a_refused_connect_whatever_happens_to_sasld() {
    if !nix::unistd::getuid().is_root() {
        not_tested("a booted Debian needs root");
        return;
    }
    let new = path_from(&mut Command::new(repository("packaging/dev/deb")));
    let old = path_from(Command::new(repository("tests/package/old")).arg(&new));
    let release = env::var_os("SASLD_BOOT_RELEASE").filter(|release| !release.is_empty());
    let mut place = OsString::from(Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("boot"));
    place.extend(release.as_deref());
    let place = PathBuf::from(place);
    let made = Command::new(repository("tests/boot/tree")).arg(&place).args(&release).status().unwrap();
    assert!(made.success(), "the Debian to boot could not be made");
    let out = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut boot = Command::new(repository("tests/boot/boot"));
    boot.arg(place.join("tree")).arg(&old).arg(&new).arg(out.path());
    boot.arg(if release.is_some() { "another_release" } else { "first" });
    let status = boot.status().unwrap();
    let log = fs::read_to_string(out.path().join("log")).unwrap_or_default();
    let seconds = started.elapsed().as_secs();
    eprintln!("{log}{seconds} seconds");
    match status.code() {
        Some(0) => {
            assert!(log.ends_with("all of it happened\n"));
            if let Some(page) = env::var_os("SASLD_BOOT_PAGE") {
                fs::write(page, format!("{INTRODUCTION}\n```\n{log}{seconds} seconds\n```\n")).unwrap();
            }
        }
        Some(77) => not_tested("a container cannot be booted here: it takes mounts and control groups"),
        _ => {
            let console = fs::read(out.path().join("console")).unwrap_or_default();
            panic!("{status}\n{}", String::from_utf8_lossy(&console));
        }
    }
}
