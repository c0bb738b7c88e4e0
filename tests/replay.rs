//! Replays every dialog against sasld: as written, byte by byte, and in random chunks.
//!
//! `memory` is a `Session` in virtual time, so that 150 seconds and a day are nothing.
//! `socket` is the built daemon on a Unix socket, one instance per profile and test, in real time; dialogs that wait
//! longer than three seconds at a stretch are left out there, and counted aloud.

#![allow(missing_docs, reason = "a test program has no readers of its documentation")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

#[allow(dead_code, reason = "each test program uses its part of the shared module")]
mod dialog;

use dialog::daemon::{Daemon, Shared};
use dialog::memory::Memory;
use dialog::replay::{Cut, Server, replay};
use dialog::report::{self, Fate};
use dialog::{Dialog, LONGEST_REAL_WAIT, Subject};

/// The ways in which a client's bytes can arrive.
const CUTS: [Cut; 4] = [Cut::Whole, Cut::Bytes, Cut::Random(2195), Cut::Random(4616)];

/// Replays a dialog in every cut, all at the same time, since most of it is waiting.
fn every_cut<S: Server>(dialog: &Dialog, server: impl Fn() -> S + Sync) -> Fate {
    let play = |cut| replay(dialog, &mut server(), Subject::Sasld, cut).map_err(|e| format!("{cut:?}: {e}"));
    let play = &play;
    let result = std::thread::scope(|scope| {
        let cuts = CUTS.map(|cut| scope.spawn(move || play(cut)));
        cuts.map(|cut| cut.join().expect("what goes wrong is reported")).into_iter().collect()
    });
    match result {
        Ok(()) => Fate::Passed,
        Err(report) => Fate::Failed(report),
    }
}

fn in_memory(name: &str) {
    report::all(&format!("memory {name}"), &dialog::group(name), |dialog| {
        every_cut(dialog, || Memory::start(&dialog.profile))
    });
}

fn over_a_socket(name: &str) {
    let running: Mutex<HashMap<String, Arc<Daemon>>> = Mutex::default();
    report::all(&format!("socket {name}"), &dialog::group(name), |dialog| {
        let wait = dialog.longest_wait(Subject::Sasld);
        if wait > LONGEST_REAL_WAIT {
            return Fate::Skipped(format!("waits {wait:?}"));
        }
        let start = |daemon| Shared { daemon, start: Instant::now() };
        if dialog.changes_files() {
            return every_cut(dialog, || start(Arc::new(Daemon::start(&dialog.profile))));
        }
        let daemon = {
            let mut running = running.lock().expect("a daemon that did not start has ended the test");
            let profile = dialog.profile.clone();
            Arc::clone(running.entry(profile).or_insert_with(|| Arc::new(Daemon::start(&dialog.profile))))
        };
        every_cut(dialog, || start(Arc::clone(&daemon)))
    });
}

macro_rules! groups {
    ($($name:ident)*) => {
        mod memory {
            $(#[test] fn $name() { super::in_memory(stringify!($name)); })*
        }
        mod socket {
            $(#[test] fn $name() { super::over_a_socket(stringify!($name)); })*
        }
        #[test]
        fn every_group_has_a_test() {
            assert_eq!([$(stringify!($name)),*], dialog::GROUPS);
        }
    };
}

groups! {
    handshake lines auth ids base64 cont cancel pipeline replies plain login cram clients secrets
}
