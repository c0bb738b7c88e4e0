//! System passwords: what sasld and `sasld-pam` have to say to each other.
//!
//! PAM modules are other people's C code. They block, leak, crash, change the user id and need the right to read
//! password hashes, so nothing of them runs in sasld. `sasld-pam` is a program of its own (`src/bin/sasld-pam/`), the
//! only one that links libpam and the only one with a privilege: the group `shadow`, or root where the stack needs it.
//!
//! - It acts for sasld's user alone: connections of other users are closed unheard.
//! - It parses no network bytes. It reads [`request::Request`]s of at most
//!   [`MAX_FRAME_BYTES`](request::MAX_FRAME_BYTES) and refuses everything else by closing the connection.
//! - The PAM service and the guard rails ([`Settings`]) come from its own command line; no request can change them.
//! - It answers "does this password belong to this user" and does nothing else: no session, no credentials, no
//!   password change.
//! - Inside it, a supervisor that runs no module code hands each request to a child that runs nothing else, and kills
//!   children that hang.
//!
//! This folder is pure and belongs to both programs; `docs/pam.md` has the whole picture.
#![forbid(unsafe_code)]

pub mod code;
pub mod frame;
pub mod request;

use core::fmt;

/// Longest password that PAM is asked about, in bytes: crypt(3) reads no more, and libpam has no room for more.
pub const MAX_PASSWORD_BYTES: usize = 511;

/// Longest PAM service name, in bytes.
pub const MAX_SERVICE_BYTES: usize = 32;

/// Where Linux-PAM looks for services, first one first.
pub const SERVICE_FOLDERS: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];

/// What `sasld-pam` is told on its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The PAM service: the name of a file in `/etc/pam.d`.
    pub service: String,
    /// How many checks run at a time for users who have not logged in lately; 0 is two for each CPU, 16 at most.
    pub workers: u16,
    /// Users with a smaller uid are not this service's. 0 lets every uid pass.
    pub min_uid: u32,
    /// Only members of this group.
    pub group: Option<String>,
    /// Only users whose shell is in `/etc/shells`.
    pub login_shell: bool,
    /// How many times one login answers a password prompt.
    pub prompts: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            service: "sasld".to_owned(),
            workers: 0,
            min_uid: 1_000,
            group: None,
            login_shell: false,
            prompts: 1,
        }
    }
}

impl Settings {
    /// Whether this can be a PAM service here: 1 to [`MAX_SERVICE_BYTES`] of `a-z0-9_-`. (libpam folds capitals, and
    /// a path would lead out of `/etc/pam.d`.)
    #[must_use]
    pub fn is_service(name: &str) -> bool {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        (1..=MAX_SERVICE_BYTES).contains(&name.len()) && name.bytes().all(allowed)
    }

    /// The command line that says the same.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--service={}", self.service),
            format!("--workers={}", self.workers),
            format!("--min-uid={}", self.min_uid),
            format!("--prompts={}", self.prompts),
        ];
        arguments.extend(self.group.as_ref().map(|group| format!("--group={group}")));
        if self.login_shell {
            arguments.push("--login-shell".to_owned());
        }
        arguments
    }
}

/// As on the command line, for comparing and for the log.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_arguments().join(" "))
    }
}
