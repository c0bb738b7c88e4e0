//! The secrets file as a file: who may reach it, what it may be, and what a rewrite keeps and survives.
//!
//! Everything happens in private temporary directories, as root or as an ordinary user alike.

#[path = "support/acl.rs"]
mod acl;
#[path = "support/skip.rs"]
mod skip;

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use acl::{ACL, acl};
use rustix::fs::{FlockOperation, Mode, XattrFlags};
use sasld::credential::Password;
use sasld::secrets::{
    self, EditError, Insecurity, LOCK_WAIT, LoadError, LoadOptions, Loaded, Missing, Names, Rewrite, Secrets,
    SecretsEditor, StoreError, Trust,
};
use tempfile::TempDir;

const NAMES: Names<'static> = Names { lowercase: true, allowed: &|_| true };

const ALICE: &str = "alice:{PLAIN}wonder\n";

/// A directory that only this user can write to, whatever the umask is.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

fn write(path: &Path, contents: &str, mode: u32) {
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn load_after(path: &Path, previous: Option<&Secrets>) -> Result<Loaded, LoadError> {
    let trust = Trust::of_process();
    secrets::load(path, &LoadOptions { names: NAMES, trust: Some(&trust), previous })
}

fn load(path: &Path) -> Result<Loaded, LoadError> {
    load_after(path, None)
}

fn accepts(secrets: &Secrets, name: &str, password: &str) -> bool {
    let password = Password::new(password);
    secrets.lookup(name).is_some_and(|entry| {
        entry.closed.is_none()
            && entry.verifiers.is_some_and(|all| all.strongest().verify(&password).is_some())
    })
}

fn add(path: &Path, name: &str) -> Result<(), StoreError> {
    let field = format!("{{PLAIN}}{name}");
    edit(path, Missing::Create, LOCK_WAIT, |editor| editor.add(name, field.as_bytes()))
}

fn edit(
    path: &Path,
    missing: Missing,
    wait: Duration,
    change: impl FnOnce(&mut SecretsEditor) -> Result<(), EditError>,
) -> Result<(), StoreError> {
    let rewrite = Rewrite { path, lowercase: true, missing, readers: None, wait, waiting: &|_| () };
    secrets::edit(&rewrite, |editor| change(editor).map_err(StoreError::from)).map(|edited| edited.outcome)
}

/// What lies in the directory besides the secrets file and its lock.
fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let known = ["secrets", ".secrets.lock"];
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !known.iter().any(|name| path.ends_with(name))).collect()
}

// Loading

#[test]
fn a_private_file_loads() {
    let directory = directory();
    let path = directory.path().join("secrets");
    for good in [0o600, 0o640, 0o400, 0o440] {
        write(&path, ALICE, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(good)).unwrap();
        let loaded = load(&path).unwrap_or_else(|error| panic!("{good:o}: {error}"));
        assert!(accepts(&loaded.secrets, "alice", "wonder"));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_that_others_can_reach_is_refused_with_the_mode_and_the_cure() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    for (bad, who) in [
        (0o644, "every local user read"),
        (0o604, "every local user read"),
        (0o602, "every local user write"),
        (0o601, "every local user read"),
        (0o660, "its group write"),
        (0o620, "its group write"),
        (0o666, "every local user write"),
        (0o664, "every local user read"),
        (0o777, "every local user write"),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(bad)).unwrap();
        let message = load(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("mode {bad:04o} lets {who} it")), "{message}");
        assert!(message.contains(&format!("chmod 0640 {}", path.display())), "{message}");
    }
}

#[test]
fn a_file_of_a_stranger_is_refused() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    let own = fs::metadata(&path).unwrap();
    let judge = |users: &[u32], groups: &[u32]| secrets::check_access(&path, &Trust::only(users, groups));

    let fault = |result| match result {
        Err(LoadError::Insecure { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(judge(&[own.uid() + 1], &[own.gid()])), Insecurity::Owner { user: own.uid() });
    judge(&[own.uid()], &[]).expect("a group without rights does not matter");

    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fault(judge(&[own.uid()], &[])), Insecurity::Group { group: own.gid(), mode: 0o640 });
    judge(&[own.uid()], &[own.gid()]).expect("a trusted group may read");
}

#[test]
fn a_directory_that_others_can_write_to_needs_the_sticky_bit() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    for (mode, good) in [(0o755, true), (0o1777, true), (0o777, false), (0o757, false)] {
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        match load(&path) {
            Ok(_) => assert!(good, "{mode:o}"),
            Err(LoadError::Insecure { fault: Insecurity::Directory { mode: found, .. }, .. }) => {
                assert!(!good && found == mode, "{mode:o}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_directory_that_its_group_can_write_to_needs_a_trusted_group() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    fs::set_permissions(directory.path(), Permissions::from_mode(0o775)).unwrap();
    let metadata = fs::metadata(directory.path()).unwrap();
    for (groups, good) in [(&[metadata.gid()][..], true), (&[], false)] {
        let trust = Trust::only(&[metadata.uid()], groups);
        let loaded = secrets::load(&path, &LoadOptions { names: NAMES, trust: Some(&trust), previous: None });
        match loaded {
            Ok(_) => assert!(good, "{groups:?}"),
            Err(LoadError::Insecure { fault: Insecurity::Directory { .. }, .. }) => assert!(!good),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(secrets::check_access(&path, &trust).is_ok(), good);
    }
}

#[test]
fn only_the_services_own_group_is_that_of_new_files() {
    assert_eq!(Trust::only(&[0], &[7]).service_group(), None);
    let group = nix::unistd::Group::from_name(secrets::SERVICE_ACCOUNT).unwrap();
    assert_eq!(Trust::of_process().service_group(), group.map(|group| group.gid.as_raw()));
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let directory = directory();
    let path = |name| directory.path().join(name);
    fs::create_dir(path("directory")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), rustix::fs::FileType::Fifo, Mode::from(0o600), 0)
        .unwrap();
    let _listener = UnixListener::bind(path("socket")).unwrap();
    for (path, expected) in [
        (path("directory"), "a directory"),
        (path("fifo"), "a FIFO"),
        (path("socket"), "a socket"),
        ("/dev/null".into(), "a device"),
    ] {
        match load(&path) {
            Err(LoadError::NotAFile { kind, .. }) => assert_eq!(kind, expected),
            other => panic!("{}: {other:?}", path.display()),
        }
    }
}

#[test]
fn a_missing_file_is_missing_and_nothing_else() {
    let directory = directory();
    let path = directory.path().join("secrets");
    assert!(matches!(load(&path), Err(LoadError::Missing { .. })));
    assert!(matches!(secrets::fingerprint(&path), Err(LoadError::Missing { .. })));
}

#[test]
fn behind_a_symbolic_link_the_target_is_judged_and_both_directories() {
    let (directory, target_directory) = (directory(), directory());
    let (link, target) = (directory.path().join("secrets"), target_directory.path().join("real"));
    write(&target, ALICE, 0o600);
    symlink(&target, &link).unwrap();
    assert!(accepts(&load(&link).unwrap().secrets, "alice", "wonder"));

    fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(load(&link), Err(LoadError::Insecure { fault: Insecurity::Others { .. }, .. })));
    fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();

    for open in [directory.path(), target_directory.path()] {
        fs::set_permissions(open, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(load(&link), Err(LoadError::Insecure { fault: Insecurity::Directory { .. }, .. })));
        fs::set_permissions(open, Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_sparse_file_of_ten_gigabytes_is_refused_by_its_size() {
    const TEN_GIGABYTES: u64 = 10_000_000_000;
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, "", 0o600);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(TEN_GIGABYTES).unwrap();
    assert!(matches!(load(&path), Err(LoadError::TooLarge { bytes: TEN_GIGABYTES, .. })));
}

#[test]
fn half_written_contents_do_not_follow_good_ones() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    let before = load(&path).unwrap().secrets;

    fs::write(&path, "alice:{PLAIN}wonder\nbob:{PLAIN}se cr").unwrap();
    assert!(matches!(load_after(&path, Some(&before)), Err(LoadError::Torn { .. })));
    fs::write(&path, "").unwrap();
    assert!(matches!(load_after(&path, Some(&before)), Err(LoadError::Emptied { users: 1, .. })));
    fs::write(&path, "# no users\n").unwrap();
    assert!(load_after(&path, Some(&before)).unwrap().secrets.is_empty(), "an operator may mean that");
}

#[test]
fn at_start_up_an_unfinished_line_is_left_out_and_an_empty_file_has_no_users() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, "alice:{PLAIN}wonder\nbob:{PLAIN}se cr", 0o600);
    let secrets = load(&path).unwrap().secrets;
    assert!(accepts(&secrets, "alice", "wonder") && secrets.lookup("bob").is_none());
    assert_eq!(secrets.problems().listed()[0].line, 2);
    fs::write(&path, "").unwrap();
    assert!(load(&path).unwrap().secrets.is_empty());
}

#[test]
fn replacing_and_rewriting_change_the_fingerprint_and_reading_does_not() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    let first = load(&path).unwrap().fingerprint;
    assert_eq!(secrets::fingerprint(&path).unwrap(), first);

    let other = directory.path().join("other");
    write(&other, ALICE, 0o600);
    fs::rename(&other, &path).unwrap();
    let replaced = secrets::fingerprint(&path).unwrap();
    assert!(replaced != first && !replaced.is_same_file(&first));

    OpenOptions::new().append(true).open(&path).unwrap().set_len(5).unwrap();
    let rewritten = secrets::fingerprint(&path).unwrap();
    assert!(rewritten != replaced && rewritten.is_same_file(&replaced));
}

#[test]
fn a_fingerprint_tells_which_file_how_long_and_when() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    let modified = Duration::new(1_700_000_000, 123_456_789);
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    file.set_modified(UNIX_EPOCH + modified).unwrap();
    let (metadata, fingerprint) = (file.metadata().unwrap(), secrets::fingerprint(&path).unwrap());
    assert_eq!(fingerprint.file(), (metadata.dev(), metadata.ino()));
    assert_eq!(fingerprint.size(), 20);
    assert_eq!(fingerprint.modified_ns(), 1_700_000_000_123_456_789);

    // Its age is that of the last change of any kind, which nobody can set.
    let changed = Duration::new(metadata.ctime().unsigned_abs(), metadata.ctime_nsec().try_into().unwrap());
    assert_eq!(fingerprint.age(UNIX_EPOCH + changed + Duration::from_secs(5)), Duration::from_secs(5));
    assert_eq!(fingerprint.age(UNIX_EPOCH + modified), Duration::ZERO);
}

// Rewriting

#[test]
fn fifty_writers_at_once_are_all_applied() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    thread::scope(|scope| {
        for n in 0..50 {
            let path = &path;
            scope.spawn(move || add(path, &format!("user{n}")).unwrap());
        }
    });
    let secrets = load(&path).unwrap().secrets;
    assert_eq!(secrets.len(), 51);
    assert!((0..50).all(|n| accepts(&secrets, &format!("user{n}"), &format!("user{n}"))));
    assert_eq!(leftovers(directory.path()), Vec::<PathBuf>::new());
}

#[test]
fn writers_that_create_the_file_at_once_are_all_applied() {
    let directory = directory();
    let path = directory.path().join("secrets");
    thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let path = &path;
            scope.spawn(move || add(path, name).unwrap());
        }
    });
    assert_eq!(load(&path).unwrap().secrets.len(), 4);
}

#[test]
fn a_lock_file_is_private_even_if_it_was_not() {
    let directory = directory();
    let (path, lock) = (directory.path().join("secrets"), directory.path().join(".secrets.lock"));
    write(&lock, "", 0o644);
    add(&path, "alice").unwrap();
    assert_eq!(mode(&lock), 0o600);
}

#[test]
fn a_link_in_the_place_of_a_lock_file_is_not_followed() {
    let directory = directory();
    let (path, elsewhere) = (directory.path().join("secrets"), directory.path().join("elsewhere"));
    symlink(&elsewhere, directory.path().join(".secrets.lock")).unwrap();
    let refused = add(&path, "alice");
    assert!(matches!(refused, Err(StoreError::Failed { call: "open", .. })), "{refused:?}");
    assert!(!elsewhere.exists());
}

#[test]
fn a_new_file_is_readable_for_the_group_that_is_named_and_for_nobody_else() {
    let directory = directory();
    let group = fs::metadata(directory.path()).unwrap().gid();
    for (name, readers, expected) in [("shared", Some(group), 0o640), ("private", None, 0o600)] {
        let path = directory.path().join(name);
        let missing = Missing::Create;
        let rewrite =
            Rewrite { path: &path, lowercase: true, missing, readers, wait: LOCK_WAIT, waiting: &|_| () };
        let add = |editor: &mut SecretsEditor| editor.add("alice", b"{PLAIN}a").map_err(StoreError::from);
        secrets::edit(&rewrite, add).unwrap();
        assert_eq!((mode(&path), fs::metadata(&path).unwrap().gid()), (expected, group));
    }
}

#[test]
fn a_writer_does_not_wait_for_ever() {
    let directory = directory();
    let path = directory.path().join("secrets");
    add(&path, "alice").unwrap();
    let lock = File::open(directory.path().join(".secrets.lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let before = fs::read(&path).unwrap();
    let refused = edit(&path, Missing::Create, Duration::ZERO, |editor| editor.add("bob", b"{PLAIN}b"));
    let process = std::process::id();
    assert!(
        matches!(refused, Err(StoreError::Busy { holder, .. }) if holder == Some(process)),
        "{refused:?}"
    );
    let message = refused.unwrap_err().to_string();
    assert!(message.contains(&format!("process {process} held the lock")), "{message}");
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(lock);
    add(&path, "bob").unwrap();
}

#[test]
fn a_writer_who_waits_for_a_second_hears_once_for_whom() {
    let directory = directory();
    let path = directory.path().join("secrets");
    add(&path, "alice").unwrap();
    let lock = File::open(directory.path().join(".secrets.lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let (start, heard) = (Instant::now(), RefCell::new(Vec::new()));
    let rewrite = Rewrite {
        path: &path,
        lowercase: true,
        missing: Missing::Refuse,
        readers: None,
        wait: Duration::from_millis(1_500),
        waiting: &|holder| heard.borrow_mut().push((holder, start.elapsed() >= Duration::from_secs(1))),
    };
    let refused = secrets::edit(&rewrite, |_| Ok::<_, StoreError>(()));
    assert!(matches!(refused, Err(StoreError::Busy { .. })), "{refused:?}");
    assert_eq!(heard.take(), [(Some(std::process::id()), true)]);
}

#[test]
fn a_file_that_goes_while_a_writer_waits_is_not_made_anew() {
    let directory = directory();
    let path = directory.path().join("secrets");
    add(&path, "alice").unwrap();
    let lock = File::open(directory.path().join(".secrets.lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let rewrite = Rewrite {
        path: &path,
        lowercase: true,
        missing: Missing::Refuse,
        readers: None,
        wait: LOCK_WAIT,
        waiting: &|_| {
            fs::remove_file(&path).unwrap();
            rustix::fs::flock(&lock, FlockOperation::Unlock).unwrap();
        },
    };
    let refused = secrets::edit(&rewrite, |_| Ok::<_, StoreError>(()));
    assert!(matches!(refused, Err(StoreError::Load(LoadError::Missing { .. }))), "{refused:?}");
    assert!(!path.exists());
}

#[test]
fn owner_mode_and_acl_stay() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o640);
    let acl = acl([6, 4, 4, 4, 0]);
    let has_acls = rustix::fs::setxattr(&path, ACL, &acl, XattrFlags::empty()).is_ok();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(0), Some(54321)).unwrap();
    }
    let before = fs::metadata(&path).unwrap();

    add(&path, "bob").unwrap();

    let after = fs::metadata(&path).unwrap();
    assert_ne!(before.ino(), after.ino(), "the file is replaced, not rewritten");
    let access = |metadata: &fs::Metadata| (metadata.uid(), metadata.gid(), metadata.mode());
    assert_eq!(access(&before), access(&after));
    let mut kept = vec![0; 1024];
    match rustix::fs::getxattr(&path, ACL, &mut kept) {
        Ok(length) => assert_eq!(&kept[..length], acl),
        Err(error) => assert!(!has_acls, "{error}"),
    }
    if !has_acls {
        skip::not_tested(&format!("no ACLs on {}", directory.path().display()));
    }
}

#[test]
fn the_default_acl_of_the_directory_does_not_open_the_new_file() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o640);
    let acl = acl([7; 5]);
    if rustix::fs::setxattr(directory.path(), "system.posix_acl_default", &acl, XattrFlags::empty()).is_err()
    {
        skip::not_tested(&format!("no ACLs on {}", directory.path().display()));
        return;
    }
    add(&path, "bob").unwrap();
    assert_eq!(mode(&path), 0o640);
    assert!(rustix::fs::getxattr(&path, ACL, &mut [0; 1024]).is_err());
}

#[test]
fn the_link_stays_and_its_target_is_rewritten() {
    let (directory, target_directory) = (directory(), directory());
    let (link, target) = (directory.path().join("secrets"), target_directory.path().join("real"));
    write(&target, ALICE, 0o600);
    symlink(&target, &link).unwrap();
    add(&link, "bob").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(load(&target).unwrap().secrets.len(), 2);
}

#[test]
fn a_link_to_nowhere_is_not_replaced_by_a_file() {
    let directory = directory();
    let link = directory.path().join("secrets");
    symlink(directory.path().join("nowhere"), &link).unwrap();
    assert!(matches!(add(&link, "bob"), Err(StoreError::Load(LoadError::Missing { .. }))));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_temporary_of_a_killed_writer_is_swept() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    write(&directory.path().join(".secrets.new"), "half of", 0o600);
    add(&path, "bob").unwrap();
    assert_eq!(leftovers(directory.path()), Vec::<PathBuf>::new());
    assert_eq!(load(&path).unwrap().secrets.len(), 2);
}

#[test]
fn what_an_editor_saved_meanwhile_is_not_overwritten() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    let refused = edit(&path, Missing::Refuse, LOCK_WAIT, |editor| {
        fs::write(&path, "carol:{PLAIN}c\n").unwrap();
        editor.add("bob", b"{PLAIN}b")
    });
    assert!(matches!(refused, Err(StoreError::Changed { .. })), "{refused:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "carol:{PLAIN}c\n");
    assert_eq!(leftovers(directory.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_path_through_a_file_is_no_missing_file() {
    let directory = directory();
    let file = directory.path().join("secrets");
    write(&file, ALICE, 0o600);
    for missing in [Missing::Create, Missing::Refuse] {
        let refused = edit(&file.join("more"), missing, LOCK_WAIT, |editor| editor.add("bob", b"{PLAIN}b"));
        let path = file.join("more");
        assert!(
            matches!(&refused, Err(StoreError::Failed { call: "realpath", path: at, .. }) if *at == path),
            "{refused:?}"
        );
    }
}

#[test]
fn what_appeared_meanwhile_where_a_new_file_should_be_is_not_replaced() {
    let directory = directory();
    let path = directory.path().join("secrets");
    let refused = edit(&path, Missing::Create, LOCK_WAIT, |editor| {
        // A link to itself cannot be looked at, but it is there.
        symlink("secrets", &path).unwrap();
        editor.add("bob", b"{PLAIN}b")
    });
    assert!(matches!(refused, Err(StoreError::Changed { .. })), "{refused:?}");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn an_edit_that_changes_nothing_does_not_touch_the_file() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    let before = secrets::fingerprint(&path).unwrap();
    edit(&path, Missing::Refuse, LOCK_WAIT, |editor| editor.set_password("alice", b"{PLAIN}wonder")).unwrap();
    assert_eq!(secrets::fingerprint(&path).unwrap(), before);
}

#[test]
fn a_refused_edit_does_not_touch_the_file() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    let before = secrets::fingerprint(&path).unwrap();
    assert!(matches!(add(&path, "alice"), Err(StoreError::Edit(EditError::Exists { .. }))));
    assert_eq!(secrets::fingerprint(&path).unwrap(), before);
}

#[test]
fn an_unfinished_file_is_not_completed_by_a_rewrite() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, "alice:{PLAIN}won", 0o600);
    assert!(matches!(add(&path, "bob"), Err(StoreError::Edit(EditError::Torn))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "alice:{PLAIN}won");
}

#[test]
fn a_failing_step_is_named_with_its_path() {
    let directory = directory();
    let path = directory.path().join("secrets");
    write(&path, ALICE, 0o600);
    // Nothing can be created under the temporary's name.
    fs::create_dir(directory.path().join(".secrets.new")).unwrap();
    let error = add(&path, "bob").unwrap_err().to_string();
    assert!(error.contains(".secrets.new: unlink: "), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), ALICE);
}
