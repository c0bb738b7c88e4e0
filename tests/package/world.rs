//! A package and a Debian to try it in; see `tests/package/world` for what surrounds a scenario.

use crate::support::skip::not_tested;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Two packages: the one this checkout makes, and one that differs by its version and a line of `sasld.yaml`.
pub struct Package {
    pub new: PathBuf,
    old: PathBuf,
}

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a command prints, which has to succeed.
pub fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// The package, built if need be. `None` where there is no Debian and that may be.
pub fn package() -> Option<Package> {
    if Command::new("dpkg-deb").arg("--version").stdout(Stdio::null()).status().is_err() {
        not_tested("the Debian package needs Debian's tools (packaging/dev/need package)");
        return None;
    }
    let new = PathBuf::from(output(&mut Command::new(repository("packaging/dev/deb"))).trim_end());
    let old = PathBuf::from(output(Command::new(repository("tests/package/old")).arg(&new)).trim_end());
    Some(Package { new, old })
}

/// Runs lines of shell, with the words of `scenario.sh`, in a fresh minimal Debian.
pub fn scenario(script: &str) {
    scenario_with_output(script);
}

/// The same, and what it left in `/out`. `None` where it cannot run and need not.
pub fn scenario_with_output(script: &str) -> Option<TempDir> {
    if !nix::unistd::getuid().is_root() {
        not_tested("a chroot needs root");
        return None;
    }
    let package = package()?;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("package");
    output(Command::new(repository("tests/package/base")).arg(&directory));
    let out = tempfile::tempdir().unwrap();
    let run = Command::new("unshare")
        .args([
            "--mount",
            "--propagation=private",
            "--net",
            "--ipc",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
        ])
        .arg(repository("tests/package/world"))
        .arg(&directory)
        .arg(script)
        .args([out.path(), &package.new, &package.old])
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    assert!(
        run.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    Some(out)
}
