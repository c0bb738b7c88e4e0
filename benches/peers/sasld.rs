//! sasld, started as a service manager would start it: its configuration, its log in a file.
//!
//! It logs every login, as it does in production; Dovecot logs none. Nothing else is set but the paths, an owner for the
//! socket that exists everywhere, and enough connections for 10,000 idle ones.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{Gid, Uid};

use crate::{
    Outcome,
    server::{Plan, secrets_file},
};

/// The program under measurement, as cargo has built it for this benchmark.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sasld"))
}

pub fn plan(dir: &Path, secrets: &[u8]) -> Outcome<Plan> {
    let users = secrets_file(dir);
    fs::write(&users, secrets)?;
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600))?;
    serve(&program(), dir, "")
}

/// `program` with the secrets file in `dir`, and with these further entries of its passdbs.
pub fn serve(program: &Path, dir: &Path, passdbs: &str) -> Outcome<Plan> {
    let socket = dir.join("auth");
    let configuration = dir.join("sasld.yaml");
    let (uid, gid) = (Uid::effective(), Gid::effective());
    fs::write(
        &configuration,
        format!(
            "listeners:
  - unix: {}
    owner: {uid}
    group: {gid}
    mode: \"0600\"
passdbs:
  - secrets_file: {}
{passdbs}limits:
  connections: 15000
control: off
",
            socket.display(),
            secrets_file(dir).display()
        ),
    )?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(&configuration);
    Ok(Plan { command, socket })
}
