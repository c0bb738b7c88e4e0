//! Random schedules: what a mail server, its users, the passdbs, the operator and the clock might do, one event at a time.
//!
//! Everything follows from one number, so a schedule that fails is named by it and can be run again. Events are made
//! with the game in sight (a digest of the challenge just sent, the right password of somebody else), for a random
//! byte hardly ever gets past the first check.

use crate::model::{Awaits, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// Who has which password.
pub type Users = BTreeMap<&'static str, &'static str>;

/// What the operator has decided, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Rules {
    pub mechanisms: Vec<&'static str>,
    pub require_tls: bool,
    pub refusal_delay: Duration,
    pub deadline: Duration,
    pub on_outage: &'static str,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// The client writes a line.
    Write(Line),
    /// So many bytes of what it has written arrive.
    Deliver(usize),
    /// A passdb answers an open question, or cannot.
    Answer { outage: bool },
    /// Time passes.
    Pass(Duration),
    /// A new configuration.
    Reload(Rules),
    /// Somebody gets another password, or none any more.
    Change(&'static str, Option<&'static str>),
    /// The client hangs up.
    HangUp,
}

#[derive(Clone, Debug)]
pub enum Line {
    Version { major: u32, minor: u32 },
    Cpid,
    Auth { id: u32, mechanism: &'static str, service: &'static str, secured: bool, said: Said },
    Cont { id: u32, said: Said },
    Cancel { id: u32 },
    Broken(&'static str),
}

/// What a user's program says.
#[derive(Clone, Debug)]
pub enum Said {
    Nothing,
    Blank,
    Bytes(Vec<u8>),
    NotBase64(&'static str),
}

impl Said {
    /// As an initial response, which is missing rather than empty for old clients.
    pub fn in_auth(&self, minor: u32) -> Result<Option<Vec<u8>>, ()> {
        match self {
            Self::Nothing => Ok(None),
            Self::Blank => Ok((minor >= 2).then(Vec::new)),
            Self::Bytes(bytes) => Ok(Some(bytes.clone())),
            Self::NotBase64(_) => Err(()),
        }
    }

    pub fn in_cont(&self) -> Result<Vec<u8>, ()> {
        match self {
            Self::Nothing | Self::Blank => Ok(Vec::new()),
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::NotBase64(_) => Err(()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Nothing | Self::Blank => String::new(),
            Self::Bytes(bytes) if bytes.is_empty() => "=".to_owned(),
            Self::Bytes(bytes) => BASE64_STANDARD.encode(bytes),
            Self::NotBase64(text) => (*text).to_owned(),
        }
    }
}

impl Line {
    pub fn encode(&self) -> String {
        match self {
            Self::Version { major, minor } => format!("VERSION\t{major}\t{minor}\n"),
            Self::Cpid => "CPID\t4711\n".to_owned(),
            Self::Auth { id, mechanism, service, secured, said } => {
                let secured = if *secured { "\tsecured" } else { "" };
                let said = match said {
                    Said::Nothing => String::new(),
                    said => format!("\tresp={}", said.text()),
                };
                format!("AUTH\t{id}\t{mechanism}\tservice={service}{secured}{said}\n")
            }
            Self::Cont { id, said } => format!("CONT\t{id}\t{}\n", said.text()),
            Self::Cancel { id } => format!("CANCEL\t{id}\n"),
            Self::Broken(line) => format!("{line}\n"),
        }
    }
}

/// Where a schedule's decisions come from: numbers that look random and follow from the first one (SplitMix64), or
/// the bytes that a fuzzer made up.
#[derive(Debug)]
pub enum Dice {
    Seeded(u64),
    Bytes(VecDeque<u8>),
}

impl Dice {
    /// There is nothing more to decide with.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Bytes(bytes) if bytes.is_empty())
    }

    pub fn roll(&mut self, below: u64) -> u64 {
        match self {
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (z ^ (z >> 31)) % below
            }
            Self::Bytes(bytes) => u64::from(bytes.pop_front().unwrap_or_default()) % below,
        }
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.roll(from.len() as u64);
        from[usize::try_from(index).expect("it is below a length")]
    }

    pub fn rules(&mut self) -> Rules {
        let mechanisms: [&[&str]; 4] =
            [&["PLAIN", "LOGIN", "CRAM-MD5"], &["PLAIN", "LOGIN", "CRAM-MD5"], &["PLAIN"], &["CRAM-MD5"]];
        Rules {
            mechanisms: self.pick(&mechanisms).to_vec(),
            require_tls: self.one_in(4),
            refusal_delay: Duration::from_millis(self.pick(&[0, 1_000, 2_000])),
            deadline: Duration::from_millis(self.pick(&[4_000, 8_000])),
            on_outage: self.pick(&["auto", "close", "fail"]),
        }
    }

    /// What happens next, in sight of what open requests wait for and of how many questions are with the passdbs.
    pub fn event(&mut self, users: &Users, open: &[(u32, Awaits)], questions: usize) -> Event {
        match self.roll(100) {
            0..36 => Event::Write(self.line(users, open)),
            36..60 => Event::Deliver(self.pick(&[1, 30, 4_000, usize::MAX, usize::MAX])),
            60..84 if questions > 0 => Event::Answer { outage: self.one_in(10) },
            84..94 => Event::Pass(Duration::from_millis(match self.roll(60) {
                0 => 150_000,
                1 => 31_000,
                2..8 => 8_000,
                _ => self.pick(&[1, 300, 999, 1_000, 1_000, 2_500]),
            })),
            94 => Event::Reload(self.rules()),
            95..98 => Event::Change(
                self.pick(&["alice", "bob"]),
                self.pick(&[Some("wonder"), Some("builder"), None]),
            ),
            98 if self.one_in(3) => Event::HangUp,
            _ => Event::Deliver(usize::MAX),
        }
    }

    fn line(&mut self, users: &Users, open: &[(u32, Awaits)]) -> Line {
        let any = self.pick(&[1, 2, 3, 4, u32::MAX]);
        let open_one = (!open.is_empty()).then(|| self.roll(open.len() as u64));
        let open_one = open_one.and_then(|index| open.get(usize::try_from(index).expect("below a length")));
        match self.roll(64) {
            0..28 => {
                let taken = |id: &u32| open.iter().any(|(other, _)| other == id);
                let free = [1, 2, 3, 4, u32::MAX].into_iter().find(|id| !taken(id)).unwrap_or(any);
                let id = if self.one_in(40) { any } else { free };
                let mechanism =
                    self.pick(&["PLAIN", "plain", "LOGIN", "login", "CRAM-MD5", "Cram-Md5", "GSSAPI"]);
                let service = self.pick(&["smtp", "SMTP", "imap"]);
                let said = match (mechanism, self.roll(8)) {
                    (_, 0) => self.anything(users),
                    (_, 1..4) => Said::Nothing,
                    ("PLAIN" | "plain", _) => self.fitting(&Awaits::Message, users),
                    ("LOGIN" | "login", _) => self.fitting(&Awaits::Name, users),
                    _ => Said::Blank,
                };
                Line::Auth { id, mechanism, service, secured: !self.one_in(4), said }
            }
            28..56 => match open_one {
                Some((id, awaits)) if !self.one_in(8) => {
                    Line::Cont { id: *id, said: self.fitting(awaits, users) }
                }
                // The right words for another request, or for none.
                Some((_, awaits)) => Line::Cont { id: any, said: self.fitting(awaits, users) },
                None => Line::Cont { id: any, said: self.anything(users) },
            },
            56..59 => match open_one {
                Some((id, _)) => Line::Cont { id: *id, said: self.anything(users) },
                None => Line::Cancel { id: any },
            },
            59..62 => Line::Cancel { id: open_one.map_or(any, |(id, _)| *id) },
            62 => Line::Cont { id: 0, said: Said::Blank },
            _ if self.one_in(8) => Line::Broken(self.pick(BROKEN)),
            _ => Line::Cancel { id: any },
        }
    }

    /// What the request waits for, more or less.
    fn fitting(&mut self, awaits: &Awaits, users: &Users) -> Said {
        let name = self.name();
        match awaits {
            Awaits::Message => {
                let authzid = self.pick(&["", "", "", "", name, "bob", "Alice"]);
                let password = self.password(users, name);
                Said::Bytes([authzid.as_bytes(), name.as_bytes(), &password].join(&0))
            }
            Awaits::Name => Said::Bytes(name.into()),
            Awaits::Password(name) => Said::Bytes(self.password(users, name)),
            Awaits::Digest(challenge) => {
                let password = self.password(users, name);
                let digest = digest(challenge, &password);
                let digest = match self.roll(12) {
                    0 => digest[..31].to_owned(),
                    1 => digest.to_ascii_uppercase(),
                    _ => digest,
                };
                Said::Bytes(format!("{name} {digest}").into())
            }
            Awaits::Nothing => self.anything(users),
        }
    }

    fn anything(&mut self, users: &Users) -> Said {
        let name = self.name();
        match self.roll(9) {
            0 => Said::Nothing,
            1 => Said::Blank,
            2 => Said::NotBase64(self.pick(&["!", "YQ=", "YR==", "YQ", "Y Q=="])),
            3 => Said::Bytes(Vec::new()),
            4 => Said::Bytes(b"\0\0\0\0".to_vec()),
            5 => Said::Bytes(name.into()),
            6 => Said::Bytes(self.password(users, name)),
            7 => Said::Bytes([b"", name.as_bytes(), &self.password(users, name)].join(&0)),
            _ => Said::Bytes(format!("{name} {}", digest("", &self.password(users, name))).into()),
        }
    }

    fn name(&mut self) -> &'static str {
        self.pick(&[
            "alice", "ALICE", "bob", "bob", "alice", "carol", "al ice", "", "bob\u{0}", "zoë", "a\tb",
        ])
    }

    fn password(&mut self, users: &Users, name: &str) -> Vec<u8> {
        let right = users.get(name.to_ascii_lowercase().as_str()).copied().unwrap_or("wonder");
        match self.roll(12) {
            0 => Vec::new(),
            1 => b"wrong".to_vec(),
            2 => right.to_ascii_uppercase().into(),
            3 => self.pick(&["wonder", "builder"]).into(),
            4 if self.one_in(20) => vec![b'x'; 1_025],
            _ => right.into(),
        }
    }
}

/// Lines that are not this protocol.
const BROKEN: &[&str] = &[
    "",
    "AUTH",
    "OK\t1\tuser=alice",
    "auth\t1\tPLAIN",
    "CONT\tx\t",
    "CANCEL\t0",
    "AUTH\t1\tPLAIN",
    "AUTH\t9\tPLAIN\tservice=smtp\tresp=YQ==\tsecured",
    "VERSION\t1",
];
