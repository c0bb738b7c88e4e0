//! What Postfix lets whom do: whether a login opens the way to send, whether it is needed, and as whom one may send.
//!
//! Restrictions are followed as Postfix follows them, first match first, for two clients: one that has logged in, and a
//! stranger. Tables (`check_…`) and restriction classes may say anything; they are passed over.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::postfix::{Instance, Service, list};
use crate::cli::doctor::shell::quote;
use ipnet::IpNet;

const PERMIT: &str = "permit_sasl_authenticated";
const RELAY: &str = "smtpd_relay_restrictions";
const RECIPIENT: &str = "smtpd_recipient_restrictions";
const SENDER: &str = "smtpd_sender_restrictions";
/// Where Postfix looks at clients, senders and recipients.
pub(in crate::cli) const LISTS: [&str; 5] =
    [RELAY, RECIPIENT, SENDER, "smtpd_client_restrictions", "smtpd_helo_restrictions"];

/// What keeps mail for other servers out. smtpd insists on one of them.
const STOPS: [&str; 6] = [
    "reject",
    "defer",
    "defer_if_permit",
    "reject_unauth_destination",
    "defer_unauth_destination",
    "check_relay_domains",
];

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

const MISMATCH: &str = "reject_sender_login_mismatch";
const USER_MISMATCH: &str = "reject_authenticated_sender_login_mismatch";
/// What holds users who have logged in to their own addresses.
const MISMATCHES: [&str; 3] = [MISMATCH, USER_MISMATCH, "reject_known_sender_login_mismatch"];

/// Whatever the next restriction says is only logged.
const WARN: &str = "warn_if_reject";

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
    let before: Vec<&str> = in_force(for_users(elements)).map(|(_, element)| element).collect();
    let first = |list: &[&str]| before.iter().copied().find(|element| list.contains(element));
    first(&STOPS).map(|stop| (stop, true)).or_else(|| first(&SUSPICIONS).map(|suspicion| (suspicion, false)))
}

/// What of a list somebody meets who has logged in.
fn for_users<'a, 'b>(elements: &'b [&'a str]) -> &'b [&'a str] {
    let permitted = elements.iter().position(|element| matches!(*element, PERMIT | "permit"));
    &elements[..permitted.unwrap_or(elements.len())]
}

/// What of a list is more than a warning, with its place.
fn in_force<'a>(elements: &[&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    let warned = |at: usize| at > 0 && elements[at - 1] == WARN;
    elements.iter().copied().enumerate().filter(move |(at, _)| !warned(*at))
}

/// Whether a list could refuse somebody who has logged in.
pub(in crate::cli) fn refuses_users(elements: &[&str]) -> bool {
    obstacle(elements).is_some()
}

/// What of a list holds users to their own addresses, as they meet it.
pub(in crate::cli) fn holding_users<'a>(elements: &[&'a str]) -> Vec<&'a str> {
    let met = in_force(for_users(elements)).map(|(_, element)| element);
    met.filter(|element| MISMATCHES.contains(element)).collect()
}

/// The list with the permission where it counts: before everything that could refuse. What holds users to their own
/// addresses now still does so: it comes before the permission.
pub(in crate::cli) fn permitting(elements: &[&str]) -> String {
    let mut list = without(elements, &[PERMIT]);
    let refusing = |(_, element): &(usize, &str)| STOPS.contains(element) || SUSPICIONS.contains(element);
    let at = in_force(&list).find(refusing).map_or(list.len(), |(at, _)| at);
    let met = holding_users(elements);
    let passed: Vec<&str> = in_force(&list[at..]).map(|(_, element)| element).collect();
    let mut first: Vec<&str> = Vec::new();
    for check in met.into_iter().filter(|check| passed.contains(check)) {
        match check {
            // It stays where it is for strangers, too.
            MISMATCH => first.push(USER_MISMATCH),
            _ => {
                list = without(&list, &[check]);
                first.push(check);
            }
        }
    }
    first.dedup();
    first.push(PERMIT);
    list.splice(at..at, first);
    list.join(", ")
}

/// The list without these restrictions, and without what would only warn of them.
fn without<'a>(elements: &[&'a str], unwanted: &[&str]) -> Vec<&'a str> {
    let goes = |at: usize| {
        elements.get(at).is_some_and(|element| unwanted.contains(element))
            || elements[at] == WARN && elements.get(at + 1).is_some_and(|next| unwanted.contains(next))
    };
    elements.iter().copied().enumerate().filter(|(at, _)| !goes(*at)).map(|(_, element)| element).collect()
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
            let has_stop =
                |name: &str| in_force(&list(service.get(name))).any(|(_, element)| STOPS.contains(&element));
            if !has_stop(RELAY) && !has_stop(RECIPIENT) {
                findings.push(
                    Finding::error(format!("neither {RELAY} nor {RECIPIENT} says what keeps strangers out"))
                        .at(facts.at(instance, Some(service)))
                        .why(
                            "smtpd takes no mail from anybody then: it ends with \"fatal: in parameter \
                             smtpd_relay_restrictions or smtpd_recipient_restrictions, specify at least one working \
                             instance of: …\".",
                        )
                        .fix(instance.set_for(service, RELAY, &closed(&list(service.get(RELAY))))),
                );
                continue;
            }
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
    for (_, element) in in_force(elements) {
        match element {
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
                let (_, check) =
                    in_force(for_users(&elements)).find(|(_, element)| MISMATCHES.contains(element))?;
                Some((*name, check, without(&elements, &[check])))
            });
            let finding = match (maps, checked) {
                (true, Some(_)) => continue,
                (true, None) => Finding::warning(
                    "smtpd_sender_login_maps is set, and nothing holds users to it",
                )
                .why(format!(
                    "Every user can send as every other. A check works if users meet it before {PERMIT}."
                ))
                .fix(instance.set_for(service, SENDER, &checking(service))),
                (false, Some((_, "reject_known_sender_login_mismatch", _))) => continue,
                (false, Some((name, check, rest))) => Finding::error(format!(
                    "{name} has {check}, and smtpd_sender_login_maps is empty"
                ))
                .why("No address belongs to anybody then, so whoever has logged in cannot send at all.")
                .fix(instance.set_for(service, name, &rest.join(", "))),
                (false, None) => own_name_alone(instance, service),
            };
            findings.push(finding.at(facts.at(instance, Some(service))));
        }
    }
    once(findings)
}

/// `smtpd_sender_restrictions` with a check of users before all others.
fn checking(service: &Service) -> String {
    let mut elements = vec![USER_MISMATCH];
    let now = list(service.get(SENDER));
    elements.extend(without(&now, &[USER_MISMATCH]));
    elements.join(", ")
}

fn own_name_alone(instance: &Instance, service: &Service) -> Finding {
    let file = instance.new_file("sender-logins", "");
    let table = format!("regexp:{file}");
    let settings = [("smtpd_sender_login_maps", table.as_str()), (SENDER, &checking(service))];
    let set = match settings.iter().any(|(name, _)| service.overrides.contains_key(*name)) {
        true => instance.set_only_for(service, &settings),
        false => instance.set(&settings),
    };
    Finding::note("every user can send as every other")
        .why(format!(
            "smtpd_sender_login_maps says which addresses are whose, and {USER_MISMATCH} in {SENDER} holds users to it. \
             Whose is which is for you to decide; with this, each user sends as his login name alone, at any domain:"
        ))
        .fix(format!("echo '/^(([^@]+)@.+)$/ $2,$1' >{} && {set}", quote(&file)))
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
            ("defer_if_permit", false, true),
            ("warn_if_reject reject_unauth_destination", false, false),
            ("warn_if_reject reject_unauth_destination, reject", false, true),
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
    fn users_are_held_to_their_addresses_as_before_when_the_permission_moves() {
        let user = "reject_authenticated_sender_login_mismatch";
        for (before, after) in [
            (
                "reject_unauth_destination, reject_sender_login_mismatch, permit_mynetworks",
                format!(
                    "{user}, {PERMIT}, reject_unauth_destination, reject_sender_login_mismatch, permit_mynetworks"
                ),
            ),
            (
                "reject_invalid_helo_hostname, reject_authenticated_sender_login_mismatch, permit_sasl_authenticated",
                format!("{user}, {PERMIT}, reject_invalid_helo_hostname"),
            ),
            (
                "reject_sender_login_mismatch, reject_unauth_destination",
                format!("reject_sender_login_mismatch, {PERMIT}, reject_unauth_destination"),
            ),
            (
                "reject_rbl_client a, reject_known_sender_login_mismatch, reject",
                format!("reject_known_sender_login_mismatch, {PERMIT}, reject_rbl_client, a, reject"),
            ),
            // Here they never were.
            (
                "defer_if_permit, permit_sasl_authenticated, reject_sender_login_mismatch",
                format!("{PERMIT}, defer_if_permit, reject_sender_login_mismatch"),
            ),
        ] {
            assert_eq!(permitting(&list(before)), after, "{before}");
        }
    }

    #[test]
    fn the_permission_never_comes_behind_warn_if_reject() {
        let elements =
            list("warn_if_reject reject_rbl_client a, warn_if_reject, permit_sasl_authenticated, reject");
        assert_eq!(
            permitting(&elements),
            "warn_if_reject, reject_rbl_client, a, permit_sasl_authenticated, reject"
        );
        assert!(!refuses_users(&list(
            "warn_if_reject reject_unauth_destination, permit_sasl_authenticated, reject"
        )));
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
