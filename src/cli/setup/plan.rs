//! What has to change so that one service asks sasld, as commands with their reverse.
//!
//! What holds already is left alone. How to reach sasld goes into main.cf, unless users of another service would ask
//! somebody else from then on; everything else is for this service alone, in master.cf. The one exception is a
//! certificate, which has to be somewhere and changes nothing for services that have none.

use super::{Change, PostfixArguments, which};
use crate::cli::doctor::postfix::{Instance, MainSetting, OwnSetting, Service, Tls, list, without_blanks};
use crate::cli::doctor::{self, holding_users, permitting, refuses_users};
use crate::cli::{Exit, Failure};
use crate::config::{Config, Listener};
use crate::sasl::Mechanism;

/// What is to be done, in this order.
pub(super) struct Plan<'a> {
    instance: &'a Instance,
    pub service: Service,
    pub changes: Vec<Change>,
    /// master.cf has no such service yet: taking that back takes back its settings.
    new: bool,
}

impl<'a> Plan<'a> {
    pub fn make(
        instance: &'a Instance,
        arguments: &PostfixArguments,
        config: &Config,
    ) -> Result<Self, Failure> {
        let found = which::find(instance, &arguments.service)?;
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
        self.postconf(&["-M", &entry], &[&["-MX", &id]]);
        if which::is_wrapped(&self.service.name) {
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
            let others_have_another = self.instance.with_auth().any(|other| {
                let follows = other.id() != self.service.id() && !other.overrides.contains_key(name);
                follows && other.get(name) != value
            });
            if others_have_another || self.service.overrides.contains_key(name) {
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
        let undo = vec![vec!["rm".to_owned(), key.clone(), certificate.clone()]];
        self.changes.push(Change { command, undo });
        self.set("smtpd_tls_cert_file", &certificate);
        self.set("smtpd_tls_key_file", &key);
    }

    /// Who has logged in may send; on a service that is only for users, nobody else. Nothing here lets anybody in who
    /// has not logged in: lists get that one permission, or lose all others. What holds users to their own addresses
    /// goes on doing so.
    fn let_users_send(&mut self) {
        const RELAY: &str = "smtpd_relay_restrictions";
        let for_users = !self.service.is_port_25() && !self.service.overrides.contains_key(RELAY);
        if for_users {
            let relay = list(self.service.get(RELAY));
            let held = holding_users(&relay);
            let value = [&held[..], &["permit_sasl_authenticated", "reject"]].concat().join(",");
            self.set_for_service(RELAY, &value);
        }
        for name in doctor::RESTRICTIONS.into_iter().filter(|name| !(for_users && *name == RELAY)) {
            let elements = list(self.service.get(name));
            if refuses_users(&elements) {
                self.set_for_service(name, &permitting(&elements));
            }
        }
    }

    /// A parameter of main.cf, unless it holds already.
    fn set(&mut self, name: &str, value: &str) {
        if self.service.get(name) != value {
            self.put(name, value);
        }
    }

    /// A parameter of main.cf.
    fn put(&mut self, name: &str, value: &str) {
        let setting = format!("{name}={value}");
        match self.instance.written.get(name) {
            Some(before) => self.postconf(&[&setting], &[&[&format!("{name}={before}")]]),
            None => self.postconf(&[&setting], &[&["-X", name]]),
        }
    }

    /// A parameter of the service in master.cf, unless it holds already.
    fn set_for_service(&mut self, name: &str, value: &str) {
        if without_blanks(self.service.get(name)) != without_blanks(value) {
            self.put_for_service(name, value);
        }
    }

    /// A parameter of the service in master.cf, by way of main.cf where it has to.
    fn put_for_service(&mut self, name: &str, value: &str) {
        let now = OwnSetting::of(&self.service, name, value);
        let before = self.service.overrides.get(name).map(|value| OwnSetting::of(&self.service, name, value));
        let main_before = before.as_ref().and_then(|before| before.main.as_ref()).map(MainSetting::word);
        match now.main {
            // The setting before needs the parameter, too.
            Some(main) if main_before.is_some() => self.postconf(&[&main.word()], &[]),
            Some(main) => self.put(&main.name, &main.value),
            None => {}
        }
        let command = ["-P", &now.here];
        match (before, main_before) {
            _ if self.new => self.postconf(&command, &[]),
            (Some(before), None) => self.postconf(&command, &[&["-P", &before.here]]),
            (Some(before), Some(main)) => self.postconf(&command, &[&[&main], &["-P", &before.here]]),
            (None, _) => {
                let own = format!("{}/{name}", self.service.id());
                self.postconf(&command, &[&["-PX", &own]]);
            }
        }
    }

    fn postconf(&mut self, arguments: &[&str], undo: &[&[&str]]) {
        let with_program = |arguments: &[&str]| {
            let mut command = vec!["postconf".to_owned()];
            if !self.instance.default {
                command.extend(["-c".to_owned(), self.instance.directory.display().to_string()]);
            }
            command.extend(arguments.iter().map(|&argument| argument.to_owned()));
            command
        };
        let undo = undo.iter().map(|arguments| with_program(arguments)).collect();
        let change = Change { command: with_program(arguments), undo };
        self.changes.push(change);
    }
}
