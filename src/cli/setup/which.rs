//! Which service of master.cf is meant: the one of that name, or the one on the same port under another name.
//!
//! A port can belong to one service only, so a second entry for it would keep Postfix from starting. What listens there
//! and is no smtpd is refused with its command: it is somebody's, and neither to be changed nor to be removed.

use crate::cli::doctor::postfix::{Instance, Service};
use crate::cli::{Exit, Failure};

/// The smtpd service that is there, or `None` for one that can be added under the name asked for.
///
/// # Errors
/// When something else has the name or the port, when several services have the port, or when no port has that name.
pub fn find<'a>(instance: &'a Instance, asked: &str) -> Result<Option<&'a Service>, Failure> {
    let smtpd = |name: &str, kind: &str| {
        instance.services.iter().find(|service| service.name == name && service.kind == kind)
    };
    let listeners = || instance.all_services.iter().filter(|(_, kind, _)| kind == "inet");
    let (address, port) = place(asked);
    let same = |name: &str| place(name) == (address, port);
    // By its name, then by what that means, then by what would be in its way.
    if let Some((name, kind, program)) =
        listeners().find(|(name, ..)| name == asked).or_else(|| listeners().find(|(name, ..)| same(name)))
    {
        return smtpd(name, kind).map(Some).ok_or_else(|| taken(instance, name, program));
    }
    if let Some(behind_postscreen) = smtpd(asked, "pass") {
        return Ok(Some(behind_postscreen));
    }
    let near: Vec<_> = listeners()
        .filter(|(name, ..)| {
            let (other, its_port) = place(name);
            its_port == port && (other.is_empty() || address.is_empty())
        })
        .collect();
    match near[..] {
        [] if number(port).is_some() => Ok(None),
        [] => {
            let why = format!("{asked}: no port has that name, and master.cf no smtpd service");
            Err(Failure::new(Exit::Usage, format_args!("{why}; there are {}", all(instance))))
        }
        [(name, kind, program)] if address.is_empty() => {
            smtpd(name, kind).map(Some).ok_or_else(|| taken(instance, name, program))
        }
        [(name, ..), ..] => Err(Failure::new(
            Exit::Config,
            format_args!(
                "{asked}: master.cf has {} on this port; say which one, such as --service {name}",
                near.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", "),
            ),
        )),
    }
}

fn taken(instance: &Instance, name: &str, program: &str) -> Failure {
    let postconf = instance.command("postconf");
    Failure::new(
        Exit::Config,
        format_args!(
            "master.cf has {name}/inet already, and its command is {program}, not smtpd; users cannot log in there, and it \
             is left as it is. Choose another service, such as --service submission; or, if {program} is not needed, \
             take it out with: {postconf} -MX {name}/inet"
        ),
    )
}

/// The smtpd services, for somebody who mistyped one.
fn all(instance: &Instance) -> String {
    let names: Vec<&str> = instance.services.iter().map(|service| service.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Address and port of a service name; the address is empty where it is every one, the port a number if it has one of
/// the usual names.
fn place(name: &str) -> (&str, &str) {
    let (address, port) = name.rsplit_once(':').unwrap_or(("", name));
    let port = match port {
        "smtp" => "25",
        "submission" => "587",
        "submissions" | "smtps" => "465",
        port => port,
    };
    (address, port)
}

/// The port of a service that is TLS from the first byte.
pub fn is_wrapped(name: &str) -> bool {
    place(name).1 == "465"
}

/// The number of a port that [`place`] gave, from the system's list if it is none of the usual names.
fn number(port: &str) -> Option<u16> {
    let services = || std::fs::read_to_string("/etc/services").unwrap_or_default();
    port.parse().ok().filter(|number| *number > 0).or_else(|| listed(&services(), port))
}

/// The TCP port of this name or alias in the text of services(5).
fn listed(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (first, port) = (words.next()?, words.next()?);
        let number = port.strip_suffix("/tcp")?;
        (first == name || words.any(|alias| alias == name)).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(services: &[(&str, &str, &str)]) -> Instance {
        let all = services
            .iter()
            .map(|(name, kind, program)| ((*name).to_owned(), (*kind).to_owned(), (*program).to_owned()));
        let smtpds = services.iter().filter(|(.., program)| *program == "smtpd");
        let smtpds = smtpds.map(|(name, kind, _)| {
            let mut service = Service::imagined(name, &Instance::default());
            service.kind = (*kind).to_owned();
            service
        });
        Instance { services: smtpds.collect(), all_services: all.collect(), ..Instance::default() }
    }

    fn found(services: &[(&str, &str, &str)], asked: &str) -> Result<Option<String>, String> {
        find(&instance(services), asked)
            .map(|service| service.map(Service::id))
            .map_err(|failure| failure.message)
    }

    #[test]
    fn a_service_is_known_by_its_port_under_any_name() {
        for (there, asked) in [
            ("submission", "submission"),
            ("587", "submission"),
            ("submission", "587"),
            ("smtps", "submissions"),
            ("465", "smtps"),
            ("127.0.0.1:587", "127.0.0.1:submission"),
            ("127.0.0.1:587", "submission"),
            ("[::1]:smtps", "[::1]:465"),
        ] {
            let expected = Ok(Some(format!("{there}/inet")));
            assert_eq!(found(&[(there, "inet", "smtpd")], asked), expected, "{asked}");
        }
        assert_eq!(found(&[("smtpd", "pass", "smtpd")], "smtpd"), Ok(Some("smtpd/pass".to_owned())));
    }

    #[test]
    fn a_port_that_is_free_can_have_a_new_service() {
        let smtp = [("smtp", "inet", "smtpd"), ("127.0.0.1:10025", "inet", "smtpd"), ("587", "unix", "smtp")];
        for asked in ["submission", "465", "127.0.0.1:587", "[2001:db8::1]:10025", "2525"] {
            assert_eq!(found(&smtp, asked), Ok(None), "{asked}");
        }
        let why = found(&smtp, "submision").unwrap_err();
        assert!(why.contains("no port has that name") && why.ends_with("smtp, 127.0.0.1:10025"), "{why}");
    }

    #[test]
    fn what_is_no_smtpd_is_refused_with_its_command() {
        let services = [("smtp", "inet", "postscreen"), ("smtpd", "pass", "smtpd"), ("587", "inet", "spawn")];
        for (asked, command) in [("smtp", "postscreen"), ("25", "postscreen"), ("submission", "spawn")] {
            let why = found(&services, asked).unwrap_err();
            assert!(why.contains(&format!("its command is {command}, not smtpd")), "{why}");
            assert!(why.contains("postconf") && why.contains("-MX"), "{why}");
        }
    }

    #[test]
    fn which_of_several_is_not_guessed() {
        let two = [("127.0.0.1:587", "inet", "smtpd"), ("192.0.2.1:587", "inet", "smtpd")];
        assert!(found(&two, "submission").unwrap_err().contains("127.0.0.1:587, 192.0.2.1:587"));
        let all = found(&[("submission", "inet", "smtpd")], "192.0.2.1:587").unwrap_err();
        assert!(all.contains("--service submission"), "{all}");
    }

    #[test]
    fn names_of_ports_are_those_of_the_system() {
        let services = "mx\t\t2500/tcp\tmail-in # comment\nodd 99/udp\n# off 7/tcp\n";
        assert_eq!(
            ["mx", "mail-in", "odd", "off", "comment"].map(|name| listed(services, name)),
            [Some(2500), Some(2500), None, None, None]
        );
    }
}
