//! The configuration as it lies on the disk: which files are read, in which order, and which are
//! refused because others could have written them. Everything happens in private folders.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sasld::config::{Config, ConfigError, Limits, Listener, MAX_FILE_BYTES};
use sasld::policy::OnOutage;

/// A configuration that needs no user of this machine.
const MINIMAL: &str = "listeners: [{unix: /run/sasld/auth, owner: 0, group: 0}]\n";

fn installed() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sasld.yaml");
    write(&path, MINIMAL);
    (folder, path)
}

/// Writes a file that only its owner can write to, whatever the umask.
fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    mode(path, 0o644);
}

/// The folder `conf.d` beside `path`.
fn conf_d(path: &Path) -> PathBuf {
    let folder = path.with_file_name("conf.d");
    fs::create_dir(&folder).expect("a folder");
    mode(&folder, 0o755);
    folder
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
}

fn invalid(path: &Path) -> String {
    match Config::load(path) {
        Err(error @ ConfigError::Invalid(_)) => error.to_string(),
        other => panic!("not invalid: {other:?}"),
    }
}

#[test]
fn the_files_of_conf_d_are_read_in_name_order_and_other_files_are_not() {
    let (_folder, path) = installed();
    let conf_d = conf_d(&path);
    for (name, text) in [
        ("20-b.yaml", "deadline: 7s\n"),
        ("10-a.yaml", "deadline: 6s\non_outage: fail\n"),
        (".30-c.yaml", "not: read\n"),
        ("40-d.yaml~", "not: read\n"),
        ("50-e.conf", "not: read\n"),
    ] {
        write(&conf_d.join(name), text);
    }
    let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.deadline, Duration::from_secs(7));
    assert_eq!(config.on_outage, OnOutage::Fail);
    assert!(matches!(&config.listeners[0], Listener::Unix(unix) if unix.owner.id == 0));
}

#[test]
fn a_file_of_conf_d_replaces_a_top_level_key_with_everything_below_it() {
    let (_folder, path) = installed();
    let limits = "limits: {connections: 5, exchanges_per_connection: 6}\n";
    write(&path, &format!("{MINIMAL}{limits}require_tls: false\n"));
    let conf_d = conf_d(&path);
    write(&conf_d.join("10.yaml"), "limits: {connections: 7}\n");
    write(&conf_d.join("20.yaml"), "# nothing\n");
    let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.limits, Limits { connections: 7, exchanges_per_connection: 1_024 });
    assert!(!config.require_tls);
}

#[test]
fn a_missing_file_is_told_apart_from_one_that_cannot_be_read() {
    let (folder, path) = installed();
    let missing = folder.path().join("other.yaml");
    let error = Config::load(&missing).expect_err("no such file");
    assert!(matches!(&error, ConfigError::Missing { path } if *path == missing));
    assert_eq!(error.to_string(), format!("{}: no such file", missing.display()));

    // A loop of links cannot be read, not even by root.
    fs::remove_file(&path).expect("removed");
    symlink(&path, &path).expect("a link");
    let error = Config::load(&path).expect_err("unreadable");
    assert!(matches!(&error, ConfigError::Unreadable { path: at, .. } if *at == path));
    assert!(error.to_string().starts_with(&format!("{}: ", path.display())));
}

#[test]
fn what_everybody_can_write_to_is_refused_wherever_it_is() {
    let (_folder, path) = installed();
    let conf_d = conf_d(&path);
    let more = conf_d.join("more.yaml");
    write(&more, "deadline: 7s\n");
    mode(&path, 0o646);
    mode(&conf_d, 0o777);
    mode(&more, 0o666);
    let expected = format!(
        "{}: mode 0777 lets everybody write to it; chmod o-w\n\
         {}: mode 0646 lets everybody write to it; chmod o-w\n\
         {}: mode 0666 lets everybody write to it; chmod o-w",
        conf_d.display(),
        path.display(),
        more.display()
    );
    assert_eq!(invalid(&path), expected);
}

#[test]
fn only_a_regular_file_is_read_and_a_pipe_is_not_waited_for() {
    let (folder, _) = installed();
    let pipe = folder.path().join("pipe.yaml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    for path in [folder.path(), &pipe] {
        assert_eq!(invalid(path), format!("{}: not a regular file", path.display()));
    }
}

#[test]
fn a_huge_file_is_not_read_to_its_end() {
    let (_folder, path) = installed();
    fs::File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    let expected =
        format!("{}: larger than {MAX_FILE_BYTES} bytes, which no configuration needs", path.display());
    assert_eq!(invalid(&path), expected);
}
