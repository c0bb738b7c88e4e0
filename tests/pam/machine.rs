//! A machine with users of its own for one sasld: a mount namespace whose `/etc` holds users, groups and PAM services, and
//! nothing else. Nobody else sees it, and it ends with the process.
//!
//! (Files of the real `/etc` could not be covered one by one: the mounts would go whenever somebody replaces one.)

use crate::daemon::sasld_under;
use crate::harness::{Folder, LocalUser, can_make_users};
use crate::support::sasld::Sasld;
use crate::support::skip::not_tested;
use nix::unistd::{Gid, Uid};
use std::fs;
use std::process::Command;

/// The first of those who are added; far from everybody else's.
const FIRST_UID: u32 = 64_100;

const PASSWORD: &str = "S3cret pass";

/// Mounts the folder's etc over the real one, gives the secrets to whoever will read them, and becomes the program.
const ENTER: &str = "mount --bind \"$0/etc\" /etc && chown \"$1\" \"$0/secrets\" && shift && exec \"$@\"";

/// Whether tests may make machines. Says aloud when they may not.
pub fn can_make_machines() -> bool {
    if !can_make_users() {
        return false;
    }
    let mount = "mount --bind /etc /etc";
    let made =
        Command::new("unshare").args(["--mount", "--propagation", "private", "sh", "-c", mount]).status();
    let can = made.is_ok_and(|status| status.success());
    if !can {
        not_tested("sasld on a machine of its own: it takes the right to mount");
    }
    can
}

/// See the module's head.
pub struct Machine {
    folder: Folder,
    user: LocalUser,
    services: Vec<&'static str>,
}

impl Machine {
    /// The users of this machine, one more with a password, and these users of services; no other of sasld's.
    pub fn new(services: &[&'static str]) -> Self {
        let folder = Folder::new();
        let user = LocalUser::new(PASSWORD);
        fs::create_dir_all(folder.path().join("etc/pam.d")).expect("a folder");
        for name in ["passwd", "group", "shadow"] {
            let file = fs::read_to_string(format!("/etc/{name}")).expect("the user database");
            let mut lines: Vec<String> =
                file.lines().filter(|line| !line.starts_with("_sasld")).map(str::to_owned).collect();
            for (uid, service) in (FIRST_UID..).zip(services) {
                lines.push(match name {
                    "passwd" => format!("{service}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin"),
                    "group" => format!("{service}:x:{uid}:"),
                    _ => format!("{service}:!*:20000::::::"),
                });
            }
            let path = folder.write(&format!("etc/{name}"), &(lines.join("\n") + "\n"));
            let metadata = fs::metadata(format!("/etc/{name}")).expect("the user database");
            std::os::unix::fs::chown(&path, None, Some(std::os::unix::fs::MetadataExt::gid(&metadata)))
                .expect("the file's group");
            fs::set_permissions(&path, metadata.permissions()).expect("the file's mode");
        }
        let stack = "auth required pam_unix.so\naccount required pam_unix.so\n";
        folder.write("etc/pam.d/sasld", stack);
        folder.write("etc/pam.d/other", "auth required pam_deny.so\naccount required pam_deny.so\n");
        Self { folder, user, services: services.to_vec() }
    }

    /// sasld on this machine, with nobody on the socket of `sasld-pam`.
    pub fn start(&self) -> Sasld {
        let folder = self.folder.path();
        let owner = self.services.first().copied().unwrap_or("root");
        let place = folder.to_str().expect("a plain path");
        let program = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, place, owner];
        let us = (Uid::effective(), Gid::effective());
        let nobody_listens = folder.join("nobody-listens");
        sasld_under(&program, &self.folder, us, &nobody_listens, &["--min-uid=1000"], "")
    }

    /// Who can log in.
    pub fn user(&self) -> &str {
        &self.user.name
    }

    /// His password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The user id, and group id, of one of the services' users.
    pub fn uid(&self, service: &str) -> u32 {
        let place = self.services.iter().position(|name| *name == service).expect("one of them");
        FIRST_UID + u32::try_from(place).expect("a few")
    }
}
