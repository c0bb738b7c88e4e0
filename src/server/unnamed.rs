//! Unix sockets before they have their name.
//!
//! A socket is bound under a temporary name beside its own, gets its owner and mode, listens, and is then renamed into
//! place. So clients find either the old socket or one that is ready for them, and after an error everything is as it was.
//! Needs no runtime: `sasld-pam` binds its socket with it, too. Errors are [`BindError`]s, for whoever starts the program.

use super::listener::BindError;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchownat};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A Unix socket that listens, without blocking, under a temporary name; needs no runtime.
pub struct UnnamedSocket {
    listener: UnixListener,
    temporary: Temporary,
    path: PathBuf,
}

/// A name that is removed when it goes out of scope, if it is still there.
struct Temporary(PathBuf);

impl UnnamedSocket {
    /// Makes a socket that [`place`](Self::place) puts at `path`, with this mode from its first moment.
    ///
    /// # Errors
    /// See [`BindError`]. Everything is as it was then.
    pub fn bind(path: &Path, owner: Option<Uid>, group: Option<Gid>, mode: u32) -> Result<Self, BindError> {
        let endpoint = path.display().to_string();
        if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(BindError::NotASocket(endpoint));
        }
        let failed = |step| {
            let endpoint = endpoint.clone();
            move |source| BindError::System { endpoint, step, source }
        };
        // The temporary name may be short enough where this one is not.
        UnixAddr::new(path).map_err(|errno| failed("bind")(errno.into()))?;
        let temporary = Temporary(temporary_beside(path));
        let _ = fs::remove_file(&temporary.0);
        let listener = bind_unix(&temporary.0, mode).map_err(failed("bind"))?;
        give_to(&temporary.0, owner, group).map_err(failed("set owner and group"))?;
        Ok(Self { listener, temporary, path: path.to_owned() })
    }

    /// Where it will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it where clients look for it, in place of a stale one or of our own.
    ///
    /// # Errors
    /// [`BindError::System`].
    pub fn place(self) -> Result<UnixListener, BindError> {
        let Self { listener, temporary, path } = self;
        fs::rename(&temporary.0, &path).map_err(|source| {
            let endpoint = path.display().to_string();
            BindError::System { endpoint, step: "rename into place", source }
        })?;
        Ok(listener)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A Unix socket listening at `path`, which has this mode from its first moment.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    // The file gets the mode of the socket, less the umask. The backlog is as long as the kernel allows.
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Sets owner and group, if they are others than they should be: a system call filter may forbid even to ask.
fn give_to(path: &Path, owner: Option<Uid>, group: Option<Gid>) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    let owner = owner.filter(|owner| owner.as_raw() != found.uid());
    let group = group.filter(|group| group.as_raw() != found.gid());
    if owner.is_none() && group.is_none() {
        return Ok(());
    }
    // Whoever owns the directory could put a link here: it is not followed.
    Ok(fchownat(AT_FDCWD, path, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

/// A name in the same directory that no other socket has which is being prepared.
fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{:x}-{number:x}", std::process::id()))
}
