//! What a mail server says to us: one line, parsed into one [`Command`].
//!
//! Command and parameter names are case-sensitive, every field of AUTH is unescaped, and `resp=` is the last
//! parameter: a mail server pastes base64 from the network there, and whoever could start a new parameter behind
//! it could choose his own `rip=`. Anything that is not a command as the protocol has it is a [`ParseError`]; the
//! caller closes the connection and logs it. Errors never carry a line's contents beyond the command's name, for
//! an AUTH line holds a password.

use super::field::{decimal, is_escaped, key_value, unescape};
use core::fmt;
use core::net::IpAddr;
use core::num::NonZeroU32;
use memchr::memchr;
use std::borrow::Cow;
use thiserror::Error;
use zeroize::Zeroize;

/// Names one request on one connection, as the client chose it: 1 to 2^32−1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(NonZeroU32);

impl RequestId {
    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    fn parse(digits: &[u8]) -> Option<Self> {
        let number = u32::try_from(decimal(digits)?).ok()?;
        NonZeroU32::new(number).map(Self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One line from a mail server.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `VERSION`: the first line.
    Version {
        /// Must be ours.
        major: u32,
        /// Decides what an empty `resp=` means and how an outage is told.
        minor: u32,
    },
    /// `CPID`: the second line. Some clients send a number that is no process id; it only serves the log.
    Cpid(u64),
    /// `AUTH`: begins an exchange.
    Auth(AuthRequest<'a>),
    /// `CONT`: the user's response to a challenge, still in base64. `=` alone means an empty one.
    Cont(RequestId, &'a [u8]),
    /// `CANCEL`: forget this exchange.
    Cancel(RequestId),
    /// `CONT` for id 0, which no request can have; answered like any id that is not open.
    ContZero,
}

/// The parameters of `AUTH` that sasld acts on.
///
/// Accepted and without effect, as there is nothing for them to do here: `lip`, `lport`, `rport`, `real_lip`,
/// `real_rip`, `real_lport`, `real_rport`, `local_name`, `session`, `client_id`, `forward_fields`, `debug`,
/// `nologin`, `no-penalty` (there is no penalty), `final-resp-ok` (no mechanism here ends with a server message),
/// `valid-client-cert`, `cert_username`, the `ssl_…` and `tls_…` ones, `transport`, and any unknown one.
#[derive(Debug, PartialEq, Eq)]
pub struct AuthRequest<'a> {
    /// Who this exchange is, on this connection.
    pub id: RequestId,
    /// As the user's program spelled it; compared without case.
    pub mechanism: Cow<'a, [u8]>,
    /// `service=` or `protocol=`, the last one given; may be empty.
    pub service: Cow<'a, [u8]>,
    /// `rip=`: the user's address, unless it is missing or unusable.
    pub remote: Option<IpAddr>,
    /// `secured`: what the mail server says of the user's connection.
    pub secured: Secured,
    /// `resp=`, before its meaning is known.
    pub initial_response: InitialResponse<'a>,
}

/// Whether the user's connection to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secured {
    /// Nothing was said.
    No,
    /// By TLS, or because it is local.
    Yes,
}

/// The value of `resp=`, as written. Wiped on drop where it had to be copied, for it can hold a password.
#[derive(Clone, PartialEq, Eq)]
pub enum InitialResponse<'a> {
    /// No `resp`.
    Absent,
    /// `resp` or `resp=`: an empty response from a client of minor version 2 or later, none from an older one.
    Blank,
    /// `resp==` or base64.
    Given(Cow<'a, [u8]>),
}

impl fmt::Debug for InitialResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Blank => "Blank",
            Self::Given(_) => "Given(***)",
        })
    }
}

impl Drop for InitialResponse<'_> {
    fn drop(&mut self) {
        if let Self::Given(Cow::Owned(copy)) = self {
            copy.zeroize();
        }
    }
}

impl<'a> InitialResponse<'a> {
    /// The base64 text of the response that a client of this minor version means, or `None` for none.
    #[must_use]
    pub fn base64(&self, client_minor: u32) -> Option<&[u8]> {
        match self {
            Self::Absent => None,
            Self::Blank => (client_minor >= 2).then_some(&b""[..]),
            Self::Given(text) if **text == *b"=" => Some(b""),
            Self::Given(text) => Some(text),
        }
    }
}

/// A line that is not a command; the connection that sent it is closed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// An empty line, or one that begins with a TAB.
    #[error("empty command")]
    Empty,
    /// Not a command of this protocol, or not one for clients.
    #[error("unknown command \"{0}\"")]
    UnknownCommand(String),
    /// `VERSION` without exactly two numbers.
    #[error("malformed VERSION")]
    Version,
    /// `CPID` without exactly one number, or with 0.
    #[error("malformed CPID")]
    Cpid,
    /// The command's request id is not a number from 1 to 2^32−1.
    #[error("{0}: request id missing or not a number from 1 to 4294967295")]
    RequestId(&'static str),
    /// `AUTH` without a mechanism field.
    #[error("AUTH without a mechanism")]
    NoMechanism,
    /// `AUTH` with neither `service` nor `protocol`.
    #[error("AUTH without service=")]
    NoService,
    /// Something follows `resp=`.
    #[error("AUTH with a parameter after resp=")]
    AfterResponse,
    /// `CONT` without its data field. (An empty one is fine.)
    #[error("CONT without data")]
    NoData,
}

impl<'a> Command<'a> {
    /// The command's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Version { .. } => "VERSION",
            Self::Cpid(_) => "CPID",
            Self::Auth(_) => "AUTH",
            Self::Cont(..) | Self::ContZero => "CONT",
            Self::Cancel(_) => "CANCEL",
        }
    }

    /// Parses one line, without its line end.
    ///
    /// # Errors
    /// [`ParseError`]: the line is not a command; close the connection.
    pub fn parse(line: &'a [u8]) -> Result<Self, ParseError> {
        let (name, rest) = split_at_tab(line);
        match name {
            b"AUTH" => Self::parse_auth(rest.unwrap_or_default()),
            b"CONT" => Self::parse_cont(rest.unwrap_or_default()),
            b"CANCEL" => RequestId::parse(rest.unwrap_or_default())
                .map(Self::Cancel)
                .ok_or(ParseError::RequestId("CANCEL")),
            b"VERSION" => Self::parse_version(rest).ok_or(ParseError::Version),
            b"CPID" => rest.and_then(decimal).filter(|&pid| pid != 0).map(Self::Cpid).ok_or(ParseError::Cpid),
            b"" => Err(ParseError::Empty),
            other => Err(ParseError::UnknownCommand(sanitise(other))),
        }
    }

    fn parse_version(rest: Option<&[u8]>) -> Option<Self> {
        let (major, minor) = split_at_tab(rest?);
        let number = |digits| u32::try_from(decimal(digits)?).ok();
        Some(Self::Version { major: number(major)?, minor: number(minor?)? })
    }

    fn parse_auth(rest: &'a [u8]) -> Result<Self, ParseError> {
        // One look at the whole line spares one at each field: SMTP servers escape nothing.
        let plain: fn(&'a [u8]) -> Cow<'a, [u8]> = if is_escaped(rest) { unescape } else { Cow::Borrowed };
        let (id, rest) = split_at_tab(rest);
        let id = RequestId::parse(&plain(id)).ok_or(ParseError::RequestId("AUTH"))?;
        let (mechanism, mut rest) = split_at_tab(rest.ok_or(ParseError::NoMechanism)?);
        let mechanism = plain(mechanism);
        let mut service = None;
        let mut remote = None;
        let mut secured = Secured::No;
        let mut initial_response = InitialResponse::Absent;
        while let Some(fields) = rest {
            let (field, others) = split_at_tab(fields);
            rest = others;
            let field = plain(field);
            let (key, value) = key_value(&field);
            match key {
                b"service" | b"protocol" => service = Some(value_of(field)),
                b"rip" => remote = address(value),
                b"secured" => secured = Secured::Yes,
                b"resp" => {
                    initial_response = if value.is_empty() {
                        InitialResponse::Blank
                    } else {
                        InitialResponse::Given(value_of(field))
                    };
                    if rest.is_some() {
                        return Err(ParseError::AfterResponse);
                    }
                }
                _ => {}
            }
        }
        let service = service.ok_or(ParseError::NoService)?;
        Ok(Self::Auth(AuthRequest { id, mechanism, service, remote, secured, initial_response }))
    }

    fn parse_cont(rest: &'a [u8]) -> Result<Self, ParseError> {
        let (id, data) = split_at_tab(rest);
        let data = data.ok_or_else(|| match decimal(id) {
            Some(_) => ParseError::NoData,
            None => ParseError::RequestId("CONT"),
        })?;
        if decimal(id) == Some(0) {
            return Ok(Self::ContZero);
        }
        let id = RequestId::parse(id).ok_or(ParseError::RequestId("CONT"))?;
        Ok(Self::Cont(id, if data == b"=" { b"" } else { data }))
    }
}

/// What stands before the first TAB and, if there is one, what follows it.
fn split_at_tab(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b'\t', bytes) {
        Some(tab) => (&bytes[..tab], Some(&bytes[tab + 1..])),
        None => (bytes, None),
    }
}

/// The value part of a field: borrowed where the field is, and where it is not in the same place, without another copy.
fn value_of(field: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match field {
        Cow::Borrowed(field) => Cow::Borrowed(key_value(field).1),
        Cow::Owned(mut field) => {
            let length = key_value(&field).1.len();
            field.drain(..field.len() - length);
            Cow::Owned(field)
        }
    }
}

/// An address without brackets or prefix; anything else counts as unknown. `::ffff:192.0.2.1` is 192.0.2.1.
fn address(value: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

/// At most 80 printable ASCII characters of what a stranger sent, for the log.
fn sanitise(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let mut text: String = bytes
        .iter()
        .take(SHOWN)
        .map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' })
        .collect();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn auth(line: &[u8]) -> AuthRequest<'_> {
        match Command::parse(line) {
            Ok(Command::Auth(request)) => request,
            other => panic!("not an AUTH: {other:?}"),
        }
    }

    fn id(number: u32) -> RequestId {
        RequestId(NonZeroU32::new(number).unwrap())
    }

    #[test]
    fn an_auth_line_as_postfix_writes_it() {
        let request = auth(
            b"AUTH\t7\tPLAIN\tservice=smtp\tnologin\tlip=192.0.2.1\trip=198.51.100.7\tsecured\tresp=AGE=",
        );
        assert_eq!(request.id, id(7));
        assert_eq!(&*request.mechanism, b"PLAIN");
        assert_eq!(&*request.service, b"smtp");
        assert_eq!(request.remote, Some("198.51.100.7".parse().unwrap()));
        assert_eq!(request.secured, Secured::Yes);
        assert_eq!(request.initial_response.base64(0), Some(&b"AGE="[..]));
    }

    #[test]
    fn an_empty_response_depends_on_the_clients_minor_version() {
        for line in [&b"AUTH\t1\tPLAIN\tservice=smtp\tresp="[..], b"AUTH\t1\tPLAIN\tservice=smtp\tresp"] {
            let request = auth(line);
            assert_eq!(request.initial_response.base64(0), None);
            assert_eq!(request.initial_response.base64(1), None);
            assert_eq!(request.initial_response.base64(2), Some(&b""[..]));
        }
        assert_eq!(auth(b"AUTH\t1\tPLAIN\tservice=smtp\tresp==").initial_response.base64(0), Some(&b""[..]));
        assert_eq!(auth(b"AUTH\t1\tPLAIN\tservice=smtp").initial_response.base64(2), None);
    }

    #[test]
    fn nothing_may_follow_the_response() {
        for tail in ["\trip=127.0.0.1", "\t", "\tresp=AA=="] {
            let line = format!("AUTH\t1\tPLAIN\tservice=smtp\tresp=AGE={tail}");
            assert_eq!(Command::parse(line.as_bytes()), Err(ParseError::AfterResponse));
        }
    }

    #[test]
    fn request_ids_are_decimal_from_1_to_2_pow_32_minus_1() {
        assert_eq!(auth(b"AUTH\t0007\tPLAIN\tservice=x").id, id(7));
        assert_eq!(auth(b"AUTH\t4294967295\tPLAIN\tservice=x").id, id(u32::MAX));
        for bad in ["0", "", "x1", "-1", "+1", "0x10", " 1", "1 ", "4294967296"] {
            let line = format!("AUTH\t{bad}\tPLAIN\tservice=smtp");
            assert_eq!(Command::parse(line.as_bytes()), Err(ParseError::RequestId("AUTH")), "{bad:?}");
        }
    }

    #[test]
    fn of_repeated_parameters_the_last_counts_and_bad_addresses_are_unknown() {
        let request =
            auth(b"AUTH\t1\tPLAIN\tservice=a\trip=192.0.2.1\tservice=b\t\tzzz=1\tyyy\trip=192.0.2.2");
        assert_eq!(&*request.service, b"b");
        assert_eq!(request.remote, Some("192.0.2.2".parse().unwrap()));
        for bad in ["", "unknown", "[192.0.2.1]", "IPv6:2001:db8::1"] {
            let line = format!("AUTH\t1\tPLAIN\tservice=smtp\trip=192.0.2.1\trip={bad}");
            assert_eq!(auth(line.as_bytes()).remote, None, "{bad:?}");
        }
        assert_eq!(
            auth(b"AUTH\t1\tPLAIN\tservice=s\trip=::ffff:192.0.2.1").remote,
            Some("192.0.2.1".parse().unwrap())
        );
    }

    #[test]
    fn a_service_is_required_but_may_be_empty_or_called_protocol() {
        assert_eq!(Command::parse(b"AUTH\t1\tPLAIN"), Err(ParseError::NoService));
        assert_eq!(&*auth(b"AUTH\t1\tPLAIN\tservice").service, b"");
        assert_eq!(&*auth(b"AUTH\t1\tPLAIN\tprotocol=smtp").service, b"smtp");
    }

    #[test]
    fn whole_fields_of_auth_are_unescaped() {
        let request = auth(b"AUTH\t\x017\tPL\x01AIN\tservice=a\x01tb");
        assert_eq!(&*request.mechanism, b"PLAIN");
        assert_eq!(&*request.service, b"a\tb");
    }

    #[test]
    fn an_escaped_response_is_unescaped_without_its_key() {
        let request = auth(b"AUTH\t1\tPLAIN\tservice=s\tresp=A\x01GE=");
        assert_eq!(request.initial_response.base64(0), Some(&b"AGE="[..]));
        let request = auth(b"AUTH\t1\tPLAIN\tservice=s\tre\x01sp=\x01");
        assert_eq!(request.initial_response, InitialResponse::Blank);
    }

    #[test]
    fn cont_needs_an_id_and_a_data_field() {
        assert_eq!(Command::parse(b"CONT\t1\t"), Ok(Command::Cont(id(1), b"")));
        assert_eq!(Command::parse(b"CONT\t1\t="), Ok(Command::Cont(id(1), b"")));
        assert_eq!(Command::parse(b"CONT\t1\tAA==\tx"), Ok(Command::Cont(id(1), b"AA==\tx")));
        assert_eq!(Command::parse(b"CONT\t0\tAA=="), Ok(Command::ContZero));
        assert_eq!(Command::parse(b"CONT\t1"), Err(ParseError::NoData));
        assert_eq!(Command::parse(b"CONT"), Err(ParseError::RequestId("CONT")));
        assert_eq!(Command::parse(b"CONT\tx\tAA=="), Err(ParseError::RequestId("CONT")));
    }

    #[test]
    fn the_handshake_lines_are_taken_literally() {
        assert_eq!(Command::parse(b"VERSION\t1\t99"), Ok(Command::Version { major: 1, minor: 99 }));
        for bad in [
            "VERSION",
            "VERSION\t1",
            "VERSION\t1\t",
            "VERSION\tx\ty",
            "VERSION\t1\t-1",
            "VERSION\t1\t1\tz",
            "VERSION\t1\t4294967296",
        ] {
            assert_eq!(Command::parse(bad.as_bytes()), Err(ParseError::Version), "{bad}");
        }
        assert_eq!(Command::parse(b"CPID\t94285071234567"), Ok(Command::Cpid(94_285_071_234_567)));
        for bad in ["CPID", "CPID\t", "CPID\t0", "CPID\tabc", "CPID\t1\t2"] {
            assert_eq!(Command::parse(bad.as_bytes()), Err(ParseError::Cpid), "{bad}");
        }
    }

    #[test]
    fn a_strangers_line_is_shown_short_and_printable() {
        let Err(ParseError::UnknownCommand(shown)) = Command::parse(&[0x16; 200]) else {
            panic!("a TLS record is no command");
        };
        assert_eq!(shown, format!("{}…", "?".repeat(80)));
        assert_eq!(sanitise(&[b'x'; 80]), "x".repeat(80));
        assert_eq!(sanitise(b"GET / HTTP\x7f\r"), "GET / HTTP??");
    }

    #[test]
    fn a_command_knows_its_name() {
        for line in
            ["VERSION\t1\t2", "CPID\t1", "AUTH\t1\tPLAIN\tservice=x", "CONT\t1\t", "CONT\t0\t", "CANCEL\t1"]
        {
            let name = line.split('\t').next();
            assert_eq!(Command::parse(line.as_bytes()).ok().as_ref().map(Command::name), name, "{line}");
        }
    }

    #[test]
    fn debug_tells_whether_there_is_a_response_and_never_which() {
        for (response, shown) in [("", "Absent"), ("\tresp=", "Blank"), ("\tresp=c2VjcmV0", "Given(***)")] {
            let line = format!("AUTH\t1\tPLAIN\tservice=smtp{response}");
            assert_eq!(format!("{:?}", auth(line.as_bytes()).initial_response), shown);
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn no_auth_line_panics(tail: Vec<u8>) {
            let _ = Command::parse(&[b"AUTH\t1\tPLAIN\tservice=smtp\t", &tail[..]].concat());
        }
    }
}
