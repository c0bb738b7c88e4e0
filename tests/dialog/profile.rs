//! Profiles: named sets of users and settings, `protocol-fixtures/profiles/<name>/`.
//!
//! `secrets` is the users' file, given to both servers byte for byte; without it there is no such file.
//! `sasld.yaml` is the rest of sasld's configuration, `dovecot.conf` what Dovecot needs to do the same, and
//! `dovecot-2.4.conf` what Dovecot 2.4 needs; `{dir}` in them is the server's private folder.

use std::fs;
use std::path::{Path, PathBuf};

/// A profile as read from disk.
pub struct Profile {
    folder: PathBuf,
}

impl Profile {
    /// # Panics
    /// When there is no such folder.
    pub fn named(name: &str) -> Self {
        let folder = super::fixtures().join("profiles").join(name);
        assert!(folder.is_dir(), "no profile {}", folder.display());
        Self { folder }
    }

    /// The secrets file, if the profile has one.
    pub fn secrets(&self) -> Option<Vec<u8>> {
        fs::read(self.folder.join("secrets")).ok()
    }

    /// One of the configuration files, for a server whose private folder is `dir`.
    pub fn configuration(&self, file: &str, dir: &Path) -> String {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.replace("{dir}", &dir.display().to_string())
    }
}
