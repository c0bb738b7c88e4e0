//! `make manuals`: writes every manual page and the completions for bash, zsh and fish into the directory given.
//!
//! The directory is laid out as it is installed: `man8/sasld.8`, `completions/zsh/_sasld`. [`pages`] says where each
//! page comes from. What cannot be written ends it with a message and exit status 1.

mod pages;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: manuals DIRECTORY");
        return ExitCode::from(64);
    };
    match pages::write_all(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manuals: {}: {error}", Path::new(&directory).display());
            ExitCode::FAILURE
        }
    }
}
