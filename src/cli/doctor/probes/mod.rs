//! The list of probes, in the order of the report: sasld, its users, its sockets, Postfix, and everybody else.
//!
//! `docs/doctor.md` explains each of them; a test holds the page and this list together.

pub(super) mod access;
mod daemon;
mod listening;
mod login;
mod mechanisms;
mod neighbours;
mod pam;
mod service;
mod users;

use super::{Needs, Probe};

/// All of them.
#[rustfmt::skip] // a table
pub const PROBES: &[Probe] = &[
    Probe { name: "configuration", good: "sasld's configuration loads", needs: Needs::Nothing, look: daemon::configuration },
    Probe { name: "units", good: "no unit of sasld has failed or is off", needs: Needs::Nothing, look: daemon::units },
    Probe { name: "running", good: "sasld listens where it is configured to", needs: Needs::Configuration, look: daemon::running },
    Probe { name: "in-force", good: "sasld goes by what is in its files now", needs: Needs::Nothing, look: daemon::in_force },
    Probe { name: "clock", good: "no file comes from the future", needs: Needs::Nothing, look: daemon::clock },
    Probe { name: "secrets-file", good: "the secrets file can be trusted and read", needs: Needs::Configuration, look: users::secrets_file },
    Probe { name: "secrets-lines", good: "every line of it can be used", needs: Needs::Configuration, look: users::secrets_lines },
    Probe { name: "users", good: "somebody can log in", needs: Needs::Configuration, look: users::users },
    Probe { name: "verifiers", good: "every user can log in by every mechanism", needs: Needs::Configuration, look: users::verifiers },
    Probe { name: "cram-md5", good: "CRAM-MD5 is not offered to users of PAM", needs: Needs::Pam, look: pam::cram_md5 },
    Probe { name: "pam-service", good: "the PAM service exists", needs: Needs::Pam, look: pam::service },
    Probe { name: "pam-worker", good: "sasld-pam answers", needs: Needs::Pam, look: pam::worker },
    Probe { name: "postfix", good: "Postfix is there and can be read", needs: Needs::Nothing, look: service::postfix },
    Probe { name: "sasl-types", good: "Postfix is built with Dovecot's SASL", needs: Needs::Postfix, look: service::sasl_types },
    Probe { name: "misspelt", good: "no SASL setting of Postfix is misspelt", needs: Needs::Postfix, look: service::misspelt },
    Probe { name: "client-settings", good: "no setting is meant for smtpd and made for smtp", needs: Needs::Postfix, look: service::client_settings },
    Probe { name: "auth-enabled", good: "a service of Postfix lets users log in", needs: Needs::Postfix, look: service::auth_enabled },
    Probe { name: "sasl-type", good: "each of them asks over Dovecot's protocol", needs: Needs::Logins, look: service::sasl_type },
    Probe { name: "socket", good: "Postfix can connect to its socket", needs: Needs::Logins, look: listening::socket },
    Probe { name: "socket-owner", good: "and it is sasld who listens there", needs: Needs::Logins, look: listening::socket_owner },
    Probe { name: "mechanisms", good: "Postfix's options leave a mechanism", needs: Needs::Logins, look: mechanisms::mechanisms },
    Probe { name: "plaintext", good: "no password is asked for without TLS", needs: Needs::Logins, look: mechanisms::plaintext },
    Probe { name: "tls", good: "where logins need TLS, there is TLS", needs: Needs::Logins, look: mechanisms::tls },
    Probe { name: "permit", good: "who has logged in may send", needs: Needs::Logins, look: access::permit },
    Probe { name: "open-relay", good: "who has not may not", needs: Needs::Postfix, look: access::open_relay },
    Probe { name: "port-25", good: "mail from other servers does not depend on sasld", needs: Needs::Logins, look: service::port_25 },
    Probe { name: "sender-login", good: "users cannot send as somebody else", needs: Needs::Logins, look: access::sender_login },
    Probe { name: "rate-limit", good: "Postfix limits attempts to log in", needs: Needs::Logins, look: access::rate_limit },
    Probe { name: "broken-clients", good: "nothing is done for clients of the last century", needs: Needs::Logins, look: service::broken_clients },
    Probe { name: "fail2ban", good: "fail2ban, if any, reads failed logins right", needs: Needs::Nothing, look: neighbours::fail2ban },
    Probe { name: "saslauthd", good: "nothing is left of saslauthd", needs: Needs::Nothing, look: neighbours::saslauthd },
    Probe { name: "login", good: "the user can log in at sasld's socket", needs: Needs::Configuration, look: login::login },
    Probe { name: "smtp", good: "and at the mail server", needs: Needs::Nothing, look: login::smtp },
];
