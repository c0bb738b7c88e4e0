//! What Postfix lets whom do: whether a login opens the way to send, whether it is needed, and as whom one may send.
//!
//! Restrictions are followed as Postfix follows them, first match first, for two clients: one that has logged in, and a
//! stranger. Tables (`check_…`) and restriction classes may say anything; they are passed over.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::postfix::{Instance, Service, list};
use ipnet::IpNet;

const PERMIT: &str = "permit_sasl_authenticated";
const RELAY: &str = "smtpd_relay_restrictions";
const RECIPIENT: &str = "smtpd_recipient_restrictions";
const SENDER: &str = "smtpd_sender_restrictions";
/// Where Postfix looks at clients, senders and recipients.
pub(in crate::cli) const LISTS: [&str; 5] =
    [RELAY, RECIPIENT, SENDER, "smtpd_client_restrictions", "smtpd_helo_restrictions"];

/// What keeps mail for other servers out.
const STOPS: [&str; 5] =
    ["reject", "defer", "reject_unauth_destination", "defer_unauth_destination", "check_relay_domains"];

/// What home connections often fail.
const SUSPICIONS: [&str; 9] = [
    "reject_rbl_client",
    "reject_rhsbl_client",
    "reject_rhsbl_reverse_client",
    "reject_unknown_client_hostname",
    "reject_unknown_reverse_client_hostname",
    "reject_invalid_helo_hostname",
    "reject_non_fqdn_helo_hostname",
    "reject_unknown_helo_hostname",
    "reject_unknown_client",
];

const MISMATCHES: [&str; 4] = [
    "reject_sender_login_mismatch",
    "reject_authenticated_sender_login_mismatch",
    "reject_known_sender_login_mismatch",
    "reject_unauthenticated_sender_login_mismatch",
];

pub fn permit(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in &facts.instances {
        for service in instance.with_auth() {
            for name in LISTS {
                let elements = list(service.get(name));
                let finding = match obstacle(&elements) {
                    Some((stop, true)) => Finding::error(format!("{name}: {stop} comes, and no {PERMIT} before it"))
                        .why("Users can log in and still cannot send: \"Relay access denied\" or the like."),
                    Some((suspicion, false)) => {
                        Finding::warning(format!("{name}: {suspicion} comes, and no {PERMIT} before it"))
                            .why("It is meant for other servers. Users at home and on the road fail it, logged in or not.")
                    }
                    None => continue,
                };
                let fix = instance.set_for(service, name, &permitting(&elements));
                findings.push(finding.at(facts.at(instance, Some(service))).fix(fix));
            }
        }
    }
    once(findings)
}

/// What could refuse somebody who has logged in: something final, or a suspicion about his address.
fn obstacle<'a>(elements: &[&'a str]) -> Option<(&'a str, bool)> {
    let permitted = elements.iter().position(|element| matches!(*element, PERMIT | "permit"));
    let before = &elements[..permitted.unwrap_or(elements.len())];
    let first = |list: &[&str]| before.iter().copied().find(|element| list.contains(element));
    first(&STOPS).map(|stop| (stop, true)).or_else(|| first(&SUSPICIONS).map(|suspicion| (suspicion, false)))
}

/// Whether a list could refuse somebody who has logged in.
pub(in crate::cli) fn refuses_users(elements: &[&str]) -> bool {
    obstacle(elements).is_some()
}

/// The list with the permission where it counts: before everything that could refuse.
pub(in crate::cli) fn permitting(elements: &[&str]) -> String {
    let mut list: Vec<&str> = elements.iter().copied().filter(|element| *element != PERMIT).collect();
    let refusing = |element: &&str| STOPS.contains(element) || SUSPICIONS.contains(element);
    let at = list.iter().position(refusing).unwrap_or(list.len());
    list.insert(at, PERMIT);
    list.join(", ")
}

pub fn open_relay(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in &facts.instances {
        for service in &instance.services {
            let everybody = list(service.get("mynetworks")).into_iter().find(|network| is_everybody(network));
            let open = |name: &str| !stops_strangers(&list(service.get(name)), everybody.is_some());
            if !open(RELAY) || !open(RECIPIENT) {
                continue;
            }
            let trusted = list(service.get(RELAY)).contains(&"permit_mynetworks")
                || list(service.get(RECIPIENT)).contains(&"permit_mynetworks");
            let finding = match everybody {
                Some(network) if trusted => {
                    Finding::error(format!("mynetworks has {network}: everybody may relay"))
                        .fix(instance.set_for(service, "mynetworks", &without_everybody(instance, service)))
                }
                _ => Finding::error(format!("neither {RELAY} nor {RECIPIENT} stops strangers"))
                    .fix(instance.set_for(service, RELAY, &closed(&list(service.get(RELAY))))),
            };
            findings.push(
                finding
                    .at(facts.at(instance, Some(service)))
                    .why("Whoever finds it sends spam through this server, without any password, and it ends on blocklists."),
            );
        }
    }
    once(findings)
}

/// Whether a stranger's mail for another server ends here.
fn stops_strangers(elements: &[&str], everybody_is_known: bool) -> bool {
    for element in elements {
        match *element {
            "permit" => return false,
            "permit_mynetworks" if everybody_is_known => return false,
            stop if STOPS.contains(&stop) => return true,
            _ => {}
        }
    }
    false
}

/// The list without what lets everybody in, and with what keeps strangers out.
fn closed(elements: &[&str]) -> String {
    let mut list: Vec<&str> = elements.iter().copied().filter(|element| *element != "permit").collect();
    if !stops_strangers(&list, false) {
        if list.is_empty() {
            list.push("permit_mynetworks");
        }
        list.push("reject_unauth_destination");
    }
    if list.contains(&PERMIT) { list.join(", ") } else { permitting(&list) }
}

/// Whether an entry of `mynetworks` has every address: a network, or a table that has an answer to everything.
fn is_everybody(network: &str) -> bool {
    let bare = network.replace(['[', ']'], "");
    bare.starts_with("static:") || bare.parse::<IpNet>().is_ok_and(|network| network.prefix_len() == 0)
}

/// `mynetworks` without the entries that have every address; if nothing else is in it, this machine alone.
fn without_everybody(instance: &Instance, service: &Service) -> String {
    let in_force = service.get("mynetworks");
    let mut wide = list(in_force).into_iter().filter(|network| is_everybody(network));
    // As it is written, unless such an entry comes from another parameter.
    let written = instance.written_for(service, "mynetworks").map(list).unwrap_or_default();
    let source = if wide.all(|network| written.contains(&network)) { written } else { list(in_force) };
    let kept: Vec<&str> = source.into_iter().filter(|network| !is_everybody(network)).collect();
    if kept.is_empty() { "127.0.0.0/8, [::1]/128".to_owned() } else { kept.join(", ") }
}

pub fn sender_login(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in &facts.instances {
        for service in instance.with_auth() {
            let maps = !service.get("smtpd_sender_login_maps").is_empty();
            let checked = LISTS.iter().find_map(|name| {
                let elements = list(service.get(name));
                let check = elements.iter().copied().find(|element| MISMATCHES.contains(element))?;
                Some((
                    *name,
                    check,
                    elements.iter().filter(|element| **element != check).copied().collect::<Vec<_>>(),
                ))
            });
            let finding = match (maps, checked) {
                (true, Some(_)) => continue,
                (true, None) => {
                    let mut elements = vec!["reject_sender_login_mismatch"];
                    elements.extend(list(service.get(SENDER)));
                    Finding::warning("smtpd_sender_login_maps is set, and nothing looks at it")
                        .why("Every user can send as every other: without a restriction the maps have no effect.")
                        .fix(instance.set_for(service, SENDER, &elements.join(", ")))
                }
                (false, Some((name, check, rest))) => {
                    if matches!(check, "reject_known_sender_login_mismatch" | "reject_unauthenticated_sender_login_mismatch") {
                        continue;
                    }
                    Finding::error(format!("{name} has {check}, and smtpd_sender_login_maps is empty"))
                        .why("No address belongs to anybody then, so whoever has logged in cannot send at all.")
                        .fix(instance.set_for(service, name, &rest.join(", ")))
                }
                (false, None) => Finding::note("every user can send as every other").why(
                    "smtpd_sender_login_maps says which addresses are whose, and reject_sender_login_mismatch in \
                     smtpd_sender_restrictions holds users to it.",
                ),
            };
            findings.push(finding.at(facts.at(instance, Some(service))));
        }
    }
    once(findings)
}

pub fn rate_limit(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in &facts.instances {
        let unlimited = |service: &&Service| service.get("smtpd_client_auth_rate_limit") == "0";
        if let Some(service) = instance.with_auth().find(unlimited) {
            findings.push(limit(instance, service).at(facts.at(instance, Some(service))));
        }
    }
    findings
}

fn limit(instance: &Instance, service: &Service) -> Finding {
    Finding::note("smtpd_client_auth_rate_limit = 0: an address may try as often as it likes")
        .why(
            "sasld delays each refusal and lets guessers wait behind themselves, but a limit saves the work: attempts of \
             one address within anvil_rate_time_unit, a minute.",
        )
        .fix(instance.set_for(service, "smtpd_client_auth_rate_limit", "20"))
}

/// Services that have a list from main.cf share its findings: one command mends them all.
fn once(findings: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in findings {
        match kept.iter_mut().find(|other| other.what == finding.what && other.fix == finding.fix) {
            Some(other) => other.place = format!("{}, {}", other.place, finding.place),
            None => kept.push(finding),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_stopped_where_postfix_stops_him() {
        for (elements, everybody, stopped) in [
            ("permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination", false, true),
            ("permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination", true, false),
            ("permit, reject_unauth_destination", false, false),
            ("permit_sasl_authenticated", false, false),
            ("defer_if_permit", false, false),
            ("", false, false),
            ("reject", true, true),
        ] {
            assert_eq!(stops_strangers(&list(elements), everybody), stopped, "{elements}");
        }
    }

    #[test]
    fn the_permission_is_put_before_whatever_could_refuse() {
        let elements = list(
            "permit_mynetworks, reject_rbl_client zen.example, reject_unauth_destination, permit_sasl_authenticated",
        );
        assert_eq!(
            permitting(&elements),
            "permit_mynetworks, permit_sasl_authenticated, reject_rbl_client, zen.example, reject_unauth_destination"
        );
    }

    #[test]
    fn only_what_has_every_address_is_everybody() {
        for network in ["0.0.0.0/0", "[::]/0", "::/0", "static:all"] {
            assert!(is_everybody(network), "{network}");
        }
        for network in
            ["127.0.0.0/8", "[::1]/128", "192.0.2.0/24", "hash:/etc/postfix/networks", "!0.0.0.0/0", "/etc/n"]
        {
            assert!(!is_everybody(network), "{network}");
        }
    }

    #[test]
    fn arguments_in_braces_are_no_restrictions_and_stay_what_they_are() {
        let elements = list(
            "check_policy_service { inet:127.0.0.1:9, default_action=reject }, reject_unauth_destination",
        );
        assert!(obstacle(&elements).is_some_and(|(stop, _)| stop == "reject_unauth_destination"));
        assert_eq!(
            permitting(&elements),
            "check_policy_service, { inet:127.0.0.1:9, default_action=reject }, permit_sasl_authenticated, \
             reject_unauth_destination"
        );
    }
}
