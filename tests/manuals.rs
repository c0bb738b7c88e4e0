//! The manual pages and completions: complete, well formed, and true.
//!
//! They are made as `make manuals` makes them, in a directory of their own. mandoc and man judge their form, the built
//! programs and the source say what has to be in them, and the shells read their completions.

#[path = "../packaging/man/pages/mod.rs"]
mod pages;

use pages::{Page, commands, extras};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn all() -> Vec<Page> {
    pages::all().expect("the sources of the pages")
}

fn made() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    pages::write_all(directory.path()).unwrap();
    directory
}

/// The files of all pages below `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let folders = ["man5", "man7", "man8"].map(|folder| directory.join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output =
        Command::new(program).args(arguments).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; packaging/dev/need test installs it"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The page as it is read, in one line without markup.
fn rendered(page: &Page) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &page.source).unwrap();
    let output = run("mandoc", &["-T", "utf8", "-O", "width=200", file.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}: {}", page.name, text(&output.stderr));
    // A character, a backspace and the character again is how a terminal of old printed bold.
    let mut plain = String::new();
    for character in text(&output.stdout).chars() {
        match character {
            '\u{8}' => _ = plain.pop(),
            other => plain.push(other),
        }
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn page(name: &str) -> Page {
    all().into_iter().find(|page| page.name == name).unwrap_or_else(|| panic!("no page {name}"))
}

#[test]
fn mandoc_finds_nothing_to_mend() {
    let directory = made();
    for file in files(directory.path()) {
        let output = run("mandoc", &["-T", "lint", "-W", "warning", file.to_str().unwrap()]);
        assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}

#[test]
fn man_finds_nothing_to_mend() {
    let directory = made();
    for file in files(directory.path()) {
        let output = run("man", &["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", file.to_str().unwrap()]);
        let complaints = text(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", file.display());
    }
}

#[test]
fn every_command_has_a_page_with_examples_and_all_its_options() {
    let pages = all();
    let with_entry: BTreeSet<&str> = extras::EXTRAS.iter().map(|extra| extra.command).collect();
    let mut paths = BTreeSet::new();
    for (name, path, command) in commands::all() {
        assert!(
            with_entry.contains(path.as_str())
                && extras::of(&path).is_some_and(|extra| !extra.examples.is_empty()),
            "packaging/man/pages/extras.txt says nothing about \"{path}\""
        );
        let page = pages.iter().find(|page| page.name == name).unwrap_or_else(|| panic!("no page {name}"));
        let shown = rendered(page);
        let options = command.get_arguments().filter(|argument| !argument.is_hide_set());
        for long in options.filter_map(clap::Arg::get_long) {
            assert!(shown.contains(&format!("--{long}")), "{name}: no --{long}");
        }
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(shown.contains(section), "{name}: no {section}");
        }
        paths.insert(path);
    }
    let superfluous: Vec<_> = with_entry.iter().filter(|path| !paths.contains(**path)).collect();
    assert!(superfluous.is_empty(), "no such commands: {superfluous:?}");
    assert!(paths.len() > 8, "{paths:?}");
}

#[test]
fn every_example_parses() {
    for (_, path, _) in commands::all() {
        for example in &extras::of(&path).expect("an entry").examples {
            for line in example.commands.lines() {
                let (_, line) =
                    line.split_at(line.find("sasld ").unwrap_or_else(|| panic!("{path}: {line}")));
                let words = line.split_whitespace().take_while(|word| !matches!(*word, "<" | ">" | "|"));
                if let Err(error) = sasld::cli::command().try_get_matches_from(words) {
                    panic!("{path}: {line}: {error}");
                }
            }
        }
    }
}

#[test]
fn every_exit_status_is_explained() {
    let source = include_str!("../src/cli/mod.rs");
    let body = source.split("pub enum Exit {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
    let numbers =
        body.lines().filter_map(|line| line.trim().strip_suffix(',')?.rsplit_once(" = ")?.1.parse().ok());
    let in_code: BTreeSet<u8> = numbers.collect();
    let on_pages: BTreeSet<u8> = extras::EXIT_STATUS.iter().map(|(status, _)| *status).collect();
    assert!(in_code.len() > 5, "{in_code:?}");
    assert_eq!(on_pages, in_code);
}

/// Every string of the lists that the configuration's code takes its keys from.
fn configuration_keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config")).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        let constants = source.split("KEYS: [&str; ").skip(1).filter_map(|rest| rest.split("];").next());
        let calls = source
            .split(".fields(")
            .skip(1)
            .filter_map(|rest| rest.split(")?").next())
            .filter_map(|call| Some(call.split_once("&[")?.1.split(']').next().unwrap_or_default()));
        for list in constants.chain(calls) {
            keys.extend(list.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    keys
}

#[test]
fn every_key_of_the_configuration_is_in_sasld_yaml_5() {
    let keys = configuration_keys();
    assert!(keys.len() > 25, "{keys:?}");
    let shown = rendered(&page("sasld.yaml"));
    let words: BTreeSet<&str> = shown.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let missing: Vec<_> = keys.iter().filter(|key| !words.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Nothing of a page in `docs/` is lost on the way: all its words are in the manual page, in their order.
#[test]
fn the_converted_pages_hold_every_word_of_their_sources() {
    let words = |text: &str| -> Vec<String> {
        let letters = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        letters.map(str::to_lowercase).collect()
    };
    for document in &pages::DOCUMENTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document.file);
        let source = fs::read_to_string(path).unwrap();
        let mut without_markup = String::new();
        for line in source.lines().filter(|line| !line.starts_with("# ")) {
            let line = line.strip_prefix("```").map_or(line, |_| "");
            // The targets of links, which become names of pages.
            for (index, part) in line.split("](").enumerate() {
                let part =
                    if index == 0 { part } else { part.split_once(')').map_or(part, |(_, rest)| rest) };
                without_markup.push_str(part);
                without_markup.push(' ');
            }
            without_markup.push('\n');
        }
        let shown = words(&rendered(&page(document.name)));
        let mut remaining = shown.iter();
        // The headings of a table stand in front of their cells, so they are not in the source's order.
        let in_tables = |line: &&str| !line.starts_with('|');
        for word in without_markup.lines().filter(in_tables).flat_map(words) {
            assert!(
                remaining.any(|shown| *shown == word),
                "{}: {word:?} is missing or out of place",
                document.name
            );
        }
        let shown: BTreeSet<String> = shown.into_iter().collect();
        for word in without_markup.lines().filter(|line| line.starts_with("| `")).flat_map(words) {
            assert!(shown.contains(&word), "{}: {word:?} is missing", document.name);
        }
    }
}

#[test]
fn every_page_that_a_page_refers_to_exists() {
    let pages = all();
    let ours: BTreeSet<String> =
        pages.iter().map(|page| format!("{}({})", page.name, page.section)).collect();
    for page in &pages {
        for word in rendered(page).split([' ', ',', '(']).filter(|word| word.starts_with("sasld")) {
            let shown = rendered(page);
            for section in ["5", "7", "8"] {
                let reference = format!("{word}({section})");
                assert!(
                    !shown.contains(&reference) || ours.contains(&reference),
                    "{}: {reference}",
                    page.name
                );
            }
        }
    }
}

#[cfg(feature = "pam")]
#[test]
fn sasld_pam_8_has_every_option_of_the_program() {
    let help = text(&run(env!("CARGO_BIN_EXE_sasld-pam"), &["--help"]).stdout);
    let shown = rendered(&page("sasld-pam"));
    let options: BTreeSet<&str> = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.trim_end_matches(|c: char| !c.is_alphanumeric()))
        .collect();
    assert!(options.len() > 8, "{options:?}");
    for option in options {
        assert!(shown.contains(&format!("--{option}")), "no --{option}");
    }
}

#[test]
fn bash_completes_commands_and_their_options() {
    let directory = made();
    let script = directory.path().join("completions/bash/sasld");
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let call = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={}; _sasld sasld '{}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2]
        );
        text(&run("bash", &["--norc", "-c", &call]).stdout)
    };
    assert_eq!(complete("sasld us"), "user\n");
    assert_eq!(complete("sasld user pas"), "passwd\n");
    assert_eq!(complete("sasld check --qu"), "--quiet\n");
}

#[test]
fn zsh_and_fish_can_read_their_completions() {
    let directory = made();
    for (shell, file) in [("zsh", "zsh/_sasld"), ("fish", "fish/sasld.fish")] {
        let path = directory.path().join("completions").join(file);
        let output = run(shell, &["-n", path.to_str().unwrap()]);
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", text(&output.stderr));
        let script = fs::read_to_string(&path).unwrap();
        for (_, path, _) in commands::all() {
            let last = path.rsplit(' ').next().unwrap_or_default();
            assert!(script.contains(last), "{shell}: no {path}");
        }
    }
    // fish itself says what it would offer.
    let script = directory.path().join("completions/fish/sasld.fish");
    let call = format!("source {}; complete -C 'sasld us'", script.display());
    let offered = text(&run("fish", &["--no-config", "-c", &call]).stdout);
    assert!(offered.starts_with("user\t"), "{offered}");
}
