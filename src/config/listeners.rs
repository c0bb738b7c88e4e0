//! The key `listeners`: Unix sockets and TCP ports.
//!
//! A socket's owner and group must exist on this machine. A TCP port other machines can reach needs
//! a list of networks, since whoever connects may guess passwords and reads them on the wire.

use std::path::PathBuf;

use super::accounts::{Kind, account, default_account};
use super::item::{Fields, Item};
use super::mistake::Mistake;
use super::{Account, Accounts, Listener, TcpListener, UnixListener, default, values};

const EXPECTED: &str = "a list of `- unix: PATH` or `- tcp: ADDRESS:PORT`";
const UNIX_KEYS: [&str; 5] = ["unix", "owner", "group", "mode", "peers"];
const TCP_KEYS: [&str; 2] = ["tcp", "allow"];
const KEYS: [&str; 7] = ["unix", "owner", "group", "mode", "peers", "tcp", "allow"];

/// All listeners; `None` when there is a mistake in any of them.
pub(super) fn listeners(
    item: &Item<'_>,
    accounts: &dyn Accounts,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Listener>> {
    let elements = item.elements(EXPECTED).map_err(|mistake| mistakes.push(mistake)).ok()?;
    let mut good: Vec<Listener> = Vec::with_capacity(elements.len());
    for element in &elements {
        let Some(listener) = listener(element, accounts, mistakes) else {
            continue;
        };
        if good.iter().any(|earlier| same_place(earlier, &listener)) {
            mistakes.push(element.mistake("this listener is there twice"));
        }
        good.push(listener);
    }
    if good.len() == elements.len() { Some(good) } else { None }
}

/// The listener there is when none is written.
pub(super) fn default_listeners(
    item: &Item<'_>,
    accounts: &dyn Accounts,
    mistakes: &mut Vec<Mistake>,
) -> Option<Vec<Listener>> {
    let element = Item::unwritten(item.file, &format!("{}[0]", item.key));
    let unix = unix(&element, default::SOCKET.into(), &Fields::default(), accounts, mistakes)?;
    Some(vec![Listener::Unix(unix)])
}

fn same_place(one: &Listener, other: &Listener) -> bool {
    match (one, other) {
        (Listener::Unix(one), Listener::Unix(other)) => one.path == other.path,
        (Listener::Tcp(one), Listener::Tcp(other)) => one.address == other.address,
        (Listener::Unix(_), Listener::Tcp(_)) | (Listener::Tcp(_), Listener::Unix(_)) => false,
    }
}

fn listener(element: &Item<'_>, accounts: &dyn Accounts, mistakes: &mut Vec<Mistake>) -> Option<Listener> {
    const ONE_KIND: &str = "either `unix: PATH` or `tcp: ADDRESS:PORT`";
    let mistakes_before = mistakes.len();
    let fields = element.fields(ONE_KIND, &KEYS, mistakes)?;
    match (fields.get("unix"), fields.get("tcp")) {
        (Some(path), None) => {
            refuse_keys_of(&TCP_KEYS, "a TCP port", &fields, mistakes);
            let path = values::socket_path(path).map_err(|mistake| mistakes.push(mistake)).ok();
            // The other keys are read all the same, for their mistakes.
            let unix = unix(element, path.clone().unwrap_or_default(), &fields, accounts, mistakes);
            path.and(unix).map(Listener::Unix)
        }
        (None, Some(address)) => {
            refuse_keys_of(&UNIX_KEYS, "a Unix socket", &fields, mistakes);
            tcp(address, &fields, mistakes).map(Listener::Tcp)
        }
        (None, None) => {
            // A misspelt key has been reported already.
            if mistakes.len() == mistakes_before {
                mistakes.push(element.mistake(format!("expected {ONE_KIND}, found neither")));
            }
            None
        }
        (Some(_), Some(_)) => {
            mistakes.push(element.mistake(format!("expected {ONE_KIND}, found both")));
            None
        }
    }
}

fn refuse_keys_of(keys: &[&str], kind: &str, fields: &Fields<'_>, mistakes: &mut Vec<Mistake>) {
    for field in fields.0.iter().filter(|field| keys.contains(&field.name)) {
        mistakes.push(field.mistake(format!("only {kind} has this key")));
    }
}

fn unix(
    element: &Item<'_>,
    path: PathBuf,
    fields: &Fields<'_>,
    accounts: &dyn Accounts,
    mistakes: &mut Vec<Mistake>,
) -> Option<UnixListener> {
    let mut owned_by = |key: &str, kind, default| {
        let found = match fields.get(key) {
            Some(item) => account(item, kind, accounts),
            None => default_account(&element.unwritten_key(key), default, kind, accounts),
        };
        found.map_err(|mistake| mistakes.push(mistake)).ok()
    };
    let owner = owned_by("owner", Kind::User, default::OWNER);
    let group = owned_by("group", Kind::Group, default::GROUP);
    let mode = fields.read("mode", default::MODE, mistakes, values::mode);
    let peers = match fields.get("peers") {
        Some(item) => peers(item, accounts, mistakes).map(Some),
        None => Some(None),
    };
    Some(UnixListener { path, owner: owner?, group: group?, mode: mode?, peers: peers? })
}

fn peers(item: &Item<'_>, accounts: &dyn Accounts, mistakes: &mut Vec<Mistake>) -> Option<Vec<Account>> {
    values::every(item, "a list of users such as [postfix]", mistakes, |user| {
        account(user, Kind::User, accounts)
    })
}

/// The port of a `tcp:` item, with the `allow` beside it.
pub(super) fn tcp(item: &Item<'_>, fields: &Fields<'_>, mistakes: &mut Vec<Mistake>) -> Option<TcpListener> {
    let address = values::tcp_address(item).map_err(|mistake| mistakes.push(mistake)).ok();
    let allow = match fields.get("allow") {
        Some(networks) => values::networks(networks, mistakes).map(Some),
        None => Some(None),
    };
    let (address, allow) = (address?, allow?);
    if allow.is_none() && !address.ip().to_canonical().is_loopback() {
        mistakes.push(item.mistake(format!(
            "{address} is not a loopback address; to listen there, list the mail servers that may \
             connect: allow: [192.0.2.0/24]"
        )));
        return None;
    }
    Some(TcpListener { address, allow })
}
