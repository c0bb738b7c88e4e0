//! What is fuzzed: one function for each place where bytes of a stranger arrive, each with what must hold for any bytes.
//!
//! That nothing panics, hangs or grows without bound is watched by the fuzzer. What the functions check themselves is
//! stronger: that cutting bytes differently changes nothing, that what was printed is read back as the same, that a
//! name or password that may not exist does not come out, and, for a whole session, that an OK means that the right
//! secret for that name was presented.

use crate::schedule::Dice;
use crate::world::World;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use core::time::Duration;
use nix::errno::Errno;
use sasld::client::{Client, Outcome};
use sasld::config::{Accounts, Config, Source};
use sasld::credential::{Password, Verifier, Verifiers};
use sasld::pam::frame::{FrameBuffer, MAX_FRAME_BYTES};
use sasld::pam::request::{Answer as PamAnswer, Hello, Ready, Request};
use sasld::policy::{OnOutage, Policy, ServicePolicy};
use sasld::sasl::{
    Answer, AwaitingAnswer, Context, CramMd5Credential, MAX_PASSWORD_BYTES, Mechanism, NameRules, Question,
    Refusal, Seed, Step,
};
use sasld::secrets::{Names, Net, Secrets, SecretsEditor};
use sasld::session::{Action, Moment, Session};
use sasld::wire::field::{escape, unescape};
use sasld::wire::{Command, LineBuffer, LineError, MAX_LINE_BYTES, Reply};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Cursor, Read, Write};
use std::sync::LazyLock;
use zeroize::Zeroizing;

/// Something that takes a stranger's bytes.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("line", line),
    ("field", field),
    ("command", command),
    ("plain", plain),
    ("login", login),
    ("cram_md5", cram_md5),
    ("session", session),
    ("schedule", schedule),
    ("client", client),
    ("secrets", secrets),
    ("edit", edit),
    ("verifier", verifier),
    ("networks", networks),
    ("config", config),
    ("pam_frame", pam_frame),
    ("pam_request", pam_request),
];

/// Lines, however their bytes are cut. The first byte says how large the pieces are.
fn line(data: &[u8]) {
    let Some((&size, data)) = data.split_first() else { return };
    let whole = lines(data, data.len().max(1));
    let pieces = lines(data, usize::from(size).max(1));
    match (&whole, &pieces) {
        // Where a line is too long depends on the pieces only in when that is noticed.
        ((all, Err(_)), (some, Err(_))) => assert!(all.starts_with(some) || some.starts_with(all)),
        (whole, pieces) => assert_eq!(whole, pieces),
    }
}

/// The lines, each with a LF.
fn lines(data: &[u8], size: usize) -> (Vec<u8>, Result<(), LineError>) {
    let (mut buffer, mut whole, mut lines) = (LineBuffer::default(), Vec::new(), Vec::new());
    for mut chunk in data.chunks(size) {
        loop {
            match buffer.next_line(&mut chunk, &mut whole) {
                Ok(Some(line)) => {
                    assert!(line.len() < MAX_LINE_BYTES && !line.contains(&b'\n') && !line.contains(&0));
                    lines.extend_from_slice(line);
                    lines.push(b'\n');
                }
                Ok(None) => break,
                Err(error) => return (lines, Err(error)),
            }
        }
    }
    (lines, Ok(()))
}

/// A field stays one field, and comes back as it was.
fn field(data: &[u8]) {
    let mut escaped = Vec::new();
    escape(data, &mut escaped);
    assert!(!escaped.iter().any(|byte| b"\t\n\r\0".contains(byte)));
    assert_eq!(&*unescape(&escaped), data);
    assert!(unescape(data).len() <= data.len());
}

/// One line of a mail server. What is said about a bad one repeats next to nothing of it.
fn command(data: &[u8]) {
    match Command::parse(data) {
        Ok(Command::Auth(auth)) => {
            assert_ne!(auth.id.to_string(), "0");
            for minor in [0, 1, 2, 4] {
                assert!(auth.initial_response.base64(minor).is_none_or(|text| text.len() <= data.len()));
            }
            assert!(format!("{:?}", auth.initial_response).len() < 20, "a password was printed");
        }
        Ok(_) => {}
        Err(error) => assert!(error.to_string().len() < 200 && !error.to_string().contains('\n')),
    }
}

/// Made once: an input should cost what it is about.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let default_service =
        ServicePolicy { mechanisms: Mechanism::ALL.to_vec(), require_tls: false, allow_nets: None };
    Policy {
        host: "mail.example.com".to_owned(),
        names: NameRules::default(),
        default_service,
        services: BTreeMap::new(),
        refusal_delay: Duration::ZERO,
        deadline: Duration::from_secs(8),
        on_outage: OnOutage::Auto,
        max_exchanges: 16,
    }
});

fn context() -> Context<'static> {
    Context { names: &POLICY.names, host: &POLICY.host }
}

/// A question may only be about a name that can exist and a password that could be right.
fn is_sound(question: &Question) {
    let name = question.name().as_str();
    assert!((1..=255).contains(&name.len()));
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte)));
    assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
    if let Question::VerifyPassword(_, password) = question {
        assert!((1..=MAX_PASSWORD_BYTES).contains(&password.len()) && !password.as_bytes().contains(&0));
    }
}

fn seed() -> Seed {
    Seed { random: [7; 16], unix_seconds: 1_800_000_000 }
}

fn start(mechanism: Mechanism, response: Option<&[u8]>) -> Step {
    mechanism.start(response, &context(), seed)
}

fn plain(data: &[u8]) {
    let direct = start(Mechanism::Plain, Some(data));
    let Step::Challenge(prompt, awaiting) = start(Mechanism::Plain, None) else { panic!("no challenge") };
    assert!(prompt.is_empty());
    let later = awaiting.respond(data, &context());
    match (direct, later) {
        (Step::Ask(one, _), Step::Ask(other, _)) => {
            is_sound(&one);
            assert_eq!(one.name(), other.name());
            let parts: Vec<&[u8]> = data.split(|&byte| byte == 0).collect();
            assert_eq!(parts.len(), 3);
            assert!(parts[1].eq_ignore_ascii_case(one.name().as_str().as_bytes()));
            assert!(parts[0].is_empty() || parts[0].eq_ignore_ascii_case(parts[1]));
        }
        (Step::Failure(one), Step::Failure(other)) => assert_eq!(one.refusal, other.refusal),
        (one, other) => panic!("{one:?} is not {other:?}"),
    }
}

/// Name and password, divided by the first line feed.
fn login(data: &[u8]) {
    let divide = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (name, password) = (&data[..divide], data.get(divide + 1..).unwrap_or_default());
    let Step::Challenge(_, awaiting) = start(Mechanism::Login, None) else { panic!("no challenge") };
    match awaiting.respond(name, &context()) {
        Step::Challenge(prompt, awaiting) => {
            assert_eq!(prompt, b"Password:");
            match awaiting.respond(password, &context()) {
                Step::Ask(question, _) => {
                    is_sound(&question);
                    let Question::VerifyPassword(_, asked) = question else { panic!("another question") };
                    assert_eq!(asked.as_bytes(), password);
                }
                Step::Failure(_) => {}
                other => panic!("{other:?}"),
            }
        }
        Step::Failure(_) => {}
        other => panic!("{other:?}"),
    }
}

/// Only the one right digest is let in, whatever else is sent.
fn cram_md5(data: &[u8]) {
    if !data.is_empty() {
        assert!(matches!(start(Mechanism::CramMd5, Some(data)), Step::Failure(_)));
    }
    let Step::Challenge(challenge, awaiting) = start(Mechanism::CramMd5, None) else {
        panic!("no challenge")
    };
    match awaiting.respond(data, &context()) {
        Step::Ask(question, awaiting) => {
            is_sound(&question);
            let challenge = String::from_utf8(challenge).expect("a challenge is text");
            let right = crate::model::digest(&challenge, b"wonder");
            let (_, digest) = data.split_at(data.len() - 32);
            let is_right = digest.eq_ignore_ascii_case(right.as_bytes());
            assert_eq!(matches!(resume(awaiting), Step::Success(_)), is_right);
        }
        Step::Failure(_) => {}
        other => panic!("{other:?}"),
    }
}

fn resume(awaiting: AwaitingAnswer) -> Step {
    awaiting.resume(Answer::Credential(CramMd5Credential { key: wonder(), refusal: None }))
}

fn wonder() -> sasld::credential::CramMd5Key {
    Verifier::parse(b"{PLAIN}wonder").expect("it is one").cram_md5().expect("it serves CRAM-MD5")
}

/// A connection's bytes, as they come. Somebody who is let in has said his password in one of these lines.
fn session(data: &[u8]) {
    let (policy, now) = (&*POLICY, Moment(Duration::from_secs(1)));
    let mut session = Session::new(now);
    let (mut buffer, mut whole, mut chunk) = (LineBuffer::default(), Vec::new(), data);
    let mut random = 0_u128;
    let mut next = || {
        random += 1;
        Seed { random: random.to_be_bytes(), unix_seconds: 0 }
    };
    let (mut said, mut challenges) = (Vec::new(), Vec::new());
    while let Ok(Some(line)) = buffer.next_line(&mut chunk, &mut whole) {
        said.push(line.to_vec());
        let mut action = session.on_line(line, now, policy, policy.max_exchanges, &mut next);
        if let Action::Ask(ticket, question, _) = action {
            is_sound(&question);
            action = session.on_answer(ticket, Ok(answer(&question)), now, policy, &mut next);
        }
        match action {
            Action::Send(Reply::Cont(_, challenge)) => challenges.push(challenge),
            Action::Settle(_, Some(Reply::Ok(_, user))) => {
                assert_eq!(user.as_str(), "alice");
                assert!(said.iter().any(|line| proves_alice(line, &challenges)), "nobody said the password");
            }
            Action::Close(_) => return,
            _ => {}
        }
        assert!(session.open_exchanges() <= policy.max_exchanges);
    }
}

fn answer(question: &Question) -> Answer {
    let stored = Verifier::parse(b"{PLAIN}wonder").expect("it is one");
    let known = question.name().as_str() == "alice";
    match question {
        Question::VerifyPassword(_, password) => {
            let proof = stored.verify(password).filter(|_| known);
            Answer::Verdict(proof.ok_or(Refusal::WrongPassword))
        }
        Question::LookupCramMd5(_) => {
            let refusal = (!known).then_some(Refusal::UnknownUser);
            Answer::Credential(CramMd5Credential { key: wonder(), refusal })
        }
    }
}

/// Whether this line holds alice's password, or the digest that only it makes.
fn proves_alice(line: &[u8], challenges: &[Vec<u8>]) -> bool {
    let last = line.rsplit(|&byte| byte == b'\t').next().unwrap_or_default();
    let last = unescape(last);
    let base64 = last.strip_prefix(b"resp=").unwrap_or(&last);
    let Ok(said) = BASE64_STANDARD.decode(base64) else { return false };
    let digests = |digest: &[u8]| {
        challenges.iter().filter_map(|challenge| std::str::from_utf8(challenge).ok()).any(|challenge| {
            crate::model::digest(challenge, b"wonder").as_bytes().eq_ignore_ascii_case(digest)
        })
    };
    said == b"wonder"
        || said.to_ascii_lowercase().ends_with(b"alice\0wonder") && said.ends_with(b"\0wonder")
        || said.len() > 32 && digests(&said[said.len() - 32..])
}

/// Random schedules beside the model, with the fuzzer in the place of chance.
fn schedule(data: &[u8]) {
    World::new(Dice::Bytes(VecDeque::from(data.to_vec()))).play();
}

/// What a server says to a client of ours: a login is accepted only by an OK, and under the name that is in it.
fn client(data: &[u8]) {
    for &mechanism in Mechanism::ALL {
        let Ok(mut client) = Client::over(Server(Cursor::new(data.to_vec())), "a server") else { return };
        let password = Password::new("wonderland");
        if let Ok(Outcome::Accepted { user }) = client.log_in(mechanism, "service=smtp", "alice", &password) {
            let names_him = |field: &[u8]| {
                let field = unescape(field);
                field.strip_prefix(b"user").is_some_and(|rest| String::from_utf8_lossy(rest).contains(&user))
            };
            let accepts =
                |line: &[u8]| line.starts_with(b"OK\t") && line.split(|byte| *byte == b'\t').any(names_him);
            assert!(data.split(|byte| *byte == b'\n').any(accepts), "{user:?}");
        }
    }
}

/// Says what it has to say, whatever it hears.
struct Server(Cursor<Vec<u8>>);

impl Read for Server {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Server {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every user of a file can be looked up under his own name and no other; no entry is open without a verifier.
fn secrets(data: &[u8]) {
    let rules = &POLICY.names;
    let allowed = |name: &str| rules.canonical(name.as_bytes()).is_ok();
    let names = Names { lowercase: true, allowed: &allowed };
    let secrets = Secrets::parse(Zeroizing::new(data.to_vec()), &names);
    let mut users = 0;
    for name in secrets.names() {
        users += 1;
        let entry = secrets.lookup(name).unwrap_or_else(|| panic!("{name:?} is not found"));
        assert_eq!(entry.name, name);
        assert_eq!(names.canonical(name), name);
        assert!(entry.closed.is_some() || entry.verifiers.is_some(), "{name:?} is open without a password");
        if let Some(verifiers) = &entry.verifiers {
            assert!(
                verifiers.strongest().verify(&Password::new(Vec::new())).is_none(),
                "empty is a password"
            );
        }
    }
    assert_eq!(users, secrets.len());
    assert!(secrets.lookup("nobody-has-this-name").is_none() || data.len() > 20);
    if let Some(decoy) = secrets.decoy("nobody") {
        assert!(decoy.closed.is_some() && decoy.verifiers.is_some());
    }
}

/// What the admin commands do to a file leaves everybody else's lines alone. The first line is the user's name.
fn edit(data: &[u8]) {
    let divide = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let Ok(name) = std::str::from_utf8(&data[..divide]) else { return };
    let before = data.get(divide + 1..).unwrap_or_default();
    let Ok(mut editor) = SecretsEditor::new(Zeroizing::new(before.to_vec()), true) else { return };
    let had = editor.has(name);
    match editor.add(name, b"{PLAIN}secret") {
        Ok(()) => {
            assert!(!had && editor.has(name));
            assert!(editor.contents().starts_with(before));
            assert!(editor.add(name, b"{PLAIN}secret").is_err());
            assert!(editor.set_password(name, b"{PLAIN}other").is_ok());
            assert!(editor.remove(name).is_ok() && !editor.has(name));
            // An empty file looks like an accident, so the last user leaves a comment behind.
            let was_empty = before.is_empty() || before == "\u{feff}".as_bytes();
            let after = editor.contents();
            assert!(
                after == before || (was_empty && after.ends_with(b"\n")),
                "the others' lines have changed"
            );
        }
        Err(_) => assert_eq!(editor.contents(), before),
    }
}

/// A password field is written as it was read.
fn verifier(data: &[u8]) {
    if let Ok(verifier) = Verifier::parse(data) {
        let again = Verifier::parse(verifier.encode().as_bytes()).expect("what we write we can read");
        assert_eq!(*again.encode(), *verifier.encode());
        assert_eq!(again.scheme(), verifier.scheme());
    }
    if let Ok(verifiers) = Verifiers::parse(data) {
        let again = Verifiers::parse(verifiers.encode().as_bytes()).expect("what we write we can read");
        assert_eq!(*again.encode(), *verifiers.encode());
    }
}

/// A list admits as it did before it was printed and read again; the empty one admits nobody.
fn networks(data: &[u8]) {
    let Ok(nets) =
        std::str::from_utf8(data).map_err(drop).and_then(|text| Net::parse_list(text).map_err(drop))
    else {
        return;
    };
    let text = nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    assert_eq!(Net::parse_list(&text).as_ref(), Ok(&nets));
    let admits = |remote| nets.iter().any(|net| net.admits(remote));
    assert!(!nets.is_empty() || !admits(None) && !admits(Some([192, 0, 2, 7].into())));
}

struct Machine;

impl Accounts for Machine {
    fn user(&self, _: &str) -> Result<Option<u32>, Errno> {
        Ok(Some(1_000))
    }

    fn group(&self, _: &str) -> Result<Option<u32>, Errno> {
        Ok(Some(1_000))
    }
}

/// A configuration is complete and sound, or every mistake has a file and is one line.
fn config(data: &[u8]) {
    match Config::from_sources(&[Source::new("/etc/sasld/sasld.yaml", data)], &Machine) {
        Ok(config) => {
            assert!(
                !config.mechanisms.is_empty() && !config.listeners.is_empty() && !config.passdbs.is_empty()
            );
            assert!(
                config.refusal_delay * 5 / 4 < config.deadline && config.deadline <= Duration::from_secs(9)
            );
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.lines().all(|line| line.starts_with("/etc/sasld/sasld.yaml")), "{text}");
        }
    }
}

/// Frames, however their bytes are cut.
fn pam_frame(data: &[u8]) {
    let Some((&size, data)) = data.split_first() else { return };
    let frames = |size: usize| {
        let (mut buffer, mut frames) = (FrameBuffer::default(), Vec::new());
        for chunk in data.chunks(size.clamp(1, MAX_FRAME_BYTES)) {
            buffer.extend(chunk);
            loop {
                match buffer.next_frame() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    };
    let whole = frames(MAX_FRAME_BYTES);
    assert_eq!(whole, frames(usize::from(size)));
    assert!(whole.0.iter().all(|frame| (1..=MAX_FRAME_BYTES).contains(&frame.len())));
}

/// What the worker and sasld say to each other: a frame that can be read is written the same again.
fn pam_request(data: &[u8]) {
    if let Ok(hello) = Hello::decode(data) {
        assert_eq!(&hello.encode()[4..], data);
    }
    if let Ok(ready) = Ready::decode(data) {
        assert_eq!(&ready.encode()[4..], data);
    }
    if let Ok(answer) = PamAnswer::decode(data) {
        assert_eq!(&answer.encode()[4..], data);
    }
    if let Ok(request) = Request::decode(data) {
        assert_eq!(&request.encode().expect("it was decoded")[4..], data);
        assert!(!request.user.is_empty() && request.password.is_possible());
    }
}
