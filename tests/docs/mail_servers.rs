//! Exim and chasquid as Debian packages them, unpacked beside the built programs and not installed: Exim's package and
//! Postfix's exclude each other. Downloaded once; where that cannot be, the caller says what is not tested.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The programs, and the libraries of Exim that a machine with Postfix does not have anyhow.
const PACKAGES: [&str; 5] = ["exim4-daemon-heavy", "chasquid", "libmariadb3", "libidn12", "libspf2-2"];

/// Makes sure that they are in `mail-servers` of the target directory.
pub fn unpack() -> Result<(), String> {
    let target = Path::new(env!("CARGO_BIN_EXE_sasld")).ancestors().nth(2).expect("target/debug/sasld");
    let unpacked = target.join("mail-servers");
    if unpacked.exists() {
        return Ok(());
    }
    let dir = tempfile::tempdir_in(target).map_err(|error| error.to_string())?;
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(dir.path()).output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    };
    run("apt-get", &[&["download"], &PACKAGES[..]].concat())?;
    let packages = fs::read_dir(dir.path()).map_err(|error| error.to_string())?;
    let packages: Vec<_> = packages.map_while(Result::ok).map(|entry| entry.file_name()).collect();
    for package in packages {
        run("dpkg", &["-x", &package.to_string_lossy(), "root"])?;
    }
    let root = dir.path().join("root");
    run("chmod", &["755", "root"])?;
    // Another run may have been faster.
    match fs::rename(&root, &unpacked) {
        Err(error) if !unpacked.exists() => Err(error.to_string()),
        _ => Ok(()),
    }
}
