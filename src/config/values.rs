//! Single values: the text of one [`Item`] → a checked value, or the mistake in it.
//!
//! Nothing is guessed: a duration has a unit, a mode is octal and says so, a path is absolute. Names
//! of users and groups are looked up through [`Accounts`](super::Accounts), by the caller.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::path::PathBuf;

use ipnet::IpNet;

use super::item::{Item, any_of, unknown};
use super::mistake::{Mistake, quoted};

/// `true` or `false`, as YAML 1.2 spells them. `yes` and `off` are not guessed at.
pub(super) fn boolean(item: &Item<'_>) -> Result<bool, Mistake> {
    match item.text("true or false")? {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(item.expected("true or false")),
    }
}

/// A whole decimal number within `range`.
pub(super) fn number(item: &Item<'_>, range: &RangeInclusive<u32>) -> Result<u32, Mistake> {
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    let text = item.text(&expected)?;
    digits(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| item.expected(&expected))
}

/// A whole number and its unit, `ms`, `s` or `m`, within `range`, which `range_text` spells out.
pub(super) fn duration(
    item: &Item<'_>,
    range: &RangeInclusive<Duration>,
    range_text: &str,
) -> Result<Duration, Mistake> {
    let expected = format!("a duration {range_text} (such as 250ms or 2s)");
    let text = item.text(&expected)?;
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let milliseconds_each = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    digits(number)
        .zip(milliseconds_each)
        .and_then(|(number, each)| number.checked_mul(each))
        .map(Duration::from_millis)
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| item.expected(&expected))
}

/// A number of ASCII digits only: no sign, no blank, no `_`.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// One of `choices`, spelled exactly so.
pub(super) fn one_of<T: Copy>(item: &Item<'_>, choices: &[(&str, T)]) -> Result<T, Mistake> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let text = item.text(&any_of(&names))?;
    choices
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| item.expected(&any_of(&names)))
}

/// An absolute path.
pub(super) fn absolute_path(item: &Item<'_>) -> Result<PathBuf, Mistake> {
    let text = item.text("an absolute path")?;
    if !text.starts_with('/') || text.contains('\0') {
        return Err(item.expected("an absolute path"));
    }
    Ok(text.into())
}

/// An absolute path that fits into a socket's address: Linux has room for 107 bytes and a NUL.
pub(super) fn socket_path(item: &Item<'_>) -> Result<PathBuf, Mistake> {
    const ROOM: usize = 107;
    let path = absolute_path(item)?;
    let length = path.as_os_str().len();
    if length > ROOM {
        let what = format!("{length} bytes long, and a socket's path has room for {ROOM}");
        return Err(item.mistake(what));
    }
    Ok(path)
}

/// As [`socket_path`], or `off`.
pub(super) fn socket_path_or_off(item: &Item<'_>) -> Result<Option<PathBuf>, Mistake> {
    match item.text("an absolute path, or off")? {
        "off" => Ok(None),
        _ => socket_path(item).map(Some),
    }
}

/// Permission bits in octal, which a leading `0` or `0o` must show: `660` alone is read as decimal
/// by some and as octal by others.
pub(super) fn mode(item: &Item<'_>) -> Result<u32, Mistake> {
    const EXPECTED: &str = "an octal mode such as \"0660\"";
    let text = item.text(EXPECTED)?;
    text.strip_prefix("0o")
        .or_else(|| text.strip_prefix('0'))
        .filter(|octal| octal.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|octal| u32::from_str_radix(octal, 8).ok())
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| item.expected(EXPECTED))
}

/// `address:port`, `[address]:port` or `localhost:port`. Other host names are refused: what they
/// mean would depend on a name server. `localhost` is always 127.0.0.1, without asking one.
pub(super) fn tcp_address(item: &Item<'_>) -> Result<SocketAddr, Mistake> {
    const EXPECTED: &str = "an IP address and a port from 1 to 65535, such as 127.0.0.1:12345 or [::1]:12345";
    let text = item.text(EXPECTED)?;
    let address = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        None => text.parse().ok(),
    };
    address.filter(|address: &SocketAddr| address.port() != 0).ok_or_else(|| item.expected(EXPECTED))
}

/// An address (`192.0.2.7`) or a network (`192.0.2.0/24`); bits beyond the prefix are cleared.
fn network(item: &Item<'_>) -> Result<IpNet, Mistake> {
    const EXPECTED: &str = "a network such as 192.0.2.0/24, or an address";
    let text = item.text(EXPECTED)?;
    let network = match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>(),
    };
    network.map(|network| network.trunc()).map_err(|_| item.expected(EXPECTED))
}

/// A list with at least one network.
pub(super) fn networks(item: &Item<'_>, mistakes: &mut Vec<Mistake>) -> Option<Vec<IpNet>> {
    every(item, "a list of networks such as [192.0.2.0/24]", mistakes, network)
}

/// Reads each element of a list with at least one; `None` when any is wrong.
pub(super) fn every<'a, T>(
    item: &Item<'a>,
    expected: &str,
    mistakes: &mut Vec<Mistake>,
    read: impl Fn(&Item<'a>) -> Result<T, Mistake>,
) -> Option<Vec<T>> {
    let elements = item.elements(expected).map_err(|mistake| mistakes.push(mistake)).ok()?;
    let count = elements.len();
    let good: Vec<T> = elements
        .iter()
        .filter_map(|element| read(element).map_err(|mistake| mistakes.push(mistake)).ok())
        .collect();
    if good.len() == count { Some(good) } else { None }
}

/// The characters allowed in user names.
pub(super) fn characters(item: &Item<'_>) -> Result<String, Mistake> {
    const EXPECTED: &str = "the allowed characters in one string, or \"\" for all printable ones";
    let text = item.text(EXPECTED)?;
    // No secrets file can hold a name with a colon, and a control character belongs in no reply.
    match text.chars().find(|c| c.is_control() || *c == ':') {
        Some(':') => Err(item.mistake("`:` separates the fields of a secrets file, no name can hold it")),
        Some(control) => {
            let code = u32::from(control);
            Err(item.mistake(format!("U+{code:04X} is a control character, no name can hold it")))
        }
        None => Ok(text.to_owned()),
    }
}

/// The name of a service: 1 to 64 printable ASCII characters without blanks.
pub(super) fn is_service_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A mechanism by its name, in any letter case.
pub(super) fn mechanism<M: Copy>(item: &Item<'_>, known: &[(&str, M)]) -> Result<M, Mistake> {
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let text = item.text(&any_of(&names))?;
    known
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, mechanism)| *mechanism)
        .ok_or_else(|| item.mistake(format!("{}: {}", quoted(text), unknown("mechanism", text, &names))))
}
