//! A Debian with a kernel of its own boots with the package and Postfix: AppArmor enforces its profiles, limits of memory
//! and tasks hold, and nothing is lost by either: `make test-machine`.
//!
//! Minutes long and no part of `make test`; it writes what it said to `docs/machine.md`. The Debian is that of tests/boot with a
//! kernel (`tests/boot/tree`), `machine` boots it in qemu, `stages` is what happens there, told in its log. A boot that
//! ends with anything but success shows the whole log, with the machine's journal. A successful one is written as a page to
//! the file that `SASLD_MACHINE_PAGE` names.

#[path = "../support/skip.rs"]
mod skip;

use skip::not_tested;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// What the machine has beside the container's packages. Debian has libnss-systemd wherever it has systemd.
const PACKAGES: [&str; 5] =
    ["linux-image-cloud-amd64", "initramfs-tools", "kmod", "apparmor", "libnss-systemd"];

/// How the page of the last log begins.
const INTRODUCTION: &str = "\
# On a machine of its own

What `make test-machine` said when it was run last. It boots a Debian with its own kernel in qemu, installs the package
and Postfix, and does what is told below, under [AppArmor](debian.md#apparmor) and with the limits of
[the units](hardening.md#what-sasld-may-do). The processors are emulated, so the times say nothing about sasld.
";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn under_apparmor_and_limits_of_memory_everything_works_and_nothing_else_does() {
    if !nix::unistd::getuid().is_root() {
        not_tested("making a disk of a Debian needs root");
        return;
    }
    if !cfg!(target_arch = "x86_64") {
        not_tested("the machine is an x86-64 one, with this machine's package");
        return;
    }
    let built = Command::new(repository("packaging/dev/deb")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let deb = String::from_utf8(built.stdout).unwrap();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("machine");
    let made = Command::new(repository("tests/boot/tree"))
        .args([&place, Path::new("")])
        .args(PACKAGES)
        .status()
        .unwrap();
    assert!(made.success(), "the Debian to boot could not be made");
    let out = tempfile::tempdir_in(&place).unwrap();
    let started = Instant::now();
    let mut machine = Command::new(repository("tests/machine/machine"));
    let status = machine.arg(place.join("tree")).arg(deb.trim_end()).arg(out.path()).status().unwrap();
    let mut log = fs::read_to_string(out.path().join("log")).unwrap_or_default();
    let happened = log.ends_with("all of it happened\n");
    log += &format!("{} seconds with two boots\n", started.elapsed().as_secs());
    eprint!("{log}");
    let console = fs::read(out.path().join("console")).unwrap_or_default();
    assert!(status.success() && happened, "{status}\n{}", String::from_utf8_lossy(&console));
    if let Some(page) = std::env::var_os("SASLD_MACHINE_PAGE") {
        fs::write(page, format!("{INTRODUCTION}\n```\n{log}```\n")).unwrap();
    }
}
