//! The keys `mechanisms` and `services`: what is offered, and what is different for one service.
//!
//! A service can have fewer mechanisms than there are at the top, not others. Its other rules replace
//! the general ones; what it does not say is taken from them.

use std::collections::BTreeMap;

use super::item::Item;
use super::mistake::{Mistake, quoted};
use super::{Mechanism, ServicePolicy, values};

const NAMED_MECHANISMS: [(&str, Mechanism); 3] = [
    (Mechanism::Plain.name(), Mechanism::Plain),
    (Mechanism::Login.name(), Mechanism::Login),
    (Mechanism::CramMd5.name(), Mechanism::CramMd5),
];

/// A list of mechanisms, each once.
pub(super) fn mechanisms(item: &Item<'_>, mistakes: &mut Vec<Mistake>) -> Option<Vec<Mechanism>> {
    let expected = "a list of mechanisms such as [PLAIN, LOGIN]";
    let named =
        values::every(item, expected, mistakes, |element| values::mechanism(element, &NAMED_MECHANISMS))?;
    for (index, mechanism) in named.iter().enumerate() {
        if named[..index].contains(mechanism) {
            mistakes.push(item.mistake(format!("{} is there twice", mechanism.name())));
        }
    }
    Some(named)
}

/// `general` and `require_tls` are the top-level keys; `None` when there is a mistake in them, and
/// then nothing is measured against them.
pub(super) fn services(
    item: &Item<'_>,
    general: Option<&[Mechanism]>,
    require_tls: Option<bool>,
    mistakes: &mut Vec<Mistake>,
) -> Option<BTreeMap<String, ServicePolicy>> {
    let named = item.entries("the names of services and their rules", mistakes)?;
    let mut services = BTreeMap::new();
    for field in &named.0 {
        if !values::is_service_name(field.name) {
            let name = quoted(field.name);
            mistakes.push(field.mistake(format!(
                "expected a service of 1 to 64 printable characters without blanks, found {name}"
            )));
        }
        if let Some(rules) = service(&field.item, general, require_tls, mistakes) {
            services.insert(field.name.to_owned(), rules);
        }
    }
    Some(services)
}

fn service(
    item: &Item<'_>,
    general: Option<&[Mechanism]>,
    require_tls: Option<bool>,
    mistakes: &mut Vec<Mistake>,
) -> Option<ServicePolicy> {
    let known = ["mechanisms", "require_tls", "allow_nets"];
    let fields = item.fields("the rules of this service", &known, mistakes)?;
    let mechanisms = match fields.get("mechanisms") {
        Some(item) => mechanisms_of_service(item, general, mistakes),
        None => general.map(<[_]>::to_vec),
    };
    let require_tls = match fields.get("require_tls") {
        Some(_) => fields.read("require_tls", true, mistakes, values::boolean),
        None => require_tls,
    };
    let allow_nets = match fields.get("allow_nets") {
        Some(item) => values::networks(item, mistakes).map(Some),
        None => Some(None),
    };
    Some(ServicePolicy { mechanisms: mechanisms?, require_tls: require_tls?, allow_nets: allow_nets? })
}

/// A service can have fewer mechanisms, not others: the greeting, which offers them, comes before
/// the client names its service.
fn mechanisms_of_service(
    item: &Item<'_>,
    general: Option<&[Mechanism]>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Mechanism>> {
    let own = mechanisms(item, mistakes)?;
    let general = general?;
    for mechanism in own.iter().filter(|mechanism| !general.contains(mechanism)) {
        mistakes.push(item.mistake(format!(
            "{} is not among the top-level mechanisms; a service can have fewer, not others",
            mechanism.name()
        )));
    }
    Some(general.iter().copied().filter(|mechanism| own.contains(mechanism)).collect())
}
