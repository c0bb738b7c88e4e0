//! Rewriting a secrets file: one writer at a time, and every reader sees the old version or the new one.
//!
//! Writers exclude each other by flock(2) on a lock file beside the secrets file (`.NAME.lock`), which stays there: a
//! lock on the file itself would vanish with each rename, and a lock on the directory could be held by anybody who may
//! list it. Under the lock the temporary file can have a fixed name (`.NAME.new`), and one that a killed writer left is
//! simply replaced. It is private from its first byte, gets the owner, mode and ACL of the old file, is flushed to disk
//! and renamed over it. Behind a symbolic link the target is rewritten. Each failing step is a [`StoreError`] that names
//! the call and the path, and up to the rename the old file is untouched. Whoever has to wait for another writer hears
//! who that is, as far as the kernel tells.

use core::time::Duration;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use rustix::fs::{FlockOperation, OFlags, XattrFlags};
use rustix::io::Errno;
use thiserror::Error;
use zeroize::Zeroizing;

use super::edit::{EditError, SecretsEditor};
use super::load::{self, Fingerprint, LoadError, directory_of};

/// How long [`edit`] normally waits for other writers.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often the lock is tried meanwhile.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// After how long a person wonders what is going on.
const WAIT_NOTICE: Duration = Duration::from_secs(1);

const ACL: &str = "system.posix_acl_access";

/// What to do when the file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Start an empty one, `0640` and of the group of [`Rewrite::readers`], else `0600`.
    Create,
    /// Give [`LoadError::Missing`].
    Refuse,
}

/// Which file to change, and how to wait for it.
#[derive(Clone, Copy)]
pub struct Rewrite<'a> {
    /// The secrets file, or a symbolic link to it.
    pub path: &'a Path,
    /// As in [`Names`](super::Names).
    pub lowercase: bool,
    /// What to do without a file.
    pub missing: Missing,
    /// The group that may read a new file, as far as this process can arrange it.
    pub readers: Option<u32>,
    /// How long to wait for other writers, normally [`LOCK_WAIT`].
    pub wait: Duration,
    /// Called once if the wait takes a second, with the process that holds the lock if the kernel tells.
    pub waiting: &'a dyn Fn(Option<u32>),
}

/// What became of a change.
#[derive(Debug)]
pub struct Edited<T> {
    /// What `change` gave.
    pub outcome: T,
    /// The version that was put in place, from just before the rename, which changes nothing but the last of its times.
    /// `None` when the change left every byte as it was.
    pub installed: Option<Fingerprint>,
}

/// Changes the file under the lock. If `change` fails or changes nothing, nothing is written. Blocks.
///
/// # Errors
/// Those of `change`, and every [`StoreError`]; after [`StoreError::NotDurable`] the change is in the file, after all
/// others it is not.
pub fn edit<T, E: From<StoreError>>(
    rewrite: &Rewrite<'_>,
    change: impl FnOnce(&mut SecretsEditor) -> Result<T, E>,
) -> Result<Edited<T>, E> {
    let target = resolve(rewrite.path, rewrite.missing)?;
    let _lock = lock(&target, rewrite)?;
    let (contents, old) = match load::read(&target, |_| Ok(())) {
        Ok((contents, fingerprint)) => (contents, Some(fingerprint)),
        Err(LoadError::Missing { .. }) if rewrite.missing == Missing::Create => (Zeroizing::default(), None),
        Err(error) => return Err(StoreError::from(error).into()),
    };
    let mut editor = SecretsEditor::new(contents, rewrite.lowercase).map_err(StoreError::from)?;
    let outcome = change(&mut editor)?;
    let installed = match old {
        Some(_) if !editor.is_changed() => None,
        old => Some(replace(&target, old, editor.contents(), rewrite.readers)?),
    };
    Ok(Edited { outcome, installed })
}

/// The text of the file, to look at before [`edit`] changes it. Takes no lock, so [`edit`] may find something else.
///
/// # Errors
/// [`StoreError::Load`] and [`StoreError::Edit`].
pub fn read_text(path: &Path, lowercase: bool) -> Result<SecretsEditor, StoreError> {
    let (contents, _) = load::read(path, |_| Ok(()))?;
    Ok(SecretsEditor::new(contents, lowercase)?)
}

/// The file behind all symbolic links, which need not exist if its directory does.
fn resolve(path: &Path, missing: Missing) -> Result<PathBuf, StoreError> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        resolved => return resolved.map_err(failed("realpath", path)),
    }
    let (true, Some(name), Err(_)) =
        (missing == Missing::Create, path.file_name(), fs::symlink_metadata(path))
    else {
        return Err(LoadError::Missing { path: path.into() }.into());
    };
    let directory = directory_of(path);
    Ok(fs::canonicalize(directory).map_err(failed("realpath", directory))?.join(name))
}

/// The lock is held until the returned file is dropped.
fn lock(target: &Path, rewrite: &Rewrite<'_>) -> Result<File, StoreError> {
    let path = beside(target, ".lock");
    let file =
        private(OpenOptions::new().write(true).create(true)).open(&path).map_err(failed("open", &path))?;
    // The mode at creation is at the mercy of the umask, and the next writer may be another process of this user.
    if file.metadata().is_ok_and(|metadata| metadata.mode() & 0o777 != 0o600) {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("chmod", &path))?;
    }
    let start = Instant::now();
    let mut noticed = false;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) if start.elapsed() < rewrite.wait => {
                if !noticed && start.elapsed() >= WAIT_NOTICE {
                    noticed = true;
                    (rewrite.waiting)(holder(&file));
                }
                thread::sleep(LOCK_RETRY);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                return Err(StoreError::Busy { holder: holder(&file), path, wait: rewrite.wait });
            }
            Err(error) => return Err(failed("flock", &path)(error.into())),
        }
    }
}

/// The process that has the lock on this file, from the kernel's list. It may be none that this process can see.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    holder_among(&fs::read_to_string("/proc/locks").ok()?, &wanted)
}

fn holder_among(locks: &str, wanted: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 1913 fe:00:10068543 0 EOF`; who waits has `->` behind the number.
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", process, inode, ..] = words.as_slice() else { return None };
        process.parse().ok().filter(|process| *inode == wanted && *process != 0)
    })
}

/// Puts `contents` in the place of the version `old`; `None` creates the file.
fn replace(
    target: &Path,
    old: Option<Fingerprint>,
    contents: &[u8],
    readers: Option<u32>,
) -> Result<Fingerprint, StoreError> {
    let temporary = Temporary(beside(target, ".new"));
    let path = temporary.0.as_path();
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("unlink", path)(error)),
        _ => {}
    }
    let mut file =
        private(OpenOptions::new().write(true).create_new(true)).open(path).map_err(failed("open", path))?;
    file.write_all(contents).map_err(failed("write", path))?;
    match old {
        Some(_) => copy_access(target, &file, path)?,
        None => initial_access(&file, path, readers)?,
    }
    file.sync_all().map_err(failed("fsync", path))?;
    let installed = Fingerprint::of(&file.metadata().map_err(failed("stat", path))?);
    // Editors know nothing of the lock. What one of them saved meanwhile must not be lost.
    match fs::metadata(target) {
        Ok(metadata) if Some(Fingerprint::of(&metadata)) == old => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && old.is_none() => {}
        _ => return Err(StoreError::Changed { path: target.into() }),
    }
    fs::rename(path, target).map_err(failed("rename", target))?;
    let directory = directory_of(target);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| StoreError::NotDurable { path: target.into(), source })?;
    Ok(installed)
}

/// Owner first, while the mode still keeps everybody out; then the ACL, which changes the mode; then the mode.
fn copy_access(target: &Path, file: &File, path: &Path) -> Result<(), StoreError> {
    let old = fs::metadata(target).map_err(failed("stat", target))?;
    let new = file.metadata().map_err(failed("stat", path))?;
    let owner = |metadata: &Metadata| (metadata.uid(), metadata.gid());
    if owner(&old) != owner(&new) {
        fchown(file, Some(old.uid()), Some(old.gid())).map_err(failed("chown", path))?;
    }
    match acl(target)? {
        Some(acl) => {
            rustix::fs::fsetxattr(file, ACL, &acl, XattrFlags::empty())
                .map_err(|error| failed("setxattr", path)(error.into()))?;
        }
        None => remove_acl(file, path)?,
    }
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777)).map_err(failed("chmod", path))
}

/// A file created here is readable for the service if this process may arrange it.
fn initial_access(file: &File, path: &Path, readers: Option<u32>) -> Result<(), StoreError> {
    remove_acl(file, path)?;
    let readable = readers.is_some_and(|group| fchown(file, None, Some(group)).is_ok());
    let mode = if readable { 0o640 } else { 0o600 };
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed("chmod", path))
}

fn acl(target: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    const MAX_XATTR_BYTES: usize = 65_536;
    let mut value = vec![0; MAX_XATTR_BYTES];
    match rustix::fs::getxattr(target, ACL, &mut value) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(failed("getxattr", target)(error.into())),
    }
}

/// A directory's default ACL must not open a file that had none to more people.
fn remove_acl(file: &File, path: &Path) -> Result<(), StoreError> {
    match rustix::fs::fremovexattr(file, ACL) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(failed("removexattr", path)(error.into())),
    }
}

/// Options for a file that nobody else may open, and that is no symbolic link.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
}

/// The path of a file that belongs to this one: `/etc/sasld/.secrets.lock` for `/etc/sasld/secrets` and `.lock`.
pub fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(suffix);
    target.with_file_name(name)
}

/// The temporary file, unlinked when it goes out of scope; after the rename its name is free already.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // If this fails, the file does no harm and goes with the next rewrite.
        let _ = fs::remove_file(&self.0);
    }
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Failed { call, path: path.into(), source }
}

/// `process 4711`, or what is known of it.
fn holder_text(holder: Option<u32>) -> String {
    holder.map_or("another program".to_owned(), |process| format!("process {process}"))
}

/// Why a rewrite did not happen, or not for sure.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields as in the messages")]
pub enum StoreError {
    /// The edit itself was refused.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The file could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Other writers held the lock all the time.
    #[error("{path}: {} held the lock for more than {wait:?}", holder_text(*holder), path = path.display())]
    Busy { path: PathBuf, wait: Duration, holder: Option<u32> },
    /// A system call failed.
    #[error("{path}: {call}: {source}", path = path.display())]
    Failed { call: &'static str, path: PathBuf, source: io::Error },
    /// Somebody who does not know the lock wrote the file at the same time.
    #[error("{path}: another program changed it at the same moment; nothing was written", path = path.display())]
    Changed { path: PathBuf },
    /// The directory could not be flushed.
    #[error("{path}: written, but may not survive a power cut: fsync of the directory: {source}", path = path.display())]
    NotDurable { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_neither_who_waits_for_it_nor_who_holds_another() {
        let locks = "1: POSIX  ADVISORY  WRITE 10 fe:00:7 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  READ  12 fe:00:7 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 13 fe:00:7 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 14 fe:00:7 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 0 fe:00:8 0 EOF\n";
        assert_eq!(holder_among(locks, "fe:00:7"), Some(13));
        assert_eq!(holder_among(locks, "fe:00:8"), None, "a process that cannot be seen from here");
        assert_eq!(holder_among(locks, "fe:00:9"), None);
    }
}
