//! The unit files, judged by systemd itself and compared with what `docs/hardening.md` says about them.

use super::launcher::SASLD;
use super::support::skip::not_tested;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn units() -> Vec<PathBuf> {
    fs::read_dir(repository("packaging/systemd")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// `None` where there is no systemd at all, said aloud.
fn analyze(arguments: &[&str], files: &[PathBuf]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).args(files).output() {
        Ok(output) => Some(output),
        Err(error) => {
            not_tested(&format!("the units: systemd-analyze: {error}"));
            None
        }
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    // The programs are not installed here: the built one stands for both.
    let directory = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        let text = text.replace("/usr/sbin/sasld-pam", SASLD).replace("/usr/sbin/sasld", SASLD);
        let copy = directory.path().join(unit.file_name().unwrap());
        fs::write(&copy, &text).unwrap();
        if copy.to_str().unwrap().contains('@') {
            let instance = copy.to_str().unwrap().replace('@', "@postfix-out");
            fs::write(&instance, &text).unwrap();
            files.push(PathBuf::from(instance));
        } else {
            files.push(copy);
        }
    }
    assert!(files.len() >= 5, "{files:?}");
    let Some(output) = analyze(&["verify", "--man=no", "--recursive-errors=no"], &files) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // About a machine without the package's users, and about units of other packages, it may say what it likes.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("sasld")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

/// What is not as closed as it could be, and the sum of it.
fn exposure(unit: &str) -> Option<(Vec<String>, f64)> {
    let file = repository("packaging/systemd").join(unit);
    let output = analyze(&["security", "--offline=yes", "--no-pager"], &[file])?;
    let text = String::from_utf8(output.stdout).unwrap();
    let open = text.lines().filter_map(|line| line.trim_start().strip_prefix("✗ "));
    let open = open.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned()).collect();
    let sum = text
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for ")?.1.split_whitespace().nth(1));
    Some((open, sum.unwrap_or_else(|| panic!("{text}")).parse().unwrap()))
}

/// The rows of the table under a unit's heading: first column and the rest.
fn documented(page: &str, unit: &str) -> BTreeMap<String, String> {
    let (_, section) =
        page.split_once(&format!("`{unit}`:")).unwrap_or_else(|| panic!("{unit} is not in the page"));
    let table =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows = table.skip(2).filter_map(|line| line.trim_matches('|').split_once('|'));
    rows.map(|(item, why)| (item.trim().trim_matches('`').to_owned(), why.trim().to_owned())).collect()
}

#[test]
fn the_exposure_of_both_services_is_small() {
    for unit in ["sasld.service", "sasld-pam.service"] {
        let Some((_, sum)) = exposure(unit) else { return };
        assert!(sum <= 1.5, "{unit}: {sum}");
    }
}

/// Other versions of systemd ask other questions, so the page is compared with its own.
#[test]
fn each_exposure_that_remains_is_explained_and_no_other() {
    let page = fs::read_to_string(repository("docs/hardening.md")).unwrap();
    assert!(page.contains("all its findings, by systemd 252;"));
    let Some(version) = analyze(&["--version"], &[]) else { return };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with("systemd 252 ") {
        return not_tested(&format!("docs/hardening.md has the findings of systemd 252, here is {version}"));
    }
    for unit in ["sasld.service", "sasld-pam.service"] {
        let Some((open, sum)) = exposure(unit) else { return };
        let documented = documented(&page, unit);
        for item in &open {
            let why = documented.get(item).unwrap_or_else(|| panic!("{unit}: {item} is not explained"));
            assert!(why.split_whitespace().count() > 4, "{unit}: {item}: {why}");
        }
        let closed: Vec<&String> = documented.keys().filter(|item| !open.contains(item)).collect();
        assert!(closed.is_empty(), "{unit}: explained but closed: {closed:?}");
        assert!(page.contains(&format!("`{unit}`: {sum}")), "{unit} has {sum}");
    }
}

#[test]
fn only_units_that_exist_are_named_as_ours() {
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        for word in text.split(|c: char| !c.is_alphanumeric() && !"-@._/".contains(c)) {
            let ours = word.starts_with("sasld") && (word.ends_with(".service") || word.ends_with(".socket"));
            let file = word.split_once('@').map_or(word.to_owned(), |(name, rest)| {
                format!("{name}@.{}", rest.rsplit('.').next().unwrap())
            });
            assert!(
                !ours || repository("packaging/systemd").join(&file).exists(),
                "{}: {word}",
                unit.display()
            );
        }
    }
}
