//! What test programs share: starting the built daemon in a private directory, reading its log, talking to it as a mail
//! server does, and running the other commands.

pub mod acl;
pub mod log;
pub mod peer;
pub mod power;
pub mod sasld;
pub mod short;
pub mod skip;
pub mod soak;

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs a command with this on its standard input, and collects what it prints.
pub fn feed(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}
