//! Reading a secrets file: judged first, read whole, and only believed if it held still meanwhile.
//!
//! What is judged is the open descriptor: a regular file, owned by root or the service, writable by its owner alone,
//! readable besides by nobody or one trusted group; and the directories the path leads through last. Symbolic links
//! are followed, their target is what counts. Nothing here waits on a FIFO or allocates for a huge sparse file.
//! A [`LoadError`] names the path, the fault and the command that mends it; whoever holds contents already keeps them.

use core::fmt;
use core::time::Duration;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::{Group, User};
use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Names, SERVICE_ACCOUNT, Secrets};

/// Largest file that is read.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// How often a read is tried when the file is replaced at the same moment.
const READ_ATTEMPTS: usize = 5;

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions<'a> {
    /// The rules for user names.
    pub names: Names<'a>,
    /// Who may own the file and whose group may read it. `None` loads a file whoever can reach it: for commands that
    /// show what is in it, never for a daemon.
    pub trust: Option<&'a Trust>,
    /// The contents in force. With them, a file that lost all its bytes or its last newline is an error, because
    /// somebody is about to write it; without them, it is read as far as it goes.
    pub previous: Option<&'a Secrets>,
}

/// A version of the file.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub secrets: Secrets,
    /// Which version it is, to be compared with [`fingerprint`].
    pub fingerprint: Fingerprint,
}

/// Loads the file. Blocks for as long as reading takes.
///
/// # Errors
/// Trouble with the file as a whole. Broken lines are no error, see [`Secrets::problems`].
pub fn load(path: &Path, options: &LoadOptions<'_>) -> Result<Loaded, LoadError> {
    if let Some(trust) = options.trust {
        judge_directories(path, trust)?;
    }
    let accept = |metadata: &Metadata| options.trust.map_or(Ok(()), |trust| judge(path, metadata, trust));
    let (contents, fingerprint) = read(path, accept)?;
    if let Some(previous) = options.previous {
        if contents.is_empty() && !previous.is_empty() {
            return Err(LoadError::Emptied { path: path.into(), users: previous.len() });
        }
        if contents.last().is_some_and(|last| *last != b'\n') {
            return Err(LoadError::Torn { path: path.into() });
        }
    }
    Ok(Loaded { secrets: Secrets::parse(contents, &options.names), fingerprint })
}

/// Which version of the file is at the path now. Opens nothing and never waits.
///
/// # Errors
/// [`LoadError::Missing`] and [`LoadError::Unreadable`].
pub fn fingerprint(path: &Path) -> Result<Fingerprint, LoadError> {
    Ok(Fingerprint::of(&fs::metadata(path).map_err(LoadError::of("stat", path))?))
}

/// Whether owner, modes and directories would let [`load`] accept the file.
///
/// # Errors
/// What it would say, except about the contents.
pub fn check_access(path: &Path, trust: &Trust) -> Result<(), LoadError> {
    judge_directories(path, trust)?;
    let metadata = fs::metadata(path).map_err(LoadError::of("stat", path))?;
    check_type(path, &metadata)?;
    judge(path, &metadata, trust)
}

/// What tells two versions of a file apart: device, inode, size, and both times of change in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Device and inode.
    #[must_use]
    pub fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// In bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When the contents last changed, in nanoseconds since 1970.
    #[must_use]
    pub fn modified_ns(&self) -> i64 {
        self.modified.0.saturating_mul(1_000_000_000).saturating_add(self.modified.1)
    }

    /// Whether both are versions of one inode: the file was then written in place, not replaced, and whoever does
    /// that may not be done. Wait for some [age](Self::age) before loading it.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// How long before `now` the file last changed; zero if the clock says after. Kernels count time in ticks of some
    /// milliseconds, so a version younger than that may be followed by one with the same fingerprint: load it again
    /// once it has come of age.
    pub fn age(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = u64::try_from(self.changed.0).unwrap_or_default();
        let nanoseconds = u32::try_from(self.changed.1).unwrap_or_default();
        now.saturating_sub(Duration::new(seconds, nanoseconds))
    }
}

/// Who may own a secrets file, and which groups may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    users: Vec<u32>,
    groups: Vec<u32>,
    service_group: Option<u32>,
}

impl Trust {
    /// These user ids as owners, these group ids as readers, and nobody else.
    #[must_use]
    pub fn only(users: &[u32], groups: &[u32]) -> Self {
        Self { users: users.to_vec(), groups: groups.to_vec(), service_group: None }
    }

    /// Root, this process, and the service's account if it exists. Asks the user database, which may block.
    pub fn of_process() -> Self {
        let service_user = User::from_name(SERVICE_ACCOUNT).ok().flatten();
        let service_group = Group::from_name(SERVICE_ACCOUNT).ok().flatten();
        let own_groups = rustix::process::getgroups().unwrap_or_default();
        let mut users = vec![0, rustix::process::geteuid().as_raw()];
        let mut groups = vec![0, rustix::process::getegid().as_raw()];
        users.extend(service_user.map(|user| user.uid.as_raw()));
        let service_group = service_group.map(|group| group.gid.as_raw());
        groups.extend(service_group);
        groups.extend(own_groups.into_iter().map(rustix::process::Gid::as_raw));
        Self { users, groups, service_group }
    }

    /// The group of the service's account, if it exists: who else may read a new file.
    #[must_use]
    pub fn service_group(&self) -> Option<u32> {
        self.service_group
    }
}

/// Reads the whole file into one block that is never moved, so that no copy escapes the wiping. `accept` sees the
/// open file's metadata before anything is read.
pub(super) fn read(
    path: &Path,
    accept: impl Fn(&Metadata) -> Result<(), LoadError>,
) -> Result<(Zeroizing<Vec<u8>>, Fingerprint), LoadError> {
    for _ in 0..READ_ATTEMPTS {
        let file = open(path)?;
        let unreadable = |call| move |source| LoadError::Unreadable { path: path.into(), call, source };
        let metadata = file.metadata().map_err(unreadable("stat"))?;
        check_type(path, &metadata)?;
        accept(&metadata)?;
        let too_large = || LoadError::TooLarge { path: path.into(), bytes: metadata.size() };
        if metadata.size() > MAX_FILE_BYTES {
            return Err(too_large());
        }
        let size = usize::try_from(metadata.size()).map_err(|_| too_large())?;
        let mut contents = Zeroizing::new(Vec::new());
        contents.try_reserve_exact(size).map_err(|_| too_large())?;
        // No more than the reserved bytes are taken, so the vector does not grow.
        (&file).take(metadata.size()).read_to_end(&mut contents).map_err(unreadable("read"))?;
        let fingerprint = Fingerprint::of(&metadata);
        if Fingerprint::of(&file.metadata().map_err(unreadable("stat"))?) == fingerprint
            && contents.len() == size
        {
            return Ok((contents, fingerprint));
        }
    }
    Err(LoadError::Changing { path: path.into() })
}

fn open(path: &Path) -> Result<File, LoadError> {
    // Opening a device can have effects and a FIFO would wait for a writer, so look first; and should the file be
    // exchanged in between, O_NONBLOCK keeps the open from waiting and the descriptor is judged again.
    check_type(path, &fs::metadata(path).map_err(LoadError::of("stat", path))?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(LoadError::of("open", path))
}

fn check_type(path: &Path, metadata: &Metadata) -> Result<(), LoadError> {
    let file_type = metadata.file_type();
    let kind = match () {
        () if file_type.is_file() => return Ok(()),
        () if file_type.is_dir() => "a directory",
        () if file_type.is_fifo() => "a FIFO",
        () if file_type.is_socket() => "a socket",
        () => "a device",
    };
    Err(LoadError::NotAFile { path: path.into(), kind })
}

/// Owner and mode of the file itself.
fn judge(path: &Path, metadata: &Metadata, trust: &Trust) -> Result<(), LoadError> {
    let (mode, group) = (metadata.mode() & 0o7777, metadata.gid());
    let fault = if !trust.users.contains(&metadata.uid()) {
        Insecurity::Owner { user: metadata.uid() }
    } else if mode & 0o007 != 0 {
        Insecurity::Others { mode }
    } else if mode & 0o020 != 0 {
        Insecurity::GroupWritable { mode }
    } else if mode & 0o050 != 0 && !trust.groups.contains(&group) {
        Insecurity::Group { group, mode }
    } else {
        return Ok(());
    };
    Err(LoadError::Insecure { path: path.into(), fault })
}

/// The directory of the path and, behind a symbolic link, that of the target: who can write there can exchange the
/// file, unless the sticky bit keeps files to their owners.
fn judge_directories(path: &Path, trust: &Trust) -> Result<(), LoadError> {
    const STICKY: u32 = 0o1000;
    let target = fs::canonicalize(path).map_err(LoadError::of("realpath", path))?;
    for directory in [directory_of(path), directory_of(&target)] {
        let metadata = fs::metadata(directory).map_err(LoadError::of("stat", directory))?;
        let mode = metadata.mode() & 0o7777;
        let group_writable = mode & 0o020 != 0 && !trust.groups.contains(&metadata.gid());
        if mode & STICKY == 0 && (mode & 0o002 != 0 || group_writable) {
            let fault = Insecurity::Directory { directory: directory.into(), mode };
            return Err(LoadError::Insecure { path: path.into(), fault });
        }
    }
    Ok(())
}

/// The directory a path lies in: `.` for a bare file name.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Trouble with the file as a whole.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it, and `path` is the file's path")]
pub enum LoadError {
    #[error("{path}: there is no such file", path = path.display())]
    Missing { path: PathBuf },
    #[error("{path}: cannot be read: {call}: {source}", path = path.display())]
    Unreadable { path: PathBuf, call: &'static str, source: io::Error },
    #[error("{path}: is {kind}, not a regular file", path = path.display())]
    NotAFile { path: PathBuf, kind: &'static str },
    #[error("{path}: {fault}; mend it with: {mend}", path = path.display(), mend = fault.mend(path))]
    Insecure { path: PathBuf, fault: Insecurity },
    #[error("{path}: has {bytes} bytes, at most {MAX_FILE_BYTES} are read", path = path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{path}: kept changing while it was read", path = path.display())]
    Changing { path: PathBuf },
    #[error("{path}: does not end in a newline, so it is taken for still being written", path = path.display())]
    Torn { path: PathBuf },
    #[error("{path}: is empty now, it had {users} users", path = path.display())]
    Emptied { path: PathBuf, users: usize },
}

impl LoadError {
    fn of(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.into() },
            _ => Self::Unreadable { path: path.into(), call, source },
        }
    }
}

/// Who could read or change the file but should not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "numeric ids and modes as in stat(2)")]
pub enum Insecurity {
    /// It belongs to somebody who is neither root nor the service.
    Owner { user: u32 },
    /// Users outside its group can reach it.
    Others { mode: u32 },
    /// Its group can write to it.
    GroupWritable { mode: u32 },
    /// Its group can read it and is none of the trusted ones.
    Group { group: u32, mode: u32 },
    /// The file can be exchanged by others.
    Directory { directory: PathBuf, mode: u32 },
}

impl fmt::Display for Insecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { user } => write!(f, "belongs to user id {user}, not to root or the service"),
            Self::Others { mode } => {
                let what = if mode & 0o002 != 0 { "write" } else { "read" };
                write!(f, "mode {mode:04o} lets every local user {what} it")
            }
            Self::GroupWritable { mode } => write!(f, "mode {mode:04o} lets its group write it"),
            Self::Group { group, mode } => {
                write!(f, "mode {mode:04o} lets group id {group} read it, which is not the service's")
            }
            Self::Directory { directory, mode } => {
                write!(f, "others can exchange it, directory {} has mode {mode:04o}", directory.display())
            }
        }
    }
}

impl Insecurity {
    /// The command that takes this fault away.
    #[must_use]
    pub fn mend(&self, path: &Path) -> String {
        match self {
            Self::Owner { .. } => format!("chown root {}", path.display()),
            Self::Others { .. } | Self::GroupWritable { .. } => format!("chmod 0640 {}", path.display()),
            Self::Group { .. } => format!("chgrp {SERVICE_ACCOUNT} {}", path.display()),
            Self::Directory { directory, .. } => format!("chmod go-w {}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;

    use super::*;

    #[test]
    fn what_changes_while_it_is_read_is_read_again_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets");
        for (changes, expected) in [(0, Some("a")), (2, Some("abb")), (READ_ATTEMPTS, None)] {
            fs::write(&path, "a").unwrap();
            let changed = Cell::new(0);
            let change = |_: &Metadata| {
                if changed.get() < changes {
                    changed.set(changed.get() + 1);
                    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"b").unwrap();
                }
                Ok(())
            };
            match (read(&path, change), expected) {
                (Ok((contents, _)), Some(expected)) => assert_eq!(*contents, expected.as_bytes()),
                (Err(LoadError::Changing { .. }), None) => {}
                (other, _) => panic!("{changes} changes: {other:?}"),
            }
        }
    }

    #[test]
    fn a_file_is_opened_so_that_nothing_is_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let flags = rustix::fs::fcntl_getfl(open(file.path()).unwrap()).unwrap();
        assert!(flags.contains(OFlags::NONBLOCK), "{flags:?}");
    }

    #[test]
    fn a_bare_file_name_lies_in_the_directory_that_is_current() {
        for (path, directory) in
            [("secrets", "."), ("a/secrets", "a"), ("/secrets", "/"), ("/a/secrets", "/a"), ("/", "/")]
        {
            assert_eq!(directory_of(Path::new(path)), Path::new(directory), "{path}");
        }
    }

    #[test]
    fn the_group_of_the_service_is_kept_where_there_is_one() {
        let trust = Trust { service_group: Some(7), ..Trust::only(&[], &[]) };
        assert_eq!(trust.service_group(), Some(7));
    }
}
