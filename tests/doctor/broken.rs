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
const FEWEST: usize = 104;

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
    let Some(working) = Site::working() else { return };
    let usual: Vec<String> =
        findings(&working).iter().map(|found| working.without_paths(&found.text)).collect();
    let failures = Mutex::new(Vec::new());
    let next = Mutex::new(folders.iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(folder) = next.lock().unwrap().next() else { return };
                    if let Err(failure) = mend(folder, &usual) {
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

/// What a folder says about its site.
struct Expected {
    values: BTreeMap<String, String>,
    fixes: Vec<String>,
    /// Findings that come to light with the fix, as `PROBE: PLACE: WHAT` or a part of that.
    then: Vec<String>,
}

/// `key: value` lines.
fn expected(folder: &Path, site: &Site) -> Expected {
    let text = fs::read_to_string(folder.join("expected")).unwrap();
    let mut expected = Expected { values: BTreeMap::new(), fixes: Vec::new(), then: Vec::new() };
    for line in text.lines() {
        let pair = line.split_once(": ").unwrap_or_else(|| panic!("{}: {line}", folder.display()));
        match pair {
            ("fix", fix) => expected.fixes.push(site.with_paths(fix)),
            ("then", finding) => expected.then.push(site.with_paths(finding)),
            (key, value) => drop(expected.values.insert(key.to_owned(), value.to_owned())),
        }
    }
    expected
}

/// `usual`: what a site that works has, too.
fn mend(folder: &Path, usual: &[String]) -> Result<(), String> {
    let Some(mut site) = Site::working() else { return Ok(()) };
    let expected = expected(folder, &site);
    let value = |key: &str| expected.values.get(key).map(String::as_str);
    if let Some(server) = value("serves") {
        serve(&site.with_paths(server));
    }
    let script = fs::read_to_string(folder.join("setup")).unwrap();
    let broken = site.shell(&format!("set -e\n{}", site.with_paths(&script)));
    if broken.exit != 0 {
        return Err(format!("setup: {broken:?}"));
    }
    if value("daemon") == Some("killed") {
        site.sasld.kill();
    }
    site.age();
    let before = findings(&site);
    let Some(found) = before.iter().find(|found| is_expected(found, &expected, &site)) else {
        return Err(format!("not found in\n{}", text(&site)));
    };
    let wanted = expected.fixes.iter().map(|fix| fix.replace("$LISTENER", &listener(&found.fixes)));
    if found.fixes != wanted.collect::<Vec<_>>() {
        let shown = site.without_paths(&found.fixes.join("\n  "));
        return Err(format!("the fix is\n  {shown}\ninstead of\n  {}", expected.fixes.join("\n  ")));
    }
    if Some(found.level.as_str()) != value("level") {
        return Err(format!("it is said to be a {}, in\n{}", found.level, text(&site)));
    }
    for fix in &found.fixes {
        let fixed = match value("typed") {
            Some(typed) => site.terminal(fix, &typed.split(' ').collect::<Vec<_>>()),
            None => site.shell(fix),
        };
        if fixed.exit != 0 {
            return Err(format!("the fix failed: {fixed:?}"));
        }
    }
    site.age();
    let mut left = Vec::new();
    for _ in 0..PATIENCE {
        let after = findings(&site);
        left = not_mended(&before, &after, &expected, &site);
        left.retain(|what| !usual.iter().any(|usual| site.without_paths(what).ends_with(usual)));
        if value("shows") == Some("this machine") {
            left.retain(|what| !what.starts_with("new: "));
        }
        if left.is_empty() {
            return Ok(());
        }
    }
    Err(format!("after `{}`:\n{}\n{}", found.fixes.join("\n"), left.join("\n"), text(&site)))
}

/// A finding: `PROBE: PLACE: WHAT`, how bad it is, and what mends it.
struct Found {
    text: String,
    level: String,
    fixes: Vec<String>,
}

fn is_expected(found: &Found, expected: &Expected, site: &Site) -> bool {
    let probe = format!("{}: ", expected.values["probe"]);
    found
        .text
        .strip_prefix(&probe)
        .is_some_and(|rest| rest.contains(&site.with_paths(&expected.values["text"])))
}

/// What keeps a site from being mended: its finding, others that it did not have before, and those announced that it has
/// not.
fn not_mended(before: &[Found], after: &[Found], expected: &Expected, site: &Site) -> Vec<String> {
    let mut left = Vec::new();
    for found in after {
        let is_new = before.iter().all(|old| old.text != found.text);
        let announced = expected.then.iter().any(|then| found.text.contains(then));
        if is_expected(found, expected, site) {
            left.push(format!("still there: {}", found.text));
        } else if is_new && !announced && found.level != "skipped" {
            left.push(format!("new: {}: {}", found.level, found.text));
        }
    }
    let absent = expected.then.iter().filter(|then| !after.iter().any(|found| found.text.contains(*then)));
    left.extend(absent.map(|then| format!("not there: {then}")));
    left
}

/// The process that a fix ends, which nobody knows beforehand.
fn listener(fixes: &[String]) -> String {
    let word = fixes.first().and_then(|fix| fix.strip_prefix("kill -KILL ")?.split(';').next());
    word.unwrap_or_default().to_owned()
}

/// The whole report.
fn findings(site: &Site) -> Vec<Found> {
    let root = site.path().join("root");
    let report = site.sasld(&["doctor", "--json", "--root", root.to_str().unwrap()]);
    let parsed: Value = serde_json::from_str(report.out.lines().next().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {}", report.out));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let probes = parsed["probes"].as_array().unwrap().iter();
    let all = probes
        .flat_map(|probe| probe["findings"].as_array().unwrap().iter().map(move |found| (probe, found)));
    all.map(|(probe, found)| Found {
        text: [&probe["name"], &found["place"], &found["what"]].map(text).join(": "),
        level: text(&found["level"]),
        fixes: found["fix"].as_array().unwrap().iter().map(text).collect(),
    })
    .collect()
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
