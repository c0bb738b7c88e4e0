//! `sasld`: the daemon and every admin command. What they do is in the library; see `sasld::cli`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sasld::cli::run(std::env::args_os())
}
