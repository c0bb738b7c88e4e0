//! Cyrus SASL's sasldb2: what Berkeley DB's `db_dump` prints of it.
//!
//! A key is user, realm and property with NUL bytes between them, and the value of the property `userPassword` is the
//! password itself. Other properties (`cmusaslsecret…`, one-time passwords) cannot serve here.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use super::{Foreign, Found, Realm, Stored};
use crate::credential::Scheme;
use crate::secrets;

/// How every dump begins.
pub(super) const DUMP_START: &[u8] = b"VERSION=3\n";

/// Bytes that may be a password.
type Secret = Zeroizing<Vec<u8>>;

/// Reads a dump. `realm` says what becomes of realms.
///
/// # Errors
/// If it is no complete dump of a sasldb.
pub(super) fn parse(dump: &[u8], realm: Option<Realm>) -> Result<Found, String> {
    // By user and realm, so that one with several properties is one user.
    let mut passwords: BTreeMap<(Vec<u8>, Vec<u8>), Option<Secret>> = BTreeMap::new();
    for (key, value) in entries(dump)? {
        let mut parts = key.split(|byte| *byte == 0);
        let (Some(user), Some(realm), Some(property), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("a key is not of user, realm and property: this is no sasldb".to_owned());
        };
        let slot = passwords.entry((user.to_vec(), realm.to_vec())).or_default();
        if property == b"userPassword" {
            *slot = Some(value);
        }
    }
    let realms: BTreeSet<&[u8]> = passwords.keys().map(|(_, realm)| realm.as_slice()).collect();
    let mut notes = Vec::new();
    let drop = match (realm, realms.len()) {
        (Some(realm), _) => realm == Realm::Drop,
        (None, 0 | 1) => {
            notes.extend(realms.first().map(|realm| {
                let realm = secrets::escape(realm);
                format!("the only realm, {realm}, is dropped from the names; --realm keep keeps it")
            }));
            true
        }
        (None, count) => {
            notes.push(format!(
                "there are {count} realms, so they stay in the names; --realm drop drops them"
            ));
            false
        }
    };
    let users = passwords.into_iter().map(|((user, realm), password)| {
        let name = if drop || realm.is_empty() { user } else { [user, realm].join(&b'@') };
        let stored = password
            .ok_or_else(|| {
                "there is no userPassword, only what other mechanisms have derived from it".to_owned()
            })
            .and_then(|password| Stored::of_scheme(Scheme::Plain, &password));
        Foreign { line: None, name, stored, rest: None }
    });
    Ok(Found { users: users.collect(), notes })
}

/// Keys and values.
fn entries(dump: &[u8]) -> Result<Vec<(Secret, Secret)>, String> {
    let mut lines = dump.split(|byte| *byte == b'\n');
    let mut printable = false;
    loop {
        match lines.next() {
            Some(b"HEADER=END") => break,
            Some(b"format=print") => printable = true,
            Some(_) => {}
            None => return Err("the header of the dump does not end".to_owned()),
        }
    }
    let mut values = Vec::new();
    loop {
        match lines.next() {
            Some(b"DATA=END") => break,
            Some([b' ', value @ ..]) => values.push(decode(value, printable)?),
            _ => return Err("the dump is not complete".to_owned()),
        }
    }
    let mut entries = Vec::new();
    let mut values = values.into_iter();
    while let Some(key) = values.next() {
        entries.push((key, values.next().ok_or("the dump ends with a key")?));
    }
    Ok(entries)
}

/// `-p` writes what is printable as it is, a backslash twice and all else as `\` and two hex digits; without `-p`
/// everything is hex digits.
fn decode(text: &[u8], printable: bool) -> Result<Secret, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    loop {
        rest = match (rest, printable) {
            ([], _) => return Ok(bytes),
            ([b'\\', b'\\', rest @ ..], true) => {
                bytes.push(b'\\');
                rest
            }
            ([b'\\', high, low, rest @ ..], true) | ([high, low, rest @ ..], false) => {
                let digit =
                    |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                    return Err("the dump contains what is not hexadecimal".to_owned());
                };
                bytes.push(high << 4 | low);
                rest
            }
            ([byte, rest @ ..], true) if *byte != b'\\' => {
                bytes.push(*byte);
                rest
            }
            _ => return Err("the dump ends inside a byte".to_owned()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "VERSION=3\nformat=print\ntype=hash\nHEADER=END\n \
        alice\\00mail.example.com\\00userPassword\n pa:ss w\\c3\\b6rd\\\\x\n \
        bob\\00mail.example.com\\00cmusaslsecretOTP\n x\nDATA=END\n";

    fn names(dump: &str, realm: Option<Realm>) -> Vec<String> {
        let users = parse(dump.as_bytes(), realm).unwrap().users;
        users.into_iter().map(|user| String::from_utf8(user.name).unwrap()).collect()
    }

    #[test]
    fn passwords_come_out_as_they_were_set() {
        let found = parse(DUMP.as_bytes(), None).unwrap();
        assert!(
            matches!(&found.users[0].stored, Ok(Stored::Plain(password)) if password.as_bytes() == "pa:ss wörd\\x".as_bytes())
        );
        assert!(found.users[1].stored.as_ref().unwrap_err().contains("no userPassword"));
        assert!(found.notes[0].contains("mail.example.com"));
    }

    #[test]
    fn hex_dumps_are_read_too() {
        let dump =
            "VERSION=3\nformat=bytevalue\nHEADER=END\n 610062007573657250617373776f7264\n 7077\nDATA=END\n";
        let found = parse(dump.as_bytes(), Some(Realm::Keep)).unwrap();
        assert_eq!(found.users[0].name, b"a@b");
        assert!(
            matches!(&found.users[0].stored, Ok(Stored::Plain(password)) if password.as_bytes() == b"pw")
        );
    }

    #[test]
    fn one_realm_is_dropped_and_several_are_kept_unless_told_otherwise() {
        assert_eq!(names(DUMP, None), ["alice", "bob"]);
        assert_eq!(names(DUMP, Some(Realm::Keep)), ["alice@mail.example.com", "bob@mail.example.com"]);
        let two = DUMP.replace("bob\\00mail", "bob\\00other");
        assert_eq!(names(&two, None), ["alice@mail.example.com", "bob@other.example.com"]);
        assert_eq!(names(&two, Some(Realm::Drop)), ["alice", "bob"]);
    }

    #[test]
    fn a_cut_or_foreign_dump_is_an_error() {
        for at in 0..DUMP.len() - 1 {
            assert!(parse(&DUMP.as_bytes()[..at], None).is_err(), "{at}");
        }
        assert!(parse(DUMP.replace("\\00userP", "userP").as_bytes(), None).is_err());
        assert!(parse(DUMP.replace("\\c3", "\\cz").as_bytes(), None).is_err());
    }
}
