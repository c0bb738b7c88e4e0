//! The documentation says what the program does: every event and reason of the log is explained and none that is not
//! there, every link leads somewhere, every command line parses, and the output shown is what comes out.
//!
//! Reads `README.md` and all of `docs/` in this checkout and runs the built `sasld` in directories of its own, and the
//! command blocks of the pages in sandboxes ([`commands`]).

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
#[path = "../support/mod.rs"]
mod support;

mod captures;
mod commands;
mod mail_servers;
mod pages;

use sasld::config::{Accounts, Config, Source};
use sasld::credential::{Password, Verifiers};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The README and every page below `docs/`.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths = vec![repository("README.md")];
    for folder in ["docs", "docs/errors"] {
        let files = fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The source without tests, which stand at the end of their files.
fn sources() -> String {
    let mut all = String::new();
    let mut folders = vec![repository("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = read(&path);
                all += text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            }
        }
    }
    all
}

/// Every word that stands directly behind one of these.
fn words_behind(text: &str, beginnings: &[&str]) -> BTreeSet<String> {
    let ends_word = |c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_';
    let word = |rest: &str| rest.split(ends_word).next().unwrap_or("").to_owned();
    let found = beginnings.iter().flat_map(|beginning| text.split(beginning).skip(1).map(word));
    found.filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_event_of_the_log_is_documented_and_no_other() {
    let source = sources();
    let logged = words_behind(&source, &["event = \"", " event=", ".announce(\""]);
    assert!(logged.len() > 20, "{logged:?}");
    assert_eq!(words_behind(&read(&repository("docs/log.md")), &["`event=", " event=", "\nevent="]), logged);
}

#[test]
fn every_reason_of_the_log_is_documented_and_no_other() {
    let source = sources();
    let mut logged = BTreeSet::new();
    for body in source.split("const fn why(self) -> &'static str {").skip(1) {
        logged.extend(words_behind(body.split("\n    }\n").next().unwrap_or(""), &["=> \""]));
    }
    let unspaced: String = source.split_whitespace().collect();
    logged.extend(words_behind(&unspaced, &[".reject(\"", "Verdict::Rejected(\""]));
    assert!(logged.len() > 15, "{logged:?}");
    assert_eq!(words_behind(&read(&repository("docs/log.md")), &["why="]), logged);
}

/// As GitHub and most others make it from a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for (path, page) in pages() {
        for target in page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            if target.starts_with("http") {
                continue;
            }
            seen += 1;
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let found = file.exists()
                && (fragment.is_empty()
                    || read(&file).lines().any(|line| {
                        line.starts_with('#') && anchor(line.trim_start_matches('#')) == fragment
                    }));
            if !found {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(seen > 30, "only {seen} links");
}

/// Every `sasld …` of a page: what is typed at a shell, and code in the text.
fn command_lines(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, block) in page.split("```").enumerate() {
        if index % 2 == 0 {
            let code = block.split('`').skip(1).step_by(2);
            lines.extend(code.filter_map(|code| code.strip_prefix("sasld ")).map(str::to_owned));
            continue;
        }
        let Some((info, typed)) = block.split_once('\n') else { continue };
        let prompts: &[&str] = match info.split(' ').next() {
            Some("sh") => &[""],
            Some("console") => &["# ", "$ "],
            _ => continue,
        };
        let typed =
            typed.lines().filter_map(|line| prompts.iter().find_map(|prompt| line.strip_prefix(prompt)));
        let ours = typed.filter_map(|line| match line.strip_prefix("sasld ") {
            Some(arguments) => Some(arguments),
            // Behind another command, such as setpriv.
            None => line
                .split_once(" sasld ")
                .filter(|(before, _)| before.starts_with("setpriv"))
                .map(|(_, rest)| rest),
        });
        lines.extend(ours.map(str::to_owned));
    }
    lines
}

fn sasld(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sasld"));
    command.args(arguments);
    support::feed(command, input.as_bytes())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn every_command_line_parses() {
    let mut seen = 0;
    for (path, page) in pages() {
        for line in command_lines(&page) {
            seen += 1;
            let mut words: Vec<&str> = line.split_whitespace().collect();
            words.push("--help");
            let output = sasld(&words, "");
            assert!(output.status.success(), "{}: sasld {line}\n{}", path.display(), text(&output.stderr));
        }
    }
    assert!(seen > 40, "only {seen} command lines");
}

#[test]
fn every_verifier_shown_is_the_password_it_is_said_to_be() {
    let page = read(&repository("docs/secrets-file.md"));
    let verifiers: Vec<&str> = page.lines().filter(|line| line.starts_with('{')).collect();
    assert!(verifiers.len() > 10, "{verifiers:?}");
    for shown in verifiers {
        let verifiers = Verifiers::parse(shown.as_bytes()).unwrap_or_else(|error| panic!("{shown}: {error}"));
        for verifier in verifiers.iter() {
            assert!(verifier.verify(&Password::new("wonderland")).is_some(), "{shown}");
        }
    }
}

/// A configuration in a directory of its own, with a Unix socket that belongs to whoever runs the test.
fn scratch() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let listeners = format!("listeners:\n  - unix: {path}/auth\n    owner: {uid}\n    group: {gid}\n");
    let passdbs = format!("passdbs:\n  - secrets_file: {path}/secrets\n");
    let control = format!("control: {path}/control\n");
    fs::write(directory.path().join("sasld.yaml"), listeners + &passdbs + &control).unwrap();
    directory
}

/// What a command prints, with the paths and owners of the pages.
fn shown(directory: &Path, arguments: &[&str], input: &str) -> String {
    let config = directory.join("sasld.yaml");
    let mut all = arguments.to_vec();
    all.extend(["--config", config.to_str().unwrap()]);
    let output = sasld(&all, input);
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    text(&[output.stdout, output.stderr].concat())
        .replace(&format!("{}/auth", directory.display()), "/var/spool/postfix/private/auth")
        .replace(&format!("({uid}:{gid} "), "(postfix:postfix ")
        .replace(directory.to_str().unwrap(), "/etc/sasld")
}

#[test]
fn the_five_minutes_print_what_they_say() {
    let directory = scratch();
    let readme = read(&repository("README.md"));
    for arguments in [&["user", "add", "alice", "--password-stdin"][..], &["check"]] {
        let output = shown(directory.path(), arguments, "wonderland\n");
        assert!(readme.contains(&output), "{arguments:?} prints\n{output}");
    }
}

#[test]
fn the_findings_shown_are_what_check_finds() {
    const SHA512: &str = "$6$0123456789abcdef$8CGkKDSyVpVlVNcs5PssRw/Tb8EgfecuA6D/zsRQFumJaU.s8KgTWWc2HfgkB7h2n1qIKiJFeSyUFrwvhILXy.";
    let lines = [
        "# mail users",
        &format!("alice:{{SHA512-CRYPT}}{SHA512}:1000:1000::/home/alice::userdb_mail=x"),
        "bob:{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56",
        &format!("carol:{SHA512}:1001:1001::/home/carol"),
        "dave:{SSHA}8bX4JQDfZqtTfvnQ4ssDmWb17/FTQUxU",
        "erin:{PLAIN}secret::::::allow_nets=192.0.2.0/24,local",
        &format!("frank:{{SHA512-CRYPT}}{SHA512}::::::nologin"),
        "grace:::::::nopassword",
        "henry:{PLAIN}a",
        "Henry:{PLAIN}b",
        "ivan:{CRAM-MD5}cd3b",
        "judy:{CRYPT}$1$01234567$Ny7c34eheM1R0I3inzIJP.",
        "ken:{PLAIN}",
        "leo smith:{PLAIN}x",
        "mia:{PLAIN}x::::::allow_nets=192.0.2",
        "nina:{PLAIN}x::::::allow_real_nets=192.0.2.0/24",
        "olga:{ARGON2ID}$argon2id$v=19$m=1048576,t=3,p=1$NjZziHSZ9CnOWug0mMSJiQ$lHxvnCzhfgYlq/hJlc3asWXXF1bLYZ5xutdaIvuuwRs",
    ];
    let directory = scratch();
    let secrets = directory.path().join("secrets");
    fs::write(&secrets, lines.join("\n") + "\n").unwrap();
    fs::set_permissions(&secrets, PermissionsExt::from_mode(0o600)).unwrap();
    let output = shown(directory.path(), &["check"], "");
    let found: String = output.split_inclusive('\n').filter(|line| line.contains(": line ")).collect();
    let page = read(&repository("docs/secrets-file.md"));
    assert!(!found.is_empty() && page.contains(&format!("```\n{found}```")), "check finds\n{found}");
}

/// Every account there is in the examples.
struct AllAccounts;

impl Accounts for AllAccounts {
    fn user(&self, _: &str) -> Result<Option<u32>, nix::errno::Errno> {
        Ok(Some(1))
    }
    fn group(&self, _: &str) -> Result<Option<u32>, nix::errno::Errno> {
        Ok(Some(1))
    }
}

#[test]
fn every_configuration_shown_loads() {
    let mut seen = 0;
    for (path, page) in pages() {
        for example in page.split("```yaml").skip(1) {
            seen += 1;
            let (_, example) = example.split_once('\n').expect("a block");
            let source = Source::new("sasld.yaml", example.split("```").next().unwrap_or(""));
            if let Err(error) = Config::from_sources(&[source], &AllAccounts) {
                panic!("{}: {error}", path.display());
            }
        }
    }
    assert!(seen > 15, "only {seen} examples");
}

#[test]
fn every_function_and_file_that_the_flow_names_exists() {
    let page = read(&repository("docs/flow.md"));
    let source = sources();
    let words: BTreeSet<&str> = source.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut seen = 0;
    for code in page.split("```").step_by(2).flat_map(|block| block.split('`').skip(1).step_by(2)) {
        if let Some((of, name)) = code.split_once("::") {
            seen += 1;
            assert!(words.contains(of) && words.contains(name), "{code}");
        } else if code.len() > 3 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') {
            assert!(words.contains(code), "{code}");
        } else if code.ends_with(".rs") || code.ends_with('/') {
            assert!(repository("src").join(code.trim_start_matches("src/")).exists(), "{code}");
        }
    }
    assert!(seen > 30, "only {seen} names");
}
