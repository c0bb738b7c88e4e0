//! The files on disk: `sasld.yaml`, and `*.yaml` in the folder `conf.d` beside it, in name order.
//!
//! The configuration decides who is let in, so a file or folder that a stranger could have written
//! is refused: it must belong to root or to whoever runs sasld, and not be writable by everybody.
//! Each file is judged and read through the same descriptor. Everything here blocks, briefly.

use std::ffi::OsStr;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

use super::check::Source;
use super::file::MAX_FILE_BYTES;
use super::mistake::Mistake;
use super::{AnyAccounts, Config, ConfigError, SystemAccounts};

/// Where the configuration is unless a command is told otherwise.
pub const DEFAULT_PATH: &str = "/etc/sasld/sasld.yaml";

impl Config {
    /// Reads and checks the file at `path` and those of `conf.d` beside it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Missing`] without the main file, [`ConfigError::Unreadable`] for the first
    /// file or folder that cannot be read, otherwise [`ConfigError::Invalid`] with every mistake.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_sources(&read(path)?, &SystemAccounts)
    }

    /// The same for who starts no listener: whether the users and groups in it exist does not matter.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn load_without_accounts(path: &Path) -> Result<Self, ConfigError> {
        Self::from_sources(&read(path)?, &AnyAccounts)
    }
}

/// The file at `path` and those of `conf.d` beside it, as they are.
///
/// # Errors
///
/// As [`Config::load`]; [`ConfigError::Invalid`] only for files that strangers could have written.
pub fn read(path: &Path) -> Result<Vec<Source>, ConfigError> {
    let mut mistakes = Vec::new();
    let mut sources = Vec::new();
    let mut paths = vec![path.to_owned()];
    paths.extend(conf_d(path, &mut mistakes)?);
    for path in paths {
        match read_file(&path)? {
            Ok(contents) => sources.push(Source { path, contents }),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(sources) } else { Err(ConfigError::Invalid(mistakes)) }
}

fn unreadable(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ConfigError {
    move |source| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            ConfigError::Missing { path }
        } else {
            ConfigError::Unreadable { path, call, source }
        }
    }
}

/// The files of the folder `conf.d` beside `main`; hidden ones are left to the editors that made
/// them. There may be no such folder.
fn conf_d(main: &Path, mistakes: &mut Vec<Mistake>) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = main.with_file_name("conf.d");
    let metadata = match fs::metadata(&folder) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable("stat", &folder)(error)),
    };
    if let Some(what) = distrusted(&metadata, geteuid().as_raw()) {
        mistakes.push(Mistake::of_file(&folder, what));
    }
    let entries = fs::read_dir(&folder).map_err(unreadable("readdir", &folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable("readdir", &folder))?.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if !hidden && Path::new(&name).extension() == Some(OsStr::new("yaml")) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// The contents of one file, at most one byte more than is allowed, or why it is not trusted.
fn read_file(path: &Path) -> Result<Result<Vec<u8>, Mistake>, ConfigError> {
    // Opening a named pipe would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(unreadable("open", path))?;
    let metadata = file.metadata().map_err(unreadable("stat", path))?;
    if !metadata.is_file() {
        return Ok(Err(Mistake::of_file(path, "not a regular file")));
    }
    if let Some(what) = distrusted(&metadata, geteuid().as_raw()) {
        return Ok(Err(Mistake::of_file(path, what)));
    }
    let mut contents = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut contents).map_err(unreadable("read", path))?;
    Ok(Ok(contents))
}

/// Why a file or folder could have been written by a stranger.
fn distrusted(metadata: &Metadata, euid: u32) -> Option<String> {
    distrusted_mode(metadata.mode(), metadata.uid(), euid)
}

fn distrusted_mode(mode: u32, owner: u32, euid: u32) -> Option<String> {
    if mode & 0o002 != 0 {
        let mode = mode & 0o7777;
        return Some(format!("mode {mode:04o} lets everybody write to it; chmod o-w"));
    }
    if owner != 0 && owner != euid {
        return Some(format!("belongs to uid {owner}; expected root or uid {euid}, who runs this"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_whoever_runs_sasld_may_own_a_configuration() {
        assert_eq!(distrusted_mode(0o100_644, 0, 998), None);
        assert_eq!(distrusted_mode(0o100_640, 998, 998), None);
        assert_eq!(
            distrusted_mode(0o100_640, 1000, 998).as_deref(),
            Some("belongs to uid 1000; expected root or uid 998, who runs this")
        );
    }

    #[test]
    fn a_configuration_everybody_can_write_is_refused_whoever_owns_it() {
        assert_eq!(
            distrusted_mode(0o100_666, 0, 0).as_deref(),
            Some("mode 0666 lets everybody write to it; chmod o-w")
        );
        assert!(distrusted_mode(0o040_777, 998, 998).is_some());
    }
}
