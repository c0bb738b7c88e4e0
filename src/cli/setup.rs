//! `sasld setup postfix`: the fewest `postconf` commands that make one service of Postfix ask sasld, and their reverse.
//!
//! It compares what Postfix does with what it should do, so a second run finds nothing to change. Nothing is changed
//! without `--apply`. Each change carries the command that takes it back, made from the values found before. What is
//! only for this service goes into master.cf; how to reach sasld goes into main.cf, unless another service asks Cyrus.

use super::doctor::postfix::{Instance, Service, Tls, instances, list, without_blanks};
use super::doctor::shell::quote;
use super::doctor::{self, permitting, refuses_users};
use super::{Exit, Failure, config_path};
use crate::config::{Config, DEFAULT_PATH, Listener};
use crate::sasl::Mechanism;
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Make a mail server ask sasld
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Postfix(PostfixArguments),
}

/// Print the commands that make Postfix ask sasld, or run them
///
/// Without --apply nothing is changed: the commands are printed, and those that take them back. With it they are run,
/// and then `sasld doctor`, whose exit status this has: 0 good, 1 warnings, 2 errors.
#[derive(Debug, Args)]
struct PostfixArguments {
    /// The service where users log in: submission, submissions, or another name in master.cf
    #[arg(long, default_value = "submission", value_parser = service_name)]
    service: String,
    /// sasld's socket, instead of the first listener of its configuration: a path, or host:port
    #[arg(long, value_name = "SOCKET")]
    socket: Option<String>,
    /// A directory with main.cf and master.cf, instead of the default Postfix
    #[arg(long = "postfix-config", value_name = "DIRECTORY")]
    postfix: Option<PathBuf>,
    /// sasld's configuration, instead of /etc/sasld/sasld.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run the commands
    #[arg(long)]
    apply: bool,
    /// Print JSON; with --apply, instead of the doctor's report
    #[arg(long)]
    json: bool,
}

/// What master.cf can have as a name, without what would mean something else to `postconf`.
fn service_name(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.:[]".contains(c);
    match !name.is_empty() && name.chars().all(good) {
        true => Ok(name.to_owned()),
        false => Err("expected a name such as submission, or address:port".to_owned()),
    }
}

/// A command, and the one that takes it back.
#[derive(Debug)]
struct Change {
    command: Vec<String>,
    undo: Option<Vec<String>>,
}

pub(super) fn run(arguments: Arguments, out: &mut dyn Write) -> Result<Exit, Failure> {
    let What::Postfix(arguments) = arguments.what;
    let config = Config::load(&config_path(arguments.config.as_deref()))?;
    let instance = find_instance(&arguments)?;
    let plan = Plan::make(&instance, &arguments, &config)?;
    if arguments.json {
        let shown: Vec<_> = plan
            .changes
            .iter()
            .map(|change| json!({"command": line(&change.command), "undo": change.undo.as_deref().map(line)}))
            .collect();
        writeln!(out, "{}", json!({"changes": shown, "applied": arguments.apply}))?;
    } else {
        plan.print(&instance, &arguments, out)?;
    }
    if !arguments.apply {
        return Ok(Exit::Yes);
    }
    plan.apply(&instance)?;
    if arguments.json {
        return Ok(Exit::Yes);
    }
    writeln!(out)?;
    doctor::after_setup(arguments.config, arguments.postfix.into_iter().collect(), out)
}

fn find_instance(arguments: &PostfixArguments) -> Result<Instance, Failure> {
    let directories: Vec<PathBuf> = arguments.postfix.iter().cloned().collect();
    let Some(instance) = instances(&directories).into_iter().next() else {
        return Err(Failure::new(Exit::Unavailable, "there is no Postfix here, or postconf is not in PATH"));
    };
    match &instance.trouble {
        Some(trouble) => Err(Failure::new(Exit::Config, trouble)),
        None if !instance.sasl_types.iter().any(|name| name == "dovecot") => {
            Err(Failure::new(Exit::Unavailable, "this Postfix is built without Dovecot's SASL (postconf -a)"))
        }
        None => Ok(instance),
    }
}

/// What is to be done, in this order.
struct Plan<'a> {
    instance: &'a Instance,
    service: Service,
    changes: Vec<Change>,
    /// master.cf has no such service yet: taking that back takes back its settings.
    new: bool,
}

impl<'a> Plan<'a> {
    fn make(instance: &'a Instance, arguments: &PostfixArguments, config: &Config) -> Result<Self, Failure> {
        let found = instance.services.iter().find(|own| own.name == arguments.service && own.kind == "inet");
        let service = found.cloned().unwrap_or_else(|| Service::imagined(&arguments.service, instance));
        let mut plan = Self { instance, service, changes: Vec::new(), new: found.is_none() };
        plan.add_service();
        plan.reach_sasld(arguments, config)?;
        let own_rules = config.services.get(plan.service.get("smtpd_sasl_service"));
        let mechanisms = own_rules.map_or(&config.mechanisms, |rules| &rules.mechanisms);
        plan.protect_passwords(mechanisms);
        plan.let_users_send();
        plan.set_for_service("smtpd_sasl_auth_enable", "yes");
        Ok(plan)
    }

    /// The service itself, if master.cf does not have it.
    fn add_service(&mut self) {
        if !self.new {
            return;
        }
        let id = self.service.id();
        let chroot = if self.service.chroot { "y" } else { "n" };
        let entry = format!("{id}={} inet n - {chroot} - - smtpd", self.service.name);
        self.postconf(&["-M", &entry], Some(&["-MX", &id]));
        if matches!(self.service.name.rsplit(':').next(), Some("submissions" | "smtps" | "465")) {
            self.set_for_service("smtpd_tls_wrappermode", "yes");
        }
        self.set_for_service("syslog_name", &format!("postfix/{}", self.service.name));
    }

    fn reach_sasld(&mut self, arguments: &PostfixArguments, config: &Config) -> Result<(), Failure> {
        let socket = match &arguments.socket {
            Some(socket) => socket.clone(),
            None => {
                let names = config.listeners.iter().map(|listener| match listener {
                    Listener::Unix(unix) => unix.path.display().to_string(),
                    Listener::Tcp(tcp) => tcp.address.to_string(),
                });
                let mut names: Vec<String> = names.collect();
                let inside =
                    |name: &String| std::path::Path::new(name).starts_with(self.instance.queue_directory());
                let best = names.iter().position(inside).unwrap_or(0);
                names.swap_remove(best)
            }
        };
        let path = self.as_postfix_calls(&socket)?;
        for (name, value) in [("smtpd_sasl_type", "dovecot"), ("smtpd_sasl_path", path.as_str())] {
            let for_cyrus = self.instance.with_auth().any(|other| {
                other.id() != self.service.id() && !other.asks_sasld() && !other.overrides.contains_key(name)
            });
            if for_cyrus || self.service.overrides.contains_key(name) {
                self.set_for_service(name, value);
            } else {
                self.set(name, value);
            }
        }
        Ok(())
    }

    /// `smtpd_sasl_path` for a socket.
    fn as_postfix_calls(&self, socket: &str) -> Result<String, Failure> {
        if !socket.starts_with('/') {
            let tcp = socket.contains(':') && !socket.contains('/');
            return Ok(if tcp { format!("inet:{socket}") } else { socket.to_owned() });
        }
        let queue = self.instance.queue_directory();
        match std::path::Path::new(socket).strip_prefix(queue) {
            Ok(inside) => Ok(inside.display().to_string()),
            Err(_) if self.service.chroot => Err(Failure::new(
                Exit::Config,
                format_args!(
                    "{socket}: the service {} runs chrooted in {} and cannot reach it; give sasld a listener there, such \
                     as {}/private/auth",
                    self.service.name,
                    queue.display(),
                    queue.display()
                ),
            )),
            Err(_) => Ok(socket.to_owned()),
        }
    }

    /// PLAIN and LOGIN only inside TLS, what needs no TLS also without.
    fn protect_passwords(&mut self, mechanisms: &[Mechanism]) {
        if self.service.tls() == Tls::Never || !self.service.has_certificate() {
            if !self.service.has_certificate() {
                self.make_certificate();
            }
            if self.service.tls() == Tls::Never && !self.wrapped() {
                self.set_for_service("smtpd_tls_security_level", "may");
            }
        }
        let challenge_response = mechanisms.iter().any(|mechanism| !mechanism.is_plaintext());
        let clear = matches!(self.service.tls(), Tls::Never | Tls::Possible)
            && !self.service.yes("smtpd_tls_auth_only")
            && !self.wrapped();
        let has = |name: &str, option: &str| list(self.service.get(name)).contains(&option);
        if clear && !challenge_response {
            self.set_for_service("smtpd_tls_auth_only", "yes");
        } else if clear && !has("smtpd_sasl_security_options", "noplaintext") {
            self.set_for_service("smtpd_sasl_security_options", "noanonymous,noplaintext");
            // Where these follow the others, they change with them.
            let name = "smtpd_sasl_tls_security_options";
            let written = self.service.overrides.get(name).or_else(|| self.instance.written.get(name));
            if written.is_none_or(|value| value.contains('$')) {
                self.put_for_service(name, "noanonymous");
            } else {
                self.set_for_service(name, "noanonymous");
            }
        } else if has("smtpd_sasl_tls_security_options", "noplaintext") {
            self.set_for_service("smtpd_sasl_tls_security_options", "noanonymous");
        }
    }

    /// Whether it is TLS from the first byte; for a new service, by its name.
    fn wrapped(&self) -> bool {
        self.changes
            .iter()
            .any(|change| change.command.iter().any(|word| word.ends_with("/smtpd_tls_wrappermode=yes")))
    }

    fn make_certificate(&mut self) {
        let [key, certificate] = self.instance.new_certificate_files();
        let subject = format!("/CN={}", self.instance.get("myhostname"));
        let openssl = "openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj";
        let mut command: Vec<String> = openssl.split(' ').map(str::to_owned).collect();
        command.extend([subject, "-keyout".into(), key.clone(), "-out".into(), certificate.clone()]);
        let undo = Some(vec!["rm".to_owned(), key.clone(), certificate.clone()]);
        self.changes.push(Change { command, undo });
        self.set("smtpd_tls_cert_file", &certificate);
        self.set("smtpd_tls_key_file", &key);
    }

    /// Who has logged in may send, and on a service that is for users, nobody else.
    fn let_users_send(&mut self) {
        if !self.service.is_port_25() && !self.service.overrides.contains_key("smtpd_relay_restrictions") {
            self.set_for_service("smtpd_relay_restrictions", "permit_sasl_authenticated,reject");
        }
        for name in doctor::RESTRICTIONS {
            let elements = list(self.service.get(name));
            let done = name == "smtpd_relay_restrictions" && !self.service.overrides.contains_key(name);
            if !done && refuses_users(&elements) {
                self.set_for_service(name, &permitting(&elements));
            }
        }
    }

    /// A parameter of main.cf, unless it holds already.
    fn set(&mut self, name: &str, value: &str) {
        if self.service.get(name) == value {
            return;
        }
        let setting = format!("{name}={value}");
        match self.instance.written.get(name) {
            Some(before) => self.postconf(&[&setting], Some(&[&format!("{name}={before}")])),
            None => self.postconf(&[&setting], Some(&["-X", name])),
        }
    }

    /// A parameter of the service in master.cf, unless it holds already.
    fn set_for_service(&mut self, name: &str, value: &str) {
        if without_blanks(self.service.get(name)) != without_blanks(value) {
            self.put_for_service(name, value);
        }
    }

    /// A parameter of the service in master.cf.
    fn put_for_service(&mut self, name: &str, value: &str) {
        let id = self.service.id();
        let setting = format!("{id}/{name}={value}");
        match self.service.overrides.get(name) {
            _ if self.new => self.postconf(&["-P", &setting], None),
            Some(before) => {
                let before = format!("{id}/{name}={}", without_blanks(before));
                self.postconf(&["-P", &setting], Some(&["-P", &before]));
            }
            None => self.postconf(&["-P", &setting], Some(&["-PX", &format!("{id}/{name}")])),
        }
    }

    fn postconf(&mut self, arguments: &[&str], undo: Option<&[&str]>) {
        let with_program = |arguments: &[&str]| {
            let mut command = vec!["postconf".to_owned()];
            if !self.instance.default {
                command.extend(["-c".to_owned(), self.instance.directory.display().to_string()]);
            }
            command.extend(arguments.iter().map(|&argument| argument.to_owned()));
            command
        };
        let change = Change { command: with_program(arguments), undo: undo.map(with_program) };
        self.changes.push(change);
    }

    fn print(
        &self,
        instance: &Instance,
        arguments: &PostfixArguments,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let (directory, service) = (instance.directory.display(), self.service.id());
        if self.changes.is_empty() {
            writeln!(out, "# Postfix in {directory}, service {service}: nothing to do")?;
            return Ok(());
        }
        let done = if arguments.apply { "changing" } else { "to change" };
        writeln!(out, "# Postfix in {directory}, service {service}: {done}")?;
        for change in &self.changes {
            writeln!(out, "{}", line(&change.command))?;
        }
        if instance.running {
            writeln!(out, "{} reload", instance.command("postfix"))?;
        }
        if !arguments.apply {
            let mut doctor = "sasld doctor".to_owned();
            for (option, path) in [("--config", &arguments.config), ("--postfix-config", &arguments.postfix)]
            {
                if let Some(path) = path.as_ref().filter(|path| path.as_os_str() != DEFAULT_PATH) {
                    doctor = format!("{doctor} {option} {}", quote(&path.display().to_string()));
                }
            }
            writeln!(out, "{doctor}")?;
        }
        writeln!(out, "# To undo:")?;
        for undo in self.changes.iter().rev().filter_map(|change| change.undo.as_ref()) {
            writeln!(out, "# {}", line(undo))?;
        }
        if instance.running {
            writeln!(out, "# {} reload", instance.command("postfix"))?;
        }
        Ok(())
    }

    fn apply(&self, instance: &Instance) -> Result<(), Failure> {
        for change in &self.changes {
            execute(&change.command)?;
        }
        if instance.running && !self.changes.is_empty() {
            let mut reload = vec!["postfix".to_owned()];
            if !instance.default {
                reload.extend(["-c".to_owned(), instance.directory.display().to_string()]);
            }
            reload.push("reload".to_owned());
            execute(&reload)?;
        }
        Ok(())
    }
}

/// Runs a command; what it says on standard error is only shown when it fails.
fn execute(command: &[String]) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::new(
            Exit::Unavailable,
            format_args!("{}: {why}; the commands before it have been run", line(command)),
        )
    };
    let output = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The command as it is typed.
fn line(command: &[String]) -> String {
    command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}
