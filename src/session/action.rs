//! What a session says has to be done, and what it says about a request that is over.

use crate::sasl::{Claimed, Mechanism, Outage, Question, Refusal};
use crate::wire::{LineError, ParseError, Reply, RequestId, Secured};
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;
use thiserror::Error;

/// What has to be done next.
#[derive(Debug)]
pub enum Action {
    /// Nothing.
    None,
    /// Send this.
    Send(Reply),
    /// Ask the passdbs; their answer comes back through [`Session::on_answer`](super::Session::on_answer) with the same ticket.
    Ask(Ticket, Question, Origin),
    /// A request is decided: log it, and send the reply if there is one. (A refusal's follows at its time.)
    Settle(Attempt, Option<Reply>),
    /// Close the connection.
    Close(CloseReason),
}

/// Names one exchange for ever, while its request id may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

/// Where a login comes from, as the mail server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The service that the user logs in to, such as `smtp`.
    pub service: Arc<[u8]>,
    /// The user's address.
    pub remote: Option<IpAddr>,
    /// Whether the mail server said `secured`.
    pub secured: Secured,
}

/// What the log says about one request.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Names its question to the passdbs, if it came to that.
    pub ticket: Option<Ticket>,
    /// How it ended.
    pub verdict: Verdict,
    /// Who it was about.
    pub claimed: Claimed,
    /// By which mechanism; `None` if it is not one on offer.
    pub mechanism: Option<Mechanism>,
    /// Where it came from.
    pub origin: Origin,
    /// The mail server's process, from CPID.
    pub client_pid: u64,
    /// Time from the user's last message to the verdict.
    pub elapsed: Duration,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The user is who he says.
    Accepted,
    /// He is not, or made no sense.
    Refused(Refusal),
    /// Refused without a look at any credentials: the response was not base64, the mechanism is not on offer, TLS is
    /// missing, or responses came that nobody had asked for. The word is the log's.
    Rejected(&'static str),
    /// No verdict.
    Outage(Outage),
    /// The mail server left or cancelled while a passdb was being asked.
    Abandoned,
}

impl Verdict {
    /// The words for it in the log: `result`, and `why` where there is a reason.
    #[must_use]
    pub const fn words(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Accepted => ("ok", None),
            Self::Refused(refusal) => ("refused", Some(refusal.why())),
            Self::Rejected(why) => ("refused", Some(why)),
            Self::Outage(outage) => ("outage", Some(outage.why())),
            Self::Abandoned => ("abandoned", None),
        }
    }
}

/// Why a connection is closed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CloseReason {
    /// Not a line.
    #[error(transparent)]
    Line(#[from] LineError),
    /// Not a command.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Another protocol altogether.
    #[error("client speaks major version {0}, not 1")]
    Major(u32),
    /// A command at the wrong moment: VERSION and CPID come first, in this order, once.
    #[error("{0} out of place")]
    OutOfPlace(&'static str),
    /// The id of a request that is still open.
    #[error("request id {0} is in use")]
    DuplicateId(RequestId),
    /// VERSION and CPID did not come in time.
    #[error("no handshake within 30 s")]
    HandshakeTimeout,
    /// How clients that know no temporary failure are told of one.
    #[error("no verdict")]
    Outage,
}
