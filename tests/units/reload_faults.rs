//! A reload in which every system call on a file fails once: of the secrets file, of the configuration, and of the copy of
//! the last good one.
//!
//! A daemon runs, and strace(1) attaches to it and hits one call on the files in the daemon's directory; then it lets go,
//! and what comes next is without a fault. Rounds without faults tell beforehand which calls there are. Each thread
//! counts its own, so a thread that does other things with the same call may be hit as well.

use super::launcher::{Daemon, Place, Seen, log_in};
use super::support::peer::{Peer, auth};
use super::support::power::{self, Disk, Node, cut_everywhere};
use super::support::short::{is_short, library};
use super::support::skip::not_tested;
use super::support::soak::count;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sasld::control::{Request, SecretsState, ask};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ERRORS: [&str; 4] = ["error=EIO", "error=ENOSPC", "error=EDQUOT", "error=EINTR"];

/// `NUL bob NUL first` and `NUL bob NUL second`.
const PASSWORDS: [(&str, &str); 2] = [("first", "AGJvYgBmaXJzdA=="), ("second", "AGJvYgBzZWNvbmQ=")];

/// What the configurations differ in. Alice can use the first one in any of them.
const MECHANISMS: [&str; 3] = ["PLAIN", "PLAIN, LOGIN", "PLAIN, CRAM-MD5"];

// Tracing

/// strace(1) at work on a daemon.
struct Tracer(Child);

impl Tracer {
    /// Attached to all threads when this returns.
    fn attach(daemon: &Daemon, options: &[String]) -> Self {
        Self::try_to_attach(daemon, options).expect("strace that may attach")
    }

    /// The same, if that is possible.
    fn try_to_attach(daemon: &Daemon, options: &[String]) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &daemon.pid().to_string()]).args(options);
        let mut child = command.stderr(Stdio::piped()).spawn().ok()?;
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        // First it may say where links lead to.
        while !line.contains(" attached") {
            line.clear();
            if said.read_line(&mut line).unwrap() == 0 {
                child.wait().unwrap();
                return None;
            }
        }
        // What else it says is about threads that come and go.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Some(Self(child))
    }

    /// Lets the daemon go, if it lives.
    fn detach(mut self) {
        // A signal that comes just before strace waits is noted and not acted upon.
        while self.0.try_wait().unwrap().is_none() {
            let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGINT);
            std::thread::yield_now();
        }
    }
}

/// The calls on the files of a daemon: which files, and for each call how often one thread makes it.
#[derive(Default)]
struct Calls {
    paths: BTreeSet<String>,
    most: BTreeMap<String, usize>,
}

impl Calls {
    /// From rounds without faults: the first tells the paths, the others what is called on them.
    fn of(place: &Place, daemon: &Daemon, rounds: usize, mut round: impl FnMut()) -> Self {
        let mut calls = Self::default();
        for traced in 0..=rounds {
            let mut options = vec!["-y".to_owned()];
            if traced == rounds {
                options = calls.paths.iter().flat_map(|path| ["-P".to_owned(), path.clone()]).collect();
            }
            let tracer = Tracer::attach(daemon, &[options, to(place)].concat());
            round();
            tracer.detach();
            let trace = fs::read_to_string(place.path("trace")).unwrap();
            match traced == rounds {
                false => calls.paths.extend(paths(&trace, place.path("").to_str().unwrap())),
                true => calls.most = most(&trace),
            }
        }
        calls
    }

    fn total(&self) -> usize {
        self.most.values().sum()
    }

    /// The calls in turn, and the number of each.
    fn each(&self) -> impl Iterator<Item = (usize, &str, usize)> {
        let calls =
            self.most.iter().flat_map(|(name, most)| (1..=*most).map(move |nth| (name.as_str(), nth)));
        calls.enumerate().map(|(number, (name, nth))| (number, name, nth))
    }

    /// Hits this one.
    fn hit(&self, place: &Place, daemon: &Daemon, name: &str, fault: &str, nth: usize) -> Tracer {
        let mut options: Vec<String> =
            self.paths.iter().flat_map(|path| ["-P".to_owned(), path.clone()]).collect();
        options.extend(["-e".to_owned(), format!("trace={name}"), "-e".to_owned()]);
        options.push(format!("inject={name}:{fault}:when={nth}"));
        Tracer::attach(daemon, &[options, to(place)].concat())
    }
}

fn to(place: &Place) -> Vec<String> {
    vec!["-o".to_owned(), place.path("trace").display().to_string()]
}

/// All paths below this directory in a trace, as arguments and as what descriptors stand for.
fn paths(trace: &str, directory: &str) -> BTreeSet<String> {
    let directory = directory.trim_end_matches('/');
    let calls = trace.lines().filter(|line| !line.contains("recvfrom(") && !line.contains("sendto("));
    let found = calls.flat_map(|line| line.match_indices(directory).map(move |(at, _)| &line[at..]));
    found.map(|path| path.split(['"', '>']).next().unwrap().to_owned()).collect()
}

/// How often one thread makes each call.
fn most(trace: &str) -> BTreeMap<String, usize> {
    let mut threads: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            *threads.entry((thread, name)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, name), count) in threads {
        let most = most.entry(name.to_owned()).or_default();
        *most = count.max(*most);
    }
    most
}

/// What strace wrote of each thread by itself (`-ff`).
fn traces(place: &Place) -> Vec<String> {
    let files = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().path());
    let traces = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("trace."));
    traces.map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn can_attach(daemon: &Daemon) -> bool {
    let tracer = Tracer::try_to_attach(daemon, &["-o".to_owned(), "/dev/null".to_owned()]);
    if tracer.is_none() {
        not_tested("strace is missing or may not attach");
    }
    tracer.map(Tracer::detach).is_some()
}

// The secrets file

/// Puts another file in the place of the one there is.
fn replace_users(place: &Place, password: &str) {
    let new = place.path("secrets.new");
    fs::write(&new, format!("bob:{{PLAIN}}{password}\n")).unwrap();
    fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(new, place.path("secrets")).unwrap();
}

/// Only a broken daemon takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is in force, looked for now.
fn look(place: &Place) -> SecretsState {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "no answer at the control socket");
        // A fault may keep it from finding out that this is the file it has.
        if let Ok(state) = ask(&place.path("control"), &Request::Secrets { path: place.path("secrets") }) {
            return state;
        }
    }
}

/// Only the one password is right.
fn only_accepts(place: &Place, what: &str, which: usize) {
    let mut peer = Peer::greeted(&place.path("auth"));
    for (index, (_, response)) in PASSWORDS.iter().enumerate() {
        peer.send(&auth(1, "PLAIN", response));
        let answer = peer.line();
        let expected = if index == which { "OK\t1\tuser=bob" } else { "FAIL\t1\tuser=bob" };
        assert!(answer.starts_with(expected) && !answer.contains("temp"), "{what}: {answer}");
    }
}

#[test]
fn no_fault_in_a_reload_of_users_gives_a_wrong_answer_and_the_next_one_gets_them() {
    let place = Place::new();
    replace_users(&place, PASSWORDS[0].0);
    let daemon = Daemon::ready(place.serve());
    if !can_attach(&daemon) {
        return;
    }
    let mut now = 0;
    let calls = Calls::of(&place, &daemon, 1, || {
        now = 1 - now;
        replace_users(&place, PASSWORDS[now].0);
        assert_eq!(look(&place).trouble, None);
    });
    let (mut runs, mut failed) = (0, 0);
    for (_, name, nth) in calls.each() {
        for fault in ERRORS {
            let what = format!("{name} {nth} {fault}");
            let tracer = calls.hit(&place, &daemon, name, fault, nth);
            replace_users(&place, PASSWORDS[1 - now].0);
            let trouble = look(&place).trouble;
            only_accepts(&place, &what, if trouble.is_some() { now } else { 1 - now });
            tracer.detach();
            now = 1 - now;
            runs += 1;
            if let Some(trouble) = trouble {
                failed += 1;
                daemon.log.wait_for(&["event=secrets_not_loaded", &trouble, "the last good contents"]);
                assert!(names_a_step(&place, &trouble), "{what}: {trouble}");
            }
            assert_eq!(look(&place).trouble, None, "{what}");
            only_accepts(&place, &what, now);
        }
    }
    assert!(runs > 40 && failed > 10 && failed < runs, "{failed} of {runs}");
    eprintln!("{runs} faults at {} calls, {failed} of them noticed", calls.total());
}

/// `PATH: … CALL: ERROR`, of a path in this place.
fn names_a_step(place: &Place, reason: &str) -> bool {
    const STEPS: [&str; 11] = [
        "stat", "realpath", "open", "read", "readdir", "mkdir", "write", "fsync", "symlink", "rename",
        "unlink",
    ];
    reason.contains(place.path("").to_str().unwrap().trim_end_matches('/'))
        && STEPS.iter().any(|step| reason.contains(&format!(": {step}: ")))
}

/// The standard library panics when a directory cannot be closed, and with it goes the thread that reads or copies.
fn lost_its_thread(name: &str, log: &str) -> bool {
    name == "close" && log.contains("event=panic ") && log.contains("the thread for it was lost")
}

// The configuration and its copy

fn configure(place: &Place, which: usize) {
    place.configure(&format!("mechanisms: [{}]\n", MECHANISMS[which]));
}

/// Which configuration new connections see.
fn offered(place: &Place) -> usize {
    let mut peer = Peer::connect(&place.path("auth"));
    let mut mechanisms = Vec::new();
    loop {
        let line = peer.line();
        if line == "DONE" {
            break;
        }
        if let Some(rest) = line.strip_prefix("MECH\t") {
            mechanisms.push(rest.split('\t').next().unwrap().to_owned());
        }
    }
    let found = MECHANISMS.iter().position(|list| list.split(", ").eq(mechanisms.iter()));
    found.unwrap_or_else(|| panic!("{mechanisms:?}"))
}

/// Which configuration the copy is of. It is complete.
fn copied(place: &Place) -> usize {
    let main = fs::read_to_string(place.path("state/last-good/sasld.yaml")).unwrap();
    assert_eq!(fs::read_to_string(place.path("state/last-good/conf.d/a.yaml")).unwrap(), MORE);
    let found = MECHANISMS.iter().position(|list| main.ends_with(&format!("mechanisms: [{list}]\n")));
    found.unwrap_or_else(|| panic!("{main}"))
}

const MORE: &str = "log_level: info\n";

/// With a second file in it, so that the copy has a folder.
fn place_with_copy() -> (Place, Daemon) {
    let place = Place::new();
    fs::create_dir(place.path("conf.d")).unwrap();
    fs::write(place.path("conf.d/a.yaml"), MORE).unwrap();
    configure(&place, 0);
    let daemon = Daemon::ready(place.serve());
    daemon.log.wait_for(&["event=last_good_saved"]);
    (place, daemon)
}

/// A reload without a fault, up to its copy.
fn reload(place: &Place, daemon: &Daemon, which: usize) {
    configure(place, which);
    daemon.log.forget();
    daemon.signal(Signal::SIGHUP);
    daemon.log.wait_for(&["event=reloaded"]);
    daemon.log.wait_for(&["event=last_good_saved"]);
    assert_eq!((offered(place), copied(place)), (which, which));
    assert_eq!(fs::read_dir(place.path("state")).unwrap().count(), 2, "the link and one directory");
}

#[test]
fn no_fault_in_a_reload_of_the_configuration_leaves_half_of_it_in_force_or_in_the_copy() {
    let (place, daemon) = place_with_copy();
    if !can_attach(&daemon) {
        return;
    }
    let mut now = 0;
    let calls = Calls::of(&place, &daemon, 3, || {
        now = (now + 1) % 3;
        reload(&place, &daemon, now);
    });
    let (mut runs, mut kept, mut not_copied) = (0, 0, 0);
    for (number, name, nth) in calls.each() {
        // One of the errors in each test run, all in the long ones.
        for at in 0..count(1, ERRORS.len()) {
            let fault = ERRORS[(number + at) % ERRORS.len()];
            let what = format!("{name} {nth} {fault}");
            let next = (now + 1) % 3;
            let before = daemon.log.text().len();
            let tracer = calls.hit(&place, &daemon, name, fault, nth);
            configure(&place, next);
            daemon.log.forget();
            daemon.signal(Signal::SIGHUP);
            daemon.log.wait_for(&["reloaded"]);
            let is_new = offered(&place) == next;
            if is_new {
                daemon.log.wait_for(&["event=last_good_"]);
            }
            assert_eq!(log_in(&place.path("auth")), Seen::Ok, "{what}");
            tracer.detach();
            let log = daemon.log.text()[before..].to_owned();
            let line = |event: &str| log.lines().find(|line| line.contains(&format!("event={event} ")));
            if let Some(line) = line("not_reloaded") {
                assert!(!is_new, "{what}: {log}");
                assert!(names_a_step(&place, line) || lost_its_thread(name, &log), "{what}: {log}");
                kept += 1;
            } else {
                assert!(is_new, "{what}: {log}");
            }
            if let Some(line) = line("last_good_not_saved") {
                assert!(names_a_step(&place, line) || lost_its_thread(name, &log), "{what}: {log}");
                not_copied += 1;
            } else {
                assert_eq!(copied(&place) == next, is_new, "{what}: {log}");
            }
            assert!([now, next].contains(&copied(&place)), "{what}");
            now = (next + 1) % 3;
            reload(&place, &daemon, now);
            runs += 1;
        }
    }
    assert!(
        runs > 60 && kept > 5 && not_copied > 5 && kept + not_copied < runs,
        "{kept}, {not_copied} of {runs}"
    );
    eprintln!("{runs} faults at {} calls, {kept} reloads and {not_copied} copies not made", calls.total());
}

#[test]
fn a_daemon_killed_at_any_call_of_a_reload_starts_again_from_one_copy_or_the_other() {
    let (place, mut daemon) = place_with_copy();
    if !can_attach(&daemon) {
        return;
    }
    let mut now = 0;
    let calls = Calls::of(&place, &daemon, 3, || {
        now = (now + 1) % 3;
        reload(&place, &daemon, now);
    });
    let (mut killed, mut new) = (0, 0);
    for (number, name, nth) in calls.each() {
        if number % count(3, 1) != 0 && name != "rename" {
            continue;
        }
        let what = format!("{name} {nth}");
        let next = (now + 1) % 3;
        let tracer = calls.hit(&place, &daemon, name, "signal=KILL", nth);
        configure(&place, next);
        daemon.signal(Signal::SIGHUP);
        assert_eq!(daemon.wait().signal(), Some(9), "{what}");
        tracer.detach();
        killed += 1;
        let copy = copied(&place);
        assert!([now, next].contains(&copy), "{what}: {copy}, not {now} or {next}");
        assert!(name != "rename" || copy == now, "the kill comes before the call");
        new += usize::from(copy == next);
        fs::write(place.path("sasld.yaml"), "mechanisms: [PLIAN]\n").unwrap();
        daemon = Daemon::ready(place.serve());
        assert_eq!(offered(&place), copy, "{what}");
        assert_eq!(log_in(&place.path("auth")), Seen::Ok, "{what}");
        now = (next + 1) % 3;
        reload(&place, &daemon, now);
    }
    assert!(killed > 20 && new > 0 && new < killed, "{new} of {killed}");
    eprintln!("{killed} kills, {new} of them after the new copy was made");
}

#[test]
fn short_reads_and_writes_change_nothing_about_a_reload() {
    let place = Place::new();
    fs::create_dir(place.path("conf.d")).unwrap();
    fs::write(place.path("conf.d/a.yaml"), MORE).unwrap();
    configure(&place, 0);
    let mut command = place.serve();
    command.env("LD_PRELOAD", library());
    let daemon = Daemon::ready(command);
    if !can_attach(&daemon) {
        return;
    }
    let tracer = Tracer::attach(&daemon, &[vec!["-ff".to_owned(), "-y".to_owned()], to(&place)].concat());
    replace_users(&place, "first");
    assert_eq!(look(&place).trouble, None);
    only_accepts(&place, "short", 0);
    reload(&place, &daemon, 1);
    tracer.detach();
    let directory = format!("<{}", place.path("").display());
    let mut all = 0;
    for line in traces(&place).iter().flat_map(|trace| trace.lines()).filter(|line| line.contains(&directory))
    {
        if let Some(is_short) = is_short(line) {
            assert!(is_short, "{line}");
            all += 1;
        }
    }
    let bytes = fs::read(place.path("sasld.yaml")).unwrap().len();
    assert!(all > 2 * bytes, "{all} reads and writes");
}

#[test]
fn no_power_cut_leaves_half_a_copy_or_none() {
    let (place, daemon) = place_with_copy();
    if !can_attach(&daemon) {
        return;
    }
    let state = place.path("state");
    let files = ["last-good/sasld.yaml", "last-good/conf.d/a.yaml"].map(|file| state.join(file));
    let read = |file: &PathBuf| fs::read(file).unwrap();
    let directory = fs::read_link(state.join("last-good")).unwrap();
    let mut before = Disk::new(&state).with(&state.join("last-good"), Node::Link(directory.clone()), b"");
    before = before.with(&state.join(&directory), Node::Directory, b"");
    before = before.with(&state.join(&directory).join("conf.d"), Node::Directory, b"");
    for (number, (name, file)) in ["sasld.yaml", "conf.d/a.yaml"].iter().zip(&files).enumerate() {
        before = before.with(&state.join(&directory).join(name), Node::File(number), &read(file));
    }
    let old = files.each_ref().map(read);

    let options = ["-ff".to_owned()].into_iter().chain(power::OPTIONS.map(str::to_owned));
    let tracer = Tracer::attach(&daemon, &[options.collect(), to(&place)].concat());
    reload(&place, &daemon, 1);
    tracer.detach();
    let new = files.each_ref().map(read);
    let copier = traces(&place).into_iter().find(|trace| trace.contains("symlink("));
    let steps = power::steps(&copier.expect("somebody made the link"), &before);

    let lost = |steps: &[power::Step]| {
        let mut lost = 0;
        let cuts = cut_everywhere(&before, steps, |done, disk| {
            let is = |contents: &[Vec<u8>; 2]| {
                files
                    .iter()
                    .zip(contents)
                    .all(|(file, bytes)| disk.file(file).is_some_and(|file| file.bytes == *bytes))
            };
            lost += usize::from(!is(&new) && (!is(&old) || done == steps.len()));
        });
        (cuts, lost)
    };
    let (cuts, bad) = lost(&steps);
    assert_eq!(bad, 0, "of {cuts}: {steps:?}");
    // Each fsync is needed.
    for flush in (0..steps.len()).filter(|&index| steps[index].is_flush()) {
        let mut without = steps.clone();
        let step = without.remove(flush);
        assert!(lost(&without).1 > 0, "nobody would miss {step:?}");
    }
    eprintln!("{cuts} power cuts");
}
