//! Where the servers that ask PAM live: a mount namespace with a user database and a PAM configuration of its own.
//!
//! In it `/etc/passwd` and `/etc/group` have one user more, `/etc/shadow` has no other, and `/etc/pam.d` has one stack
//! under the name that each server uses: pam_unix, as `packaging/pam.d/sasld-minimal` has it. Nothing of this exists
//! outside, and it ends with the server, whatever ends the benchmark. What modules would say in the system's log (one
//! line for each wrong password) goes nowhere. Needs root.
//!
//! sasld runs as its package runs it: as `_sasld`, its worker as `_sasld-pam` with the group `shadow`, from copies of the
//! programs that these users can reach. Dovecot's workers and saslauthd run as root, as Debian starts them.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use nix::unistd::{Group, Uid};
use tempfile::TempDir;

use crate::{
    Outcome,
    dovecot::{self, Passdbs, Penalty},
    sasld,
    server::{Kind, Plan, Server, secrets_file},
};

/// The system user who logs in.
pub const USER: &str = "sasldbench";
pub const PASSWORD: &str = "a long enough password";
/// yescrypt at the cost that Debian gives new passwords.
const HASH: &str = "$y$j9T$cIMphYCVnajhO4jVpZou0/$x4NHJMcnrIhBbKjBVMpfvEnGD7iz6TCH3z/bKFvhtR2";
/// The names of the service: sasld's, Dovecot's, and what saslauthd is asked with.
const SERVICES: [&str; 3] = ["sasld", "dovecot", "smtp"];
const STACK: &str = include_str!("../../../packaging/pam.d/sasld-minimal");

/// Ids that Debian reserves and gives to nobody.
const SASLD_ID: u32 = 65_001;
const SASLD_PAM_ID: u32 = 65_002;
const USER_ID: u32 = 65_003;

/// The workers of saslauthd, as Debian sets them.
const SASLAUTHD_WORKERS: &str = "5";

/// What a server's command runs behind: `sh -ec ENTER sh FOLDER PROGRAM ARGUMENT…` in a new mount namespace.
const ENTER: &str = "for name in passwd group shadow pam.d; do mount --bind \"$1/$name\" \"/etc/$name\"; done
if [ -e /dev/log ]; then mount --bind /dev/null /dev/log; fi
shift
exec \"$@\"";

/// # Errors
/// Where a server could not be started so.
pub fn check_rights() -> Outcome<()> {
    let allowed = Uid::effective().is_root() && unshare().arg("true").output()?.status.success();
    if allowed {
        Ok(())
    } else {
        Err("the scenario \"pam\" needs root and the right to mount; BENCH_WITHOUT=pam leaves it out".into())
    }
}

/// Starts a server with `secrets` as the contents of its secrets file, if it has one, and PAM behind it.
pub fn start(kind: Kind, secrets: &[u8], cores: &[usize]) -> Outcome<Server> {
    let dir = TempDir::with_prefix("sasld-bench-")?;
    let folder = dir.path().join("etc");
    fs::create_dir(&folder)?;
    write_machine(&folder)?;
    let mut plan = match kind {
        Kind::Sasld => sasld_plan(dir.path(), secrets)?,
        Kind::Dovecot => dovecot::plan(dir.path(), secrets, Penalty::On, Passdbs::FileThenPam)?,
        Kind::DovecotNoPenalty => dovecot::plan(dir.path(), secrets, Penalty::Off, Passdbs::FileThenPam)?,
        Kind::Saslauthd => saslauthd_plan(dir.path())?,
        Kind::Floor => return Err("the floor asks nobody".into()),
    };
    let mut command = unshare();
    command.args(["sh", "-ec", ENTER, "sh"]).arg(&folder);
    command.arg(plan.command.get_program()).args(plan.command.get_args());
    plan.command = command;
    Server::launch(kind, dir, plan, cores)
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--"]);
    command
}

/// The files that take the place of the machine's.
fn write_machine(folder: &Path) -> Outcome<()> {
    let passwd = with_lines(
        "/etc/passwd",
        &[
            ("_sasld", format!("x:{SASLD_ID}:{SASLD_ID}::/nonexistent:/usr/sbin/nologin")),
            ("_sasld-pam", format!("x:{SASLD_PAM_ID}:{SASLD_PAM_ID}::/nonexistent:/usr/sbin/nologin")),
            (USER, format!("x:{USER_ID}:{USER_ID}::/nonexistent:/usr/sbin/nologin")),
        ],
    )?;
    let group = with_lines(
        "/etc/group",
        &[
            ("_sasld", format!("x:{SASLD_ID}:")),
            ("_sasld-pam", format!("x:{SASLD_PAM_ID}:")),
            (USER, format!("x:{USER_ID}:")),
        ],
    )?;
    fs::write(folder.join("passwd"), passwd)?;
    fs::write(folder.join("group"), group)?;

    let shadow = folder.join("shadow");
    fs::write(&shadow, format!("{USER}:{HASH}:20000:0:99999:7:::\n"))?;
    let group = Group::from_name("shadow")?.ok_or("no group shadow")?;
    chown(&shadow, None, Some(group.gid.as_raw()))?;
    fs::set_permissions(&shadow, Permissions::from_mode(0o640))?;

    let services = folder.join("pam.d");
    fs::create_dir(&services)?;
    for service in SERVICES {
        fs::write(services.join(service), STACK)?;
    }
    Ok(())
}

/// The lines of a database, with these in place of those of the same name.
fn with_lines(database: &str, new: &[(&str, String)]) -> Outcome<String> {
    let old = fs::read_to_string(database)?;
    let is_new = |line: &str| new.iter().any(|(name, _)| line.split(':').next() == Some(name));
    let kept = old.lines().filter(|line| !is_new(line)).map(str::to_owned);
    let added = new.iter().map(|(name, rest)| format!("{name}:{rest}"));
    Ok(kept.chain(added).map(|line| line + "\n").collect())
}

/// sasld starts its worker itself, for nobody listens on the worker's socket.
fn sasld_plan(dir: &Path, secrets: &[u8]) -> Outcome<Plan> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    let users = secrets_file(dir);
    fs::write(&users, secrets)?;
    chown(&users, None, Some(SASLD_ID))?;
    fs::set_permissions(&users, Permissions::from_mode(0o640))?;

    for name in ["sasld", "sasld-pam"] {
        let built = sasld::program().with_file_name(name);
        fs::copy(&built, dir.join(name)).map_err(|error| format!("{}: {error}", built.display()))?;
    }
    let pam = format!("  - pam: {{socket: {}}}\n", dir.join("nobody-listens").display());
    sasld::serve(&dir.join("sasld"), dir, &pam)
}

/// In the foreground, which makes it talkative; its log is a file here.
fn saslauthd_plan(dir: &Path) -> Outcome<Plan> {
    let mut command = Command::new("saslauthd");
    command.args(["-d", "-a", "pam", "-n", SASLAUTHD_WORKERS, "-m"].map(OsStr::new)).arg(dir);
    Ok(Plan { command, socket: dir.join("mux") })
}
