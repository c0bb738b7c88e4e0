//! The folders of `broken/`, one after the other, a few at a time.

use crate::site::Site;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// How many sites at a time.
const AT_ONCE: usize = 4;

/// How often doctor is asked again after a fix that takes effect by itself, such as a signal.
const PATIENCE: usize = 40;

/// The fewest folders there are.
const FEWEST: usize = 40;

fn folders() -> Vec<PathBuf> {
    let broken = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doctor/broken");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(broken).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    folders
}

#[test]
fn each_broken_site_is_recognised_and_mended_by_the_command_that_doctor_prints() {
    let folders = folders();
    assert!(folders.len() >= FEWEST, "{}", folders.len());
    let failures = Mutex::new(Vec::new());
    let next = Mutex::new(folders.iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(folder) = next.lock().unwrap().next() else { return };
                    if let Err(failure) = mend(folder) {
                        let name = folder.file_name().unwrap().to_string_lossy();
                        failures.lock().unwrap().push(format!("{name}: {failure}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// `key: value` lines.
fn expected(folder: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder.join("expected")).unwrap();
    let pair = |line: &str| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
    text.lines().map(|line| pair(line).unwrap_or_else(|| panic!("{}: {line}", folder.display()))).collect()
}

fn mend(folder: &Path) -> Result<(), String> {
    let expected = expected(folder);
    let Some(mut site) = Site::working() else { return Ok(()) };
    if let Some(server) = expected.get("serves") {
        serve(&site.with_paths(server));
    }
    let script = fs::read_to_string(folder.join("setup")).unwrap();
    let broken = site.shell(&format!("set -e\n{}", site.with_paths(&script)));
    if broken.exit != 0 {
        return Err(format!("setup: {broken:?}"));
    }
    if expected.get("daemon").is_some_and(|state| state == "killed") {
        site.sasld.kill();
    }
    site.age();
    let Some((finding, report)) = find(&site, &expected) else {
        return Err(format!("not found in\n{}", text(&site)));
    };
    let fix = finding["fix"][0].as_str().unwrap_or_default().to_owned();
    let wanted = site.with_paths(&expected["fix"]);
    if fix != wanted {
        return Err(format!("the fix is\n  {}\ninstead of\n  {}", site.without_paths(&fix), expected["fix"]));
    }
    let level = finding["level"].as_str().unwrap_or_default();
    if level != expected["level"] {
        return Err(format!("it is said to be a {level}, in\n{report}"));
    }
    let fixed = match expected.get("typed") {
        Some(typed) => site.terminal(&fix, &typed.split(' ').collect::<Vec<_>>()),
        None => site.shell(&fix),
    };
    if fixed.exit != 0 {
        return Err(format!("the fix failed: {fixed:?}"));
    }
    site.age();
    match (0..PATIENCE).any(|_| find(&site, &expected).is_none()) {
        true => Ok(()),
        false => Err(format!("still there after `{fix}` ({fixed:?})\n{}", text(&site))),
    }
}

/// The finding that is expected, and the whole report.
fn find(site: &Site, expected: &BTreeMap<String, String>) -> Option<(Value, String)> {
    let root = site.path().join("root");
    let report = site.sasld(&["doctor", "--json", "--root", root.to_str().unwrap()]);
    let parsed: Value = serde_json::from_str(report.out.lines().next().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {}", report.out));
    let probes = parsed["probes"].as_array().unwrap();
    let probe = probes
        .iter()
        .find(|probe| probe["name"] == expected["probe"].as_str())
        .expect("a probe of this name");
    let part = site.with_paths(&expected["text"]);
    let found = probe["findings"].as_array().unwrap().iter().find(|finding| {
        let text = format!("{}: {}", finding["place"].as_str().unwrap(), finding["what"].as_str().unwrap());
        text.contains(&part)
    });
    found.map(|finding| (finding.clone(), report.out.clone()))
}

fn text(site: &Site) -> String {
    let root = site.path().join("root");
    site.sasld(&["doctor", "--root", root.to_str().unwrap()]).out
}

/// `PATH TEXT`: whoever connects there is told this. Ends with the test.
fn serve(words: &str) {
    let (path, greeting) = words.split_once(' ').unwrap();
    let greeting = greeting.replace("\\t", "\t").replace("\\n", "\n");
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    std::thread::spawn(move || {
        let mut clients = Vec::new();
        for client in listener.incoming().flatten() {
            let _ = (&client).write_all(greeting.as_bytes());
            clients.push(client);
        }
    });
}
