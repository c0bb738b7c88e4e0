//! Dovecot, run privately as the administrator of a Postfix server would run it: the auth service alone, with a
//! passwd-file.
//!
//! Where a setting matters to the numbers it is the one that lets Dovecot be fast: successful logins are not logged,
//! there is no statistics process, and the penalty lookup that production has on by default is off. Needs root, like any
//! Dovecot that switches users, and its system user `dovecot`; without them the benchmark ends with that message.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use nix::unistd::{Group, Uid};

use crate::{
    Outcome,
    measure::first_line,
    server::{Plan, secrets_file},
};

pub fn plan(dir: &Path, secrets: &[u8]) -> Outcome<Plan> {
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
    fs::write(&configuration, configuration_text(dir))?;
    let mut command = Command::new("dovecot");
    command.arg("-F").arg("-c").arg(&configuration);
    Ok(Plan {
        command,
        socket: dir.join("run/auth-client"),
    })
}

fn configuration_text(dir: &Path) -> String {
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

service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}

passdb {{
  driver = passwd-file
  args = scheme=PLAIN {users}
}}
",
        users = secrets_file(format!("{dir}").as_ref()).display(),
    )
}

/// `{SCHEME}hash` of a password, made by Dovecot's own tool.
pub fn hash(scheme: &str, rounds: u32, password: &str) -> Outcome<String> {
    let rounds = rounds.to_string();
    let arguments = ["pw", "-s", scheme, "-r", &rounds, "-p", password];
    let hash = first_line("doveadm".as_ref(), &arguments)?;
    if !hash.starts_with('{') {
        return Err(format!("doveadm pw -s {scheme} -r {rounds} printed {hash:?}").into());
    }
    Ok(hash)
}
