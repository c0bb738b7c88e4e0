//! Every command block of the pages runs, in its order, as it stands there.
//!
//! Each page has a sandbox of its own (`sandbox`, whose head says what it is): private mounts, network and processes,
//! with a real Postfix and the built sasld. What the commands ask at their terminal is answered. A block must end
//! well, or badly if its page marks it with `fails`, and the output shown in a `console` block must come out.
//!
//! [`PAGES`](super::pages) says what a page takes for granted, and what has to be true after its last block.

use super::pages::{NOT_RUN, NotRun, PAGES, Page};
use super::support::skip::not_tested;
use super::{mail_servers, pages, read, repository};
use nix::pty::openpty;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What every question for a password is answered with.
const PASSWORD: &[u8] = b"wonderland\n";

/// More than any page needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Programs of the pages that cannot run in the sandbox. They leave a note and succeed, unless it says more here.
const STAND_INS: [(&str, &str); 6] = [
    ("apt", "packages come from a network, and their scripts start daemons"),
    ("apt-get", "the same"),
    ("make", "builds; CI calls these targets itself"),
    ("editor", "waits for a person"),
    ("journalctl", "there is no journal: shows Postfix's log file instead"),
    ("systemctl", "there is no systemd: starts, stops and reloads sasld and Postfix itself"),
];

/// One step of a page: a block, or one prompt of a `console` block.
struct Step {
    /// The line in the page's file.
    line: usize,
    commands: String,
    fails: bool,
    /// The output that the page shows.
    shown: Vec<String>,
}

/// The steps of a page, from its blocks marked `sh` (commands) and `console` (prompts, commands and output). What a
/// block marked `yaml applies` says is the configuration from then on, by way of `conf.d`.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block: Option<&str> = None;
    for (number, line) in (1..).zip(page.lines()) {
        let fails = block.is_some_and(|info| info.ends_with(" fails"));
        match (block, line.strip_prefix("```")) {
            (None, Some(info)) => block = Some(info),
            (Some(info), Some(_)) => {
                if info == "yaml applies" {
                    steps.last_mut().expect("a step").commands += "YAML\n";
                }
                block = None;
            }
            (None, None) => {}
            (Some("console" | "console fails"), None) => {
                match line.strip_prefix("# ").or(line.strip_prefix("$ ")) {
                    Some(typed) => {
                        let commands = format!("{typed}\n");
                        steps.push(Step { line: number, commands, fails, shown: Vec::new() });
                    }
                    None => match steps.last_mut() {
                        Some(step) => step.shown.push(line.to_owned()),
                        None => panic!("line {number}: a console block begins with a prompt"),
                    },
                }
            }
            (Some("sh" | "sh fails" | "yaml applies"), None) => {
                let _ = writeln!(steps.last_mut().expect("begun with the block").commands, "{line}");
            }
            (Some(_), None) => {}
        }
        // A block of commands is one step, begun with its first line.
        match line {
            "```sh" | "```sh fails" if block.is_some() => {
                let fails = line.ends_with(" fails");
                steps.push(Step { line: number, commands: String::new(), fails, shown: Vec::new() });
            }
            "```yaml applies" if block.is_some() => {
                let file = format!("/etc/sasld/conf.d/{number:04}.yaml");
                let commands = format!("mkdir -p /etc/sasld/conf.d; cat >{file} <<'YAML'\n");
                steps.push(Step { line: number, commands, fails: false, shown: Vec::new() });
            }
            _ => {}
        }
    }
    steps
}

/// The step as the sandbox runs it: a server of the page goes on behind the commands that follow.
fn runnable(commands: &str) -> String {
    let mut script = String::new();
    for line in commands.lines() {
        let server =
            line.starts_with("sasld serve") || line.starts_with("setpriv ") && line.contains("sasld serve");
        let _ = writeln!(script, "{}{line}", if server { "in-background " } else { "" });
    }
    script
}

/// The script of a whole page. Between marks with byte 1 the name of what runs, then its exit status.
fn script(page: &Page, steps: &[Step], dir: &Path) -> String {
    let mut all = String::from("mark() { printf '\\n\\001%s\\001\\n' \"$1\"; }\nset +e\n");
    // The page's own commands get a fresh shell; what is before and after them may use the sandbox's functions.
    let mut add = |name: &str, body: &str, own_shell: bool| {
        let file = dir.join(format!("{name}.sh"));
        fs::write(&file, body).expect("a private directory");
        let file = file.display();
        let run =
            if own_shell { format!("bash -eu {file}") } else { format!("( set -euo pipefail; . {file} )") };
        let _ = writeln!(all, "mark begin-{name}\n{run}\nmark \"end-{name} $?\"");
    };
    add("given", page.given, false);
    for (index, step) in steps.iter().enumerate() {
        add(&index.to_string(), &runnable(&step.commands), true);
    }
    add("then", page.then, false);
    all
}

/// What came of each part of the script: its exit status and all it printed.
type Results = BTreeMap<String, (i32, String)>;

/// Under this name: what was said before the first part.
const SETTING_UP: &str = "setting up";

fn run_in_sandbox(script: &str, dir: &Path) -> Result<Results, String> {
    let scratch = dir.join("scratch");
    fs::create_dir(&scratch).expect("a private directory");
    let file = dir.join("page.sh");
    fs::write(&file, script).expect("a private directory");
    let terminal = openpty(None, None).expect("a pseudo-terminal");
    let slave = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait", "unshare", "--mount", "--net", "--pid", "--ipc", "--uts"])
        .args(["--fork", "--kill-child", "--mount-proc"])
        .arg(repository("tests/docs/sandbox"))
        .arg(&scratch)
        .arg(env!("CARGO_BIN_EXE_sasld"))
        .arg(&file)
        .stdin(slave(&terminal.slave))
        .stdout(slave(&terminal.slave))
        .stderr(slave(&terminal.slave));
    let mut child = command.spawn().map_err(|error| format!("setsid: {error}"))?;
    drop((command, terminal.slave));
    let master = fs::File::from(terminal.master);
    let output = follow(master.try_clone().expect("a descriptor"));
    let all = answer_and_collect(&output, master);
    // Ends everything in the sandbox, should anything be left.
    let _ = child.kill();
    let _ = child.wait();
    let all = all?.replace('\r', "").replace(&format!("{}/src", scratch.display()), "/src");
    Ok(results(&all))
}

/// Everything that the terminal shows, as it comes.
fn follow(mut terminal: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // The end is an error: nobody has the terminal open any more.
        while let Ok(read @ 1..) = terminal.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Collects the output to its end, and answers what is asked.
fn answer_and_collect(
    output: &Receiver<Vec<u8>>,
    mut terminal: impl std::io::Write,
) -> Result<String, String> {
    let mut all = Vec::new();
    let mut answered = 0;
    let end = Instant::now() + PATIENCE;
    loop {
        match output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => all.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => return Ok(String::from_utf8_lossy(&all).into_owned()),
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("it does not end; so far:\n{}", String::from_utf8_lossy(&all)));
            }
        }
        let line = all.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let question = String::from_utf8_lossy(&all[line..]).to_lowercase();
        let asks = question.ends_with(": ")
            && (question.contains("password") || question.starts_with("the same again"));
        if asks && answered < all.len() {
            answered = all.len();
            terminal.write_all(PASSWORD).map_err(|error| error.to_string())?;
        }
    }
}

fn results(output: &str) -> Results {
    let mut parts = output.split('\u{1}');
    let setting_up = parts.next().unwrap_or_default().to_owned();
    let mut results = Results::from([(SETTING_UP.to_owned(), (0, setting_up))]);
    while let Some(mark) = parts.next() {
        let text = parts.next().unwrap_or_default();
        if let Some(name) = mark.strip_prefix("begin-") {
            results.insert(name.to_owned(), (-1, text.to_owned()));
        } else if let Some((name, status)) = mark.strip_prefix("end-").and_then(|mark| mark.split_once(' '))
            && let Some(result) = results.get_mut(name)
        {
            result.0 = status.parse().unwrap_or(-1);
        }
    }
    results
}

/// A line without what differs from one run to the next: numbers, queue ids, times, generated passwords.
fn stable(line: &str) -> String {
    let generated = line.strip_prefix("password of ").and_then(|rest| rest.split_once(": "));
    if let Some((user, _)) = generated {
        return format!("password of {user}");
    }
    let words = line.trim().split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let mut stable = String::new();
    for word in words {
        let end = word.len()
            - word.chars().next_back().filter(|c| !c.is_ascii_alphanumeric()).map_or(0, char::len_utf8);
        let (word, rest) = word.split_at(end);
        let id = word.len() >= 6
            && word.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
        let mut last = ' ';
        for character in if id { "0" } else { word }.chars() {
            let character = if character.is_ascii_digit() { '0' } else { character };
            if character != '0' || last != '0' {
                stable.push(character);
            }
            last = character;
        }
        stable.push_str(rest);
    }
    stable
}

/// Runs the page of this file.
pub fn run(file: &str) {
    if let Err(why) = available() {
        return not_tested(&format!("the commands of {file}: {why}"));
    }
    let page = PAGES.iter().find(|page| page.file == file).expect("a page in the table");
    if page.given.contains("mail_servers")
        && let Err(why) = mail_servers::unpack()
    {
        return not_tested(&format!("the commands of {file}: {why}"));
    }
    let text = read(&repository(file));
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{file} has no command block");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let script = script(page, &steps, dir.path());
    let results = run_in_sandbox(&script, dir.path()).unwrap_or_else(|trouble| panic!("{file}: {trouble}"));
    let result =
        |name: &str| results.get(name).unwrap_or_else(|| panic!("{file}: the sandbox ended: {results:?}"));
    let (status, output) = result("given");
    assert_eq!(*status, 0, "{file}: what the page takes for granted:\n{output}");
    for (index, step) in steps.iter().enumerate() {
        let (status, output) = result(&index.to_string());
        let place = format!("{file}:{}:\n{}{output}", step.line, step.commands);
        assert_eq!(*status != 0, step.fails, "{place}\nexit status {status}");
        let printed: BTreeSet<String> = output.lines().map(stable).collect();
        for line in step.shown.iter().filter(|line| !line.trim().is_empty()) {
            assert!(printed.contains(&stable(line)), "{place}\nnot in the output: {line}");
        }
    }
    let (status, output) = result("then");
    assert_eq!(*status, 0, "{file}: after its last block:\n{output}");
}

/// Whether this machine and this user can have such a sandbox.
fn available() -> Result<(), String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err("the sandbox needs root".to_owned());
    }
    for program in ["postconf", "swaks", "openssl", "ip", "pkill"] {
        let found =
            Command::new("sh").args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Err(format!("{program} is missing; packaging/dev/need test installs it"));
        }
    }
    let unshare = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "true"])
        .output();
    match unshare {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("unshare: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

#[test]
fn every_page_with_commands_runs_or_says_why_not() {
    let root = repository("");
    let mut with_commands = BTreeSet::new();
    for (path, text) in pages() {
        if !steps(&text).is_empty() {
            with_commands.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        }
    }
    let run: BTreeSet<String> = PAGES.iter().map(|page| page.file.to_owned()).collect();
    let not_run: BTreeSet<String> = NOT_RUN.iter().map(|page| page.file.to_owned()).collect();
    assert!(run.is_disjoint(&not_run));
    assert_eq!(run.union(&not_run).cloned().collect::<BTreeSet<_>>(), with_commands);
}

#[test]
fn what_does_not_run_here_runs_elsewhere_or_nowhere_and_the_table_says_so() {
    for NotRun { file, why, elsewhere } in NOT_RUN {
        let text = read(&repository(file));
        let typed: BTreeSet<String> =
            steps(&text).iter().map(|step| step.commands.trim_end().to_owned()).collect();
        let named: BTreeSet<String> = elsewhere.iter().map(|(command, ..)| (*command).to_owned()).collect();
        assert!(named.is_empty() || named == typed, "{file}, {why}: {typed:?}");
        for (command, script, words) in *elsewhere {
            assert!(read(&repository(script)).contains(words), "{file}: {command}: no {words} in {script}");
        }
    }
}

#[test]
fn the_sandbox_stands_in_for_nothing_else() {
    let sandbox = read(&repository("tests/docs/sandbox"));
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for line in sandbox.lines() {
        if let Some(names) =
            line.strip_prefix("for name in apt").and_then(|_| line.strip_prefix("for name in "))
        {
            named.extend(names.trim_end_matches("; do").split(' '));
        } else if let Some(name) = line.strip_prefix("stand_in ") {
            named.extend(name.split(' ').next().filter(|name| !name.starts_with('"')));
        }
    }
    assert_eq!(named, STAND_INS.iter().map(|(name, _)| *name).collect());
}

#[test]
fn blocks_become_steps_with_the_output_shown() {
    let page =
        "text\n```console\n# one\nsaid\n\n$ two\n```\n```\nnot run\n```\n```sh fails\nthree\nfour\n```\n";
    let found = steps(page);
    let commands: Vec<_> = found.iter().map(|step| (step.line, step.commands.as_str(), step.fails)).collect();
    assert_eq!(commands, [(3, "one\n", false), (6, "two\n", false), (11, "three\nfour\n", true)]);
    assert_eq!(found[0].shown, ["said", ""]);
}

#[test]
fn numbers_and_queue_ids_do_not_matter() {
    assert_eq!(
        stable("time=2026-11-22T18:51:57.2Z pid=180 ms=5"),
        stable("time=2027-01-02T01:02:03.456Z pid=7 ms=12")
    );
    assert_eq!(stable("Ok: queued as B4D2465"), stable("Ok: queued as 12AB34C0"));
    assert_ne!(stable("result=ok"), stable("result=refused"));
}
