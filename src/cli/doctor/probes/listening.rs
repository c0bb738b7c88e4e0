//! The sockets where Postfix asks: what it finds there, as its own user and inside its chroot, and whose they are.
//!
//! Services that look at the same place share a finding. Where sasld's own listener is the trouble, `running` says so
//! and nothing is said twice.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::postfix::{Instance, Service};
use crate::cli::doctor::seen::{Greeted, Place, Seen};
use crate::cli::doctor::shell::quote;
use crate::cli::doctor::units::Unit;
use crate::config::{Config, Listener, UnixListener, open_socket};
use nix::unistd::User;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What comes of nearly everything here.
const FATAL: &str =
    "Its smtpd ends with \"fatal: no SASL authentication mechanisms\" whenever a client connects.";

pub fn socket(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (instance, service, place, seen) in once_for_each_place(facts) {
        let Seen::Not { word, message } = seen else { continue };
        let finding = match word.as_str() {
            "missing" => missing(facts, instance, service, &place),
            "refused" if configured(facts, &place).is_some() => None,
            "refused" => Some(
                Finding::error(format!("nobody listens on {}, its socket is left over", shown(&place)))
                    .fix(to_our_socket(facts, instance, service)),
            ),
            "permission" => Some(not_permitted(facts, instance, &place)),
            "turned_away" => Some(turned_away(facts, instance, &place)),
            "nonsense" => Some(
                Finding::error(format!("something else listens there: {message}"))
                    .fix(to_our_socket(facts, instance, service)),
            ),
            "unknown" => Some(Finding::skipped(message)),
            _ => Some(Finding::error(message).fix(facts.start_sasld())),
        };
        let Some(mut finding) = finding else { continue };
        if finding.why.is_empty() {
            FATAL.clone_into(&mut finding.why);
        }
        findings.push(finding.at(facts.at(instance, Some(service))));
    }
    if !facts.is_root() && findings.is_empty() && facts.services().next().is_some() {
        findings.push(Finding::skipped("only root can see the sockets as Postfix sees them"));
    }
    findings
}

pub fn socket_owner(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (instance, service, place, seen) in once_for_each_place(facts) {
        let Seen::Greeted(greeted) = seen else { continue };
        let names = [greeted.server, greeted.listener].map(|pid| pid.and_then(|pid| facts.name_of(pid)));
        let Some(name) = names.into_iter().flatten().find(|name| !matches!(*name, "systemd" | "init")) else {
            continue;
        };
        if name == "sasld" {
            continue;
        }
        let who = if names.contains(&Some("dovecot")) { "Dovecot".to_owned() } else { format!("{name:?}") };
        findings.push(
            Finding::warning(format!("{who} listens on {}, not sasld", shown(&place)))
                .at(facts.at(instance, Some(service)))
                .why(
                    "Its users and passwords count here, not those of sasld, and sasld cannot have this socket as long \
                     as it is taken. Whether it is to let go of it is for you to decide (docs/from-dovecot.md).",
                )
                .fix(to_our_socket(facts, instance, service)),
        );
    }
    findings
}

/// The first service that looks at each place.
fn once_for_each_place(facts: &Facts) -> Vec<(&Instance, &Service, Place, &Seen)> {
    let mut places = BTreeSet::new();
    facts
        .services()
        .filter_map(|(instance, service)| {
            let (place, seen) = facts.seen_by(instance, service)?;
            places.insert(place.clone()).then_some((instance, service, place, seen))
        })
        .collect()
}

fn shown(place: &Place) -> String {
    place.path().map_or_else(|| place.socket.clone(), |path| path.display().to_string())
}

fn unix_listeners(facts: &Facts) -> impl Iterator<Item = &UnixListener> {
    facts.config.iter().flat_map(|config| &config.listeners).filter_map(|listener| match listener {
        Listener::Unix(unix) => Some(unix),
        Listener::Tcp(_) => None,
    })
}

/// sasld's listener at this very place.
fn configured<'a>(facts: &'a Facts, place: &Place) -> Option<&'a UnixListener> {
    let path = place.path()?;
    unix_listeners(facts).find(|listener| same(&listener.path, &path))
}

/// Whether both lead to one place, even if nothing is there.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| {
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        folder.map_or(path.to_owned(), |folder| folder.join(path.file_name().unwrap_or_default()))
    };
    one == other || real(one) == real(other)
}

fn missing(facts: &Facts, instance: &Instance, service: &Service, place: &Place) -> Option<Finding> {
    if configured(facts, place).is_some() {
        // sasld should be there and is not: `running` says so. Or it is, and Postfix's own rules hide it.
        return None;
    }
    let written = service.get("smtpd_sasl_path");
    let queue = instance.queue_directory();
    let confined = place.chroot && written.starts_with('/');
    let what = match confined {
        true => format!(
            "runs chrooted in {}, so {written} is {} for it, where nothing is",
            queue.display(),
            shown(place)
        ),
        false => format!("smtpd_sasl_path = {written} is {}, where nothing is", shown(place)),
    };
    Some(Finding::error(what).fix(to_our_socket(facts, instance, service)))
}

/// The command that leads a service to a socket of sasld's.
fn to_our_socket(facts: &Facts, instance: &Instance, service: &Service) -> String {
    ask_sasld(facts, instance, service, &[])
}

/// The command that makes a service ask at a socket of sasld's, and sets these parameters with it. Each is set where the
/// service has it from; all of them in master.cf if one is there.
pub(super) fn ask_sasld(
    facts: &Facts,
    instance: &Instance,
    service: &Service,
    more: &[(&str, &str)],
) -> String {
    let set = |path: &str| {
        let mut settings = more.to_vec();
        if service.get("smtpd_sasl_path") != path {
            settings.push(("smtpd_sasl_path", path));
        }
        match settings.iter().any(|(name, _)| service.overrides.contains_key(*name)) {
            true => instance.set_only_for(service, &settings),
            false => instance.set(&settings),
        }
    };
    match our_path(facts, instance, service) {
        Some(Ours::Reachable(path)) => set(&path),
        Some(Ours::OutsideChroot(path)) => {
            let free = format!(
                "{} -F {}",
                instance.command("postconf"),
                quote(&format!("{}/chroot=n", service.id()))
            );
            match service.get("smtpd_sasl_path") == path && more.is_empty() {
                true => instance.then_reload(free),
                false => format!("{free} && {}", set(&path)),
            }
        }
        None if under_systemd(facts) => by_systemd(facts, instance, set, service, more),
        None => {
            let socket = instance.queue_directory().join("private/sasld");
            let added = listeners_and(facts, instance, &socket);
            format!("{} && {}", facts.configure("listeners", &added), set("private/sasld"))
        }
    }
}

/// Whether systemd makes sasld's sockets, so that `listeners` says nothing about where they are and whose.
fn under_systemd(facts: &Facts) -> bool {
    facts.units.as_ref().is_some_and(|units| units.has("sasld.socket"))
}

/// The unit of systemd's that has made the socket at this path. One that is not active has not: then it is sasld's own.
fn unit_at<'a>(facts: &'a Facts, path: &Path) -> Option<(&'a str, &'a Unit)> {
    let mut units = facts.units.iter().flat_map(|units| units.iter());
    units.find(|(_, unit)| unit.active == "active" && unit.sockets.iter().any(|socket| same(socket, path)))
}

/// The command that sets this of a socket unit, from the next time on that it makes its socket. That takes a moment in
/// which Postfix is refused, so what is there now is left in its place and mended by hand.
fn set_in_unit(facts: &Facts, unit: &str, settings: &str) -> String {
    let folder = facts.root.join("etc/systemd/system").join(format!("{unit}.d"));
    let folder = quote(&folder.display().to_string());
    let lines = quote(&format!("[Socket]\\n{settings}"));
    // `systemctl edit` writes override.conf, and the last file counts.
    format!("mkdir -p {folder} && printf {lines} >{folder}/zz-socket.conf && systemctl daemon-reload")
}

/// The command that makes systemd's socket sasld's, in Postfix's place of old, and sends Postfix there. As long as another
/// server listens there the unit refuses to start: a Dovecot has to let go first, and what nobody here knows stays, with
/// sasld beside it.
fn by_systemd(
    facts: &Facts,
    instance: &Instance,
    set: impl Fn(&str) -> String,
    service: &Service,
    more: &[(&str, &str)],
) -> String {
    let queue = instance.queue_directory();
    let socket = queue.join("private/auth");
    let unit = match queue.strip_prefix("/var/spool").ok().and_then(Path::to_str) {
        Some(name) if name != "postfix" && !name.is_empty() && !name.contains('/') => {
            quote(&format!("sasld-instance@{name}.socket"))
        }
        _ => "sasld.socket".to_owned(),
    };
    // Together: a service takes sockets at its start only.
    let start = format!("systemctl enable {unit} sasld.service && systemctl restart sasld.service {unit}");
    let held = facts.seen.iter().find_map(|(place, seen)| match seen {
        Seen::Greeted(greeted) if place.path().is_some_and(|path| same(&path, &socket)) => Some(greeted),
        _ => None,
    });
    let names = |greeted: &Greeted| {
        [greeted.server, greeted.listener]
            .map(|pid| pid.and_then(|pid| facts.name_of(pid)) == Some("dovecot"))
    };
    let release = match held {
        // Which lines, docs/from-dovecot.md says.
        Some(greeted) if names(greeted).contains(&true) => {
            let file = facts.root.join("etc/dovecot/conf.d/10-master.conf").display().to_string();
            format!("${{EDITOR:-editor}} {} && systemctl restart dovecot && ", quote(&file))
        }
        Some(_) => {
            let own = queue.join("private/sasld");
            let listeners = format!("[{}]", for_postfix(&own, instance.owner()));
            let own = own.display();
            let guard = "/usr/sbin/sasld socket-guard";
            let moved =
                format!("ListenStream=\\nListenStream={own}\\nExecStartPre=\\nExecStartPre={guard} {own}\\n");
            let (unit, listeners) =
                (set_in_unit(facts, &unit, &moved), facts.configure("listeners", &listeners));
            return format!("{unit} && {listeners} && {start} && {}", set("private/sasld"));
        }
        None => String::new(),
    };
    match service.get("smtpd_sasl_path") == "private/auth" && more.is_empty() {
        true => format!("{release}{start}"),
        false => format!("{release}{start} && {}", set("private/auth")),
    }
}

enum Ours {
    Reachable(String),
    OutsideChroot(String),
}

/// Whether this is what `smtpd_sasl_path` has to be for one of sasld's listeners.
pub(super) fn is_our_path(facts: &Facts, instance: &Instance, path: &str) -> bool {
    let written = Path::new(path.strip_prefix("unix:").unwrap_or(path));
    let path = instance.queue_directory().join(written);
    unix_listeners(facts).any(|listener| same(&listener.path, &path))
}

/// What `smtpd_sasl_path` has to be for one of sasld's sockets where sasld itself answers, or will when it runs.
fn our_path(facts: &Facts, instance: &Instance, service: &Service) -> Option<Ours> {
    let ours = |socket: &str| {
        facts.listeners.iter().any(|(name, seen)| {
            name == socket
                && match seen {
                    Seen::Greeted(greeted) => {
                        greeted.server.and_then(|pid| facts.name_of(pid)).is_none_or(|name| name == "sasld")
                    }
                    // Where systemd makes no socket, none will be.
                    Seen::Not { .. }
                        if under_systemd(facts)
                            && Path::new(socket) != instance.queue_directory().join("private/auth") =>
                    {
                        false
                    }
                    Seen::Not { word, .. } => matches!(word.as_str(), "missing" | "refused" | "permission"),
                }
        })
    };
    let queue = instance.queue_directory();
    let mut outside = None;
    for listener in facts.config.iter().flat_map(|config| &config.listeners) {
        match listener {
            Listener::Unix(unix) if !ours(&unix.path.display().to_string()) => {}
            Listener::Unix(unix) => match unix.path.strip_prefix(queue) {
                Ok(inside) => return Some(Ours::Reachable(inside.display().to_string())),
                Err(_) if service.chroot => {
                    outside = Some(Ours::OutsideChroot(unix.path.display().to_string()));
                }
                Err(_) => outside = Some(Ours::Reachable(unix.path.display().to_string())),
            },
            Listener::Tcp(tcp) if ours(&tcp.address.to_string()) => {
                outside.get_or_insert(Ours::Reachable(format!("inet:{}", tcp.address)));
            }
            Listener::Tcp(_) => {}
        }
    }
    outside
}

fn not_permitted(facts: &Facts, instance: &Instance, place: &Place) -> Finding {
    let owner = instance.owner();
    let path = place.path().unwrap_or_default();
    let user = User::from_name(owner).ok().flatten();
    if let Some((directory, mode)) = closed_directory(&path, user.as_ref()) {
        let shown = quote(&directory.display().to_string());
        let postfixs = directory == instance.queue_directory().join("private");
        let fix = if postfixs { format!("chown {owner} {shown}") } else { format!("chmod a+x {shown}") };
        return Finding::error(format!(
            "{owner} may not connect to {}: {} has mode {mode:04o}",
            path.display(),
            directory.display()
        ))
        .fix(fix);
    }
    let found = std::fs::metadata(&path);
    let state = found.map_or(String::new(), |found| {
        format!(" (owner {}, group {}, mode {:04o})", found.uid(), found.gid(), found.mode() & 0o7777)
    });
    let finding = Finding::error(format!("{owner} may not connect to {}{state}", path.display()));
    let shown = quote(&path.display().to_string());
    let by_hand = format!("chown {owner}:{owner} {shown} && chmod 0660 {shown}");
    if let Some((name, unit)) = unit_at(facts, &path) {
        let (user, group) = (&unit.owner.0, &unit.owner.1);
        let lets_in = user == owner && unit.mode & 0o200 != 0 || group == owner && unit.mode & 0o020 != 0;
        return finding.fix(match lets_in {
            true => by_hand,
            false => format!("{} && {by_hand}", set_in_unit(facts, name, &postfixs(owner))),
        });
    }
    let good_configuration = configured(facts, place)
        .is_some_and(|listener| user.as_ref().is_some_and(|user| lets_in(listener, user)));
    if good_configuration || under_systemd(facts) || configured(facts, place).is_none() {
        return finding.fix(by_hand);
    }
    finding.fix(facts.configure("listeners", &listeners_and(facts, instance, &path)))
}

/// What makes a unit's socket Postfix's, as text for printf.
fn postfixs(owner: &str) -> String {
    format!("SocketUser={owner}\\nSocketGroup={owner}\\nSocketMode=0660\\n")
}

fn lets_in(listener: &UnixListener, user: &User) -> bool {
    match () {
        () if listener.owner.id == user.uid.as_raw() => listener.mode & 0o200 != 0,
        () if listener.group.id == user.gid.as_raw() => listener.mode & 0o020 != 0,
        () => listener.mode & 0o002 != 0,
    }
}

/// The first directory on the way that this user may not walk through, and its mode.
fn closed_directory(path: &Path, user: Option<&User>) -> Option<(PathBuf, u32)> {
    let user = user?;
    let mut directories: Vec<&Path> = path.ancestors().skip(1).collect();
    directories.reverse();
    directories.into_iter().find_map(|directory| {
        let found = std::fs::metadata(directory).ok()?;
        let mode = found.mode() & 0o7777;
        let may = match () {
            () if found.uid() == user.uid.as_raw() => mode & 0o100,
            () if found.gid() == user.gid.as_raw() => mode & 0o010,
            () => mode & 0o001,
        };
        (may == 0).then(|| (directory.to_owned(), mode))
    })
}

fn turned_away(facts: &Facts, instance: &Instance, place: &Place) -> Finding {
    let owner = instance.owner();
    let path = place.path().unwrap_or_default();
    let finding = Finding::error(format!("the server at {} closes the connection of {owner}", shown(place)));
    match configured(facts, place) {
        Some(listener) if listener.peers.is_some() => finding
            .why(format!("The key peers of this listener does not have {owner}. {FATAL}"))
            .fix(facts.configure("listeners", &listeners_and(facts, instance, &path))),
        _ => finding,
    }
}

/// All listeners of the configuration, with the one at `path` as this Postfix needs it, as YAML on one line.
fn listeners_and(facts: &Facts, instance: &Instance, path: &Path) -> String {
    let ours = for_postfix(path, instance.owner());
    let mut there = false;
    let listeners = facts.config.iter().flat_map(|config| &config.listeners).map(|listener| match listener {
        Listener::Unix(unix) if same(&unix.path, path) => {
            there = true;
            ours.clone()
        }
        listener => yaml(listener),
    });
    let mut listeners: Vec<String> = listeners.collect();
    if !there {
        listeners.push(ours);
    }
    format!("[{}]", listeners.join(", "))
}

/// The sockets where everybody may guess passwords.
pub(super) fn exposed(facts: &Facts, config: &Config) -> Vec<Finding> {
    let why = "Whoever can connect may guess passwords. Who has to connect is for you to decide; this leaves it to Postfix, \
               or to this machine:";
    let of_systemd = |listener: &Listener| match listener {
        Listener::Unix(unix) => unit_at(facts, &unix.path).is_some(),
        Listener::Tcp(_) => false,
    };
    let ours = config.open_listeners().filter(|(listener, _)| !of_systemd(listener)).map(|(_, warning)| {
        Finding::warning(warning).why(why).fix(facts.configure("listeners", &closed_to_strangers(facts)))
    });
    let units = facts.units.iter().flat_map(|units| units.iter());
    let theirs = units.filter(|(_, unit)| unit.mode & 0o002 != 0).flat_map(|(name, unit)| {
        // Which processes may come in is said by `peers`, whoever makes the socket.
        let limited = |path: &Path| {
            unix_listeners(facts).any(|listener| same(&listener.path, path) && listener.peers.is_some())
        };
        let open = unit.sockets.iter().filter(move |path| !limited(path));
        open.map(move |path| {
            let finding = Finding::warning(open_socket(path, unit.mode)).at(name).why(why);
            let shown = quote(&path.display().to_string());
            finding.fix(match asks_at(facts, path) {
                Some(owner) => format!(
                    "{} && chown {owner}:{owner} {shown} && chmod 0660 {shown}",
                    set_in_unit(facts, name, &postfixs(owner))
                ),
                None => {
                    let mode = unit.mode & 0o770;
                    let set = set_in_unit(facts, name, &format!("SocketMode={mode:04o}\\n"));
                    format!("{set} && chmod {mode:04o} {shown}")
                }
            })
        })
    });
    ours.chain(theirs).collect()
}

/// The user of the Postfix that asks at this path.
fn asks_at<'a>(facts: &'a Facts, path: &Path) -> Option<&'a str> {
    let asks =
        |(instance, service)| facts.seen_by(instance, service)?.0.path().map(|found| same(&found, path));
    facts.services().find(|at| asks(*at) == Some(true)).map(|(instance, _)| instance.owner())
}

/// All listeners of the configuration, those that let everybody connect only for Postfix, or for this machine.
fn closed_to_strangers(facts: &Facts) -> String {
    let listeners = facts.config.iter().flat_map(|config| &config.listeners).map(|listener| match listener {
        Listener::Unix(unix) if unix.mode & 0o002 != 0 && unix.peers.is_none() => {
            match asks_at(facts, &unix.path) {
                Some(owner) => for_postfix(&unix.path, owner),
                None => yaml(&Listener::Unix(UnixListener { mode: unix.mode & 0o770, ..unix.clone() })),
            }
        }
        Listener::Tcp(tcp) if tcp.allow.iter().flatten().any(|network| network.prefix_len() == 0) => {
            format!("{{tcp: {:?}, allow: [127.0.0.0/8, \"::1/128\"]}}", tcp.address.to_string())
        }
        listener => yaml(listener),
    });
    format!("[{}]", listeners.collect::<Vec<_>>().join(", "))
}

/// A listener as it is, as YAML on one line.
fn yaml(listener: &Listener) -> String {
    let quoted = |text: &dyn Display| format!("{:?}", text.to_string());
    match listener {
        Listener::Unix(unix) => {
            let peers = unix.peers.iter().map(|peers| {
                let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
                format!(", peers: [{}]", names.join(", "))
            });
            format!(
                "{{unix: {}, owner: {}, group: {}, mode: \"{:04o}\"{}}}",
                quoted(&unix.path.display()),
                unix.owner.name,
                unix.group.name,
                unix.mode,
                peers.collect::<String>()
            )
        }
        Listener::Tcp(tcp) => {
            let allow = tcp.allow.iter().map(|networks| {
                let networks: Vec<String> = networks.iter().map(|network| quoted(network)).collect();
                format!(", allow: [{}]", networks.join(", "))
            });
            format!("{{tcp: {}{}}}", quoted(&tcp.address), allow.collect::<String>())
        }
    }
}

fn for_postfix(path: &Path, owner: &str) -> String {
    format!("{{unix: {:?}, owner: {owner}, group: {owner}, mode: \"0660\"}}", path.display().to_string())
}
