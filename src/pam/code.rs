//! The result codes of Linux-PAM, as numbers and as words.
//!
//! Source: `security/_pam_types.h` of Linux-PAM, the same since 1999.

use core::fmt;

/// What a PAM function returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u8);

/// Declares each code with its number, and the table of their names.
macro_rules! codes {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        impl Code {
            $(#[doc = $meaning] pub const $name: Self = Self($number);)*
        }
        const NAMES: &[(u8, &str)] = &[$(($number, concat!("PAM_", stringify!($name)))),*];
    };
}

codes! {
    SUCCESS = 0, "Yes.";
    OPEN_ERR = 1, "A module could not be loaded.";
    SYMBOL_ERR = 2, "A module lacks a function.";
    SERVICE_ERR = 3, "A module failed.";
    SYSTEM_ERR = 4, "The system failed.";
    BUF_ERR = 5, "Out of memory.";
    PERM_DENIED = 6, "A rule forbids it.";
    AUTH_ERR = 7, "Wrong password; and in stacks that flatten codes, anything but success.";
    CRED_INSUFFICIENT = 8, "The caller may not read what he needs.";
    AUTHINFO_UNAVAIL = 9, "The source of passwords cannot be reached.";
    USER_UNKNOWN = 10, "No such user.";
    MAXTRIES = 11, "Too many tries.";
    NEW_AUTHTOK_REQD = 12, "The password has expired and must be changed.";
    ACCT_EXPIRED = 13, "The account has expired.";
    SESSION_ERR = 14, "A session could not be made.";
    CRED_UNAVAIL = 15, "Credentials cannot be had.";
    CRED_EXPIRED = 16, "Credentials have expired.";
    CRED_ERR = 17, "Credentials could not be set.";
    NO_MODULE_DATA = 18, "A module lacks its own data.";
    CONV_ERR = 19, "The conversation failed.";
    AUTHTOK_ERR = 20, "The password could not be handled.";
    AUTHTOK_RECOVERY_ERR = 21, "The old password could not be had.";
    AUTHTOK_LOCK_BUSY = 22, "The passwords are locked.";
    AUTHTOK_DISABLE_AGING = 23, "Password aging is off.";
    TRY_AGAIN = 24, "Not now.";
    IGNORE = 25, "A module has no opinion.";
    ABORT = 26, "Everything should end.";
    AUTHTOK_EXPIRED = 27, "The password has expired.";
    MODULE_UNKNOWN = 28, "There is no such module.";
    BAD_ITEM = 29, "There is no such item.";
    CONV_AGAIN = 30, "The conversation waits.";
    INCOMPLETE = 31, "Call again.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "PAM code {}", self.0),
        }
    }
}
