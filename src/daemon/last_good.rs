//! The last configuration that worked, kept for a start with a broken one.
//!
//! After every successful start and reload, the files that were read (their very bytes, not what is on disk by then) are
//! copied to the state directory: into a directory of their own, named after a digest of names and contents, to which the
//! link `last-good` then points. So the copy changes as a whole or not at all, and a torn one, after a power failure
//! on a disk that lies, does not match its name and is not used.
//!
//! Nothing here stops a daemon that runs: a copy that cannot be made (full disk) is a warning, and the one before stays. A
//! start without a usable configuration and without a usable copy ends with the configuration's mistakes, and the copy's.
//!
//! Whoever runs sasld trusts his own copies alone. So root, who finds a state directory of `_sasld`'s, has a place of his own
//! in it, `root`: what was written as `_sasld`, after root was given away, must not tell root what to do at the next start.

use crate::config::{self, Config, ConfigError, Source, SystemAccounts};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

const LINK: &str = "last-good";
const MAIN: &str = "sasld.yaml";

/// How the names of the directories begin that the link points to.
const PREFIX: &str = "good-";

/// Root's own place in a state directory of somebody else's.
const OF_ROOT: &str = "root";

/// The copy, in a state directory.
#[derive(Clone, Debug)]
pub struct LastGood {
    state: PathBuf,
}

/// Where the copy is: the state directory, or root's place in it.
struct Place {
    path: PathBuf,
    /// The path leads through this, so that nobody can put another directory there meanwhile.
    _held: Option<File>,
}

/// What a start works with.
#[derive(Debug)]
pub struct Loaded {
    /// Whole and right.
    pub config: Config,
    /// Where it comes from.
    pub from: Origin,
}

/// Where a configuration comes from.
#[derive(Debug)]
pub enum Origin {
    /// The files as they are, which make the next copy.
    Files(Vec<Source>),
    /// The copy, because of these mistakes in the files.
    Copy(ConfigError),
}

/// Neither the files nor the copy can be used.
#[derive(Debug)]
pub struct NothingGood {
    /// What is wrong with the files.
    pub mistakes: ConfigError,
    /// What is wrong with the copy, if there is one.
    pub copy: Option<String>,
}

impl LastGood {
    /// The copy in this state directory, whether it is there or not.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// The configuration at `path`, or the copy if that cannot be used.
    ///
    /// # Errors
    /// [`NothingGood`]: the copy cannot be used either.
    pub fn load(copy: Option<&Self>, path: &Path) -> Result<Loaded, NothingGood> {
        let mistakes = match read_and_check(path) {
            Ok((config, sources)) => return Ok(Loaded { config, from: Origin::Files(sources) }),
            Err(mistakes) => mistakes,
        };
        match copy.map_or(Ok(None), Self::read) {
            Ok(Some(config)) => Ok(Loaded { config, from: Origin::Copy(mistakes) }),
            Ok(None) => Err(NothingGood { mistakes, copy: None }),
            Err(reason) => Err(NothingGood { mistakes, copy: Some(reason) }),
        }
    }

    /// The copy, if there is one; or what is wrong with it.
    fn read(&self) -> Result<Option<Config>, String> {
        let state = self.state.display();
        let bad = |reason: String| format!("{state}: the last good copy cannot be used: {reason}");
        let place = match self.place() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            place => place.map_err(|error| bad(error.to_string()))?,
        };
        let name = match fs::read_link(place.path.join(LINK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            name => name.map_err(|error| bad(error.to_string()))?,
        };
        // Only our own: a bare name beside the link.
        let directory = place.path.join(name.file_name().unwrap_or_default());
        let sources = config::read(&directory.join(MAIN)).map_err(|error| bad(error.to_string()))?;
        if directory.file_name() != Some(directory_name(&sources).as_ref()) {
            return Err(bad("it is torn: its contents are not those that were saved".to_owned()));
        }
        let config = Config::from_sources(&sources, &SystemAccounts);
        config.map(Some).map_err(|error| bad(error.to_string()))
    }

    /// Makes these files the copy; says whether there was anything to do.
    ///
    /// # Errors
    /// When a file cannot be written. The copy is what it was then.
    pub fn save(&self, sources: &[Source]) -> io::Result<bool> {
        self.make_place_of_root()?;
        let place = self.place()?;
        let name = directory_name(sources);
        let link = place.path.join(LINK);
        let old = fs::read_link(&link).ok();
        if old.as_deref() == Some(Path::new(&name)) && matches!(self.read(), Ok(Some(_))) {
            // It may be on the disk or not, if the last flush failed when it was made.
            flush(&place.path)?;
            remove_others(&place.path, &name);
            return Ok(false);
        }
        let directory = place.path.join(&name);
        let temporary = place.path.join(format!("{LINK}.new"));
        // What an interrupted attempt left.
        remove(&directory)?;
        remove(&temporary)?;
        let written = write_all(&directory, sources).and_then(|()| {
            // The link must not be on the disk before what it points to.
            flush(&place.path)?;
            symlink(&name, &temporary).map_err(failed("symlink", &temporary))?;
            fs::rename(&temporary, &link).map_err(failed("rename", &link))?;
            flush(&place.path)
        });
        if let Err(error) = written {
            let _ = remove(&temporary);
            if fs::read_link(&link).ok().as_deref() != Some(Path::new(&name)) {
                let _ = remove(&directory);
            }
            return Err(error);
        }
        remove_others(&place.path, &name);
        Ok(true)
    }

    /// Our place. It is an error if that is another's, or not there.
    fn place(&self) -> io::Result<Place> {
        if self.is_ours()? {
            return Ok(Place { path: self.state.clone(), _held: None });
        }
        if !geteuid().is_root() {
            return Err(io::Error::other(format!("{} belongs to somebody else", self.state.display())));
        }
        let path = self.state.join(OF_ROOT);
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        let held =
            OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed("open", &path))?;
        let found = held.metadata().map_err(failed("stat", &path))?;
        if found.uid() != 0 || found.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!("{} is not root's alone", path.display())));
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        Ok(Place { path, _held: Some(held) })
    }

    fn make_place_of_root(&self) -> io::Result<()> {
        if self.is_ours()? || !geteuid().is_root() {
            return Ok(());
        }
        let place = self.state.join(OF_ROOT);
        match DirBuilder::new().mode(0o700).create(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("mkdir", &place)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn is_ours(&self) -> io::Result<bool> {
        let metadata = fs::metadata(&self.state).map_err(failed("stat", &self.state))?;
        Ok(metadata.uid() == geteuid().as_raw())
    }
}

/// Reads the configuration, and finds all its mistakes.
///
/// # Errors
/// The mistakes.
pub fn read_and_check(path: &Path) -> Result<(Config, Vec<Source>), ConfigError> {
    let sources = config::read(path)?;
    let config = Config::from_sources(&sources, &SystemAccounts)?;
    Ok((config, sources))
}

/// Where each file goes, below the copy's directory: the main file first, the others in `conf.d`.
fn places(sources: &[Source]) -> impl Iterator<Item = (PathBuf, &Source)> {
    sources.iter().enumerate().map(|(index, source)| {
        let place = match (index, source.path.file_name()) {
            (0, _) | (_, None) => PathBuf::from(MAIN),
            (_, Some(name)) => Path::new("conf.d").join(name),
        };
        (place, source)
    })
}

/// `good-` and half a SHA-256 of names, lengths and contents.
fn directory_name(sources: &[Source]) -> String {
    let mut digest = Sha256::new();
    for (place, Source { contents, .. }) in places(sources) {
        let place = place.as_os_str().as_encoded_bytes();
        digest.update((place.len() as u64).to_le_bytes());
        digest.update(place);
        digest.update((contents.len() as u64).to_le_bytes());
        digest.update(contents);
    }
    let mut name = PREFIX.to_owned();
    for byte in &digest.finalize()[..16] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The files in a new directory, on the disk when this returns.
fn write_all(directory: &Path, sources: &[Source]) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder.create(directory).map_err(failed("mkdir", directory))?;
    let folder = directory.join("conf.d");
    if sources.len() > 1 {
        builder.create(&folder).map_err(failed("mkdir", &folder))?;
    }
    for (place, Source { contents, .. }) in places(sources) {
        let path = directory.join(place);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.map_err(failed("open", &path))?;
        file.write_all(contents).map_err(failed("write", &path))?;
        file.sync_all().map_err(failed("fsync", &path))?;
    }
    if sources.len() > 1 {
        flush(&folder)?;
    }
    flush(directory)
}

/// The names in this directory, on the disk when this returns.
fn flush(directory: &Path) -> io::Result<()> {
    let opened = File::open(directory).map_err(failed("open", directory))?;
    opened.sync_all().map_err(failed("fsync", directory))
}

/// Earlier copies, and what attempts left that were killed. What stays is in nobody's way.
fn remove_others(place: &Path, name: &str) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let other = entry.file_name();
        if other != name && other.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            let _ = remove(&entry.path());
        }
    }
}

/// The error, with the path and the call.
fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {call}: {error}", path.display()))
}

/// Removes what is there, if anything is.
fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("unlink", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};
    use tempfile::TempDir;

    fn sources(main: &str, more: &[(&str, &str)]) -> Vec<Source> {
        let mut all = vec![Source::new("/etc/sasld/sasld.yaml", main)];
        all.extend(
            more.iter().map(|(name, text)| Source::new(Path::new("/etc/sasld/conf.d").join(name), *text)),
        );
        all
    }

    /// A configuration without users and groups of this machine.
    const TCP: &str = "listeners: [{tcp: 127.0.0.1:12345}]\n";

    fn saved(main: &str, more: &[(&str, &str)]) -> (TempDir, LastGood) {
        let state = tempfile::tempdir().unwrap();
        let last_good = LastGood::new(state.path());
        assert!(last_good.save(&sources(main, more)).unwrap());
        (state, last_good)
    }

    #[test]
    fn what_was_saved_is_read_with_what_conf_d_changed() {
        let (state, last_good) = saved(TCP, &[("10-log.yaml", "log_level: debug\n")]);
        let config = last_good.read().unwrap().unwrap();
        assert_eq!(config.log_level, config::LogLevel::Debug);
        for path in ["last-good", "last-good/sasld.yaml", "last-good/conf.d/10-log.yaml"] {
            let mode = fs::metadata(state.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{path}");
        }
    }

    #[test]
    fn the_same_again_is_nothing_to_do_and_another_one_replaces_it() {
        let (state, last_good) = saved(TCP, &[("10-log.yaml", "log_level: debug\n")]);
        assert!(!last_good.save(&sources(TCP, &[("10-log.yaml", "log_level: debug\n")])).unwrap());
        assert!(last_good.save(&sources(TCP, &[])).unwrap());
        assert_eq!(last_good.read().unwrap().unwrap().log_level, config::LogLevel::Info);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 2, "the link and one directory");
    }

    #[test]
    fn a_torn_copy_is_refused_even_if_what_is_left_is_a_configuration() {
        let (state, last_good) = saved(&format!("{TCP}refusal_delay: 1s\n"), &[]);
        fs::write(state.path().join("last-good/sasld.yaml"), TCP).unwrap();
        assert!(last_good.read().unwrap_err().contains("torn"));
        assert!(last_good.save(&sources(&format!("{TCP}refusal_delay: 1s\n"), &[])).unwrap(), "saved anew");
        assert!(last_good.read().unwrap().is_some());
    }

    #[test]
    fn a_file_that_disappeared_from_the_copy_is_missed() {
        let (state, last_good) = saved(TCP, &[("10-log.yaml", "log_level: debug\n")]);
        fs::remove_file(state.path().join("last-good/conf.d/10-log.yaml")).unwrap();
        assert!(last_good.read().unwrap_err().contains("torn"));
    }

    #[test]
    fn what_an_interrupted_save_left_is_in_nobodys_way() {
        let (state, last_good) = saved(TCP, &[]);
        let next = sources(TCP, &[("a.yaml", "log_level: warn\n")]);
        fs::create_dir(state.path().join(directory_name(&next))).unwrap();
        symlink("nowhere", state.path().join("last-good.new")).unwrap();
        assert!(last_good.save(&next).unwrap());
        assert_eq!(last_good.read().unwrap().unwrap().log_level, config::LogLevel::Warn);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_link_to_elsewhere_is_not_followed() {
        let (state, last_good) = saved(TCP, &[]);
        let elsewhere = tempfile::tempdir().unwrap();
        let other = LastGood::new(elsewhere.path());
        other.save(&sources(TCP, &[("a.yaml", "log_level: warn\n")])).unwrap();
        let target = fs::canonicalize(elsewhere.path().join(LINK)).unwrap();
        fs::remove_file(state.path().join(LINK)).unwrap();
        symlink(target, state.path().join(LINK)).unwrap();
        assert!(last_good.read().is_err());
    }

    #[test]
    fn nothing_saved_is_no_copy_and_no_mistake() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(LastGood::new(state.path()).read(), Ok(None));
    }

    /// A state directory of another user's; `None` without root, who alone can make one.
    fn of_another() -> Option<(TempDir, LastGood)> {
        let state = tempfile::tempdir().unwrap();
        chown(state.path(), Some(65534), None).ok()?;
        let last_good = LastGood::new(state.path());
        Some((state, last_good))
    }

    #[test]
    fn root_has_a_place_of_its_own_in_a_state_directory_of_anothers() {
        let Some((state, last_good)) = of_another() else { return };
        assert_eq!(last_good.read(), Ok(None));
        assert!(last_good.save(&sources(TCP, &[("a.yaml", "log_level: warn\n")])).unwrap());
        assert_eq!(last_good.read().unwrap().unwrap().log_level, config::LogLevel::Warn);
        assert!(!last_good.save(&sources(TCP, &[("a.yaml", "log_level: warn\n")])).unwrap());
        let place = fs::metadata(state.path().join(OF_ROOT)).unwrap();
        assert_eq!((place.uid(), place.mode() & 0o777), (0, 0o700));
    }

    #[test]
    fn root_takes_no_copy_that_another_may_have_written() {
        let Some((state, last_good)) = of_another() else { return };
        let theirs = tempfile::tempdir().unwrap();
        LastGood::new(theirs.path()).save(&sources(TCP, &[])).unwrap();
        // In the state directory itself, in a directory of theirs, and behind a link.
        fs::rename(theirs.path(), state.path().join("copy")).unwrap();
        let target = fs::read_link(state.path().join("copy/last-good")).unwrap();
        symlink(&target, state.path().join(LINK)).unwrap();
        fs::create_dir(state.path().join(&target)).unwrap();
        fs::copy(state.path().join("copy/last-good/sasld.yaml"), state.path().join(&target).join(MAIN))
            .unwrap();
        assert_eq!(last_good.read(), Ok(None));
        symlink("copy", state.path().join(OF_ROOT)).unwrap();
        assert!(last_good.read().is_err());
        assert!(last_good.save(&sources(TCP, &[])).is_err());
        fs::remove_file(state.path().join(OF_ROOT)).unwrap();
        fs::rename(state.path().join("copy"), state.path().join(OF_ROOT)).unwrap();
        assert!(last_good.read().unwrap().is_some(), "the directory is root's so far");
        chown(state.path().join(OF_ROOT), Some(65534), None).unwrap();
        assert!(last_good.read().is_err());
    }
}
