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

use super::Probe;

/// All of them.
pub const PROBES: &[Probe] = &[
    Probe { name: "configuration", good: "sasld's configuration loads", look: daemon::configuration },
    Probe { name: "units", good: "no unit of sasld has failed or is off", look: daemon::units },
    Probe { name: "running", good: "sasld listens where it is configured to", look: daemon::running },
    Probe { name: "clock", good: "no file comes from the future", look: daemon::clock },
    Probe {
        name: "secrets-file",
        good: "the secrets file can be trusted and read",
        look: users::secrets_file,
    },
    Probe { name: "secrets-lines", good: "every line of it can be used", look: users::secrets_lines },
    Probe { name: "users", good: "somebody can log in", look: users::users },
    Probe { name: "verifiers", good: "every user can log in by every mechanism", look: users::verifiers },
    Probe { name: "cram-md5", good: "CRAM-MD5 is not offered to users of PAM", look: pam::cram_md5 },
    Probe { name: "pam-service", good: "the PAM service exists", look: pam::service },
    Probe { name: "pam-worker", good: "sasld-pam answers", look: pam::worker },
    Probe { name: "postfix", good: "Postfix is there and can be read", look: service::postfix },
    Probe { name: "sasl-types", good: "Postfix is built with Dovecot's SASL", look: service::sasl_types },
    Probe { name: "misspelt", good: "no SASL setting of Postfix is misspelt", look: service::misspelt },
    Probe {
        name: "client-settings",
        good: "no setting is meant for smtpd and made for smtp",
        look: service::client_settings,
    },
    Probe {
        name: "auth-enabled",
        good: "a service of Postfix lets users log in",
        look: service::auth_enabled,
    },
    Probe { name: "sasl-type", good: "each of them asks over Dovecot's protocol", look: service::sasl_type },
    Probe { name: "socket", good: "Postfix can connect to its socket", look: listening::socket },
    Probe { name: "socket-owner", good: "and it is sasld who listens there", look: listening::socket_owner },
    Probe { name: "mechanisms", good: "Postfix's options leave a mechanism", look: mechanisms::mechanisms },
    Probe { name: "plaintext", good: "no password is asked for without TLS", look: mechanisms::plaintext },
    Probe { name: "tls", good: "where logins need TLS, there is TLS", look: mechanisms::tls },
    Probe { name: "permit", good: "who has logged in may send", look: access::permit },
    Probe { name: "open-relay", good: "who has not may not", look: access::open_relay },
    Probe {
        name: "port-25",
        good: "mail from other servers does not depend on sasld",
        look: service::port_25,
    },
    Probe { name: "sender-login", good: "users cannot send as somebody else", look: access::sender_login },
    Probe { name: "rate-limit", good: "Postfix limits attempts to log in", look: access::rate_limit },
    Probe {
        name: "broken-clients",
        good: "nothing is done for clients of the last century",
        look: service::broken_clients,
    },
    Probe {
        name: "fail2ban",
        good: "fail2ban, if any, reads failed logins right",
        look: neighbours::fail2ban,
    },
    Probe { name: "saslauthd", good: "nothing is left of saslauthd", look: neighbours::saslauthd },
    Probe { name: "login", good: "the user can log in at sasld's socket", look: login::login },
    Probe { name: "smtp", good: "and at the mail server", look: login::smtp },
];
