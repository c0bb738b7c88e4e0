//! The four messages between sasld, the supervisor and its children; see [`frame`](super::frame) for their framing.
//!
//! The supervisor greets sasld with a [`Hello`]. sasld sends [`Request`]s, several at a time, and gets an [`Answer`]
//! for each, in any order, known by its id. The supervisor and a child speak the same way: the child says [`Ready`],
//! then answers one request at a time.
//!
//! Everything is checked where it is read: a decoded message holds no value out of range.

use super::MAX_PASSWORD_BYTES;
use super::code::Code;
use super::frame::{FormatError, Reader, Writer};
use crate::credential::Password;
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;
use zeroize::Zeroizing;

pub use super::frame::{FrameBuffer, MAX_FRAME_BYTES};

/// Both sides belong to one package, so there is nothing to negotiate: another version is refused.
const VERSION: u8 = 1;

/// Longest user name, in bytes.
pub const MAX_USER_BYTES: usize = 255;

/// Longest `PAM_RHOST`, `PAM_TTY` and group name, in bytes.
pub const MAX_ITEM_BYTES: usize = 64;

/// How much of what modules say is kept for the log, in bytes.
pub const MAX_TEXT_BYTES: usize = 512;

/// Longest settings in a [`Hello`], in bytes.
const MAX_SETTINGS_BYTES: usize = 1_024;

/// Longest time that a request may ask for.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// Who is served by whom: strangers cannot keep those waiting who logged in lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Somebody who has not logged in from there lately; his check runs at a lower priority.
    Ordinary,
    /// Somebody who has.
    Express,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ordinary, Self::Express];
}

/// The supervisor's greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Checks that run at a time in the ordinary lane; at least 1.
    pub ordinary: u16,
    /// Checks that run at a time in the express lane; at least 1.
    pub express: u16,
    /// What it was started with, as [`Settings`](super::Settings) print.
    pub settings: String,
}

/// A child can take requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What is wrong with the PAM service or the child's rights, in the operator's words; empty if nothing is.
    pub complaint: String,
}

/// Does this password belong to this user?
#[derive(Debug)]
pub struct Request {
    /// Comes back in the answer.
    pub id: u64,
    /// In which lane.
    pub lane: Lane,
    /// After this time nobody waits for the answer any more; at most a minute.
    pub patience: Duration,
    /// The user, as [`is_user`] has it.
    pub user: String,
    /// His password: 1 to [`MAX_PASSWORD_BYTES`] without NUL.
    pub password: Arc<Password>,
    /// `PAM_RHOST`, his IP address; empty if unknown.
    pub rhost: String,
    /// `PAM_TTY`: the mail server's service, as [`is_tty`] has it.
    pub tty: String,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// The child wants to be replaced, and takes no more requests.
    pub last: bool,
}

/// What came of a request. The verdict that follows from it is `passdb::pam`'s business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stack was run.
    Checked(Checked),
    /// A guard rail keeps this user from PAM, or keeps out whom a module made of him.
    Excluded(Exclusion),
    /// Nobody knows.
    Undecided(Trouble, String),
}

/// What the stack said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// How far it got.
    pub stage: Stage,
    /// The last function's result.
    pub code: Code,
    /// `pam_authenticate` asked for the password and got it.
    pub asked: bool,
    /// It asked for more than it was given.
    pub asked_more: bool,
    /// `PAM_USER` afterwards, which modules can change.
    pub user: Vec<u8>,
    /// What modules said, for the log; at most [`MAX_TEXT_BYTES`].
    pub text: String,
}

/// The PAM function called last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `pam_start` and its items.
    Start,
    /// `pam_authenticate`.
    Authenticate,
    /// `pam_acct_mgmt`.
    Account,
}

/// Which guard rail it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// The user database does not have him.
    UnknownUser,
    /// His uid is too small.
    Uid,
    /// He is not in the group.
    Group,
    /// His shell is no login shell.
    Shell,
    /// The password was right, but a module has changed the name into one that a rail keeps out.
    NewName,
}

/// Why nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The check was begun and did not end in time; the child was killed.
    Timeout,
    /// The child died.
    Crashed,
    /// Too many requests at a time: the check was never begun.
    Busy,
    /// No child can be started.
    NoWorker,
    /// The PAM service does not exist, or has no module for one of the two phases.
    NoService,
    /// The user database does not answer.
    UserDatabase,
    /// A module changed the rights of the process, so what came after it means nothing.
    Rights,
    /// Memory or processes ran out during the check, and PAM takes that for a wrong password.
    Exhausted,
}

impl Exclusion {
    /// For the log: the setting it comes from.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::Uid => "min_uid",
            Self::Group => "group",
            Self::Shell => "login_shell",
            Self::NewName => "new_name",
        }
    }
}

impl Trouble {
    /// For the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Crashed => "crashed",
            Self::Busy => "busy",
            Self::NoWorker => "no_worker",
            Self::NoService => "no_service",
            Self::UserDatabase => "user_database",
            Self::Rights => "rights",
            Self::Exhausted => "exhausted",
        }
    }
}

/// Declares how an enum is written as a byte.
macro_rules! bytes {
    ($kind:ident, $name:literal: $($variant:ident = $byte:literal),*) => {
        impl $kind {
            const fn to_byte(self) -> u8 {
                match self { $(Self::$variant => $byte),* }
            }
            fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
                match reader.byte()? { $($byte => Ok(Self::$variant),)* _ => Err(FormatError::Value($name)) }
            }
        }
    };
}

bytes!(Lane, "lane": Ordinary = 0, Express = 1);
bytes!(Stage, "stage": Start = 0, Authenticate = 1, Account = 2);
bytes!(Exclusion, "exclusion": UnknownUser = 0, Uid = 1, Group = 2, Shell = 3, NewName = 4);
bytes!(Trouble, "trouble": Timeout = 0, Crashed = 1, Busy = 2, NoWorker = 3, NoService = 4, UserDatabase = 5, Rights = 6,
    Exhausted = 7);

const HELLO: u8 = b'H';
const READY: u8 = b'R';
const REQUEST: u8 = b'Q';
const ANSWER: u8 = b'A';

fn begin(kind: u8) -> Writer {
    let mut writer = Writer::new();
    writer.bytes(&[VERSION, kind]);
    writer
}

fn open(frame: &[u8], kind: u8) -> Result<Reader<'_>, FormatError> {
    let mut reader = Reader(frame);
    if reader.array()? == [VERSION, kind] { Ok(reader) } else { Err(FormatError::Unexpected) }
}

/// The longest beginning of `text` that has at most `max` bytes.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Hello {
    /// The frame, length included.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = begin(HELLO);
        writer.bytes(&self.ordinary.to_be_bytes());
        writer.bytes(&self.express.to_be_bytes());
        writer.field(cut(&self.settings, MAX_SETTINGS_BYTES).as_bytes());
        writer.finish()
    }

    /// Reads a frame, without its length.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(frame: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open(frame, HELLO)?;
        let ordinary = u16::from_be_bytes(reader.array()?);
        let express = u16::from_be_bytes(reader.array()?);
        if ordinary == 0 || express == 0 {
            return Err(FormatError::Value("number of workers"));
        }
        let settings = reader.text("settings", MAX_SETTINGS_BYTES)?.to_owned();
        reader.end()?;
        Ok(Self { ordinary, express, settings })
    }
}

impl Ready {
    /// The frame, length included.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = begin(READY);
        writer.field(cut(&self.complaint, MAX_TEXT_BYTES).as_bytes());
        writer.finish()
    }

    /// Reads a frame, without its length.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(frame: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open(frame, READY)?;
        let complaint = reader.text("complaint", MAX_TEXT_BYTES)?.to_owned();
        reader.end()?;
        Ok(Self { complaint })
    }
}

impl Request {
    /// The frame, length included.
    ///
    /// # Errors
    /// [`FormatError::Value`]: a field that [`decode`](Self::decode) would refuse.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        self.check()?;
        let mut writer = begin(REQUEST);
        writer.bytes(&self.id.to_be_bytes());
        writer.bytes(&[self.lane.to_byte()]);
        writer.bytes(&u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX).to_be_bytes());
        for field in
            [self.user.as_bytes(), self.password.as_bytes(), self.rhost.as_bytes(), self.tty.as_bytes()]
        {
            writer.field(field);
        }
        Ok(writer.finish())
    }

    /// Reads a frame, without its length.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(frame: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open(frame, REQUEST)?;
        let request = Self {
            id: u64::from_be_bytes(reader.array()?),
            lane: Lane::read(&mut reader)?,
            patience: Duration::from_millis(u64::from(u32::from_be_bytes(reader.array()?))),
            user: reader.text("user", MAX_USER_BYTES)?.to_owned(),
            password: Arc::new(Password::new(reader.field("password", MAX_PASSWORD_BYTES)?)),
            rhost: reader.text("rhost", MAX_ITEM_BYTES)?.to_owned(),
            tty: reader.text("tty", MAX_ITEM_BYTES)?.to_owned(),
        };
        reader.end()?;
        request.check()?;
        Ok(request)
    }

    /// The rules of both directions. Modules make paths, arguments and log lines of these strings.
    fn check(&self) -> Result<(), FormatError> {
        let password = self.password.as_bytes();
        for (name, is_good) in [
            ("patience", self.patience <= MAX_PATIENCE),
            ("user", is_user(&self.user)),
            ("password", (1..=MAX_PASSWORD_BYTES).contains(&password.len()) && !password.contains(&0)),
            ("rhost", self.rhost.is_empty() || self.rhost.parse::<IpAddr>().is_ok()),
            ("tty", is_tty(self.tty.as_bytes())),
        ] {
            if !is_good {
                return Err(FormatError::Value(name));
            }
        }
        Ok(())
    }
}

/// Whether PAM can be asked about a user of this name: 1 to [`MAX_USER_BYTES`] without `/` and control characters.
#[must_use]
pub fn is_user(name: &str) -> bool {
    let is_odd = |character: char| character.is_control() || character == '/';
    (1..=MAX_USER_BYTES).contains(&name.len()) && !name.contains(is_odd)
}

/// Whether this can be a terminal's name here: 1 to [`MAX_ITEM_BYTES`] ASCII letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_tty(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_ITEM_BYTES).contains(&name.len()) && name.iter().all(is_plain)
}

const CHECKED: u8 = 0;
const EXCLUDED: u8 = 1;
const UNDECIDED: u8 = 2;

impl Answer {
    /// The frame, length included.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = begin(ANSWER);
        writer.bytes(&self.id.to_be_bytes());
        writer.bytes(&[u8::from(self.last)]);
        match &self.outcome {
            Outcome::Checked(Checked { stage, code, asked, asked_more, user, text }) => {
                writer.bytes(&[CHECKED, stage.to_byte(), code.0, u8::from(*asked), u8::from(*asked_more)]);
                // A name too long to be sent is not the one that was asked about; cut, it still isn't.
                writer.field(&user[..user.len().min(MAX_USER_BYTES + 1)]);
                writer.field(cut(text, MAX_TEXT_BYTES).as_bytes());
            }
            Outcome::Excluded(exclusion) => writer.bytes(&[EXCLUDED, exclusion.to_byte()]),
            Outcome::Undecided(trouble, text) => {
                writer.bytes(&[UNDECIDED, trouble.to_byte()]);
                writer.field(cut(text, MAX_TEXT_BYTES).as_bytes());
            }
        }
        writer.finish()
    }

    /// Reads a frame, without its length.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(frame: &[u8]) -> Result<Self, FormatError> {
        let mut reader = open(frame, ANSWER)?;
        let id = u64::from_be_bytes(reader.array()?);
        let last = reader.flag()?;
        let outcome = match reader.byte()? {
            CHECKED => Outcome::Checked(Checked {
                stage: Stage::read(&mut reader)?,
                code: Code(reader.byte()?),
                asked: reader.flag()?,
                asked_more: reader.flag()?,
                user: reader.field("user", MAX_USER_BYTES + 1)?.to_vec(),
                text: reader.text("text", MAX_TEXT_BYTES)?.to_owned(),
            }),
            EXCLUDED => Outcome::Excluded(Exclusion::read(&mut reader)?),
            UNDECIDED => {
                let trouble = Trouble::read(&mut reader)?;
                Outcome::Undecided(trouble, reader.text("text", MAX_TEXT_BYTES)?.to_owned())
            }
            _ => return Err(FormatError::Value("outcome")),
        };
        reader.end()?;
        Ok(Self { id, outcome, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(user: &str, password: &[u8]) -> Request {
        Request {
            id: 7,
            lane: Lane::Express,
            patience: Duration::from_millis(7_900),
            user: user.to_owned(),
            password: Arc::new(Password::new(password)),
            rhost: "192.0.2.7".to_owned(),
            tty: "smtp".to_owned(),
        }
    }

    fn answers() -> Vec<Answer> {
        let checked = Checked {
            stage: Stage::Account,
            code: Code::ACCT_EXPIRED,
            asked: true,
            asked_more: false,
            user: b"bob\xff".to_vec(),
            text: "Your account has expired".to_owned(),
        };
        let outcomes = [
            Outcome::Checked(checked),
            Outcome::Excluded(Exclusion::Shell),
            Outcome::Undecided(Trouble::Crashed, "signal 11".to_owned()),
        ];
        outcomes.map(|outcome| Answer { id: u64::MAX, outcome, last: true }).into()
    }

    fn body(encoded: &[u8]) -> &[u8] {
        &encoded[4..]
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let encoded = request("alice", b"s3cret").encode().unwrap();
        let decoded = Request::decode(body(&encoded)).unwrap();
        assert_eq!(
            (decoded.id, decoded.lane, decoded.patience),
            (7, Lane::Express, Duration::from_millis(7_900))
        );
        assert_eq!((decoded.user.as_str(), decoded.password.as_bytes()), ("alice", &b"s3cret"[..]));
        assert_eq!((decoded.rhost.as_str(), decoded.tty.as_str()), ("192.0.2.7", "smtp"));
        for answer in answers() {
            assert_eq!(Answer::decode(body(&answer.encode())), Ok(answer));
        }
        let hello = Hello { ordinary: 4, express: 2, settings: "--service=sasld".to_owned() };
        assert_eq!(Hello::decode(body(&hello.encode())), Ok(hello));
        let ready = Ready { complaint: String::new() };
        assert_eq!(Ready::decode(body(&ready.encode())), Ok(ready));
    }

    #[test]
    fn every_truncation_and_every_extra_byte_is_an_error() {
        let mut frames = vec![request("alice", b"s3cret").encode().unwrap().to_vec()];
        frames.extend(answers().iter().map(|answer| answer.encode().to_vec()));
        for frame in frames {
            let frame = body(&frame);
            for end in 0..frame.len() {
                assert!(Request::decode(&frame[..end]).is_err() && Answer::decode(&frame[..end]).is_err());
            }
            let longer = [frame, b"x"].concat();
            assert!(Request::decode(&longer).is_err() && Answer::decode(&longer).is_err());
        }
    }

    #[test]
    fn a_password_that_cannot_be_right_is_no_request() {
        assert!(request("alice", &[b'x'; 511]).encode().is_ok());
        assert!(request("alice", &[b'x'; 512]).encode().is_err());
        assert!(request("alice", b"a\0b").encode().is_err());
        assert_eq!(request("alice", b"").encode().err(), Some(FormatError::Value("password")));
    }

    /// What a sasld that has been taken over could send.
    fn encode_unchecked(user: &[u8], password: &[u8], rhost: &[u8], tty: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut writer = begin(REQUEST);
        writer.bytes(&[0; 13]);
        for field in [user, password, rhost, tty] {
            writer.field(field);
        }
        writer.finish()
    }

    #[test]
    fn what_modules_could_take_for_something_else_is_no_request() {
        let decode = |user: &[u8], rhost: &[u8], tty: &[u8]| {
            let request = Request::decode(body(&encode_unchecked(user, b"s3cret", rhost, tty)));
            request.map(drop).err()
        };
        assert_eq!(decode(b"alice", b"", b"smtp"), None);
        assert_eq!(decode("j\u{f6}rg".as_bytes(), b"2001:db8::1", b"smtps-1_x.y"), None);
        let user = Some(FormatError::Value("user"));
        for odd in
            [&b""[..], b"../alice", b"a/b", b"al\nice", b"al\x7fice", b"al\xc2\x85ice", b"al\0ice", b"\xff"]
        {
            assert_eq!(decode(odd, b"", b"smtp"), user, "{odd:?}");
        }
        for odd in [&b"mail.example.com"[..], b"192.0.2.7 ", b"192.0.2", b"::1%eth0", b"$(id)", b"\n"] {
            assert_eq!(decode(b"alice", odd, b"smtp"), Some(FormatError::Value("rhost")), "{odd:?}");
        }
        for odd in [&b""[..], b"/dev/tty1", b"a b", b"a\nb", b"\xc3\xa4", &[b'x'; 65]] {
            assert_eq!(decode(b"alice", b"", odd), Some(FormatError::Value("tty")), "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_decoded_keeps_the_rules_and_is_encoded_the_same(
            user in field("[a-z/\\x00-\\x1f\\u{80}-\\u{9f}]{0,4}"),
            password in field("[a-z\\x00]{0,4}"),
            rhost in field("(192\\.0\\.2\\.[0-9]{1,4}|2001:db8::[0-9a-g]{1,4}|[a-z0-9.]{0,5})"),
            tty in field("[a-z/ ._-]{0,4}"),
        ) {
            let frame = encode_unchecked(&user, &password, &rhost, &tty);
            if let Ok(request) = Request::decode(body(&frame)) {
                prop_assert!(is_user(&request.user));
                prop_assert!(request.rhost.is_empty() || request.rhost.parse::<IpAddr>().is_ok());
                prop_assert!(is_tty(request.tty.as_bytes()));
                prop_assert!(!request.password.is_empty() && !request.password.as_bytes().contains(&0));
                prop_assert_eq!(request.encode().unwrap(), frame);
            }
        }

        #[test]
        fn no_bytes_are_too_odd_to_be_refused(
            frame in proptest::collection::vec(any::<u8>(), 0..64),
            at in 0_usize..40,
            byte: u8,
        ) {
            let _ = (Request::decode(&frame), Answer::decode(&frame), Hello::decode(&frame), Ready::decode(&frame));
            let mut almost = body(&request("alice", b"s3cret").encode().unwrap()).to_vec();
            let at = at % almost.len();
            almost[at] = byte;
            if let Ok(request) = Request::decode(&almost) {
                let again = request.encode().unwrap();
                prop_assert_eq!(body(&again), &almost[..]);
            }
        }
    }

    /// Mostly what the pattern says, sometimes anything.
    fn field(pattern: &'static str) -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => pattern.prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..300),
        ]
    }

    #[test]
    fn the_longest_messages_fit_into_a_frame() {
        let longest = Request {
            rhost: "2001:db8:1111:2222:3333:4444:255.255.255.255".to_owned(),
            tty: "x".repeat(MAX_ITEM_BYTES),
            ..request(&"x".repeat(MAX_USER_BYTES), &[b'x'; MAX_PASSWORD_BYTES])
        };
        assert!(body(&longest.encode().unwrap()).len() <= MAX_FRAME_BYTES);
        let text = Outcome::Undecided(Trouble::Crashed, "ä".repeat(4_000));
        let answer = Answer { id: 1, outcome: text, last: false };
        assert!(Answer::decode(body(&answer.encode())).is_ok());
    }
}
