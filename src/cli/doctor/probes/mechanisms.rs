//! Which mechanisms Postfix offers, with TLS and without, and whether there is TLS where it has to be.
//!
//! What `smtpd_sasl_security_options` takes away follows from the properties in the server's greeting, as in Postfix
//! (`xsasl_dovecot_server.c`), and `smtpd_sasl_mechanism_filter` comes after it (`smtpd_sasl_glue.c`).

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::postfix::{Instance, Service, Tls, list};
use crate::cli::doctor::seen::{Greeted, Seen};
use crate::client::Offer;

const OPTIONS: &str = "smtpd_sasl_security_options";
const TLS_OPTIONS: &str = "smtpd_sasl_tls_security_options";
const FILTER: &str = "smtpd_sasl_mechanism_filter";

pub fn mechanisms(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (instance, service, greeted) in greeted(facts) {
        let at = facts.at(instance, Some(service));
        let server = names(&greeted.mechanisms.iter().collect::<Vec<_>>());
        let mut report = |when: &str, options: &str, fix: String| {
            findings.push(
                Finding::error(format!("no mechanism is left {when}"))
                    .at(&at)
                    .why(format!(
                        "The server has {server}; {options} = {} and {FILTER} = {} take them all away. smtpd ends with \
                         \"fatal: no SASL authentication mechanisms\".",
                        service.get(options),
                        service.get(FILTER)
                    ))
                    .fix(fix),
            );
        };
        let filtered = |options: &str| !allowed_by(service.get(options), &greeted.mechanisms).is_empty();
        if logins_in_the_clear(service) && offered(service, greeted, OPTIONS).is_empty() {
            let fix = if filtered(OPTIONS) {
                instance.unset_for(service, FILTER)
            } else {
                // No login without TLS, then: the options were meant that way.
                only_inside_tls(instance, service, greeted)
            };
            report("without TLS", OPTIONS, fix);
        }
        if service.tls() != Tls::Never && offered(service, greeted, TLS_OPTIONS).is_empty() {
            let fix = match filtered(TLS_OPTIONS) {
                true => instance.unset_for(service, FILTER),
                false => instance.set_for(service, TLS_OPTIONS, "noanonymous"),
            };
            report("inside TLS", TLS_OPTIONS, fix);
        } else if service.tls() != Tls::Never {
            findings.extend(plaintext_inside_tls(instance, service, greeted).map(|finding| finding.at(at)));
        }
    }
    findings
}

/// Options for TLS that follow those for the clear take PLAIN away where it belongs.
fn plaintext_inside_tls(instance: &Instance, service: &Service, greeted: &Greeted) -> Option<Finding> {
    let plaintext = |offer: &&Offer| has(offer, "plaintext");
    let served = greeted.mechanisms.iter().any(|offer| plaintext(&offer));
    let options = list(service.get(TLS_OPTIONS));
    if !served || !options.contains(&"noplaintext") {
        return None;
    }
    Some(
        Finding::warning("PLAIN and LOGIN are not offered inside TLS")
            .why(format!(
                "{TLS_OPTIONS} has noplaintext, or follows {OPTIONS} that do. Users whose password is stored as a hash \
                 alone cannot log in, nor can mail programs that know nothing else."
            ))
            .fix(match service.overrides.contains_key(OPTIONS) {
                true => instance.set_only_for(service, &[(TLS_OPTIONS, "noanonymous")]),
                false => instance.set_for(service, TLS_OPTIONS, "noanonymous"),
            }),
    )
}

pub fn plaintext(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (instance, service, greeted) in greeted(facts).filter(|(_, service, _)| logins_in_the_clear(service))
    {
        let clear = offered(service, greeted, OPTIONS);
        let plaintext: Vec<&Offer> = clear.iter().copied().filter(|offer| has(offer, "plaintext")).collect();
        if plaintext.is_empty() {
            continue;
        }
        let only_inside_tls = if plaintext.len() < clear.len() {
            let options = [(OPTIONS, "noanonymous,noplaintext"), (TLS_OPTIONS, "noanonymous")];
            match options.iter().any(|(name, _)| service.overrides.contains_key(*name)) {
                true => instance.set_only_for(service, &options),
                false => instance.set(&options),
            }
        } else {
            instance.set_for(service, "smtpd_tls_auth_only", "yes")
        };
        let fix = match service.tls() {
            Tls::Never => format!("{} && {only_inside_tls}", encrypt(instance, service)),
            _ => only_inside_tls,
        };
        findings.push(
            Finding::warning(format!("{} without TLS", names(&plaintext)))
                .at(facts.at(instance, Some(service)))
                .why(
                    "Passwords cross the network readable. (sasld refuses them with require_tls, but only after they \
                     have been sent.)",
                )
                .fix(fix),
        );
    }
    findings
}

pub fn tls(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (instance, service) in facts.services() {
        let at = facts.at(instance, Some(service));
        if service.tls() == Tls::Never {
            if service.yes("smtpd_tls_auth_only") {
                findings.push(
                    Finding::error("smtpd_tls_auth_only = yes, and TLS is switched off")
                        .at(at)
                        .why("AUTH is offered to nobody: mail programs say that the server does not allow logins.")
                        .fix(encrypt(instance, service)),
                );
            }
        } else if !service.has_certificate() {
            findings.push(
                Finding::error("TLS is switched on, and there is no certificate")
                    .at(at)
                    .why("Postfix offers no STARTTLS then, and where logins need TLS, no logins.")
                    .fix(instance.new_certificate()),
            );
        }
    }
    findings
}

/// The commands after which each service has a mechanism everywhere, should sasld offer PLAIN and LOGIN alone.
pub(super) fn without_cram_md5(facts: &Facts) -> Vec<String> {
    let mut commands = Vec::new();
    for (instance, service, greeted) in greeted(facts) {
        let mut rest = greeted.clone();
        rest.mechanisms.retain(|offer| has(offer, "plaintext"));
        let emptied = |options| {
            !offered(service, greeted, options).is_empty() && offered(service, &rest, options).is_empty()
        };
        if logins_in_the_clear(service) && emptied(OPTIONS) {
            if service.tls() == Tls::Never {
                commands.push(encrypt(instance, service));
            }
            commands.push(instance.set_only_for(service, &[("smtpd_tls_auth_only", "yes")]));
        }
        if service.tls() != Tls::Never && emptied(TLS_OPTIONS) {
            commands.push(match allowed_by(service.get(TLS_OPTIONS), &rest.mechanisms).is_empty() {
                true => instance.set_only_for(service, &[(TLS_OPTIONS, "noanonymous")]),
                false => instance.unset_for(service, FILTER),
            });
        }
    }
    commands
}

/// Whether Postfix lets users log in before STARTTLS.
fn logins_in_the_clear(service: &Service) -> bool {
    matches!(service.tls(), Tls::Never | Tls::Possible) && !service.yes("smtpd_tls_auth_only")
}

/// Logins wait for TLS, which there is then, with a mechanism in it.
fn only_inside_tls(instance: &Instance, service: &Service, greeted: &Greeted) -> String {
    let mut settings = vec![("smtpd_tls_auth_only", "yes")];
    if service.tls() == Tls::Never && allowed_by(service.get(TLS_OPTIONS), &greeted.mechanisms).is_empty() {
        settings.push((TLS_OPTIONS, "noanonymous"));
    }
    let set = match settings.iter().any(|(name, _)| service.overrides.contains_key(*name)) {
        true => instance.set_only_for(service, &settings),
        false => instance.set(&settings),
    };
    match service.tls() == Tls::Never || !service.has_certificate() {
        true => format!("{} && {set}", encrypt(instance, service)),
        false => set,
    }
}

/// TLS for those who want it, with a certificate of its own if there is none.
fn encrypt(instance: &Instance, service: &Service) -> String {
    let level = instance.set_for(service, "smtpd_tls_security_level", "may");
    if service.has_certificate() { level } else { format!("{} && {level}", instance.new_certificate()) }
}

fn greeted(facts: &Facts) -> impl Iterator<Item = (&Instance, &Service, &Greeted)> {
    facts.services().filter_map(|(instance, service)| match facts.seen_by(instance, service)?.1 {
        Seen::Greeted(greeted) => Some((instance, service, greeted)),
        Seen::Not { .. } => None,
    })
}

/// What Postfix offers under these options.
fn offered<'a>(service: &Service, greeted: &'a Greeted, options: &str) -> Vec<&'a Offer> {
    let filter = service.get(FILTER);
    let allowed = allowed_by(service.get(options), &greeted.mechanisms);
    allowed.into_iter().filter(|offer| passes(filter, &offer.name)).collect()
}

fn allowed_by<'a>(options: &str, mechanisms: &'a [Offer]) -> Vec<&'a Offer> {
    let options = list(options);
    let allowed = |offer: &&Offer| {
        !has(offer, "private")
            && options.iter().all(|option| match *option {
                "noplaintext" => !has(offer, "plaintext"),
                "noactive" => !has(offer, "active"),
                "nodictionary" => !has(offer, "dictionary"),
                "noanonymous" => !has(offer, "anonymous"),
                "forward_secrecy" => has(offer, "forward-secrecy"),
                "mutual_auth" => has(offer, "mutual-auth"),
                _ => true,
            })
    };
    mechanisms.iter().filter(allowed).collect()
}

/// The first pattern that matches decides; none is a no. Tables other than `static:` may say anything: a yes.
fn passes(filter: &str, mechanism: &str) -> bool {
    let patterns = list(filter);
    patterns.is_empty()
        || patterns.iter().find_map(|pattern| match pattern.strip_prefix('!') {
            Some(name) => name.eq_ignore_ascii_case(mechanism).then_some(false),
            None => {
                (pattern.contains(':') || pattern.starts_with('/') || pattern.eq_ignore_ascii_case(mechanism))
                    .then_some(true)
            }
        }) == Some(true)
}

fn has(offer: &Offer, property: &str) -> bool {
    offer.properties.iter().any(|own| own == property)
}

fn names(offers: &[&Offer]) -> String {
    offers.iter().map(|offer| offer.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers() -> Vec<Offer> {
        [("PLAIN", "plaintext"), ("CRAM-MD5", "dictionary active"), ("SCRAM-SHA-256", "mutual-auth")]
            .map(|(name, properties)| Offer {
                name: name.to_owned(),
                properties: properties.split(' ').map(str::to_owned).collect(),
            })
            .to_vec()
    }

    #[test]
    fn security_options_take_away_what_postfix_takes_away() {
        let offers = offers();
        for (options, left) in [
            ("noanonymous", "PLAIN, CRAM-MD5, SCRAM-SHA-256"),
            ("noanonymous, noplaintext", "CRAM-MD5, SCRAM-SHA-256"),
            ("noplaintext noactive", "SCRAM-SHA-256"),
            ("noplaintext,nodictionary,mutual_auth", "SCRAM-SHA-256"),
            ("forward_secrecy", ""),
        ] {
            assert_eq!(names(&allowed_by(options, &offers)), left, "{options}");
        }
    }

    #[test]
    fn the_first_pattern_of_a_filter_decides() {
        for (filter, mechanism, expected) in [
            ("", "PLAIN", true),
            ("!external, static:rest", "PLAIN", true),
            ("!external, static:rest", "EXTERNAL", false),
            ("plain, login", "PLAIN", true),
            ("plain, login", "CRAM-MD5", false),
            ("!plain", "CRAM-MD5", false),
        ] {
            assert_eq!(passes(filter, mechanism), expected, "{filter} {mechanism}");
        }
    }
}
