//! The fuzz targets over what is known already: the committed corpus, every dialog's bytes, and simple damage to both.
//!
//! `make fuzz` looks for new inputs; this keeps the old ones from coming back, without a fuzzer and in seconds. With
//! `SASLD_FUZZ_SEEDS` set to a folder, the dialogs are written there for the fuzzer to begin with.

use crate::dialog::memory::Memory;
use crate::dialog::replay::{Cut, Peer, Received, Server, replay};
use crate::dialog::{self, Subject};
use crate::schedule::Dice;
use crate::targets::{TARGETS, Target};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// How many damaged copies of each input are tried.
const DAMAGED: u64 = 20;

/// A server that keeps what its clients send.
struct Recorder {
    server: Memory,
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
}

struct Recorded {
    peer: Box<dyn Peer>,
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
    connection: usize,
}

impl Server for Recorder {
    fn connect(&mut self) -> io::Result<Box<dyn Peer>> {
        let peer = self.server.connect()?;
        let connection = self.sent.borrow().len();
        self.sent.borrow_mut().push(Vec::new());
        Ok(Box::new(Recorded { peer, sent: Rc::clone(&self.sent), connection }))
    }

    fn now(&self) -> Duration {
        self.server.now()
    }

    fn change_secrets(&mut self, contents: Option<&[u8]>) -> io::Result<()> {
        self.server.change_secrets(contents)
    }
}

impl Peer for Recorded {
    fn send(&mut self, bytes: &[u8]) {
        self.sent.borrow_mut()[self.connection].extend_from_slice(bytes);
        self.peer.send(bytes);
    }

    fn half_close(&mut self) {
        self.peer.half_close();
    }

    fn receive(&mut self, within: Duration) -> Received {
        self.peer.receive(within)
    }
}

/// What the client of every connection in every dialog says.
fn dialogs() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for dialog in dialog::all() {
        let sent = Rc::default();
        let mut server = Recorder { server: Memory::start(&dialog.profile), sent: Rc::clone(&sent) };
        if let Err(report) = replay(&dialog, &mut server, Subject::Sasld, Cut::Whole) {
            panic!("{}: {report}", dialog.name);
        }
        for (connection, bytes) in sent.take().into_iter().enumerate() {
            all.push((format!("{}-{connection}", dialog.name.replace('/', "-")), bytes));
        }
    }
    all
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |entry: io::Result<std::fs::DirEntry>| std::fs::read(entry.expect("a folder").path());
    entries.map(|entry| read(entry).expect("a file")).collect()
}

/// The input as it is, and with bytes changed, taken away and doubled.
fn play(name: &str, target: Target, input: &[u8], dice: &mut Dice) {
    let run = |input: &[u8]| {
        let played = std::panic::catch_unwind(|| target(input));
        played.unwrap_or_else(|_| panic!("{name} fails with {}", input.escape_ascii()));
    };
    run(input);
    for _ in 0..DAMAGED {
        let mut damaged = input.to_vec();
        for _ in 0..=dice.roll(4) {
            let at = usize::try_from(dice.roll(damaged.len() as u64 + 1)).expect("below a length");
            let byte = u8::try_from(dice.roll(256)).expect("below 256");
            match dice.roll(4) {
                0 => damaged.insert(at, byte),
                1 => damaged.truncate(at),
                2 => damaged.extend_from_within(at..),
                _ if at < damaged.len() => damaged[at] ^= 1 << (byte % 8),
                _ => damaged.push(byte),
            }
        }
        run(&damaged);
    }
}

#[test]
fn every_target_holds_for_its_corpus() {
    let mut dice = Dice::Seeded(1);
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
        for input in inputs {
            play(name, *target, &input, &mut dice);
        }
    }
}

#[test]
fn a_session_holds_for_every_dialog() {
    let target = |wanted: &str| TARGETS.iter().find(|(name, _)| *name == wanted).expect(wanted).1;
    let (session, command) = (target("session"), target("command"));
    let mut dice = Dice::Seeded(2);
    let seeds = std::env::var_os("SASLD_FUZZ_SEEDS");
    for (name, bytes) in dialogs() {
        play("session", session, &bytes, &mut dice);
        for line in bytes.split(|&byte| byte == b'\n') {
            command(line);
        }
        if let Some(folder) = &seeds {
            std::fs::create_dir_all(folder).expect("SASLD_FUZZ_SEEDS can be made");
            std::fs::write(Path::new(folder).join(name), bytes).expect("SASLD_FUZZ_SEEDS can be written to");
        }
    }
}
