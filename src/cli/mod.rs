//! The commands.

pub mod prompt;
