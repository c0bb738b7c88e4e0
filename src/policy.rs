//! What the configuration decides about logins, in the form that a `session` reads it.
//!
//! A policy has no invalid values and never changes; a reload makes a new one, and requests that arrive afterwards
//! meet it, on old connections too.
#![forbid(unsafe_code)]

use crate::sasl::{Mechanism, NameRules};
use core::net::IpAddr;
use core::time::Duration;
use ipnet::IpNet;
use std::collections::BTreeMap;

/// The rules for every login.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our host name, for challenges.
    pub host: String,
    /// How names are made canonical.
    pub names: NameRules,
    /// What services without a section of their own get.
    pub default_service: ServicePolicy,
    /// The services with a section of their own, by the name the mail server calls them.
    pub services: BTreeMap<String, ServicePolicy>,
    /// How long a refusal waits, at least; at most a quarter more.
    pub refusal_delay: Duration,
    /// When a request without a verdict is given up, counted like the delay from its last line.
    pub deadline: Duration,
    /// How a mail server is told that there is no verdict.
    pub on_outage: OnOutage,
    /// Open exchanges per connection, at least 1.
    pub max_exchanges: usize,
}

/// The rules for the logins of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePolicy {
    /// What may be used, in the order offered; never empty.
    pub mechanisms: Vec<Mechanism>,
    /// Refuse PLAIN and LOGIN unless the user's connection is secured.
    pub require_tls: bool,
    /// Where users may come from; `None` means anywhere.
    pub allow_nets: Option<Vec<IpNet>>,
}

/// How a mail server is told that there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnOutage {
    /// As [`Close`](Self::Close) for clients that take every FAIL for a wrong password, as [`Fail`](Self::Fail) for
    /// the others.
    #[default]
    Auto,
    /// Close the connection without an answer: 454 in Postfix, 435 in Exim.
    Close,
    /// FAIL with `code=temp_fail`.
    Fail,
}

impl Policy {
    /// The rules for this service.
    #[must_use]
    pub fn service(&self, name: &[u8]) -> &ServicePolicy {
        self.section(name).unwrap_or(&self.default_service)
    }

    /// The section of its own that this service has.
    #[must_use]
    pub fn section(&self, name: &[u8]) -> Option<&ServicePolicy> {
        // Most set-ups have no sections, and then the name needs no look at all.
        if self.services.is_empty() {
            return None;
        }
        std::str::from_utf8(name).ok().and_then(|name| self.services.get(name))
    }
}

impl ServicePolicy {
    /// Whether a user from this address may log in at all. An unknown address is in no network.
    #[must_use]
    pub fn allows_address(&self, address: Option<IpAddr>) -> bool {
        match (&self.allow_nets, address) {
            (None, _) => true,
            (Some(nets), Some(address)) => nets.iter().any(|net| net.contains(&address)),
            (Some(_), None) => false,
        }
    }
}
