//! Ending early: SIGINT, SIGTERM and SIGHUP let the benchmark stop its servers and remove their directories.
//!
//! A thread notes the signal; whoever loops asks [`check`], which turns it into an error on the ordinary way out. That
//! takes as long as the longest wait, half a minute at most.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tokio::{
    runtime, select,
    signal::unix::{SignalKind, signal},
};

use crate::Outcome;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Catches the signals from here on. Nothing is blocked, which the servers would inherit.
pub fn watch() -> Outcome<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let context = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(context);
    thread::spawn(move || {
        runtime.block_on(async {
            select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// # Errors
/// After a signal.
pub fn check() -> Outcome<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
}
