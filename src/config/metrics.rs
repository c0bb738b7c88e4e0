//! The key `metrics`: off, a Unix socket or a TCP port.
//!
//! A socket belongs to whoever sasld runs as; a group can be given for the program that reads it. A port follows the
//! rules of [`listeners`](super::listeners): other machines need to be listed.

use super::accounts::{Kind, account};
use super::item::{Fields, Item};
use super::listeners::tcp;
use super::mistake::Mistake;
use super::{Accounts, Metrics, default, values};

const EXPECTED: &str = "off, `unix: PATH` or `tcp: ADDRESS:PORT`";

/// Where metrics are served; `None` when there is a mistake.
pub(super) fn metrics(
    item: &Item<'_>,
    accounts: &dyn Accounts,
    mistakes: &mut Vec<Mistake>,
) -> Option<Option<Metrics>> {
    if item.text(EXPECTED).is_ok_and(|text| text == "off") {
        return Some(None);
    }
    let mistakes_before = mistakes.len();
    let fields = item.fields(EXPECTED, &["unix", "group", "mode", "tcp", "allow"], mistakes)?;
    match (fields.get("unix"), fields.get("tcp")) {
        (Some(path), None) => {
            only_with(&["allow"], "a TCP port", &fields, mistakes);
            let path = values::socket_path(path).map_err(|mistake| mistakes.push(mistake)).ok();
            let group = match fields.get("group") {
                Some(group) => {
                    let found = account(group, Kind::Group, accounts);
                    found.map_err(|mistake| mistakes.push(mistake)).ok().map(Some)
                }
                None => Some(None),
            };
            let mode = fields.read("mode", default::MODE, mistakes, values::mode);
            Some(Some(Metrics::Unix { path: path?, group: group?, mode: mode? }))
        }
        (None, Some(address)) => {
            only_with(&["group", "mode"], "a Unix socket", &fields, mistakes);
            tcp(address, &fields, mistakes).map(|tcp| Some(Metrics::Tcp(tcp)))
        }
        _ => {
            // A misspelt key has been reported already.
            if mistakes.len() == mistakes_before {
                mistakes.push(item.expected(EXPECTED));
            }
            None
        }
    }
}

fn only_with(keys: &[&str], kind: &str, fields: &Fields<'_>, mistakes: &mut Vec<Mistake>) {
    for field in fields.0.iter().filter(|field| keys.contains(&field.name)) {
        mistakes.push(field.mistake(format!("only {kind} has this key")));
    }
}
