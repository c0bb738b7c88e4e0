//! The configuration as operators write it: what is shipped and documented loads, and each folder in
//! `tests/rejects` fails with exactly the message in its file `message`.
//!
//! A case is a `sasld.yaml`, perhaps with a `conf.d`, given names as if it lay in `/etc/sasld`. A
//! first line `# sasld: users none` (or `broken`) takes the users away (or makes looking them up
//! fail). After a wording was changed on purpose, `SASLD_WRITE_MESSAGES=1 cargo test --test config`
//! writes the messages anew, for `git diff` to show; the test itself fails all the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use sasld::config::{
    Account, Accounts, Config, DEFAULT_PATH, Limits, Listener, LogLevel, Metrics, Passdb, Source,
    TcpListener, UnixListener,
};
use sasld::passdb::pam;
use sasld::policy::{OnOutage, ServicePolicy};
use sasld::sasl::{Mechanism, NameRules};

/// Users and groups of an imaginary machine.
enum Machine {
    WithPostfix,
    WithoutPostfix,
    Broken,
}

impl Machine {
    fn id(&self, name: &str) -> Result<Option<u32>, Errno> {
        match (self, name) {
            (Self::WithPostfix, "root") => Ok(Some(0)),
            (Self::WithPostfix, "postfix") => Ok(Some(106)),
            (Self::WithPostfix, "Debian-exim") => Ok(Some(107)),
            (Self::WithPostfix, "_sasld") => Ok(Some(108)),
            (Self::Broken, _) => Err(Errno::EIO),
            (Self::WithPostfix | Self::WithoutPostfix, _) => Ok(None),
        }
    }
}

impl Accounts for Machine {
    fn user(&self, name: &str) -> Result<Option<u32>, Errno> {
        self.id(name)
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Errno> {
        self.id(name)
    }
}

fn postfix() -> Account {
    Account { name: "postfix".into(), id: 106 }
}

fn config(text: &str) -> Config {
    let source = Source::new("sasld.yaml", text);
    Config::from_sources(&[source], &Machine::WithPostfix).unwrap_or_else(|error| panic!("{error}"))
}

fn defaults() -> Config {
    Config::defaults(&Machine::WithPostfix).expect("defaults")
}

fn repository_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository_file(path)).expect(path)
}

#[test]
fn the_defaults_are_those_the_documentation_promises() {
    let expected = Config {
        listeners: vec![Listener::Unix(UnixListener {
            path: "/var/spool/postfix/private/auth".into(),
            owner: postfix(),
            group: postfix(),
            mode: 0o660,
            peers: None,
        })],
        mechanisms: vec![Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5],
        require_tls: true,
        passdbs: vec![Passdb::SecretsFile { path: "/etc/sasld/secrets".into(), continue_on_refusal: false }],
        services: BTreeMap::new(),
        usernames: NameRules::new("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_@", true),
        refusal_delay: Duration::from_secs(2),
        deadline: Duration::from_secs(8),
        on_outage: OnOutage::Auto,
        hash_threads: None,
        limits: Limits { connections: 10_000, exchanges_per_connection: 1_024 },
        log_level: LogLevel::Info,
        control: Some("/run/sasld/control".into()),
        metrics: None,
    };
    assert_eq!(defaults(), expected);
    assert_eq!(expected.warnings(), Vec::<String>::new());
}

#[test]
fn pam_has_defaults_and_takes_away_what_it_cannot_answer() {
    let alone = config("passdbs: [{pam: {}}]\n");
    let settings = pam::Settings {
        socket: "/run/sasld-pam/sock".into(),
        allow_user_change: false,
        worker: sasld::pam::Settings::default(),
    };
    assert_eq!(alone.passdbs, [Passdb::Pam { settings, continue_on_refusal: false }]);
    assert_eq!(alone.mechanisms, [Mechanism::Plain, Mechanism::Login]);
    let both = config("passdbs: [{secrets_file: /etc/sasld/secrets}, {pam: {}}]\n");
    assert_eq!(both.mechanisms, Mechanism::ALL);
    let service = config("passdbs: [{pam: {}}]\nservices: {submission: {mechanisms: [CRAM-MD5, PLAIN]}}\n");
    assert_eq!(service.services["submission"].mechanisms, [Mechanism::Plain]);
}

#[test]
fn every_setting_of_pam_is_taken() {
    let text = "passdbs:\n  - pam: {service: mail, socket: /run/pam, workers: 3, min_uid: 0, group: users, \
                login_shell: true, prompts: 2, allow_user_change: true}\n    continue_on_refusal: true\n";
    let worker = sasld::pam::Settings {
        service: "mail".into(),
        workers: 3,
        min_uid: 0,
        group: Some("users".into()),
        login_shell: true,
        prompts: 2,
    };
    let settings = pam::Settings { socket: "/run/pam".into(), allow_user_change: true, worker };
    assert_eq!(config(text).passdbs, [Passdb::Pam { settings, continue_on_refusal: true }]);
}

/// What is shipped comes with the worker that PAM needs; the built-in default does not rely on one.
fn shipped() -> Config {
    let mut shipped = defaults();
    shipped.passdbs.extend(config("passdbs:\n  - pam: {}\n").passdbs);
    shipped
}

#[test]
fn the_shipped_example_is_the_defaults_and_pam() {
    assert_eq!(config(&read("packaging/sasld.yaml")), shipped());
}

#[test]
fn the_shipped_example_shows_every_key_with_its_default() {
    let example = uncommented(&read("packaging/sasld.yaml"));
    assert_eq!(config(&example), shipped());
    for key in [
        "listeners",
        "mechanisms",
        "require_tls",
        "passdbs",
        "services",
        "usernames",
        "refusal_delay",
        "deadline",
        "on_outage",
        "hash_threads",
        "limits",
        "log_level",
        "control",
        "metrics",
    ] {
        assert!(example.contains(&format!("\n{key}:")), "{key} is not in the example");
    }
}

/// The example with its commented keys in force: `#key:` and the lines indented below it. Prose has
/// exactly one blank after the `#`.
fn uncommented(example: &str) -> String {
    let is_prose = |rest: &str| rest.is_empty() || rest.starts_with(' ') && !rest.starts_with("  ");
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !is_prose(rest) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    example.lines().map(line).collect()
}

#[test]
fn each_example_in_the_documentation_loads() {
    let page = read("docs/configuration.md");
    let examples: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a closed block").0)
        .collect();
    assert!(examples.len() >= 12, "only {} examples", examples.len());
    for example in examples {
        config(example);
    }
}

#[test]
fn the_documentation_names_the_default_path() {
    assert!(read("docs/configuration.md").contains(&format!("reads `{DEFAULT_PATH}`")));
}

#[test]
fn the_documentation_has_a_heading_for_every_key() {
    let page = read("docs/configuration.md");
    for line in uncommented(&read("packaging/sasld.yaml")).lines() {
        if let Some((key, _)) = line.split_once(':')
            && !key.starts_with(['#', ' '])
        {
            assert!(page.contains(&format!("\n## `{key}`\n")), "{key} is not documented");
        }
    }
}

#[test]
fn each_reject_fails_with_the_message_beside_it() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for case in folder(&repository_file("tests/rejects")) {
        seen += 1;
        let message = refusal(&case);
        let expected = fs::read_to_string(case.join("message")).unwrap_or_default();
        if message != expected {
            if std::env::var_os("SASLD_WRITE_MESSAGES").is_some() {
                fs::write(case.join("message"), &message).expect("message");
            }
            wrong.push(format!("{}\nexpected:\n{expected}\ngot:\n{message}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 30, "only {seen} cases");
}

fn refusal(case: &Path) -> String {
    let mut files = vec![case.join("sasld.yaml")];
    if case.join("conf.d").exists() {
        files.extend(folder(&case.join("conf.d")));
    }
    let sources: Vec<Source> = files
        .iter()
        .map(|file| {
            let name = file.strip_prefix(case).expect("below the case");
            Source::new(Path::new("/etc/sasld").join(name), fs::read(file).expect("a file"))
        })
        .collect();
    let first_line = sources[0].contents.split(|&byte| byte == b'\n').next();
    let machine = match first_line {
        Some(b"# sasld: users none") => Machine::WithoutPostfix,
        Some(b"# sasld: users broken") => Machine::Broken,
        _ => Machine::WithPostfix,
    };
    match Config::from_sources(&sources, &machine) {
        Ok(_) => "(accepted)\n".into(),
        Err(error) => format!("{error}\n"),
    }
}

fn folder(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_key_can_be_changed() {
    let changed = config(
        "listeners:
  - unix: /run/sasld/auth
    owner: 0
    group: postfix
    mode: 0o600
    peers: [postfix, 33]
  - tcp: localhost:12345
  - tcp: '[::1]:12345'
  - tcp: 192.0.2.10:12345
    allow: [192.0.2.77/24, 2001:db8::1]
mechanisms: [login, Plain]
require_tls: false
passdbs:
  - secrets_file: /etc/sasld/a
    continue_on_refusal: true
  - secrets_file: /etc/sasld/b
services:
  smtp: {}
  submission:
    mechanisms: [PLAIN]
    require_tls: true
    allow_nets: [198.51.100.0/24]
usernames:
  allowed_characters: ''
  lowercase: false
refusal_delay: 0s
deadline: 4000ms
on_outage: close
hash_threads: 3
limits: {connections: 1000000, exchanges_per_connection: 1}
log_level: trace
control: off
metrics: {unix: /run/sasld/metrics, group: postfix, mode: 0o666}
",
    );
    let root = Account { name: "0".into(), id: 0 };
    let www = Account { name: "33".into(), id: 33 };
    let tcp = |address: &str, allow: Option<&[&str]>| {
        let network = |text: &&str| text.parse().expect("a network");
        Listener::Tcp(TcpListener {
            address: address.parse().expect("an address"),
            allow: allow.map(|networks| networks.iter().map(network).collect()),
        })
    };
    let expected = Config {
        listeners: vec![
            Listener::Unix(UnixListener {
                path: "/run/sasld/auth".into(),
                owner: root,
                group: postfix(),
                mode: 0o600,
                peers: Some(vec![postfix(), www]),
            }),
            tcp("127.0.0.1:12345", None),
            tcp("[::1]:12345", None),
            tcp("192.0.2.10:12345", Some(&["192.0.2.0/24", "2001:db8::1/128"])),
        ],
        mechanisms: vec![Mechanism::Login, Mechanism::Plain],
        require_tls: false,
        passdbs: vec![
            Passdb::SecretsFile { path: "/etc/sasld/a".into(), continue_on_refusal: true },
            Passdb::SecretsFile { path: "/etc/sasld/b".into(), continue_on_refusal: false },
        ],
        services: BTreeMap::from([
            (
                "smtp".into(),
                ServicePolicy {
                    mechanisms: vec![Mechanism::Login, Mechanism::Plain],
                    require_tls: false,
                    allow_nets: None,
                },
            ),
            (
                "submission".into(),
                ServicePolicy {
                    mechanisms: vec![Mechanism::Plain],
                    require_tls: true,
                    allow_nets: Some(vec!["198.51.100.0/24".parse().expect("a network")]),
                },
            ),
        ]),
        usernames: NameRules::new("", false),
        refusal_delay: Duration::ZERO,
        deadline: Duration::from_secs(4),
        on_outage: OnOutage::Close,
        hash_threads: core::num::NonZeroU16::new(3),
        limits: Limits { connections: 1_000_000, exchanges_per_connection: 1 },
        log_level: LogLevel::Trace,
        control: None,
        metrics: Some(Metrics::Unix {
            path: "/run/sasld/metrics".into(),
            group: Some(postfix()),
            mode: 0o666,
        }),
    };
    assert_eq!(changed, expected);
}

#[test]
fn a_mode_is_octal_with_and_without_quotes() {
    for mode in ["0660", "\"0660\"", "0o660", "'0o660'", "00660"] {
        let config = config(&format!("listeners: [{{unix: /run/a, mode: {mode}}}]"));
        assert!(matches!(&config.listeners[0], Listener::Unix(unix) if unix.mode == 0o660), "{mode}");
    }
}

#[test]
fn a_deadline_just_beyond_the_slowest_refusal_is_enough() {
    let config = config("refusal_delay: 4s\ndeadline: 5001ms");
    assert_eq!(config.deadline, Duration::from_millis(5001));
}

#[test]
fn what_lets_strangers_guess_is_allowed_and_warned_about() {
    let config = config(
        "listeners:
  - {unix: /run/a, mode: '0666'}
  - {unix: /run/b, mode: '0666', peers: [postfix]}
  - {tcp: '0.0.0.0:12345', allow: [0.0.0.0/0]}
",
    );
    let expected = [
        "/run/a: mode 0666 lets every local user guess passwords here",
        "0.0.0.0:12345: every address is allowed, and passwords cross the network in the clear",
    ];
    assert_eq!(config.warnings(), expected);
}
