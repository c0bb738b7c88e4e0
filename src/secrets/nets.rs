//! `allow_nets=`: the networks an entry may be used from, as Dovecot writes them.
//!
//! A list separated by commas of addresses, networks in CIDR form, and the word `local`, which stands for a request
//! without a usable remote address. IPv4 addresses mapped into IPv6 (`::ffff:192.0.2.7`) are IPv4 addresses here, in
//! the list as well as in the request. Anything else makes the line a broken one: a restriction that cannot be read
//! must not let everybody in.

use core::fmt;
use core::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// One element of `allow_nets=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// A request whose remote address is unknown: a client on the same machine, or a server that does not tell.
    Local,
    /// An address with its prefix; never an IPv4-mapped one.
    Network(IpNet),
}

impl Net {
    /// Reads the value of `allow_nets=`. The empty value is the empty list, which admits nobody.
    ///
    /// # Errors
    /// The element that is neither `local` nor a network.
    pub fn parse_list(value: &str) -> Result<Vec<Self>, NetError> {
        value.split(',').filter(|element| !element.is_empty()).map(Self::parse).collect()
    }

    fn parse(element: &str) -> Result<Self, NetError> {
        if element == "local" {
            return Ok(Self::Local);
        }
        let network = match element.parse::<IpNet>() {
            Ok(network) => network,
            Err(_) => element.parse::<IpAddr>().map(IpNet::from).map_err(|_| NetError(element.to_owned()))?,
        };
        Ok(Self::Network(unmap(network)))
    }

    /// Whether a request from `remote` falls into this network.
    pub fn admits(&self, remote: Option<IpAddr>) -> bool {
        match (self, remote) {
            (Self::Local, None) => true,
            (Self::Network(network), Some(address)) => network.contains(&address.to_canonical()),
            (Self::Local, Some(_)) | (Self::Network(_), None) => false,
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// `::ffff:192.0.2.0/120` is `192.0.2.0/24`.
fn unmap(network: IpNet) -> IpNet {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(v6) = network else { return network };
    let Some(v4) = v6.addr().to_ipv4_mapped() else { return network };
    match v6.prefix_len().checked_sub(MAPPED_PREFIX).map(|prefix| Ipv4Net::new(v4, prefix)) {
        Some(Ok(net)) => IpNet::V4(net),
        // Shorter than /96: addresses are canonical when compared, so only genuine IPv6 ones can fall into it.
        _ => network,
    }
}

/// The element of `allow_nets=` that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetError(String);

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is neither an address, a network nor \"local\"", super::escape(self.0.as_bytes()))
    }
}

impl std::error::Error for NetError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(list: &str, remote: &str) -> bool {
        let nets = Net::parse_list(list).unwrap();
        let remote = (!remote.is_empty()).then(|| remote.parse().unwrap());
        nets.iter().any(|net| net.admits(remote))
    }

    #[test]
    fn an_address_admits_itself_and_a_network_its_members() {
        assert!(admitted("192.0.2.7", "192.0.2.7"));
        assert!(!admitted("192.0.2.7", "192.0.2.8"));
        assert!(admitted("198.51.100.0/24,192.0.2.0/24", "192.0.2.255"));
        assert!(admitted("192.0.2.7/24", "192.0.2.1"), "host bits do not matter");
        assert!(admitted("2001:db8::/32", "2001:db8:1::1"));
        assert!(!admitted("2001:db8::/32", "192.0.2.7"));
    }

    #[test]
    fn mapped_addresses_are_ipv4_on_both_sides() {
        assert!(admitted("192.0.2.0/24", "::ffff:192.0.2.7"));
        assert!(admitted("::ffff:192.0.2.0/120", "192.0.2.7"));
        assert!(admitted("::ffff:192.0.2.7", "::ffff:192.0.2.7"));
    }

    #[test]
    fn local_is_a_request_without_address_and_nothing_else_is() {
        assert!(admitted("local", ""));
        assert!(!admitted("local", "127.0.0.1"));
        assert!(!admitted("0.0.0.0/0,::/0", ""));
    }

    #[test]
    fn an_empty_list_admits_nobody() {
        assert!(!admitted("", "192.0.2.7"));
        assert!(!admitted("", ""));
    }

    #[test]
    fn a_network_is_written_with_its_prefix_and_an_address_without() {
        let nets =
            Net::parse_list("local,192.0.2.7,192.0.2.0/24,::ffff:192.0.2.0/120,2001:db8::1/128").unwrap();
        let written: Vec<_> = nets.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["local", "192.0.2.7", "192.0.2.0/24", "192.0.2.0/24", "2001:db8::1"]);
    }

    #[test]
    fn what_is_not_a_network_is_refused_by_name() {
        for bad in
            ["192.0.2.0/33", "example.com", "192.0.2.0/255.255.255.0", "%{rip}", "Local", "192.0.2.1,x"]
        {
            let error = Net::parse_list(bad).unwrap_err();
            assert!(bad.contains(&error.0), "{bad}: {error}");
        }
    }
}
