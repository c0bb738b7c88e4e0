//! Whom PAM is asked about at all: the guard rails of the command line.
//!
//! They look at the user database, so a user has to be there as soon as any of them is in force; that also tells
//! unknown users from wrong passwords in stacks that don't. A database that fails is no verdict, not a refusal.

use nix::errno::Errno;
use nix::unistd::{Group, User, getgrouplist};
use sasld::pam::Settings;
use sasld::pam::request::{Exclusion, Outcome, Trouble};
use std::ffi::CString;
use std::path::Path;

const SHELLS: &str = "/etc/shells";

/// What an empty shell field means; see passwd(5).
const DEFAULT_SHELL: &str = "/bin/sh";

/// Whether PAM may be asked about this user; otherwise, what is answered instead.
pub fn admit(settings: &Settings, name: &str) -> Result<(), Outcome> {
    if settings.min_uid == 0 && settings.group.is_none() && !settings.login_shell {
        return Ok(());
    }
    let user = User::from_name(name).map_err(|errno| cannot_look_up(&format!("the user {name}"), errno))?;
    let user = user.ok_or(Outcome::Excluded(Exclusion::UnknownUser))?;
    if user.uid.as_raw() < settings.min_uid {
        return Err(Outcome::Excluded(Exclusion::Uid));
    }
    if let Some(group) = &settings.group
        && !is_member(&user, group)?
    {
        return Err(Outcome::Excluded(Exclusion::Group));
    }
    if settings.login_shell && !is_login_shell(&user.shell)? {
        return Err(Outcome::Excluded(Exclusion::Shell));
    }
    Ok(())
}

fn is_member(user: &User, group: &str) -> Result<bool, Outcome> {
    let found =
        Group::from_name(group).map_err(|errno| cannot_look_up(&format!("the group {group}"), errno))?;
    let found = found.ok_or_else(|| {
        out(format!("there is no group {group}; make it, or start sasld-pam without --group"))
    })?;
    let name = CString::new(user.name.as_str()).map_err(|_| Outcome::Excluded(Exclusion::UnknownUser))?;
    let groups = getgrouplist(&name, user.gid)
        .map_err(|errno| cannot_look_up(&format!("the groups of {}", user.name), errno))?;
    Ok(groups.contains(&found.gid))
}

fn is_login_shell(shell: &Path) -> Result<bool, Outcome> {
    let shell = if shell.as_os_str().is_empty() { Path::new(DEFAULT_SHELL) } else { shell };
    let shells = std::fs::read_to_string(SHELLS)
        .map_err(|error| out(format!("cannot read {SHELLS}, which --login-shell needs: {error}")))?;
    Ok(shells.lines().any(|line| Path::new(line.trim()) == shell))
}

fn cannot_look_up(what: &str, errno: Errno) -> Outcome {
    out(format!("cannot look up {what}: {errno}; /etc/nsswitch.conf names the databases"))
}

fn out(reason: String) -> Outcome {
    Outcome::Undecided(Trouble::UserDatabase, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(min_uid: u32, group: Option<&str>, login_shell: bool) -> Settings {
        Settings { min_uid, group: group.map(str::to_owned), login_shell, ..Settings::default() }
    }

    #[test]
    fn system_users_and_strangers_are_nobody_by_default() {
        assert_eq!(admit(&Settings::default(), "root"), Err(Outcome::Excluded(Exclusion::Uid)));
        let stranger = admit(&Settings::default(), "sasldt-nobody-has-this-name");
        assert_eq!(stranger, Err(Outcome::Excluded(Exclusion::UnknownUser)));
    }

    #[test]
    fn each_rail_stands_for_itself() {
        assert_eq!(admit(&settings(0, None, false), "sasldt-nobody-has-this-name"), Ok(()));
        assert_eq!(admit(&settings(0, Some("root"), true), "root"), Ok(()));
        assert_eq!(
            admit(&settings(0, Some("shadow"), false), "root"),
            Err(Outcome::Excluded(Exclusion::Group))
        );
        // On Debian: /usr/sbin/nologin.
        assert_eq!(admit(&settings(0, None, true), "daemon"), Err(Outcome::Excluded(Exclusion::Shell)));
    }

    #[test]
    fn a_group_that_does_not_exist_lets_nobody_in_and_refuses_nobody() {
        let outcome = admit(&settings(0, Some("sasldt-no-such-group"), false), "root");
        assert!(matches!(outcome, Err(Outcome::Undecided(Trouble::UserDatabase, _))));
    }
}
