//! Exim and chasquid as Debian packages them, unpacked beside the built programs and not installed: Exim's package and
//! Postfix's exclude each other. Downloaded once; where that cannot be, the caller says what is not tested.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Downloads the programs, and the libraries of Exim that are not installed; unpacks them below `root`.
const UNPACK: &str = "set -e
only='--no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances'
missing() { [ \"$(dpkg-query -Wf '${db:Status-Abbrev}' \"$1\" 2>/dev/null)\" != 'ii ' ]; }
set -- exim4-daemon-heavy chasquid
for library in $(apt-cache depends --recurse $only exim4-daemon-heavy | grep ^lib | sort -u); do
  if missing $library; then set -- \"$@\" $library; fi
done
apt-get download \"$@\"
for package in *.deb; do dpkg -x $package root; done
chmod 755 root";

/// Makes sure that they are in `mail-servers` of the target directory.
pub fn unpack() -> Result<(), String> {
    let target = Path::new(env!("CARGO_BIN_EXE_sasld")).ancestors().nth(2).expect("target/debug/sasld");
    let unpacked = target.join("mail-servers");
    if unpacked.exists() {
        return Ok(());
    }
    let dir = tempfile::tempdir_in(target).map_err(|error| error.to_string())?;
    let output = Command::new("sh").args(["-c", UNPACK]).current_dir(dir.path()).output();
    let output = output.map_err(|error| format!("sh: {error}"))?;
    if !output.status.success() {
        return Err(format!("unpacking Exim: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let root = dir.path().join("root");
    // Another run may have been faster.
    match fs::rename(&root, &unpacked) {
        Err(error) if !unpacked.exists() => Err(error.to_string()),
        _ => Ok(()),
    }
}
