//! Files → [`Config`]: each top-level key, its default, and what keys have to do with each other.
//!
//! Pure over the texts given; users and groups are asked of [`Accounts`]. A file that is not YAML
//! ends the check after all files were parsed, because everything else said about it would be wrong.
//! Otherwise reading goes on after a mistake, and all of them come back in the order of the files.

use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file::{self, Node, Value};
use super::item::{Fields, Item};
use super::listeners::{default_listeners, listeners};
use super::metrics::metrics;
use super::mistake::Mistake;
use super::passdbs::{keep_what_can_be_served, passdbs};
use super::services::{mechanisms, services};
use super::{Accounts, Config, ConfigError, Limits, LogLevel, NameRules, OnOutage, Passdb, default, values};

/// One file: what it is called in messages, and what is in it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path.
    pub path: PathBuf,
    /// Its bytes, YAML or not.
    pub contents: Vec<u8>,
}

impl Source {
    /// A file called `path` with these `contents`.
    pub fn new(path: impl Into<PathBuf>, contents: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), contents: contents.into() }
    }
}

const KEYS: [&str; 14] = [
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
];
const ON_OUTAGE: [(&str, OnOutage); 3] =
    [("auto", OnOutage::Auto), ("close", OnOutage::Close), ("fail", OnOutage::Fail)];
const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

impl Config {
    /// Checks the main file, first in `sources`, and those of `conf.d` after it. A top-level key in a
    /// later file replaces the same key of an earlier one, whole.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with every mistake. A file in which nothing is written, not even a
    /// comment, is one: it is more likely a copy that failed than a wish for the defaults.
    pub fn from_sources(sources: &[Source], accounts: &dyn Accounts) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let config = check(sources, accounts, &mut mistakes);
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => {
                let rank = |mistake: &Mistake| {
                    let file = sources.iter().position(|source| source.path == mistake.file);
                    (file, mistake.place)
                };
                mistakes.sort_by_key(rank);
                Err(ConfigError::Invalid(mistakes))
            }
        }
    }
}

/// `None` comes with a mistake.
fn check(sources: &[Source], accounts: &dyn Accounts, mistakes: &mut Vec<Mistake>) -> Option<Config> {
    let mut trees: Vec<(&Path, Node)> = Vec::with_capacity(sources.len());
    for source in sources {
        match parse(source) {
            Ok(tree) => trees.push((&source.path, tree)),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if !mistakes.is_empty() {
        return None;
    }
    let top = top_level(&trees, mistakes);
    let main = sources.first().map_or(Path::new(super::DEFAULT_PATH), |source| &source.path);

    let listeners = match top.get("listeners") {
        Some(item) => listeners(item, accounts, mistakes),
        None => default_listeners(&Item::unwritten(main, "listeners"), accounts, mistakes),
    };
    let mut mechanisms = match top.get("mechanisms") {
        Some(item) => mechanisms(item, mistakes),
        None => Some(default::MECHANISMS.to_vec()),
    };
    let require_tls = top.read("require_tls", default::REQUIRE_TLS, mistakes, values::boolean);
    let passdbs = match top.get("passdbs") {
        Some(item) => passdbs(item, mistakes),
        None => Some(vec![Passdb::SecretsFile {
            path: default::SECRETS_FILE.into(),
            continue_on_refusal: default::CONTINUE_ON_REFUSAL,
        }]),
    };
    let mut services = match top.get("services") {
        Some(item) => services(item, mechanisms.as_deref(), require_tls, mistakes),
        None => Some(BTreeMap::new()),
    };
    if let (Some(mechanisms), Some(services), Some(passdbs)) = (&mut mechanisms, &mut services, &passdbs) {
        let unwritten = Item::unwritten(main, "mechanisms");
        let written = top.get("mechanisms").unwrap_or(&unwritten);
        keep_what_can_be_served(mechanisms, services, passdbs, written, mistakes);
    }
    let usernames = usernames(top.get("usernames"), mistakes);
    let refusal_delay = top.read("refusal_delay", default::REFUSAL_DELAY, mistakes, |item| {
        values::duration(item, &(Duration::ZERO..=Duration::from_secs(5)), "from 0s to 5s")
    });
    let deadline = top.read("deadline", default::DEADLINE, mistakes, |item| {
        values::duration(item, &(Duration::from_secs(1)..=Duration::from_secs(9)), "from 1s to 9s")
    });
    let on_outage =
        top.read("on_outage", default::ON_OUTAGE, mistakes, |item| values::one_of(item, &ON_OUTAGE));
    let hash_threads =
        top.read("hash_threads", default::HASH_THREADS, mistakes, |item| values::number(item, &(0..=256)));
    let limits = limits(top.get("limits"), mistakes);
    let log_level =
        top.read("log_level", default::LOG_LEVEL, mistakes, |item| values::one_of(item, &LOG_LEVELS));

    let metrics = match top.get("metrics") {
        Some(item) => metrics(item, accounts, mistakes),
        None => Some(None),
    };
    let control = top.read("control", Some(default::CONTROL.into()), mistakes, values::socket_path_or_off);

    if let (Some(refusal_delay), Some(deadline)) = (refusal_delay, deadline) {
        refusals_keep_the_deadline(&top, refusal_delay, deadline, mistakes);
    }
    Some(Config {
        listeners: listeners?,
        mechanisms: mechanisms?,
        require_tls: require_tls?,
        passdbs: passdbs?,
        services: services?,
        usernames: usernames?,
        refusal_delay: refusal_delay?,
        deadline: deadline?,
        on_outage: on_outage?,
        hash_threads: hash_threads.map(|threads| u16::try_from(threads).ok().and_then(NonZeroU16::new))?,
        limits: limits?,
        log_level: log_level?,
        control: control?,
        metrics: metrics?,
    })
}

fn parse(source: &Source) -> Result<Node, Mistake> {
    if source.contents.iter().all(u8::is_ascii_whitespace) {
        return Err(Mistake::of_file(
            &source.path,
            "the file is empty, as after a failed copy; no key is required, but a comment is: start \
             from the example, packaging/sasld.yaml",
        ));
    }
    file::parse(&source.path, &source.contents)
}

/// The top-level keys of all files, each from the last file that has it.
fn top_level<'a>(trees: &'a [(&'a Path, Node)], mistakes: &mut Vec<Mistake>) -> Fields<'a> {
    let mut top = Fields::default();
    for (path, tree) in trees {
        if matches!(tree.value, Value::Nothing) {
            continue; // Comments only.
        }
        let root = Item::root(path, tree);
        let Some(fields) = root.fields("keys and values", &KEYS, mistakes) else {
            continue;
        };
        top.0.retain(|earlier| fields.get(earlier.name).is_none());
        top.0.extend(fields.0);
    }
    top
}

fn usernames(item: Option<&Item<'_>>, mistakes: &mut Vec<Mistake>) -> Option<NameRules> {
    let fields = match item {
        Some(item) => {
            item.fields("allowed_characters and lowercase", &["allowed_characters", "lowercase"], mistakes)?
        }
        None => Fields::default(),
    };
    let allowed_characters = fields.read(
        "allowed_characters",
        default::ALLOWED_CHARACTERS.to_owned(),
        mistakes,
        values::characters,
    );
    let lowercase = fields.read("lowercase", default::LOWERCASE, mistakes, values::boolean);
    Some(NameRules::new(&allowed_characters?, lowercase?))
}

fn limits(item: Option<&Item<'_>>, mistakes: &mut Vec<Mistake>) -> Option<Limits> {
    let fields = match item {
        Some(item) => item.fields(
            "connections and exchanges_per_connection",
            &["connections", "exchanges_per_connection"],
            mistakes,
        )?,
        None => Fields::default(),
    };
    let Limits { connections, exchanges_per_connection } = default::LIMITS;
    let connections =
        fields.read("connections", connections, mistakes, |item| values::number(item, &(1..=1_000_000)));
    let exchanges_per_connection =
        fields.read("exchanges_per_connection", exchanges_per_connection, mistakes, |item| {
            values::number(item, &(1..=65_536))
        });
    Some(Limits { connections: connections?, exchanges_per_connection: exchanges_per_connection? })
}

/// A refusal leaves up to a quarter later than `refusal_delay` (jitter), and that must be before the
/// deadline; the deadline itself is at most 9 s, since Postfix gives up at 10.
fn refusals_keep_the_deadline(
    top: &Fields<'_>,
    refusal_delay: Duration,
    deadline: Duration,
    mistakes: &mut Vec<Mistake>,
) {
    let latest = refusal_delay + refusal_delay / 4;
    if deadline > latest {
        return;
    }
    let what = format!(
        "a deadline of {deadline:?} leaves no room for refusals, which take up to {latest:?} \
         (refusal_delay of {refusal_delay:?} and a quarter); raise deadline or lower refusal_delay"
    );
    if let Some(written) = top.get("deadline").or_else(|| top.get("refusal_delay")) {
        mistakes.push(written.mistake(what));
    }
}
