//! Every Postfix there is, as `postconf` describes it: parameters as each smtpd service has them, and its smtpd services.
//!
//! Nothing is parsed here that `postconf` can work out: it knows the defaults, the overrides of master.cf and what
//! `$name` stands for. Instances come from `postmulti -l`, from `MAIL_CONFIG`, or from the command line. A Postfix whose
//! configuration `postconf` cannot read is an [`Instance`] with a `trouble` and nothing else.

use super::shell::quote;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The parameters looked at, of about a thousand; also what a misspelt one may have been meant to be.
pub const PARAMETERS: &[&str] = &[
    "broken_sasl_auth_clients",
    "mail_owner",
    "myhostname",
    "mynetworks",
    "queue_directory",
    "smtpd_client_auth_rate_limit",
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_recipient_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_sasl_auth_enable",
    "smtpd_sasl_authenticated_header",
    "smtpd_sasl_exceptions_networks",
    "smtpd_sasl_local_domain",
    "smtpd_sasl_mechanism_filter",
    "smtpd_sasl_path",
    "smtpd_sasl_security_options",
    "smtpd_sasl_service",
    "smtpd_sasl_tls_security_options",
    "smtpd_sasl_type",
    "smtpd_sender_login_maps",
    "smtpd_sender_restrictions",
    "smtpd_tls_auth_only",
    "smtpd_tls_cert_file",
    "smtpd_tls_chain_files",
    "smtpd_tls_dcert_file",
    "smtpd_tls_eccert_file",
    "smtpd_tls_security_level",
    "smtpd_tls_wrappermode",
    "smtpd_use_tls",
    "smtpd_enforce_tls",
    "smtp_sasl_path",
    "smtp_sasl_type",
];

/// Parameter names and values.
type Parameters = BTreeMap<String, String>;

/// One Postfix: one configuration directory.
#[derive(Debug, Default)]
pub struct Instance {
    /// Where main.cf is.
    pub directory: PathBuf,
    /// The one that Postfix's commands mean when they are told nothing.
    pub default: bool,
    /// Why `postconf` cannot read it.
    pub trouble: Option<String>,
    /// What `postconf` complains about, one line each.
    pub warnings: Vec<String>,
    /// What main.cf itself sets, unexpanded.
    pub written: Parameters,
    /// What holds where master.cf says nothing else.
    pub main: Parameters,
    /// The smtpd services.
    pub services: Vec<Service>,
    /// Name, type and program of every service.
    pub all_services: Vec<(String, String, String)>,
    /// The SASL implementations that this Postfix was built with.
    pub sasl_types: Vec<String>,
    /// Whether its master process runs.
    pub running: bool,
}

/// One smtpd service of master.cf.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// `submission`, `smtp`, `127.0.0.1:10025`, …
    pub name: String,
    /// `inet`, or `pass` behind postscreen.
    pub kind: String,
    /// Whether it is confined to the queue directory.
    pub chroot: bool,
    /// What master.cf sets for it.
    pub overrides: Parameters,
    /// What holds for it.
    parameters: Parameters,
}

/// All instances. With `directories`, these; there may be none at all.
pub fn instances(directories: &[PathBuf]) -> Vec<Instance> {
    let own = |directory: PathBuf| Instance::read(directory, false);
    if !directories.is_empty() {
        return directories.iter().cloned().map(own).collect();
    }
    if let Some(directory) = std::env::var_os("MAIL_CONFIG") {
        return vec![own(directory.into())];
    }
    let listed = postfix("postmulti", &["-l"]).unwrap_or_default();
    let directories: Vec<PathBuf> =
        listed.lines().filter_map(|line| line.split_whitespace().nth(3)).map(PathBuf::from).collect();
    let directories = match directories.is_empty() {
        false => directories,
        true => postfix("postconf", &["-h", "config_directory"])
            .into_iter()
            .map(|directory| PathBuf::from(directory.trim()))
            .collect(),
    };
    // The first one is the one that was there before there were others.
    directories
        .into_iter()
        .enumerate()
        .map(|(index, directory)| Instance::read(directory, index == 0))
        .collect()
}

impl Instance {
    /// Asks `postconf` about everything.
    pub fn read(directory: PathBuf, default: bool) -> Self {
        let mut instance = Self { directory, default, ..Self::default() };
        if let Err(trouble) = instance.ask() {
            instance.trouble = Some(trouble);
        }
        instance
    }

    fn ask(&mut self) -> Result<(), String> {
        let (written, warnings) = self.postconf(&["-n"], &[])?;
        self.warnings = warnings.lines().map(str::to_owned).collect();
        self.written = parameters(&written);
        self.main = parameters(&self.postconf(&["-x"], PARAMETERS)?.0);
        self.sasl_types = self.postconf(&["-a"], &[])?.0.lines().map(str::to_owned).collect();
        let overrides = self.postconf(&["-P"], &[])?.0;
        let level = self.postconf(&["-xh", "compatibility_level"], &[])?.0;
        let chroot_by_default = level.trim() == "0";
        for line in self.postconf(&["-M"], &[])?.0.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, kind, _, _, chroot, _, _, program, ..] = words[..] else { continue };
            self.all_services.push((name.to_owned(), kind.to_owned(), program.to_owned()));
            if program != "smtpd" {
                continue;
            }
            let chroot = chroot == "y" || (chroot == "-" && chroot_by_default);
            self.services.push(self.service(name, kind, chroot, &overrides)?);
        }
        let lock = self.queue_directory().join("pid/master.pid");
        let pid = std::fs::read_to_string(lock).ok().and_then(|text| text.trim().parse().ok());
        self.running = pid.and_then(crate::cli::probe::process_name).is_some_and(|name| name == "master");
        Ok(())
    }

    fn service(&self, name: &str, kind: &str, chroot: bool, overrides: &str) -> Result<Service, String> {
        let prefix = format!("{name}/{kind}/");
        let own: String = overrides.lines().filter_map(|line| line.strip_prefix(&prefix)).fold(
            String::new(),
            |mut own, line| {
                own.push_str(line);
                own.push('\n');
                own
            },
        );
        let own = parameters(&own);
        let mut options = vec!["-x".to_owned()];
        for (parameter, value) in &own {
            options.extend(["-o".to_owned(), format!("{parameter}={value}")]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let parameters = parameters(&self.postconf(&options, PARAMETERS)?.0);
        Ok(Service { name: name.to_owned(), kind: kind.to_owned(), chroot, overrides: own, parameters })
    }

    fn postconf(&self, options: &[&str], names: &[&str]) -> Result<(String, String), String> {
        let output = Command::new("postconf")
            .arg("-c")
            .arg(&self.directory)
            .args(options)
            .args(names)
            .env("LC_ALL", "C")
            .output()
            .map_err(|error| format!("postconf: {error}"))?;
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok((String::from_utf8_lossy(&output.stdout).into_owned(), complaints)),
            false => Err(complaints.trim_end().to_owned()),
        }
    }

    /// A parameter as main.cf or the default has it.
    pub fn get(&self, name: &str) -> &str {
        self.main.get(name).map_or("", String::as_str)
    }

    /// Where it lives, and what a chrooted service takes for `/`.
    pub fn queue_directory(&self) -> &Path {
        Path::new(self.main.get("queue_directory").map_or("/var/spool/postfix", String::as_str))
    }

    /// Who its processes are.
    pub fn owner(&self) -> &str {
        self.main.get("mail_owner").map_or("postfix", String::as_str)
    }

    /// The smtpd services where users can log in.
    pub fn with_auth(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|service| service.auth())
    }

    /// `postconf` for this instance, ready for arguments.
    pub fn command(&self, program: &str) -> String {
        match self.default {
            true => program.to_owned(),
            false => format!("{program} -c {}", quote(&self.directory.display().to_string())),
        }
    }

    /// The command that sets parameters in main.cf, and has a running Postfix take notice.
    pub fn set(&self, settings: &[(&str, &str)]) -> String {
        let settings: Vec<String> =
            settings.iter().map(|(name, value)| quote(&format!("{name}={value}"))).collect();
        self.then_reload(format!("{} {}", self.command("postconf"), settings.join(" ")))
    }

    /// The command that takes parameters out of main.cf.
    pub fn unset(&self, names: &[&str]) -> String {
        self.then_reload(format!("{} -X {}", self.command("postconf"), names.join(" ")))
    }

    /// The command that sets a parameter where this service has it from: in master.cf, if it has one of its own.
    pub fn set_for(&self, service: &Service, name: &str, value: &str) -> String {
        match service.overrides.contains_key(name) {
            true => self.set_only_for(service, &[(name, value)]),
            false => self.set(&[(name, value)]),
        }
    }

    /// The command that sets parameters for one service in master.cf, by way of main.cf where it has to.
    pub fn set_only_for(&self, service: &Service, settings: &[(&str, &str)]) -> String {
        let postconf = self.command("postconf");
        let all: Vec<OwnSetting> =
            settings.iter().map(|(name, value)| OwnSetting::of(service, name, value)).collect();
        let main = all.iter().filter_map(|setting| setting.main.as_ref());
        let main: Vec<String> = main.map(|setting| quote(&setting.word())).collect();
        let here: Vec<String> = all.iter().map(|setting| quote(&setting.here)).collect();
        let here = format!("{postconf} -P {}", here.join(" "));
        self.then_reload(match main.is_empty() {
            true => here,
            false => format!("{postconf} {} && {here}", main.join(" ")),
        })
    }

    /// The command that takes a parameter away where this service has it from.
    pub fn unset_for(&self, service: &Service, name: &str) -> String {
        match service.overrides.contains_key(name) {
            true => {
                let own = quote(&format!("{}/{name}", service.id()));
                self.then_reload(format!("{} -PX {own}", self.command("postconf")))
            }
            false => self.unset(&[name]),
        }
    }

    /// What master.cf or main.cf have for a parameter of this service, as it stands there.
    pub fn written_for<'a>(&'a self, service: &'a Service, name: &str) -> Option<&'a str> {
        service.overrides.get(name).or_else(|| self.written.get(name)).map(String::as_str)
    }

    /// The command that makes a certificate, signed by nobody but itself, and puts it into main.cf. (`postfix tls
    /// enable-server` does so only where main.cf has no setting for TLS at all.)
    pub fn new_certificate(&self) -> String {
        let [key, certificate] = self.new_certificate_files();
        let openssl = format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj {} -keyout {} -out {}",
            quote(&format!("/CN={}", self.get("myhostname"))),
            quote(&key),
            quote(&certificate)
        );
        format!(
            "{openssl} && {}",
            self.set(&[("smtpd_tls_cert_file", &certificate), ("smtpd_tls_key_file", &key)])
        )
    }

    /// Key and certificate of [`new_certificate`](Self::new_certificate): names that nothing has yet, for openssl would
    /// write over somebody's key.
    pub fn new_certificate_files(&self) -> [String; 2] {
        let named =
            |number: u32| ["key", "cert"].map(|what| self.numbered(&format!("tls-{what}"), number, ".pem"));
        unused(named).map(|file| file.display().to_string())
    }

    /// A file beside main.cf with this name, or with a number in it if there is one.
    pub fn new_file(&self, stem: &str, extension: &str) -> String {
        let [file] = unused(|number| [self.numbered(stem, number, extension)]);
        file.display().to_string()
    }

    fn numbered(&self, stem: &str, number: u32, extension: &str) -> PathBuf {
        let number = if number == 1 { String::new() } else { format!("-{number}") };
        self.directory.join(format!("{stem}{number}{extension}"))
    }

    /// The same command, and afterwards a running Postfix looks at its files.
    pub fn then_reload(&self, command: String) -> String {
        match self.running {
            true => format!("{command} && {} reload", self.command("postfix")),
            false => command,
        }
    }
}

/// How a parameter of one service is set. `postconf -P` takes no blanks, so a list with blanks inside braces goes into
/// main.cf, as a parameter of its own that master.cf names.
#[derive(Debug)]
pub struct OwnSetting {
    /// What main.cf has to have first.
    pub main: Option<MainSetting>,
    /// The argument of `postconf -P`.
    pub here: String,
}

/// A parameter of main.cf.
#[derive(Debug)]
pub struct MainSetting {
    pub name: String,
    pub value: String,
}

impl OwnSetting {
    pub fn of(service: &Service, name: &str, value: &str) -> Self {
        let id = service.id();
        let value = without_blanks(value);
        if !value.contains(BLANKS) {
            return Self { main: None, here: format!("{id}/{name}={value}") };
        }
        let own = format!("{name}_{}", service.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        let here = format!("{id}/{name}=${own}");
        Self { main: Some(MainSetting { name: own, value: list(&value).join(", ") }), here }
    }
}

impl MainSetting {
    /// The argument of `postconf`.
    pub fn word(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}

impl Service {
    /// A service that master.cf does not have yet: everything as main.cf has it.
    pub fn imagined(name: &str, instance: &Instance) -> Self {
        let chroot =
            instance.services.iter().find(|service| service.kind == "inet").is_some_and(|smtp| smtp.chroot);
        Self {
            name: name.to_owned(),
            kind: "inet".to_owned(),
            chroot,
            overrides: Parameters::new(),
            parameters: instance.main.clone(),
        }
    }

    /// A parameter as it holds here.
    pub fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// Whether a parameter says yes.
    pub fn yes(&self, name: &str) -> bool {
        self.get(name) == "yes"
    }

    /// What `postconf -P` calls it.
    pub fn id(&self) -> String {
        format!("{}/{}", self.name, self.kind)
    }

    /// Whether users can log in here.
    pub fn auth(&self) -> bool {
        self.yes("smtpd_sasl_auth_enable")
    }

    /// Whether users can log in here and Postfix asks over Dovecot's protocol.
    pub fn asks_sasld(&self) -> bool {
        self.auth() && self.get("smtpd_sasl_type") == "dovecot"
    }

    /// Whether mail from other servers comes in here.
    pub fn is_port_25(&self) -> bool {
        let port = self.name.rsplit(':').next().unwrap_or_default();
        self.kind == "pass" || matches!(port, "smtp" | "25")
    }

    /// Whether a session here can be, or has to be, encrypted.
    pub fn tls(&self) -> Tls {
        let level = match self.get("smtpd_tls_security_level") {
            "" if self.yes("smtpd_enforce_tls") => "encrypt",
            "" if self.yes("smtpd_use_tls") => "may",
            level => level,
        };
        match level {
            _ if self.yes("smtpd_tls_wrappermode") => Tls::Always,
            "may" if self.yes("smtpd_tls_auth_only") => Tls::ForLogins,
            "may" => Tls::Possible,
            "" | "none" => Tls::Never,
            _ => Tls::ForLogins,
        }
    }

    /// Whether there is a certificate to encrypt with.
    pub fn has_certificate(&self) -> bool {
        ["smtpd_tls_cert_file", "smtpd_tls_eccert_file", "smtpd_tls_dcert_file", "smtpd_tls_chain_files"]
            .iter()
            .any(|name| !matches!(self.get(name), "" | "none"))
    }
}

/// When a session is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    Never,
    /// If the client wants it.
    Possible,
    /// If the client wants it, and logins are offered only then.
    ForLogins,
    /// From the first byte.
    Always,
}

/// What `postconf` takes for the same list.
pub fn without_blanks(value: &str) -> String {
    list(value).join(",")
}

/// What separates the elements of a list, besides commas.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// The elements of a list as Postfix takes it apart (`mystrtokq` with `CHARS_COMMA_SP` and `CHARS_BRACE`): separated by
/// blanks or commas, but not inside braces. Joined with commas they mean the same again.
pub fn list(value: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let separates = |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && (c == ',' || BLANKS.contains(&c))
    };
    value.split(separates).filter(|element| !element.is_empty()).collect()
}

/// The first of these that nothing has.
fn unused<const N: usize>(named: impl Fn(u32) -> [PathBuf; N]) -> [PathBuf; N] {
    let mut number = 1;
    while named(number).iter().any(|file| file.symlink_metadata().is_ok()) {
        number += 1;
    }
    named(number)
}

/// `name = value` lines.
fn parameters(text: &str) -> Parameters {
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

/// What a program of Postfix prints; `None` when it is missing or unhappy.
fn postfix(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_apart_outside_braces_only() {
        let whole = "permit_mynetworks, check_policy_service { inet:127.0.0.1:9, timeout=1s },\tcheck_client_access \
                     inline:{ {192.0.2.1 = reject}, b=c } reject";
        let elements = list(whole);
        assert_eq!(
            elements,
            [
                "permit_mynetworks",
                "check_policy_service",
                "{ inet:127.0.0.1:9, timeout=1s }",
                "check_client_access",
                "inline:{ {192.0.2.1 = reject}, b=c }",
                "reject"
            ]
        );
        assert_eq!(list(&elements.join(",")), elements);
        assert_eq!(list(" , a} b"), ["a}", "b"]);
        assert_eq!(list("{ never closed, a"), ["{ never closed, a"]);
    }

    #[test]
    fn what_postconf_cannot_put_into_master_cf_goes_by_way_of_main_cf() {
        let service = Service { name: "127.0.0.1:587".into(), kind: "inet".into(), ..Service::default() };
        let instance = Instance { default: true, ..Instance::default() };
        let set = |value| instance.set_only_for(&service, &[("smtpd_relay_restrictions", value)]);
        assert_eq!(
            set("a, check_policy_service {x}"),
            "postconf -P '127.0.0.1:587/inet/smtpd_relay_restrictions=a,check_policy_service,{x}'"
        );
        assert_eq!(
            set("a check_policy_service { x, y }"),
            "postconf 'smtpd_relay_restrictions_127_0_0_1_587=a, check_policy_service, { x, y }' && \
             postconf -P '127.0.0.1:587/inet/smtpd_relay_restrictions=$smtpd_relay_restrictions_127_0_0_1_587'"
        );
    }
}
