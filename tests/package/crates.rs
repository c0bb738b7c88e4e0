//! What sasld is made of: licences and sources of all crates, as `make deny` checks them with cargo-deny, which takes minutes to
//! build. Here it is what `cargo metadata` says, compared with the same lists, `packaging/deny.toml`.

use super::world::{output, package, repository};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The strings of an array in `packaging/deny.toml`, without its comments: `allow = [ "MIT", … ]`, or what `of` finds
/// in its lines.
fn list(key: &str, of: impl Fn(&str) -> Option<&str>) -> BTreeSet<String> {
    let text = fs::read_to_string(repository("packaging/deny.toml")).unwrap();
    let lines = text.lines().skip_while(|line| *line != format!("{key} = [")).skip(1);
    lines.take_while(|line| *line != "]").filter_map(|line| of(line.trim()).map(str::to_owned)).collect()
}

fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

/// Everything that is compiled on Linux for the programs or for their tests.
fn crates() -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        let text = output(Command::new(env!("CARGO")).current_dir(repository("")).args([
            "metadata",
            "--offline",
            "--locked",
            "--all-features",
            "--format-version=1",
            "--filter-platform",
            target,
        ]));
        let metadata: Value = serde_json::from_str(&text).unwrap();
        let used = metadata["resolve"]["nodes"].as_array().unwrap();
        let used: BTreeSet<&str> = used.iter().filter_map(|node| node["id"].as_str()).collect();
        for found in metadata["packages"].as_array().unwrap() {
            let id = found["id"].as_str().unwrap();
            if used.contains(id) && found["name"] != "sasld" && seen.insert(id.to_owned()) {
                all.push(found.clone());
            }
        }
    }
    assert!(all.len() > 80, "only {} crates", all.len());
    all
}

/// Whether somebody who accepts these licences may use what has this SPDX expression. AND binds more than OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    if let Some((open, close)) = expression.find('(').zip(expression.find(')')) {
        let inner = if is_allowed(&expression[open + 1..close], allowed) { "(yes)" } else { "(no)" };
        let word = inner.trim_matches(['(', ')']);
        return is_allowed(&format!("{}{word}{}", &expression[..open], &expression[close + 1..]), allowed);
    }
    // The way of writing OR before 2018.
    let expression = expression.replace('/', " OR ");
    expression
        .split(" OR ")
        .any(|choice| choice.split(" AND ").all(|one| one.trim() == "yes" || allowed.contains(one.trim())))
}

#[test]
fn every_crate_has_a_licence_that_we_accept() {
    let allowed = list("allow", quoted);
    assert!(allowed.contains("MIT"), "{allowed:?}");
    for found in crates() {
        let licence = found["license"].as_str().unwrap_or("none");
        assert!(is_allowed(licence, &allowed), "{} {}: {licence}", found["name"], found["version"]);
    }
}

#[test]
fn of_several_licences_one_will_do_and_of_two_together_both_must() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Unicode-3.0".to_owned()]);
    for yes in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "GPL-3.0 OR MIT AND Unicode-3.0",
    ] {
        assert!(is_allowed(yes, &allowed), "{yes}");
    }
    for no in [
        "GPL-3.0",
        "none",
        "MIT AND GPL-3.0",
        "(MIT OR Apache-2.0) AND GPL-3.0",
        "(GPL-3.0 OR Apache-2.0) AND MIT",
    ] {
        assert!(!is_allowed(no, &allowed), "{no}");
    }
}

#[test]
fn every_crate_comes_from_the_registry_and_none_is_banned() {
    let banned = list("deny", |line| line.strip_prefix("{ crate = ").and_then(quoted));
    assert!(banned.contains("openssl-sys"), "{banned:?}");
    for found in crates() {
        let (name, source) = (found["name"].as_str().unwrap(), found["source"].as_str().unwrap_or("a path"));
        assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{name}");
        assert!(!banned.contains(name), "{name}");
    }
}

/// Cargo's `MIT/Apache-2.0`, or Debian's `Expat or Apache-2.0`, as the same words. Debian writes a comma for brackets.
fn comparable(expression: &str) -> String {
    let plain = expression.replace('/', " OR ").replace('(', "").replace(')', ",").to_lowercase();
    plain.replace("expat", "mit").replace("llvm-exception", "llvm exception")
}

#[test]
fn the_licence_of_every_crate_is_in_the_copyright_file_and_so_is_its_text() {
    let Some(package) = package() else { return };
    let copyright = output(
        Command::new("sh")
            .arg("-c")
            .arg("dpkg-deb --fsys-tarfile \"$0\" | tar -xO ./usr/share/doc/sasld/copyright")
            .arg(&package.new),
    );
    let (mut found, mut used, mut texts) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    for paragraph in copyright.trim_end().split("\n\n").skip(1) {
        let (head, licence) = paragraph.split_once("License: ").expect("a licence");
        let (licence, text) = licence.split_once('\n').unwrap_or((licence, ""));
        let Some(files) = head.strip_prefix("Files: ") else {
            texts.insert(licence, text);
            continue;
        };
        let (files, holder) = files.split_once("\nCopyright: ").expect("a holder");
        assert!(holder.trim().len() > 3, "{paragraph}");
        used.extend(
            licence
                .split(" or ")
                .flat_map(|choice| choice.split(" and "))
                .map(|one| one.trim_end_matches(',')),
        );
        found.insert(files.to_owned(), comparable(licence));
    }
    let mut expected = BTreeMap::from([("*".to_owned(), "mit or apache-2.0".to_owned())]);
    // What is built, as packaging/dev/vendor asks for it: `cargo metadata` has some more.
    let built = output(Command::new(env!("CARGO")).current_dir(repository("")).args([
        "tree",
        "--offline",
        "--locked",
        "--all-features",
        "--edges=normal,build,dev",
        "--prefix=none",
        "--format={p}\t{l}",
        "--target=x86_64-unknown-linux-gnu",
        "--target=aarch64-unknown-linux-gnu",
    ]));
    for (one, licence) in built.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once('\t')) {
        if one.starts_with("sasld ") {
            continue;
        }
        let mut words = one.split_whitespace();
        let (name, version) = (words.next().expect("a name"), words.next().expect("a version"));
        let files = format!("vendor/{name}-{}/*", version.trim_start_matches('v'));
        expected.insert(files, comparable(licence));
    }
    assert!(expected.len() > 80, "only {} crates", expected.len());
    assert_eq!(found, expected);
    assert_eq!(texts.keys().copied().collect::<BTreeSet<_>>(), used);
    for (licence, text) in texts {
        match text.split_once("/usr/share/common-licenses/") {
            Some((_, rest)) => {
                let name = rest.lines().next().unwrap().trim_end_matches('.');
                assert!(licence.starts_with(name), "{licence}: {text}");
                assert!(Path::new("/usr/share/common-licenses").join(name).exists(), "{licence}: {text}");
            }
            None => assert!(text.len() > 500, "{licence}: {text}"),
        }
    }
}
