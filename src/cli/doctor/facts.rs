//! What doctor looks at, gathered once and without a change to anything: configurations, secrets files, sockets as
//! mail servers find them, processes, units.
//!
//! What cannot be found out is a value like any other ([`Seen::Not`], a `Result`), and a probe decides what it means.
//! Here also stand the commands that mend things on sasld's side, because they depend on how sasld is run.

use super::finding::Finding;
use super::postfix::{Instance, Service, instances};
use super::seen::{Place, Seen, look};
use super::shell::quote;
use super::units::Units;
use crate::config::{Config, ConfigError, DEFAULT_PATH, Listener, Passdb};
use crate::control::{self, Request, Status};
use crate::credential::Password;
use crate::sasl::Mechanism;
use crate::secrets::{self, LoadError, LoadOptions, Names, SERVICE_ACCOUNT, Secrets, Trust};
use nix::unistd::{Uid, User};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything the probes look at.
pub struct Facts {
    /// sasld's configuration file.
    pub config_path: PathBuf,
    /// What it says.
    pub config: Result<Config, ConfigError>,
    /// The secrets files it names.
    pub secrets: Vec<SecretsFile>,
    /// Every Postfix.
    pub instances: Vec<Instance>,
    /// The sockets that Postfix asks at, as it finds them.
    pub seen: BTreeMap<Place, Seen>,
    /// The sockets that sasld is to serve, as root or whoever runs this finds them.
    pub listeners: Vec<(String, Seen)>,
    /// Every process, by its id.
    pub processes: BTreeMap<i32, String>,
    /// What the running daemon says of itself over its control socket; only root may ask.
    pub status: Option<Status>,
    /// sasld's units; `None` without systemd.
    pub units: Option<Units>,
    /// `/`, or where a test has the files of other packages.
    pub root: PathBuf,
    /// Whom to log in, if anybody.
    pub login: Option<(String, Password)>,
    /// Where to log in over SMTP.
    pub smtp: Option<String>,
    /// The directories given with `--postfix-config`.
    pub postfix_directories: Vec<PathBuf>,
}

/// A secrets file of the configuration.
pub struct SecretsFile {
    /// Where.
    pub path: PathBuf,
    /// What is in it, or why the daemon would not load it.
    pub loaded: Result<Secrets, LoadError>,
}

/// What the command line says about what to look at.
pub struct Scope {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--postfix-config`.
    pub postfix: Vec<PathBuf>,
    /// `--root`.
    pub root: PathBuf,
    /// `--user` and the password.
    pub login: Option<(String, Password)>,
    /// `--smtp`.
    pub smtp: Option<String>,
}

impl Facts {
    /// Looks at everything. Takes as long as the slowest socket: at most some seconds for each.
    pub fn gather(scope: Scope) -> Self {
        let config_path = scope.config.unwrap_or_else(|| DEFAULT_PATH.into());
        let config = Config::load(&config_path);
        let instances = instances(&scope.postfix);
        let mut seen = BTreeMap::new();
        for (instance, service) in services_of(&instances) {
            if let Some(place) = Place::of(instance, service) {
                seen.entry(place.clone()).or_insert_with(|| look(&place));
            }
        }
        let control = match &config {
            Ok(config) => config.control.clone(),
            // What it runs with may name another one, but this is the usual one.
            Err(_) => Some(control::DEFAULT_PATH.into()),
        };
        let status = control.and_then(|socket| control::ask(&socket, &Request::Status).ok());
        let (secrets, listeners) = match &config {
            Ok(config) => (secrets_files(config), listeners(config)),
            Err(_) => (Vec::new(), Vec::new()),
        };
        Self {
            config_path,
            config,
            secrets,
            instances,
            seen,
            listeners,
            processes: processes(),
            status,
            units: Units::look(&scope.root),
            root: scope.root,
            login: scope.login,
            smtp: scope.smtp,
            postfix_directories: scope.postfix,
        }
    }

    /// Every smtpd service that asks over Dovecot's protocol.
    pub fn services(&self) -> impl Iterator<Item = (&Instance, &Service)> {
        services_of(&self.instances)
    }

    /// What such a service finds at its socket.
    pub fn seen_by(&self, instance: &Instance, service: &Service) -> Option<(Place, &Seen)> {
        let place = Place::of(instance, service)?;
        let seen = self.seen.get(&place)?;
        Some((place, seen))
    }

    /// What a finding says about where it is: the service, and the instance if there are several.
    pub fn at(&self, instance: &Instance, service: Option<&Service>) -> String {
        let mut place = service.map_or("main.cf".to_owned(), Service::id);
        if self.instances.len() > 1 || !instance.default {
            place = format!("{} {place}", instance.directory.display());
        }
        place
    }

    /// Whether the configuration offers a mechanism.
    pub fn offers(&self, mechanism: Mechanism) -> bool {
        self.config.as_ref().is_ok_and(|config| config.mechanisms.contains(&mechanism))
    }

    /// Whether users meet a mechanism, by the rules of the services that Postfix names. One that has nothing else is a
    /// door for devices, as long as there is another.
    pub fn users_meet(&self, mechanism: Mechanism) -> bool {
        let Ok(config) = &self.config else { return false };
        let rules = |(_, service): (&Instance, &Service)| {
            let own = config.services.get(service.get("smtpd_sasl_service"));
            own.map_or(&config.mechanisms, |own| &own.mechanisms)
        };
        let mut doors: Vec<_> = self.services().map(rules).collect();
        if doors.is_empty() {
            doors.push(&config.mechanisms);
        }
        doors.iter().any(|door| door.contains(&mechanism) && door.len() > 1)
            || doors.iter().all(|door| door.contains(&mechanism))
    }

    /// The settings of PAM, if it is asked.
    pub fn pam(&self) -> Option<&crate::passdb::pam::Settings> {
        self.config.as_ref().ok()?.passdbs.iter().find_map(|passdb| match passdb {
            Passdb::Pam { settings, .. } => Some(settings),
            Passdb::SecretsFile { .. } => None,
        })
    }

    /// Whether a process of this name runs.
    pub fn runs(&self, name: &str) -> bool {
        self.processes.values().any(|running| running == name)
    }

    /// The running daemon: as it says itself, as whoever serves its sockets does, or as it was started.
    pub fn daemon(&self) -> Option<i32> {
        if let Some(status) = &self.status {
            return i32::try_from(status.pid).ok();
        }
        let serves = self.listeners.iter().find_map(|(_, seen)| match seen {
            Seen::Greeted(greeted) => greeted.server.filter(|pid| self.name_of(*pid) == Some("sasld")),
            Seen::Not { .. } => None,
        });
        let was_started = |(pid, name): (&i32, &String)| {
            (name == "sasld" && serves_with(&command_line(*pid), &self.config_path)).then_some(*pid)
        };
        serves.or_else(|| self.processes.iter().find_map(was_started))
    }

    /// The name of a process.
    pub fn name_of(&self, pid: i32) -> Option<&str> {
        self.processes.get(&pid).map(String::as_str)
    }

    /// A `sasld` command with the `--config` that this doctor was given.
    pub fn sasld(&self, words: &str) -> String {
        match self.config_path == Path::new(DEFAULT_PATH) {
            true => format!("sasld {words}"),
            false => format!("sasld {words} --config {}", quote(&self.config_path.display().to_string())),
        }
    }

    /// A `sasld user` command about somebody in this secrets file.
    pub fn sasld_user(&self, words: &str, user: &str, file: &Path) -> String {
        let is_first = self.secrets.first().is_some_and(|first| first.path == file);
        let options = match is_first {
            true if self.config_path == Path::new(DEFAULT_PATH) => String::new(),
            true => format!(" --config {}", quote(&self.config_path.display().to_string())),
            false => format!(" --file {}", quote(&file.display().to_string())),
        };
        let name = quote(user);
        match user.starts_with('-') {
            true => format!("sasld user {words}{options} -- {name}"),
            false => match words.split_once(' ') {
                Some((word, more)) => format!("sasld user {word} {name} {more}{options}"),
                None => format!("sasld user {words} {name}{options}"),
            },
        }
    }

    /// The same for commands that look at Postfix.
    pub fn sasld_and_postfix(&self, words: &str, instance: &Instance) -> String {
        match instance.default && self.postfix_directories.is_empty() {
            true => self.sasld(words),
            false => {
                let directory = quote(&instance.directory.display().to_string());
                format!("{} --postfix-config {directory}", self.sasld(words))
            }
        }
    }

    /// The command that starts sasld.
    pub fn start_sasld(&self) -> String {
        match &self.units {
            Some(units) if units.has("sasld.socket") => {
                "systemctl enable --now sasld.socket sasld.service".to_owned()
            }
            Some(units) if units.has("sasld.service") => "systemctl enable --now sasld.service".to_owned(),
            _ => format!("{} &", self.sasld("serve")),
        }
    }

    /// The command that ends a sasld that hangs, and starts it.
    pub fn restart_sasld(&self) -> String {
        match (&self.units, self.daemon()) {
            (Some(units), _) if units.has("sasld.service") => "systemctl restart sasld.service".to_owned(),
            (_, Some(pid)) => format!("kill -KILL {pid}; sleep 1; {}", self.start_sasld()),
            (_, None) => self.start_sasld(),
        }
    }

    /// The command that has a running sasld read its configuration again.
    pub fn reload_sasld(&self) -> Option<String> {
        match (self.daemon(), &self.units) {
            (None, _) => None,
            (Some(_), Some(units)) if units.has("sasld.service") => Some("systemctl reload sasld".to_owned()),
            (Some(pid), _) => Some(format!("kill -HUP {pid}")),
        }
    }

    /// The command, and afterwards that one.
    pub fn then_reload_sasld(&self, command: String) -> String {
        match self.reload_sasld() {
            Some(reload) => format!("{command} && {reload}"),
            None => command,
        }
    }

    /// The command that sets a key of the configuration, in a file of its own in `conf.d` that comes after all others,
    /// and makes it count.
    pub fn configure(&self, key: &str, value: &str) -> String {
        let folder = self.config_path.with_file_name("conf.d");
        let usual = format!("90-{key}.yaml");
        let others = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let is_last = others.filter_map(|name| name.into_string().ok()).all(|name| name <= usual);
        let name = if is_last { usual } else { format!("zz-{key}.yaml") };
        let file = quote(&folder.join(name).display().to_string());
        let folder = quote(&folder.display().to_string());
        let line = quote(&format!("{key}: {value}"));
        self.then_reload_sasld(format!("mkdir -p {folder} && echo {line} >{file}"))
    }

    /// Who the daemon is: the package's account, if it is there.
    pub fn service_account(&self) -> Option<User> {
        User::from_name(SERVICE_ACCOUNT).ok().flatten()
    }

    /// Why the package's account, if it is there, cannot read a file, and the command that lets it.
    pub fn closed_to_service(&self, path: &Path) -> Option<Finding> {
        let account = self.service_account()?;
        let found = fs::metadata(path).ok()?;
        if may_read((account.uid.as_raw(), account.gid.as_raw()), (found.uid(), found.gid(), found.mode())) {
            return None;
        }
        let file = quote(&path.display().to_string());
        Some(
            Finding::error(format!("{SERVICE_ACCOUNT}, as whom sasld runs, cannot read it"))
                .at(path.display())
                .fix(format!("chgrp {SERVICE_ACCOUNT} {file} && chmod 0640 {file}")),
        )
    }

    /// Whether this runs as root, and so can see through Postfix's eyes.
    pub fn is_root(&self) -> bool {
        Uid::effective().is_root()
    }
}

/// As the kernel decides for a user and his group; `file` is owner, group and mode.
fn may_read((user, group): (u32, u32), file: (u32, u32, u32)) -> bool {
    let (owner, of_group, mode) = file;
    match () {
        () if user == owner => mode & 0o400 != 0,
        () if group == of_group => mode & 0o040 != 0,
        () => mode & 0o004 != 0,
    }
}

/// The words that a process was started with.
pub fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<String> = words.collect();
    words.pop();
    words
}

/// Whether these words are a daemon with this configuration.
fn serves_with(words: &[String], config: &Path) -> bool {
    let named = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--config") {
        Some("") => words.get(at + 1).map(String::as_str),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    });
    words.iter().any(|word| word == "serve") && Path::new(named.unwrap_or(DEFAULT_PATH)) == config
}

fn services_of(instances: &[Instance]) -> impl Iterator<Item = (&Instance, &Service)> {
    instances.iter().flat_map(|instance| {
        instance
            .services
            .iter()
            .filter(|service| service.asks_sasld())
            .map(move |service| (instance, service))
    })
}

fn secrets_files(config: &Config) -> Vec<SecretsFile> {
    let allowed = |name: &str| config.usernames.canonical(name.as_bytes()).is_ok();
    let names = Names { lowercase: config.usernames.lowercase(), allowed: &allowed };
    let trust = Trust::of_process();
    let load = |path: &Path| {
        let options = LoadOptions { names, trust: Some(&trust), previous: None };
        secrets::load(path, &options).map(|loaded| loaded.secrets)
    };
    let paths = config.passdbs.iter().filter_map(|passdb| match passdb {
        Passdb::SecretsFile { path, .. } => Some(path),
        Passdb::Pam { .. } => None,
    });
    paths.map(|path| SecretsFile { path: path.clone(), loaded: load(path) }).collect()
}

fn listeners(config: &Config) -> Vec<(String, Seen)> {
    let name = |listener: &Listener| match listener {
        Listener::Unix(unix) => unix.path.display().to_string(),
        Listener::Tcp(tcp) => tcp.address.to_string(),
    };
    config
        .listeners
        .iter()
        .map(|listener| {
            let socket = name(listener);
            let seen = look(&Place::as_ourselves(&socket));
            (socket, seen)
        })
        .collect()
}

fn processes() -> BTreeMap<i32, String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, crate::cli::probe::process_name(pid)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides_who_may_read() {
        for (file, expected) in [
            ((998, 998, 0o400), true),
            ((998, 998, 0o044), false),
            ((0, 998, 0o640), true),
            ((0, 998, 0o604), false),
            ((0, 0, 0o640), false),
            ((0, 0, 0o644), true),
        ] {
            assert_eq!(may_read((998, 998), file), expected, "{file:?}");
        }
    }

    #[test]
    fn a_daemon_is_known_by_the_configuration_it_was_started_with() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let own = Path::new("/x.yaml");
        assert!(serves_with(&words("sasld serve --config /x.yaml"), own));
        assert!(serves_with(&words("/usr/sbin/sasld serve --config=/x.yaml"), own));
        assert!(!serves_with(&words("sasld doctor --config /x.yaml"), own));
        assert!(!serves_with(&words("sasld serve"), own));
        assert!(serves_with(&words("sasld serve"), Path::new(DEFAULT_PATH)));
    }
}
