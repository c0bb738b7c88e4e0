//! Users and groups by name, looked up once, when the configuration is read.
//!
//! The lookup can ask the network (NSS), so it blocks. What it cannot find, or cannot find out, is a
//! mistake in the configuration; the operator hears of it with file and line.

use nix::errno::Errno;
use nix::unistd::{Group, User};

use super::item::Item;
use super::mistake::{Mistake, quoted};

/// A user or group as configured, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// As written: a name, or the number in decimal.
    pub name: String,
    /// uid or gid.
    pub id: u32,
}

/// Where names of users and groups are looked up.
pub trait Accounts {
    /// The uid of a user; `None` when there is no such user.
    ///
    /// # Errors
    ///
    /// The system cannot tell.
    fn user(&self, name: &str) -> Result<Option<u32>, Errno>;

    /// The gid of a group; `None` when there is no such group.
    ///
    /// # Errors
    ///
    /// The system cannot tell.
    fn group(&self, name: &str) -> Result<Option<u32>, Errno>;
}

/// The accounts of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn user(&self, name: &str) -> Result<Option<u32>, Errno> {
        Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Errno> {
        Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
    }
}

/// Every account there could be, for who has no use for the numbers: before Postfix comes, its user is missing, too.
#[derive(Clone, Copy, Debug)]
pub struct AnyAccounts;

impl Accounts for AnyAccounts {
    fn user(&self, _: &str) -> Result<Option<u32>, Errno> {
        Ok(Some(0))
    }

    fn group(&self, _: &str) -> Result<Option<u32>, Errno> {
        Ok(Some(0))
    }
}

/// Which of the two kinds of account.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    User,
    Group,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// The account that `item` names, or its number.
pub(super) fn account(item: &Item<'_>, kind: Kind, accounts: &dyn Accounts) -> Result<Account, Mistake> {
    let word = kind.word();
    let expected = format!("the name of a {word}, or its number");
    let name = item.text(&expected)?;
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        // The largest number means "no change" to chown(2).
        let id = name.parse().ok().filter(|id| *id != u32::MAX);
        let id = id.ok_or_else(|| item.expected(&expected))?;
        return Ok(Account { name: name.to_owned(), id });
    }
    find(name, kind, accounts)
        .map_err(|trouble| item.mistake(trouble))?
        .ok_or_else(|| item.mistake(format!("there is no {word} {} here", quoted(name))))
}

/// The account called `name`, used because nothing is written at `item`.
pub(super) fn default_account(
    item: &Item<'_>,
    name: &str,
    kind: Kind,
    accounts: &dyn Accounts,
) -> Result<Account, Mistake> {
    let word = kind.word();
    find(name, kind, accounts).map_err(|trouble| item.mistake(trouble))?.ok_or_else(|| {
        item.mistake(format!(
            "there is no {word} `{name}` here, which is the default; \
             install Postfix, or name the {word} of your mail server"
        ))
    })
}

fn find(name: &str, kind: Kind, accounts: &dyn Accounts) -> Result<Option<Account>, String> {
    let found = match kind {
        Kind::User => accounts.user(name),
        Kind::Group => accounts.group(name),
    };
    match found {
        Ok(id) => Ok(id.map(|id| Account { name: name.to_owned(), id })),
        Err(errno) => {
            let (word, reason) = (kind.word(), errno.desc());
            Err(format!("looking up the {word} {} failed: {reason}", quoted(name)))
        }
    }
}
