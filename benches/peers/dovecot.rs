//! Dovecot, run privately as the administrator of a Postfix server would run it: the auth service alone, with a
//! passwd-file, and PAM behind it if asked for.
//!
//! Settings are Debian's defaults except where they concern paths, limits and what a Postfix does not need: no statistics
//! process, and passwords are found in a file. Successful logins are not logged. The penalty (how long an address waits
//! for its earlier failures, asked of the anvil process at every login) is on by default, and measured on and off. Needs
//! root, like any Dovecot that switches users, and its system user `dovecot`; without them the benchmark says so and ends.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use nix::unistd::{Group, Uid};

use crate::{
    Outcome,
    server::{Plan, secrets_file},
};

/// Whether failures per address are counted.
#[derive(Clone, Copy)]
pub enum Penalty {
    On,
    Off,
}

/// Who knows the passwords.
#[derive(Clone, Copy)]
pub enum Passdbs {
    File,
    /// The service `dovecot`, for whoever is not in the file.
    FileThenPam,
}

pub fn plan(dir: &Path, secrets: &[u8], penalty: Penalty, passdbs: Passdbs) -> Outcome<Plan> {
    if !Uid::effective().is_root() {
        return Err("Dovecot needs root: run the benchmark as root".into());
    }
    let group = Group::from_name("dovecot")?.ok_or("no group dovecot: install dovecot-core")?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let users = secrets_file(dir);
    fs::write(&users, secrets)?;
    chown(&users, None, Some(group.gid.as_raw()))?;
    fs::set_permissions(&users, fs::Permissions::from_mode(0o640))?;

    let configuration = dir.join("dovecot.conf");
    fs::write(&configuration, configuration_text(dir, penalty, passdbs))?;
    let mut command = Command::new("dovecot");
    command.arg("-F").arg("-c").arg(&configuration);
    Ok(Plan { command, socket: dir.join("run/auth-client") })
}

fn configuration_text(dir: &Path, penalty: Penalty, passdbs: Passdbs) -> String {
    let anvil = match penalty {
        Penalty::On => "",
        Penalty::Off => "service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}\n",
    };
    let pam = match passdbs {
        Passdbs::File => "",
        Passdbs::FileThenPam => "passdb {\n  driver = pam\n}\n",
    };
    let users = secrets_file(dir);
    let users = users.display();
    let dir = dir.display();
    format!(
        "base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/dovecot.log
instance_name = sasld-bench
ssl = no
protocols = none
listen = 127.0.0.1
auth_verbose = no
stats_writer_socket_path =
auth_mechanisms = plain login cram-md5
default_client_limit = 20000
default_vsz_limit = 4G

service auth {{
  unix_listener auth-client {{
    mode = 0600
  }}
}}

{anvil}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {users}
}}
{pam}"
    )
}
